"""A training step that tells SampleAdaptiveAugmentation nothing: it says so after the first epoch, and what to do."""

from __future__ import annotations

import warnings

import pytest

from lightning_adapt import SampleAdaptiveAugmentation
from tests.foreign import trainer
from tests.foreign_images import ForeignFixMatch
from tests.saa.entries import data

NOTHING = "selected nothing: no training step has returned or reported a finite loss.*call `report`"


class ByHand(ForeignFixMatch):
    """Manual optimisation without `report`; from an epoch on with it."""

    def __init__(self, saa, reports_from: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.saa, self.reports_from = saa, reports_from
        self.warned: list[int] = []  # of each epoch, the warnings so far

    def training_step(self, batch, batch_idx) -> None:
        outputs = super().training_step(batch, batch_idx)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(outputs["loss"])
        optimizer.step()
        if self.current_epoch >= self.reports_from:
            self.saa.report(outputs["index"], outputs["sample_loss"].detach())

    def on_train_epoch_start(self) -> None:
        self.warned.append(len(self.caught))


def fit(saa, folder, reports_from):
    module = ByHand(saa, reports_from)
    with warnings.catch_warnings(record=True) as module.caught:
        warnings.simplefilter("always", UserWarning)
        trainer(folder, [saa], max_epochs=4).fit(module, datamodule=data())
        return module, [str(one.message) for one in module.caught if "AdaptiveAug" in str(one.message)]


@pytest.mark.parametrize("update_every", ["epoch", 3])
def test_it_says_so_after_the_first_epoch(update_every, tmp_path):
    saa = SampleAdaptiveAugmentation(warmup=0, update_every=update_every)
    module, texts = fit(saa, tmp_path, reports_from=4)
    assert len(texts) == 1
    with pytest.warns(UserWarning, match=NOTHING):
        warnings.warn(texts[0], stacklevel=1)
    before, after = module.warned[:2]
    assert after > before, "the second epoch began without a word"
    assert module.warned[-1] == after


def test_steps_that_report_later_are_heard(tmp_path):
    saa = SampleAdaptiveAugmentation(warmup=0, min_coverage=0.2)
    _, texts = fit(saa, tmp_path, reports_from=2)
    assert len(texts) == 1
    assert saa.history.coverage > 0.5
    assert saa.curve
