"""Hold: lends a module to initial-state tuning, with frozen weights and another optimizer, and gives it back as it was.

Imports nothing of Lightning: it works on what modules of `lightning.pytorch` and `pytorch_lightning` share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lightning_adapt._shared.fingerprint import weights_fingerprint

__all__ = ["SUBMODULE", "Hold", "adam"]

SUBMODULE = "tuned_initial_states"  # of the submodule while it is there
_NOTHING = object()


class Hold:
    """Freezes a module around states that are tuned.

    The states become a submodule, so that the Trainer moves and wraps them with the rest; all other parameters lose
    `requires_grad`; `configure_optimizers` is shadowed on the instance. `release` takes all of it back.

    Args:
        module: A LightningModule.
        states: What is tuned instead.
        optimizers: Stands in for `configure_optimizers`.
    """

    def __init__(self, module: Any, states: nn.Module, optimizers: Callable[[], Any]) -> None:
        self.module, self.states = module, states
        self._flags: dict[nn.Parameter, bool] = {}
        self._modes = [(part, part.training) for part in module.modules()]
        self._stilled: list[nn.Module] = []
        self._optimizers = optimizers
        self._own = vars(module).get("configure_optimizers", _NOTHING)
        self._before: str | None = None
        self.held = True
        self.freeze()
        setattr(module, SUBMODULE, states)
        module.configure_optimizers = self._configure

    def _configure(self) -> Any:
        self.freeze()  # parameters that the module made for itself in the meantime
        return self._optimizers()

    def freeze(self) -> None:
        """Freeze all parameters of the module but the states, and remember what they were at first."""
        tuned = set(self.states.parameters())
        for parameter in self.module.parameters():
            if parameter not in tuned:
                self._flags.setdefault(parameter, parameter.requires_grad)
                parameter.requires_grad_(False)

    def remember_weights(self) -> None:
        """Remember what the weights are, once they are loaded and where the Trainer wants them."""
        self._before = weights_fingerprint(self.module)

    def check_weights(self) -> None:
        """Raise a RuntimeError if the weights are others than remembered; if none were, they are as they should be."""
        if self._before is not None and weights_fingerprint(self.module) != self._before:
            raise RuntimeError(
                "The weights of the module are not what they were before InitialStateTuning: tuned states would belong "
                "to neither. Look for what changes them by itself: a callback that averages or swaps weights, a hook "
                "of the module, a layer that learns in `forward`. Load the base again."
            )

    def still_statistics(self) -> None:
        """Have layers with running statistics use them instead of changing them; everything else stays as it is."""
        for part in self.module.modules():
            if getattr(part, "running_mean", None) is not None and part.training:
                self._stilled.append(part)
                part.training = False

    def move_statistics(self) -> None:
        """Take back `still_statistics`."""
        for part in self._stilled:
            part.training = True
        self._stilled = []

    def release(self) -> None:
        """Give the module back; harmless when it was given back already."""
        if not self.held:
            return
        self.held = False
        self.move_statistics()
        for part, mode in self._modes:  # an error inside validation leaves it in evaluation mode
            part.training = mode
        if getattr(self.module, SUBMODULE, None) is self.states:
            delattr(self.module, SUBMODULE)
        if vars(self.module).get("configure_optimizers") == self._configure:
            del self.module.configure_optimizers
        if self._own is not _NOTHING:
            self.module.configure_optimizers = self._own
        for parameter, flag in self._flags.items():
            parameter.requires_grad_(flag)
        self.module.use_initial_states(None)


def adam(states: nn.Module, learning_rate: float, factor: Callable[[int], float] | None) -> Any:
    """Return what `configure_optimizers` returns: Adam without decay, and the schedule if there is one.

    Args:
        states: What is tuned.
        learning_rate: At the start.
        factor: Steps so far -> factor of the learning rate; None for a constant one.
    """
    optimizer = torch.optim.Adam(states.parameters(), lr=learning_rate)
    if factor is None:
        return optimizer
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
