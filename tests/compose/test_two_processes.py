"""The main stacks in two gloo processes: the batches of one process, equal states and weights on both ranks."""

from __future__ import annotations

import json

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment

from tests.compose.runs import bits
from tests.compose.stacks import STACKS
from tests.foreign import trainer

MAIN = [name for name, stack in STACKS.items() if stack.ranks]


class Notes(Callback):
    """Inside the processes: ranks agree on all that is kept; what each was trained on is written down."""

    def __init__(self, path) -> None:
        self.path = path

    def on_train_end(self, trainer, pl_module) -> None:
        ours = [one for one in trainer.callbacks if type(one).__module__.startswith("lightning_adapt")]
        mine = repr([bits(callback.state_dict()) for callback in ours] + [bits(pl_module.state_dict())])
        assert trainer.strategy.broadcast(mine, src=0) == mine
        content = {"seen": pl_module.seen, "round": [round_rows(one) for one in ours]}
        self.path.with_name(f"{self.path.name}-{trainer.global_rank}.json").write_text(json.dumps(content))


def round_rows(callback):
    chosen = getattr(callback, "selection", None)
    return chosen.rows.tolist() if hasattr(chosen, "rows") else None


def train(name, ranks, folder):
    """Fit at the same global batch; return what each rank noted."""
    stack = STACKS[name]
    options = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]} if ranks > 1 else {}
    path = folder / f"of-{ranks}"
    callbacks = [make() for make in stack.callbacks.values()]
    running = trainer(folder, [*callbacks, Notes(path)], max_epochs=4, **options)
    running.fit(stack.module(), **stack.data(0, stack.batch_size // ranks))
    return [json.loads(path.with_name(f"{path.name}-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize("name", MAIN)
def test_two_processes_train_on_the_batches_of_one(name, tmp_path):
    (one,), two = train(name, 1, tmp_path), train(name, 2, tmp_path)
    assert two[0]["round"] == two[1]["round"] == one["round"]
    assert len({len(part["seen"]) for part in two}) == 1
    together = [
        [first[0], sorted(first[1] + second[1])] for first, second in zip(two[0]["seen"], two[1]["seen"], strict=True)
    ]
    assert together == [[epoch, sorted(rows)] for epoch, rows in one["seen"]]
