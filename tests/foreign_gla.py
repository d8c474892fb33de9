"""A language model of Gated Linear Attention as other people write one: nothing in here knows of lightning_adapt.

Its texts are chains of letters: the next letter is some places further in the alphabet, how many is the style.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

LETTERS = 11
STYLES = ("ada", "bo", "cy")


class Chains(Dataset[dict[str, Tensor]]):
    """Texts of 8 to 14 letters in some styles; every fifth letter or so breaks the rule."""

    def __init__(self, n: int, styles: tuple[int, ...] = (0, 1, 2), seed: int = 0, surprise: float = 0.2) -> None:
        numbers = torch.Generator().manual_seed(seed)
        self.rows = []
        for row in range(n):
            style = styles[row % len(styles)]
            steps = torch.full((13,), 1 + 3 * style)
            breaks = torch.rand(13, generator=numbers) < surprise
            steps[breaks] = torch.randint(0, LETTERS, (13,), generator=numbers)[breaks]
            first = torch.randint(0, LETTERS, (1,), generator=numbers)
            letters = torch.cat([first, first + steps.cumsum(0)]) % LETTERS
            length = torch.tensor(8 + row % 7)
            letters[torch.arange(14) >= length] = -100
            about = {"speaker": torch.tensor(style), "index": torch.tensor(row)}
            self.rows.append({"letters": letters, **about})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return self.rows[row]


class ChainData(LightningDataModule):
    """Rows of some styles to train on, 16 for everything else."""

    def __init__(
        self, workers: int = 0, batch_size: int = 8, n: int = 107, styles: tuple[int, ...] = (0,), **options: Any
    ) -> None:
        super().__init__()
        self.workers, self.batch_size = workers, batch_size
        self.train = Chains(n, styles, **options)
        self.held_out = Chains(16, styles, seed=99)

    def train_dataloader(self) -> DataLoader[Any]:
        numbers = torch.Generator().manual_seed(5)
        options: dict[str, Any] = {"shuffle": True, "num_workers": self.workers, "generator": numbers}
        return DataLoader(self.train, batch_size=self.batch_size, **options)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.held_out, batch_size=8)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()


class GLALayer(nn.Module):
    """S_t = diag(a_t) S_(t-1) + k_t v_t^T, o_t = S_t^T q_t, letter by letter."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.gate = (nn.Linear(width, width // 2) for _ in range(3))
        self.v, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, state: Tensor | None) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).unflatten(-1, (self.heads, -1)) for part in (self.q, self.k, self.v))
        decay = (nn.functional.logsigmoid(self.gate(y).float()) / 16).exp().unflatten(-1, (self.heads, -1))
        if state is None:
            state = x.new_zeros(1, self.heads, q.shape[-1], v.shape[-1], dtype=decay.dtype)
        made = []
        for step in range(x.shape[1]):
            state = decay[:, step, ..., None] * state + k[:, step, ..., None] * v[:, step, :, None]
            made.append((q[:, step, ..., None] * state).sum(-2))
        return x + self.out(torch.stack(made, 1).flatten(-2).to(v.dtype))


class ForeignGLA(LightningModule):
    """A small language model whose recurrences can start from given matrices."""

    def __init__(self, dropout: float = 0.0, batch_norm: bool = False, estimate_steps: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding = nn.Embedding(LETTERS, 16)
            self.layers = nn.ModuleList(GLALayer() for _ in range(2))
            self.middle = nn.Sequential(nn.Dropout(dropout), nn.BatchNorm1d(16) if batch_norm else nn.Identity())
            self.head = nn.Linear(16, LETTERS)
        self.beginning: dict[str, Tensor] = {}

    def initial_state_shapes(self) -> dict[str, tuple[int, int, int]]:
        return {f"layers.{number}": (2, 4, 8) for number in range(len(self.layers))}

    def use_initial_states(self, states: Any) -> None:
        self.beginning = {} if states is None else dict(states)

    def sequence_losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        losses = self.losses(batch)
        return losses.sum(1), (batch["letters"][:, 1:] >= 0).sum(1)

    def forward(self, letters: Tensor) -> Tensor:
        x = self.embedding(letters)
        for number, layer in enumerate(self.layers):
            x = layer(x, self.beginning.get(f"layers.{number}"))
        return self.head(self.middle(x.flatten(0, 1)).view_as(x))

    def losses(self, batch: Any) -> Tensor:
        letters = batch["letters"]
        logits = self(letters[:, :-1].clamp(min=0)).float()
        return nn.functional.cross_entropy(logits.transpose(1, 2), letters[:, 1:], reduction="none")

    def loss(self, batch: Any) -> Tensor:
        return self.losses(batch).sum() / (batch["letters"][:, 1:] >= 0).sum()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss, batch_size=len(batch["letters"]))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), batch_size=len(batch["letters"]), sync_dist=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch), batch_size=len(batch["letters"]), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch["letters"][:, :-1].clamp(min=0)).softmax(-1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        if not self.hparams.estimate_steps:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)]
