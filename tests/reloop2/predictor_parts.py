"""A small click model, rows to serve and a stream of calls, for the tests of predictor, journal and server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor

SIZES = {"user": 20, "item": 12}


class Clicks(nn.Module):
    """Logits of clicks from two ids and a number; knows nothing of lightning_adapt."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.user, self.item = nn.Embedding(SIZES["user"], 4), nn.Embedding(SIZES["item"], 4)
            self.hidden = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Dropout(0.5))
            self.out = nn.Linear(8, 1)
        self.hparams = {"field_sizes": SIZES, "numeric": ["price"]}

    def forward(self, batch: Any) -> Tensor:
        parts = [self.user(batch["user"]), self.item(batch["item"]), batch["price"][:, None]]
        return self.out(self.hidden(torch.cat(parts, 1))).squeeze(-1)


def fixed_clicks() -> Clicks:
    """The model of the stored files: its weights come from no random numbers, so that they are the same everywhere."""
    module = Clicks()
    for value in module.state_dict().values():
        value.copy_((torch.arange(value.numel()) % 7 / 8 - 0.375).reshape(value.shape))
    return module.eval()


def rows(n: int, seed: int = 0) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    ids = {name: torch.randint(size, (n,), generator=draws) for name, size in SIZES.items()}
    return {**ids, "price": torch.randn(n, generator=draws)}


MEMORIES: dict[str, Any] = {
    "adaptive": lambda: AdaptiveErrorMemory(n_buckets=64),
    "adaptive, knn": lambda: AdaptiveErrorMemory(n_buckets=64, key_backend="knn"),
    "knn": lambda: ErrorMemory(k=5, capacity=40),
    "faiss": lambda: ErrorMemory(backend="faiss", k=5, capacity=40),
    "sketch": lambda: ErrorMemory(backend="sketch", n_bits=4, n_tables=5, half_life=30),
}


def predictor(memory: Any = "adaptive", seed: int = 0, **options: Any) -> ErrorMemoryPredictor:
    """A predictor whose keys are whitened by 64 rows; `memory` is a name of `MEMORIES` or a memory."""
    memory = MEMORIES[memory]() if isinstance(memory, str) and memory in MEMORIES else memory
    calibration = options.pop("calibration", [rows(64, seed=99)])
    return ErrorMemoryPredictor(Clicks(seed).eval(), memory, calibration=calibration, **options)


Call = tuple[str, Any]


def calls(n: int, seed: int = 0) -> Iterator[Call]:
    """Calls of `predict` and of late `feedback`, in turn: rows of different numbers, some ids twice, some never known.

    Args:
        n: How many of each.
        seed: Another seed, other calls.
    """
    draws = torch.Generator().manual_seed(seed)
    waiting: list[str] = []
    for number in range(n):
        size = int(torch.randint(1, 7, (), generator=draws))
        ids = [f"{number}-{row}" for row in range(size)]
        if number % 7 == 3:
            ids[0] = f"{number - 1}-0"  # predicted again
        yield "predict", (ids, rows(size, seed=1000 * seed + number))
        waiting += ids
        count = int(torch.randint(1, 7, (), generator=draws))
        known, waiting = (waiting[:count], waiting[count:]) if number % 3 else ([], waiting)
        known += [f"never {number}"] * (number % 4 == 1) + known[:1]
        if known:
            yield "feedback", (known, torch.rand(len(known), generator=draws).round())


def do(one: ErrorMemoryPredictor, call: Call) -> Any:
    """Make a call and return its answer as plain values."""
    kind, (ids, values) = call
    return one.predict(values, ids).tolist() if kind == "predict" else vars(one.feedback(ids, values))
