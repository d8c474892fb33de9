"""What every backend of the error memory has in common: a small interface, and buffers that fit what a state brings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.reloop2.functional import MemoryReading

__all__ = ["Store", "fit_buffers"]

STATE_VERSION = 1


def fit_buffers(
    module: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: Any,  # noqa: ARG001 - the signature of torch's hook
    strict: bool,  # noqa: ARG001
    missing_keys: list[str],  # noqa: ARG001
    unexpected_keys: list[str],  # noqa: ARG001
    error_msgs: list[str],  # noqa: ARG001
) -> None:
    """Give each buffer of a module the shape that a state brings; a hook for `register_load_state_dict_pre_hook`.

    Args:
        module: The module; of buffers that change shape with what is stored.
        state_dict: The state that is about to be loaded.
        prefix: Where the module sits in it.
        local_metadata: Not used.
        strict: Not used.
        missing_keys: Not used.
        unexpected_keys: Not used.
        error_msgs: Not used.
    """
    for name, buffer in module.named_buffers(recurse=False):
        saved = state_dict.get(prefix + name)
        if isinstance(saved, Tensor) and saved.shape != buffer.shape:
            with torch.inference_mode(False):  # a buffer made in inference mode could not be written to outside it
                setattr(module, name, buffer.new_empty(saved.shape))


class Store(nn.Module):
    """Keeps (key, label, base prediction) in some form. Keys are unit vectors; all tensors are on the store's device.

    Attributes:
        n_written: Samples written since the last reset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_written = 0
        self.register_load_state_dict_pre_hook(fit_buffers)  # type: ignore[no-untyped-call]

    def write(self, keys: Tensor, labels: Tensor, base: Tensor) -> None:
        """Store samples, in their order.

        Args:
            keys: Unit vectors. Shape (B, d), float32.
            labels: Labels. Shape (B,), float32.
            base: Base predictions. Shape (B,), float32.
        """
        raise NotImplementedError

    def read(self, keys: Tensor) -> MemoryReading:
        """Return what is stored near some keys; something has been written before.

        Args:
            keys: Unit vectors. Shape (B, d), float32.

        Returns:
            Mean label, mean base prediction and support. Shape (B,), float32 each.
        """
        raise NotImplementedError

    def merge_(self, other: Any) -> None:
        """Take in what another store of the same settings holds.

        Args:
            other: A store of the same class; is left as it is.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Forget everything stored."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the store lives; raises TypeError if it was converted to another type than float32."""
        first = next(self.buffers())
        if first.dtype != torch.float32:
            remedy = "Convert the model without it, or call memory.float() before the first write."
            raise TypeError(problem("memory", "kept in float32", first.dtype, remedy))
        return first.device

    @property
    def nbytes(self) -> int:
        """Bytes that the stored samples take."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    @property
    def fixed_nbytes(self) -> int:
        """Bytes that a store needs besides, whatever is stored."""
        return 0

    def plain_state(self) -> dict[str, int]:
        """Return the whole numbers of the state; a subclass adds its own."""
        return {"n_written": self.n_written}

    def restore(self, plain: dict[str, int]) -> None:
        """Take over the whole numbers of a state, when the buffers hold its tensors.

        Args:
            plain: What `plain_state` returned.

        Raises:
            ValueError: If numbers and tensors do not belong together.
        """
        self.n_written = plain["n_written"]

    def get_extra_state(self) -> dict[str, Any]:
        """Return the part of the state that is not in buffers."""
        return with_version(self.plain_state(), STATE_VERSION)

    def set_extra_state(self, state: Any) -> None:
        """Restore what `get_extra_state` returned; torch calls it when the buffers are loaded."""
        read_version(state, STATE_VERSION, type(self).__name__)
        plain = {name: state.get(name) for name in self.plain_state()}
        wrong = [name for name, value in plain.items() if type(value) is not int or value < 0]
        if wrong:
            raise ValueError(f"The saved state of {type(self).__name__} has no valid {', '.join(wrong)}.")
        self.restore(plain)
