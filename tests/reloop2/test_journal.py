"""A predictor with a journal, stopped anywhere, goes on as one that never was; what it answers is on the disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_adapt.reloop2.serving import journal as journals
from lightning_adapt.reloop2.serving.journal import Journal, JournalError
from lightning_adapt.reloop2.serving.waiting import FeedbackResult
from tests.reloop2.journal_parts import copied, entries
from tests.reloop2.predictor_parts import MEMORIES, calls, do, predictor, rows


# -- stopped and started -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("memory", MEMORIES)
def test_stopped_after_any_call_it_goes_on_as_if_it_had_not_been(memory, tmp_path):
    every = list(calls(10))
    with predictor(memory) as without:
        expected = [do(without, call) for call in every]
    one = predictor(memory, journal=Journal(tmp_path / "one" / "journal", snapshot_every=25))
    copies = []
    for number, call in enumerate(every):
        assert do(one, call) == expected[number]
        copies.append(copied(one._kept.journal.path, tmp_path / f"after {number}"))
    one.close()
    assert one._kept.journal.place.seq > len(entries(copies[-1])) > 0, "some were pruned, some are replayed"
    for number, path in enumerate(copies[:-1]):
        with predictor(memory, journal=Journal(path, snapshot_every=25)) as again:
            assert [do(again, call) for call in every[number + 1 :]] == expected[number + 1 :]


def test_a_restart_after_every_call_makes_no_difference(tmp_path):
    with predictor("adaptive") as without:
        expected = [do(without, call) for call in calls(8)]
    answers = []
    for call in calls(8):
        with predictor("adaptive", journal=tmp_path / "journal") as one:
            answers.append(do(one, call))
    assert answers == expected


def test_whitening_by_served_rows_goes_on_after_a_restart(tmp_path):
    every = [("predict", (["a", "b", "c"], rows(3, 1))), ("predict", (range(30), rows(30, 2)))]
    every += [("feedback", (["b"], [1])), ("predict", (["d"], rows(1, 3))), ("feedback", (["d", "a"], [0, 1]))]
    every += [("predict", (range(5), rows(5, 4)))]
    with predictor("adaptive", calibration=()) as without:
        expected = [do(without, call) for call in every]
    answers = []
    for call in every:
        with predictor("adaptive", calibration=(), journal=Journal(tmp_path / "journal", snapshot_every=20)) as one:
            answers.append(do(one, call))
    assert answers == expected


def work(path: Path, memory: str, every: list[Any], acknowledged: Any) -> None:
    """A process that answers calls from where the last one was stopped; says so only after each answer."""
    torch.set_num_threads(1)
    one = predictor(memory, journal=Journal(path, snapshot_every=15))
    done = acknowledged.value
    for number in range(done, len(every)):
        do(one, every[number])
        acknowledged.value = number + 1
    os._exit(0)


@pytest.mark.parametrize("memory", ["adaptive", "knn"])
def test_killed_at_any_moment_nothing_that_was_acknowledged_is_lost(memory, tmp_path):
    every, path = list(calls(150)), tmp_path / "journal"
    with predictor(memory) as without:
        for call in every:
            do(without, call)
        batch = rows(20, seed=77)
        expected = without.predict(batch, range(20))
    context = multiprocessing.get_context("fork")
    acknowledged = context.Value("i", 0)
    stops = []
    for wait in (0.3, 0.2, 0.5, 0.35, None):
        process = context.Process(target=work, args=(path, memory, every, acknowledged))
        process.start()
        try:
            if wait is not None:
                begun, deadline = acknowledged.value, time.monotonic() + 20
                while acknowledged.value == begun and time.monotonic() < deadline:
                    time.sleep(0.001)
                time.sleep(wait * 0.3)
                os.kill(process.pid, signal.SIGKILL)
            process.join(60)
        finally:
            process.kill()
        stops.append(acknowledged.value)
    assert process.exitcode == 0
    assert stops[-1] == len(every)
    assert 0 < stops[0] < len(every), "it was killed in the middle"
    with predictor(memory, journal=path) as again:
        assert again.memory.n_written == without.memory.n_written
        assert torch.equal(again.predict(batch, range(20)), expected)


def test_what_waits_expires_over_a_restart_and_a_changed_bound_is_kept(tmp_path):
    clock = [0.0]
    options = {"journal": tmp_path / "journal", "clock": lambda: clock[0]}
    with predictor("knn", timeout_s=100, **options) as one:
        one.predict(rows(2), ["a", "b"])
        clock[0] = 50.0
        one.predict(rows(1), ["c"])
        assert one.feedback(["b"], [1]).accepted == ["b"]
    clock[0] = 90.0
    with predictor("knn", timeout_s=30, max_pending=7, **options) as one:  # a replay with 30 s would not find "b"
        assert one.memory.n_written == 1
        assert one.feedback(["a", "b", "c"], [1, 1, 1]) == FeedbackResult(expired=["a", "c"], duplicate=["b"])
    with predictor("knn", timeout_s=30, max_pending=7, **options) as one:
        assert one.feedback(["d", "c"], [1, 1]) == FeedbackResult(unknown=["d"], expired=["c"])


def test_a_longer_wait_holds_for_what_waits_already_and_for_every_replay(tmp_path):
    clock = [0.0]
    options = {"journal": tmp_path / "journal", "clock": lambda: clock[0]}
    with predictor("knn", timeout_s=10, **options) as one:
        one.predict(rows(1), ["a"])
    clock[0] = 5.0
    with predictor("knn", timeout_s=1000, **options) as one:
        clock[0] = 500.0
        assert one.feedback(["a"], [1]).accepted == ["a"]
    with predictor("knn", timeout_s=1000, **options) as one:
        assert one.memory.n_written == 1


def test_a_given_memory_is_where_a_new_journal_begins_and_an_old_one_decides(tmp_path):
    taught = predictor("knn")
    taught.predict(rows(3), range(3))
    taught.feedback(range(3), [1, 1, 1])
    taught.save(tmp_path / "state.safetensors")
    batch = rows(5, seed=4)
    with predictor(tmp_path / "state.safetensors", journal=tmp_path / "journal") as one:
        assert one.memory.n_written == 3
        one.predict(rows(1), ["x"])
        one.feedback(["x"], [0])
        expected = one.predict(batch, range(5))
    with predictor("knn", journal=tmp_path / "journal") as one:
        assert one.memory.n_written == 4
        assert torch.equal(one.predict(batch, range(5)), expected)


# -- commit first ------------------------------------------------------------------------------------------------------
def test_what_is_answered_is_on_the_disk(tmp_path):
    with predictor("knn", journal=tmp_path / "journal") as one:
        one.predict(rows(2), ["a", "b"])
        assert entries(tmp_path / "journal") == [(1, "predict")]
        one.feedback(["a", "nobody"], [1, 1])
        assert entries(tmp_path / "journal") == [(1, "predict"), (2, "feedback")]
        one.feedback(["a", "nobody"], [1, 1])  # nothing accepted, nothing to keep
        assert len(entries(tmp_path / "journal")) == 2


def test_if_the_disk_fails_nothing_is_acknowledged(tmp_path):
    batch = rows(5, seed=3)
    one = predictor("adaptive", journal=tmp_path / "journal")
    one.predict(rows(2), ["a", "b"])
    one.feedback(["a"], [1])
    expected = one.predict(batch, range(5))
    one._kept.journal._connection.execute("PRAGMA query_only=ON")  # every write fails from now on
    with pytest.raises(JournalError, match=r"cannot be written.*not acknowledged"):
        one.feedback(["b"], [1])
    assert one.memory.n_written == 1
    for call in (lambda: one.feedback(["b"], [1]), lambda: one.predict(rows(1), ["c"])):
        with pytest.raises(JournalError, match="closed"):
            call()
    with predictor("adaptive", journal=tmp_path / "journal") as again:
        assert torch.equal(again.predict(batch, range(5)), expected)
        assert again.feedback(["b", "c"], [1, 1]) == FeedbackResult(accepted=["b"], unknown=["c"])


def test_an_error_inside_a_step_ends_the_predictor_and_not_the_journal(tmp_path, monkeypatch):
    one = predictor("knn", journal=tmp_path / "journal")
    one.predict(rows(2), ["a", "b"])
    with monkeypatch.context() as patch:

        def fail(*_):
            raise MemoryError

        patch.setattr(one.memory.store, "write", fail)
        with pytest.raises(MemoryError):
            one.feedback(["a"], [1])
    with pytest.raises(JournalError, match="Build it anew"):
        one.predict(rows(1), ["c"])
    one.close()
    with predictor("knn", journal=tmp_path / "journal") as again:
        assert again.memory.n_written == 1


def end_a_group_by_an_error(one):
    with one.group():
        one.predict(rows(1), ["f"])
        raise ZeroDivisionError


def test_a_group_is_one_commit(tmp_path):
    with predictor("adaptive", journal=Journal(tmp_path / "journal", snapshot_every=4)) as one:
        with one.group():
            one.predict(rows(2), ["a", "b"])
            one.feedback(["a"], [1])
            with one.group():
                one.predict(rows(2), ["c", "d"])
            assert entries(tmp_path / "journal") == []
        assert entries(tmp_path / "journal") == []  # five rows: a snapshot stands for them now
        with one.group():
            one.predict(rows(1), ["e"])
        assert entries(tmp_path / "journal") == [(4, "predict")]
        with pytest.raises(ZeroDivisionError):
            end_a_group_by_an_error(one)
        assert entries(tmp_path / "journal") == [(4, "predict"), (5, "predict")], "it was acted on"
        one._kept.journal._connection.execute("PRAGMA query_only=ON")
        with pytest.raises(JournalError, match="cannot be written"), one.group():
            one.predict(rows(1), ["g"])
        for use in (lambda: one.predict(rows(1), ["h"]), lambda: one.save(tmp_path / "state.safetensors")):
            with pytest.raises(JournalError, match="Build it anew"):  # it knows of a row that nobody may know of
                use()
    with predictor("adaptive", journal=tmp_path / "journal") as again:
        answer = again.feedback(["b", "c", "e", "f", "g"], [1, 1, 1, 1, 1])
        assert answer == FeedbackResult(accepted=["b", "c", "e", "f"], unknown=["g"])


def test_a_group_without_a_journal_does_nothing():
    with predictor("knn") as one, one.group():
        assert len(one.predict(rows(1), ["a"])) == 1


# -- snapshots ---------------------------------------------------------------------------------------------------------
def test_snapshots_keep_the_replay_short(tmp_path):
    with predictor("knn", journal=Journal(tmp_path / "journal", snapshot_every=30)) as one:
        most = 0
        for call in calls(25):
            do(one, call)
            most = max(most, len(entries(tmp_path / "journal")))
    assert 5 < most <= 30
    assert not list(tmp_path.glob(".unfinished*"))


def test_a_snapshot_is_on_the_disk_before_entries_are_deleted(tmp_path, monkeypatch):
    flushed = []

    def note(path):
        flushed.append((path.name, len(entries(tmp_path / "journal"))))

    with predictor("knn", journal=Journal(tmp_path / "journal", snapshot_every=2)) as one:
        monkeypatch.setattr(journals, "_flush", note)
        one.predict(rows(2), ["a", "b"])
        (file, kept), (folder, still_kept) = flushed
        assert file.startswith(".unfinished")
        assert (folder, kept, still_kept) == (tmp_path.name, 1, 1)
        assert entries(tmp_path / "journal") == []


@pytest.mark.parametrize("moment", ["before the snapshot", "between snapshot and pruning"])
def test_stopped_inside_a_snapshot(moment, tmp_path, monkeypatch):
    every = list(calls(12))
    with predictor("adaptive") as without:
        expected = [do(without, call) for call in every]
    journal = Journal(tmp_path / "journal", snapshot_every=12)
    one = predictor("adaptive", journal=journal)
    path = None
    with monkeypatch.context() as patch:
        name = "_write_snapshot" if moment == "before the snapshot" else "_transaction"
        original, number = getattr(journal, name), 0

        def stop(*arguments):
            nonlocal path
            if journal.needs_snapshot and path is None:
                path = copied(journal.path, tmp_path / "stopped")
            return original(*arguments)

        patch.setattr(journal, name, stop)
        while path is None:
            do(one, every[number])
            number += 1
    one.close()
    assert len(entries(path)) > 2, "not pruned yet"
    with predictor("adaptive", journal=Journal(path, snapshot_every=12)) as again:
        assert [do(again, call) for call in every[number:]] == expected[number:]


def test_stopped_before_it_had_begun(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(journals, "head_of", stop)
    with pytest.raises(KeyboardInterrupt):
        predictor("knn", journal=tmp_path / "journal")
    monkeypatch.undo()
    with predictor("knn", journal=tmp_path / "journal") as one:
        one.predict(rows(1), ["a"])


def test_a_snapshot_that_cannot_be_written_loses_nothing(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal", snapshot_every=2)
    one = predictor("knn", journal=journal)

    def fail(*_):
        raise OSError("No space left")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write_snapshot", fail)
        with pytest.warns(UserWarning, match="No snapshot could be written"):
            assert len(one.predict(rows(2), ["a", "b"])) == 2
    one.predict(rows(1), ["c"])
    assert len(entries(journal.path)) == 2
    one.predict(rows(1), ["d"])
    assert entries(journal.path) == []
    one.close()
