"""The quick form of `python -m tests.faults`: a few kills of every method, and one process of two killed alone."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial

import pytest
import torch

from tests.faults.__main__ import main, row_of, table, works
from tests.faults.cases import CASES
from tests.faults.chains import Counts, chain, differences, uninterrupted
from tests.faults.victims import Victim, train

QUICK = {
    1: [name for name, _ in works((1,))],
    2: ["RS2Callback, mode loss", "DiversitySelectionCallback, 3 rounds"],  # the full form has all of them
}


@pytest.mark.parametrize(("name", "ranks"), [(name, ranks) for ranks, names in QUICK.items() for name in names])
def test_killed_and_gone_on_with_it_ends_as_if_it_had_not_been(name, ranks, tmp_path):
    work, counts = works((ranks,))[name, ranks], Counts()
    whole = uninterrupted(work, tmp_path, twice=False)
    chain(work, whole, tmp_path / "chain", random.Random(len(name)), 2, counts)
    assert counts.divergences == counts.half_written == []


def test_one_process_of_two_is_killed_and_the_other_does_not_wait_for_ever(tmp_path):
    work = partial(train, CASES["RS2Callback"], ranks=2)
    whole = uninterrupted(work, tmp_path, twice=False)
    folder = tmp_path / "chain"
    victim = Victim(lambda: work(folder), folder)
    second, until = folder / "process-1.txt", time.monotonic() + 60
    while not (folder / "diary-1.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(int(second.read_text()), signal.SIGKILL)
    try:
        assert victim.wait(60) == 1, "it ends by itself, with an error"
    finally:
        victim.kill()
    assert "SIGKILL" in (folder / "error.txt").read_text()
    counts = Counts()
    chain(work, whole, folder, random.Random(0), 0, counts)
    assert counts.divergences == counts.half_written == []


# -- the harness itself notices --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """The same run twice, to be damaged."""
    folder = tmp_path_factory.mktemp("runs")
    uninterrupted(partial(train, CASES["RS2Callback"], ranks=1), folder)
    return folder / "whole", folder / "second"


def _other_weight(folder):
    saved = torch.load(folder / "end.ckpt", weights_only=True)
    saved["state_dict"]["net.0.bias"][0] += 1e-6
    torch.save(saved, folder / "end.ckpt")


def _other_rows(folder):
    diary = folder / "diary-0.jsonl"
    diary.write_text(diary.read_text().replace("[5, 3, [", "[5, 3, [0, "))


def _lost_step(folder):
    diary = folder / "diary-0.jsonl"
    diary.write_text("".join(diary.read_text().splitlines(keepends=True)[:-1]))


def _one_file_more(folder):
    (folder / "left.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_other_weight, "end.ckpt/state_dict/net.0.bias"),
        (_other_rows, "rank 0, epoch and batch (5, 3): other rows"),
        (_lost_step, "rank 0, epoch and batch (5, 3): never"),
        (_one_file_more, "left.json: is only in one of the runs"),
    ],
)
def test_a_divergence_is_found(damage, told, two_runs, tmp_path):
    import shutil

    shutil.copytree(two_runs[1], tmp_path / "other")
    assert differences(two_runs[0], tmp_path / "other") == []
    damage(tmp_path / "other")
    assert differences(two_runs[0], tmp_path / "other")[0] == told


def test_a_method_that_forgets_is_found(tmp_path, monkeypatch):
    """The memory of losses is left out of the checkpoints: the rounds after a kill are others."""
    from lightning_adapt.rs2.callback import RS2Callback

    work = partial(train, CASES["RS2Callback, mode loss"], ranks=1)
    whole, counts, folder = uninterrupted(work, tmp_path, twice=False), Counts(), tmp_path / "chain"
    monkeypatch.setattr(RS2Callback, "on_save_checkpoint", lambda *_: None)
    monkeypatch.setattr(RS2Callback, "state_dict", lambda self: {"version": 1, "fingerprint": None, "global_batch": 0})
    victim = Victim(lambda: work(folder), folder)
    until = time.monotonic() + 60
    while len(list(folder.glob("checkpoints/step-step=2*.ckpt"))) == 0 and time.monotonic() < until:
        time.sleep(0.001)
    victim.kill()
    victim.wait(60)
    chain(work, whole, folder, random.Random(0), 0, counts)
    assert any("other rows" in found or "state_dict" in found for found in counts.divergences)


def test_the_report(tmp_path, capsys):
    counts = Counts(chains=2, divergences=["chain-0: end.ckpt/state_dict"])
    counts.kills.update({"any time": 3, "half a file": 1})
    assert table([row_of("a", 2, counts)]).splitlines()[2] == "| a | 2 | 4 | 1 | 2 | 1 | 0 |"
    assert main(["--only", "nothing of that name", "--out", str(tmp_path / "report.json")]) == 0
    assert "| together |  | 0 |" in capsys.readouterr().out
