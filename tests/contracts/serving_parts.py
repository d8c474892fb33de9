"""A small serving callback to hold the serving contracts against: as it should be, and with one fault each."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback

from tests.foreign_clicks import ForeignClicks, click_data, click_stream
from tests.registry_parts import Entry, Setup


class Intercept(Callback):
    """Adds to the logits in test and predict what they were too low on average so far."""

    def __init__(self, enabled: bool = True) -> None:
        self.enabled, self.shift = enabled, 0.0
        self.hooks: list[Any] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.shift = 0.0
        if self.enabled and stage in ("test", "predict"):
            self.hooks = [pl_module.net.layers[-1].register_forward_hook(self.add)]

    def add(self, layer: Any, arguments: Any, logits: torch.Tensor) -> torch.Tensor:
        self.base = logits.detach()
        return logits + self.shift

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if self.enabled:
            error = (batch["label"] - self.base.squeeze(-1).sigmoid()).mean()
            self.shift += float(trainer.strategy.reduce(error, reduce_op="mean"))

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1, "shift": self.shift}

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")


class Trains(Intercept):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        with torch.no_grad():
            pl_module.net.layers[0].weight.mul_(0.99)


class TrainsInCompany(Trains):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.world_size > 1:
            super().on_train_batch_end(trainer, pl_module)


class AlwaysOn(Intercept):
    def __init__(self, enabled: bool = True) -> None:
        super().__init__()


class Idle(Intercept):
    def __init__(self, enabled: bool = True) -> None:
        super().__init__(enabled=False)


class Leaks(Intercept):
    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self.shift += float(batch["label"].mean()) - 0.5


class KeepsItsHook(Intercept):
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pass


class KeepsItsHookAfterErrors(Intercept):
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        pass


class Draws(Intercept):
    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        torch.rand(1)


class EachForItself(Intercept):
    """Every process learns from its own rows only."""

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if self.enabled:
            self.shift += float((batch["label"] - self.base.squeeze(-1).sigmoid()).mean())


class NotPlain(Intercept):
    def state_dict(self) -> dict[str, Any]:
        return {"version": 1, "shift": {self.shift}, "type": type(self)}


class NeedsInferenceMode(Intercept):
    def add(self, layer: Any, arguments: Any, logits: torch.Tensor) -> torch.Tensor:
        return super().add(layer, arguments, logits) + (0.0 if torch.is_inference_mode_enabled() else self.shift)


def clicks(callback: Any, workers: int = 0, batch_size: int = 8) -> Setup:
    """How `ForeignClicks` is trained and served with a callback; None for none."""
    callbacks = [] if callback is None else [callback]
    return Setup(click_data(workers, batch_size), callbacks, ForeignClicks, {"dataloaders": click_stream(batch_size)})


def entry_of(callback: type[Intercept]) -> Entry:
    return Entry(
        kind="serving",
        build=lambda workers, batch_size: clicks(callback(), workers, batch_size),
        resume="loader",
        disabled={"enabled=False": lambda: clicks(callback(enabled=False))},
    )
