"""A small stream of clicks whose base model misses effects of users and of group x category."""

from __future__ import annotations

import torch


def stream(n=3000, seed=0, shuffled=False):
    """Return (keys, labels, base): two key spaces and three id fields, labels 0/1, the base model's probability."""
    draws = torch.Generator().manual_seed(seed)
    user, group = torch.randint(50, (n,), generator=draws), torch.randint(3, (n,), generator=draws)
    category = torch.randint(4, (n,), generator=draws)
    hidden = torch.randn(n, 8, generator=draws)
    of_user = torch.randn(50, generator=torch.Generator().manual_seed(1))
    of_both = torch.randn(12, generator=torch.Generator().manual_seed(2))
    start = hidden[:, 0] - 1
    truth = start + of_user[user] + of_both[group * 4 + category]
    labels = (torch.rand(n, generator=draws) < torch.sigmoid(truth)).float()
    if shuffled:
        labels = labels[torch.randperm(n, generator=draws)]
    keys = {"user": user, "group": group, "category": category, "hidden": hidden, "embeddings": hidden[:, :4] * 2}
    return keys, labels, torch.sigmoid(start)


def part(keys, rows):
    return {name: value[rows] for name, value in keys.items()}


def serve(memory, keys, labels, base, size=50, delay=0):
    """Predict batch by batch, write each `delay` batches later; return what was served."""
    served, waiting = [], []
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        signals = memory.signals(part(keys, rows), base[rows])
        served.append(memory.correct(base[rows], signals))
        waiting.append((rows, signals))
        if len(waiting) > delay:
            then, signals = waiting.pop(0)
            memory.write(part(keys, then), labels[then], base[then], signals)
    return torch.cat(served)


def logloss(chances, labels):
    return float(torch.nn.functional.binary_cross_entropy(chances.double(), labels.double()))
