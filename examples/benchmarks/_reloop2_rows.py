"""A base model, the stream it is served on, and the rows that every benchmark of an error memory compares on it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import _harness as h
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_adapt import (
    AdaptiveErrorMemory,
    CTRModule,
    ErrorMemory,
    ErrorMemoryCallback,
    IncrementalTraining,
    PrequentialDataModule,
    PrequentialMetrics,
)

EPOCHS = 2
READ_BATCH = 1024  # training rows that a memory is shown at a time, to whiten its keys by
LAMBDAS = (0.4, 0.7, 1.0)  # the first is the default
PRIOR_ROWS = 20.0  # of the control tables, a mean over n rows is trusted n / (n + 20): on MovieLens the best of 3 to 80
HALF_LIFE = 10_000  # rows after which the controls count a label half, as the adaptive memory does
PERCENT = 100  # AUCs are in per cent, as in the paper's tables: a point is 0.01

BASE, INTERCEPT, PAPER, ADAPTIVE = "base", "running intercept", "paper preset", "adaptive"
SHUFFLED = ", shuffled labels"


class Served(CTRModule):
    """A click model whose test step returns what it serves."""

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        return self.predict_step(batch, batch_idx)


class Collected(Callback):
    """What the module's own test step saw, batch by batch."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:  # noqa: ARG002
        self.parts.append(outputs.detach().cpu().clone())


class NotedMemory(ErrorMemory):
    """An error memory that keeps its estimates: one pass over a stream gives the rows of every lambda."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.noted: list[Tensor] = []

    def signals(self, keys: Tensor, base: Tensor, *, units: bool = False) -> Tensor:
        found = super().signals(keys, base, units=units)
        self.noted.append(found[:, :1].cpu())
        return found


class Stream:
    """A base model trained on the first part of a log, and the rest of the log, served batch by batch to each row.

    Args:
        data: The log; its `test_batch_size` is how many rows are served, and learnt from, at a time.
        seed: Seed of the model's weights.
        device: "cpu" or "cuda".
        parts: Name -> mask over the stream; the AUC is also given inside each.
        truth: Probability that each label of the stream was drawn with, where that is known. Shape (n,).
    """

    def __init__(
        self,
        data: PrequentialDataModule,
        seed: int,
        device: str = "cpu",
        parts: Mapping[str, Tensor] | None = None,
        truth: Tensor | None = None,
    ) -> None:
        table = data.table
        self.seed, self.device, self.parts, self.truth = seed, device, dict(parts or {}), truth
        self.rows, self.before = table.rows(table.part("test")), table.rows(table.part("train"))
        self.batch, self.slots = data.test_batch_size, data.slots
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = Served(data.field_sizes, numeric=data.numeric)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no `val_dataloader`.*")  # all settings are fixed beforehand
            self._trainer(max_epochs=EPOCHS).fit(self.model, datamodule=data)
        self.model.eval()
        self.base = self.serve()
        self._estimates: dict[str, Tensor] = {}

    def _trainer(self, *callbacks: Callback, **options: Any) -> Trainer:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        accelerator = "gpu" if self.device == "cuda" else "cpu"
        return Trainer(
            accelerator=accelerator,
            devices=1,
            enable_checkpointing=False,
            callbacks=list(callbacks),
            **quiet,
            **options,
        )

    def serve(self, *callbacks: Callback) -> Tensor:
        """Return what a test of the base model with some callbacks serves. Shape (n,), probabilities."""
        collected = Collected()
        self._trainer(collected, *callbacks).test(self.model, batches(self.rows, self.batch), verbose=False)
        return torch.cat(collected.parts)

    def serve_with(self, memory: ErrorMemory | AdaptiveErrorMemory, *callbacks: Callback, delay: int = 0) -> Tensor:
        """Return what is served with a memory that saw the training rows' keys, not their labels, beforehand."""
        callback = ErrorMemoryCallback(memory, delay=delay, log_base=False)
        self._trainer(callback).predict(self.model, batches(self.before, READ_BATCH))
        return self.serve(callback, *callbacks)

    def estimates(self, backend: str) -> Tensor:
        """Return the errors that a memory of default settings estimates, whatever its lambda is. Shape (n, 1)."""
        if backend not in self._estimates:
            memory = NotedMemory(backend=backend)
            self.serve_with(memory)
            self._estimates[backend] = torch.cat(memory.noted)[-len(self.base) :]
        return self._estimates[backend]

    def shuffled(self) -> Stream:
        """Return the same stream with its labels in a random order, so that there is nothing to learn from them."""
        other = copy.copy(self)
        draws = torch.Generator().manual_seed(7000 + self.seed)
        order = torch.randperm(len(self.base), generator=draws)
        other.rows = {**self.rows, "label": self.rows["label"][order]}
        other._estimates = {}
        return other

    def measure(self, served: Tensor) -> h.Run:
        """Return the metrics of what was served; AUCs in per cent, gAUC over users, slots' AUCs in "curve"."""
        metrics = self._metrics(served, self.rows["slot"])
        values = {name: float(value) for name, value in metrics.compute().items()}
        curve = (metrics.per_slot()["auc"] * PERCENT).tolist()
        late = curve[self.slots // 2 :]
        run: h.Run = {
            "slot AUC": values["slot_auc"] * PERCENT,
            "late AUC": sum(late) / len(late),
            "AUC": values["auc"] * PERCENT,
            "gAUC": values["gauc"] * PERCENT,
            "logloss": values["logloss"],
            "calibration": values["calibration"],
            "curve": curve,
        }
        for name, inside in self.parts.items():
            part = self._metrics(served, torch.where(inside, self.rows["slot"], -1))
            run[f"slot AUC, {name}"] = float(part.compute()["slot_auc"]) * PERCENT
        return run

    def _metrics(self, served: Tensor, slot: Tensor) -> PrequentialMetrics:
        metrics = PrequentialMetrics(n_slots=self.slots)
        metrics.update(served, self.rows["label"], slot=slot, group=self.rows["user_id"])
        return metrics


def batches(rows: Mapping[str, Tensor], size: int) -> DataLoader[Any]:
    """Return a loader of rows in their order, as the DataModule's own, which needs no DataModule to be attached."""
    n_rows = len(rows["label"])
    cut = [{name: column[start : start + size] for name, column in rows.items()} for start in range(0, n_rows, size)]
    return DataLoader(cut, batch_size=None)  # type: ignore[arg-type]


# -- controls: what simple tables over the base model's output would do, in the same batches --------------------------
class ResidualTable:
    """The mean residual of the base model for each id, pulled to 0 where there are few rows; old rows fade.

    Args:
        ids: Id of each row of the stream. Shape (n,), int64.
    """

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids
        self.sums = torch.zeros(int(ids.max()) + 1)
        self.counts = torch.zeros_like(self.sums)

    def read(self, rows: slice) -> Tensor:
        ids = self.ids[rows]
        return self.sums[ids] / (self.counts[ids] + PRIOR_ROWS)

    def write(self, rows: slice, residual: Tensor) -> None:
        ids, fading = self.ids[rows], 0.5 ** (len(residual) / HALF_LIFE)
        self.sums.mul_(fading).index_add_(0, ids, residual)
        self.counts.mul_(fading).index_add_(0, ids, torch.ones_like(residual))


def with_tables(stream: Stream, ids: Sequence[Tensor], delay: int = 0) -> Tensor:
    """Return the base model's probability plus the mean residuals of ids, written as late as a memory would be."""
    tables = [ResidualTable(each) for each in ids]
    pieces = [slice(start, start + stream.batch) for start in range(0, len(stream.base), stream.batch)]
    served = []
    for number, rows in enumerate(pieces):
        errors = torch.stack([table.read(rows) for table in tables]).sum(0)
        served.append((stream.base[rows] + errors).clamp(1e-6, 1 - 1e-6))
        if number >= delay:
            arrived = pieces[number - delay]
            for table in tables:
                table.write(arrived, stream.rows["label"][arrived] - stream.base[arrived])
    return torch.cat(served)


# -- rows -------------------------------------------------------------------------------------------------------------
Row = Callable[[Stream], h.Run]


def base(stream: Stream) -> h.Run:
    """The base model alone."""
    return stream.measure(stream.base)


def residuals(*fields: str, delay: int = 0) -> Row:
    """A control: a table of mean residuals for each field, or of all rows where no field is named."""

    def row(stream: Stream) -> h.Run:
        one = torch.zeros(len(stream.base), dtype=torch.int64)
        return stream.measure(with_tables(stream, [stream.rows[name] for name in fields] or [one], delay))

    return row


def fixed(backend: str, lam: float) -> Row:
    """An ErrorMemory of default settings but for its lambda."""

    def row(stream: Stream) -> h.Run:
        memory = ErrorMemory(backend=backend, lam=lam)  # type: ignore[arg-type]
        return stream.measure(memory.correct(stream.base, stream.estimates(backend), "probability"))

    return row


def paper(stream: Stream) -> h.Run:
    """An ErrorMemory with the settings of the paper."""
    return stream.measure(stream.serve_with(ErrorMemory.paper()))


def adaptive(stream: Stream, delay: int = 0) -> h.Run:
    """The callback as it comes: memory="auto"."""
    return stream.measure(stream.serve_with(AdaptiveErrorMemory(), delay=delay))


def incremental(learning_rate: float, delay: int = 0) -> Row:
    """The rival: an optimizer step on each batch once its labels are there."""

    def row(stream: Stream) -> h.Run:
        return stream.measure(stream.serve(IncrementalTraining(learning_rate, delay=delay)))

    return row


def both(learning_rate: float, delay: int = 0) -> Row:
    """The adaptive memory on a base model that is trained on as it is served."""

    def row(stream: Stream) -> h.Run:
        training = IncrementalTraining(learning_rate, delay=delay)
        return stream.measure(stream.serve_with(AdaptiveErrorMemory(), training, delay=delay))

    return row


def on_shuffled(row: Row) -> Row:
    """The same row on shuffled labels."""
    return lambda stream: row(stream.shuffled())


# -- what comes out ---------------------------------------------------------------------------------------------------
def best(study: h.Study, methods: Sequence[str], key: str) -> str | None:
    """Return the method with the largest mean, chosen with hindsight; None when none was run."""
    ran = [name for name in methods if name in study.methods]
    return max(ran, key=lambda name: h.mean_sd(study.values(name, key))[0] or 0.0) if ran else None


def draw(study: h.Study, panels: Mapping[str, Mapping[str, str]]) -> Any:
    """Draw the AUC of each slot, mean over seeds; panels are title -> (label of a line -> name of its row)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 4), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
        for number, (label, method) in enumerate(lines.items()):
            curves = torch.tensor(study.values(method, "curve")) if method in study.methods else torch.empty(0, 0)
            if curves.numel():
                heavy = label == ADAPTIVE
                axes.plot(curves.mean(0), color=f"C{number}", label=label, linewidth=2.4 if heavy else 1.2)
        axes.set(title=title, xlabel="slot of the stream")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("AUC of the slot, %")
    fullest = max(all_axes, key=lambda axes: len(axes.lines))
    figure.legend(*fullest.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return figure
