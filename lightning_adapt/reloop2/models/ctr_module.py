"""CTRModule: a click model to adapt, with DeepFM or DCNv2 inside; for `lightning.pytorch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics.classification import BinaryAUROC
from typing_extensions import override

from lightning_adapt._shared.checks import check_choice, check_not_negative, check_positive, problem
from lightning_adapt.reloop2.models.backbones import Backbone, DCNv2, DeepFM
from lightning_adapt.reloop2.models.fields import check_fields, column_of, fields_of_weights

__all__ = ["CTRModule"]


class CTRModule(LightningModule):
    """Predicts clicks from id and numeric fields; a base model for `ErrorMemoryCallback`.

    `forward(batch)` gives logits of shape (B,), `predict_step` probabilities; both are the output of one last
    `Linear(., 1)`, which is where a memory finds its key and corrects the logit. Logs `train_loss`, and `val_` and
    `test_` `logloss` and `auc`. For `lightning.pytorch` only.

    The defaults are for logs of some 10^4 to 10^6 rows: a click model overfits its ids within a few passes, and what
    holds that back here is `embedding_decay`.

    Args:
        field_sizes: Id field -> number of its rows. None: taken from the Trainer's DataModule (its `field_sizes` and
            `numeric`) when a run starts, and kept in checkpoints, so that `load_from_checkpoint` needs no DataModule.
        numeric: Names of the numeric fields.
        backbone: "deepfm" or "dcnv2".
        embedding_dim: Numbers per embedding.
        hidden: Widths of the MLP; empty for none.
        cross_layers: Number of cross layers; "dcnv2" only.
        dropout: Share of hidden units switched off in training, in [0, 1).
        batch_norm: Normalise each hidden layer over the batch.
        learning_rate: Adam's.
        embedding_decay: Weight of the squared norm of a sample's embeddings in the loss, >= 0; rows that a batch does
            not look up do not decay.
        label_key: Name of the label in a batch; values in [0, 1].

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        MisconfigurationException: When a run starts, if `field_sizes` is None and the DataModule has none.

    Example:
        >>> CTRModule(embedding_dim=4, hidden=(8,)).hparams.embedding_dim
        4
    """

    def __init__(
        self,
        field_sizes: dict[str, int] | None = None,
        *,
        numeric: Sequence[str] = (),
        backbone: Literal["deepfm", "dcnv2"] = "deepfm",
        embedding_dim: int = 16,
        hidden: Sequence[int] = (64, 32),
        cross_layers: int = 3,
        dropout: float = 0.0,
        batch_norm: bool = False,
        learning_rate: float = 2e-3,
        embedding_decay: float = 0.01,
        label_key: str = "label",
    ) -> None:
        super().__init__()
        check_choice("backbone", backbone, ("deepfm", "dcnv2"), "Pass 'deepfm'.")
        self.learning_rate = check_positive("learning_rate", learning_rate, "Pass 0.002, say.")
        self.embedding_decay = check_not_negative("embedding_decay", embedding_decay, "Pass 0 for none, or 0.01.")
        self.label_key = label_key
        # plain types, so that checkpoints load with weights_only=True whatever sequence came
        numeric, hidden = list(numeric), list(hidden)
        self.save_hyperparameters()
        self._options: dict[str, Any] = {
            "embedding_dim": embedding_dim,
            "hidden": hidden,
            "dropout": dropout,
            "batch_norm": batch_norm,
            **({"cross_layers": cross_layers} if backbone == "dcnv2" else {}),
        }
        self._kind: type[Backbone] = DCNv2 if backbone == "dcnv2" else DeepFM
        self.network: Backbone | None = None
        if field_sizes is not None:
            self._build(field_sizes, numeric)
        else:  # what is wrong with the other arguments shows now; the meta device draws no random numbers
            with torch.device("meta"):
                self._kind({"any": 1}, **self._options)
        self.val_auc, self.test_auc = BinaryAUROC(), BinaryAUROC()

    @override
    def configure_model(self) -> None:
        if self.network is not None:
            return
        data = getattr(self.trainer, "datamodule", None)
        sizes = getattr(data, "field_sizes", None)
        if sizes is None:
            remedy = "Pass the sizes, or run with datamodule=PrequentialDataModule(...)."
            raise MisconfigurationException(
                problem("field_sizes", "given where the DataModule has no `field_sizes`", None, remedy)
            )
        numeric = self.hparams["numeric"] or getattr(data, "numeric", ())
        self._build(sizes, numeric)

    def _build(self, field_sizes: Mapping[str, int], numeric: Sequence[str]) -> None:
        sizes, numbers = check_fields(field_sizes, numeric)
        self.hparams.update(field_sizes=sizes, numeric=list(numbers))
        self.network = self._kind(sizes, numeric=numbers, **self._options)

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        # strategies that start processes hand trained weights back to a module whose sizes only those processes found
        if self.network is None:
            sizes, numeric = fields_of_weights(state_dict, "network.")
            if sizes or numeric:
                self._build(sizes, numeric)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    @override
    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of a click.

        Args:
            batch: Field -> values of shape (B,); other entries are left alone.

        Returns:
            Logits. Shape (B,).
        """
        logits: Tensor = self._net()(batch)
        return logits

    def _net(self) -> Backbone:
        if self.network is None:
            remedy = "Pass `field_sizes`, or start a run whose DataModule has them."
            raise RuntimeError(problem("field_sizes", "known before the first forward pass", None, remedy))
        return self.network

    @override
    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        network, label = self._net(), self._label(batch)
        embedded = network.embed(batch)
        loss = F.binary_cross_entropy_with_logits(network.logits(embedded).float(), label)
        self.log("train_loss", loss.detach(), batch_size=len(label))
        return loss + self.embedding_decay * embedded.float().square().sum((1, 2)).mean()

    @override
    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch, self.val_auc)

    @override
    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch, self.test_auc)

    def _evaluate(self, stage: str, batch: Mapping[str, Tensor], auc: BinaryAUROC) -> None:
        logits, label = self(batch).float(), self._label(batch)
        logloss = F.binary_cross_entropy_with_logits(logits, label)
        auc.update(logits.sigmoid(), (label >= 0.5).long())
        rows = {"batch_size": len(label), "on_step": False, "on_epoch": True}
        self.log(f"{stage}_logloss", logloss, sync_dist=True, prog_bar=True, **rows)  # type: ignore[arg-type]
        self.log(f"{stage}_auc", auc, prog_bar=True, **rows)  # type: ignore[arg-type]

    def _label(self, batch: Mapping[str, Tensor]) -> Tensor:
        return column_of(batch, self.label_key).float()

    @override
    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the probabilities of a click, shape (B,), float32."""
        logits: Tensor = self(batch)
        return logits.float().sigmoid()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)
