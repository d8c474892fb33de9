"""The parts of one self-contained HTML page: the skeleton, tables, and figures held inside the file itself."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report_parts import Picture
from lightning_adapt._shared.report_script import SCRIPT
from lightning_adapt._shared.report_style import CSS, SCHEMES

__all__ = ["Part", "document", "inline_picture", "section", "table"]

_CLOSED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# files beside the page only, and no other script than ours
_BESIDE = (
    "default-src 'none'; img-src 'self' file: data:; media-src 'self' file:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
)


@dataclass(frozen=True)
class Part:
    """A section of a page.

    Args:
        name: Its anchor: a-z, 0-9, - and _.
        title: Its heading.
        html: What is in it, already escaped.
    """

    name: str
    title: str
    html: str


def document(
    title: str,
    header: str,
    main: str,
    footer: str,
    *,
    nav: str = "",
    skip: str = "Skip to the results",
    closed: bool = False,
) -> str:
    """Return a whole page in the package's style; it loads nothing from elsewhere.

    Args:
        title: Title of the window, plain text.
        header: HTML before the main part.
        main: HTML of the main part.
        footer: HTML after it.
        nav: HTML between header and main part; it stays in sight on large screens.
        skip: Text of the link that takes keyboard users past the header.
        closed: Forbid the browser to load anything at all, other files beside the page included: for pages that show
            texts of unknown origin. Without it, files beside the page and the script of the copy buttons are allowed.

    Returns:
        The page.
    """
    policy, script = (_CLOSED, "") if closed else (_BESIDE, f"<script>{SCRIPT}</script>\n")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{CSS}</style>
</head>
<body>
<a class="skip" href="#main">{escape(skip)}</a>
<header>
{header}
</header>
{nav}<main id="main" tabindex="-1">
{main}
</main>
<footer>{footer}</footer>
{script}</body>
</html>
"""


def section(part: Part) -> str:
    """Return a part as a section with its heading.

    Args:
        part: The part.

    Returns:
        HTML.
    """
    anchor = escape(part.name)
    return f"""<section aria-labelledby="{anchor}">
<h2 id="{anchor}">{escape(part.title)}</h2>
{part.html}
</section>
"""


def table(
    name: str, caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int] = ()
) -> str:
    """Return a table that scrolls by itself on narrow screens; the first cell of a row is its heading.

    Args:
        name: Anchor of the caption, unique on the page.
        caption: A few words.
        heads: Headings of the columns, plain text.
        rows: Cells, plain text, as many as there are headings.
        numbers: Positions of the columns that hold numbers; they are set to the right.

    Returns:
        HTML.
    """

    def kind(column: int) -> str:
        return ' class="number"' if column in numbers else ""

    top = "".join(f'<th scope="col"{kind(column)}>{escape(head)}</th>' for column, head in enumerate(heads))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{kind(column)}>{escape(cell)}</td>" for column, cell in enumerate(others, 1))
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return f"""<div class="scroll" role="region" aria-labelledby="{escape(name)}" tabindex="0">
<table><caption id="{escape(name)}">{escape(caption)}</caption>
<thead><tr>{top}</tr></thead>
<tbody>{"".join(lines)}</tbody></table>
</div>"""


def inline_picture(picture: Picture) -> str:
    """Return a figure for light and dark screens whose drawings travel inside the page.

    Args:
        picture: The figure; drawn once per colour scheme.

    Returns:
        HTML.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
    """
    require("figures", "The report's figures", "matplotlib")
    import matplotlib as mpl

    drawn: dict[str, str] = {}
    for scheme, settings in SCHEMES.items():
        with mpl.rc_context(settings):
            file = io.BytesIO()
            # without the date, equal figures are equal files
            picture.draw().savefig(file, format="svg", dpi=150, metadata={"Date": None})
        drawn[scheme] = "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
    caption = escape(picture.caption)
    return f"""<figure>
<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><picture>
<source media="screen and (prefers-color-scheme: dark)" srcset="{drawn["dark"]}">
<img src="{drawn["light"]}" alt="{escape(picture.alt)}">
</picture></div>
<figcaption>{caption}</figcaption>
</figure>"""
