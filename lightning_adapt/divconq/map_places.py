"""Room on a picture: dots that do not hide each other, names that cover neither dots nor other names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["dodge", "place_labels", "stack_labels"]

Floats = npt.NDArray[np.float64]
_CELL = 3.0  # points (1/72 inch) per side of the cells that are free or taken
_REACH = 24.0  # points from a label to what it names; farther away it would seem to name something else
_ROUNDS, _STEPS = 6, 10  # of moving dots apart; the pairs that are close are looked up once a round


def dodge(points: Floats, apart: float) -> Floats:
    """Move points that lie on each other apart, by little steps, until each can be seen.

    Args:
        points: Shape (n, 2).
        apart: The distance wanted between any two, in the same unit; in a crowd it may be less in the end.

    Returns:
        The points after the moves. Shape (n, 2).
    """
    moved = np.array(points)
    for _ in range(_ROUNDS):
        one, other = _close_pairs(moved, 3 * apart)
        for _ in range(_STEPS):
            away = moved[one] - moved[other]
            angle = one * 2.4  # no direction of their own: any will do
            lengths = np.hypot(*away.T)
            away = np.where(lengths[:, None] > 0, away, np.stack([np.cos(angle), np.sin(angle)], axis=1))
            away *= (0.5 * np.maximum(apart - lengths, 0.0) / np.maximum(np.hypot(*away.T), 1e-12))[:, None]
            for axis in (0, 1):
                push = np.bincount(one, away[:, axis], len(moved)) - np.bincount(other, away[:, axis], len(moved))
                moved[:, axis] += np.clip(0.5 * push, -apart, apart)
    return moved


def _close_pairs(points: Floats, distance: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the pairs nearer than a distance, the lower position second."""
    found = []
    for place in range(1, len(points)):
        near = np.flatnonzero(np.hypot(*(points[:place] - points[place]).T) < distance)
        found.append(np.stack([np.full(len(near), place), near]))
    pairs = np.concatenate(found, axis=1) if found else np.zeros((2, 0), dtype=np.int64)
    return pairs[0], pairs[1]


def place_labels(
    points: Floats, groups: Sequence[Floats], sizes: Sequence[tuple[float, float]], box: tuple[float, float]
) -> list[tuple[float, float] | None]:
    """Find a place for the label of each group, as near to it as there is room; earlier groups choose first.

    Args:
        points: What may not be covered, in points (1/72 inch) from the lower left corner. Shape (n, 2).
        groups: Of each label the points that it names. Each of shape (m, 2), m >= 1.
        sizes: Width and height of each label, in points.
        box: Width and height of the picture, in points.

    Returns:
        The middle of each label; None where there is no room nearby.
    """
    width, height = (max(1, int(side / _CELL)) for side in box)
    taken = np.zeros((width + 1, height + 1), dtype=np.int64)
    cells = np.clip((points / _CELL).astype(np.int64), 0, [width, height])
    for dx in (-1, 0, 1):  # a point is wider than a cell
        for dy in (-1, 0, 1):
            taken[np.clip(cells[:, 0] + dx, 0, width), np.clip(cells[:, 1] + dy, 0, height)] = 1
    places: list[tuple[float, float] | None] = []
    for group, size in zip(groups, sizes, strict=True):
        across, up = (int(np.ceil(side / _CELL)) + 1 for side in size)
        corners = _free(taken, across, up)
        half = np.array([across, up]) / 2
        gaps = _gaps((corners + half) * _CELL, half * _CELL, group)
        if not np.isfinite(gaps).any():
            places.append(None)
            continue
        x, y = corners[gaps.argmin()]
        taken[x : x + across, y : y + up] = 1
        places.append((float(x + half[0]) * _CELL, float(y + half[1]) * _CELL))
    return places


def _free(taken: npt.NDArray[np.int64], across: int, up: int) -> npt.NDArray[np.int64]:
    """Return the lower left cells of all rectangles with nothing in them. Shape (m, 2)."""
    if across >= taken.shape[0] or up >= taken.shape[1]:
        return np.zeros((0, 2), dtype=np.int64)
    sums = np.pad(taken.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[across:, up:] - sums[:-across, up:] - sums[across:, :-up] + sums[:-across, :-up]
    return np.argwhere(inside == 0)


def _gaps(middles: Floats, half: Floats, group: Floats) -> Floats:
    """Return how far each rectangle is from a group, its middle counting a little; infinite where it is too far."""
    centre = np.median(group, axis=0)
    some = group[:: max(1, len(group) // 40)]
    away = np.abs(middles[:, None] - some[None]) - half
    nearest = np.hypot(*np.maximum(away, 0.0).transpose(2, 0, 1)).min(axis=1)
    return np.where(nearest <= _REACH, nearest + 0.3 * np.hypot(*(middles - centre).T), np.inf)


def stack_labels(heights: Sequence[float], gap: float) -> Floats:
    """Move labels on one vertical line apart, each as little as possible up or down.

    Args:
        heights: Where the labels should be, in any unit. Shape (n,).
        gap: The least distance between two, in the same unit.

    Returns:
        Where they are without overlap, in the order given. Shape (n,).
    """
    order = np.argsort(heights, kind="stable")
    wanted = np.asarray(heights, dtype=np.float64)[order]
    steps = gap * np.arange(len(wanted))
    pushed_up = np.maximum.accumulate(wanted - steps) + steps
    pushed_down = np.minimum.accumulate((wanted - steps)[::-1])[::-1] + steps
    moved = np.empty_like(wanted)
    moved[order] = (pushed_up + pushed_down) / 2
    return moved
