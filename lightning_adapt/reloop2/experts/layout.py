"""Which signals an AdaptiveErrorMemory has: read off the first keys it sees, and fixed from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["INTERCEPT", "Layout", "layout_of"]

INTERCEPT = "intercept"
_CROSS = "*"
_REMEDY = "Give id fields as int64 tensors (B,) and key spaces as floating-point tensors (B, d)."


@dataclass(frozen=True)
class Layout:
    """Names of the parts, in the order in which their signals stand.

    Attributes:
        intercept: Whether there is an intercept.
        fields: Id fields that are read, F.
        singles: Those of them, by number, that have an effect of their own.
        pairs: Candidates for crosses, as numbers of fields.
        keys: Key spaces.
        seen: Id fields that there were, read or not; None in a state of the first releases, which did not note them.
    """

    intercept: bool
    fields: tuple[str, ...]
    singles: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    keys: tuple[str, ...]
    seen: tuple[str, ...] | None

    def ids(self, keys: Mapping[str, Tensor]) -> Tensor:
        """Return the id fields of some rows side by side. Shape (B, F), int64."""
        columns = [keys[name] for name in self.fields]
        if columns:
            return torch.stack(columns, 1)
        return torch.zeros(self.n_rows(keys), 0, dtype=torch.int64, device=next(iter(keys.values())).device)

    def n_rows(self, keys: Mapping[str, Tensor]) -> int:
        """Return the number of rows."""
        first = next(iter((*self.fields, *self.keys)), next(iter(keys)))  # with an intercept alone, any entry
        return len(keys[first])

    def check(self, keys: Mapping[str, Tensor]) -> None:
        """Raise unless rows bring every field and key space, each as it should be.

        Args:
            keys: Id fields and key spaces of some rows.

        Raises:
            TypeError: If `keys` is no dict, or a field is not int64.
            ValueError: If an entry is missing or has another number of rows; names it.
        """
        if not isinstance(keys, Mapping) or not keys:
            raise TypeError(problem("keys", "a dict of tensors with at least one entry", keys, _REMEDY))
        missing = [name for name in (*self.fields, *self.keys) if name not in keys]
        if missing:
            remedy = "Bring the same fields and key spaces in every call, or begin with a new memory."
            raise ValueError(problem("keys", f"a dict with {', '.join(map(repr, missing))}", sorted(keys), remedy))
        rows = self.n_rows(keys)
        for name in (*self.fields, *self.keys):
            value = keys[name]
            if name in self.fields and value.dtype != torch.int64:
                raise TypeError(problem("keys", f"a dict whose field {name!r} is int64", value.dtype, _REMEDY))
            if value.shape[:1] != (rows,) or value.ndim != (1 if name in self.fields else 2):
                received = f"{name!r} of shape {tuple(value.shape)}"
                raise ValueError(problem("keys", f"a dict of tensors with {rows} rows each", received, _REMEDY))

    def plain(self) -> dict[str, Any]:
        """Return the layout as plain values."""
        return {name: _as_lists(value) for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, saved: Mapping[str, Any]) -> Layout:
        """Return the layout that `plain` wrote.

        Args:
            saved: The plain values.

        Returns:
            The layout.
        """
        pairs = tuple((int(a), int(b)) for a, b in saved["pairs"])
        rest = {name: tuple(saved[name]) for name in ("fields", "singles", "keys")}
        seen = None if saved.get("seen") is None else tuple(saved["seen"])
        return cls(intercept=bool(saved["intercept"]), pairs=pairs, seen=seen, **rest)


def layout_of(keys: Mapping[str, Tensor], experts: str | Sequence[str] = "auto") -> Layout:
    """Return the layout for rows such as these.

    Args:
        keys: Id fields (int64) and key spaces (floating point) of some rows.
        experts: "auto", or names of what to use.

    Returns:
        The layout.

    Raises:
        ValueError, TypeError: If `keys` is empty or holds something else, or a name of `experts` is not in it.

    Example:
        >>> keys = {"user": torch.tensor([3]), "item": torch.tensor([0]), "embeddings": torch.ones(1, 8)}
        >>> layout_of(keys, ["user", "user*item"])
        Layout(intercept=False, fields=('user', 'item'), singles=(0,), pairs=((0, 1),), keys=(), seen=('user', 'item'))
    """
    if not isinstance(keys, Mapping) or not keys:
        raise TypeError(problem("keys", "a dict of tensors with at least one entry", keys, _REMEDY))
    fields = [name for name, value in keys.items() if not value.is_floating_point()]
    spaces = [name for name, value in keys.items() if value.is_floating_point()]
    if experts == "auto":
        every = tuple(range(len(fields)))
        return Layout(True, tuple(fields), every, tuple(combinations(every, 2)), tuple(spaces), tuple(fields))
    names = list(experts)
    crosses = [tuple(name.split(_CROSS)) for name in names if _CROSS in name and name not in keys]
    unknown = [name for name in names if name != INTERCEPT and name not in keys and _CROSS not in name]
    unknown += [_CROSS.join(cross) for cross in crosses if len(cross) != 2 or not set(cross) <= set(fields)]
    if unknown:
        known = f"names among {[*fields, *spaces, INTERCEPT]}, or two fields joined by '*'"
        raise ValueError(problem("experts", known, unknown, "Correct these names, or leave `experts` out."))
    used = [name for name in fields if name in names or any(name in cross for cross in crosses)]
    return Layout(
        INTERCEPT in names,
        tuple(used),
        tuple(number for number, name in enumerate(used) if name in names),
        tuple((used.index(a), used.index(b)) for a, b in crosses),
        tuple(name for name in spaces if name in names),
        tuple(fields),
    )


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, (tuple, list)) else value
