"""A base that knows three styles of texts, and the fits of the tests of initial-state tuning."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch.utils.data import DataLoader

from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from tests.foreign import trainer
from tests.foreign_gla import ChainData, Chains, ForeignGLA


@cache
def _trained(steps: int = 100) -> dict[str, torch.Tensor]:
    module = ForeignGLA()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-2)
    numbers = torch.Generator().manual_seed(1)
    batches = iter(DataLoader(Chains(32 * steps, seed=7), 32, shuffle=True, generator=numbers))
    for batch in batches:
        optimizer.zero_grad()
        module.loss(batch).backward()
        optimizer.step()
    return module.state_dict()


def base(**options: Any) -> ForeignGLA:
    """A model that tells the style of a text from its first letters; a new copy each time."""
    module = ForeignGLA(**options)
    module.load_state_dict(copy.deepcopy(_trained()), strict=False)
    return module


def tuning(*arguments: Any, **options: Any) -> InitialStateTuning:
    """The callback, without patience, which asks for validation data."""
    return InitialStateTuning(*arguments, **{"patience": None, **options})


def fit(folder: Any, callback: Any, module: Any = None, data: Any = None, others: Any = (), **options: Any) -> Any:
    """Tune on the first style, 4 batches of 8 an epoch, and return the module."""
    module = base() if module is None else module
    data = ChainData(n=32) if data is None else data
    trainer(folder, [callback, *others], **{"max_epochs": 2, **options}).fit(module, data)
    return module


def weights_of(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def loss_of(module: Any, style: int, states: Any = None, seed: int = 99) -> float:
    """Mean loss per letter over 16 texts, without a Trainer."""
    module.use_initial_states(states)
    (batch,) = DataLoader(Chains(16, (style,), seed=seed), 16)
    was = module.training
    module.eval()
    with torch.no_grad():
        losses, counts = module.sequence_losses(batch)
    module.train(was)
    module.use_initial_states(None)
    return float(losses.sum() / counts.sum())
