"""Runs a stack of callbacks and keeps all that must be equal where two runs are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.compose.stacks import Stack
from tests.foreign import trainer

EPOCHS = 4


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        seen: (epoch, rows) of each training batch.
        weights: Bits of all weights.
        tested: What was answered in `test`.
        states: Bits of the state of each callback of ours, by name.
        callbacks: The callbacks, by name.
        module: The module.
    """

    seen: list[tuple[int, list[int]]]
    weights: Any
    tested: Any
    states: dict[str, Any]
    callbacks: dict[str, Any]
    module: Any

    def same_as(self, other: Outcome) -> None:
        """Assert that nothing differs but batches that were trained on before a resume."""
        assert self.seen == other.seen[-len(self.seen) :]
        assert self.weights == other.weights
        assert self.tested == other.tested
        assert self.states.keys() == other.states.keys()
        for name, state in self.states.items():
            assert state == other.states[name], name


def bits(state: Any) -> Any:
    """A nested state as something that is equal only if all bits are, NaN among them."""
    if isinstance(state, torch.Tensor):
        return str(state.dtype), tuple(state.shape), state.detach().contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [bits(value) for value in state]
    return repr(state)


def run(
    stack: Stack,
    folder: Path,
    *,
    order: Sequence[str] | None = None,
    others: Sequence[Any] = (),
    ckpt: Path | None = None,
    workers: int = 0,
    others_first: bool = False,
    compiled: str = "",
    **options: Any,
) -> Outcome:
    """Fit a stack, and test it where it serves.

    Args:
        stack: The stack.
        folder: Where the Trainer may write.
        order: Names of the callbacks in the order of the list; None for the stack's own.
        others: Callbacks of others, at the end.
        others_first: They stand before ours.
        compiled: Backend of `torch.compile`; "" for a module as it is.
        ckpt: Checkpoint to go on from.
        workers: Of the train loader.
        **options: For the Trainer.
    """
    callbacks = {name: stack.callbacks[name]() for name in order or stack.callbacks}
    module = stack.module()
    listed = [*others, *callbacks.values()] if others_first else [*callbacks.values(), *others]
    running = trainer(folder, listed, **{"max_epochs": EPOCHS, **options})
    trained: Any = torch.compile(module, backend=compiled) if compiled else module
    running.fit(trained, **stack.data(workers, stack.batch_size), ckpt_path=ckpt, weights_only=True)
    if stack.stream is not None:
        running.test(trained, stack.stream(), verbose=False)
    named = {name: callbacks[name] for name in stack.callbacks}
    states = {name: bits(callback.state_dict()) for name, callback in named.items()}
    tested = bits(getattr(module, "tested", None))
    return Outcome(list(module.seen), bits(module.state_dict()), tested, states, named, module)
