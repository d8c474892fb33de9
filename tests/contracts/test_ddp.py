"""1, 2 and 4 gloo processes under default Trainer arguments: shards are disjoint, their union is the round, and the
global batches do not depend on the number of processes at equal global batch size."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment

from lightning_adapt import RS2Sampler
from tests.foreign import N_ROWS, trainer
from tests.registry import REGISTRY, of_kind

GLOBAL_BATCH = 8
# statistics of a BatchNorm: each rank has its own until the next forward takes rank 0's
OWN_UNTIL_NEXT_FORWARD = ("running_mean", "running_var", "num_batches_tracked")


class SameState(Callback):
    """Inside the processes: state and weights are equal on all ranks, so a failure on rank 1 fails the test."""

    def on_train_end(self, trainer, pl_module) -> None:
        states = [callback.state_dict() for callback in trainer.callbacks if callback is not self]
        mine = json.dumps(states, sort_keys=True, default=lambda value: value.tolist())
        assert trainer.strategy.broadcast(mine, src=0) == mine
        for name, value in pl_module.state_dict().items():
            if not name.endswith(OWN_UNTIL_NEXT_FORWARD):
                assert torch.equal(trainer.strategy.broadcast(value, src=0), value), name


def train(name: str, ranks: int, folder) -> list[dict]:
    setup = REGISTRY[name].build(0, GLOBAL_BATCH // ranks)
    module = setup.module(record=str(folder / f"{name}-{ranks}"))
    options = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]} if ranks > 1 else {}
    trainer(folder, [*setup.callbacks, SameState()], **options).fit(module, **setup.data)
    return [json.loads((folder / f"{name}-{ranks}-rank{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize("name", of_kind("order", "training", "data", "module"))
def test_ranks_share_each_round(name, tmp_path):
    batches = {}
    for ranks in (1, 2, 4):
        seen = [rank["seen"] for rank in train(name, ranks, tmp_path)]
        assert len({len(part) for part in seen}) == 1, "ranks ran a different number of batches"
        for epoch in range(4):
            shards = [[row for number, rows in part if number == epoch for row in rows] for part in seen]
            assert {len(shard) for shard in shards} == {32 // ranks}
            if epoch < N_ROWS // 32:  # inside the first pass over the data no row comes twice
                assert len({row for shard in shards for row in shard}) == 32
        batches[ranks] = [sorted(row for part in seen for row in part[batch][1]) for batch in range(len(seen[0]))]
    assert batches[1] == batches[2] == batches[4]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_union_of_the_shards_is_the_round(ranks):
    shards = [RS2Sampler(N_ROWS, 0.3, round_to=12 // ranks, num_replicas=ranks, rank=rank) for rank in range(ranks)]
    for number in range(12):
        drawn = []
        for shard in shards:
            shard.set_epoch(number)
            drawn.append(list(shard))
        assert {len(part) for part in drawn} == {shards[0].epoch_size(number) // ranks}
        positions = torch.arange(shards[0].epoch_size(number))
        in_order = torch.tensor(drawn).T.flatten().tolist()
        assert in_order == shards[0].draw(number, positions).tolist()
        if number < N_ROWS // shards[0].epoch_size(0):  # inside the first pass no row comes twice
            assert len(set(in_order)) == len(in_order)
