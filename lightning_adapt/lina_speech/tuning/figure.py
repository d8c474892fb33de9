"""The picture of initial-state tuning: held-out losses with those of the base, and sizes of the states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_adapt._shared.figures import log_figure
from lightning_adapt._shared.imports import require
from lightning_adapt.lina_speech.tuning.best_states import BestStates
from lightning_adapt.lina_speech.tuning.initial_states import InitialStates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["log_tuning", "tuning_figure"]

_MOST_NAMES = 8  # of voices in a legend, and of layers below an axis without slanting them


def log_tuning(trainer: Any, run: Any) -> None:
    """Log a figure of a fit.

    Args:
        trainer: The Trainer; call it on rank 0.
        run: The `TuningRun`, finished.
    """
    figure = tuning_figure(run.options.voices, run.best, run.states)
    log_figure(trainer, "lina/tuning", figure, step=trainer.global_step)


def tuning_figure(voices: Sequence[str], best: BestStates, states: InitialStates) -> Figure:
    """Draw the held-out loss of each voice over the steps, dashed that of the base, and the size of each layer's state.

    Args:
        voices: Names of the voices.
        best: What was measured; there may be nothing.
        states: The states.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
    """
    require("figures", "tuning_figure", "matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_losses(left, voices, best)
    _draw_sizes(right, voices, states)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_losses(axes: Axes, voices: Sequence[str], best: BestStates) -> None:
    axes.set(xlabel="optimizer steps", ylabel="held-out loss, nats per target", title="tuned, and untuned (dashed)")
    if not best.curve:
        axes.text(0.5, 0.5, "no held-out data", transform=axes.transAxes, ha="center", va="center", color="gray")
        return
    steps, *curves = zip(*best.curve, strict=True)
    for number, (name, losses) in enumerate(zip(voices, curves, strict=True)):
        color = f"C{number % 10}"
        # the base is where every curve starts
        axes.plot([0, *steps], [best.untuned[number], *losses], "-o", markersize=3, color=color, label=name)
        axes.axhline(best.untuned[number], linestyle="--", linewidth=1, color=color)
        axes.axhline(best.losses[number], linestyle=":", linewidth=1, color=color)
    if len(voices) <= _MOST_NAMES:
        axes.legend(frameon=False)


def _draw_sizes(axes: Axes, voices: Sequence[str], states: InitialStates) -> None:
    layers = list(states.shapes)
    axes.set(ylabel="norm of the state", title="what was learnt, by layer")
    for number, (name, norms) in enumerate(zip(voices, states.norms(), strict=True)):
        axes.plot(range(len(layers)), norms.numpy(), "-o", markersize=4, color=f"C{number % 10}", label=name)
    axes.set_xticks(range(len(layers)), layers, rotation=0 if len(layers) <= _MOST_NAMES else 90, fontsize="small")
    axes.set_ylim(bottom=0)
