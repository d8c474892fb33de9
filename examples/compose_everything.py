"""Selection, RS2 guided by losses, an error memory, averaged weights, checkpoints, early stopping: one Trainer.

python examples/compose_everything.py
"""

import logging
import tempfile
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn

from lightning_adapt import DiversitySelectionCallback, DriftStream, ErrorMemoryCallback, RS2Callback


class Clicks(LightningModule):
    """A click model as one writes it; the loss of each row is what guides RS2."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: nn.Embedding(size, 8) for name, size in sizes.items()})
        self.mlp = nn.Sequential(nn.Linear(8 * len(sizes), 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.mlp(torch.cat([part(batch[name]) for name, part in self.parts.items()], 1)).squeeze(1)

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self(batch), batch["label"].float(), reduction="none")

    def training_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = self.losses(batch)
        return {"loss": losses.mean(), "sample_loss": losses.detach()}

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        self.log("val_loss", self.losses(batch).mean(), batch_size=len(batch["label"]))

    def test_step(self, batch: dict[str, Tensor]) -> None:
        self.log("test_loss", self.losses(batch).mean(), batch_size=len(batch["label"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stream = DriftStream("gradual", n_train=20_000, n_stream=8_000, val_share=0.1, batch_size=128)
    vectors = torch.randn(len(stream.train_dataloader().dataset), 4, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [
            DiversitySelectionCallback("60%", k=8, embedder=vectors),  # yours: vectors that mean something
            RS2Callback(0.4, mode="loss", validate="round"),  # inside the selection, so after it
            ErrorMemoryCallback(),
            EMAWeightAveraging(decay=0.99),
            EarlyStopping("val_loss", patience=3),
            ModelCheckpoint(folder, monitor="val_loss"),
        ]
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(max_epochs=6, accelerator="cpu", callbacks=callbacks, accumulate_grad_batches=2, **quiet)
        module = Clicks(stream.field_sizes)  # or torch.compile(module)
        trainer.fit(module, stream)
        best = trainer.checkpoint_callback.best_model_path.rsplit("/", 1)[-1]
        print(f"{trainer.current_epoch} epochs, {trainer.global_step} steps; the best one is {best}")
        (result,) = trainer.test(module, stream, ckpt_path="best", weights_only=True, verbose=False)
        base, ours = result["reloop2/test_base_logloss"], result["reloop2/test_logloss"]
        print(f"log loss {base:.4f} as trained, {ours:.4f} with the memory")


if __name__ == "__main__":
    main()
