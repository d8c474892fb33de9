"""The file of a predictor: its memory and the rows that wait for labels, with the fingerprint of the base weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.state import read_version
from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory
from lightning_adapt.reloop2.compensator import Memory
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.memory_file import read_memory_file, write_memory_file
from lightning_adapt.reloop2.serving.journal_entries import Entry, Place
from lightning_adapt.reloop2.serving.waiting import WaitingRows, keys_of

__all__ = ["PredictorState", "check_weights", "is_calibrated", "memory_of_callback", "read_state"]

KIND, VERSION, CALLBACK = "ErrorMemoryPredictor", 1, "ErrorMemoryCallback"
MEMORIES: dict[str, type[Memory]] = {kind.__name__: kind for kind in (AdaptiveErrorMemory, ErrorMemory)}


@dataclass
class PredictorState:
    """All that a predictor's answers depend on, beside the model.

    Attributes:
        memory: The memory.
        waiting: The rows that wait.
        place: The place in a journal that a file stands for; None without one.
        rows_to_calibrate: Served rows that the keys will still be whitened by, as long as no label has come.
    """

    memory: Memory
    waiting: WaitingRows
    place: Place | None = None
    rows_to_calibrate: int = 0

    def apply(self, entry: Entry) -> None:
        """Do what an entry says: let rows wait, or learn from their labels.

        The memory moves once per call of `feedback`, so that a replay makes the same steps.

        Args:
            entry: Now, or in a replay.
        """
        self.waiting.tick(entry.time)
        if entry.kind == "predict":
            fresh = self.waiting.add(entry.ids, entry.tensors)
            if self.rows_to_calibrate > 0 and fresh and not self.memory.n_written:
                # a row that is asked for again, because its answer got lost, must not count twice
                self.memory.calibrate(self._keys({name: part[fresh] for name, part in entry.tensors.items()}))
                self.rows_to_calibrate -= len(fresh)
            return
        columns = self.waiting.take(entry.ids)
        values = [part.to(self._device) for part in (entry.tensors["labels"], columns["base"], columns["signals"])]
        with torch.no_grad():
            self.memory.write(self._keys(columns), *values)

    def _keys(self, columns: Mapping[str, Tensor]) -> Any:
        keys = keys_of(columns)
        if isinstance(keys, Mapping):
            return {name: values.to(self._device) for name, values in keys.items()}
        return keys.to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.memory.buffers()).device

    def write(self, path: str | os.PathLike[str], weights: str) -> None:
        """Write a safetensors file, whole or not at all.

        Args:
            path: The file; one that is there is replaced.
            weights: Fingerprint of the base weights.

        Raises:
            ModuleNotFoundError: If safetensors is not installed.
            OSError: If the file cannot be written.
        """
        config = {
            "version": VERSION,
            "memory": type(self.memory).__name__,
            "config": self.memory.config(),
            "waiting": {"timeout_s": self.waiting.timeout_s, "max_rows": self.waiting.max_rows},
            "weights": weights,
            "rows_to_calibrate": self.rows_to_calibrate,
            "place": None if self.place is None else asdict(self.place),
        }
        state: dict[str, Any] = {f"memory.{name}": value for name, value in self.memory.state_dict().items()}
        state |= {f"waiting.{name}": value for name, value in self.waiting.state().items()}
        write_memory_file(path, KIND, config, state)


def is_calibrated(memory: Memory) -> bool:
    """Return whether a memory knows how to whiten keys, or is not to."""
    # an adaptive memory has its key spaces once it saw keys
    spaces = [part for part in memory.modules() if isinstance(part, ErrorMemory)]
    return bool(spaces) and all(part.is_calibrated for part in spaces)


def read_state(path: str | os.PathLike[str], weights: str) -> PredictorState:
    """Read what `PredictorState.write` wrote.

    Args:
        path: The file.
        weights: Fingerprint of the weights that it has to belong to.

    Returns:
        What it holds; the same outputs bit for bit.

    Raises:
        ModuleNotFoundError: If safetensors, or what the memory needs, is not installed.
        OSError: If there is no such file.
        ValueError: If it belongs to other weights, is damaged, of something else, or of a newer release.
    """
    config, state = read_memory_file(path, KIND)
    read_version(config, VERSION, f"the file {path}")
    check_weights(f"the file {path}", config.get("weights"), weights)
    try:
        place = config["place"]
        waiting = WaitingRows(**config["waiting"])
        waiting.load(_part(state, "waiting."))
        memory = MEMORIES[config["memory"]](**config["config"])
        memory.load_state_dict(_part(state, "memory."))
        return PredictorState(memory, waiting, None if place is None else Place(**place), config["rows_to_calibrate"])
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:  # a whole file, but not ours
        text = " ".join(str(error).split())
        raise ValueError(f"{path} does not hold a usable state of a predictor: {text} Save it again.") from error


def memory_of_callback(callbacks: Mapping[str, Any], weights: str) -> Memory | None:
    """Return the memory that an ErrorMemoryCallback left in a checkpoint.

    Args:
        callbacks: The checkpoint's states of callbacks.
        weights: Fingerprint of the weights that it has to belong to.

    Returns:
        The memory, on the CPU; None if there is none, or nothing was written to it.

    Raises:
        ValueError: If it belongs to other weights, is of a newer release, or does not say how it was built.
    """
    state = callbacks.get(CALLBACK)
    if state is None or state.get("memory") is None:
        return None
    read_version(state, 1, CALLBACK)
    check_weights("the checkpoint's memory", state.get("weights"), weights)
    extra = state["memory"].get("_extra_state", {})
    adaptive = "layout" in extra
    config = state.get("config") or (extra["config"] if adaptive else None)
    if config is None:
        remedy = "Build it as it was, call its load_state_dict with the checkpoint's state, and pass it."
        raise ValueError(problem("memory", "given where the checkpoint does not say its settings", "auto", remedy))
    memory: Memory = (AdaptiveErrorMemory if adaptive else ErrorMemory)(**config)
    memory.load_state_dict(state["memory"])
    return memory


def check_weights(what: str, saved: str | None, here: str) -> None:
    """Raise unless a memory belongs to some weights.

    Args:
        what: The memory in words, within a sentence.
        saved: Fingerprint of the weights that it was written for; None if that was not noted.
        here: Fingerprint of the weights that are served.

    Raises:
        ValueError: If they differ.
    """
    if saved is not None and saved != here:
        remedy = "Serve the model that it was written for, or begin anew with memory=AdaptiveErrorMemory()."
        raise ValueError(
            f"`memory` must belong to the weights that are served ({here}), but {what} was written for others "
            f"({saved}): its keys and errors would mean nothing here. {remedy}"
        )


def _part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
