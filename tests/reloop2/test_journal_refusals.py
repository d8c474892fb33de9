"""A journal that is damaged, somebody else's, or in use is refused with a text that says so."""

from __future__ import annotations

import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from lightning_adapt.reloop2.serving import journal as journals
from lightning_adapt.reloop2.serving.journal import Journal, JournalError
from tests.reloop2.journal_parts import entries
from tests.reloop2.predictor_parts import calls, do, predictor, rows


@pytest.fixture
def path(tmp_path):
    """A journal with a snapshot and some entries after it."""
    place = tmp_path / "journal"
    with predictor("knn", journal=Journal(place, snapshot_every=45)) as one:
        for call in calls(12):
            do(one, call)
    assert len(entries(place)) > 4
    return place


def change(path: Path, *lines: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for line in lines:
            assert connection.execute(line).rowcount > 0
        connection.commit()


DAMAGE = {
    "a label": "UPDATE entries SET tensors = substr(tensors, 1, length(tensors) - 1) || x'7f' WHERE seq = {last}",
    "an id": "UPDATE entries SET ids = replace(ids, '1', '2') WHERE seq = {last}",
    "a time": "UPDATE entries SET time = time + 1 WHERE seq = {last}",
    "a kind": "UPDATE entries SET kind = 'nothing' WHERE seq = {last}",
    "a type": "UPDATE entries SET ids = x'00' WHERE seq = {last}",
    "a digest": "UPDATE entries SET digest = x'00' WHERE seq = {last}",
    "one is missing": "DELETE FROM entries WHERE seq = {last} - 1",
    "the first is missing": "DELETE FROM entries WHERE seq = (SELECT min(seq) FROM entries)",
    "the head": "DELETE FROM head WHERE name = 'digest'",
    "a number of the head": "UPDATE head SET value = 'many' WHERE name = 'seq'",
    "the owner": "UPDATE head SET value = '{{' WHERE name = 'owner'",
    "an earlier place": "UPDATE head SET value = value - 1 WHERE name = 'seq'",
}


@pytest.mark.parametrize("line", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found(line, path):
    last = entries(path)[-1][0]
    change(path, line.format(last=last))
    with pytest.raises(ValueError, match=r"is damaged|is not what .* was made from"):
        predictor("knn", journal=path)
    with pytest.raises(ValueError, match=r"is damaged|is not what .* was made from"):
        predictor("knn", journal=path)  # and it was let go of


def test_files_that_are_no_journals_are_refused_and_left_alone(tmp_path):
    other, text = tmp_path / "other.db", tmp_path / "text"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE head (name TEXT, value TEXT)")
    text.write_text("my notes " * 500)
    for path in (other, text):
        before = path.read_bytes()
        with pytest.raises(ValueError, match="no journal"):
            predictor("knn", journal=path)
        assert path == other or path.read_bytes() == before
    with pytest.raises(JournalError, match="cannot be opened"):
        predictor("knn", journal=tmp_path)  # a folder


def test_a_damaged_database_is_refused(path):
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged"):
        predictor("knn", journal=path)


def test_of_another_model_or_memory_it_is_refused(path):
    for options, text in (
        ({"memory": "knn", "seed": 1}, "weights"),
        ({"memory": "sketch"}, "settings"),
        ({"memory": "adaptive"}, "memory ErrorMemory, here AdaptiveErrorMemory"),
        ({"memory": "knn", "key_module": "hidden", "key_from": "output"}, "places"),
    ):
        with pytest.raises(ValueError, match=rf"was written for.*{text}"):
            predictor(**options, journal=path)
    predictor("knn", journal=path).close()


def test_a_newer_version_is_refused(path):
    change(path, "UPDATE head SET value = '2' WHERE name = 'version'")
    with pytest.raises(ValueError, match="Upgrade"):
        predictor("knn", journal=path)


def test_a_snapshot_that_is_not_its_own_is_refused(path, tmp_path):
    snapshot = Journal(path).snapshot_path
    kept = snapshot.read_bytes()
    with predictor("knn", journal=tmp_path / "other") as other:
        snapshot.write_bytes(other._kept.journal.snapshot_path.read_bytes())
    with pytest.raises(ValueError, match=r"is not what .* was made from"):
        predictor("knn", journal=path)
    predictor("knn").save(snapshot)
    with pytest.raises(ValueError, match="is no snapshot of a journal"):
        predictor("knn", journal=path)
    snapshot.unlink()
    with pytest.raises(ValueError, match="which is missing"):
        predictor("knn", journal=path)
    snapshot.write_bytes(kept)
    with predictor("knn", journal=Journal(path, snapshot_every=1)) as one:
        do(one, ("predict", (["x"], rows(1))))
    snapshot.write_bytes(kept)  # older than what was pruned
    with pytest.raises(ValueError, match=r"is not what .* was made from"):
        predictor("knn", journal=path)


def test_a_journal_that_lost_its_end_is_refused(path):
    """The snapshot stands for more than there is: a copy of the database from before."""
    old = path.read_bytes()
    with predictor("knn", journal=Journal(path, snapshot_every=10**6)) as one:
        for call in calls(3, seed=1):
            do(one, call)
        journal = one._kept.journal
        journal._write_snapshot(lambda file: one._kept._write(journal, file))
    path.write_bytes(old)
    with pytest.raises(ValueError, match=r"is not what .* was made from"):
        predictor("knn", journal=path)


def test_one_process_owns_it(tmp_path, monkeypatch):
    monkeypatch.setattr(journals, "_LOCK_WAIT_S", 0.1)
    one = predictor("knn", journal=tmp_path / "journal")
    with pytest.raises(JournalError, match="Another process owns it"):
        predictor("knn", journal=tmp_path / "journal")
    one.predict(rows(1), ["a"])
    one.close()
    with pytest.raises(JournalError, match="closed"):
        one.predict(rows(1), ["b"])
    with pytest.raises(TypeError, match="cannot be copied"):
        pickle.dumps(one)
    predictor("knn", journal=tmp_path / "journal").close()


def test_nothing_is_unpickled(path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "loads"), (pickle, "load"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    predictor("knn", journal=path).close()


def test_wrong_arguments_are_refused(tmp_path):
    for value in (0, 1.5, True):
        with pytest.raises((TypeError, ValueError), match="snapshot_every"):
            Journal(tmp_path / "journal", snapshot_every=value)
