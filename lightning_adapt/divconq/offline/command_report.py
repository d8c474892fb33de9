"""The page of `lightning-adapt select`: what was chosen, from where, what was left out, as one HTML file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from lightning_adapt._shared.report_document import Part, document, inline_picture, section, table
from lightning_adapt._shared.report_parts import Picture
from lightning_adapt.divconq.figures import map_figure, plane
from lightning_adapt.divconq.offline.command_figures import lengths_figure, sizes_figure
from lightning_adapt.divconq.offline.file_pool import Pool

__all__ = ["Findings", "page"]

_CHOSEN, _CLUSTERS, _EXAMPLES, _LEFT_OUT = 10, 10, 2, 5
_SHOWN_CHARACTERS = 180
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_WORD = re.compile(r"[^\W\d_]{4,14}")  # short ones are mostly the glue of a sentence
_EXCESS = 0.2  # share of a cluster's prompts that have a word, beyond the share of all: below, it says little


@dataclass(frozen=True)
class Findings:
    """What the page shows.

    Attributes:
        name: Name of the input.
        pool: The pool.
        usable: Rows that were looked at: those with a response. Ascending, int64.
        duplicates: Rows left out as copies. Ascending, int64.
        chosen: Chosen rows. Ascending, int64.
        labels: Cluster of each usable row; None: there are no clusters.
        vectors: Vector of each usable row, shape (len(usable), D); None: nothing was embedded.
        summary: Pairs of a name and a value: counts and settings.
        notes: What the user should know.
        facts: Versions, one line.
    """

    name: str
    pool: Pool
    usable: npt.NDArray[np.int64]
    duplicates: npt.NDArray[np.int64]
    chosen: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64] | None
    vectors: npt.NDArray[np.float32] | None
    summary: Sequence[tuple[str, str]]
    notes: Sequence[str]
    facts: str

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Positions of the chosen rows among the usable ones."""
        return np.searchsorted(self.usable, self.chosen)


def page(found: Findings) -> str:
    """Return the page; the same selection gives the same text.

    Args:
        found: What to show.

    Returns:
        HTML that loads nothing from elsewhere.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
    """
    parts = [_overview(found), _chosen(found)]
    if found.vectors is not None and len(found.usable) > 1:
        parts.append(_map(found, found.vectors))
    if found.labels is not None:
        parts.append(_clusters(found, found.labels))
    parts += [_lengths(found), _left_out(found)]
    links = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in parts)
    header = f"""<h1>{len(found.chosen):,} of {len(found.pool.keys):,} rows of {escape(found.name)}</h1>
<p>Chosen by <code>lightning-adapt select</code>. Row numbers count from 0.</p>
<p class="facts">{escape(found.facts)}</p>
<nav aria-label="Parts"><ul>{links}</ul></nav>"""
    footer = "<p>Texts on this page are examples from the data.</p>"
    title = f"Selection from {found.name}"
    return document(title, header, "".join(map(section, parts)), footer, skip="Skip to the selection", closed=True)


def _overview(found: Findings) -> Part:
    notes = "".join(f'<p class="verdict">{escape(note)}</p>' for note in found.notes)
    return Part("overview", "What was chosen", table("summary", "Summary", ("what", "value"), found.summary) + notes)


def _chosen(found: Findings) -> Part:
    places = np.unique(np.linspace(0, len(found.chosen) - 1, _CHOSEN).astype(np.int64))  # evenly over the file
    texts = found.pool.texts
    lines = [
        (f"{row:,}", _short(texts.prompt(row)), _short(texts.response(row))) for row in found.chosen[places].tolist()
    ]
    caption = f"{len(lines)} of the {len(found.chosen):,} chosen rows, evenly over the file"
    return Part("chosen", "Chosen rows", table("some", caption, ("row", "prompt", "response"), lines))


def _map(found: Findings, vectors: npt.NDArray[np.float32]) -> Part:
    points = plane(vectors, labels=found.labels, selected=found.places)
    shown = np.isfinite(points[:, 0])
    names = None if found.labels is None else _names(found, found.labels, np.flatnonzero(shown))
    caption = "The pool, similar vectors close together (t-SNE); rows with an outline were chosen."
    if names is not None:
        caption += " A colour for each cluster, with its number and the words that it has more often than the others."
    if not shown.all():
        caption += " A part of the rows is shown, more of the chosen ones than of the others."
    alt = f"Rows as points: {shown.sum():,}, chosen ones: {shown[found.places].sum():,}."
    picture = Picture("map", caption, alt, lambda: map_figure(points, found.labels, found.places, names))
    return Part("map", "Map", inline_picture(picture))


def _names(found: Findings, labels: npt.NDArray[np.int64], some: npt.NDArray[np.int64]) -> list[str]:
    """Return the number of each cluster, with words that more of its prompts have than of all; from some rows."""
    words = [set(_WORD.findall(found.pool.texts.prompt(int(found.usable[place])).lower())) for place in some]
    everywhere = Counter(word for prompt in words for word in prompt)
    names = []
    for cluster in range(int(labels.max()) + 1):
        inside = [words[place] for place in np.flatnonzero(labels[some] == cluster)]
        counts = Counter(word for prompt in inside for word in prompt)
        excess = {word: count / len(inside) - everywhere[word] / len(words) for word, count in counts.items()}
        best = sorted((word for word in excess if excess[word] > _EXCESS), key=lambda word: (-excess[word], word))
        names.append(" ".join([f"{cluster}:", *best[:2]]) if best else str(cluster))
    return names


def _clusters(found: Findings, labels: npt.NDArray[np.int64]) -> Part:
    count = int(labels.max()) + 1
    sizes = np.bincount(labels, minlength=count)
    taken = np.bincount(labels[found.places], minlength=count)
    empty = int((taken == 0).sum())
    alt = f"Clusters: {count:,}, of {sizes.min():,} to {sizes.max():,} rows; without a chosen row: {empty:,}."
    caption = "Rows and chosen rows of every cluster, from the largest to the smallest."
    picture = Picture("sizes", caption, alt, lambda: sizes_figure(sizes, taken))
    lines = []
    for cluster in np.argsort(-sizes, kind="stable")[:_CLUSTERS]:
        inside = np.flatnonzero(labels == cluster)
        ours = inside[np.isin(inside, found.places)]
        shown = (ours if len(ours) else inside)[:_EXAMPLES]
        texts = [_short(found.pool.texts.prompt(int(found.usable[place]))) for place in shown]
        counts = (str(cluster), f"{sizes[cluster]:,}", f"{taken[cluster]:,}")
        lines.append((*counts, *texts, *[""] * (_EXAMPLES - len(texts))))
    heads = ("cluster", "rows", "chosen", *(f"example {number + 1}" for number in range(_EXAMPLES)))
    shown_table = table("examples", "Prompts of the largest clusters", heads, lines, (1, 2))
    return Part("clusters", "Clusters", inline_picture(picture) + shown_table)


def _lengths(found: Findings) -> Part:
    before = found.pool.lengths[found.usable].astype(np.int64)
    after = found.pool.lengths[found.chosen].astype(np.int64)
    rows = [
        (name, *(f"{value:,.0f}" for value in np.quantile(lengths, _QUANTILES)), f"{lengths.mean():,.0f}")
        for name, lengths in (("whole pool", before), ("chosen", after))
    ]
    alt = f"The middle response has {np.median(before):,.1f} characters in the pool, {np.median(after):,.1f} chosen."
    caption = "Lengths of the responses in the whole pool and in the selection."
    picture = Picture("lengths", caption, alt, lambda: lengths_figure(before, after))
    heads = ("rows", *(f"{quantile:.0%} are shorter" for quantile in _QUANTILES), "mean")
    numbers = table("quantiles", "Characters of the response", heads, rows, range(1, len(heads)))
    return Part("lengths", "Lengths of responses", inline_picture(picture) + numbers)


def _left_out(found: Findings) -> Part:
    empty = np.flatnonzero(found.pool.lengths == 0)
    kinds = (("response is empty", empty), ("copy of an earlier row", found.duplicates))
    lines = [
        (reason, f"{row:,}", _short(found.pool.texts.prompt(int(row))) or "(empty)")
        for reason, rows in kinds
        for row in rows[:_LEFT_OUT]
    ]
    counts = f"<p>Rows with an empty response: {len(empty):,}. Copies of earlier rows: {len(found.duplicates):,}.</p>"
    heads = ("reason", "row", "prompt")
    examples = table("left", "The first of each kind", heads, lines, (1,)) if lines else ""
    return Part("left-out", "Left out", counts + examples)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
