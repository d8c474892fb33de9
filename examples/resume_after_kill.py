"""Go on after a crash, a kill or a full disk: from the newest checkpoint that can be read, exactly where it was.

Lightning writes a checkpoint to a temporary file in TMPDIR and moves it to its place. On one file system the move is
all or nothing. From another one (/tmp in memory, checkpoints on a disk) it is a copy, and a kill inside it leaves half
a file under the final name. Two things help, and neither is much work: TMPDIR on the file system of the checkpoints,
and names with the step in them, so that the last but one stays until its successor is there. Then run this script
again, as often as it takes:

    mkdir -p runs && TMPDIR=$PWD/runs python examples/resume_after_kill.py
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_adapt import RS2Callback


def last_good_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest checkpoint of a folder that is whole; None if there is none, which begins a new run."""
    files = [path for path in Path(folder).glob("*.ckpt") if path.is_file()]
    newest_first = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return next((path for path in newest_first if is_whole(path)), None)


def is_whole(path: Path) -> bool:
    """Say whether a checkpoint can be read."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file leads to
        warnings.warn(f"{path} cannot be read, the one before it is taken: {error}", stacklevel=2)
        return False
    return True


class Classifier(L.LightningModule):
    """Yours."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(folder: str = "runs") -> None:
    """Train, or go on."""
    features = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(features, (features.sum(1) > 0).long()), batch_size=8, shuffle=True)
    saves = ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=1)  # a new one, then the old one goes
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=10, callbacks=[RS2Callback(0.1), saves], default_root_dir=folder, **options)
    found = last_good_checkpoint(folder)
    print(f"going on from {found}" if found else "beginning")
    trainer.fit(Classifier(), data, ckpt_path=found, weights_only=None if found is None else True)
    print(f"ended after {trainer.global_step} steps")


if __name__ == "__main__":
    main(*sys.argv[1:2])
