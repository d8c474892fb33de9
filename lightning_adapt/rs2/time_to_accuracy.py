"""TimeToAccuracy: how many seconds a run needed until a metric first reached each target."""

# Over 300 lines: one public class and its hooks; clock, readings and figure are in files of their own.

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from rich.table import Table
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import check_choice, check_flag, problem
from lightning_adapt._shared.collectives import from_rank_zero
from lightning_adapt._shared.figures import log_figure
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.rs2.reached import (
    Mode,
    Point,
    Reached,
    at_point,
    check_name,
    check_targets,
    first_reached,
    plain_number,
    reached_table,
    reaches,
)
from lightning_adapt.rs2.stopwatch import PHASES, Stopwatch
from lightning_adapt.rs2.time_figure import time_figure

__all__ = ["TimeToAccuracy"]

STATE_VERSION = 1


class TimeToAccuracy(Callback):
    """Measure how many seconds a run needed until a metric first reached each target.

    The seconds from `on_train_start` to `on_train_end` are split into "train" (with the wait for data), "evaluation"
    (between the first and last validation hook) and "selection", the choice of data: what was spent on it before the
    fit, what callbacks report in an attribute `selection_seconds: float` that counts up (with what it holds when
    training starts), and what passes under `selecting()`. Selection is taken out of the train seconds. Set-up, sanity
    check, `validate`, `test` and `predict` are charged to nobody; starting the workers of validation loaders that are
    not persistent is charged to training, because it comes before the first validation hook.

    A target is reached at the first reading that is at least as good; nothing is interpolated, NaN reaches nothing.
    The metric is read after validation, or, when only training logs it, at the end of each epoch. Training does not
    change. A resumed run goes on from the saved seconds, also in the middle of an epoch; the time between runs is not
    counted. With several processes clock and metric of rank zero decide on all ranks. On a GPU the clock waits for the
    device where validation begins and ends, not in each step. It logs `time_to/<monitor>/<target>`, the total seconds.

    .. tip:: Instances with different `monitor` or `mode` can be used together.

    Args:
        monitor: Name of the logged metric.
        targets: The values to reach, one or several.
        mode: "max": larger is better; "min": smaller is better.
        selection_seconds: Seconds spent on choosing data before the fit.
        enabled: False to switch the callback off.
        log_figure: Log a figure of metric and seconds at the end of `fit` (extra `figures`).
        verbose: Print `table()` at the end of `fit`.

    Attributes:
        curve: Readings (step, train, evaluation, selection, value, epoch) in the order of time.
        seconds_to: Target to None (never) or a dict with the seconds in "train", "evaluation", "selection" and
            "total", "step" and "epoch". Of the last run; read it in the process that trained ("ddp_spawn" and
            "ddp_fork" train in others).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        MisconfigurationException: In `fit`, when neither validation nor training has logged the metric.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> clock = TimeToAccuracy("val_accuracy", [0.8, 0.9])
        >>> trainer = Trainer(max_epochs=20, callbacks=[clock], logger=False)
        >>> clock.seconds_to
        {0.8: None, 0.9: None}
    """

    def __init__(
        self,
        monitor: str,
        targets: Sequence[float] | float,
        mode: Mode = "max",
        *,
        selection_seconds: float = 0.0,
        enabled: bool = True,
        log_figure: bool = False,
        verbose: bool = False,
    ) -> None:
        self.monitor = check_name(monitor)
        self.targets = check_targets(targets)
        self.mode: Mode = check_choice("mode", mode, ("max", "min"), "Use 'max' for accuracies, 'min' for losses.")  # type: ignore[assignment]
        self.enabled = check_flag("enabled", enabled, "Pass False to switch the callback off.")
        self.log_figure = check_flag("log_figure", log_figure, "Pass True to log the figure.")
        self.verbose = check_flag("verbose", verbose, "Pass True to print the table.")
        self._selection_seconds = selection_seconds
        self._begin()
        self._owed: dict[str, Any] | None = None  # end of a train epoch whose value has not come yet
        self._before: Any = None  # the metric as the last validation found it
        self._taken: Any = None  # the metric as it was last read from training
        self._fitting = self._fitted = False  # whether it measures now, and whether it ever did
        self._stage: str | None = None

    def _begin(self, since_last_run: float = 0.0) -> None:
        """Begin anew; seconds of `selecting` between two runs belong to the second."""
        self.curve: list[Point] = []
        self.seconds_to: dict[float, Reached | None] = first_reached([], self.targets, self.mode)
        self._watch = Stopwatch(self._selection_seconds)
        self._watch.seconds["selection"] += since_last_run
        self._counted = 0.0  # of the selection, when the last run ended
        self._source: Literal["validation", "train"] | None = None  # who logs the metric; None: not known yet
        self._undecided: list[Point] = []  # read from training before it was known whether validation logs it, too

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far in "train", "evaluation" and "selection"."""
        return self._watch.read()

    def table(self) -> Table:
        """Return the result as a rich table.

        Returns:
            A row per target: seconds in all and by kind, step and epoch, or "never".
        """
        return reached_table(self.seconds_to, self.monitor, self.mode)

    # -- the clock ------------------------------------------------------------------------------------------------
    def selecting(self) -> AbstractContextManager[None]:
        """Charge what runs inside to the selection, wherever it is called.

        Returns:
            A context manager.
        """
        return self._watch.switched_to("selection") if self.enabled else nullcontext()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stage = stage
        if stage == "fit" and self._fitted and trainer.global_step == 0:  # another run; a checkpoint comes after this
            self._begin(self.seconds["selection"] - self._counted)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stage = None
        self._stop()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._fitting:
            self._watch.stop()
            self._counted = self.seconds["selection"]
        self._fitting = False

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled:
            return
        self._owed = self._before = self._taken = None
        others = [each for each in trainer.callbacks if not isinstance(each, TimeToAccuracy)]  # type: ignore[attr-defined]
        self._watch.start(others, trainer.strategy.root_device)
        self._fitting = self._fitted = True

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fitting:
            self._before = trainer.callback_metrics.get(self.monitor)
            self._watch.switch("evaluation")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._fitting:
            return
        self._watch.switch("train")
        point = self._read(trainer, self._newer_than(self._before, trainer))
        if point is not None:
            self._source, self._undecided = "validation", []
            self._add(trainer, point)
        elif self._source is None:
            self._source = "train"
            self._settle(trainer)

    # -- a metric that training logs ------------------------------------------------------------------------------
    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fitting and self._source != "validation":
            self._owed = self._now(trainer)
            self._read_train_epoch(trainer)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_chance(trainer)

    def _last_chance(self, trainer: Trainer) -> None:
        """Read what the module logged in its own `on_train_epoch_end`, which runs after ours."""
        if not self._fitting or self._owed is None:
            return
        self._read_train_epoch(trainer)
        self._owed = None
        if self._source == "train" and not self.curve:
            names = ", ".join(sorted(map(str, trainer.callback_metrics))) or "none"
            remedy = "Log it with `self.log` in the validation step, or pass one of these names."
            message = problem("monitor", f"a logged metric (there are: {names})", self.monitor, remedy)
            raise MisconfigurationException(message)

    def _read_train_epoch(self, trainer: Trainer) -> None:
        point = self._read(trainer, self._newer_than(self._taken, trainer), self._owed)
        if point is None:
            return
        self._owed, self._taken = None, trainer.callback_metrics.get(self.monitor)
        self._undecided.append(point)
        if self._source == "train" or not trainer.enable_validation:
            self._settle(trainer)

    def _settle(self, trainer: Trainer) -> None:
        """Training logs the metric: what was read of it counts."""
        points, self._undecided = self._undecided, []
        for point in points:
            self._add(trainer, point)

    # -- readings -------------------------------------------------------------------------------------------------
    def _newer_than(self, old: Tensor | None, trainer: Trainer) -> Tensor | None:
        """Return the metric unless it is the old one: the Trainer keeps the last value of every metric."""
        value = trainer.callback_metrics.get(self.monitor)
        return None if value is old else value

    def _now(self, trainer: Trainer) -> dict[str, Any]:
        return {"step": trainer.global_step, "epoch": trainer.current_epoch, **self._watch.read()}

    def _read(self, trainer: Trainer, value: Tensor | None, when: dict[str, Any] | None = None) -> Point | None:
        """Return the reading of rank zero, whose clock the others take over; None when the metric has not come."""
        number = None if value is None else plain_number(value)
        when, number = self._agree(trainer, (when or self._now(trainer), number))
        return None if number is None else Point(**when, value=number)

    def _agree(self, trainer: Trainer, mine: Any) -> Any:
        state = (self._watch.read(), self._watch.reported, mine)
        self._watch.seconds, self._watch.reported, agreed = from_rank_zero(trainer, state)
        return agreed

    def _add(self, trainer: Trainer, point: Point) -> None:
        self.curve.append(point)
        for target, cost in self.seconds_to.items():
            if cost is None and reaches(point.value, target, self.mode):
                self.seconds_to[target] = at_point(point)
                for logger in trainer.loggers if trainer.is_global_zero else ():
                    name = f"time_to/{self.monitor}/{target:.15g}"
                    logger.log_metrics({name: point.total}, step=trainer.global_step)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._fitting:
            return
        self._last_chance(trainer)
        self._settle(trainer)
        self._watch.switch(None)
        self._stop()
        self._agree(trainer, None)
        if not self.curve:
            rank_zero_warn(f"TimeToAccuracy has measured nothing: `{self.monitor}` was never logged in this run.")
        if not trainer.is_global_zero:
            return
        if self.verbose:
            Console().print(self.table())
        if self.log_figure and self.curve and not compat.is_dev_run(trainer):
            figure = time_figure(self.curve, self.targets, self.monitor, self.mode)
            log_figure(trainer, f"time_to/{self.monitor}", figure, step=trainer.global_step)

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        return with_version(
            {
                "seconds": self.seconds,  # with what the running kind has so far
                "reported": dict(self._watch.reported),
                "source": self._source,
                "curve": [list(point) for point in self.curve],
                "undecided": [list(point) for point in self._undecided],
            },
            STATE_VERSION,
        )

    @override
    @reading_state("TimeToAccuracy")
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, "TimeToAccuracy")
        if self._fitted and self._stage not in (None, "fit"):
            return  # `trainer.test(ckpt_path="best")` must not take back what came after that checkpoint
        self._watch.seconds = {phase: float(state_dict["seconds"][phase]) for phase in PHASES}
        self._watch.reported = dict(state_dict["reported"])
        self._source = state_dict["source"]
        self.curve = [Point(*point) for point in state_dict["curve"]]
        self._undecided = [Point(*point) for point in state_dict["undecided"]]
        self.seconds_to = first_reached(self.curve, self.targets, self.mode)
