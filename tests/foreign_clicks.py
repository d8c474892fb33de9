"""A click model and its rows as other people write them: nothing in here knows of lightning_adapt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.foreign import ForeignModule, rows_of


class Clicks(Dataset[dict[str, torch.Tensor]]):
    """Rows as dicts: numbers x0 to x5, a user, the label of a click and the number of the row."""

    def __init__(self, n: int) -> None:
        self.columns = click_columns(n)

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: values[row] for name, values in self.columns.items()}


def click_columns(n: int) -> dict[str, torch.Tensor]:
    features = torch.randn(n, 6, generator=torch.Generator().manual_seed(2))
    columns = {f"x{number}": features[:, number] for number in range(6)}
    index = torch.arange(n)
    return {**columns, "user": index % 7, "label": (features.sum(1) > 0.5).float(), "index": index}


def click_data(workers: int = 0, batch_size: int = 8) -> dict[str, Any]:
    """Four batches to train on, in an order that can be resumed anywhere, and two to validate on."""
    train = StatefulDataLoader(Clicks(32), batch_size, num_workers=workers)
    return {"train_dataloaders": train, "val_dataloaders": click_stream(batch_size, 16)}


def click_stream(batch_size: int = 8, n: int = 16) -> DataLoader[Any]:
    """Rows to serve one after the other."""
    return DataLoader(Clicks(n), batch_size)


class ClickNet(nn.Module):
    """Logits of clicks; the last layer is a `Linear(., 1)`."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.user = nn.Embedding(9, 4)
            self.layers = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, batch: Any) -> torch.Tensor:
        features = torch.stack([batch[f"x{number}"] for number in range(6)], 1)
        return self.layers(torch.cat([features, self.user(batch["user"])], 1)).squeeze(-1)


class ClickSteps:
    """The steps of a click model, for a module of either Lightning package that has `net`, `seen` and `tested`."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.trainer.current_epoch, batch["index"].tolist()))
        loss = nn.functional.binary_cross_entropy_with_logits(self.net(batch), batch["label"])
        self.log("train_loss", loss, batch_size=len(batch["label"]))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        logits = self.net(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch["label"])
        self.log("val_loss", loss, sync_dist=True, batch_size=len(logits))
        return logits

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.tested.append((batch["index"].tolist(), self.validation_step(batch, batch_idx).tolist()))

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch).sigmoid()


class ForeignClicks(ClickSteps, ForeignModule):
    """A small click model; remembers what it was trained on and what it answered in `test`, and writes both down."""

    def __init__(self, estimate_steps: bool = False, record: str | None = None) -> None:
        super().__init__(estimate_steps, record)
        self.net: nn.Module = ClickNet()
        self.tested: list[tuple[list[int], list[float]]] = []

    def on_test_end(self) -> None:
        if self.record:
            Path(f"{self.record}-rank{self.global_rank}.json").write_text(json.dumps({"tested": self.tested}))


class Notes(Callback):
    """Notes in the module's `seen` which rows it is trained on, and writes them down at the end."""

    def __init__(self, record: str | None) -> None:
        self.record = record

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.seen.append((trainer.current_epoch, rows_of(batch).tolist()))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.record:
            weights = [value.flatten().tolist() for value in pl_module.state_dict().values()]
            path = Path(f"{self.record}-rank{trainer.global_rank}.json")
            path.write_text(json.dumps({"seen": pl_module.seen, "weights": weights}))


def noted(make: Callable[[], Any]) -> Callable[..., Any]:
    """Let a module that knows nothing of these tests be used in place of `ForeignModule`; batches have an "index"."""

    def build(estimate_steps: bool = False, record: str | None = None) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # every one of them begins alike
            module = make()
        module.seen, notes, own = [], Notes(record), module.configure_callbacks
        module.configure_callbacks = lambda: [*own(), notes]
        return module

    return build
