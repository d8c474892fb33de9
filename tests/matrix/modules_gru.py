"""A language model around torch's GRU, as other people write one: nothing in here knows of lightning_adapt.

Padded sequences with their lengths, packed for the GRU; the loss is masked.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader

N_TOKENS = 9


def melodies(n: int, seed: int, step: int) -> list[Tensor]:
    """Tunes of 6 to 11 notes that climb by the same interval, but for two wrong notes in each."""
    draw = torch.Generator().manual_seed(seed)
    tunes = []
    for _ in range(n):
        start, length = torch.randint(N_TOKENS, (1,), generator=draw), int(torch.randint(6, 12, (1,), generator=draw))
        tune = (start + step * torch.arange(length)) % N_TOKENS
        tune[torch.randint(length, (2,), generator=draw)] = torch.randint(N_TOKENS, (2,), generator=draw)
        tunes.append(tune)
    return tunes


def pad(tunes: list[Tensor]) -> tuple[Tensor, Tensor]:
    return pad_sequence(tunes, batch_first=True, padding_value=-1), torch.tensor([len(tune) for tune in tunes])


class MelodyData(LightningDataModule):
    def __init__(self, step: int = 2) -> None:
        super().__init__()
        self.step = step

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(melodies(40, 81, self.step), batch_size=4, shuffle=True, collate_fn=pad)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(melodies(8, 82, self.step), batch_size=8, collate_fn=pad)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()


class MelodyModel(LightningModule):
    def __init__(self, hidden: int = 12, layers: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.emb = nn.Embedding(N_TOKENS, hidden)
        self.rnn = nn.GRU(hidden, hidden, num_layers=layers, batch_first=True)
        self.out = nn.Linear(hidden, N_TOKENS)

    def initial_hidden(self, batch_size: int) -> Tensor:
        return self.emb.weight.new_zeros(self.hparams.layers, batch_size, self.hparams.hidden)

    def losses(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Of each next note, 0 where there is none. Shape (B, T - 1)."""
        notes, lengths = batch
        packed = pack_padded_sequence(
            self.emb(notes[:, :-1].clamp(min=0)), (lengths - 1).cpu(), batch_first=True, enforce_sorted=False
        )
        hidden, _ = pad_packed_sequence(
            self.rnn(packed, self.initial_hidden(len(notes)))[0], batch_first=True, total_length=notes.shape[1] - 1
        )
        return nn.functional.cross_entropy(
            self.out(hidden).transpose(1, 2), notes[:, 1:], ignore_index=-1, reduction="none"
        )

    def step(self, batch: tuple[Tensor, Tensor], name: str) -> Tensor:
        loss = self.losses(batch).sum() / (batch[1] - 1).sum()
        self.log(name, loss, batch_size=len(batch[1]))
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.step(batch, "train_loss")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.step(batch, "val_loss")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.step(batch, "test_loss")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)
