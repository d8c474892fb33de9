"""The ReLoop2 section of the demo: a click model that drifts, served as it is, trained further, and with memories."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared.demo_frame import Arm, Context, Gap, compare, nbsp, over_seeds, table_rows
from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt._shared.report_parts import Cell, Column, Finding, Picture, Score, Section, Usage
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

__all__ = ["USAGE", "run"]

_COLUMNS = (
    Column("AUC after the drift", "%", 1, "higher"),
    Column("AUC, whole stream", "%", 1, "higher"),
    Column("log loss", "", 4, "lower"),
    Column("serving", "ms/1000 rows", 1, "lower"),
)
USAGE = Usage(
    command="""lightning-adapt overlay reloop2 > reloop2.yaml
python main.py test --config mine.yaml \\
  --config reloop2.yaml --ckpt_path best.ckpt""",
    python="""from lightning_adapt import ErrorMemoryCallback

trainer = L.Trainer(callbacks=[ErrorMemoryCallback()])
# labels are learnt from after their batch was served
trainer.test(model, stream)  # your model, as it is""",
    yaml="""trainer:
  callbacks+:
  - class_path: lightning_adapt.ErrorMemoryCallback
    init_args:
      memory: auto""",
)
_ARMS = {
    "base": Arm("served as it is", "baseline"),
    "intercept": Arm("running intercept", "control"),
    "timid": Arm("trained on, lr 0.0002", "baseline"),
    "bold": Arm("trained on, lr 0.003", "baseline"),
    "paper": Arm("error memory, the paper's", "control"),
    "sketch": Arm("error memory, one sketch", "ours"),
    "adaptive": Arm("error memory, adaptive", "ours"),
}
_CALLBACKS: dict[str, Callable[[], list[Callback]]] = {
    "base": list,
    "intercept": lambda: [ErrorMemoryCallback(AdaptiveErrorMemory(["intercept"]))],
    "timid": lambda: [IncrementalTraining(2e-4)],
    "bold": lambda: [IncrementalTraining(3e-3)],
    "paper": lambda: [ErrorMemoryCallback(ErrorMemory.paper())],
    "sketch": lambda: [ErrorMemoryCallback(ErrorMemory(backend="sketch"))],
    "adaptive": lambda: [ErrorMemoryCallback()],
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
    """What one pass over the stream gave: the columns of the table, and the AUC of its stretches."""

    late_auc: float
    auc: float
    logloss: float
    milliseconds: float
    per_slot: dict[str, Tensor]


class _Start(NamedTuple):
    """What the rows of a seed share."""

    stream: DriftStream
    model: CTRModule


def run(context: Context) -> Section:
    """Serve the same drifting streams in every way, and return what was found.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    rows, seeds = ((12_000, 5_000), 2) if context.quick else ((160_000, 50_000), 3)
    context.start(len(_ARMS) * seeds * rows[1] // 1_000)
    serve, prepare = partial(_serve, advance=context.advance), partial(_train, rows)
    words = "training the click model"
    found = compare(context, _ARMS, range(seeds), serve, prepare=prepare, preparing=words)
    return Section(
        method="reloop2",
        title="ReLoop2: a memory of recent errors",
        problem="What users click on changes overnight, and the recommender that was trained yesterday does not know.",
        findings=(_finding(found, rows, seeds),),
        usage=USAGE,
    )


def _train(rows: tuple[int, int], seed: int) -> _Start:
    stream = DriftStream("abrupt", n_train=rows[0], n_stream=rows[1], val_share=0.02, seed=seed)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(seed)
        model = CTRModule(stream.field_sizes)
        quiet_trainer([], max_epochs=1, num_sanity_val_steps=0).fit(model, datamodule=stream)
    return _Start(stream, model)


def _serve(start: _Start, arm: str, _seed: int, *, advance: Callable[[], None]) -> _Found:
    """Serve the stream once; what a row trained of the model is put back afterwards."""
    model, stream = start.model, start.stream
    watch, callbacks = _Watch(advance), _CALLBACKS[arm]()
    for callback in callbacks:
        if isinstance(callback, ErrorMemoryCallback):  # an empty memory is whitened by the keys that it reads
            quiet_trainer([callback]).validate(model, datamodule=stream, verbose=False)
    quiet_trainer([*callbacks, watch]).test(model, datamodule=stream, verbose=False)
    totals, slots = watch.metrics.compute(), watch.metrics.per_slot()
    late = slots["auc"][len(slots["auc"]) // 2 :]
    milliseconds = 1e6 * watch.seconds / len(stream.test_dataloader().dataset)
    auc = (100 * float(late.mean()), 100 * float(totals["slot_auc"]))
    return _Found(*auc, float(totals["logloss"]), milliseconds, slots)


def _finding(found: dict[str, list[_Found]], rows: tuple[int, int], n_seeds: int) -> Finding:
    late = {name: [one.late_auc for one in some] for name, some in found.items()}
    slow = {name: mean(one.milliseconds for one in some) for name, some in found.items()}
    slots = {name: some[0].per_slot for name, some in found.items()}
    return Finding(
        caption="A drifting stream, served in seven ways",
        columns=_COLUMNS,
        rows=table_rows(_ARMS, lambda arm: _cells(found[arm])),
        setting=f"A made-up click log whose category effects change in the middle of the stream; DeepFM trained on "
        f"{rows[0]:,} rows, {rows[1]:,} served in time order, labels one batch of 1,000 late, {n_seeds} seeds, mean ± "
        "standard deviation.",
        gained=nbsp(_gained(late)),
        not_gained=nbsp(_not_gained(late, slow)),
        score=_score(late, slow),
        pictures=(
            Picture(
                "slots",
                "AUC and log loss over ten stretches of the stream; the change comes after the fifth. Seed 0.",
                f"Two line charts. In the last stretch the AUC is {_last(slots['adaptive'])} with the adaptive memory, "
                f"{_last(slots['base'])} of the model served as it is and {_last(slots['bold'])} when it is trained "
                "on.",
                partial(_figure, slots),
            ),
        ),
    )


def _last(slots: Mapping[str, Tensor]) -> str:
    return f"{100 * float(slots['auc'][-1]):.0f}\N{NO-BREAK SPACE}%"


def _cells(some: list[_Found]) -> tuple[Cell, ...]:
    return tuple(over_seeds([float(one[place]) for one in some]) for place in range(len(_COLUMNS)))  # type: ignore[arg-type]


# -- words, from the numbers of the table, whichever way they fell out ------------------------------------------------
def _gap(late: Mapping[str, list[float]], other: str) -> Gap:
    return Gap.between(late["adaptive"], late[other], 1, "points")


def _best_rate(late: Mapping[str, list[float]]) -> str:
    return max(("timid", "bold"), key=lambda name: mean(late[name]))


def _gained(late: Mapping[str, list[float]]) -> str:
    ours, base = mean(late["adaptive"]), mean(late["base"])
    more = f", and {_beside_training(late)}" if _beats_training(late) else ""
    return (
        f"With untouched weights and the adaptive memory the AUC after the drift is {ours:.1f} %: "
        f"{_gap(late, 'base').against('the model served as it is')} at {base:.1f} %{more}."
    )


def _not_gained(late: Mapping[str, list[float]], slow: Mapping[str, float]) -> str:
    more = "" if _beats_training(late) else f" The adaptive memory is {_beside_training(late)}."
    return (
        f"Time: {slow['adaptive']:.0f} ms per 1,000 rows against {slow['base']:.0f} as it is. The smaller memories "
        f"reach {mean(late['sketch']):.1f} % (one sketch) and {mean(late['paper']):.1f} % (the paper's settings), "
        f"a running intercept {mean(late['intercept']):.1f} %.{more}"
    )


def _beats_training(late: Mapping[str, list[float]]) -> bool:
    return _gap(late, _best_rate(late)).result == "better"


def _beside_training(late: Mapping[str, list[float]]) -> str:
    trained = _best_rate(late)
    return f"{_gap(late, trained).against('training on at the better rate')} at {mean(late[trained]):.1f} %"


def _score(late: Mapping[str, list[float]], slow: Mapping[str, float]) -> Score:
    gap = _gap(late, "base")
    beaten = "" if _beats_training(late) else "; no better than training on"
    return Score(
        measure="AUC after the drift, %",
        baseline=_ARMS["base"].name,
        without=f"{mean(late['base']):.1f}",
        ours=f"{mean(late['adaptive']):.1f}",
        change=str(gap),
        result=gap.result,
        but=f"serving takes {slow['adaptive'] / slow['base']:.1f} times as long{beaten}",
    )


def _figure(per_slot: Mapping[str, dict[str, Tensor]]) -> Figure:
    base = {f"base_{name}": values for name, values in per_slot["base"].items()}
    others = {_ARMS[name].name: per_slot[name] for name in _LINES}
    return slots_figure(
        {**per_slot["adaptive"], **base}, name=_ARMS["adaptive"].name, base_name="as it is", others=others
    )
