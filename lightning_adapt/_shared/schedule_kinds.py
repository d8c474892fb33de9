"""The schedules of PyTorch, simple and composed: where they end, their learning rate, and how to compress them.

A subclass counts as its base as long as it steps like it.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.optim import lr_scheduler as torch_schedules

from lightning_adapt._shared.schedule_lambdas import End
from lightning_adapt._shared.schedule_shapes import SIMPLE, Kind
from lightning_adapt._shared.state import read_version, with_version

__all__ = ["compress", "ends", "family", "foreign", "learning_rate", "mark", "steps_done", "wrap_again"]

MARK = "lightning_adapt_compressed"  # an attribute of the scheduler, so that its own state_dict keeps it
MARK_VERSION = 1
# SequentialLR and ChainedScheduler keep their parts under these names only
_PARTS = "_schedulers"
_MILESTONES = "_milestones"


# -- what every kind has ------------------------------------------------------------------------------------------
def ends(scheduler: Any, now: int, without: int) -> list[End]:
    """Return the steps that the schedule was built for.

    Args:
        scheduler: A scheduler of PyTorch.
        now: Scheduler steps of the run.
        without: Scheduler steps of the run as it was before its length was changed.

    Returns:
        The ends; none for kinds that have none (exponential, cyclic, warm restarts, plateau) and for unknown ones.
    """
    kind = _kind(scheduler)
    return [] if kind is None else [end for end in kind.ends(scheduler, now, without) if end.step > 0]


def learning_rate(scheduler: Any, step: int) -> float | None:
    """Return the learning rate of the first parameter group after some scheduler steps.

    Args:
        scheduler: A scheduler of PyTorch.
        step: Scheduler steps, >= 0.

    Returns:
        The learning rate, None where it is not known. For a ChainedScheduler the product of what its parts do.
    """
    kind = _kind(scheduler)
    try:
        return None if kind is None or kind.rate is None else float(kind.rate(scheduler, step))
    except (TypeError, ValueError, IndexError, KeyError, ArithmeticError):  # a part without rate; a user's function
        return None


def compress(scheduler: Any, old: int, new: int) -> None:
    """Change a schedule in place so that what took `old` scheduler steps takes `new`; for one that has not begun.

    Args:
        scheduler: A scheduler of PyTorch without `foreign` parts.
        old: Scheduler steps.
        new: Scheduler steps.
    """
    kind = _kind(scheduler)
    if kind is not None and kind.compress is not None:
        kind.compress(scheduler, old, new)
    setattr(scheduler, MARK, with_version({"old": old, "new": new}, MARK_VERSION))


def mark(scheduler: Any) -> int | None:
    """Return the length that a schedule was compressed to, by this run or by the one that it resumes.

    Args:
        scheduler: A scheduler.

    Returns:
        Scheduler steps, None if `compress` was never applied.
    """
    state = getattr(scheduler, MARK, None)
    if state is None:
        return None
    read_version(state, MARK_VERSION, "a compressed learning-rate schedule")
    return int(state["new"])


def wrap_again(scheduler: Any) -> None:
    """Compress the functions of a restored schedule again: numbers come out of a checkpoint, functions do not.

    Args:
        scheduler: A scheduler, restored or not.
    """
    for part in _parts(scheduler):
        if mark(part) is not None and hasattr(part, "lr_lambdas"):
            state, kind = getattr(part, MARK), _kind(part)
            if kind is not None and kind.compress is not None:
                kind.compress(part, state["old"], state["new"])


def foreign(scheduler: Any) -> list[str]:
    """Return the names of the classes, among a scheduler and its parts, whose shape is not known.

    Args:
        scheduler: A scheduler.

    Returns:
        Class names.
    """
    return [type(part).__name__ for part in _parts(scheduler) if _kind(part) is None]


def steps_done(scheduler: Any) -> int:
    """Return how many steps a scheduler has made.

    Args:
        scheduler: A scheduler.

    Returns:
        Scheduler steps; 0 where it is not known.
    """
    if "last_epoch" not in vars(scheduler) and _children(scheduler):  # ChainedScheduler keeps no count
        return max(steps_done(child) for child in _children(scheduler))
    return int(getattr(scheduler, "last_epoch", 0))


def family(scheduler: Any) -> str:
    """Return the name of a scheduler for a message, with its parts.

    Args:
        scheduler: A scheduler.

    Returns:
        For example "SequentialLR(LinearLR, CosineAnnealingLR)".
    """
    parts = ", ".join(family(child) for child in _children(scheduler))
    return type(scheduler).__name__ + (f"({parts})" if parts else "")


def _children(scheduler: Any) -> list[Any]:
    return list(getattr(scheduler, _PARTS, []))


def _parts(scheduler: Any) -> Iterator[Any]:
    yield scheduler
    for child in _children(scheduler):
        yield from _parts(child)


# -- composed schedules --------------------------------------------------------------------------------------------
def _sequential_ends(scheduler: Any, now: int, without: int) -> list[End]:
    milestones = list(getattr(scheduler, _MILESTONES))
    start = milestones[-1] if milestones else 0
    last = ends(_children(scheduler)[-1], max(now - start, 1), max(without - start, 1))
    shifted = []
    for end in last:
        # many write T_max=total beside a warm-up that comes before it: a short warm-up too long by design
        also = (end.step,) if end.rule == "exact" and not end.raises and 2 * start <= end.step else ()
        shifted.append(replace(end, step=start + end.step, also=also))
    if any(end.rule in ("exact", "reach") for end in shifted):
        return shifted
    return [*(End(milestone, "change") for milestone in milestones), *shifted]


def _chained_ends(scheduler: Any, now: int, without: int) -> list[End]:
    return [end for child in _children(scheduler) for end in ends(child, now, without)]


def _sequential_rate(scheduler: Any, step: int) -> Any:
    milestones = getattr(scheduler, _MILESTONES)
    place = bisect_right(milestones, step)
    return learning_rate(_children(scheduler)[place], step - (milestones[place - 1] if place else 0))


def _chained_rate(scheduler: Any, step: int) -> float:
    base = _children(scheduler)[0].base_lrs[0]
    return float(base * math.prod(learning_rate(child, step) / base for child in _children(scheduler)))


def _compress_sequential(scheduler: Any, old: int, new: int) -> None:
    milestones = list(getattr(scheduler, _MILESTONES))
    bounds, places = [0, *milestones, max([old, *milestones])], [0]
    for milestone in milestones:
        places.append(max(places[-1] + 1, round(milestone * new / old)))
    places.append(max(new, places[-1] + 1))
    spans = zip(itertools.pairwise(bounds), itertools.pairwise(places), strict=True)
    for child, ((first, end), (new_first, new_end)) in zip(_children(scheduler), spans, strict=True):
        compress(child, max(end - first, 1), new_end - new_first)
    setattr(scheduler, _MILESTONES, places[1:-1])


def _compress_chained(scheduler: Any, old: int, new: int) -> None:
    for child in _children(scheduler):
        compress(child, old, new)


_KINDS: dict[Any, Kind] = {
    **SIMPLE,
    torch_schedules.SequentialLR: Kind(_sequential_ends, _sequential_rate, _compress_sequential),
    torch_schedules.ChainedScheduler: Kind(_chained_ends, _chained_rate, _compress_chained),
}


def _kind(scheduler: Any) -> Kind | None:
    """Return what is known of a scheduler's class; a subclass that steps in its own way is not known."""
    own = type(scheduler)
    for base in own.__mro__:
        if base in _KINDS:
            same = all(getattr(own, name, None) is getattr(base, name, None) for name in ("step", "get_lr"))
            return _KINDS[base] if same else None
    return None
