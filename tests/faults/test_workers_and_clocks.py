"""A DataLoader worker that dies, and clocks that jump."""

from __future__ import annotations

import os
import re
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from lightning_adapt import RS2Callback, TimeToAccuracy
from lightning_adapt.lina_speech.data.code_cache import CodeCache
from tests.faults.cases import Case
from tests.faults.chains import differences, uninterrupted
from tests.faults.victims import Victim, train
from tests.foreign import ForeignModule, loader, numbered_rows, trainer
from tests.registry_parts import Setup
from tests.reloop2.predictor_parts import predictor, rows

DAY = 86_400.0


# -- workers -----------------------------------------------------------------------------------------------------------
class Deadly(Dataset[Any]):
    """Kills the worker that reads its row once; which row that is stands in a file."""

    def __init__(self, folder: Path, row: int) -> None:
        self.rows, self.row, self.done = numbered_rows(), row, folder / "process-killed.txt"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        if row == self.row and not self.done.exists():
            self.done.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.rows[row]


def _with_workers(folder: Path, batch_size: int, row: int) -> Setup:
    data = DataLoader(Deadly(folder, row), batch_size, shuffle=True, num_workers=2)
    return Setup({"train_dataloaders": data}, [RS2Callback(0.3)], ForeignModule)


def test_a_worker_that_dies_ends_the_run_and_the_last_good_checkpoint_goes_on(tmp_path):
    """Row 50 is met in the third epoch at the latest, that is after the first checkpoint."""
    whole = uninterrupted(partial(train, Case(partial(_with_workers, row=-1)), ranks=1), tmp_path, twice=False)
    met = min(row for row in range(107) if _first_epoch_of(whole.folder, row) == 2)
    folder, case = tmp_path / "killed", Case(partial(_with_workers, row=met))
    victim = Victim(lambda: train(case, folder, 1), folder)
    try:
        assert victim.wait(300) == 1, "it ended by itself, with an error"
    finally:
        victim.kill()
    # torch has two texts for it: which of them comes depends on what saw the death first, the signal or the empty queue
    said = re.compile(r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed by signal: Killed|exited unexpectedly)")
    assert said.search((folder / "error.txt").read_text())
    assert [path.name for path in (folder / "checkpoints").iterdir()], "something to go on from"
    assert Victim(lambda: train(case, folder, 1), folder).wait(300) == 0
    assert differences(whole.folder, folder) == []


def _first_epoch_of(folder: Path, row: int) -> int:
    from tests.faults.victims import read_diary

    return next((epoch for (epoch, _), rows in read_diary(folder)[0] if row in rows), -1)


# -- clocks ------------------------------------------------------------------------------------------------------------
class Jumping:
    """A clock that jumps by a day to and fro with each look at it."""

    def __init__(self, begin: float) -> None:
        self.now, self.looks = begin, 0

    def __call__(self) -> float:
        self.looks += 1
        self.now += 0.01
        return self.now + (DAY if self.looks % 2 else -DAY)


def test_time_to_accuracy_does_not_look_at_the_time_of_day(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", Jumping(1e9))
    watch = TimeToAccuracy("train_loss", 0.4, "min")
    begun = time.perf_counter()
    trainer(tmp_path, [watch, RS2Callback(0.3)]).fit(ForeignModule(), loader())
    passed = time.perf_counter() - begun
    assert 0 < sum(watch.seconds.values()) <= passed
    totals = [point.total for point in watch.curve]
    assert totals == sorted(totals)


def test_the_time_of_a_run_never_runs_backwards(tmp_path, monkeypatch):
    """perf_counter promises to count up; where a virtual machine breaks that, seconds stay, and do not become fewer."""
    from lightning_adapt.rs2 import stopwatch

    readings = iter([10.0, 12.0, 5.0, 6.0, 1000.0])
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: next(readings))
    watch = stopwatch.Stopwatch()
    watch.switch("train")
    assert watch.read()["train"] == 2.0
    assert watch.read()["train"] == 2.0
    assert watch.read()["train"] == 3.0


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_journal_lives_with_a_clock_that_jumps(jump, tmp_path):
    """Back: nothing gets younger. Forward by more than rows may wait: they have expired, and are said to have."""
    now = [1e9]
    options: dict[str, Any] = {"journal": tmp_path / "journal", "timeout_s": 3600.0}
    with predictor("knn", clock=lambda: now[0], **options) as one:
        one.predict(rows(3), ["a", "b", "c"])
        now[0] += jump
        said = one.feedback(["a"], [1.0])
        expired = jump > 0
        assert said.accepted == ([] if expired else ["a"])
        now[0] -= jump
        one.predict(rows(2, seed=1), ["d", "e"])
        assert one.feedback(["d"], [0.0]).accepted == ["d"]
        left = one.n_pending
    now[0] -= DAY
    with predictor("knn", clock=lambda: now[0], **options) as again:
        assert again.n_pending == left
        assert again.feedback(["e"], [1.0]).accepted == ["e"]


def test_a_cache_of_codes_is_written_whatever_the_clock_says(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(time, "monotonic", Jumping(100.0))
    cache = CodeCache(tmp_path, {"codec": "a"})
    for number in range(4):
        cache.put(f"key {number}", torch.full((1, 3), number), 1.0)
    cache.flush()
    again = CodeCache(tmp_path, {"codec": "a"})
    assert again.read([f"key {number}" for number in range(4)]).flat.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]]
