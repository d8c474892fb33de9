"""Chains: a run is killed, gone on with, killed again, and must end as one that was never killed."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.faults.kill_points import KILL_POINTS, Armed
from tests.faults.victims import Victim, read_diary
from tests.faults.whole_files import OURS, look_at

__all__ = ["Counts", "Reference", "chain", "differences", "uninterrupted"]

PATIENCE_S = 120.0  # for a run of seconds, on a machine that does other things besides
INSIDE = 0.3  # share of the kills that hit right inside the writing of a file

Work = Callable[[Path], None]


@dataclass
class Counts:
    """What came of the kills.

    Attributes:
        kills: Victims killed, by where it hit.
        chains: Runs that were brought to their end.
        divergences: Runs that ended other than the uninterrupted one, with what differs.
        half_written: Files that cannot be read, as found after a kill or in the end.
        temporary: Unfinished files that say so by their names, as found after kills.
        left: The same, in the end.
    """

    kills: Counter[str] = field(default_factory=Counter)
    chains: int = 0
    divergences: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    temporary: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return sum(self.kills.values())


@dataclass(frozen=True)
class Reference:
    """The uninterrupted run: its folder, and how long it took."""

    folder: Path
    seconds: float


def uninterrupted(work: Work, folder: Path, *, twice: bool = True) -> Reference:
    """Run to the end; what is imported on the way, later victims find done.

    Args:
        work: As in `chain`.
        folder: For the run, as "whole".
        twice: Whether it runs again, to see that two runs without any kill are equal, and to measure the second.

    Returns:
        The last one.
    """
    modules, whole = folder / "modules.json", folder / "whole"

    def noting() -> None:
        work(whole)
        modules.write_text(json.dumps(sorted(sys.modules)))

    seconds = _to_the_end(Victim(noting, whole))
    for name in json.loads(modules.read_text()):
        if name not in sys.modules and name.split(".")[0] not in ("tests", "examples", "__mp_main__"):
            _import(name)
    if not twice:
        return Reference(whole, seconds)
    second = folder / "second"
    seconds = _to_the_end(Victim(lambda: work(second), second))
    found = differences(whole, second)
    assert not found, f"two runs without any kill differ: {found}"
    return Reference(second, seconds)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:  # made on the way, or for some platforms only: not worth a word, it only saves time
        sys.modules.pop(name, None)


def _to_the_end(victim: Victim) -> float:
    try:
        code = victim.wait(PATIENCE_S)
    finally:
        victim.kill()
    if code != 0:
        error = victim.folder / "error.txt"
        told = error.read_text() if error.exists() else (victim.folder / "output.txt").read_text()[-3000:]
        raise AssertionError(f"a run ended with {code}: {told}")
    return time.monotonic() - victim.begun


def chain(work: Work, whole: Reference, folder: Path, draw: random.Random, kills: int, counts: Counts) -> None:
    """Begin a run, kill it so often, each time go on, and compare its end with the uninterrupted one.

    Args:
        work: Begins or goes on, in a new process.
        whole: The uninterrupted run.
        folder: For the files of this one.
        draw: Says when.
        kills: How often at most; a run that ends sooner is not killed any more.
        counts: Taken down here.
    """
    ended = False
    for _ in range(kills):
        inside = draw.random() < INSIDE
        point = draw.choice(KILL_POINTS) if inside else None
        # inside a write the victim kills itself; else it is killed at any time of what a whole run takes
        moment = PATIENCE_S if inside else draw.uniform(0, whole.seconds)
        armed = None if point is None else Armed(point, draw.randint(1, 6))
        victim = Victim(lambda: work(folder), folder, armed)
        code = victim.wait(moment)
        victim.kill()
        code = victim.wait(PATIENCE_S) if code is None else code
        if code == 0:  # it came to its end first
            ended = True
            break
        if code > 0:
            counts.divergences.append(f"{folder.name}: could not go on: {(folder / 'error.txt').read_text()[-1500:]}")
            return
        counts.kills[point or "any time"] += 1
        counts.half_written += look_at(folder, counts.temporary)
    if not ended:
        _to_the_end(Victim(lambda: work(folder), folder))
    counts.chains += 1
    counts.half_written += look_at(folder, counts.left)
    found = differences(whole.folder, folder)
    counts.divergences += [f"{folder.name}: {place}" for place in found]
    if not found:
        shutil.rmtree(folder)


# -- comparing ---------------------------------------------------------------------------------------------------------
def differences(whole: Path, other: Path) -> list[str]:
    """What is not the same in two runs: sample order, weights, states of optimizer, method and loops, files."""
    return [*_in_diaries(read_diary(whole), read_diary(other)), *_in_files(whole, other)]


def _in_diaries(whole: dict[int, Any], other: dict[int, Any]) -> list[str]:
    """Steps that a killed run lost are made again, so that each comes at least once and always with the same rows."""
    if whole.keys() != other.keys():
        return [f"processes {sorted(whole)} and {sorted(other)}"]
    wrong = []
    for rank, steps in other.items():
        expected = dict(whole[rank])
        wrong += [
            f"rank {rank}, epoch and batch {place}: other rows" for place, rows in steps if expected.get(place) != rows
        ]
        wrong += [
            f"rank {rank}, epoch and batch {place}: never" for place in sorted(expected.keys() - dict(steps).keys())
        ]
    return wrong[:5]


def _in_files(whole: Path, other: Path) -> list[str]:
    expected, found = _contents(whole), _contents(other)
    wrong = [f"{name}: is only in one of the runs" for name in sorted(expected.keys() ^ found.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if expected[name].read_bytes() != found[name].read_bytes():
            wrong += _unequal(_read(expected[name]), _read(found[name]), name)[:3]
    return wrong


def _read(path: Path) -> Any:
    """What a file says, whatever the order in which it says it."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return {"metadata": file.metadata(), **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118
    return torch.load(path, weights_only=True) if path.suffix in (".ckpt", ".pt") else path.read_bytes()


def _contents(folder: Path) -> dict[str, Path]:
    """The files that a run is to leave; checkpoints to go on from are named after the step, and the last are kept."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    notes = ("process-", "diary-", "output.txt", "error.txt", "acknowledged", OURS, "journal")
    kept = {name: path for name, path in files.items() if name.parts[0] not in ("checkpoints", "tmp")}
    return {str(name): path for name, path in kept.items() if not path.name.startswith(notes)}


# Lightning's own counters, which count steps twice that were made again, and paths of checkpoints; the order of the
# steps is in the diaries
# what WeightAveraging trained on, which at the end of `fit` it replaces by the average (`state_dict`, compared), and
# not in a run that had ended before it was gone on with
_NOT_COMPARED = ("loops", "ModelCheckpoint", "current_model_state")


def _unequal(one: Any, other: Any, place: str) -> list[str]:
    """Places where two states differ."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape
        return [] if same and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)) else [place]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted((key for key in one.keys() | other.keys() if not str(key).startswith(_NOT_COMPARED)), key=str)
        lost = [f"{place}/{key}" for key in keys if key not in one or key not in other]
        return lost + [
            found
            for key in keys
            if key in one and key in other
            for found in _unequal(one[key], other[key], f"{place}/{key}")
        ]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, (a, b) in pairs for found in _unequal(a, b, f"{place}/{number}")]
    return [] if one == other or (one != one and other != other) else [f"{place}: {one!r:.60} and {other!r:.60}"]
