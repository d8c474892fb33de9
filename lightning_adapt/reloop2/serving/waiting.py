"""Rows between their prediction and their label: columns of tensors, found by id, bounded in number and in time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt.reloop2.capture import Keys
from lightning_adapt.reloop2.compensator import Served
from lightning_adapt.reloop2.serving.row_ids import RowId

__all__ = ["FeedbackResult", "WaitingRows", "columns_of", "keys_of"]

_FIRST_ROWS = 1024
_KEY = "key"


@dataclass(frozen=True)
class FeedbackResult:
    """What became of the ids of one call of `feedback`, each in the order in which they came.

    Attributes:
        accepted: Their labels are in the memory.
        unknown: Never predicted, or so long ago that it is forgotten.
        expired: Predicted, but the label came too late, or too many rows were predicted since.
        duplicate: They had their label already.
    """

    accepted: list[RowId] = field(default_factory=list)
    unknown: list[RowId] = field(default_factory=list)
    expired: list[RowId] = field(default_factory=list)
    duplicate: list[RowId] = field(default_factory=list)


class WaitingRows:
    """Keeps what a label will need, of the newest rows, until it comes or is too late.

    Nothing in here depends on anything but the calls and the times they are given, so that the same calls lead to the
    same state again.

    Args:
        timeout_s: Seconds after which a row no longer waits.
        max_rows: Rows that wait at most; of so many it is also remembered what became of them.

    Attributes:
        now: The latest time that was given, in seconds; a clock that is set back does not turn it back.
    """

    def __init__(self, timeout_s: float, max_rows: int) -> None:
        self.timeout_s, self.max_rows, self.now = timeout_s, max_rows, float("-inf")
        self._rows: dict[RowId, tuple[int, float]] = {}  # id -> (place in the columns, time), from the oldest on
        self._settled: dict[RowId, bool] = {}  # id -> whether its label came, from the oldest on
        self._columns: dict[str, Tensor] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def keys(self) -> Keys | None:
        """Keys in the columns, whatever waits there now; None before the first row ever."""
        return keys_of(self._columns) if self._columns else None

    def tick(self, now: float) -> None:
        """Let time pass.

        Args:
            now: Seconds since any fixed moment.
        """
        self.now = max(self.now, now)
        while self._rows:
            oldest = next(iter(self._rows))
            if self._rows[oldest][1] >= self.now - self.timeout_s:
                break
            self._drop(oldest)

    def check(self, columns: Mapping[str, Tensor], n_rows: int) -> None:
        """Raise unless `add` would take such rows.

        Args:
            columns: As for `add`.
            n_rows: Their number.

        Raises:
            ValueError: If there are more rows than may wait, or columns differ from those of the rows that wait.
        """
        if n_rows > self.max_rows:
            raise ValueError(
                problem("ids", f"at most {self.max_rows} ids", n_rows, "Pass fewer, or raise max_pending.")
            )
        kinds = [
            {name: (tuple(value.shape[1:]), str(value.dtype)) for name, value in part.items()}
            for part in (self._columns, columns)
        ]
        if self._columns and kinds[0] != kinds[1]:
            remedy = "The module must give keys of the same names and sizes in every call."
            raise ValueError(problem("batch", f"one with keys {kinds[0]}", kinds[1], remedy))

    def add(self, ids: Sequence[RowId], columns: Mapping[str, Tensor]) -> list[int]:
        """Let rows wait from now on; an id that waits already waits anew, with the new values.

        Args:
            ids: Ids of the rows, no two alike.
            columns: Values of the rows. Shape (B, ...) each.

        Returns:
            Positions of the ids that did not wait before.
        """
        fresh = [position for position, name in enumerate(ids) if name not in self._rows]
        self.check(columns, len(ids))
        for name in ids:
            if name in self._rows:
                self._free.append(self._rows.pop(name)[0])
            self._settled.pop(name, None)
        while len(self._rows) + len(ids) > self.max_rows:
            self._drop(next(iter(self._rows)))
        self._make_room(len(ids), columns)
        places = [self._free.pop() for _ in ids]
        at = torch.tensor(places, dtype=torch.int64)
        for column, values in columns.items():
            self._columns[column].index_copy_(0, at, values)
        self._rows.update({name: (place, self.now) for name, place in zip(ids, places, strict=True)})
        return fresh

    def sort(self, ids: Sequence[RowId]) -> tuple[FeedbackResult, list[int]]:
        """Say what is to become of ids whose labels have come; nothing is changed.

        Args:
            ids: The ids.

        Returns:
            The ids by what becomes of them, and the positions of the accepted ones.
        """
        result, positions, seen = FeedbackResult(), [], set()
        for position, name in enumerate(ids):
            if name in seen or self._settled.get(name):
                result.duplicate.append(name)
            elif name in self._rows:
                result.accepted.append(name)
                positions.append(position)
                seen.add(name)
            else:
                (result.expired if name in self._settled else result.unknown).append(name)
        return result, positions

    def take(self, ids: Sequence[RowId]) -> dict[str, Tensor]:
        """Return the values of rows that wait; they wait no longer.

        Args:
            ids: Ids that wait, no two alike.

        Returns:
            Shape (B, ...) for each column.
        """
        places = [self._rows.pop(name)[0] for name in ids]
        at = torch.tensor(places, dtype=torch.int64)
        taken = {column: values[at] for column, values in self._columns.items()}
        self._free.extend(places)
        for name in ids:
            self._settle(name, accepted=True)
        return taken

    def resize(self, timeout_s: float, max_rows: int) -> None:
        """Change the bounds; what is beyond them is dropped.

        Args:
            timeout_s: As for the constructor.
            max_rows: As for the constructor.
        """
        self.timeout_s, self.max_rows = timeout_s, max_rows
        while len(self._rows) > max_rows:
            self._drop(next(iter(self._rows)))
        while len(self._settled) > max_rows:
            del self._settled[next(iter(self._settled))]

    def state(self) -> dict[str, Tensor]:
        """Return everything as tensors, the ids as the bytes of their JSON."""
        ids = {"waiting": list(self._rows), "settled": list(self._settled), "came": list(self._settled.values())}
        at = torch.tensor([place for place, _ in self._rows.values()], dtype=torch.int64)
        return {
            "ids": torch.frombuffer(bytearray(json.dumps(ids).encode()), dtype=torch.uint8),
            "times": torch.tensor([self.now, *(time for _, time in self._rows.values())], dtype=torch.float64),
            **{f"column.{name}": values[at] for name, values in self._columns.items()},
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Args:
            state: The tensors.
        """
        ids: dict[str, list[Any]] = json.loads(state["ids"].numpy().tobytes())
        self.now, *times = state["times"].tolist()
        self._rows = {name: (place, times[place]) for place, name in enumerate(ids["waiting"])}
        self._settled = dict(zip(ids["settled"], ids["came"], strict=True))
        self._columns = {
            name.removeprefix("column."): values.clone() for name, values in state.items() if name.startswith("column.")
        }
        keys_of(self._columns)  # a damaged name is told where the file is read
        self._free = []

    def _make_room(self, n_rows: int, columns: Mapping[str, Tensor]) -> None:
        missing = n_rows - len(self._free)
        if missing <= 0:
            return
        allocated = len(self._rows) + len(self._free)
        wanted = min(self.max_rows, max(allocated + missing, 2 * allocated, _FIRST_ROWS))
        for name, values in columns.items():
            held = self._columns.get(name, values.new_empty(0, *values.shape[1:]))
            self._columns[name] = torch.cat([held, values.new_zeros(wanted - allocated, *values.shape[1:])])
        self._free.extend(reversed(range(allocated, wanted)))

    def _drop(self, name: RowId) -> None:
        self._free.append(self._rows.pop(name)[0])
        self._settle(name, accepted=False)

    def _settle(self, name: RowId, *, accepted: bool) -> None:
        self._settled.pop(name, None)
        self._settled[name] = accepted
        if len(self._settled) > self.max_rows:
            del self._settled[next(iter(self._settled))]


def columns_of(served: Served) -> dict[str, Tensor]:
    """Return what a label will need of served rows, as columns on the CPU that share nothing.

    Args:
        served: What a forward pass gave.

    Returns:
        Column -> values, shape (B, ...). Keys are numbered: the memory's parts stand in the order of the keys.
    """
    keys = served.keys
    named = (
        {_KEY: keys} if isinstance(keys, Tensor) else {f"{_KEY}.{n:04}.{k}": v for n, (k, v) in enumerate(keys.items())}
    )
    columns = {**named, "base": served.base, "signals": served.signals}
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in columns.items()}


def keys_of(columns: Mapping[str, Tensor]) -> Keys:
    """Return the keys among columns, as the memory gave them.

    Args:
        columns: What `columns_of` returned, in any order.

    Returns:
        Shape (B, d), or a dict in its old order.
    """
    if _KEY in columns:
        return columns[_KEY]
    return {name.split(".", 2)[2]: columns[name] for name in sorted(columns) if name.startswith(f"{_KEY}.")}
