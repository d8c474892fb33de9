"""What can be looked at by itself: no global random numbers, the same again gives the same, copies go on alike."""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch

from lightning_adapt._shared.compat import RaisesWhenUsed
from tests.registry import REGISTRY

DATA = sorted(name for name in REGISTRY if name.endswith("DataModule"))
OBJECTS = sorted(name for name, entry in REGISTRY.items() if entry.make is not None)


def global_states() -> tuple:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize("name", OBJECTS)
def test_two_of_them_agree_and_draw_no_global_random_numbers(name):
    entry = REGISTRY[name]
    before = global_states()
    first = entry.use(entry.make())
    assert global_states() == before
    torch.manual_seed(12345)  # nor do they depend on it
    assert torch.equal(entry.use(entry.make()), first)
    assert first.numel() > 0
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("name", [name for name in OBJECTS if REGISTRY[name].copies])
def test_copies_go_on_where_it_was(name, how, used):
    entry = REGISTRY[name]
    original = entry.make()
    if used:
        entry.use(original)
    copied = how(original)
    assert type(copied) is type(original)
    expected = entry.use(original)
    assert torch.equal(entry.use(copied), expected), "one that shares state with its copy differs here, too"


@pytest.mark.parametrize("name", DATA)
def test_data_modules_can_be_printed(name, monkeypatch):
    """Lightning's own `__str__` looks into every loader, also those that only carry an error."""
    made = REGISTRY[name].build(0, 8).data["datamodule"]
    monkeypatch.setattr(made, "test_dataloader", lambda: RaisesWhenUsed(ValueError("no test")))
    lines = str(made).splitlines()
    assert [line.partition(" dataloader: ")[0] for line in lines] == ["{Train", "{Validation", "{Test", "{Predict"]
    assert "{Test dataloader: None}" in lines
