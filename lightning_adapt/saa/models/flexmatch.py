"""FlexMatchModule: FixMatch with a threshold per class (Zhang et al. 2021, arXiv 2110.08263)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from lightning_adapt._shared.checks import check_flag, check_integer, problem
from lightning_adapt.saa.models.class_learning import ClassLearning
from lightning_adapt.saa.models.fixmatch import FixMatchModule

__all__ = ["FlexMatchModule"]

_STATE = "lightning_adapt_class_learning"
_ROWS = "Train with SAADataModule, or pass n_unlabeled, the length of the unlabelled data set."


class FlexMatchModule(FixMatchModule):
    """FixMatch whose confidence threshold is lower for classes that are not yet learned.

    Sample i is used if its confidence is at least tau * M(beta[q_i]), where q_i is its pseudo-label, beta in [0, 1]
    tells how many rows were last confidently (>= tau) given that class, relative to the class with most, and
    M(x) = x / (2 - x). Rows that were never confident count in the denominator while they are the most (`warm`).
    At the start all thresholds are 0, so that every sample is used: FlexMatch means it so.

    In a step the mask comes first, then the confident pseudo-labels are noted (USB's order). All ranks note those of
    all ranks, so that their thresholds are the same as one process's; the authors' code has thresholds per rank. What
    was noted is saved in checkpoints. It begins anew with a new Trainer that resumes none; a further `fit` of the same
    Trainer goes on. Also logs `train_threshold`, the mean of the
    thresholds. Everything else is as in `FixMatchModule`.

    Args:
        backbone: As in `FixMatchModule`.
        warm: Whether rows that were never confident hold the thresholds down.
        n_unlabeled: Rows of the unlabelled data set, N. None: the `n_unlabeled` of the Trainer's DataModule.
        n_classes: Number of classes, C.
        channels: Channels of an image, 1 or 3; for a backbone given by name.
        threshold: tau, in [0, 1].
        unlabeled_weight: Weight of the unlabelled loss, lambda_u >= 0.
        learning_rate: SGD's at the start.
        momentum: SGD's, in [0, 1).
        weight_decay: SGD's, >= 0.
        ema_decay: Largest decay of the averaged weights per optimizer step, in (0, 1), or None.
        schedule: "cosine-7/16" or "constant".

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; when a run resumes or goes on, if it began with another number of
            rows or classes.
        MisconfigurationException: As in `FixMatchModule`; and if the number of rows is not known when training starts.
            On the CPU, also if a batch has a row beyond it; on a GPU that is a device-side assert of PyTorch's.

    Example:
        >>> import torch
        >>> module = FlexMatchModule("cnn", n_classes=10, channels=1)
        >>> module(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: nn.Module | str = "wrn-28-2",
        *,
        warm: bool = True,
        n_unlabeled: int | None = None,
        n_classes: int = 10,
        channels: int = 3,
        threshold: float = 0.95,
        unlabeled_weight: float = 1.0,
        learning_rate: float = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        ema_decay: float | None = 0.999,
        schedule: Literal["cosine-7/16", "constant"] = "cosine-7/16",
    ) -> None:
        if n_unlabeled is not None:
            n_unlabeled = check_integer("n_unlabeled", n_unlabeled, _ROWS, minimum=1)
        warm = check_flag("warm", warm, "Pass True, as FlexMatch does.")
        super().__init__(
            backbone,
            n_classes=n_classes,
            channels=channels,
            threshold=threshold,
            unlabeled_weight=unlabeled_weight,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            ema_decay=ema_decay,
            schedule=schedule,
        )
        self.warm, self.n_unlabeled = warm, n_unlabeled
        # neither parameters nor buffers: averaging and validation copy those at every turn
        self.learning: ClassLearning | None = None
        self._restored: dict[str, Any] | None = None
        self._gathered_rows: int | None = None

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and self.trainer.current_epoch == 0:  # a checkpoint to resume from is read after this
            self.learning = self._restored = None

    @override
    def on_train_start(self) -> None:  # not `on_fit_start`: Lightning's finders train in theirs, before the module's
        super().on_train_start()
        self._begin()

    def _begin(self) -> None:
        """Go on from what the checkpoint or an earlier `fit` of the same Trainer left, or from nothing."""
        rows = self.n_unlabeled
        if rows is None:
            rows = getattr(getattr(self.trainer, "datamodule", None), "n_unlabeled", None)
        if rows is None:
            allowed = "given where the DataModule has no `n_unlabeled`"
            raise MisconfigurationException(problem("n_unlabeled", allowed, None, _ROWS))
        known = self._known()
        if known is None and self.trainer.ckpt_path is not None and self.trainer.global_step > 0:
            rank_zero_warn("The checkpoint was not written by FlexMatchModule: all its thresholds start at 0 again.")
        learning = ClassLearning(rows, n_classes=self.n_classes, warm=self.warm, device=self.device)
        if known is not None:
            learning.load_state_dict(known)
        self.learning, self._restored, self._gathered_rows = learning, None, None

    def _known(self) -> dict[str, Any] | None:
        """Return what is known of the rows: what training has made of it, or what it begins with."""
        return self._restored if self.learning is None else self.learning.state_dict()

    @override
    def pass_mask(self, confidence: Tensor, label: Tensor, index: Tensor) -> Tensor:
        """Return which pseudo-labels are used in this step, and note the confident ones.

        Args:
            confidence: Largest class probability of the weak views. Shape (B,), float32.
            label: Pseudo-labels. Shape (B,), int64.
            index: Rows of the unlabelled data set. Shape (B,), int64.

        Returns:
            True where used. Shape (B,).
        """
        if self.learning is None and self._restored is not None:  # a finder inside the run has taken back what it did
            self._begin()
        if self.learning is None:
            raise RuntimeError("FlexMatchModule must be trained by a Trainer: what it knows of the rows begins in fit.")
        self._check_rows(index, self.learning.n_rows)
        thresholds = self.learning.thresholds(label, self.threshold)
        mask = confidence >= thresholds
        noted = torch.where(confidence >= self.threshold, label, -1)
        self.learning.write(*self._of_all_ranks(index, noted))
        self.log("train_threshold", thresholds.mean(), batch_size=len(index))
        return mask

    def _check_rows(self, index: Tensor, n_rows: int) -> None:
        if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < n_rows:
            allowed = f"rows of the unlabelled data set, 0 to {n_rows - 1}"
            received = f"{int(index.min())} to {int(index.max())}"
            raise MisconfigurationException(problem("batch['unlabeled']['index']", allowed, received, _ROWS))

    def _of_all_ranks(self, index: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows and pseudo-labels of all ranks, in their order, after one collective."""
        if self.trainer.world_size == 1:
            return index, label
        if self._gathered_rows is None:  # agreed once, as asking in each step would make the device wait
            lengths = self._gather(torch.tensor(len(index), device=index.device))
            self._gathered_rows = int(lengths.max())
        missing = self._gathered_rows - len(index)
        if missing < 0:
            remedy = "Make batches of one size; only the last one may be smaller."
            allowed = f"at most {self._gathered_rows} rows, the most of the first step"
            raise MisconfigurationException(problem("batch['unlabeled']", allowed, f"{len(index)} rows", remedy))
        if missing > 0:  # filled up on the device, with row 0 without a label, which changes nothing
            index, label = F.pad(index, (0, missing), value=0), F.pad(label, (0, missing), value=-1)
        gathered = self._gather(torch.stack([index, label], 1)).reshape(-1, 2)
        return gathered[:, 0], gathered[:, 1]

    def _gather(self, values: Tensor) -> Tensor:
        gathered: Tensor = self.trainer.strategy.all_gather(values)
        return gathered

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        known = self._known()  # a finder saves what the run begins with
        if known is not None:
            checkpoint[_STATE] = known

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get(_STATE)
        if self.learning is not None and self.trainer.state.fn == "fit":  # a test leaves what is known
            self.learning = None
