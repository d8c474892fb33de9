"""PrequentialMetrics: AUC, gAUC, logloss and calibration of a stream, over slots of time, beside the base model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt.reloop2.figures import slots_figure
from lightning_adapt.reloop2.metric_functions import (
    check_columns,
    equal_slots,
    grouped_auc,
    grouped_calibration,
    grouped_logloss,
    weighted_user_auc,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PrequentialMetrics"]

SLOTS_BY_ARRIVAL = 10  # as many as the paper has on MicroVideo

_OPTIONAL = ("base", "slot", "group", "index")
_DTYPES = {
    "prediction": torch.float32,
    "target": torch.uint8,
    "base": torch.float32,
    "slot": torch.int64,
    "group": torch.int64,
    "index": torch.int64,
    "arrival": torch.int64,
}


class PrequentialMetrics(Metric):
    """Measure click predictions of a stream: pooled, per slot of time and per user; a torchmetrics Metric.

    `compute()` returns a dict of scalars (float32), see `update` for what they come from:

    - "auc": over all rows together, ties counted half; NaN when one class is missing.
    - "slot_auc": mean of the AUC of each slot; slots with one class are left out.
    - "gauc": mean of the AUC of each group (user), weighted by its rows; groups with one class are left out; NaN
      without `group`.
    - "logloss": mean in nats; probabilities are cut to [1e-6, 1 - 1e-6].
    - "calibration": sum of the predictions over the number of clicks; NaN without clicks.

    The same again with the prefix "base_" when `base` was given. `per_slot()` returns "auc", "logloss" and
    "calibration" of each slot, `figure()` draws them. Without a single row every number is NaN: a run that was cut
    short still ends.

    All rows are kept, on the device of the metric and in single precision: 5 bytes a row, 4 more with `base`, and 8
    for each of `slot`, `group` and `index` (and for the order of arrival, without slot and index). Under several
    processes the rows of all are gathered, and the result is that of one process. `forward` returns the numbers of its
    batch alone.

    Args:
        n_slots: Number of slots; slots without rows are NaN. None: from the largest `slot`, or 10 when `slot` is never
            given.
        **kwargs: Of `torchmetrics.Metric`, such as `sync_on_compute` or `compute_on_cpu`.

    Raises:
        TypeError: If `n_slots` is no whole number.
        ValueError: If it is smaller than 1, or an argument is unknown.

    Example:
        >>> import torch
        >>> metrics = PrequentialMetrics(n_slots=2)
        >>> metrics.update(torch.tensor([0.2, 0.8, 0.6, 0.4]), torch.tensor([0, 1, 0, 1]))
        >>> float(metrics.compute()["slot_auc"])
        0.5
    """

    is_differentiable = False
    full_state_update = True  # `forward` must not number the rows anew: their order of arrival counts on

    prediction: list[Tensor]

    def __init__(self, *, n_slots: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        remedy = "Pass the number of slots, or leave it out to take it from the data."
        self.n_slots = None if n_slots is None else check_integer("n_slots", n_slots, remedy, minimum=1)
        for name in _DTYPES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    # -- in ------------------------------------------------------------------------------------------------------
    @override
    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        base: Tensor | None = None,
        slot: Tensor | None = None,
        group: Tensor | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Take the rows of a batch; what is given once must be given with every batch.

        Args:
            prediction: Probability of a click. Shape (B,), any float dtype.
            target: 0 or 1. Shape (B,), bool, integer or float.
            base: Probability by the base model, to be compared with. Shape (B,), any float dtype.
            slot: Slot of each row, counted from 0; rows below 0 count in no slot. Without it rows are cut into equal
                slots in their order: that of `index`, or else of their arrival, where the rows of several processes
                take turns, as Lightning deals them out. Shape (B,), any integer dtype.
            group: Group of each row for the gAUC: the user. Shape (B,), any integer dtype.
            index: Number of each row in the data set: a row that comes again (as samplers of several processes repeat
                some) is counted once. Shape (B,), any integer dtype.

        Raises:
            TypeError: If something is no tensor, or its dtype is none of those.
            ValueError: If shapes differ or values are out of range, or if an optional argument is given here and was
                not before, or the other way round.
        """
        columns = {"prediction": prediction, "target": target}
        optional = {"base": base, "slot": slot, "group": group, "index": index}
        columns |= {name: value for name, value in optional.items() if value is not None}
        check_columns(columns, self.n_slots)
        if not len(prediction):
            return
        n_before = _length(self.prediction)
        if n_before:
            self._check_same_columns(columns)
        if slot is None and index is None:
            columns["arrival"] = torch.arange(n_before, n_before + len(prediction))
        for name, values in columns.items():
            # copied: the caller may go on and write into its tensors
            getattr(self, name).append(values.detach().to(self.device, _DTYPES[name], copy=True))

    def _check_same_columns(self, columns: Mapping[str, Tensor]) -> None:
        for name in _OPTIONAL:
            before = _length(getattr(self, name)) > 0
            if before != (name in columns):
                seen = "left out, as it was before" if not before else "given, as it was before"
                raise ValueError(problem(name, seen, columns.get(name), "Pass it with every batch, or with none."))

    # -- out -----------------------------------------------------------------------------------------------------
    @override
    def compute(self) -> dict[str, Tensor]:
        """Return the metrics over all rows so far.

        Returns:
            Name -> number, as listed above. Shape (), dtype float32, on the device of the metric.
        """
        rows, n_slots = self._rows()
        results: dict[str, Tensor] = {}
        for prefix, prediction in _predictions(rows):
            pooled = {name: values[0] for name, values in _by_group(prediction, rows["target"], None, 1).items()}
            by_slot = _by_group(prediction, rows["target"], rows["slot"], n_slots)
            gauc = torch.tensor(torch.nan)
            if "group" in rows:
                gauc = weighted_user_auc(prediction, rows["target"], rows["group"])
            pooled |= {"slot_auc": by_slot["auc"].nanmean(), "gauc": gauc}
            results |= {prefix + name: value for name, value in pooled.items()}
        return self._finished(results)

    def per_slot(self) -> dict[str, Tensor]:
        """Return the metrics of each slot; under several processes all of them must call it.

        Returns:
            "auc", "logloss" and "calibration", and the same with the prefix "base_" when `base` was given. NaN where
            a slot has no rows, only one class (AUC) or no clicks (calibration). Shape (S,), dtype float32, on the
            device of the metric.
        """
        synced = self._is_synced
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute and not synced, should_unsync=not synced
        ):
            rows, n_slots = self._rows()
        results: dict[str, Tensor] = {}
        for prefix, prediction in _predictions(rows):
            by_slot = _by_group(prediction, rows["target"], rows["slot"], n_slots)
            results |= {prefix + name: values for name, values in by_slot.items()}
        return self._finished(results)

    def figure(self) -> Figure:
        """Draw AUC and logloss over the slots, of the base model beside it where `base` was given.

        Returns:
            A matplotlib figure that belongs to no window.

        Raises:
            ModuleNotFoundError: If matplotlib is missing; names the extra.
            ValueError: If there is no slot yet.
        """
        return slots_figure(self.per_slot())

    def _finished(self, results: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device, torch.float32) for name, value in results.items()}

    # -- rows ----------------------------------------------------------------------------------------------------
    @override
    def sync(self, *args: Any, **kwargs: Any) -> None:
        # torchmetrics sends an empty float tensor for a list without tensors, which fits no column of whole numbers
        for name, dtype in _DTYPES.items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [torch.empty(0, dtype=dtype, device=self.device)])
        super().sync(*args, **kwargs)

    def _rows(self) -> tuple[dict[str, Tensor], int]:
        """Return the columns, each row once and with its slot, and the number of slots."""
        device = torch.device("cpu") if self.device.type == "mps" else self.device  # mps has no double precision
        columns = {name: _joined(getattr(self, name), dtype, device) for name, dtype in _DTYPES.items()}
        n_rows = len(columns["prediction"])
        rows = {name: values for name, values in columns.items() if len(values) or name in ("prediction", "target")}
        for name, values in rows.items():
            if len(values) != n_rows:
                remedy = "Pass it in all processes, or in none."
                raise ValueError(problem(name, f"given for all {n_rows} rows", len(values), remedy))
        rows = _in_order(rows)
        n_rows = len(rows["prediction"])
        if "slot" in rows:
            n_slots = self.n_slots or max(int(rows["slot"].max()) + 1, 0)
        else:
            n_slots = self.n_slots or SLOTS_BY_ARRIVAL
            rows["slot"] = equal_slots(n_rows, n_slots, device)
        return rows, n_slots


def _length(state: list[Tensor]) -> int:
    return sum(len(part) for part in state)


def _joined(state: list[Tensor] | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    parts = [state] if isinstance(state, Tensor) else state  # one tensor once it was gathered
    return torch.cat([torch.empty(0, dtype=dtype, device=device), *(part.to(device, dtype) for part in parts)])


def _in_order(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sort rows by `index` and drop those that come again, or by their arrival in the turns of the processes."""
    if "index" in rows:
        order = rows["index"].argsort(stable=True)
        index = rows["index"][order]
        new = torch.ones_like(index, dtype=torch.bool)
        new[1:] = index[1:] != index[:-1]
        order = order[new]
    elif "arrival" in rows:
        order = rows["arrival"].argsort(stable=True)  # stable: among equal ones, the order of the processes
    else:
        return rows
    return {name: values[order] for name, values in rows.items()}


def _predictions(rows: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    named = [("", rows["prediction"])]
    return [*named, ("base_", rows["base"])] if "base" in rows else named


def _by_group(prediction: Tensor, target: Tensor, group: Tensor | None, n_groups: int) -> dict[str, Tensor]:
    if group is None:
        group = torch.zeros(len(prediction), dtype=torch.int64, device=prediction.device)
    inside = group >= 0
    arguments = (prediction[inside], target[inside], group[inside], n_groups)
    return {
        "auc": grouped_auc(*arguments),
        "logloss": grouped_logloss(*arguments),
        "calibration": grouped_calibration(*arguments),
    }
