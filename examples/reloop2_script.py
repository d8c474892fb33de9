"""An error memory on a click model that was not written for it: one more callback, the weights stay as they are.

python examples/reloop2_script.py
"""

import logging
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics.classification import BinaryAUROC

from lightning_adapt import DriftStream, ErrorMemoryCallback, IncrementalTraining


class Clicks(LightningModule):
    """Two towers of embeddings and an MLP, as one writes it; nothing in here knows of a memory."""

    def __init__(self, users: int, items: int, groups: int, categories: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, 16), nn.Embedding(items, 16)
        self.group, self.category = nn.Embedding(groups, 16), nn.Embedding(categories, 16)
        self.mlp = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
        self.auc = BinaryAUROC()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        who = [self.user(batch["user_id"]), self.group(batch["group"])]
        what = [self.item(batch["item_id"]), self.category(batch["category"])]
        return self.mlp(torch.cat([*who, *what], 1)).squeeze(1)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self(batch), batch["label"])

    def test_step(self, batch: dict[str, Tensor]) -> None:
        logits, label = self(batch), batch["label"]
        self.auc.update(logits, label.int())
        self.log("auc", self.auc, batch_size=len(label))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, label)
        self.log("logloss", loss, batch_size=len(label))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.1)


def trainer(callbacks: list) -> Trainer:
    return Trainer(
        max_epochs=1,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stream = DriftStream("abrupt", n_train=120_000, n_stream=40_000)  # what users like changes in the middle
    sizes = stream.field_sizes
    module = Clicks(sizes["user_id"], sizes["item_id"], sizes["group"], sizes["category"])
    trainer([]).fit(module, stream.train_dataloader())
    rows = {
        "as it is": [],
        "with ErrorMemoryCallback()": [ErrorMemoryCallback()],
        "trained on, one step a batch": [IncrementalTraining(3e-3)],
    }
    for name, callbacks in rows.items():
        (result,) = trainer(callbacks).test(module, stream.test_dataloader(), verbose=False)
        print(f"{name:30} AUC {100 * result['auc']:.1f} %   log loss {result['logloss']:.4f}")


if __name__ == "__main__":
    main()
