"""ErrorMemoryPredictor: serves a model whose predictions follow the feedback, with or without a journal; plain PyTorch.

ReLoop2: Zhu et al., KDD 2023, arXiv 2306.08808; serving, journal and time-outs are not in the paper.
"""

# Over 300 lines: one public class, half of it documentation; what it is made of is in the files beside it.

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from lightning_adapt._shared.checks import check_integer, check_positive, problem
from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.reloop2.compensator import Memory, make_memory
from lightning_adapt.reloop2.serving.journal import Journal
from lightning_adapt.reloop2.serving.journal_entries import Entry
from lightning_adapt.reloop2.serving.kept_state import KeptState
from lightning_adapt.reloop2.serving.predictor_state import (
    PredictorState,
    is_calibrated,
    memory_of_callback,
    read_state,
)
from lightning_adapt.reloop2.serving.row_ids import RowId, check_ids, check_labels
from lightning_adapt.reloop2.serving.served_model import ServedModel
from lightning_adapt.reloop2.serving.waiting import FeedbackResult, WaitingRows, columns_of

__all__ = ["ErrorMemoryPredictor", "FeedbackResult"]

_SERVED_ROWS_TO_CALIBRATE = 10_000  # more do not make the statistics better, and cost time


class ErrorMemoryPredictor:
    """Predict, wait for labels, and predict better: a model and its error memory behind two calls.

    `predict` corrects the model by its memory and keeps, under each row's id, what the label will need; `feedback`
    takes labels by id, and the next prediction profits. The weights stay as they are, and must: a memory belongs to
    the weights that it was written for. Calls from several threads take turns.

    With a journal, a prediction is answered and a label acknowledged only after it is on the disk. A new predictor with
    the same model, settings and journal goes on where the old one was, however that ended: on the CPU its outputs equal
    those of one that was never stopped, bit by bit. A journal that has a history decides what the memory holds.

    Args:
        module: The model; called as `module(batch)` in eval and inference mode. No hook is left on it between calls.
        memory: "auto" for a new `AdaptiveErrorMemory`, a memory, or a file that `save` wrote.
        forward: Takes module and batch, and runs the model, where `module(batch)` does not.
        fields_fn: As in `ErrorMemoryCallback`: takes a batch and returns further id fields.
        output_module: As in `ErrorMemoryCallback`: name of what gives the prediction; None: the last `Linear(., 1)`.
        output_kind: As in `ErrorMemoryCallback`: "auto", "logit", "probability" or "regression".
        key_module: As in `ErrorMemoryCallback`: name of what gives the key; None: the output module.
        key_from: As in `ErrorMemoryCallback`: its "input" or "output".
        calibration: Batches of training rows, for the whitening of keys and, if the first has 8 rows or more, to see
            whether a table's (B, F) ids are F fields; only used by a memory that nothing was written to. Without them,
            what is served before the first label comes has to do.
        timeout_s: Seconds that a row waits for its label.
        max_pending: Rows that wait at most; the oldest make way. They take some 4 bytes for each number in their key.
        journal: A file, or a `Journal`; None keeps nothing on the disk.
        clock: Gives the time in seconds; one that goes on while the server is down.

    Attributes:
        module: The model.
        memory: The memory.
        weights: Fingerprint of the model's weights.

    Raises:
        TypeError, ValueError: If an argument is of the wrong type or out of range, a part of the module is not found,
            or a file or journal belongs to other weights or is damaged.
        JournalError: If another process has the journal.

    Example:
        >>> from lightning_adapt.reloop2.memory import ErrorMemory
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        >>> predictor = ErrorMemoryPredictor(model, ErrorMemory(whiten=False))
        >>> first = predictor.predict(torch.ones(1, 2), ["view 1"])
        >>> predictor.feedback(["view 1", "view 2"], [1.0, 0.0])
        FeedbackResult(accepted=['view 1'], unknown=['view 2'], expired=[], duplicate=[])
        >>> bool(predictor.predict(torch.ones(1, 2), ["view 3"]) > first)
        True
    """

    def __init__(
        self,
        module: nn.Module,
        memory: Literal["auto"] | Memory | str | os.PathLike[str] = "auto",
        *,
        forward: Callable[[Any, Any], Any] | None = None,
        fields_fn: Callable[[Any], Mapping[str, Tensor]] | None = None,
        output_module: str | None = None,
        output_kind: Literal["auto", "logit", "probability", "regression"] = "auto",
        key_module: str | None = None,
        key_from: Literal["input", "output"] = "input",
        calibration: Iterable[Any] = (),
        timeout_s: float = 3600.0,
        max_pending: int = 100_000,
        journal: Journal | str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(problem("module", "a torch.nn.Module", module, "Pass the model that is to be served."))
        timeout_s = check_positive("timeout_s", timeout_s, "Pass the seconds that a row waits for its label.")
        max_pending = check_integer("max_pending", max_pending, "Pass the rows that may wait.", minimum=1)
        self.module, self.weights = module, weights_fingerprint(module)
        if memory != "auto" and isinstance(memory, (str, os.PathLike)):
            state = read_state(memory, self.weights)
        else:
            state = PredictorState(make_memory(memory), WaitingRows(timeout_s, max_pending))
            state.rows_to_calibrate = 0 if is_calibrated(state.memory) else _SERVED_ROWS_TO_CALIBRATE
        names = {"output_module": output_module, "key_module": key_module}
        places = {**names, "output_kind": output_kind, "key_from": key_from}
        self._model = ServedModel(module, state.memory, forward=forward, fields_fn=fields_fn, places=places)
        self._clock, self._lock = clock, threading.RLock()
        file = Journal(journal) if isinstance(journal, (str, os.PathLike)) else journal
        self._kept = KeptState(state, self.weights, file)
        prepare = partial(self._calibrate, calibration)
        self._kept.begin(self._model.places, prepare, timeout_s=timeout_s, max_rows=max_pending)
        self._model.expect(self._kept.state.waiting.keys)

    @property
    def memory(self) -> Memory:
        """The memory."""
        return self._kept.state.memory

    @classmethod
    def from_checkpoint(
        cls,
        module_class: Any,
        checkpoint_path: str | os.PathLike[str],
        *,
        memory: Literal["auto"] | Memory | str | os.PathLike[str] = "auto",
        module_kwargs: Mapping[str, Any] | None = None,
        map_location: str | torch.device = "cpu",
        **options: Any,
    ) -> Self:
        """Serve a LightningModule from its checkpoint, read with `weights_only=True`.

        Args:
            module_class: Class of the module; its `load_from_checkpoint` is called.
            checkpoint_path: The checkpoint.
            memory: "auto" for the memory that an `ErrorMemoryCallback` left in the checkpoint, or a new one if there is
                none; else as in the constructor.
            module_kwargs: Arguments of the module that the checkpoint lacks or that are to be others.
            map_location: Device to serve on.
            options: As in the constructor.

        Returns:
            The predictor.

        Raises:
            ValueError: If the checkpoint's memory belongs to other weights; and as the constructor.
        """
        kwargs = {"map_location": map_location, "weights_only": True, **(module_kwargs or {})}
        module = module_class.load_from_checkpoint(checkpoint_path, **kwargs)
        if isinstance(memory, str) and memory == "auto":
            checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
            found = memory_of_callback(checkpoint.get("callbacks", {}), weights_fingerprint(module))
            memory = "auto" if found is None else found
        return cls(module, memory, **options)

    @classmethod
    def load(cls, path: str | os.PathLike[str], module: nn.Module, **options: Any) -> Self:
        """Go on with the memory and the waiting rows that `save` wrote.

        Args:
            path: The file.
            module: The model that it was written for.
            options: As in the constructor.

        Returns:
            The predictor; its outputs equal those of the saved one bit by bit.

        Raises:
            OSError: If there is no such file.
            ValueError: If it belongs to other weights, is damaged, or of something else.
        """
        return cls(module, path, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write memory and waiting rows to a safetensors file, whole or not at all (extra `recsys`).

        Args:
            path: The file; one that is there is replaced.

        Raises:
            ModuleNotFoundError: If safetensors is not installed.
            OSError: If the file cannot be written.
            RuntimeError: If the model's weights have changed since the predictor was built.
        """
        with self._lock:
            self._kept.check_usable()
            if weights_fingerprint(self.module) != self.weights:
                raise RuntimeError("The weights have changed since this predictor was built. Build a new one for them.")
            replace(self._kept.state, place=None).write(path, self.weights)

    # -- serving ------------------------------------------------------------------------------------------------------
    def predict(self, batch: Any, ids: Sequence[RowId] | Tensor) -> Tensor:
        """Predict some rows, and let them wait for their labels.

        Args:
            batch: What the module takes; tensors in dicts, lists and tuples are brought to its device.
            ids: One id per row, strings or whole numbers, no two alike. An id that waits already waits anew: its label
                will be taken for the newer prediction.

        Returns:
            Corrected probabilities, or values in regression. Shape (B,), float32, on the CPU.

        Raises:
            TypeError, ValueError: If ids and rows do not belong together, or the model gives NaN; nothing is kept.
            JournalError: If the prediction could not be written to the journal; nothing is kept.
        """
        names = check_ids(ids, distinct=True)
        with self._lock:
            self._kept.check_usable()
            served = self._model(batch)
            if len(served.base) != len(names):
                raise ValueError(
                    problem("ids", f"{len(served.base)} ids, one per row", len(names), "Pass one per row.")
                )
            columns, waiting = columns_of(served), self._kept.state.waiting
            waiting.check(columns, len(names))
            waiting.tick(self._clock())
            self._kept.take(Entry("predict", waiting.now, names, columns))
            return served.served.to("cpu", copy=True)

    def feedback(self, ids: Sequence[RowId] | Tensor, labels: Sequence[float] | Tensor) -> FeedbackResult:
        """Take labels that have arrived; when this returns, the memory has learnt from those accepted.

        Args:
            ids: Ids of rows that were predicted.
            labels: Their labels: 0 or 1 (soft ones between them work), or values in regression. Shape (B,).

        Returns:
            What became of each id.

        Raises:
            TypeError, ValueError: If ids and labels do not belong together, or one is out of range; none is taken.
            JournalError: If they could not be written to the journal; none is acknowledged.
        """
        names = check_ids(ids, distinct=False)
        values = check_labels(labels, len(names), binary=self.memory.settings.task == "binary")
        with self._lock:
            self._kept.check_usable()
            waiting = self._kept.state.waiting
            waiting.tick(self._clock())
            result, positions = waiting.sort(names)
            if positions:
                self._kept.take(Entry("feedback", waiting.now, result.accepted, {"labels": values[positions]}))
            return result

    @contextmanager
    def group(self) -> Iterator[None]:
        """Let all calls in a block wait for the disk once, at its end: for servers with many small requests at a time.

        Yields:
            Nothing. Answers may be given to others only after the block has ended without an error.

        Raises:
            JournalError: At the end, if the calls could not be written to the journal.
        """
        with self._lock, self._kept.group():
            yield

    @property
    def n_pending(self) -> int:
        """Rows that wait for their label."""
        return len(self._kept.state.waiting)

    def close(self) -> None:
        """Let go of the journal, if there is one; nothing is lost without it."""
        with self._lock:
            self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._kept.journal is not None:
            raise TypeError("A predictor with a journal cannot be copied: one process owns the journal.")
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def _calibrate(self, batches: Iterable[Any]) -> None:
        state = self._kept.state
        if state.memory.n_written:
            return
        for batch in batches:
            keys = self._model(batch).keys
            with torch.no_grad():
                state.memory.calibrate(keys)  # type: ignore[arg-type]
            state.rows_to_calibrate = 0
