"""Sits between a model and whoever reads its output: looks rows up in the memory and corrects what the model says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import check_choice, problem
from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory
from lightning_adapt.reloop2.capture import (
    EMBEDDINGS,
    HIDDEN,
    ForwardCapture,
    Keys,
    find_module,
    find_output_module,
    flat_keys,
)
from lightning_adapt.reloop2.functional import Kind
from lightning_adapt.reloop2.memory import ErrorMemory

__all__ = ["Compensator", "Memory", "Served", "make_memory"]

Memory = ErrorMemory | AdaptiveErrorMemory
KINDS = ("auto", "logit", "probability", "regression")


@dataclass
class Served:
    """What is remembered of rows between their prediction and their label.

    Attributes:
        keys: What the memory looks rows up by: shape (B, d), or a dict of such and of id fields.
        base: What the base model gave, a probability (binary) or a value. Shape (B,), float32.
        signals: What the memory said. Shape (B, m), float32.
        served: The corrected prediction, probability or value. Shape (B,), float32.
    """

    keys: Keys
    base: Tensor
    signals: Tensor
    served: Tensor


def make_memory(memory: Any) -> Memory:
    """Return the memory that an argument stands for.

    Args:
        memory: "auto", or a memory.

    Returns:
        The memory.

    Raises:
        TypeError: If it is neither.
    """
    if memory == "auto":
        return AdaptiveErrorMemory()
    if not isinstance(memory, (ErrorMemory, AdaptiveErrorMemory)):
        remedy = "Leave it out, or pass ErrorMemory(...)."
        raise TypeError(problem("memory", "'auto', an ErrorMemory or an AdaptiveErrorMemory", memory, remedy))
    return memory


class Compensator:
    """Hooks on a module: while `active`, the output module's result is corrected before anybody sees it.

    Args:
        module: The user's module.
        memory: Where to look rows up; may be exchanged for another one of its kind.
        key_module: Name of the module to take a key from; None: the output module.
        key_from: "input" or "output" of it.
        output_module: Name of the module whose output is corrected; None: the last Linear(., 1).
        output_kind: What that output is; "auto": the value for a regression memory, a probability after a Sigmoid, a
            logit otherwise.
        keep_units: Keep encoded keys in the signals of an `ErrorMemory`, which spares encoding them again.

    Raises:
        ValueError: If a module is not found.
    """

    def __init__(
        self,
        module: nn.Module,
        memory: Memory,
        *,
        key_module: str | nn.Module | None = None,
        key_from: str = "input",
        output_module: str | nn.Module | None = None,
        output_kind: str = "auto",
        keep_units: bool = False,
    ) -> None:
        self.memory = memory
        self.keep_units = keep_units and isinstance(memory, ErrorMemory)
        self.active = False
        self.extra_fields: Mapping[str, Tensor] = {}
        check_choice("key_from", key_from, ("input", "output"), "Use 'input'.")
        check_choice("output_kind", output_kind, KINDS, "Use 'auto'.")
        if output_module is None:
            self.output = find_output_module(module)[1]
        else:
            self.output = find_module(module, output_module, "output_module")
        self.kind = self._kind(output_kind)
        key_part = self.output if key_module is None else find_module(module, key_module, "key_module")
        adaptive = isinstance(memory, AdaptiveErrorMemory)
        self.capture = ForwardCapture(module, key_part, key_from, embeddings=adaptive)
        self.expect()
        self._served: list[Served] = []
        self._handle: Any = None

    def expect(self, fields: Collection[str] | None = None) -> None:
        """Look for the id fields of an earlier run, whatever the first batch of this one looks like.

        Args:
            fields: Their names, among others; None: those that the memory saw, if it saw any rows.
        """
        if fields is None and isinstance(self.memory, AdaptiveErrorMemory) and self.memory.bank is not None:
            layout = self.memory.bank.layout
            all_are_read = self.memory.settings.experts == "auto"
            fields = layout.fields if layout.seen is None and all_are_read else layout.seen
        self.capture.known_fields = fields

    def attach(self) -> None:
        """Register the hooks; the key module's before the output's, as they may be one module."""
        if self._handle is None:
            self.capture.attach()
            self._handle = self.output.register_forward_hook(self._correct)

    def detach(self) -> None:
        """Remove the hooks."""
        self.active = False
        self._served.clear()
        self.capture.detach()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def begin(self, extra_fields: Mapping[str, Tensor] | None = None) -> None:
        """Begin a batch.

        Args:
            extra_fields: Id fields that the module itself does not see, int64 of shape (B,).
        """
        self._served.clear()
        self.capture.clear()
        self.extra_fields = extra_fields or {}
        self.active = True

    def finish(self) -> list[Served]:
        """End the batch and return what was served in it: one entry per pass through the output module."""
        self.active = False
        self.capture.clear()
        served, self._served = self._served, []
        return served

    def _kind(self, given: str) -> Kind:
        regression = self.memory.settings.task == "regression"
        if given == "auto":
            kind = "regression" if regression else "probability" if isinstance(self.output, nn.Sigmoid) else "logit"
        elif (given == "regression") == regression:
            kind = given
        else:
            allowed = "'regression'" if regression else "'logit' or 'probability'"
            remedy = "Give the memory the task of the model, or leave `output_kind` out."
            raise ValueError(problem("output_kind", f"{allowed} with this memory's task", given, remedy))
        return kind  # type: ignore[return-value]

    def _correct(self, part: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG002 - the signature of torch's hook
        if not self.active or torch.is_grad_enabled():
            return None
        if not isinstance(output, Tensor) or output.ndim == 0 or output.numel() != len(output):
            shape = tuple(output.shape) if isinstance(output, Tensor) else output
            remedy = "Name the module whose output is one number per row; wrap a bare score in torch.nn.Identity()."
            raise ValueError(problem("output_module", "a module with output of shape (B,) or (B, 1)", shape, remedy))
        flat = output.detach().reshape(-1)
        base = self._in_memory_units(flat)
        keys = self._keys(len(flat))
        options = {"units": True} if self.keep_units else {}
        signals = self.memory.signals(keys, base, **options)  # type: ignore[arg-type]
        corrected = self.memory.correct(output.detach(), signals, self.kind)
        self._served.append(Served(keys, base, signals, self._in_memory_units(corrected.reshape(-1))))
        self.capture.end_pass()
        return corrected

    def _in_memory_units(self, values: Tensor) -> Tensor:
        return torch.sigmoid(values.float()) if self.kind == "logit" else values.float()

    def _keys(self, n_rows: int) -> Keys:
        key = self.capture.key
        if key is None:
            remedy = "Choose a module that runs before the output module, in every pass."
            raise ValueError(problem("key_module", "a module that runs before the output", "one that did not", remedy))
        hidden = flat_keys(key, n_rows)
        if isinstance(self.memory, ErrorMemory):
            return hidden
        keys = {**self.capture.fields(n_rows), **self.extra_fields}
        embedded = self.capture.embeddings(n_rows)
        if embedded is not None:
            keys[EMBEDDINGS] = embedded
        return {**keys, HIDDEN: hidden}
