"""Every stack of methods: each method acts, the order of callbacks changes nothing, a resume is exact."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from tests.compose.runs import run
from tests.compose.stacks import STACKS

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


class Inside(Callback):
    """Saves after the first batch of the third epoch; stands after ours, as ModelCheckpoint does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 2 and batch_idx == 0:
            trainer.save_checkpoint(self.folder / "inside.ckpt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs each stack once, with a checkpoint at the end of its second epoch and one inside the third."""
    found = {}

    def of(name):
        if name not in found:
            folder = tmp_path_factory.mktemp("whole")
            end = ModelCheckpoint(folder, "end-{epoch}", save_top_k=-1, every_n_epochs=2, save_on_train_epoch_end=True)
            found[name] = (folder, run(STACKS[name], folder, others=[Inside(folder), end]))
        return found[name]

    return of


@pytest.mark.parametrize("name", STACKS)
def test_each_method_acts(name, whole):
    _, outcome = whole(name)
    STACKS[name].acts(outcome.callbacks, outcome.module)


@pytest.mark.parametrize("name", STACKS)
def test_the_order_of_callbacks_changes_nothing_or_raises(name, whole, tmp_path):
    stack, (_, outcome) = STACKS[name], whole(name)
    first, second = stack.order
    for order in list(permutations(stack.callbacks))[1:]:
        if first and order.index(first) > order.index(second):
            with pytest.raises(MisconfigurationException, match="list DiversitySelectionCallback before RS2Callback"):
                run(stack, tmp_path, order=order)
        else:
            run(stack, tmp_path, order=order).same_as(outcome)


@pytest.mark.parametrize("stop", ["end", "inside"])
@pytest.mark.parametrize("name", STACKS)
def test_a_resume_is_exact(name, stop, whole, tmp_path):
    folder, outcome = whole(name)
    first = sum(epoch < 2 for epoch, _ in outcome.seen)
    path = folder / ("end-epoch=1.ckpt" if stop == "end" else "inside.ckpt")
    resumed = run(STACKS[name], tmp_path, ckpt=path)
    assert len(resumed.seen) == len(outcome.seen) - first - (stop == "inside")
    resumed.same_as(outcome)
