"""RunLength: the number of steps of a run, for a learning-rate schedule that must not ask for it too early."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["RunLength"]


class RunLength:
    """Asks for the length of a run when it is first needed, and again when the steps begin anew.

    They do after a batch size finder, whose trials have another length than the run.

    Args:
        ask: Returns the optimizer steps of the run, K > 0.

    Example:
        >>> length = RunLength(lambda: 100.0)
        >>> length.at(1)
        100.0
    """

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask = ask
        self._known: float | None = None
        self._last = 0

    def at(self, step: int) -> float:
        """Return the length of the run; `step` is the number of steps done, k."""
        if self._known is None or step < self._last or step == 1:  # a trial may be of one step
            self._known = self._ask()
        self._last = step
        return self._known
