"""Pictures of speech: where in the text the attention was at each moment, and the waveform below it."""

# ruff: noqa: N803  # suffixes name the dimensions
# N audio frames, M text tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lightning_adapt._shared.checks import check_positive, problem
from lightning_adapt._shared.imports import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["alignment_figure"]

_MOST_LABELS = 60  # tokens with a name of their own beside the axis
_POINTS = 1500  # of a waveform: more are not seen


def alignment_figure(
    alignment_NM: Tensor,
    labels: Sequence[str] | None = None,
    *,
    frame_rate_hz: float | None = None,
    audio: Tensor | None = None,
    sample_rate_hz: int | None = None,
    title: str = "",
) -> Figure:
    """Draw attention weights over text and time, and under them the waveform, if there is one.

    Args:
        alignment_NM: Attention of each frame over the text. Shape (N, M), N and M at least 1.
        labels: Name of each text token, such as its character; numbers when left out. Length M.
        frame_rate_hz: Frames per second, for an axis in seconds; in frames when left out.
        audio: Samples of the same stretch of time. Shape (S,).
        sample_rate_hz: Samples per second; needed with `audio`.
        title: Title of the figure, such as the text.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
        ValueError: If shapes do not fit, or a rate is missing.
    """
    require("figures", "alignment_figure", "matplotlib")
    from matplotlib.figure import Figure

    if alignment_NM.ndim != 2 or alignment_NM.numel() == 0:
        remedy = "Pass the alignment of one stream of at least one frame."
        raise ValueError(problem("alignment_NM", "of shape (N, M)", tuple(alignment_NM.shape), remedy))
    n_frames, n_tokens = alignment_NM.shape
    if labels is not None and len(labels) != n_tokens:
        raise ValueError(problem("labels", f"one per text token ({n_tokens})", len(labels), "Pass None for numbers."))
    rate = 1.0 if frame_rate_hz is None else check_positive("frame_rate_hz", frame_rate_hz, "Pass that of the codec.")
    figure = Figure(figsize=(7.0, 4.6 if audio is not None else 3.6), layout="constrained")
    seconds = n_frames / rate
    if audio is None:
        axes = figure.subplots()
    else:
        axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        _draw_wave(below, audio, check_positive("sample_rate_hz", sample_rate_hz or 0, "Pass that of the codec."))
        below.set_xlabel("seconds" if frame_rate_hz is not None else "frames")
    weights = alignment_NM.detach().float().cpu().numpy().T
    extent = (0.0, seconds, -0.5, n_tokens - 0.5)
    image = axes.imshow(weights, origin="lower", aspect="auto", interpolation="nearest", vmin=0.0, extent=extent)
    figure.colorbar(image, ax=axes, label="attention", pad=0.01)
    if audio is None:
        axes.set_xlabel("seconds" if frame_rate_hz is not None else "frames")
    _name_tokens(axes, labels, n_tokens)
    if title:
        axes.set_title(_short(title), fontsize="medium", parse_math=False)
    return figure


def _name_tokens(axes: Axes, labels: Sequence[str] | None, n_tokens: int) -> None:
    if labels is None or n_tokens > _MOST_LABELS:
        axes.set_ylabel("text token")
        return
    size = 8.0 if n_tokens <= 30 else 5.0
    # an invisible space would leave a gap that looks like a mistake
    names = ["\N{OPEN BOX}" if label == " " else label for label in labels]
    axes.set_yticks(range(n_tokens), names, fontsize=size, parse_math=False)
    axes.set_ylabel("text")


def _draw_wave(axes: Axes, audio: Tensor, rate: float) -> None:
    samples = audio.detach().float().cpu().numpy()
    size = max(1, -(-len(samples) // _POINTS))
    padded = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    times = (np.arange(len(padded)) + 0.5) * size / rate
    axes.fill_between(times, padded.min(1, initial=0.0), padded.max(1, initial=0.0), linewidth=0.3)
    axes.set(ylim=(-1.0, 1.0), yticks=())
    axes.set_ylabel("audio")


def _short(text: str, limit: int = 80) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."
