"""The screen of one method on the demo's page: figure, result, table, sounds, and code to copy."""

from __future__ import annotations

from html import escape

from lightning_adapt._shared.report_parts import Audio, Cell, Column, Finding, Picture, Row, Section

__all__ = ["anchor", "badge", "section_html"]

_PLOT_WIDTH, _PLOT_HEIGHT, _PLOT_MARGIN = 72, 14, 6  # of the dots beside the numbers, pixels
_SPREAD = "±\N{NO-BREAK SPACE}"  # the two stay on one line
_WORDS = {"higher": "higher is better", "lower": "lower is better", "": ""}
_ARROWS = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}", "": ""}


def section_html(section: Section) -> str:
    """Return the screen of a method.

    Args:
        section: What its demo found.

    Returns:
        HTML; the files of figures and sounds lie beside the page.
    """
    findings = "".join(_finding(section, number) for number in range(len(section.findings)))
    usage = (("Command", section.usage.command), ("Python", section.usage.python), ("YAML", section.usage.yaml))
    codes = "".join(_code(section, title, code) for title, code in usage)
    return f"""<section class="method" aria-labelledby="{anchor(section)}">
<h2 id="{anchor(section)}">{escape(section.title)}</h2>
<p class="problem">{escape(section.problem)}</p>
{findings}
<div class="usage">{codes}</div>
</section>
"""


def anchor(section: Section) -> str:
    """Return the name of a section on the page."""
    return f"method-{section.method}"


def badge(kind: str) -> str:
    """Return the word for the kind of a row, in its colours."""
    return f'<span class="badge {escape(kind)}">{escape(kind)}</span>'


def _finding(section: Section, number: int) -> str:
    finding = section.findings[number]
    first, others = finding.pictures[:1], finding.pictures[1:]
    seen = "".join(_picture(section, picture) for picture in first)
    more = "".join(_picture(section, picture) for picture in others)
    sounds = "".join(_sound(section, sound) for sound in finding.audio)
    name = f"{anchor(section)}-table-{number + 1}"
    took = f" This section took {section.seconds:.0f} s." if number == 0 else ""
    plural = "s" if len(others) > 1 else ""
    named = f"{escape(finding.caption)}, {escape(section.short_title)}"
    summary = f"How it was measured, and {len(others)} more figure{plural}" if others else "How it was measured"
    title = f"<h3>{escape(finding.caption)}</h3>\n" if number else ""
    return f"""{title}<div class="finding{"" if first else " bare"}">
<div class="read">
<p class="gained"><strong>Gained.</strong> {escape(finding.gained)}</p>
<p class="not-gained"><strong>Not gained.</strong> {escape(finding.not_gained)}</p>
{_table(name, finding)}
</div>
<div class="seen">
{seen}
<details><summary>{summary}<span class="hidden">: {named}</span></summary>
<p class="setting">{escape(finding.setting)}{took}</p>
{more}
</details>
</div>
{f'<div class="sounds" role="group" aria-label="Sounds: {escape(finding.caption)}">{sounds}</div>' if sounds else ""}
</div>"""


# -- the table --------------------------------------------------------------------------------------------------------
def _table(name: str, finding: Finding) -> str:
    span = _span(finding.rows)
    heads = "".join(map(_head, finding.columns))
    plot = '<td class="plot"></td>' if span else ""
    lines = "".join(_line(row, finding.columns, span) for row in finding.rows)
    return f"""<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">
<table><caption id="{name}">{escape(finding.caption)}</caption>
<thead><tr><th scope="col">variant (kind)</th>{plot}{heads}</tr></thead>
<tbody>{lines}</tbody></table>
</div>"""


def _head(column: Column) -> str:
    arrow = f' <span aria-hidden="true">{_ARROWS[column.better]}</span>' if column.better else ""
    words = f'<span class="hidden">, {_WORDS[column.better]}</span>' if column.better else ""
    unit = f' <span class="unit">({escape(column.unit)})</span>' if column.unit else ""
    return f'<th scope="col" class="number">{escape(column.name)}{unit}{arrow}{words}</th>'


def _line(row: Row, columns: tuple[Column, ...], span: tuple[float, float] | None) -> str:
    cells = "".join(
        f'<td class="number">{escape(column.show(cell)).replace("± ", _SPREAD)}</td>'
        for column, cell in zip(columns, row.cells, strict=True)
    )
    plot = f'<td class="plot">{_dot(row.cells[0], span)}</td>' if span else ""
    return f'<tr class="{escape(row.kind)}"><th scope="row">{escape(row.name)} {badge(row.kind)}</th>{plot}{cells}</tr>'


def _span(rows: tuple[Row, ...]) -> tuple[float, float] | None:
    """Return the ends of the first column with its spreads; None where there is nothing to compare."""
    cells = [row.cells[0] for row in rows if row.cells and row.cells[0] is not None]
    low = min((cell.value - (cell.sd or 0.0) for cell in cells), default=0.0)
    high = max((cell.value + (cell.sd or 0.0) for cell in cells), default=0.0)
    return (low, high) if high > low else None


def _dot(cell: Cell | None, span: tuple[float, float]) -> str:
    """Draw a number of the first column as a dot with its spread; the number itself stands beside it."""
    if cell is None:
        return ""

    def place(value: float) -> float:
        return _PLOT_MARGIN + (value - span[0]) / (span[1] - span[0]) * (_PLOT_WIDTH - 2 * _PLOT_MARGIN)

    middle, spread = _PLOT_HEIGHT / 2, cell.sd or 0.0
    return (
        f'<svg width="{_PLOT_WIDTH}" height="{_PLOT_HEIGHT}" viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" '
        f'aria-hidden="true"><path class="axis" d="M0 {middle}H{_PLOT_WIDTH}"/>'
        f'<path class="spread" d="M{place(cell.value - spread):.1f} {middle}H{place(cell.value + spread):.1f}"/>'
        f'<circle cx="{place(cell.value):.1f}" cy="{middle}" r="4.5"/></svg>'
    )


# -- figures, sounds, code --------------------------------------------------------------------------------------------
def _picture(section: Section, picture: Picture) -> str:
    stem = f"{section.method}-{picture.name}"
    return f"""<figure>
<div class="scroll" role="region" aria-label="Figure: {escape(picture.caption)}" tabindex="0"><picture>
<source media="screen and (prefers-color-scheme: dark)" srcset="{stem}-dark.svg">
<img src="{stem}-light.svg" alt="{escape(picture.alt)}">
</picture></div>
<figcaption>{escape(picture.caption)}</figcaption>
</figure>"""


def _sound(section: Section, sound: Audio) -> str:
    return f"""<figure>
<figcaption>{escape(sound.caption)}</figcaption>
<audio controls preload="metadata" src="{section.method}-{sound.name}.wav" aria-label="{escape(sound.caption)}"></audio>
</figure>"""


def _code(section: Section, title: str, code: str) -> str:
    name = escape(f"{title}, {section.short_title}")
    return f"""<div class="code"><div class="bar"><h3>{title}</h3>
<button type="button" class="copy" aria-label="Copy: {name}" hidden>Copy</button></div>
<pre tabindex="0" role="region" aria-label="{name}"><code>{escape(code)}</code></pre></div>"""
