"""FixMatchModule: FixMatch (Sohn et al. 2020, arXiv 2001.07685) around any classifier; for `lightning.pytorch`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from lightning_adapt._shared.checks import (
    check_choice,
    check_integer,
    check_not_negative,
    check_number,
    check_positive,
    check_share,
    problem,
)
from lightning_adapt.saa.functional import consistency_loss, fixmatch_loss, pseudo_labels
from lightning_adapt.saa.models.averaging import RampedEMA
from lightning_adapt.saa.models.backbones import build_backbone
from lightning_adapt.saa.models.batches import check_logits, part_of, tensors_of
from lightning_adapt.saa.models.optimization import parameter_groups, stretched

__all__ = ["FixMatchModule"]

_EVALUATION = 'Pass loaders whose batches are dicts with "image" and, but for predict, "label".'

_NUMBERS = (
    *("n_classes", "channels", "threshold", "unlabeled_weight"),
    *("learning_rate", "momentum", "weight_decay", "ema_decay"),
)


class FixMatchModule(LightningModule):
    """Learns to classify images from a few labels and many images without.

    The loss is the cross-entropy of the labelled images plus, for unlabelled images whose weak view is classified
    with confidence >= `threshold`, the cross-entropy of the strong view with that class, summed and divided by the
    size of the WHOLE unlabelled batch. Labelled, weak and strong views go through one forward, so that BatchNorm sees
    them together. SGD with Nesterov momentum; no weight decay on normalisation layers. Evaluation uses the moving
    average of the weights, which `load_from_checkpoint` gives, too.

    A training batch is what `SAADataModule` makes: {"labeled": {"image", "label"}, "unlabeled": {"weak", "strong",
    "index"[, "label"]}}; evaluation takes {"image", "label"}, and `predict_step` returns the class of each image.
    `training_step` also returns "sample_loss", "confidence" and "index" of the unlabelled images, which is what
    `SampleAdaptiveAugmentation` reads. Logs `train_` `loss`, `loss_labeled`, `loss_unlabeled`, `mask_rate` (share of
    unlabelled images in the loss) and `pseudo_accuracy` (share of right classes among these, as far as their labels
    are in the batch, else NaN), and `val_` and `test_` `loss` and `accuracy`. For `lightning.pytorch` only.

    A backbone that was passed as a module is not in the checkpoint's hyperparameters: pass a new one to
    `FixMatchModule.load_from_checkpoint(path, backbone=...)`.

    Args:
        backbone: "wrn-28-2", "wrn-28-8" (any "wrn-<depth>-<width>"), "cnn" (small, for a CPU), or any module that maps
            images (B, channels, H, W) to logits (B, C).
        n_classes: Number of classes, C.
        channels: Channels of an image, 1 or 3; for a backbone given by name.
        threshold: Smallest confidence of a pseudo-label that is used, tau, in [0, 1].
        unlabeled_weight: Weight of the unlabelled loss, lambda_u >= 0.
        learning_rate: SGD's at the start.
        momentum: SGD's, in [0, 1).
        weight_decay: SGD's, >= 0; FixMatch takes 0.0005, and 0.001 for CIFAR-100.
        ema_decay: Largest decay of the averaged weights per optimizer step, in (0, 1). Ramped: after k steps it is at
            most 1 - 1/(k+1). None: evaluate the weights as trained. Also sets BatchNorm's momentum of a WRN, to one
            minus it. If the Trainer has a weight averaging callback of its own, that one is used instead.
        schedule: "cosine-7/16": learning_rate * cos(7 pi k / (16 K)) at step k of K; or "constant".

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        MisconfigurationException: When a run starts, if the schedule needs its length and it has none, or the
            DataModule has other classes or channels; at the first step, if the batch or the logits do not fit.

    Example:
        >>> import torch
        >>> module = FixMatchModule("cnn", n_classes=10, channels=1)
        >>> module(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: nn.Module | str = "wrn-28-2",
        *,
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
        super().__init__()
        self.n_classes = check_integer("n_classes", n_classes, "Pass 10.", minimum=2)
        self.channels = check_integer("channels", channels, "Pass 1 for gray images, or 3.", minimum=1)
        self.threshold = check_share("threshold", threshold, "Pass 0.95.")
        self.unlabeled_weight = check_not_negative("unlabeled_weight", unlabeled_weight, "Pass 1.")
        self.learning_rate = check_positive("learning_rate", learning_rate, "Pass 0.03.")
        self.momentum = check_number("momentum", momentum, "[0, 1)", "Pass 0.9, or 0 for none.")
        self.weight_decay = check_not_negative("weight_decay", weight_decay, "Pass 0.0005, or 0 for none.")
        self.ema_decay = ema_decay
        if ema_decay is not None:
            self.ema_decay = check_number("ema_decay", ema_decay, "(0, 1)", "Pass 0.999, or None for no averaging.")
        self.schedule = check_choice("schedule", schedule, ("cosine-7/16", "constant"), "Pass 'cosine-7/16'.")
        self.is_named = isinstance(backbone, str)
        self.save_hyperparameters(ignore=[] if self.is_named else ["backbone"])
        for name in _NUMBERS:  # plain ones, so that checkpoints load with weights_only=True
            self.hparams[name] = getattr(self, name)
        self.backbone = self._build(backbone)
        self.val_score = MulticlassAccuracy(self.n_classes, average="micro", validate_args=False)
        self.test_score = MulticlassAccuracy(self.n_classes, average="micro", validate_args=False)

    def _build(self, backbone: Any) -> nn.Module:
        if isinstance(backbone, nn.Module):
            return backbone
        if not isinstance(backbone, str):
            remedy = "Pass 'wrn-28-2', 'cnn' or a module of your own."
            raise TypeError(problem("backbone", "a name or an nn.Module", backbone, remedy))
        bn_momentum = 0.1 if self.ema_decay is None else 1 - self.ema_decay
        return build_backbone(backbone, n_classes=self.n_classes, channels=self.channels, bn_momentum=bn_momentum)

    @override
    def on_fit_start(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        for argument in ("n_classes", "channels") if self.is_named else ("n_classes",):
            ours, theirs = getattr(self, argument), getattr(data, argument, None)
            # labelled images may lack the last classes, but not have more of them; 0: the user's transforms decide
            fits = theirs in (None, 0) or (ours >= theirs if argument == "n_classes" else ours == theirs)
            if not fits:
                remedy = f"Pass {argument}={theirs}."
                raise MisconfigurationException(problem(argument, f"that of the DataModule, {theirs}", ours, remedy))

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits.

        Args:
            images: Normalised images. Shape (B, channels, H, W).

        Returns:
            Logits. Shape (B, C).

        Raises:
            MisconfigurationException: If the backbone returns anything else.
        """
        return check_logits(self.backbone(images), len(images), self.n_classes)

    def pass_mask(self, confidence: Tensor, label: Tensor, index: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """Return which pseudo-labels are used in this step; a subclass may decide otherwise.

        Args:
            confidence: Largest class probability of the weak views. Shape (B,), float32.
            label: Pseudo-labels. Shape (B,), int64.
            index: Rows of the unlabelled data set. Shape (B,), int64.

        Returns:
            True where used. Shape (B,).
        """
        return confidence >= self.threshold

    @override
    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        labeled, unlabeled = part_of(batch, "labeled"), part_of(batch, "unlabeled")
        image, target = tensors_of(labeled, ("image", "label"), "batch['labeled']")
        weak, strong, index = tensors_of(unlabeled, ("weak", "strong", "index"), "batch['unlabeled']")
        logits = self(torch.cat([image, weak, strong]))
        of_image, of_weak, of_strong = logits.split([len(image), len(weak), len(strong)])
        labeled_loss = consistency_loss(of_image, target).mean()
        confidence, label = pseudo_labels(of_weak)
        mask = self.pass_mask(confidence, label, index)
        sample_loss = consistency_loss(of_strong, label)
        unlabeled_loss = fixmatch_loss(sample_loss, mask)
        loss = labeled_loss + self.unlabeled_weight * unlabeled_loss
        values = {
            "loss": loss.detach(),
            "loss_labeled": labeled_loss.detach(),
            "loss_unlabeled": unlabeled_loss.detach(),
            "mask_rate": mask.float().mean(),
            "pseudo_accuracy": _pseudo_accuracy(label, mask, unlabeled.get("label")),
        }
        self.log_dict({f"train_{name}": value for name, value in values.items()}, batch_size=len(image))
        return {"loss": loss, "sample_loss": sample_loss.detach(), "index": index, "confidence": confidence}

    @override
    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch, self.val_score)

    @override
    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch, self.test_score)

    def _evaluate(self, stage: str, batch: Mapping[str, Tensor], score: MulticlassAccuracy) -> None:
        image, target = tensors_of(batch, ("image", "label"), remedy=_EVALUATION)
        logits: Tensor = self(image)
        score.update(logits, target)
        rows: dict[str, Any] = {"batch_size": len(image), "on_step": False, "on_epoch": True, "prog_bar": True}
        self.log(f"{stage}_loss", consistency_loss(logits, target).mean(), sync_dist=True, **rows)
        self.log(f"{stage}_accuracy", score, **rows)

    @override
    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the class of each image, shape (B,), int64."""
        (image,) = tensors_of(batch, ("image",), remedy=_EVALUATION)
        logits: Tensor = self(image)
        return logits.argmax(1)

    @override
    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self, self.weight_decay)
        momentum = self.momentum
        optimizer = torch.optim.SGD(groups, lr=self.learning_rate, momentum=momentum, nesterov=momentum > 0)
        if self.schedule == "constant":
            return optimizer
        if self.trainer.max_steps == -1 and self.trainer.max_epochs == -1:
            raise MisconfigurationException(_unbounded(self.trainer.max_steps))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, stretched(self._steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _steps(self) -> float:
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise MisconfigurationException(_unbounded(steps))
        return steps

    @override
    def configure_callbacks(self) -> list[Callback]:
        trainer: Any = self.trainer
        if self.ema_decay is None or any(_averages(callback) for callback in trainer.callbacks):
            return []
        # said here, because Lightning copies the module before it moves it to the device
        return [RampedEMA(self.ema_decay, device=trainer.strategy.root_device)]


def _averages(callback: Any) -> bool:
    """Return whether the user's Trainer averages weights by itself; two averages would swap each other away."""
    return isinstance(callback, WeightAveraging) and not isinstance(callback, RampedEMA)


def _pseudo_accuracy(label: Tensor, mask: Tensor, truth: Any) -> Tensor:
    """Return the share of right ones among the pseudo-labels used whose truth (>= 0) is known; NaN without any."""
    if truth is None:
        return torch.full((), math.nan, device=label.device)
    known = mask.bool() & (truth >= 0)
    accuracy: Tensor = (known & (label == truth)).sum() / known.sum()
    return accuracy


def _unbounded(steps: Any) -> str:
    remedy = "Pass max_steps or max_epochs to the Trainer, or schedule='constant' to the module."
    return problem("max_steps", "known for schedule='cosine-7/16'", steps, remedy)
