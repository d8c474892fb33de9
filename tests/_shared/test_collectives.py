"""Collectives on one rank, and on two gloo processes with the assertions inside the hooks."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt._shared.collectives import from_rank_zero, gather_rows
from tests.rs2.parts import Module, row_loader, small_trainer


def expected_rows(lengths, dtype, width):
    return torch.cat([torch.full((length, *width), rank + 1).to(dtype) for rank, length in enumerate(lengths)])


class Gathers(Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("reached", torch.tensor(False))  # comes back from the process of rank 0

    def on_train_start(self):
        trainer = self.trainer
        assert trainer.world_size == 2
        rank = trainer.global_rank
        for lengths in [(3, 3), (1, 4), (0, 2), (5, 0), (0, 0)]:
            for dtype in (torch.float32, torch.int64, torch.bool, torch.float64):
                for width in [(), (2,), (2, 3)]:
                    rows = torch.full((lengths[rank], *width), rank + 1).to(dtype)
                    gathered = gather_rows(trainer, rows)
                    assert gathered.dtype == dtype
                    assert torch.equal(gathered, expected_rows(lengths, dtype, width)), (lengths, dtype, width)
        weights = torch.ones(2 + rank, requires_grad=True)
        assert not gather_rows(trainer, weights).requires_grad
        assert from_rank_zero(trainer, {"rank": rank, "rows": [rank] * 3}) == {"rank": 0, "rows": [0, 0, 0]}
        assert from_rank_zero(trainer, None if rank else "only here") == "only here"
        self.reached.fill_(True)


def test_two_ranks():
    trainer = small_trainer(strategy="ddp_fork", devices=2, max_steps=1)
    module = Gathers()
    trainer.fit(module, row_loader(8))
    assert module.reached


def test_a_failure_in_a_hook_of_the_second_rank_fails_the_test():
    class Fails(Module):
        def on_train_start(self):
            assert self.trainer.global_rank == 0

    with pytest.raises(Exception, match=r"global_rank|assert|terminated"):
        small_trainer(strategy="ddp_fork", devices=2, max_steps=1).fit(Fails(), row_loader(8))


def test_one_rank_gets_its_own_rows_back():
    trainer, rows = small_trainer(), torch.arange(4)
    assert gather_rows(trainer, rows) is rows
    assert from_rank_zero(trainer, "value") == "value"
    with pytest.raises(ValueError, match=r"`rows` must have a first dimension, but got a scalar. Use rows\[None\]"):
        gather_rows(trainer, torch.tensor(1))
