"""Two processes on gloo serve and learn what one does: any memory, padded rows, late labels."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader

from lightning_adapt import ErrorMemory, ErrorMemoryCallback
from tests.foreign import trainer
from tests.foreign_clicks import Clicks, ForeignClicks, click_stream

MEMORIES = {
    "auto": lambda: "auto",
    "knn": lambda: ErrorMemory(k=5),
    "sketch": lambda: ErrorMemory(backend="sketch", n_bits=6, n_tables=8, whiten=False),
}


class SameMemory(Callback):
    """Inside the processes: what a rank knows is what rank 0 knows."""

    def __init__(self, rows):
        self.rows = rows

    def on_test_end(self, trainer, pl_module):
        (ours,) = (callback for callback in trainer.callbacks if isinstance(callback, ErrorMemoryCallback))
        assert ours.memory.n_written == self.rows, f"{ours.memory.n_written} rows written"
        mine = torch.cat([value.double().flatten() for value in _tensors(ours.state_dict())])
        assert torch.equal(trainer.strategy.broadcast(mine, src=0), mine)


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [part for each in value.values() for part in _tensors(each)] if isinstance(value, dict) else []


def served(folder, memory, ranks, n, delay=0, id_fn=None):
    """Serve n rows in batches of 8 over all ranks; return {row: logit}."""
    callback = ErrorMemoryCallback(memory(), delay=delay, id_fn=id_fn)
    name = folder / f"{ranks}"
    options = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]} if ranks > 1 else {}
    module = ForeignClicks(record=str(name))
    trainer(folder, [callback, SameMemory(n)], **options).test(module, click_stream(8 // ranks, n), verbose=False)
    logits = {}
    for rank in range(ranks):
        for rows, values in json.loads((folder / f"{ranks}-rank{rank}.json").read_text())["tested"]:
            for row, value in zip(rows, values, strict=True):
                logits.setdefault(row, value)  # filled-up rows come again at the end
    return torch.tensor([logits[row] for row in range(n)])


@pytest.mark.filterwarnings("ignore:.*whitened by the statistics:UserWarning")
@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning")
@pytest.mark.parametrize("kind", MEMORIES)
@pytest.mark.parametrize(("n", "delay"), [(48, 0), (45, 0), (48, 2)])
def test_two_processes_are_one(kind, n, delay, tmp_path):
    one, two = (served(tmp_path, MEMORIES[kind], ranks, n, delay) for ranks in (1, 2))
    assert torch.allclose(one, two, atol=1e-5)
    assert not torch.equal(one[16 + 8 * delay :], served_by_base(tmp_path, n)[16 + 8 * delay :])


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning")
def test_without_ids_the_place_tells_the_order_and_the_rows_filled_up(tmp_path):
    memory = MEMORIES["sketch"]
    one = served(tmp_path, memory, 1, 45)
    two = served(tmp_path, memory, 2, 45, id_fn=lambda _: None)
    assert torch.allclose(one, two, atol=1e-5)


def served_by_base(folder, n):
    module = ForeignClicks()
    trainer(folder, []).test(module, DataLoader(Clicks(n), 8), verbose=False)
    return torch.tensor([value for _, part in module.tested for value in part])


def test_prediction_does_not_write_under_several_processes(tmp_path):
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    callback = ErrorMemoryCallback(write_in=("predict",))
    options = {"strategy": "ddp_fork", "devices": 2, "plugins": [LightningEnvironment()]}
    with pytest.raises(Exception, match="`write_in` must be without 'predict' under several processes") as caught:
        trainer(tmp_path, [callback], **options).predict(ForeignClicks(), click_stream(4, 16))
    assert isinstance(caught.value, MisconfigurationException) or "Misconfiguration" in str(caught.value)
