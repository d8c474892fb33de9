"""SampleAdaptiveAugmentation: finds the samples that teach nothing any more and has them augmented more diversely."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared.checks import check_flag, check_integer, check_share, problem
from lightning_adapt._shared.figures import log_figure
from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.saa.figures import selection_figure, views_figure
from lightning_adapt.saa.functional import regroup
from lightning_adapt.saa.history import LossHistory, Threshold, check_decay, check_threshold
from lightning_adapt.saa.reports import StepReports
from lightning_adapt.saa.timing import check_update_every, check_warmup, unlabeled_rows, warm_batches

__all__ = ["SampleAdaptiveAugmentation"]

STATE_VERSION = 1
_FLUSH_EVERY = 256  # steps whose losses wait on the device: keeps the waiting list short when an epoch is long


class SampleAdaptiveAugmentation(Callback):
    """Give unlabelled samples that are learnt already a more diverse strong view (Sample Adaptive Augmentation).

    Gui et al., ICCV 2023, arXiv 2309.03598. It records the consistency loss of each unlabelled sample, cuts the losses
    in two at the end of each period, and flags the samples below the cut as naive; their strong view is then regrouped
    of two. Flags come and go: a sample whose regrouped view is hard is not flagged in the next period.

    It works with any module that returns, beside the loss, the loss of each unlabelled sample and its row:
    `return {"loss": loss, "sample_loss": consistency, "index": rows}`; under manual optimisation, or where the step
    returns something else, call `saa.report(index, loss)` in it. The flags reach a `SAADataModule` by themselves;
    with data of your own, call `saa.regroup(first_view, other_view, index)` in the step.

    Nothing waits for the device in between periods. All ranks have the same history and flags. It logs
    `saa/naive_share`, `saa/threshold` and `saa/coverage` at each selection.

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
        for name, key in (("loss_key", loss_key), ("index_key", index_key), ("confidence_key", confidence_key)):
            if not isinstance(key, str) or not key:
                raise TypeError(problem(name, "a key of the dict that `training_step` returns", key, "Pass text."))
        self.loss_key, self.index_key, self.confidence_key = loss_key, index_key, confidence_key
        self.history_decay = check_decay(history_decay)
        self.threshold: Threshold = check_threshold(threshold)
        self.update_every = check_update_every(update_every)
        self.warmup = check_warmup(warmup)
        self.min_coverage = check_share("min_coverage", min_coverage, "Pass 0.95.")
        self.require_confident = check_flag("require_confident", require_confident, "Pass True or False.")
        self.confident_at = check_share("confident_at", confident_at, "Pass the threshold of the method, 0.95.")
        if n_unlabeled is not None:
            remedy = "Pass the length of the unlabelled data set."
            n_unlabeled = check_integer("n_unlabeled", n_unlabeled, remedy, minimum=1)
        self.n_unlabeled = n_unlabeled
        if pieces not in (2, 4):
            raise ValueError(problem("pieces", "2 or 4", pieces, "Pass 2, as the authors do."))
        self.pieces = pieces
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**62)
        self.enabled = check_flag("enabled", enabled, "Pass False to switch the callback off.")
        self.log_figure = check_flag("log_figure", log_figure, "Pass True to log figures.")
        self.history: LossHistory | None = None
        self.batches = 0  # trained on so far
        self.curve: list[list[float]] = []  # of each selection: batches, cut, share of naive samples
        self._selected_epochs = 0  # after how many epochs a selection was due and is done
        self._warm_batches = 0.0
        self._reports = self._new_reports()
        self._n_is_known = False
        self._used = False  # whether anything asks for the flags
        self._said = False
        self._by_hand = False  # whether steps call `report`

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(loss_key=self.loss_key)

    # -- for training steps ---------------------------------------------------------------------------------------
    def report(self, index: Tensor, loss: Tensor, confidence: Tensor | None = None) -> None:
        """Record a step by hand, where `training_step` does not return the keys.

        Args:
            index: Rows of the unlabelled set. Shape (B,), integers.
            loss: Consistency losses before the mask. Shape (B,), floating point.
            confidence: Confidences of the pseudo-labels; needed with `require_confident`. Shape (B,).

        Raises:
            MisconfigurationException: If the shapes do not fit.
        """
        self._by_hand = True
        if self.enabled:
            self._reports.add(index, loss, confidence)

    def flagged(self, index: Tensor) -> Tensor:
        """Say which samples are naive.

        Args:
            index: Rows of the unlabelled set. Shape (B,), dtype int64.

        Returns:
            True where the strong view should be regrouped. Shape (B,), dtype bool, on the device of `index`.
        """
        self._used = True
        if self.history is None:
            return torch.zeros_like(index, dtype=torch.bool)
        flagged: Tensor = self.history.flags.to(index.device, non_blocking=True)[index]
        return flagged

    def regroup(self, first: Tensor, second: Tensor, index: Tensor) -> Tensor:
        """Return the first strong views, those of naive samples regrouped with the second.

        Args:
            first: Strong views. Shape (B, C, H, W).
            second: Other strong views of the same images. Shape and dtype of `first`.
            index: Rows of the unlabelled set. Shape (B,), dtype int64.

        Returns:
            The views. Shape and dtype of `first`.
        """
        places = torch.arange(len(first)) + self.batches * len(first)
        orientation = (uniform(places, derive_key(self.seed, 0)) < 0.5).to(first.device)
        naive = self.flagged(index)[:, None, None, None]
        return torch.where(naive, regroup(first, second, orientation.long(), self.pieces), first)

    # -- the run --------------------------------------------------------------------------------------------------
    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not self.enabled or stage != "fit":
            return
        self._reports = self._new_reports()
        self._selected_epochs = trainer.current_epoch
        data: Any = getattr(trainer, "datamodule", None)
        n = getattr(data, "n_unlabeled", None) if self.n_unlabeled is None else self.n_unlabeled
        self._n_is_known = n is not None
        if n is None:  # the train loader says it, once there is one
            return
        if self.history is None or self.history.n != n:
            self.history = self._new_history(n)
        if hasattr(data, "use_flags"):
            data.use_flags(self.history.flags)
            self._used = True
            if self.update_every != "epoch" and data.views_in_workers:
                remedy = "Batches that workers made ahead would have the flags of before: choose the epochs' length."
                raise MisconfigurationException(
                    problem("update_every", "'epoch' where workers make the views", self.update_every, remedy)
                )

    def _new_history(self, n: int) -> LossHistory:
        return LossHistory(n, decay=self.history_decay, threshold=self.threshold, min_coverage=self.min_coverage)

    def _new_reports(self) -> StepReports:
        return StepReports(self.loss_key, self.index_key, self.confidence_key if self.require_confident else None)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled:
            return
        if not self._n_is_known:
            n = unlabeled_rows(trainer)
            self.history = self.history or self._new_history(n)
            if self.history.n != n:
                remedy = "Resume with the unlabelled data of the saved run, or start with a new callback."
                allowed = f"{self.history.n}, as in the saved run"
                raise MisconfigurationException(problem("n_unlabeled", allowed, n, remedy))
        self._warm_batches = warm_batches(trainer, self.warmup)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # a checkpoint of the validation at the end of an epoch was saved before that epoch's selection
        if trainer.current_epoch > self._selected_epochs:
            self._end_epoch(trainer, pl_module, trainer.current_epoch)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.history is None or not self.enabled:
            return
        if not self._by_hand:
            self._reports.read(outputs)
        self.batches += 1
        if self._reports.steps >= _FLUSH_EVERY:
            self._flush(trainer)
        if self.update_every != "epoch" and self.batches % self.update_every == 0:
            self._select(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch(trainer, pl_module, trainer.current_epoch + 1)

    def _end_epoch(self, trainer: Trainer, pl_module: LightningModule, epochs: int) -> None:
        self._selected_epochs = epochs
        if self.update_every == "epoch":
            self._select(trainer, pl_module)

    def _flush(self, trainer: Trainer) -> None:
        if self.history is None:
            return
        try:
            for index, losses, confidence in self._reports.take(trainer):
                self.history.record(index, losses, confidence >= self.confident_at)
        except ValueError as found:
            raise MisconfigurationException(str(found)) from found

    def _select(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.history is None or not self.enabled:
            return
        self._flush(trainer)
        if self.batches < self._warm_batches or not self.history.select(require_confident=self.require_confident):
            return
        share, cut = self.history.naive_share, self.history.threshold
        self.curve.append([float(self.batches), cut, share])
        values = {"saa/naive_share": share, "saa/threshold": cut, "saa/coverage": self.history.coverage}
        by_step = self.update_every != "epoch"
        pl_module.log_dict(values, on_step=by_step, on_epoch=not by_step, batch_size=1, sync_dist=True)
        if share > 0 and not self._used and not self._said:
            self._said = True
            rank_zero_warn(
                "SampleAdaptiveAugmentation flags samples, but nothing asks for the flags, so that training goes on as "
                "without it. Train with a SAADataModule, or call `regroup` or `flagged` on the callback in the step."
            )

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.history is None or not self.enabled:
            return
        self._flush(trainer)
        if self.log_figure and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            log_figure(trainer, "saa/selection", selection_figure(self.history, self.curve), step=trainer.global_step)
            data: Any = getattr(trainer, "datamodule", None)
            if hasattr(data, "example_views"):
                log_figure(trainer, "saa/views", views_figure(data, self.history.flags), step=trainer.global_step)

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        history = None if self.history is None else self.history.state_dict()
        state = {"batches": self.batches, "selected_epochs": self._selected_epochs, "curve": self.curve}
        return with_version({"history": history, **state}, STATE_VERSION)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.history is not None and self.enabled:  # every rank is here: losses since the last flush are gathered
            self._flush(trainer)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, "SampleAdaptiveAugmentation")
        self.batches, self._selected_epochs = state_dict["batches"], state_dict["selected_epochs"]
        self.curve = [list(point) for point in state_dict["curve"]]
        history = state_dict["history"]
        if history is None:
            return
        if self.history is None:  # looked at outside of a run
            self.history = self._new_history(history["n"])
        try:
            self.history.load_state_dict(history)
        except ValueError as found:
            raise MisconfigurationException(str(found)) from found
