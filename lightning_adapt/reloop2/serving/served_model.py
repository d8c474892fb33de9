"""A model and its memory as one function from batches to what is served; it leaves the model as it found it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.reloop2.capture import Keys
from lightning_adapt.reloop2.compensator import Compensator, Memory, Served
from lightning_adapt.reloop2.stores.inputs import check_values

__all__ = ["ServedModel"]


class ServedModel:
    """Runs a model in eval and inference mode and corrects it by a memory.

    Args:
        module: The model.
        memory: The memory; is brought to the device of the model.
        forward: Takes module and batch and runs the model; None: `module(batch)`.
        fields_fn: Takes a batch and returns further id fields.
        places: As in `Compensator`.

    Attributes:
        device: Where the model is.
        places: What was chosen, as plain values.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a part of the module is not found.
    """

    def __init__(
        self,
        module: nn.Module,
        memory: Memory,
        *,
        forward: Callable[[Any, Any], Any] | None,
        fields_fn: Callable[[Any], Mapping[str, Tensor]] | None,
        places: Mapping[str, Any],
    ) -> None:
        for name, value in (("forward", forward), ("fields_fn", fields_fn)):
            if value is not None and not callable(value):
                raise TypeError(problem(name, "a function, or None", value, "Pass a function."))
        self.module, self.memory = module, memory
        self._forward, self._fields_fn = forward, fields_fn
        self._compensator = Compensator(module, memory, **places)
        self.places = {**places, "output_kind": self._compensator.kind}
        self.device = next((part.device for part in (*module.parameters(), *module.buffers())), torch.device("cpu"))
        memory.to(self.device)

    def expect(self, keys: Keys | None) -> None:
        """Look for the same id fields as an earlier run, whatever the first batch of this one looks like.

        Args:
            keys: Keys of that run; None if there are none: the memory may know.
        """
        self._compensator.expect(set(keys) if isinstance(keys, Mapping) else None)

    def __call__(self, batch: Any) -> Served:
        """Run the model on a batch.

        Args:
            batch: What the module takes; tensors in dicts, lists and tuples are brought to its device.

        Returns:
            What was served.

        Raises:
            ValueError: If the output module did not run once, or gave something that is no prediction.
        """
        batch = _moved(batch, self.device)
        compensator = self._compensator
        compensator.attach()
        try:
            with evaluating(self.module), torch.inference_mode():
                compensator.begin(self._fields_fn(batch) if self._fields_fn else None)
                _ = self.module(batch) if self._forward is None else self._forward(self.module, batch)
                passes = compensator.finish()
        finally:
            compensator.detach()
        if len(passes) != 1:
            remedy = "Name the module that gives the prediction, or pass forward=lambda module, batch: ... to run it."
            raise ValueError(problem("output_module", "one that runs once per batch", f"{len(passes)} runs", remedy))
        (served,) = passes
        self._check("The model's output", served.base)
        self._check("The corrected output", served.served)
        return served

    def _check(self, name: str, values: Tensor) -> None:
        try:
            check_values("output", values, len(values), binary=self.memory.settings.task == "binary")
        except ValueError as error:
            raise ValueError(f"{name} is no prediction: {error}") from error


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)) and not hasattr(batch, "_fields"):
        return type(batch)(_moved(value, device) for value in batch)
    return batch
