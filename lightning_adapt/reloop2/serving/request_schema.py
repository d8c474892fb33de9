"""What a server accepts: requests as JSON objects, checked to the last value before a model sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_flag, check_integer, problem
from lightning_adapt.reloop2.models.fields import check_fields
from lightning_adapt.reloop2.serving.row_ids import RowId, check_ids

__all__ = ["Request", "RequestError", "RequestSchema"]

_LARGEST = torch.finfo(torch.float32).max
_KEYS = {"predict": ("type", "ids", "features"), "feedback": ("type", "ids", "labels"), "status": ("type",)}


class RequestError(ValueError):
    """A request that cannot be met; the text says to its sender what is wrong."""


@dataclass(frozen=True)
class Request:
    """A request that has passed all checks.

    Attributes:
        kind: "predict", "feedback" or "status".
        ids: Ids of the rows.
        batch: Field -> values of shape (B,), for "predict".
        labels: Shape (B,), float32, for "feedback".
    """

    kind: Literal["predict", "feedback", "status"]
    ids: Sequence[RowId] = ()
    batch: Mapping[str, Tensor] | None = None
    labels: Tensor | None = None


class RequestSchema:
    """Checks requests and turns their rows into tensors.

    Requests are `{"type": "predict", "ids": [...], "features": {"user_id": [...], ...}}`, `{"type": "feedback", "ids":
    [...], "labels": [...]}` and `{"type": "status"}`, without any other keys.

    Args:
        field_sizes: Id field -> number of its rows in the embedding; ids lie in 0..size-1.
        numeric: Names of the numeric fields; finite numbers.
        max_rows: Rows in one request at most.
        binary: Whether labels lie in [0, 1].

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> schema = RequestSchema({"user_id": 10})
        >>> schema.parse({"type": "predict", "ids": ["a", "b"], "features": {"user_id": [3, 9]}}).batch
        {'user_id': tensor([3, 9])}
        >>> schema.parse({"type": "predict", "ids": ["a"], "features": {"user_id": [10]}})
        Traceback (most recent call last):
        ...
        lightning_adapt.reloop2.serving.request_schema.RequestError: \
`features.user_id[0]` must be a whole number from 0 to 9, \
but got 10. Send an id that the model knows.
    """

    def __init__(
        self,
        field_sizes: Mapping[str, int],
        *,
        numeric: Sequence[str] = (),
        max_rows: int = 1000,
        binary: bool = True,
    ) -> None:
        self.field_sizes, self.numeric = check_fields(field_sizes, numeric)
        self.max_rows = check_integer("max_rows", max_rows, "Pass 1000, say.", minimum=1)
        self.binary = check_flag("binary", binary, "Pass False for values instead of clicks.")

    @classmethod
    def of(cls, module: Any, *, max_rows: int = 1000, binary: bool = True) -> RequestSchema:
        """Return the schema of a module's fields.

        Args:
            module: A `CTRModule`, or any module with `field_sizes` and `numeric` among its `hparams`.
            max_rows: As in the constructor.
            binary: As in the constructor.

        Returns:
            The schema.

        Raises:
            TypeError: If the module does not say its fields.
        """
        hparams = getattr(module, "hparams", {})
        if not hparams.get("field_sizes"):
            remedy = "Pass schema=RequestSchema({'user_id': 1000, ...})."
            raise TypeError(problem("schema", "given where the module does not say its fields", module, remedy))
        return cls(hparams["field_sizes"], numeric=hparams.get("numeric", ()), max_rows=max_rows, binary=binary)

    def parse(self, payload: Any) -> Request:
        """Check a request.

        Args:
            payload: What the JSON said.

        Returns:
            The request.

        Raises:
            RequestError: If anything about it is wrong; names the first such thing.
        """
        try:
            return self._parse(payload)
        except RequestError:
            raise
        except (TypeError, ValueError, OverflowError) as error:  # of the checks that are shared with Python callers
            raise RequestError(str(error)) from error

    def _parse(self, payload: Any) -> Request:
        if not isinstance(payload, dict):
            raise RequestError(problem("request", "a JSON object", payload, 'Send {"type": "predict", ...}.'))
        kind = payload.get("type")
        if not isinstance(kind, str) or kind not in _KEYS:
            raise RequestError(problem("type", f"one of {', '.join(map(repr, _KEYS))}", kind, "Correct it."))
        _check_names("request", payload, _KEYS[kind])
        if kind == "status":
            return Request("status")
        if not isinstance(payload["ids"], list) or not 1 <= len(payload["ids"]) <= self.max_rows:
            shown = len(payload["ids"]) if isinstance(payload["ids"], list) else payload["ids"]
            remedy = "Spread the rows over several requests."
            raise RequestError(problem("ids", f"a list of 1 to {self.max_rows} ids", shown, remedy))
        ids = check_ids(payload["ids"], distinct=kind == "predict")
        if kind == "feedback":
            low, high = (0.0, 1.0) if self.binary else (-_LARGEST, _LARGEST)
            labels = _column("labels", payload["labels"], len(ids), partial(_number, low=low, high=high))
            return Request("feedback", ids, labels=torch.tensor(labels, dtype=torch.float32))
        return Request("predict", ids, batch=self._batch(payload["features"], len(ids)))

    def _batch(self, features: Any, n_rows: int) -> dict[str, Tensor]:
        if not isinstance(features, dict):
            remedy = 'Send {"user_id": [3, 5], ...}: one list per field.'
            raise RequestError(problem("features", "a JSON object", features, remedy))
        _check_names("features", features, (*self.field_sizes, *self.numeric))
        columns = {name: partial(_column, f"features.{name}", features[name], n_rows) for name in features}
        finite = partial(_number, low=-_LARGEST, high=_LARGEST)
        ids = {name: columns[name](partial(_id, size=size)) for name, size in self.field_sizes.items()}
        numbers = {name: columns[name](finite) for name in self.numeric}
        return {
            **{name: torch.tensor(values, dtype=torch.int64) for name, values in ids.items()},
            **{name: torch.tensor(values, dtype=torch.float32) for name, values in numbers.items()},
        }


def _check_names(where: str, given: Mapping[str, Any], wanted: Sequence[str]) -> None:
    missing, unknown = [name for name in wanted if name not in given], [name for name in given if name not in wanted]
    if missing:
        raise RequestError(problem(where, f"an object with {', '.join(wanted)}", sorted(given), f"Add {missing[0]!r}."))
    if unknown:
        remedy = f"Leave out {unknown[0]!r:.60}."
        raise RequestError(problem(where, f"an object with {', '.join(wanted)} alone", sorted(given), remedy))


def _column(name: str, values: Any, n_rows: int, check: Callable[[str, Any], Any]) -> list[Any]:
    if not isinstance(values, list) or len(values) != n_rows:
        shown = f"{len(values)} values" if isinstance(values, list) else values
        raise RequestError(problem(name, f"a list of {n_rows} values, one per id", shown, "Send one value per id."))
    return [check(f"{name}[{row}]", value) for row, value in enumerate(values)]


def _id(name: str, value: Any, size: int) -> int:
    if type(value) is not int or not 0 <= value < size:
        allowed = f"a whole number from 0 to {size - 1}"
        raise RequestError(problem(name, allowed, value, "Send an id that the model knows."))
    return value


def _number(name: str, value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:  # NaN is nowhere
        allowed = "a number from 0 to 1" if high == 1 else "a finite number"
        raise RequestError(problem(name, allowed, value, "Correct the value."))
    return float(value)
