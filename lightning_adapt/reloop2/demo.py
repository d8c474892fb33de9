"""The ReLoop2 section of the demo: a click model that drifts, served as it is, trained further, and with memories."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared.demo_training import one_thread, quiet_trainer
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report import Cell, Column, Kind, Picture, Row, Section
from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory
from lightning_adapt.reloop2.callback import ErrorMemoryCallback
from lightning_adapt.reloop2.data.drift_stream import DriftStream
from lightning_adapt.reloop2.figures import slots_figure
from lightning_adapt.reloop2.incremental import IncrementalTraining
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.metrics import PrequentialMetrics
from lightning_adapt.reloop2.models.ctr_module import CTRModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_adapt.demo import DemoContext

__all__ = ["run"]

SEEDS = (0, 1)
_COLUMNS = (
    Column("AUC after the drift", "%", 1),
    Column("AUC, whole stream", "%", 1),
    Column("log loss", "", 4),
    Column("serving", "ms/1000 rows", 1),
)
_USAGE = (
    (
        "In a script",
        "from lightning_adapt import ErrorMemoryCallback\n\n"
        "trainer = L.Trainer(callbacks=[ErrorMemoryCallback()])\n"
        "trainer.test(model, stream)  # your model as it is; labels are learnt from after their batch",
    ),
    (
        "On top of your own LightningCLI and YAML",
        "lightning-adapt overlay reloop2 > reloop2.yaml\n"
        "python main.py test --config mine.yaml --config reloop2.yaml --ckpt_path best.ckpt",
    ),
)


class _Arm(NamedTuple):
    name: str
    kind: Kind
    callbacks: Callable[[], list[Callback]]


_ARMS = {
    "base": _Arm("served as it is", "baseline", list),
    "intercept": _Arm(
        "running intercept", "control", lambda: [ErrorMemoryCallback(AdaptiveErrorMemory(["intercept"]))]
    ),
    "timid": _Arm("trained on, lr 0.0002", "baseline", lambda: [IncrementalTraining(2e-4)]),
    "bold": _Arm("trained on, lr 0.003", "baseline", lambda: [IncrementalTraining(3e-3)]),
    "paper": _Arm("error memory, the paper's", "control", lambda: [ErrorMemoryCallback(ErrorMemory.paper())]),
    "sketch": _Arm("error memory, one sketch", "ours", lambda: [ErrorMemoryCallback(ErrorMemory(backend="sketch"))]),
    "adaptive": _Arm("error memory, adaptive", "ours", lambda: [ErrorMemoryCallback()]),
}
_LINES = ("bold", "sketch")  # drawn beside base and adaptive


class _Watch(Callback):
    """Keeps what the module answered in a test, and how long the test took."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance
        self.metrics = PrequentialMetrics()
        self.seconds = 0.0

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time()
        self._hook = pl_module.network.output.register_forward_hook(self._note)  # type: ignore[union-attr]

    def _note(self, _: Any, __: Any, logits: Tensor) -> None:
        if not torch.is_grad_enabled():  # a training step in between is not what was served
            self._served = logits.detach().reshape(-1).sigmoid()

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.metrics.update(self._served, batch["label"], slot=batch["slot"])
        self.advance()

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.process_time() - self._began
        self._hook.remove()


class _Found(NamedTuple):
    """What one pass over the stream gave."""

    late_auc: float
    auc: float
    logloss: float
    milliseconds: float
    per_slot: dict[str, Tensor]


def run(context: DemoContext) -> Section:
    """Serve the same drifting streams in every way, and return what was found.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    require("figures", "The ReLoop2 demo", "matplotlib")
    began = time.perf_counter()
    rows = (20_000, 5_000) if context.quick else (160_000, 50_000)
    seeds = SEEDS[:1] if context.quick else SEEDS
    context.start(total=len(_ARMS) * len(seeds) * rows[1] // 1_000)
    found: dict[str, list[_Found]] = {arm: [] for arm in _ARMS}
    with one_thread():
        for seed in seeds:
            context.doing(f"training the click model, seed {seed}")
            stream = DriftStream("abrupt", n_train=rows[0], n_stream=rows[1], val_share=0.02, seed=seed)
            model = _train(stream, seed)
            for name, arm in _ARMS.items():
                context.doing(f"{arm.name}, seed {seed}")
                found[name].append(_serve(model, stream, arm, context.advance))
    context.doing("ReLoop2")
    return _section(found, rows, len(seeds), time.perf_counter() - began)


def _train(stream: DriftStream, seed: int) -> CTRModule:
    torch.manual_seed(seed)
    model = CTRModule(stream.field_sizes)
    quiet_trainer([], max_epochs=1, num_sanity_val_steps=0).fit(model, datamodule=stream)
    return model


def _serve(model: CTRModule, stream: DriftStream, arm: _Arm, advance: Callable[[], None]) -> _Found:
    """Serve the stream once; training rows of the model are put back afterwards."""
    watch, callbacks = _Watch(advance), arm.callbacks()
    for callback in callbacks:
        if isinstance(callback, ErrorMemoryCallback):  # an empty memory is whitened by the keys that it reads
            quiet_trainer([callback]).validate(model, datamodule=stream, verbose=False)
    quiet_trainer([*callbacks, watch]).test(model, datamodule=stream, verbose=False)
    totals, slots = watch.metrics.compute(), watch.metrics.per_slot()
    late = slots["auc"][len(slots["auc"]) // 2 :]
    milliseconds = 1e6 * watch.seconds / len(stream.test_dataloader().dataset)
    return _Found(float(late.mean()), float(totals["slot_auc"]), float(totals["logloss"]), milliseconds, slots)


def _section(found: dict[str, list[_Found]], rows: tuple[int, int], n_seeds: int, seconds: float) -> Section:
    table = {name: _cells(some) for name, some in found.items()}
    return Section(
        method="reloop2",
        title="ReLoop2: a memory of recent errors",
        problem="What users click on changes overnight, and the recommender that was trained yesterday does not know.",
        setting=(
            f"A made-up click log whose category effects change in the middle of the stream; DeepFM trained on "
            f"{rows[0]:,} rows, {rows[1]:,} served in time order, labels one batch of 1,000 late, {n_seeds} seeds."
        ),
        table_caption="A drifting stream, served in seven ways",
        columns=_COLUMNS,
        rows=tuple(Row(arm.name, arm.kind, table[name]) for name, arm in _ARMS.items()),
        verdict=_verdict({name: cells[0] for name, cells in table.items()}),
        usage=_USAGE,
        seconds=seconds,
        pictures=(
            Picture(
                "slots",
                "AUC and log loss over ten stretches of the stream; the change comes after the fifth.",
                "Two line charts. After the change the model served as it is falls and stays low; the adaptive memory "
                "has most of it back three stretches later.",
                partial(_figure, {name: some[0].per_slot for name, some in found.items()}),
            ),
        ),
    )


def _cells(some: list[_Found]) -> tuple[Cell, ...]:
    columns = (
        [100 * one.late_auc for one in some],
        [100 * one.auc for one in some],
        [one.logloss for one in some],
        [one.milliseconds for one in some],
    )
    return tuple(Cell(mean(values), stdev(values) if len(values) > 1 else None) for values in columns)


def _verdict(auc: dict[str, Cell]) -> str:
    ours, base = auc["adaptive"].value, auc["base"].value
    trained = max(auc["timid"].value, auc["bold"].value)
    others = f"{auc['sketch'].value:.1f} % with one sketch, {auc['paper'].value:.1f} % with the paper's settings"
    text = f"AUC after the drift {ours:.1f} % with the adaptive memory against {base:.1f} % as it is; {others}. "
    if ours > trained + 0.2:
        return f"{text}Training on reaches {trained:.1f} %: less, for a gradient step per batch."
    return f"{text}Training on at the best rate reaches {trained:.1f} %: the memory is no better than that here."


def _figure(per_slot: dict[str, dict[str, Tensor]]) -> Figure:
    base = {f"base_{name}": values for name, values in per_slot["base"].items()}
    others = {_ARMS[name].name: per_slot[name] for name in _LINES}
    return slots_figure(
        {**per_slot["adaptive"], **base}, name=_ARMS["adaptive"].name, base_name="as it is", others=others
    )
