"""Checkpoints that a kill cut off, or that were damaged later, and going on from the last good one."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from examples import resume_after_kill
from examples.resume_after_kill import last_good_checkpoint
from tests.faults.cases import CASES
from tests.faults.chains import differences, uninterrupted
from tests.faults.kill_points import HALF_A_COPY, KILL_POINTS, Armed
from tests.faults.victims import Victim, train
from tests.faults.whole_files import look_at
from tests.foreign import ForeignModule, loader, trainer


@pytest.fixture(scope="module")
def work():
    return partial(train, CASES["RS2Callback"], ranks=1)


@pytest.fixture(scope="module")
def whole(work, tmp_path_factory):
    return uninterrupted(work, tmp_path_factory.mktemp("whole"), twice=False)


def killed(work, folder, armed) -> None:
    victim = Victim(lambda: work(folder), folder, armed)
    assert victim.wait(60) == -9, "it killed itself"


def unreadable(folder) -> list[str]:
    from collections import Counter

    return look_at(folder, Counter())


@pytest.mark.parametrize("point", [point for point in KILL_POINTS if point != "half a file"])
def test_killed_inside_the_write_of_a_checkpoint_the_one_before_is_whole(point, work, whole, tmp_path):
    killed(work, tmp_path, Armed(point, 4))
    assert unreadable(tmp_path) == []
    Victim(lambda: work(tmp_path), tmp_path).wait(60)
    assert differences(whole.folder, tmp_path) == []


def test_from_another_file_system_the_newest_may_be_half_and_the_one_before_is_taken(work, whole, tmp_path):
    """Lightning moves a file out of TMPDIR, which there is a copy: why the script looks for the last good one."""
    killed(work, tmp_path, Armed(HALF_A_COPY, 4))
    (found,) = unreadable(tmp_path)
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert found.startswith(f"checkpoints/{newest.name}: ")
    Victim(lambda: work(tmp_path), tmp_path).wait(60)
    assert differences(whole.folder, tmp_path) == []


# -- damaged later -----------------------------------------------------------------------------------------------------
def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _overwritten(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def _of_something_else(path: Path) -> None:
    path.write_text("epoch: 3\n")


@pytest.fixture
def saved(tmp_path):
    """Three checkpoints of a run, the oldest first."""
    saves = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=14, save_top_k=-1)
    trainer(tmp_path, [saves], max_epochs=3).fit(ForeignModule(), loader())
    found = sorted((tmp_path / "saved").glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    for number, path in enumerate(found):
        os.utime(path, (1000 + number, 1000 + number))
    return found


@pytest.mark.parametrize("damage", [_cut, _emptied, _overwritten, _of_something_else])
def test_a_damaged_checkpoint_is_left_aside_with_a_word(damage, saved):
    assert last_good_checkpoint(saved[0].parent) == saved[-1]
    when = saved[-1].stat().st_mtime_ns
    damage(saved[-1])
    os.utime(saved[-1], ns=(when, when))
    with pytest.warns(UserWarning, match=f"{saved[-1].name} cannot be read, the one before it is taken"):
        assert last_good_checkpoint(saved[0].parent) == saved[-2]


def test_without_any_whole_checkpoint_a_run_begins(saved, tmp_path):
    assert last_good_checkpoint(tmp_path / "nowhere") is None
    for path in saved:
        _cut(path)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert last_good_checkpoint(saved[0].parent) is None


def test_every_method_leaves_a_damaged_checkpoint_to_lightning_which_raises(saved, tmp_path):
    _cut(saved[-1])
    for name in ("RS2Callback", "InitialStateTuning", "SampleAdaptiveAugmentation, FixMatch"):
        made = CASES[name].build(tmp_path, 8)
        with pytest.raises((RuntimeError, OSError), match=r"failed finding central directory|Invalid argument"):
            trainer(tmp_path, made.callbacks).fit(made.module(), **made.data, ckpt_path=saved[-1], weights_only=True)


# -- the example -------------------------------------------------------------------------------------------------------
def test_the_example_begins_goes_on_and_has_ended(tmp_path):
    script = [sys.executable, resume_after_kill.__file__, "runs"]
    environment = {**os.environ, "PYTHONPATH": str(Path(resume_after_kill.__file__).parents[1])}

    def run() -> list[str]:
        done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if line.startswith(("beginning", "going on", "ended"))]

    assert run() == ["beginning", "ended after 50 steps"]
    assert run() == [f"going on from {Path('runs') / 'step=50.ckpt'}", "ended after 50 steps"]
    assert torch.load(tmp_path / "runs" / "step=50.ckpt", weights_only=True)["global_step"] == 50
