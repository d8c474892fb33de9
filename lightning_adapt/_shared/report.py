"""The demo's page: an overview and a screen per method, written as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lightning_adapt._shared.figures import save_figure
from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report_document import document
from lightning_adapt._shared.report_parts import Finding, Picture, Section
from lightning_adapt._shared.report_section import anchor, badge, section_html
from lightning_adapt._shared.report_style import SCHEMES

__all__ = ["write_page"]

_KINDS = {
    "ours": "the method of this package",
    "control": "a simpler explanation of the gain, trained the same way",
    "baseline": "what you have without it",
}
_RESULTS = {"better": "gained", "level": "no clear gain", "worse": "lost"}
_HEADS = ("method", "measured", "without it", "with it", "difference", "what was not gained")


def write_page(sections: Sequence[Section], out: Path, *, facts: str = "", missing: Sequence[str] = ()) -> Path:
    """Write `index.html` and the files that it shows, each of them whole or not at all.

    Args:
        sections: What was found, in the order of the page.
        out: Folder; made when it is not there. Files of the same name are replaced, others stay.
        facts: One line on the machine and versions.
        missing: A line for each method that did not run, saying why.

    Returns:
        Path of `index.html`.

    Raises:
        ModuleNotFoundError: If a section has figures and matplotlib is missing; names the extra.
    """
    out.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for picture in section.pictures:
            _draw(picture, out, section.method)
        for sound in section.audio:
            with whole_file(out / f"{section.method}-{sound.name}.wav") as unfinished:
                unfinished.write_bytes(sound.wav)
    page = out / "index.html"
    with whole_file(page) as unfinished:
        unfinished.write_text(page_html(sections, facts, missing), encoding="utf-8")
    return page


def _draw(picture: Picture, out: Path, method: str) -> None:
    require("figures", "The demo's page", "matplotlib")
    import matplotlib as mpl

    for scheme, settings in SCHEMES.items():
        with mpl.rc_context(settings):
            save_figure(picture.draw(), out / f"{method}-{picture.name}-{scheme}.svg")


def page_html(sections: Sequence[Section], facts: str = "", missing: Sequence[str] = ()) -> str:
    """Return the page; the files that it shows lie beside it.

    Args:
        sections: What was found, in the order of the page.
        facts: One line on the machine and versions.
        missing: A line for each method that did not run, saying why.

    Returns:
        HTML.
    """
    links = "".join(f'<li><a href="#{anchor(one)}">{escape(one.short_title)}</a></li>' for one in sections)
    gaps = "".join(f"<li>{escape(line)}</li>" for line in missing)
    not_run = f'<section aria-labelledby="not-run"><h2 id="not-run">Not run</h2><ul>{gaps}</ul></section>'
    header = f"""<h1>lightning_adapt: what each method gains, and what it does not</h1>
<p>Each method was trained on this machine for this page, beside what you would use without it and beside the simpler
explanations of its gain. Every number below was measured in that run.</p>
<p class="facts">{escape(facts)}</p>"""
    nav = f'<nav aria-label="Methods"><ul><li><a href="#overview">Overview</a></li>{links}</ul></nav>'
    only = f" --only {escape(sections[0].method)}" if len(sections) == 1 and not missing else ""
    footer = (
        "<p>Small runs show direction, not precision: a spread (±) is the standard deviation over a few seeds. Run it\n"
        f"again: <code>lightning-adapt demo{only}</code></p>"
    )
    main = _overview(sections) + "".join(map(section_html, sections)) + (not_run if missing else "")
    return document("lightning_adapt demo", header, main, footer, nav=nav)


# -- the overview -----------------------------------------------------------------------------------------------------
def _overview(sections: Sequence[Section]) -> str:
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    rows = "".join(_line(section, finding) for section in sections for finding in section.findings)
    kinds = "".join(f"<dt>{badge(kind)}</dt><dd>{escape(text)}</dd>" for kind, text in _KINDS.items())
    return f"""<section class="overview" aria-labelledby="overview">
<h2 id="overview">Overview</h2>
<div class="scroll" role="region" aria-labelledby="overview-table" tabindex="0">
<table role="table">
<caption id="overview-table">Each method against its baseline: what was gained, and what was not</caption>
<thead><tr>{heads}</tr></thead>
<tbody>{rows}</tbody></table>
</div>
<h3>Kinds of rows in the tables below</h3>
<dl class="kinds">{kinds}</dl>
</section>
"""


def _line(section: Section, finding: Finding) -> str:
    score = finding.score
    words = f'<span class="badge {score.result}">{_RESULTS[score.result]}</span>'
    name = f'<th scope="row" role="rowheader"><a href="#{anchor(section)}">{escape(section.short_title)}</a></th>'
    cells = (
        escape(score.measure),
        f'<span class="number">{escape(score.without)}</span> <span class="soft">{escape(score.baseline)}</span>',
        f'<span class="number ours">{escape(score.ours)}</span>',
        f"{words} {escape(score.change)}",
        escape(score.but),
    )
    # phones show a line as a card and each cell with its heading; the roles stay those of a table
    shown = "".join(
        f'<td role="cell" data-head="{head}">{cell}</td>' for head, cell in zip(_HEADS[1:], cells, strict=True)
    )
    return f'<tr role="row">{name}{shown}</tr>\n'
