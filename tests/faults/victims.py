"""Processes that train and may be killed at any time: forked from this one, which has imported everything."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import multiprocessing.util
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment

from examples.resume_after_kill import last_good_checkpoint
from lightning_adapt._shared.files import whole_file
from tests.faults.cases import GLOBAL_BATCH, Case
from tests.foreign import rows_of, trainer

__all__ = ["Diary", "Victim", "read_diary", "train"]

EPOCHS = 6  # of 4 batches


class Diary(Callback):
    """Writes down, before each step, which rows it is made of, and in the end all there is to compare.

    A line is one `write`, which survives the death of its process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        (self.folder / f"process-{trainer.global_rank}.txt").write_text(str(os.getpid()))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        line = json.dumps([trainer.current_epoch, batch_idx, rows_of(batch).tolist()]) + "\n"
        handle = os.open(self.folder / f"diary-{trainer.global_rank}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.save_checkpoint(self.folder / "end.ckpt")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        with whole_file(self.folder / f"tested-{trainer.global_rank}.pt") as unfinished:
            torch.save(pl_module.tested, unfinished)
        with whole_file(self.folder / f"served-{trainer.global_rank}.pt") as unfinished:
            torch.save({callback.state_key: callback.state_dict() for callback in trainer.callbacks}, unfinished)


def read_diary(folder: Path) -> dict[int, list[tuple[tuple[int, int], list[int]]]]:
    """What each rank was trained on, in the order of the steps: ((epoch, batch), rows)."""
    found = {}
    for path in sorted(folder.glob("diary-*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[int(path.stem.split("-")[1])] = [((epoch, batch), rows) for epoch, batch, rows in lines]
    return found


def train(case: Case, folder: Path, ranks: int) -> None:
    """Begin a run, or go on from the newest checkpoint that is whole; as a user's script does, started again."""
    made = case.build(folder, GLOBAL_BATCH // ranks)
    module = made.module()
    saved = folder / "checkpoints"
    saves = [
        ModelCheckpoint(saved, "step-{step}", every_n_train_steps=case.saves_every),
        ModelCheckpoint(saved, "epoch-{epoch}", save_on_train_epoch_end=True),
    ]
    options = {"max_epochs": EPOCHS, **case.options}
    if ranks > 1:
        options |= {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]}
    runner = trainer(folder, [*made.callbacks, *saves, Diary(folder)], **options)
    found = last_good_checkpoint(saved)
    runner.fit(module, **made.data, ckpt_path=found, weights_only=None if found is None else True)
    if case.serves:
        runner.test(module, **made.stream, verbose=False)


class Victim:
    """A process, and all that it starts, that can be killed at once.

    Args:
        work: What it does.
        folder: Where its files of all kinds go, also the temporary ones.
        before: Called first, in the new process.
    """

    def __init__(self, work: Callable[[], None], folder: Path, before: Callable[[], None] | None = None) -> None:
        self.folder, self.begun = folder, time.monotonic()
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        multiprocessing.util.get_temp_dir()  # remembered: the folder of sockets, whose paths have 107 letters at most
        self.process = os.fork()
        if self.process == 0:
            self._live(work, before)

    def _live(self, work: Callable[[], None], before: Callable[[], None] | None) -> None:
        code = 1
        try:
            os.setsid()  # a group of its own, which is killed as a whole
            with _quiet(self.folder):
                faulthandler.dump_traceback_later(100)  # a run that hangs says where
                warnings.simplefilter("ignore")
                torch.cuda._is_in_bad_fork = lambda: False  # a look for CUDA before the fork; these runs have none
                if before is not None:
                    before()
                work()
                code = 0
        except BaseException:
            (self.folder / "error.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)

    def kill(self) -> None:
        """Kill it with all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)

    def wait(self, seconds: float) -> int | None:
        """Wait until it has ended; returns its exit code, minus the signal that ended it, or None while it lives."""
        until = time.monotonic() + seconds
        while True:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= until:
                return None
            time.sleep(min(0.002, max(until - time.monotonic(), 0)))


@contextlib.contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """All output and all temporary files into the folder."""
    handle = os.open(folder / "output.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
    os.chdir(folder)
    yield
