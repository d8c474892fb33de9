"""What ErrorMemoryCallback adds to a test batch of a DCNv2; for `reloop2_speed.py`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import _harness as h
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, Dataset

from lightning_adapt import AdaptiveErrorMemory, CTRModule, ErrorMemory, ErrorMemoryCallback
from lightning_adapt._shared.collate import as_is
from lightning_adapt._shared.demo_training import quiet_trainer

FIELDS, IDS, EMBEDDING, HIDDEN, BATCH = 20, 5_000, 64, (1024, 512, 256), 2048
WIDTH = FIELDS * EMBEDDING + HIDDEN[-1]  # of the key: cross output and last hidden layer
PREFIX = "test batch"
NONE, SKETCH, ADAPTIVE = f"{PREFIX}, no callback", f"{PREFIX}, sketch", f"{PREFIX}, adaptive"
KNN = {n: f"{PREFIX}, knn of {n:,}" for n in (10_000, 100_000)}
ROWS = (NONE, SKETCH, ADAPTIVE, *KNN.values())
QUICK_ROWS = (NONE, SKETCH)
BATCHES = {"full": 6, "quick": 3}  # measured in a repeat; one more warms up


class _Rows(Dataset[Any]):
    """Clicks on random ids, a batch by one indexing operation."""

    def __init__(self, n: int) -> None:
        draws = torch.Generator().manual_seed(0)
        self.columns = {name(number): torch.randint(IDS, (n,), generator=draws) for number in range(FIELDS)}
        self.columns["label"] = (torch.rand(n, generator=draws) < 0.2).float()

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitems__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        return {key: values[rows[0] : rows[-1] + 1] for key, values in self.columns.items()}


def name(number: int) -> str:
    """Return the name of a field."""
    return f"field{number:02}"


class _Stopwatch(Callback):
    """Notes when each batch begins, so that what all callbacks do after a batch counts as part of it."""

    def on_test_start(self, *_: Any) -> None:
        self.times: list[float] = []

    def on_test_batch_start(self, *_: Any) -> None:
        self.times.append(h.spent("cpu"))

    def on_test_epoch_end(self, *_: Any) -> None:
        self.times.append(h.spent("cpu"))


class CallbackBench:
    """The model, its rows, and memories that are full.

    Args:
        size: "full" or "quick".
    """

    def __init__(self, size: str) -> None:
        torch.manual_seed(0)
        sizes = {name(number): IDS for number in range(FIELDS)}
        self.model = CTRModule(sizes, backbone="dcnv2", embedding_dim=EMBEDDING, hidden=HIDDEN, cross_layers=3)
        self.rows = _Rows(BATCH * (BATCHES[size] + 1))
        self._memories: dict[str, Any] = {}

    def measure(self, row: str) -> h.Run:
        """Serve the rows once and return microseconds per row."""
        watch = _Stopwatch()
        callbacks: list[Callback] = [watch]
        if row != NONE:
            callbacks.append(ErrorMemoryCallback(self._memory(row), reset_on="never"))
        trainer: Trainer = quiet_trainer(callbacks)
        trainer.test(self.model, DataLoader(self.rows, BATCH, collate_fn=as_is), verbose=False)
        took = [after - before for before, after in zip(watch.times[1:], watch.times[2:], strict=False)]
        return {"microseconds": 1e6 * statistics.median(took) / BATCH}

    def _memory(self, row: str) -> Any:
        if row not in self._memories:
            self._memories[row] = BUILD[row]()
        return self._memories[row]


def _full(n: int, **settings: Any) -> ErrorMemory:
    draws = torch.Generator().manual_seed(1)
    memory = ErrorMemory(WIDTH, **settings)
    memory.calibrate(torch.randn(4 * BATCH, WIDTH, generator=draws))
    for _ in range(-(-n // BATCH)):
        chance = torch.rand(BATCH, generator=draws)
        memory.write(torch.randn(BATCH, WIDTH, generator=draws), chance.round(), chance)
    return memory


BUILD: dict[str, Callable[[], Any]] = {
    SKETCH: lambda: _full(10_000, backend="sketch"),
    ADAPTIVE: AdaptiveErrorMemory,
    **{row: lambda n=n: _full(n, capacity=n) for n, row in KNN.items()},  # type: ignore[misc]
}
