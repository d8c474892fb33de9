"""Schedules given as functions of the step: find where their shape ends by trying them out, and compress them."""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["CompressedLambda", "End", "find_ends", "keyword_end"]

Shape = Callable[[int], float]

_POINTS = 20_000  # values looked at in the first pass
_UNDERFLOW = 1e-100  # an exponential that has come so far down has no end of its own
_NOTHING = 1e-12  # of the peak; what a cosine leaves at its end


@dataclass(frozen=True)
class End:
    """A step at which a schedule comes to an end, or does something that the run must not miss.

    Attributes:
        step: Scheduler steps.
        rule: "exact": the run must end here; "reach": it must come so far, and may go on; "settle": the same, unless
            the schedule was never meant to come so far; "change": it must go on for longer, with the same exception.
        also: Other steps at which the run may end just as well.
        every: The run may also end any whole number of these later; 0 for no repetition.
        raises: Whether the schedule raises when it is stepped beyond.
    """

    step: int
    rule: Literal["exact", "reach", "settle", "change"]
    also: tuple[int, ...] = ()
    every: int = 0
    raises: bool = False

    def near(self, steps: int) -> int:
        """Return the allowed end next to a number of steps.

        Args:
            steps: Scheduler steps.

        Returns:
            Scheduler steps.
        """
        repeats = max(0, round((steps - self.step) / self.every)) if self.every else 0
        return min((self.step + repeats * self.every, *self.also), key=lambda end: abs(end - steps))


def keyword_end(function: Any) -> int | None:
    """Return the length written into a `functools.partial`, as in the schedules of `transformers`.

    Args:
        function: Anything callable.

    Returns:
        Steps, or None when there is no such keyword.
    """
    keywords = getattr(function, "keywords", None) or {}
    if keywords.get("num_training_steps"):
        return int(keywords["num_training_steps"])
    parts = [keywords.get(f"num_{part}_steps") for part in ("warmup", "stable", "decay")]
    return None if None in parts else int(sum(parts))  # type: ignore[arg-type]


def find_ends(function: Any, now: int, without: int, *, product: bool = False) -> list[End]:
    """Find the ends of a schedule by evaluating it.

    An end is where it reaches zero, where it turns upwards after its descent, where it stops to change, where it raises
    (a table that is used up), or where it changes for the first time. Exponentials and the like have none. It is called
    some 20,000 times; callable objects are copied first, so that what they count stays as it is.

    Args:
        function: Takes the number of scheduler steps, returns a factor.
        now: Scheduler steps of the run.
        without: Scheduler steps of the run as it was before its length was changed.
        product: Whether the schedule is the running product of the factors (MultiplicativeLR).

    Returns:
        The ends, none where the shape tells nothing.
    """
    reach = max(2 * max(now, without), _POINTS)
    own = _own_copy(function)
    shape: Shape = lambda step: float(own(step))  # noqa: E731
    if product:
        if reach > 10 * _POINTS:  # a product has no shortcut
            return []
        shape = _Product(shape)
    stride = max(1, reach // _POINTS)
    values, error = _evaluate(shape, range(0, reach + 1, stride))
    ends = []
    if error is not None:
        if isinstance(error, (IndexError, KeyError, ValueError, AssertionError)) and values:
            last = _last(lambda step: _works(shape, step), (len(values) - 1) * stride, len(values) * stride)
            return [End(last, "exact", raises=True)]
        if not values:
            return []
    peak = max(abs(value) for value in values)
    if peak == 0 or not all(map(math.isfinite, values)):
        return []
    start = values[0]
    changed = next((i for i, value in enumerate(values) if value != start), None)
    if changed is None:
        return []
    first = 1 + _last(lambda step: shape(step) == start, (changed - 1) * stride, changed * stride)
    if first > 1:
        ends.append(End(first, "change"))
    if not any(0 < abs(value) < _UNDERFLOW * peak for value in values):
        ends.extend(_end_of_shape(shape, values, stride, peak, now))
    return ends


def _end_of_shape(shape: Shape, values: list[float], stride: int, peak: float, now: int) -> list[End]:
    top = next(i for i, value in enumerate(values) if value >= max(values) - 1e-6 * peak)
    zero = next((i for i in range(top + 1, len(values)) if values[i] <= 0), None)
    lows = _lows(values, top, peak)
    rule: Literal["exact", "settle"] = "settle" if sum(low * stride <= now for low in lows) > 1 else "exact"  # cycles
    if zero is not None:
        return [End(1 + _last(lambda step: shape(step) > 0, (zero - 1) * stride, zero * stride), rule)]
    steady = len(values) - 1
    while steady and values[steady - 1] == values[-1]:
        steady -= 1
    if steady < len(values) - 1:
        moving = _last(lambda step: shape(step) != values[-1], (steady - 1) * stride, steady * stride)
        return [End(moving + 1, "exact" if abs(values[-1]) <= _NOTHING * peak else "settle")]
    if lows:
        around = range((lows[0] - 1) * stride, (lows[0] + 1) * stride + 1)
        return [End(min(around, key=shape), rule)]
    return [End(top * stride, "settle")] if 0 < top < len(values) - 1 else []


def _lows(values: list[float], top: int, peak: float) -> list[int]:
    """Return the places from which the values rise again by more than a hundredth of the peak."""
    lows, turn, falling = [], top, True  # `turn`: the lowest place of a fall, the highest of a rise
    for place in range(top, len(values)):
        change = values[place] - values[turn]
        if (change < 0) == falling and change != 0:
            turn = place
        elif abs(change) > 0.01 * peak:
            if falling:
                lows.append(turn)
            turn, falling = place, not falling
    return [low for low in lows if low > top]


def _last(holds: Callable[[int], bool], first: int, end: int) -> int:
    """Return the last step in [first, end) for which a condition holds that holds at `first` and not at `end`."""
    while end - first > 1:
        middle = (first + end) // 2
        first, end = (middle, end) if holds(middle) else (first, middle)
    return first


def _evaluate(shape: Shape, steps: range) -> tuple[list[float], Exception | None]:
    values: list[float] = []
    try:
        for step in steps:
            values.append(shape(step))  # noqa: PERF401  # what came before an error is needed, too
    except Exception as error:  # the user's function may raise anything beyond its end
        return values, error
    return values, None


def _works(shape: Shape, step: int) -> bool:
    return _evaluate(shape, range(step, step + 1))[1] is None


def _own_copy(function: Any) -> Any:
    """Return a copy where the function is an object with a state of its own, which trying it out must not change.

    Not of a bound method: its object may be the module, with all parameters.
    """
    inner = getattr(function, "func", function)  # of a functools.partial
    if isinstance(inner, (types.FunctionType, types.MethodType)):
        return function
    try:
        return copy.deepcopy(function)
    except Exception:  # whatever a user's object raises
        return function


class _Product:
    """The running product of factors, from step 1 on, as MultiplicativeLR forms it."""

    def __init__(self, function: Shape) -> None:
        self.function = function
        self.values = [1.0]

    def __call__(self, step: int) -> float:
        while len(self.values) <= step:
            self.values.append(self.values[-1] * self.function(len(self.values)))
        return self.values[step]


class CompressedLambda:
    """A schedule function run through faster, or slower: step t is step t * old // new of the user's function.

    LambdaLR saves the `__dict__` of callable objects and restores it into whatever function the resumed run starts
    with, so this one shows the user's.

    Args:
        function: The user's function.
        old: Steps that the shape took.
        new: Steps that it takes now.
        product: Whether the schedule is the running product of the factors (MultiplicativeLR).
    """

    __slots__ = ("function", "new", "old", "product")

    def __init__(self, function: Any, old: int, new: int, product: bool = False) -> None:
        self.function = function
        self.old = old
        self.new = new
        self.product = product

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        is_plain = isinstance(self.function, types.FunctionType)
        state: dict[str, Any] = {} if is_plain else getattr(self.function, "__dict__", {})
        return state

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.old, self.new, self.product)

    def __call__(self, step: int) -> Any:
        """Return the factor for a number of scheduler steps.

        Args:
            step: Scheduler steps.

        Returns:
            What the user's function returns for the step that takes its place.
        """
        place = step * self.old // self.new
        if not self.product:
            return self.function(place)
        factors = [self.function(between) for between in range((step - 1) * self.old // self.new + 1, place + 1)]
        return math.prod(factors)
