"""The pictures of a run: the weight of each cluster over the rounds, and a map of the pool with the selection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require
from lightning_adapt.divconq.layout import FloatArray, Rows, plane
from lightning_adapt.divconq.map_places import dodge, place_labels, stack_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["map_figure", "plane", "weights_figure"]

_NAMED = 4  # clusters with the largest and the smallest final weight that are named
_LEAST = 1e-6  # weights below are drawn here: a cluster that was dropped must not squeeze all others into one line
_LINE = 0.075  # height of a line of text, as a share of the axes of the weights
_SIZE = (7.0, 5.2)  # of the map, inches
_LEGEND = 0.08  # share of its height
_APART = 4.2  # between two dots, points: copies of a row are seen beside each other
_NAMED_ON_MAP = 24
_LETTERS = 9.0  # height of the names on the map, points
_DOTS = 500  # more are drawn as pixels: thousands of shapes would make a page many megabytes
# told apart on white and on dark ground, and neighbours on the map get different ones
_COLOURS = (
    "#3a86d9",
    "#e8722a",
    "#2fa05a",
    "#9a62cf",
    "#d9a514",
    "#d5508f",
    "#18a3a8",
    "#a5673f",
    "#d94a44",
    "#7d8fa6",
)


# -- weights -----------------------------------------------------------------------------------------------------------
def weights_figure(weights: Sequence[Tensor | Sequence[float]], titles: Sequence[str] | None = None) -> Figure:
    """Draw the weight of each cluster in each round.

    Clusters that gained weight have solid lines in the first colour of the scheme, those that lost have dashed ones in
    the second; after one round, they are those above and below the mean. The four largest and the four smallest at the
    end are named at their lines.

    Args:
        weights: Weights of the clusters in each round, at least one round. Each of shape (K,), sum 1.
        titles: Short names of the clusters, such as the beginning of a text; numbers when left out.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
        ValueError: If there are no weights.
    """
    require("figures", "weights_figure", "matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    table = np.array([torch.as_tensor(row, dtype=torch.float64).numpy() for row in weights])
    if table.size == 0:
        remedy = "Use a method with clusters."
        raise ValueError(problem("weights", "those of at least one round and cluster", table.shape, remedy))
    names = [f"{cluster}" if titles is None else f"{cluster}: {titles[cluster]}" for cluster in range(table.shape[1])]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    gains = table[-1] >= (table[0] if len(table) > 1 else table.mean())
    title = f"{len(names)} clusters: {gains.sum()} gained (solid), {(~gains).sum()} lost (dashed)"
    axes.set(xlabel="round", ylabel="weight of the cluster", yscale="log", title=title)
    _draw_weights(axes, np.maximum(table, _LEAST), gains, names)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_weights(axes: Axes, table: npt.NDArray[np.float64], gains: npt.NDArray[np.bool_], names: list[str]) -> None:
    last = table[-1]
    order = np.argsort(-last, kind="stable").tolist()
    named = [cluster for place, cluster in enumerate(order) if min(place, len(order) - 1 - place) < _NAMED]
    for cluster in order:
        kind: dict[str, Any] = {"linestyle": "-"} if gains[cluster] else {"linestyle": (0, (4, 2))}
        colour = "C0" if gains[cluster] else "C1"
        if cluster in named:
            marker = "o" if gains[cluster] else "v"
            kind |= {"linewidth": 1.8, "color": colour, "marker": marker, "markersize": 4}
        else:
            kind |= {"linewidth": 0.8, "color": _pale(colour), "zorder": 1}
        axes.plot(np.arange(len(table)), table[:, cluster], label=names[cluster], **kind)
    low, high = np.log10(table.min()), np.log10(table.max())
    margin = 0.06 * (high - low) + 0.01
    axes.set_ylim(10 ** (low - margin), 10 ** (high + margin))
    shares = (np.log10(last[named]) - low + margin) / (high - low + 2 * margin)
    for cluster, share, moved in zip(named, shares, stack_labels(shares, _LINE), strict=True):
        colour = "C0" if gains[cluster] else "C1"
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
        axes.annotate(
            _drawable(names[cluster]),
            (1 - 1 / 22, share),  # the last round, with the margin that matplotlib leaves beside it
            (1.04, moved),
            xycoords="axes fraction",
            color=colour,
            fontsize="small",
            va="center",
            arrowprops=line,
            parse_math=False,
        )


# -- map ---------------------------------------------------------------------------------------------------------------
def map_figure(
    coordinates: FloatArray, labels: Rows | None, selected: Rows, titles: Sequence[str] | None = None
) -> Figure:
    """Draw the pool: clusters in colour, pale where a row is not selected; outlines mark the selection.

    Dots that would hide each other are moved a little apart. The axes have no unit and are left out.

    Args:
        coordinates: From `plane`; NaN for rows that are not shown. Shape (n, 2).
        labels: Cluster of each row, or None. Shape (n,), dtype int64, at least 0.
        selected: Rows that were chosen. Shape (b,), dtype int64.
        titles: Short names of the clusters; the largest are written on the map where they cover no point.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
    """
    require("figures", "map_figure", "matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    chosen = np.zeros(len(coordinates), dtype=bool)
    chosen[np.asarray(selected)] = True
    shown = np.flatnonzero(np.isfinite(coordinates).all(axis=1))
    places, flags = dodge(_fitted(coordinates[shown]), _APART), chosen[shown]
    groups = np.zeros(len(shown), dtype=np.int64) if labels is None else np.asarray(labels)[shown]
    colours = _colours(places, groups)
    figure = Figure(figsize=_SIZE)
    axes: Axes = figure.add_axes((0.0, _LEGEND, 1.0, 1 - _LEGEND))
    axes.set(xlim=(0, _box()[0]), ylim=(0, _box()[1]), aspect="equal")
    axes.axis("off")
    dots: dict[str, Any] = {"rasterized": len(shown) > _DOTS}
    pale = [_pale(colour) for colour in colours[~flags]]
    dots |= {"x": places[~flags, 0], "y": places[~flags, 1], "label": _count("not selected", ~flags, ~chosen)}
    axes.scatter(**dots, s=16, c=pale, linewidths=0)
    dots |= {"x": places[flags, 0], "y": places[flags, 1], "label": _count("selected", flags, chosen)}
    axes.scatter(**dots, s=26, c=list(colours[flags]), linewidths=0.9, edgecolors=mpl.rcParams["text.color"])
    if titles is not None and labels is not None:
        _name_clusters(axes, places, groups, titles)
    legend: Any = figure.legend(loc="lower center", ncols=2, frameon=False, handletextpad=0.2)
    for handle, colour in zip(legend.legend_handles, (_pale("0.5"), "0.5"), strict=True):
        handle.set(facecolor=colour)
    return figure


def _count(name: str, shown: npt.NDArray[np.bool_], rows: npt.NDArray[np.bool_]) -> str:
    if shown.sum() == rows.sum():
        return f"{name} ({rows.sum():,})"
    return f"{name} ({shown.sum():,} of {rows.sum():,} shown)"


def _box() -> tuple[float, float]:
    """Return width and height of the map's axes, in points."""
    return 72 * _SIZE[0], 72 * _SIZE[1] * (1 - _LEGEND)


def _fitted(places: FloatArray) -> npt.NDArray[np.float64]:
    """Scale places to the axes, in points: equal in both directions, in the middle, with a margin."""
    if not len(places):
        return np.zeros((0, 2))
    low, high = places.min(axis=0).astype(np.float64), places.max(axis=0).astype(np.float64)
    room = np.array(_box())
    margin = 26.0
    scale = ((room - 2 * margin) / np.maximum(high - low, 1e-12)).min()
    scale = 1.0 if high.tolist() == low.tolist() else scale
    return np.asarray((places - (low + high) / 2) * scale + room / 2)


def _colours(places: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    """Return a colour for each row, of its cluster: clusters of the same colour are far apart."""
    clusters, which, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    middles = np.stack([np.bincount(which, axis) for axis in places.T], axis=1) / sizes[:, None]
    nearest = np.full((len(_COLOURS), len(clusters)), np.inf)  # of each colour, its nearest cluster so far
    given = np.zeros(len(clusters), dtype=np.int64)
    for cluster in np.argsort(-sizes, kind="stable"):
        given[cluster] = nearest[:, cluster].argmax()
        away = np.hypot(*(middles - middles[cluster]).T)
        nearest[given[cluster]] = np.minimum(nearest[given[cluster]], away)
    return np.array(_COLOURS)[given][which]


def _name_clusters(
    axes: Axes, places: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], titles: Sequence[str]
) -> None:
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    clusters, sizes = np.unique(groups, return_counts=True)
    largest = clusters[np.argsort(-sizes, kind="stable")[:_NAMED_ON_MAP]].tolist()
    named = [(cluster, name) for cluster in largest if (name := _drawable(titles[cluster]))]
    font = FontProperties(size=_LETTERS)
    widths = [TextPath((0, 0), name, size=_LETTERS, prop=font).get_extents().width for _, name in named]
    members = [places[groups == cluster] for cluster, _ in named]
    found = place_labels(places, members, [(width + 2, _LETTERS + 2) for width in widths], _box())
    for (_, name), points, width, middle in zip(named, members, widths, found, strict=True):
        if middle is None:
            continue
        near = points[np.hypot(*(points - middle).T).argmin()]
        half = np.array([width / 2, _LETTERS / 2])
        edge = np.clip(near, middle - half, middle + half)
        if np.hypot(*(near - edge)) > _LETTERS:
            axes.plot(*zip(edge, near, strict=True), color=rcParams["axes.edgecolor"], linewidth=0.6, zorder=0.5)
        axes.text(*middle, name, fontsize=_LETTERS, ha="center", va="center", parse_math=False)


# -- both --------------------------------------------------------------------------------------------------------------
def _pale(colour: str) -> tuple[float, ...]:
    """Mix a colour with the ground it is drawn on; unlike transparency, the same where things overlap."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgb

    ground = to_rgb(mpl.rcParams["axes.facecolor"])
    return tuple(0.42 * ours + 0.58 * theirs for ours, theirs in zip(to_rgb(colour), ground, strict=True))


def _drawable(text: str) -> str:
    """Leave out what the font has no letter for: matplotlib would warn and draw boxes."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    letters = get_font(findfont(FontProperties())).get_charmap()
    return " ".join("".join(letter for letter in text if letter.isspace() or ord(letter) in letters).split())
