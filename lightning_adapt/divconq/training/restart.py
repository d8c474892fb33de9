"""The beginning of training, kept on the CPU, so that every round can start from it again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.state import on_cpu, to_plain

__all__ = ["TrainingStart", "check_restart"]

_SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


class TrainingStart:
    """Trainable weights, persistent buffers, optimizer and scheduler states at the start of training.

    Args:
        weights: Values by name, on the CPU.
        optimizers: State of each optimizer.
        schedulers: State of each learning-rate scheduler.
    """

    def __init__(
        self, weights: dict[str, Tensor], optimizers: list[dict[str, Any]], schedulers: list[dict[str, Any]]
    ) -> None:
        self.weights, self.optimizers, self.schedulers = weights, optimizers, schedulers

    @classmethod
    def of(cls, trainer: Any, module: nn.Module) -> TrainingStart:
        """Copy what is there now.

        Args:
            trainer: The Trainer, in `on_train_start`.
            module: The module in training.

        Returns:
            The copy.

        Raises:
            ValueError: If an optimizer or scheduler has a state that checkpoints cannot hold.
        """
        return cls(
            {name: value.detach().cpu().clone() for name, value in _values(module).items()},
            [_kept(optimizer) for optimizer in trainer.optimizers],
            [_kept(config.scheduler) for config in trainer.lr_scheduler_configs],
        )

    def restore(self, trainer: Any, module: nn.Module) -> None:
        """Put module, optimizers and schedulers back to it.

        Args:
            trainer: The Trainer.
            module: The module in training.

        Raises:
            ValueError: If the module has other trainable weights, or there are other optimizers or schedulers.
        """
        values = _values(module)
        if set(values) != set(self.weights):
            different = ", ".join(sorted(set(values) ^ set(self.weights))[:3])
            remedy = 'Train the same weights in all rounds, or use round_init="continue".'
            raise ValueError(problem("round_init", "used with weights that stay the same", different, remedy))
        with torch.no_grad():
            for name, value in values.items():
                value.copy_(self.weights[name])
        for optimizer, state in zip(trainer.optimizers, self.optimizers, strict=True):
            optimizer.load_state_dict(on_cpu(state))
        for config, state in zip(trainer.lr_scheduler_configs, self.schedulers, strict=True):
            config.scheduler.load_state_dict(_of_its_kinds(config.scheduler, on_cpu(state)))

    def state_dict(self) -> dict[str, Any]:
        """Return a plain state."""
        return {"weights": self.weights, "optimizers": self.optimizers, "schedulers": self.schedulers}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TrainingStart:
        """Return what a state was made of.

        Args:
            state: What `state_dict` returned.

        Returns:
            The same, on the CPU.
        """
        kept = on_cpu(state)
        return cls(kept["weights"], kept["optimizers"], kept["schedulers"])


def check_restart(trainer: Any) -> None:
    """Refuse strategies that give no rank the whole weights.

    Args:
        trainer: The Trainer.

    Raises:
        ValueError: If the strategy shards weights or optimizer states.
    """
    names = {kind.__name__ for kind in type(trainer.strategy).__mro__}
    if names & set(_SHARDED):
        remedy = 'Use DDP, or round_init="continue".'
        raise ValueError(problem("round_init", "'continue' with sharded weights", "restart", remedy))


def _values(module: nn.Module) -> dict[str, Tensor]:
    """Return trainable parameters and the buffers that checkpoints keep: running statistics belong to the weights."""
    kept = set(module.state_dict(keep_vars=True))
    values: dict[str, Tensor] = {name: value for name, value in module.named_parameters() if value.requires_grad}
    return values | {name: value for name, value in module.named_buffers() if name in kept}


def _kept(owner: Any) -> dict[str, Any]:
    """Return the state of an optimizer or scheduler as checkpoints can hold it."""
    try:
        state: dict[str, Any] = to_plain(on_cpu(owner.state_dict()))
    except TypeError as error:
        name = type(owner).__name__
        remedy = f'Use round_init="continue", or a {name} whose state is plain: {error}'
        raise ValueError(problem("round_init", f"'continue' with this {name}", "restart", remedy)) from error
    return state


def _of_its_kinds(here: Any, state: Any) -> Any:
    """Give a plain state the kinds that its values have here, also in schedulers and functions inside a scheduler."""
    if isinstance(here, (Counter, set, frozenset)):  # milestones: a plain dict does not know its elements
        return type(here)(state)
    if isinstance(here, np.ndarray):
        return state.numpy()
    if isinstance(state, list) and isinstance(here, (list, tuple)):
        return [_of_its_kinds(*pair) for pair in zip(here, state, strict=True)] if len(here) == len(state) else state
    if isinstance(state, dict) and hasattr(here, "__dict__"):
        return {name: _of_its_kinds(vars(here).get(name), value) for name, value in state.items()}
    return state
