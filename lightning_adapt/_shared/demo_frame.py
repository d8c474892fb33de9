"""The frame that the demos of the methods share: rows trained in turn on equal seeds, and what their numbers say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from lightning_adapt._shared.report_parts import Cell, Kind, Result, Row

__all__ = ["Arm", "Context", "Gap", "compare", "nbsp", "one_thread", "over_seeds", "table_rows"]

_T = TypeVar("_T")
_T_QUANTILE = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # Student's t, 97.5 %, by the number of seeds


class Arm(NamedTuple):
    """A row of a table before it is trained.

    Args:
        name: Name for people.
        kind: "baseline", "control" or "ours".
    """

    name: str
    kind: Kind


class Context(Protocol):
    """What the demo of a method gets: a progress bar, and whether to run in the smallest form."""

    @property
    def quick(self) -> bool:
        """Run in seconds to show that it works; the numbers then mean little."""

    def start(self, total: int) -> None:
        """Begin the bar of this method, with the steps of all rows together."""

    def doing(self, what: str) -> None:
        """Say in a few words what the bar is at."""

    def advance(self, steps: int = 1) -> None:
        """Move the bar by the steps done since the last call."""


def compare(
    context: Context,
    arms: Mapping[str, Arm],
    seeds: Sequence[int],
    fit: Callable[[Any, str, int], _T],
    *,
    prepare: Callable[[int], Any] = lambda _: None,
    preparing: str = "",
    once: Sequence[str] = (),
) -> dict[str, list[_T]]:
    """Train every row on the same seeds, interleaved, so that a busy machine harms all rows alike.

    Args:
        context: Progress bar.
        arms: Rows by key.
        seeds: Seeds.
        fit: Trains one row; gets what `prepare` returned, the key and the seed.
        prepare: Makes what the rows of a seed share.
        preparing: What the bar says meanwhile.
        once: Rows that are trained on the first seed only.

    Returns:
        What `fit` returned, by key, a list over the seeds.
    """
    found: dict[str, list[_T]] = {key: [] for key in arms}
    with one_thread():
        for seed in seeds:
            if preparing:
                context.doing(f"{preparing}, seed {seed}")
            start = prepare(seed)
            for key in arms:
                if key in once and seed != seeds[0]:
                    continue
                context.doing(f"{arms[key].name}, seed {seed}")
                found[key].append(fit(start, key, seed))
    return found


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside: on nets this small a second one gains little, and loses much beside another program."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def table_rows(arms: Mapping[str, Arm], cells: Callable[[str], tuple[Cell | None, ...]]) -> tuple[Row, ...]:
    """Return the lines of a table.

    Args:
        arms: Rows by key.
        cells: Gives the numbers of a key.

    Returns:
        A line per row.
    """
    return tuple(Row(arm.name, arm.kind, cells(key)) for key, arm in arms.items())


def over_seeds(values: Sequence[float]) -> Cell:
    """Return mean and standard deviation.

    Args:
        values: A number per seed, at least one.

    Returns:
        A cell; without a spread after one seed.
    """
    return Cell(mean(values), stdev(values) if len(values) > 1 else None)


class Gap(NamedTuple):
    """Differences between two rows, paired by seed.

    Args:
        values: Ours less the other, per seed; at least two.
        digits: Digits to show.
        unit: Word after the number, such as "points".
        lower_is_better: Whether a negative difference is a gain.
    """

    values: tuple[float, ...]
    digits: int = 1
    unit: str = ""
    lower_is_better: bool = False

    @classmethod
    def between(cls, ours: Sequence[float], other: Sequence[float], *options: Any) -> Gap:
        """Return the gap of two rows.

        Args:
            ours: A number per seed.
            other: Likewise.
            options: Further arguments, in order.

        Returns:
            The gap.
        """
        return cls(tuple(one - against for one, against in zip(ours, other, strict=True)), *options)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean difference."""
        half = _T_QUANTILE[len(self.values)] * stdev(self.values) / len(self.values) ** 0.5
        return mean(self.values) - half, mean(self.values) + half

    @property
    def result(self) -> Result:
        """The word for it: "level" where the interval holds 0."""
        low, high = self.interval
        if low <= 0 <= high:
            return "level"
        return "better" if (high < 0) == self.lower_is_better else "worse"

    def against(self, other: str) -> str:
        """Return the result as words: "better than X (...)".

        Args:
            other: Name of the other row.

        Returns:
            Words with the difference and its interval.
        """
        words = {"better": "better than", "level": "not clearly different from", "worse": "worse than"}
        return f"{words[self.result]} {other} ({self})"

    def __str__(self) -> str:
        """The mean difference with its interval."""
        low, high = self.interval
        mid, low_text, high_text = (f"{value:+.{self.digits}f}" for value in (mean(self.values), low, high))
        unit = f" {self.unit}" if self.unit else ""
        return f"{mid}{unit}, 95 % interval {low_text} to {high_text}"


def nbsp(text: str) -> str:
    """Keep each number with its unit on one line.

    Args:
        text: A sentence with " %" and " s ".

    Returns:
        The same with no-break spaces.
    """
    space = "\N{NO-BREAK SPACE}"
    for unit in ("%", "points", "nats", "MB", "kB", "ms"):
        text = text.replace(f" {unit}", f"{space}{unit}")
    return text.replace(" s ", f"{space}s ")
