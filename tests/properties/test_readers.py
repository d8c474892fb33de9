"""Readers of files under spoilt files: our own errors or an answer; no code, no hang, no lost memory, no crash."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.properties import file_mutations as w
from tests.properties import mutations as m
from tests.properties.guards import watched
from tests.properties.readers import ERRORS, all_readers, fuzz, spoilt

READERS = all_readers()
SLOW = {name for name in READERS if name.startswith("state of")}  # a Trainer starts for each file
INPUTS, INPUTS_OF_SLOW = 60, 6


@pytest.mark.parametrize("name", READERS)
def test_a_spoilt_file_is_read_or_refused_and_does_no_harm(name):
    found = fuzz(READERS[name], INPUTS_OF_SLOW if name in SLOW else INPUTS, seed=5)
    assert not found.faults
    assert found.read + found.refused == (INPUTS_OF_SLOW if name in SLOW else INPUTS)


def test_the_same_numbers_give_the_same_files():
    seeds = [b'{"a": [1, 2, {"b": null}]}']
    for number in range(20):
        assert spoilt(seeds, (*m.BYTES, m.json_file), 1, number) == spoilt(seeds, (*m.BYTES, m.json_file), 1, number)
    assert len({spoilt(seeds, m.BYTES, 1, number) for number in range(20)}) > 10


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (lambda path: {}["x"], "KeyError"),
        (lambda path: int("x"), "ValueError"),  # not raised by a line of the package
        (lambda path: exec("1 + 1"), "ran code"),
        (lambda path: eval(compile("1 + 1", "x", "eval")), "ran code"),
        (lambda path: bytearray(300 * 2**20), "MiB"),
        (lambda path: __import__("os")._exit(3), "the process ended"),
        (lambda path: __import__("pickle").loads(path.read_bytes()), "ran code"),
    ],
)
def test_what_a_reader_must_not_do_is_seen(read, fault, tmp_path):
    content = __import__("pickle").dumps(w.Evil())
    found = watched(read, lambda _: content, 2, lambda _: tmp_path / "file", ERRORS)
    assert found.n_faults >= 1
    assert any(fault in text for _, text in found.faults), found.faults


def test_a_mutation_always_gives_bytes(tmp_path: Path):
    reader = READERS["Voice"]
    seeds = reader.seeds(tmp_path)
    changed = sum(spoilt(seeds, (way,), 3, number) not in seeds for way in set(reader.spoil) for number in range(20))
    assert changed > 0.9 * 20 * len(set(reader.spoil))
    assert m.BYTES[0](b"", random.Random(0)) != b""
