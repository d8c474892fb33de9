"""Every reader of files: good files to begin with, how they are spoilt, how they are read, and what may be raised."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.properties import mutations as m
from tests.properties.guards import Finding, watched

ERRORS: tuple[type[BaseException], ...] = (ValueError, TypeError, OSError, FileNotFoundError)
FIXTURES = Path(__file__).parents[1] / "fixtures"


@dataclass(frozen=True)
class Reader:
    """One way to read files.

    Attributes:
        file: Name of the file, with its folders.
        seeds: Writes what has to be in a folder beside the file, and returns files that can be read.
        read: Reads the file at a path.
        spoil: What is done to a seed.
        errors: Kinds of errors that are documented.
        nothing: A file without content is accepted.
    """

    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], Any]
    spoil: tuple[m.Mutation, ...] = m.BYTES
    errors: tuple[type[BaseException], ...] = ERRORS


def stored(*names: str) -> Callable[[Path], list[bytes]]:
    return lambda _: [(FIXTURES / name).read_bytes() for name in names]


def all_readers() -> dict[str, Reader]:
    from tests.properties.readers_divconq import READERS as DIVCONQ
    from tests.properties.readers_lina import READERS as LINA
    from tests.properties.readers_reloop2 import READERS as RELOOP2
    from tests.properties.readers_states import READERS as STATES

    return {**RELOOP2, **DIVCONQ, **LINA, **STATES}


def spoilt(seeds: list[bytes], spoil: tuple[m.Mutation, ...], seed: int, number: int) -> bytes:
    """Return input `number`, a function of the two numbers alone: each way to spoil comes equally often."""
    draw = random.Random(f"{seed} {number}")
    way = spoil[number % len(spoil)]
    data = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 1, 2))):
        try:
            data = way(data, draw)
        except Exception:  # what is spoilt already may be beyond this way
            data = draw.choice(m.BYTES)(data, draw)
        way = draw.choice(spoil)
    return data


def fuzz(reader: Reader, inputs: int, seed: int, first: int = 0) -> Finding:
    """Read spoilt files, after the good ones that also bring in all that is imported late.

    Args:
        reader: What reads them.
        inputs: How many files.
        seed: Seed of what is done to them.
        first: Number of the first of them.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        seeds = reader.seeds(folder)
        place = folder / reader.file
        for good in seeds:  # a reader that refuses these would make the rest say nothing
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(good)
            reader.read(place)
        return watched(
            reader.read,
            lambda number: spoilt(seeds, reader.spoil, seed, first + number),
            inputs,
            lambda _: place,
            reader.errors,
        )
