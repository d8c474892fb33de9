"""The demo's page: sections of tables, figures and audio, written as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lightning_adapt._shared.figures import save_figure
from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report_document import document
from lightning_adapt._shared.report_parts import Audio, Cell, Column, Kind, Picture, Row, Section, Table
from lightning_adapt._shared.report_style import SCHEMES

__all__ = ["Audio", "Cell", "Column", "Kind", "Picture", "Row", "Section", "Table", "write_page"]

_KINDS = {
    "ours": "the method of this package",
    "control": "a simpler explanation of the gain, trained the same way",
    "baseline": "what you have without it",
}


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
        unfinished.write_text(_page(sections, facts, missing), encoding="utf-8")
    return page


def _draw(picture: Picture, out: Path, method: str) -> None:
    require("figures", "The demo's page", "matplotlib")
    import matplotlib as mpl

    for scheme, settings in SCHEMES.items():
        with mpl.rc_context(settings):
            save_figure(picture.draw(), out / f"{method}-{picture.name}-{scheme}.svg")


def _page(sections: Sequence[Section], facts: str, missing: Sequence[str]) -> str:
    links = "".join(f'<li><a href="#{_id(section)}">{escape(section.title)}</a></li>' for section in sections)
    gaps = "".join(f"<li>{escape(line)}</li>" for line in missing)
    not_run = f'<section aria-labelledby="not-run"><h2 id="not-run">Not run</h2><ul>{gaps}</ul></section>'
    kinds = "".join(f"<dt>{_badge(kind)}</dt><dd>{escape(text)}</dd>" for kind, text in _KINDS.items())
    header = f"""<h1>lightning_adapt demo</h1>
<p>Each method of the package, trained on this machine a moment ago beside what you would use without it and beside the
simpler explanations of its gain. Every number below was measured in this run.</p>
<p class="facts">{escape(facts)}</p>
<nav aria-label="Methods"><ul>{links}</ul></nav>
<dl class="kinds">{kinds}</dl>"""
    footer = (
        "<p>Small runs show direction, not precision: a spread (±) is the standard deviation over a few seeds. Run it\n"
        "again: <code>lightning-adapt demo</code></p>"
    )
    main = "".join(map(_section, sections)) + (not_run if missing else "")
    return document("lightning_adapt demo", header, main, footer)


def _section(section: Section) -> str:
    usage = "".join(
        f'<h3>{escape(title)}</h3><pre tabindex="0" aria-label="{escape(title)}"><code>{escape(code)}</code></pre>'
        for title, code in section.usage
    )
    return f"""<section aria-labelledby="{_id(section)}">
<h2 id="{_id(section)}">{escape(section.title)}</h2>
<p class="problem">{escape(section.problem)}</p>
{"".join(_table(f"{_id(section)}-table-{number}", table) for number, table in enumerate(section.tables, 1))}
{"".join(_picture(section, picture) for picture in section.pictures)}
{"".join(_sound(section, sound) for sound in section.audio)}
<div class="usage">{usage}</div>
<p class="facts">This section took {section.seconds:.0f} s.</p>
</section>
"""


def _table(anchor: str, table: Table) -> str:
    heads = "".join(f'<th scope="col" class="number">{escape(column.heading)}</th>' for column in table.columns)
    lines = []
    for row in table.rows:
        cells = "".join(
            f'<td class="number">{escape(column.show(cell))}</td>'
            for column, cell in zip(table.columns, row.cells, strict=True)
        )
        name = f'<th scope="row">{escape(row.name)} {_badge(row.kind)}</th>'
        lines.append(f'<tr class="{escape(row.kind)}">{name}{cells}</tr>')
    return f"""<p class="setting">{escape(table.setting)}</p>
<div class="scroll" role="region" aria-labelledby="{anchor}" tabindex="0">
<table><caption id="{anchor}">{escape(table.caption)}</caption>
<thead><tr><th scope="col">trained (kind)</th>{heads}</tr></thead>
<tbody>{"".join(lines)}</tbody></table>
</div>
<p class="verdict"><strong>Result.</strong> {escape(table.verdict)}</p>
"""


def _picture(section: Section, picture: Picture) -> str:
    stem = f"{section.method}-{picture.name}"
    return f"""<figure>
<div class="scroll" role="region" aria-label="{escape(picture.caption)}" tabindex="0"><picture>
<source media="(prefers-color-scheme: dark)" srcset="{stem}-dark.svg">
<img src="{stem}-light.svg" alt="{escape(picture.alt)}">
</picture></div>
<figcaption>{escape(picture.caption)}</figcaption>
</figure>"""


def _sound(section: Section, sound: Audio) -> str:
    return f"""<figure>
<audio controls preload="metadata" src="{section.method}-{sound.name}.wav" aria-label="{escape(sound.caption)}"></audio>
<figcaption>{escape(sound.caption)}</figcaption>
</figure>"""


def _id(section: Section) -> str:
    return f"method-{section.method}"


def _badge(kind: str) -> str:
    return f'<span class="badge {escape(kind)}">{escape(kind)}</span>'
