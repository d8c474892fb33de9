"""Seconds of a run, split into training, evaluation and choosing data; knows no Trainer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from time import perf_counter
from typing import Any, Literal, TypeGuard

import torch

from lightning_adapt._shared.checks import check_number

__all__ = ["PHASES", "Phase", "Stopwatch", "growth"]

Phase = Literal["train", "evaluation", "selection"]

PHASES: tuple[Phase, ...] = ("train", "evaluation", "selection")
_REMEDY = "Pass the time that choosing the data took, or leave it out."


class Stopwatch:
    """Adds the seconds that pass to one of three kinds; it stands still until it is started or switched to one.

    Args:
        selection_seconds: Seconds of selection that it begins with.

    Attributes:
        seconds: Seconds of each kind, when last read.
        running: The kind that the seconds now passing belong to; None while it stands still.
        reported: Seconds of selection that each reporter had counted when last read.

    Raises:
        TypeError: If the seconds are no number.
        ValueError: If they are negative or not finite.
    """

    def __init__(self, selection_seconds: float = 0.0) -> None:
        begin = check_number("selection_seconds", selection_seconds, "[0, inf)", _REMEDY)
        self.seconds: dict[str, float] = {"train": 0.0, "evaluation": 0.0, "selection": begin}
        self.running: Phase | None = None
        self.reported: dict[str, float] = {}
        self._since = 0.0
        self._reporters: tuple[Any, ...] = ()
        self._device = torch.device("cpu")

    def start(self, reporters: Iterable[Any], device: torch.device) -> None:
        """Start with training.

        What the reporters have counted before only adds to the selection; from now on it is taken out of the kind that
        runs while it grows.

        Args:
            reporters: Objects with a `state_key` that may have a number `selection_seconds`, which counts up.
            device: The device whose work is waited for wherever the kind changes.
        """
        self.switch(None)
        self._reporters, self._device = tuple(reporters), device
        self.switch("train")

    def stop(self) -> None:
        """Stand still, and let go of reporters and device; does not wait for the device, which may have failed."""
        self.read()
        self.running = None
        self._reporters, self._device = (), torch.device("cpu")

    def switch(self, phase: Phase | None) -> Phase | None:
        """Charge what comes from now on to another kind.

        Args:
            phase: The kind; None to stand still.

        Returns:
            What was running before.
        """
        here = torch.accelerator.current_accelerator() if self._device.type != "cpu" else None
        if here is not None and here.type == self._device.type:
            torch.accelerator.synchronize(self._device)  # what it still computes belongs to what ends here
        self.read()
        before, self.running = self.running, phase
        return before

    @contextmanager
    def switched_to(self, phase: Phase) -> Iterator[None]:
        """Charge what runs inside to one kind, then go on as before.

        Args:
            phase: The kind.

        Yields:
            Nothing.
        """
        before = self.switch(phase)
        try:
            yield
        finally:
            self.switch(before)

    def read(self) -> dict[str, float]:
        """Return the seconds of each kind, those of the running one up to now.

        Returns:
            A copy.
        """
        now = perf_counter()
        if self.running is not None:
            self.seconds[self.running] += max(now - self._since, 0.0)  # a suspended virtual machine may turn it back
        self._since = now
        self._read_reports()
        return dict(self.seconds)

    def _read_reports(self) -> None:
        now: dict[str, float] = {}
        for reporter in self._reporters:
            seconds = getattr(reporter, "selection_seconds", None)
            if _is_number(seconds) and math.isfinite(seconds):  # others may mean something else by the name
                now[reporter.state_key] = now.get(reporter.state_key, 0.0) + float(seconds)
        grown = growth(self.reported, now)
        if self.running is not None:  # what it does not hold has passed while the watch stood still
            self.seconds[self.running] -= min(grown, self.seconds[self.running])
        self.seconds["selection"] += grown
        self.reported = {**self.reported, **now}


def growth(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """Return by how much counters have grown.

    Args:
        before: The counters as they were; a missing one was 0.
        now: The counters as they are. One that is smaller than before has started again from 0.

    Returns:
        The sum over the counters, >= 0.
    """
    grown = ((value, value - before.get(name, 0.0)) for name, value in now.items())
    return sum(value if difference < 0 else difference for value, difference in grown)


def _is_number(value: Any) -> TypeGuard[float]:
    return not isinstance(value, bool) and isinstance(value, Real)
