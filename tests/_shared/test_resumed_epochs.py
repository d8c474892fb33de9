"""A run that goes on from a checkpoint of the last batch of an epoch, twice."""

from __future__ import annotations

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_adapt import RS2Callback
from lightning_adapt._shared.resumed_epochs import begin_next_epoch
from tests.foreign import ForeignModule, numbered_rows, trainer

BATCHES = 4


class Mends(Callback):
    """Nothing but the mending, and a note of the epochs that began with their hook."""

    def __init__(self, mended: bool = True) -> None:
        self.mended, self.begun = mended, []

    def on_train_start(self, trainer, pl_module) -> None:
        if self.mended:
            begin_next_epoch(trainer)

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.begun.append(trainer.current_epoch)


def row_loader() -> DataLoader:
    return DataLoader(numbered_rows(8 * BATCHES), 8)


def epochs_after_two_stops(folder, callback) -> list[int]:
    """The epochs of the batches after a stop at the end of the second of three epochs, as after one of the first."""
    path, seen = None, []
    for stop in range(3):
        options = {"every_n_train_steps": BATCHES, "save_top_k": -1, "enable_version_counter": False}
        saves, module, loader = ModelCheckpoint(folder, "{step}", **options), ForeignModule(), row_loader()
        plain = None if path is None else True
        trainer(folder, [callback(), saves], max_epochs=3).fit(module, loader, ckpt_path=path, weights_only=plain)
        path = folder / f"step={BATCHES * (stop + 1)}.ckpt"
        seen = [epoch for epoch, _ in module.seen]
    return seen


def test_an_epoch_that_began_after_a_checkpoint_of_a_last_batch_is_counted(tmp_path):
    assert epochs_after_two_stops(tmp_path / "ours", Mends) == [2] * BATCHES


def test_stock_lightning_still_trains_an_epoch_twice(tmp_path):
    """When this fails, Lightning is mended: `begin_next_epoch` can go."""
    assert epochs_after_two_stops(tmp_path, lambda: Mends(mended=False)) == [1] * BATCHES + [2] * BATCHES


def test_the_epoch_begins_with_its_hook(tmp_path):
    made = []

    def callback():
        made.append(Mends())
        return made[-1]

    epochs_after_two_stops(tmp_path, callback)
    assert [each.begun for each in made] == [[0, 1, 2], [1, 2], [2]]


def test_rounds_are_drawn_once(tmp_path):
    assert epochs_after_two_stops(tmp_path, lambda: RS2Callback(0.999)) == [2] * BATCHES
