"""LossGuide: what loss-guided rounds remember and draw; plain PyTorch, no Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import TypedDict

from lightning_adapt._shared.checks import check_fraction, check_integer, check_positive, check_share, problem
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.rs2.functional import loss_weights, most_owed
from lightning_adapt.rs2.population import Population, last_of_each, owed_after, spread

__all__ = ["LossGuide"]

STATE_VERSION = 1


class GuideOptions(TypedDict, total=False):
    """The arguments of `LossGuide`, for those who pass them on."""

    warm_rounds: float
    total_rounds: int | None
    power: float
    loss_cap: float
    uniform_mix: float


class _Plan(NamedTuple):
    made_for: tuple[int, int]  # round, version of the population
    order: Tensor | None  # what the round draws, positions 0..N-1 of the population; None: a plain round
    owed: Tensor | None  # the visits that each row of the data set is owed after it


class LossGuide:
    """The last training loss of each row, the visits each row is owed, and the rounds that follow from them.

    What is recorded in a round counts from the next one on, so that a round stays what it was, however often it is
    drawn and wherever inside it a run resumes.

    Args:
        warm_rounds: Plain rounds before losses guide: a share of `total_rounds` in (0, 1), or a whole number >= 1.
        total_rounds: Rounds of the whole run; needed where `warm_rounds` is a share.
        power: Exponent of the loss, > 0.
        loss_cap: Quantile at which losses are cut, in (0, 1]; 1 cuts nothing.
        uniform_mix: Share of the visits that are spread evenly, in [0, 1].

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        warm_rounds: float = 0.25,
        total_rounds: int | None = None,
        power: float = 1.0,
        loss_cap: float = 0.75,
        uniform_mix: float = 0.0,
    ) -> None:
        if total_rounds is not None:
            total_rounds = check_integer("total_rounds", total_rounds, "Pass the rounds of the run.", minimum=1)
        self.warm = _whole_rounds(check_warm_rounds(warm_rounds), total_rounds)
        self.power = check_positive("power", power, "Pass 1 to draw in proportion to the loss.")
        self.loss_cap = check_fraction("loss_cap", loss_cap, "Pass 0.75 to treat the highest quarter alike.")
        self.uniform_mix = check_share("uniform_mix", uniform_mix, "Pass 0 to draw by losses alone.")
        self.round = 0  # the running round; `losses` and `owed` are as they were at its beginning
        self.losses = torch.empty(0)  # of the rows of the data set, NaN where there is none
        self.owed: Tensor | None = None  # None before the first guided round
        self._fresh: list[tuple[Tensor, Tensor]] = []  # (rows, losses) recorded in the running round
        self._plan: _Plan | None = None

    # -- losses ---------------------------------------------------------------------------------------------------
    def record(self, rows: Tensor, losses: Tensor) -> None:
        """Note the losses of rows that were trained on in the running round.

        Args:
            rows: Rows of the data set. Shape (B,), dtype int64.
            losses: Their losses >= 0, on any device; what is not finite is left out. Shape (B,), floating point.

        Raises:
            ValueError: If the shapes differ, a loss is negative, or a row lies outside the data set.
        """
        losses = losses.detach().to("cpu", torch.float32)
        if losses.shape != rows.shape or losses.ndim != 1:
            shapes = f"{tuple(losses.shape)} for rows of shape {tuple(rows.shape)}"
            raise ValueError(problem("losses", "one number per row", shapes, "Use reduction='none'."))
        if bool((losses < 0).any()):
            remedy = "Record a loss that is 0 at best: add a constant, or take another measure of difficulty."
            raise ValueError(problem("losses", ">= 0", float(losses[losses < 0][0]), remedy))
        rows, n = rows.cpu(), len(self.losses)
        outside = rows[(rows < 0) | (rows >= n)]
        if len(outside):
            allowed = f"from 0 to {n - 1}, drawn in the running round" if n else "drawn before losses are recorded"
            raise ValueError(problem("rows", allowed, int(outside[0]), "Record the rows that the round hands out."))
        usable = torch.isfinite(losses)
        self._fresh.append((rows[usable], losses[usable]))

    def latest(self) -> Tensor:
        """Return the last loss of each row of the data set, those of the running round included; NaN: none yet."""
        losses = self.losses.clone()
        if self._fresh:
            rows, recorded = (torch.cat(parts) for parts in zip(*self._fresh, strict=True))
            last = last_of_each(rows)
            losses[rows[last]] = recorded[last]
        return losses

    def weights(self, losses: Tensor, targets: Tensor | None) -> Tensor:
        """Return `loss_weights` with this guide's arguments; shapes as there."""
        options = {"power": self.power, "loss_cap": self.loss_cap, "uniform_mix": self.uniform_mix}
        return loss_weights(losses, targets=targets, **options)

    def seen(self) -> int:
        """Return how many rows have a loss."""
        return int(torch.isfinite(self.latest()).sum())

    # -- rounds ---------------------------------------------------------------------------------------------------
    def round_order(self, epoch: int, version: int, population: Callable[[], Population]) -> Tensor | None:
        """Return what a round draws, and make it the running round unless it lies behind.

        Args:
            epoch: The round.
            version: Changes when the population does.
            population: Says what to draw from; asked once per round and version.

        Returns:
            Positions 0..N-1 of the population, shape (K,), dtype int64; None for a plain round.

        Raises:
            ValueError: If a guided round lies behind the running one: the losses have moved on.
        """
        if self._plan is None or self._plan.made_for != (epoch, version):
            if epoch < self.warm and epoch < self.round:
                return None
            if epoch < self.round:
                remedy = f"Draw rounds in order; round {self.round} is running."
                raise ValueError(problem("epoch", "a round whose losses are still known", epoch, remedy))
            self._plan = self._planned(epoch, version, population())
        return self._plan.order

    def _planned(self, epoch: int, version: int, population: Population) -> _Plan:
        """Return the plan of a round, the running one or the next; the same however often it is made."""
        if epoch > self.round:
            self._end_round(population)
            self.round = epoch
        self._make_room(population)
        if epoch < self.warm:
            return _Plan((epoch, version), None, None)
        if self.owed is None:
            self.owed = spread(owed_after(self.warm, population), torch.zeros(len(self.losses)), population)
        here = slice(None) if population.rows is None else population.rows
        weights = self.weights(self.losses[here], population.targets)
        order, after = most_owed(self.owed[here], weights, population.k, population.key, epoch)
        return _Plan((epoch, version), order, spread(after, self.owed, population))

    def _end_round(self, population: Population) -> None:
        """Count the visits and the losses of the running round, whose plan a resumed run may have to make again."""
        if self.owed is not None:
            plan = self._plan or self._planned(self.round, 0, population)
            self.owed = plan.owed
        self._make_room(population)
        self.losses, self._fresh = self.latest(), []

    def _make_room(self, population: Population) -> None:
        """Hold a loss for every row: those of a subset chosen anew may lie further back than before."""
        n = population.size if population.rows is None else int(population.rows.max()) + 1
        if population.rows is None and len(self.losses) > n:
            received = f"those of {len(self.losses)}"
            raise ValueError(problem("losses", f"those of the {n} rows", received, "The saved state is damaged."))
        missing = max(0, n - len(self.losses))
        self.losses = torch.cat([self.losses, torch.full((missing,), math.nan)])
        if self.owed is not None:
            self.owed = torch.cat([self.owed, torch.zeros(missing)])

    # -- resume ---------------------------------------------------------------------------------------------------
    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for the same losses to mean the same rounds; plain values."""
        return {"power": self.power, "loss cap": self.loss_cap, "uniform mix": self.uniform_mix}

    def state_dict(self) -> dict[str, Any]:
        """Return a plain state; copies, so that it stays what it is."""
        nothing = (torch.empty(0, dtype=torch.int64), torch.empty(0))
        fresh_rows, fresh_losses = zip(*(self._fresh or [nothing]), strict=True)
        state = {
            "round": self.round,
            "warm": self.warm,
            "losses": self.losses.clone(),
            "owed": None if self.owed is None else self.owed.clone(),
            "fresh rows": torch.cat(fresh_rows),
            "fresh losses": torch.cat(fresh_losses),
        }
        return with_version(state, STATE_VERSION)

    @reading_state("LossGuide")
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was taken; the number of plain rounds is that of the saved run.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If the version is unknown.
        """
        read_version(state, STATE_VERSION, "LossGuide")
        _check_saved(state)
        self.round, self.warm, self._plan = state["round"], state["warm"], None
        self.losses = state["losses"].cpu().clone()
        self.owed = None if state["owed"] is None else state["owed"].cpu().clone()
        self._fresh = [(state["fresh rows"].cpu(), state["fresh losses"].cpu())]


def _check_saved(state: dict[str, Any]) -> None:
    losses, owed, rows = state["losses"], state["owed"], state["fresh rows"]
    numbers = [losses, state["fresh losses"]] + ([] if owed is None else [owed])
    sound = all(one.dim() == 1 and one.is_floating_point() for one in numbers) and rows.dtype == torch.int64
    sound = sound and rows.shape == state["fresh losses"].shape and (owed is None or owed.shape == losses.shape)
    if not sound or bool(((rows < 0) | (rows >= len(losses))).any()):
        raise ValueError("The saved state of LossGuide is damaged: losses and rows do not fit. Use another checkpoint.")


def make_guide(options: GuideOptions, total_rounds: int | None, known: dict[str, Any] | None = None) -> LossGuide:
    """Make a guide once the length of the run is known.

    Args:
        options: The arguments of `LossGuide`.
        total_rounds: The one of that name.
        known: A state to go on from.

    Returns:
        The guide.
    """
    complete: GuideOptions = {**options, "total_rounds": total_rounds}
    guide = LossGuide(**complete)
    if known is not None:
        guide.load_state_dict(known)
    return guide


GUIDE_DEFAULTS: dict[str, Any] = {name: given.default for name, given in signature(LossGuide).parameters.items()}


def check_warm_rounds(value: Any) -> float | int:
    """Check `warm_rounds`: a share of the run in (0, 1), or a whole number of rounds >= 1.

    Args:
        value: What the user passed.

    Returns:
        The value.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    remedy = "Pass 0.25 for the first quarter of the run, or a whole number of rounds."
    if isinstance(value, float) and value >= 1 and value.is_integer():
        value = int(value)  # YAML and the command line turn 5 into 5.0
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        return check_integer("warm_rounds", value, remedy, minimum=1)
    return check_fraction("warm_rounds", value, remedy)


def _whole_rounds(warm_rounds: float | int, total_rounds: int | None) -> int:
    if isinstance(warm_rounds, int):
        return warm_rounds
    if total_rounds is None:
        remedy = "Pass it, or warm_rounds as a whole number of rounds."
        raise ValueError(problem("total_rounds", f"given where warm_rounds={warm_rounds} is a share", None, remedy))
    return max(1, round(warm_rounds * total_rounds))
