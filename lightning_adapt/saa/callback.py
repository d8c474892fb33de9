"""SampleAdaptiveAugmentation: finds the samples that teach nothing any more and has them augmented more diversely."""

from __future__ import annotations

from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import check_flag, check_integer, check_share, problem
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.resumed_epochs import begin_next_epoch
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.saa.figures import log_figures
from lightning_adapt.saa.functional import check_pieces
from lightning_adapt.saa.history import LossHistory, Threshold, check_decay, check_threshold
from lightning_adapt.saa.in_step import InStep
from lightning_adapt.saa.reports import StepReports, check_keys
from lightning_adapt.saa.selection import STATE_VERSION, Selection
from lightning_adapt.saa.timing import (
    check_n_unlabeled,
    check_update_every,
    check_warmup,
    unlabeled_rows,
    warm_batches,
)

__all__ = ["SampleAdaptiveAugmentation"]

_FLUSH_EVERY = 256  # batches whose losses wait on the device: keeps the waiting list short when an epoch is long


class SampleAdaptiveAugmentation(InStep, Callback):
    """Give unlabelled samples that are learnt already a more diverse strong view (Sample Adaptive Augmentation).

    Gui et al., ICCV 2023, arXiv 2309.03598. It records the consistency loss of each unlabelled sample, cuts the losses
    in two at the end of each period, and flags the samples below the cut as naive; their strong view is then regrouped
    of two. Flags come and go: a sample whose regrouped view is hard is not flagged in the next period.

    It works with any module that returns, beside the loss, the loss of each unlabelled sample and its row:
    `return {"loss": loss, "sample_loss": consistency, "index": rows}`; under manual optimisation, or where the step
    returns something else, call `saa.report(index, loss)` in it. The flags reach a `SAADataModule` by themselves;
    with data of your own, call `saa.regroup(first_view, other_view, index)` in the step.

    Losses are fetched from the device every 256 batches and when an epoch ends; no step waits for them. All ranks have
    the same history and flags. It logs `saa/naive_share`, `saa/threshold` and `saa/coverage` at the end of each epoch,
    once there was a selection. A run with another Trainer begins anew.

    Args:
        loss_key: Key of the consistency losses in the dict that `training_step` returns: shape (B,), before the mask.
        index_key: Key of the samples' rows in the unlabelled set, shape (B,), integers.
        history_decay: Weight of the past in the recorded loss, in [0, 1).
        threshold: Where to cut: "otsu" (as the authors), "otsu-log", "quantile:0.5", a number of nats, or a function of
            the recorded losses.
        update_every: "epoch", or a number of training batches between selections.
        warmup: Before the first selection: a share of the run in [0, 1], 1.0 for never, or a number of batches.
        min_coverage: Share of the samples that must have a loss before any is flagged.
        require_confident: Flag only samples whose last pseudo-label was confident; the authors do not ask for it.
        confidence_key: Key of the confidences, needed with `require_confident`. Shape (B,).
        confident_at: Smallest confidence that counts, the threshold of FixMatch.
        n_unlabeled: Number of unlabelled samples; None: what the DataModule says, or else the length of the data set
            of the train loader, of the one named "unlabeled" if there are several.
        pieces: Pieces of a view that `regroup` composes, 2 or 4; a `SAADataModule` has its own.
        seed: Seed of the orientations in `regroup`.
        enabled: False to switch the callback off.
        log_figure: Log a figure of the losses, the share of naive samples and some regrouped views at the end of `fit`
            (extra `figures`).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        MisconfigurationException: In `fit`, if the number of samples is unknown, a key is missing (at the first step),
            or a checkpoint belongs to another number of samples.

    Example:
        >>> saa = SampleAdaptiveAugmentation(warmup=0.1, threshold="otsu-log")
    """

    def __init__(
        self,
        loss_key: str = "sample_loss",
        *,
        index_key: str = "index",
        history_decay: float = 0.001,
        threshold: Threshold = "otsu",
        update_every: Literal["epoch"] | int = "epoch",
        warmup: int | float = 0.1,
        min_coverage: float = 0.95,
        require_confident: bool = False,
        confidence_key: str = "confidence",
        confident_at: float = 0.95,
        n_unlabeled: int | None = None,
        pieces: int = 2,
        seed: int = 0,
        enabled: bool = True,
        log_figure: bool = False,
    ) -> None:
        check_keys(loss_key=loss_key, index_key=index_key, confidence_key=confidence_key)
        self.loss_key, self.index_key, self.confidence_key = loss_key, index_key, confidence_key
        self.history_decay = check_decay(history_decay)
        self.threshold: Threshold = check_threshold(threshold)
        self.update_every = check_update_every(update_every)
        self.warmup = check_warmup(warmup)
        self.min_coverage = check_share("min_coverage", min_coverage, "Pass 0.95.")
        self.require_confident = check_flag("require_confident", require_confident, "Pass True or False.")
        self.confident_at = check_share("confident_at", confident_at, "Pass the threshold of the method, 0.95.")
        self.n_unlabeled = check_n_unlabeled(n_unlabeled)
        self.pieces = check_pieces(pieces)
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**62)
        self.enabled = check_flag("enabled", enabled, "Pass False to switch the callback off.")
        self.log_figure = check_flag("log_figure", log_figure, "Pass True to log figures.")
        InStep.__init__(self, self._new_reports())
        self._warm_batches = 0.0
        self._said = self._unheard = False

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(loss_key=self.loss_key)

    # -- the run --------------------------------------------------------------------------------------------------
    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not self.enabled or stage != "fit":
            return
        if self.log_figure:
            require("figures", "SampleAdaptiveAugmentation(log_figure=True)", "matplotlib")
        if trainer.current_epoch == 0:  # a checkpoint to resume from is read after this
            self.selection = None
        InStep.__init__(self, self._new_reports(), self.selection)
        self._said = self._unheard = False
        data: Any = getattr(trainer, "datamodule", None)
        n = getattr(data, "n_unlabeled", None) if self.n_unlabeled is None else self.n_unlabeled
        if n is None:  # the train loader says it, once there is one
            return
        self._begin(n)
        if self.selection is not None and hasattr(data, "use_flags"):
            self._used = True
            data.use_flags(self.selection.history.flags)
            if self.update_every != "epoch" and getattr(data, "views_in_workers", False):
                remedy = "Batches that workers made ahead would have the flags of before: choose the epochs' length."
                raise MisconfigurationException(
                    problem("update_every", "'epoch' where workers make the views", self.update_every, remedy)
                )

    def _begin(self, n: int) -> None:
        """Have a selection among this many samples; one of a checkpoint or an earlier fit must fit them."""
        if self.selection is None:
            self.selection = self._new_selection(n)
        known = self.selection.history.n
        if known != n:
            remedy = "Go on with the unlabelled data of the run so far, or begin anew with a new callback."
            raise MisconfigurationException(problem("n_unlabeled", f"{known}, as in the saved run", n, remedy))

    def _new_selection(self, n: int) -> Selection:
        options: dict[str, Any] = {"threshold": self.threshold, "min_coverage": self.min_coverage}
        return Selection(LossHistory(n, decay=self.history_decay, **options))

    def _new_reports(self) -> StepReports:
        return StepReports(self.loss_key, self.index_key, self.confidence_key if self.require_confident else None)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._withdraw(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._withdraw(trainer)

    def _withdraw(self, trainer: Trainer) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if self.enabled and hasattr(data, "use_flags"):
            data.use_flags(None)  # whoever trains on this data next did not ask for them

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled:
            return
        if self.selection is None or not hasattr(getattr(trainer, "datamodule", None), "n_unlabeled"):
            self._begin(unlabeled_rows(trainer) if self.n_unlabeled is None else self.n_unlabeled)
        self._warm_batches = warm_batches(trainer, self.warmup)
        if begin_next_epoch(trainer) and self.update_every == "epoch":
            self._select(trainer)  # of the epoch that ended before

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._in_step, self._composed = self.enabled, (trainer.global_rank, 0)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._in_step = False
        if self.selection is None or not self.enabled:
            return
        if not self._by_hand:
            self._reports.read(self.selection.batches, outputs)
        self.selection.batches += 1
        if self.selection.batches % _FLUSH_EVERY == 0:  # the same on all ranks, whatever each of them has to report
            self._flush(trainer)
        if self.update_every != "epoch" and self.selection.batches % self.update_every == 0:
            self._select(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled and self.update_every == "epoch":
            self._select(trainer)
        self._warn_if_unheard(trainer)
        if self.enabled and self.selection is not None and self.curve:
            _, cut, share = self.curve[-1]
            coverage = self.selection.history.coverage
            values = {"saa/naive_share": share, "saa/threshold": cut, "saa/coverage": coverage}
            pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _warn_if_unheard(self, trainer: Trainer) -> None:
        """Say after an epoch, not only after the run, that no step has told anything: a forgotten `report`, say."""
        if self.selection is None or not self.enabled or self._unheard or self.selection.history.coverage > 0:
            return
        self._flush(trainer)
        if self.selection.history.coverage == 0:
            self._unheard = True
            rank_zero_warn(self.selection.why_nothing())

    def _flush(self, trainer: Trainer) -> None:
        if self.selection is None:
            return
        try:
            for index, losses, confidence in self._reports.take(trainer):
                self.selection.history.record(index, losses, confidence >= self.confident_at)
        except ValueError as found:
            raise MisconfigurationException(str(found)) from found

    def _select(self, trainer: Trainer) -> None:
        self._flush(trainer)
        if self.selection is None or self.selection.batches < self._warm_batches:
            return
        done = self.selection.select(require_confident=self.require_confident)
        if done and not self._used and not self._said and self.selection.history.naive_share > 0:
            self._said = True
            rank_zero_warn(
                "SampleAdaptiveAugmentation flags samples, but nothing asks for the flags, so that training goes on as "
                "without it. Train with a SAADataModule, or call `regroup` or `flagged` on the callback in the step."
            )

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.selection is None or not self.enabled:
            return
        self._flush(trainer)
        if compat.is_dev_run(trainer):
            return
        if not self.curve and self.selection.batches >= self._warm_batches and self.selection.history.coverage > 0:
            rank_zero_warn(self.selection.why_nothing())
        if self.log_figure and trainer.is_global_zero:
            log_figures(trainer, self.selection)

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        if self.selection is None:
            return with_version({"history": None}, STATE_VERSION)
        return self.selection.state_dict()

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.selection is not None and self.enabled:  # every rank is here: losses since the last flush are gathered
            self._flush(trainer)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit" and self.selection is not None:  # a test leaves what training knows
            checkpoint["callbacks"].pop(self.state_key, None)

    @override
    @reading_state("SampleAdaptiveAugmentation")
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, "SampleAdaptiveAugmentation")
        if state_dict["history"] is None:
            return
        if self.selection is None:  # the number of samples is not known yet, or it is looked at outside of a run
            self.selection = self._new_selection(state_dict["history"]["n"])
        try:
            self.selection.load_state_dict(state_dict)
        except ValueError as found:
            raise MisconfigurationException(str(found)) from found
