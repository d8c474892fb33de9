"""Lightning's fifteen hooks of validation, test and prediction, turned into five calls that name their stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from lightning_adapt._shared.checks import check_choice, problem

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:  # whoever uses it brings the Callback along: nothing here imports Lightning
    Callback = object

__all__ = ["STAGES", "Stage", "StageHooks", "check_stages"]

Stage = Literal["validate", "test", "predict"]
STAGES: tuple[Stage, ...] = ("validate", "test", "predict")


class StageHooks(Callback):
    """Has a callback do the same in every stage that does not train; comes before `Callback` among the base classes.

    A subclass overrides `begin_stage`, `begin_batch`, `end_batch`, `end_epoch` and `end_stage`. However a stage ends,
    by an error too, `release` runs.

    Attributes:
        in_sanity_check: Whether the sanity check before training is taken for a validation; it is left out otherwise.
    """

    in_sanity_check = False

    def begin_stage(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Act before the first batch of a stage."""

    def begin_batch(self, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Act before the module sees a batch."""

    def end_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any, n_rows: int | None) -> None:
        """Act after the module has seen a batch; `n_rows` is the length of its data set, where that is known."""

    def end_epoch(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Act after the last batch, where `self.log` still works; not in prediction."""

    def end_stage(self) -> None:
        """Act after a stage that came to its end."""

    def release(self) -> None:
        """Take back what a stage needed."""

    # -- stages -------------------------------------------------------------------------------------------------------
    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.in_sanity_check or not trainer.sanity_checking:
            self.begin_stage(trainer, pl_module, "validate")

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin_stage(trainer, pl_module, "test")

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin_stage(trainer, pl_module, "predict")

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.in_sanity_check or not trainer.sanity_checking:
            self.end_epoch(trainer, pl_module, "validate")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end_epoch(trainer, pl_module, "test")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    def _end(self) -> None:
        try:
            self.end_stage()
        finally:
            self.release()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.release()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.release()

    # -- batches ------------------------------------------------------------------------------------------------------
    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.in_sanity_check or not trainer.sanity_checking:
            self.begin_batch(pl_module, batch, batch_idx)

    @override
    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.begin_batch(pl_module, batch, batch_idx)

    @override
    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.begin_batch(pl_module, batch, batch_idx)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.in_sanity_check or not trainer.sanity_checking:
            self.end_batch(trainer, pl_module, batch, _n_rows(trainer.val_dataloaders, dataloader_idx))

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.end_batch(trainer, pl_module, batch, _n_rows(trainer.test_dataloaders, dataloader_idx))

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.end_batch(trainer, pl_module, batch, _n_rows(trainer.predict_dataloaders, dataloader_idx))


def _n_rows(loaders: Any, dataloader_idx: int) -> int | None:
    """Return the rows of a loader's data set, None where it does not say."""
    many = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    many = many if isinstance(many, (list, tuple)) else [many]
    try:
        loader = many[dataloader_idx]
        # a data set whose items are batches has fewer items than rows
        return None if loader.batch_sampler is None else len(loader.dataset)
    except (AttributeError, IndexError, TypeError):  # an iterable of the user's: its length is not known
        return None


def check_stages(argument: str, value: Any) -> tuple[str, ...]:
    """Return a list of stages as a tuple; raise a TypeError or ValueError that names the argument otherwise."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(problem(argument, f"a list of stages among {STAGES}", value, "Pass ['test'], say."))
    return tuple(check_choice(argument, stage, STAGES, "Pass ['test'], say.") for stage in value)
