"""ResumableData: which order a checkpoint belongs to, and when that is asked."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_adapt._shared.resumable_data import ResumableData
from lightning_adapt._shared.state import check_plain


class Data(ResumableData):
    def __init__(self, rows: int, trainer=None) -> None:
        self.rows, self.trainer = rows, trainer

    def _fingerprint(self):
        return {"rows": self.rows}


def running(ckpt_path, batches=1):
    progress = SimpleNamespace(total=SimpleNamespace(ready=batches))
    fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(ckpt_path=ckpt_path, current_epoch=3, fit_loop=fit_loop)


def restored(rows: int, trainer) -> Data:
    data = Data(rows, trainer)
    data.load_state_dict(Data(8).state_dict())
    return data


def test_state_is_plain_and_says_its_version():
    state = Data(8).state_dict()
    check_plain(state)
    assert state == {"version": 1, "fingerprint": {"rows": 8}}
    with pytest.raises(ValueError, match="Data"):
        Data(8).load_state_dict({**state, "version": 2})


def test_another_order_is_refused_when_the_loader_is_used():
    misfit = restored(9, running("last.ckpt")).misfit()
    with pytest.raises(MisconfigurationException, match=r"state of Data .*rows: saved 8, here 9"):
        iter(misfit)


@pytest.mark.parametrize(
    "data",
    [
        restored(8, running("last.ckpt")),  # the same order
        restored(9, running(None)),  # a fit after a test of that checkpoint
        restored(9, None),  # a loader asked for without a Trainer
        Data(9, running("last.ckpt")),  # a checkpoint without a state of it
    ],
    ids=["same", "no resume", "no trainer", "no state"],
)
def test_anything_else_is_not(data):
    assert data.misfit() is None


def test_before_the_first_batch_any_order_is_right():
    """A batch size finder saves, finds another size, and restores: the path stays that of its file."""
    saved = Data(8, running(None, batches=0)).state_dict()
    assert saved == {"version": 1, "fingerprint": None}
    found = Data(9, running("finder.ckpt", batches=0))
    found.load_state_dict(saved)
    assert found.misfit() is None
    assert Data(8, running(None)).state_dict() == {"version": 1, "fingerprint": {"rows": 8}}


def test_there_is_a_position_under_a_trainer_alone_and_it_can_be_sent_to_another_process():
    assert Data(8).position is None
    data = Data(8, running(None))
    assert pickle.loads(pickle.dumps(data.position)).__func__ is Data._position
