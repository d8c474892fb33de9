"""What the benchmark of voices claims, its tables and its figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import _harness as h
import _lina_voices_data as d
import _lina_voices_rows as w

OURS = w.RANK_4
STATES = (w.RANK_1, w.RANK_4, w.FULL_RANK)
COLUMNS = {
    "CE": ("loss", 3),
    "CE / untuned": ("ratio", 3),
    "SECS": ("SECS", 3),
    "digits": ("digits", 2),
    "ends": ("stopped", 2),
    "CE of other voices": ("others", 3),
    "seconds": ("seconds", 1),
}


def values(study: h.Study, person: str, method: str, key: str) -> list[float]:
    """Return what every seed gave; empty where there is no such value."""
    return [run[key] for run in study.runs(w.row_of(person, method)) if key in run]


def mean(study: h.Study, person: str, method: str, key: str) -> float | None:
    """Return the mean over the seeds; None if nothing was measured."""
    return h.mean_sd(values(study, person, method, key))[0]


def over_people(study: h.Study, people: Sequence[str], method: str, key: str) -> float | None:
    """Return the mean over the people of their means over the seeds; None if one is missing."""
    found = [mean(study, person, method, key) for person in people]
    known = [value for value in found if value is not None]
    return sum(known) / len(found) if found and len(known) == len(found) else None


# -- claims ------------------------------------------------------------------------------------------------------------
def check(study: h.Study, people: Sequence[str], bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims that have a bound, those of signs and those of what must not change."""
    claims = []
    for person in people:
        ratio = mean(study, person, OURS, "ratio")
        claims.append(h.at_most(f"{person}, {OURS}: CE over untuned", ratio, bounds["each"]))
        claims.append(below(f"{person}, {OURS}: CE minus that after a prompt", study, person))
    average = over_people(study, people, OURS, "ratio")
    claims.append(h.at_most(f"{OURS}: CE over untuned, mean of all people", average, bounds["mean"]))
    claims += _secs_claims(study, people, bounds)
    claims += _forgetting_claims(study, people)
    if "three" in bounds:
        found = [value for person in people for value in values(study, person, w.THREE, "ratio")]
        claims.append(h.at_most("three utterances: CE over untuned, worst", max(found, default=None), bounds["three"]))
    if "seconds" in bounds:
        claims.append(h.at_most("seconds of 60 steps, worst", _worst(study, w.SIXTY, "seconds"), bounds["seconds"]))
    text = "time of a token with a voice over without, worst seed"
    return [*claims, h.at_most(text, _worst(study, w.TOKEN, "ratio"), bounds["token"])]


def below(text: str, study: h.Study, person: str) -> h.Claim:
    """Claim that our loss is below that after one prompt, after three, and from a prompt kept as a voice."""
    ours = mean(study, person, OURS, "loss")
    theirs = [mean(study, person, method, "loss") for method in (w.PROMPT, w.PROMPTS, w.STORED)]
    known = [value for value in theirs if value is not None]
    gap = None if ours is None or len(known) < len(theirs) else ours - min(known)
    return h.Claim(f"{text} < 0", gap, gap is not None and gap < 0)


def _secs_claims(study: h.Study, people: Sequence[str], bounds: dict[str, float]) -> list[h.Claim]:
    if "SECS" not in bounds:
        return []
    claims = []
    ours, theirs = (over_people(study, people, method, "SECS") for method in (OURS, w.UNTUNED))
    gain = [] if ours is None or theirs is None else [ours - theirs]
    claims.append(h.at_least(f"{OURS}: SECS minus untuned, mean of all people", gain, bounds["SECS"]))
    if d.RECORDED in people:
        text = f"{d.RECORDED}, {OURS}: CE over untuned"
        claims.append(h.at_most(text, mean(study, d.RECORDED, OURS, "ratio"), bounds["real"]))
        ours, theirs = (mean(study, d.RECORDED, method, "SECS") for method in (OURS, w.UNTUNED))
        up = None if ours is None or theirs is None else ours - theirs
        claims.append(h.Claim(f"{d.RECORDED}, {OURS}: SECS minus untuned > 0", up, up is not None and up > 0))
    return claims


def _forgetting_claims(study: h.Study, people: Sequence[str]) -> list[h.Claim]:
    """Claim that the weights stay as they were under tuned states, and that fine-tuning makes the base worse."""
    same = [value for person in people for method in STATES for value in values(study, person, method, "unchanged")]
    share = sum(same) / len(same) if len(same) else None
    other = [value for person in people for method in STATES for value in values(study, person, method, "others")]
    worst = max((abs(value - 1.0) for value in other), default=None)
    forgot = over_people(study, people, w.FINE_TUNED, "others")
    return [
        h.Claim("states: share of tunings that left the weights as they were = 1", share, share == 1.0),
        h.Claim("states: change of the CE of other voices = 0", worst, worst == 0.0),
        h.Claim(f"{w.FINE_TUNED}: CE of other voices over before > 1", forgot, forgot is not None and forgot > 1.0),
    ]


def _worst(study: h.Study, row: str, key: str) -> float | None:
    return max((run[key] for run in study.runs(row)), default=None)


# -- tables ------------------------------------------------------------------------------------------------------------
def report(study: h.Study, people: Sequence[str]) -> None:
    """Print a table for each of the people, what was tuned, the curves, and the time of a token."""
    for person in people:
        lines = [[method, *_cells(study, person, method)] for method in w.METHODS if _has(study, person, method)]
        recorded = (
            mean(study, person, w.UNTUNED, "SECS of recordings"),
            mean(study, person, w.UNTUNED, "digits of recordings"),
        )
        shown = ", ".join(
            f"{name} {value:.3f}" for name, value in zip(("SECS", "digits"), recorded, strict=True) if value is not None
        )
        h.print_table(f"{person}; other recordings through the codec: {shown}", ["method", *COLUMNS], lines)
    sizes = [
        [method, *(h.show(values(study, people[0], method, key), 0) for key in ("parameters", "bytes"))]
        for method in w.METHODS
        if values(study, people[0], method, "bytes")
    ]
    h.print_table("What is kept of a voice", ["method", "numbers", "bytes"], sizes)
    prefix = f"{d.RECORDED}: "
    curves = [row for row in study.methods if row.startswith(prefix) and "minutes" in study.runs(row)[0]]
    lines = [
        [row.removeprefix(prefix), *(h.show(study.values(row, key), digits) for key, digits in CURVE_COLUMNS.items())]
        for row in curves
    ]
    if lines:
        h.print_table(f"{d.RECORDED}, less data and other ranks", ["method", *CURVE_COLUMNS], lines)
    keys = ("ratio", "without, ms", "with, ms", "start, ms")
    cells = [h.show(study.values(w.TOKEN, key), 3) for key in keys]
    h.print_table("A token, with a voice and without", ["row", *keys], [[w.TOKEN, *cells]])


CURVE_COLUMNS = {"minutes": 2, "loss": 3, "ratio": 3, "seconds": 1}


def _has(study: h.Study, person: str, method: str) -> bool:
    return bool(study.runs(w.row_of(person, method)))


def _cells(study: h.Study, person: str, method: str) -> list[str]:
    return [h.show(values(study, person, method, key), digits) for key, digits in COLUMNS.values()]


# -- figure ------------------------------------------------------------------------------------------------------------
def draw(study: h.Study, people: Sequence[str]) -> Any:
    """Draw loss and similarity of every person, and for the recorded one curves over data and rank."""
    from matplotlib.figure import Figure

    curves = d.RECORDED in people
    figure = Figure(figsize=(11, 7.5 if curves else 4), layout="constrained")
    axes = figure.subplots(2 if curves else 1, 2, squeeze=False)
    _bars(axes[0, 0], study, people, "ratio", "CE over untuned")
    axes[0, 0].axhline(1.0, color="0.5", linewidth=0.8)
    _bars(axes[0, 1], study, people, "SECS", "SECS")
    for place, person in enumerate(people):
        top = mean(study, person, w.UNTUNED, "SECS of recordings")
        if top is not None:
            axes[0, 1].hlines(top, place - 0.45, place + 0.45, color="black", linewidth=1)
    axes[0, 1].set_ylim(bottom=0.4)
    if curves:
        _data_curve(axes[1, 0], study)
        _rank_curve(axes[1, 1], study)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def _bars(axes: Any, study: h.Study, people: Sequence[str], key: str, label: str) -> None:
    methods = [one for one in w.METHODS if one != w.THREE and any(values(study, who, one, key) for who in people)]
    methods = [one for one in methods if not (key == "ratio" and one == w.UNTUNED)]
    width = 0.9 / max(1, len(methods))
    for place, method in enumerate(methods):
        heights = [mean(study, person, method, key) or 0.0 for person in people]
        at = [number - 0.45 + width * (place + 0.5) for number in range(len(people))]
        colour = f"C{w.METHODS.index(method)}"
        axes.bar(at, heights, width, label=method, color=colour)
        for x, person in zip(at, people, strict=True):
            found = values(study, person, method, key)
            axes.scatter([x] * len(found), found, s=4, color="black", zorder=3)
    axes.set_xticks(range(len(people)), [person.rsplit(":", 1)[-1] for person in people], fontsize=8)
    axes.set_ylabel(label)


def _data_curve(axes: Any, study: h.Study) -> None:
    for method in w.BY_DATA:
        points = []
        for row in study.methods:
            if row == w.row_of(d.RECORDED, method) or row.startswith(w.row_of(d.RECORDED, method) + ","):
                minutes = h.mean_sd([run.get("minutes", run.get("heard", 0.0)) for run in study.runs(row)])[0]
                points.append((minutes, h.mean_sd(study.values(row))[0]))
        if points:
            axes.plot(*zip(*sorted(points), strict=True), marker="o", color=f"C{w.METHODS.index(method)}")
    axes.set(xscale="log", xlabel="minutes of speech", ylabel=f"CE over untuned, {d.RECORDED}")
    _plain_ticks(axes, (0.25, 0.5, 1, 2, 3))


def _rank_curve(axes: Any, study: h.Study) -> None:
    points = []
    for row in study.methods:
        head = w.row_of(d.RECORDED, "states, rank ")
        if row.startswith(head) and "," not in row.removeprefix(head):
            points.append((int(row.removeprefix(head)), h.mean_sd(study.values(row))[0]))
    if points:
        axes.plot(*zip(*sorted(points), strict=True), marker="o", color="C5")
    full = mean(study, d.RECORDED, w.FULL_RANK, "ratio")
    if full is not None:
        axes.axhline(full, linestyle="--", color=f"C{w.METHODS.index(w.FULL_RANK)}")
    axes.set(xlabel="rank (dashed: full)", ylabel=f"CE over untuned, {d.RECORDED}", xscale="log")
    _plain_ticks(axes, (1, 2, 4, 8, 16))


def _plain_ticks(axes: Any, places: Sequence[float]) -> None:
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
