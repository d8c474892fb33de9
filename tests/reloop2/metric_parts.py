"""Random rows for the tests of PrequentialMetrics, and a metric filled with them."""

from __future__ import annotations

from typing import Any

import torch

from lightning_adapt.reloop2.metrics import PrequentialMetrics

Rows = dict[str, torch.Tensor]


def rows(n: int = 200, seed: int = 0, n_slots: int = 4, n_users: int = 23, ties: bool = True) -> Rows:
    """Random rows; predictions rounded to one digit, so that most are tied."""
    random = torch.Generator().manual_seed(seed)
    prediction, base, chance = torch.rand(3, n, generator=random)
    if ties:
        prediction, base = prediction.mul(10).round() / 10, base.mul(10).round() / 10
    return {
        "prediction": prediction,
        "target": (chance < 0.3 + 0.4 * prediction).long(),
        "base": base,
        "slot": torch.arange(n) * n_slots // max(n, 1),
        "group": torch.randint(-(2**60), 2**60, (n_users,), generator=random)[torch.arange(n).mul(7919) % n_users],
        "index": torch.arange(n),
    }


def part(columns: Rows, chosen: Any) -> Rows:
    return {name: values[chosen] for name, values in columns.items()}


def filled(columns: Rows, *names: str, batch: int = 32, **options: Any) -> PrequentialMetrics:
    """A metric that got the rows in batches; of the optional columns those that are named."""
    metrics = PrequentialMetrics(**options)
    chosen = {name: columns[name] for name in ("prediction", "target", *names)}
    for start in range(0, len(columns["target"]), batch):
        metrics.update(**part(chosen, slice(start, start + batch)))
    return metrics


def plain(results: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.nan_to_num(-1).tolist() for name, value in results.items()}
