"""Schedules as people build them, each for a run of a given number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.optim import lr_scheduler as s

BASE = 0.1


class Table:
    """A schedule read from a list: it raises when the list is used up."""

    def __init__(self, steps: int) -> None:
        self.values = [1 - step / steps for step in range(steps)] + [0.0]

    def __call__(self, step: int) -> float:
        return self.values[step]


class Renamed(s.CosineAnnealingLR):
    """A subclass that steps like its base."""


class Custom(s.CosineAnnealingLR):
    """A subclass with a shape of its own."""

    def get_lr(self) -> list[float]:
        return [base * 0.5 ** (self.last_epoch / 50) for base in self.base_lrs]


def _shrinking(steps: int) -> Callable[[int], float]:
    return lambda step: (steps - step) / (steps - step + 1) if step <= steps else 1.0


def _sequence(optimizer: Any, steps: int, length: int) -> Any:
    warm = steps // 10
    parts = [s.LinearLR(optimizer, 0.1, total_iters=warm), s.CosineAnnealingLR(optimizer, length, eta_min=1e-4)]
    return s.SequentialLR(optimizer, parts, [warm])


Build = Callable[[Any, int], Any]

TORCH: dict[str, Build] = {
    "cosine": lambda o, n: s.CosineAnnealingLR(o, n, eta_min=1e-4),
    "three half cosines": lambda o, n: s.CosineAnnealingLR(o, n // 3),
    "renamed": lambda o, n: Renamed(o, n),
    "one cycle": lambda o, n: s.OneCycleLR(o, BASE, n),
    "one cycle, three phases": lambda o, n: s.OneCycleLR(o, BASE, n, anneal_strategy="linear", three_phase=True),
    "milestones": lambda o, n: s.MultiStepLR(o, [n // 2, n // 2, n * 3 // 4]),
    "steps": lambda o, n: s.StepLR(o, n // 3, gamma=0.5),
    "linear to a floor": lambda o, n: s.LinearLR(o, 1.0, 0.01, total_iters=n),
    "linear to zero": lambda o, n: s.LinearLR(o, 1.0, 0.0, total_iters=n),
    "warm-up": lambda o, n: s.LinearLR(o, 0.1, 1.0, total_iters=n // 2),
    "polynomial": lambda o, n: s.PolynomialLR(o, n, power=2),
    "constant": lambda o, n: s.ConstantLR(o, 0.25, total_iters=n // 2),
    "sequence": lambda o, n: _sequence(o, n, n - n // 10),
    "sequence, too long by its warm-up": lambda o, n: _sequence(o, n, n),
    "sequence to an exponential": lambda o, n: s.SequentialLR(
        o, [s.ConstantLR(o, 1.0), s.ExponentialLR(o, 0.01 ** (2 / n))], [n // 2]
    ),
    "chain": lambda o, n: s.ChainedScheduler([s.LinearLR(o, 0.1, total_iters=n // 10), s.CosineAnnealingLR(o, n)]),
}
LAMBDAS: dict[str, Build] = {
    "lambda, clamped": lambda o, n: s.LambdaLR(o, lambda step: max(0.0, 1 - step / n)),
    "lambda, not clamped": lambda o, n: s.LambdaLR(o, lambda step: 1 - step / n),
    "lambda, warm-up and square": lambda o, n: s.LambdaLR(
        o, lambda step: min(step / (n // 10), ((n - step) / (n - n // 10)) ** 2 if step < n else 0)
    ),
    "lambda, cosine": lambda o, n: s.LambdaLR(o, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / n)),
    "lambda, cosine to a floor": lambda o, n: s.LambdaLR(o, lambda step: 0.55 + 0.45 * math.cos(math.pi * step / n)),
    "lambda, clamped cosine": lambda o, n: s.LambdaLR(
        o, lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / n)))
    ),
    "lambda, floor": lambda o, n: s.LambdaLR(o, lambda step: max(0.01, 1 - step / n)),
    "lambda, drop": lambda o, n: s.LambdaLR(o, lambda step: 1.0 if step < n // 2 else 0.1),
    "lambda, stairs": lambda o, n: s.LambdaLR(o, lambda step: 0.3 ** (step // (n // 3))),
    "lambda, warm-up and inverse root": lambda o, n: s.LambdaLR(
        o, lambda step: min((step + 1) / (n // 4), math.sqrt((n // 4) / (step + 1)))
    ),
    "lambda object": lambda o, n: s.LambdaLR(o, Table(n)),
    "product": lambda o, n: s.MultiplicativeLR(o, _shrinking(n)),
}
HUB: dict[str, Build] = {
    "hub linear": lambda o, n: transformers.get_linear_schedule_with_warmup(o, n // 10, n),
    "hub cosine": lambda o, n: transformers.get_cosine_schedule_with_warmup(o, n // 10, n),
    "hub restarts": lambda o, n: transformers.get_cosine_with_hard_restarts_schedule_with_warmup(o, n // 10, n, 3),
    "hub polynomial": lambda o, n: transformers.get_polynomial_decay_schedule_with_warmup(o, n // 10, n, power=2.0),
    "hub constant": lambda o, n: transformers.get_constant_schedule_with_warmup(o, n // 2),
    "hub cosine to a floor": lambda o, n: transformers.get_cosine_with_min_lr_schedule_with_warmup(
        o, n // 10, n, min_lr_rate=0.1
    ),
    "hub stable": lambda o, n: transformers.get_wsd_schedule(o, n // 10, n // 5, num_stable_steps=n - n // 10 - n // 5),
}
ENDLESS: dict[str, Build] = {
    "exponential": lambda o, n: s.ExponentialLR(o, 0.5 ** (1 / n)),
    "restarts": lambda o, n: s.CosineAnnealingWarmRestarts(o, n),
    "cyclic": lambda o, n: s.CyclicLR(o, 0.01, BASE, n),
    "constant lambda": lambda o, n: s.LambdaLR(o, lambda step: 1.0),
    "exponential lambda": lambda o, n: s.LambdaLR(o, lambda step: 0.9 ** (step / n)),
    "steep exponential lambda": lambda o, n: s.LambdaLR(o, lambda step: 0.9**step),
    "growing power": lambda o, n: s.LambdaLR(o, lambda step: 1 / 1.5**step),  # overflows far out
    "inverse": lambda o, n: s.LambdaLR(o, lambda step: 1 / (1 + step)),
    "short cycles": lambda o, n: s.LambdaLR(o, lambda step: 0.6 + 0.4 * math.cos(step / 3)),
    "constant product": lambda o, n: s.MultiplicativeLR(o, lambda step: 0.99),
    "hub, nothing": lambda o, n: transformers.get_constant_schedule(o),
    "no factor": lambda o, n: s.ConstantLR(o, 1.0, total_iters=n),
    "custom": lambda o, n: Custom(o, n),
}
SCHEDULES = {**TORCH, **LAMBDAS, **HUB}


def new_optimizer(groups: int = 1) -> torch.optim.Optimizer:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(groups)]
    return torch.optim.SGD([{"params": [parameter]} for parameter in parameters], lr=BASE, momentum=0.9)


def stepped(scheduler: Any, steps: int) -> list[float]:
    """The learning rates before each step and after the last, as PyTorch itself forms them."""
    rates = [scheduler.optimizer.param_groups[0]["lr"]]
    scheduler.optimizer.step()  # PyTorch asks for one before the first step of a schedule; none changes a rate
    for _ in range(steps):
        scheduler.step()
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
    return rates
