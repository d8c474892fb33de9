"""LossHistory: what SAA remembers of each unlabelled sample, and which samples are naive by it; plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, check_number, check_share, problem
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.saa.functional import LOG_FLOOR, naive_flags, otsu_threshold, update_history

__all__ = ["LossHistory", "Threshold"]

Threshold = Literal["otsu", "otsu-log"] | str | float | Callable[[Tensor], float]

STATE_VERSION = 1
CLIP_QUANTILE = 0.995  # of the losses, for Otsu: some hundred huge ones (a divergence) would flag everything else


class LossHistory:
    """The recent consistency loss h of each unlabelled sample, and the flags that follow from it.

    Everything lies on the CPU: what a step gives is brought here once per period. `flags` is one tensor for life, in
    shared memory, so that worker processes which hold it see what is written into it.

    Args:
        n: Number of unlabelled samples, N.
        decay: Weight of the past in h, in [0, 1).
        threshold: Where to cut: "otsu" (of the losses), "otsu-log" (of their logarithms), "quantile:0.5" (half of the
            recorded samples), a number of nats, or a function of the finite losses that returns one.
        min_coverage: Share of the samples that must have a loss before any is flagged, in [0, 1].

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Attributes:
        losses: h, NaN where nothing is recorded. Shape (N,), dtype float64.
        visits: How often each sample was recorded. Shape (N,), dtype int32.
        confident: Whether the last pseudo-label was confident. Shape (N,), dtype bool.
        flags: Which samples are naive. Shape (N,), dtype bool.
        threshold: The last cut, nats; NaN before the first.
    """

    def __init__(
        self, n: int, *, decay: float = 0.001, threshold: Threshold = "otsu", min_coverage: float = 0.95
    ) -> None:
        self.n = check_integer("n", n, "Pass the number of unlabelled samples.", minimum=1)
        self.decay = check_decay(decay)
        self.rule = check_threshold(threshold)
        self.min_coverage = check_share("min_coverage", min_coverage, "Pass 0.95.")
        self.losses = torch.full((n,), math.nan, dtype=torch.float64)
        self.visits = torch.zeros(n, dtype=torch.int32)
        self.confident = torch.zeros(n, dtype=torch.bool)
        self.flags: Tensor = torch.zeros(n, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]
        self.threshold = math.nan

    @property
    def coverage(self) -> float:
        """Share of the samples with a loss."""
        return float((self.visits > 0).float().mean())

    @property
    def naive_share(self) -> float:
        """Share of the samples that are flagged."""
        return float(self.flags.float().mean())

    def record(self, index: Tensor, losses: Tensor, confident: Tensor | None = None) -> None:
        """Record what one step of all ranks gave.

        Args:
            index: Unlabelled samples, 0 <= i < N. Shape (B,), dtype int64.
            losses: Their consistency losses; those that are not finite are left out. Shape (B,), floating point.
            confident: Whether their pseudo-labels were confident. Shape (B,), dtype bool.

        Raises:
            ValueError: If an index lies outside.
        """
        index, losses = index.detach().cpu(), losses.detach().cpu()
        outside = index[(index < 0) | (index >= self.n)]
        if len(outside):
            remedy = "Return the row of the unlabelled data set, and pass the number of its rows."
            raise ValueError(problem("index", f"from 0 to {self.n - 1}", int(outside[0]), remedy))
        update_history(self.losses, index, losses, self.decay)
        usable = torch.isfinite(losses)
        self.visits.index_add_(0, index[usable], torch.ones(int(usable.sum()), dtype=torch.int32))
        if confident is not None:  # confident once in the step is enough, in whatever order they stand
            flags = confident.cpu()
            self.confident[index] = False
            self.confident[index[flags]] = True

    def select(self, *, require_confident: bool = False) -> bool:
        """Flag the samples whose h lies below the cut; nothing changes while too few have one, or all are equal.

        Args:
            require_confident: Flag only samples whose last pseudo-label was confident.

        Returns:
            Whether there was a cut.
        """
        recorded = self.losses[torch.isfinite(self.losses)]
        if len(recorded) == 0 or self.coverage < self.min_coverage or bool(recorded.min() == recorded.max()):
            return False
        self.threshold = self._cut(recorded)
        flags = naive_flags(self.losses, self.threshold, self.flags)
        self.flags.copy_(flags & self.confident if require_confident else flags)
        return True

    def _cut(self, losses: Tensor) -> float:
        if callable(self.rule):
            return _finite(self.rule(losses.clone()))
        if not isinstance(self.rule, str):
            return float(self.rule)
        if self.rule == "otsu":
            return float(otsu_threshold(losses, clip_quantile=CLIP_QUANTILE))
        if self.rule == "otsu-log":
            return float(10 ** otsu_threshold(losses.clamp(min=LOG_FLOOR).log10(), clip_quantile=CLIP_QUANTILE))
        return float(torch.quantile(losses, float(self.rule.removeprefix("quantile:"))))

    # -- state ----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return a plain state with a version."""
        tensors = ("losses", "visits", "confident", "flags")
        values = {name: getattr(self, name).clone() for name in tensors}
        return with_version({"n": self.n, "threshold": self.threshold, **values}, STATE_VERSION)

    @reading_state("LossHistory")
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If it is of another number of samples, or its version is unknown.
        """
        read_version(state, STATE_VERSION, "LossHistory")
        if state["n"] != self.n:
            remedy = "Resume with the unlabelled data of the saved run, or start anew from its weights."
            raise ValueError(problem("n_unlabeled", f"{state['n']}, as in the saved run", self.n, remedy))
        for name in ("losses", "visits", "confident", "flags"):
            getattr(self, name).copy_(torch.as_tensor(state[name]))  # in place: workers hold the flags
        self.threshold = state["threshold"]


def check_decay(decay: Any) -> float:
    """Check the weight of the past, a number in [0, 1)."""
    return check_number("history_decay", decay, "[0, 1)", "Pass 0.001, as the authors' code does.")


def check_threshold(threshold: Any) -> str | float | Callable[[Tensor], float]:
    """Check a rule for the cut; numbers that came as text (from YAML) become numbers."""
    if callable(threshold) or threshold in ("otsu", "otsu-log"):
        return threshold  # type: ignore[no-any-return]
    text = threshold if isinstance(threshold, str) else ""
    quantile = _number(text.removeprefix("quantile:")) if text.startswith("quantile:") else math.nan
    if 0 < quantile < 1:
        return f"quantile:{quantile}"
    nats = _number(threshold)
    if 0 < nats < math.inf:
        return nats
    allowed = "'otsu', 'otsu-log', 'quantile:q' with q in (0, 1), a number of nats > 0, or a function of the losses"
    raise ValueError(problem("threshold", allowed, threshold, "Pass 'otsu', as the authors do."))


def _number(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _finite(value: Any) -> float:
    cut = float(value)
    if not math.isfinite(cut):
        raise ValueError(problem("threshold", "a function that returns a finite number", cut, "Mend the function."))
    return cut
