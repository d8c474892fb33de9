"""A model of speech codes and rows for it as other people write them: nothing in here knows of lightning_adapt."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from tests.foreign import N_ROWS, ForeignModule

N_CODES = 12


class ForeignSpeech(ForeignModule):
    """Predicts each code from the one before and from the first letter of the text; batches are dicts."""

    def __init__(self, estimate_steps: bool = False, record: str | None = None) -> None:
        super().__init__(estimate_steps, record)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net: nn.Module = nn.Sequential(nn.Embedding(300, 8), nn.Linear(8, 300))

    def loss_of(self, batch: Any) -> torch.Tensor:
        codes = batch["codes"][:, 0]
        before = torch.cat([batch["text"][:, 1:2], codes[:, :-1]], 1)
        inside = torch.arange(codes.shape[1], device=codes.device) < batch["code_lengths"][:, None]
        return nn.functional.cross_entropy(self.net(before)[inside], codes[inside])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.trainer.current_epoch, batch["index"].tolist()))
        loss = self.loss_of(batch)
        self.log("train_loss", loss, batch_size=len(batch["index"]))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss_of(batch), sync_dist=True, batch_size=len(batch["index"]))

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch["codes"][:, 0]).argmax(-1)


class Spoken(Dataset[dict[str, torch.Tensor]]):
    """Texts of numbers and codes that follow from them, of 3 to 8 frames."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        text = torch.tensor([1, 4 + row % 10, 4 + row % 7, 2])
        codes = (torch.arange(3 + row % 6) + row) % N_CODES
        return {"text": text, "codes": codes, "index": torch.tensor(row)}


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    texts, codes = ([row[name] for row in rows] for name in ("text", "codes"))
    return {
        "text": pad_sequence(texts, batch_first=True),
        "text_lengths": torch.tensor([len(text) for text in texts]),
        "codes": pad_sequence(codes, batch_first=True)[:, None],
        "code_lengths": torch.tensor([len(code) for code in codes]),
        "index": torch.stack([row["index"] for row in rows]),
    }


class SpokenData(LightningDataModule):
    """107 rows to train on, 16 for everything else."""

    def __init__(self, workers: int = 0, batch_size: int = 8) -> None:
        super().__init__()
        self.workers, self.batch_size = workers, batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        options: dict[str, Any] = {"num_workers": self.workers, "collate_fn": collate}
        return DataLoader(Spoken(N_ROWS), batch_size=self.batch_size, shuffle=True, **options)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Spoken(16), batch_size=8, collate_fn=collate)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()
