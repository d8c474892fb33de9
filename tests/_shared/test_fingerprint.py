"""Fingerprints: what they depend on, and that the one that is remembered is never that of other weights."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from lightning_adapt._shared import fingerprint
from lightning_adapt._shared.fingerprint import known_fingerprint, weights_fingerprint


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 2))


@pytest.fixture
def hashes(monkeypatch):
    """How often something was hashed."""
    calls = []

    def counted(module):
        calls.append(module)
        return weights_fingerprint(module)

    monkeypatch.setattr(fingerprint, "weights_fingerprint", counted)
    return calls


def test_the_same_weights_are_hashed_once(hashes):
    one, twin = net(), net()
    assert known_fingerprint(one) == known_fingerprint(one) == weights_fingerprint(net())
    assert known_fingerprint(twin) == known_fingerprint(one)
    assert hashes == [one, twin]
    one.eval()(torch.randn(3, 40)).sum().backward()  # neither a mode nor gradients are weights
    assert known_fingerprint(one) == known_fingerprint(twin)
    assert len(hashes) == 2


def steps(optimizer_class, **options):
    def change(module):
        optimizer = optimizer_class(module.parameters(), lr=0.1, **options)
        module.eval()(torch.ones(3, 40)).sum().backward()
        optimizer.step()

    return change


def batch_statistics(module):
    module.train()(torch.randn(8, 40, generator=torch.Generator().manual_seed(1)))


def replaced(module):
    module[2].weight = nn.Parameter(module[2].weight.detach() + 1)


def one_number(module):
    with torch.no_grad():
        module[0].weight[3, 7] += 1e-3


def in_inference_mode(module):
    with torch.inference_mode():
        module[2].bias.add_(1.0)


CHANGES = {
    "in place": lambda module: nn.init.constant_(module[2].bias, 7.0),
    "one number": one_number,
    "through data": lambda module: module[0].weight.data.mul_(2.0),
    "data replaced": lambda module: setattr(module[0].weight, "data", module[0].weight.detach() + 1),
    "parameter replaced": replaced,
    "load_state_dict": lambda module: module.load_state_dict(net(1).state_dict()),
    "assigned": lambda module: module.load_state_dict(net(1).state_dict(), assign=True),
    "SGD": steps(torch.optim.SGD),
    "Adam": steps(torch.optim.Adam),
    "fused AdamW": steps(torch.optim.AdamW, fused=True),
    "buffers": batch_statistics,
    "inference mode": in_inference_mode,
    "rounded and back": lambda module: module.half().float(),
    "double": lambda module: module.double(),
    "one layer more": lambda module: module.append(nn.Linear(2, 2)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_noticed(change):
    module = net()
    before = known_fingerprint(module)
    change(module)
    after = known_fingerprint(module)
    assert after == weights_fingerprint(module)
    assert after != before


def test_what_cannot_be_remembered_is_hashed_anew(hashes):
    lazy = nn.LazyLinear(2)
    assert known_fingerprint(lazy) == known_fingerprint(lazy)
    with torch.inference_mode():
        frozen = net()
    first = known_fingerprint(frozen)
    with torch.inference_mode():
        frozen[0].weight.zero_()
    assert known_fingerprint(frozen) != first
    assert len(hashes) == 4


def test_numbers_that_are_not_finite_are_remembered_too(hashes):
    module = net()
    nn.init.constant_(module[0].weight, torch.nan)
    assert known_fingerprint(module) == known_fingerprint(module)
    assert len(hashes) == 1


def test_copies_have_their_own_and_nothing_is_kept_alive(hashes):
    module = net()
    known_fingerprint(module)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    nn.init.zeros_(copies[0][0].weight)
    assert known_fingerprint(copies[0]) != known_fingerprint(module) == known_fingerprint(copies[1])
    kept = [weakref.ref(one) for one in (module, *copies)]
    del module, copies
    hashes.clear()
    gc.collect()
    assert all(reference() is None for reference in kept)
