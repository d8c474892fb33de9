"""What tests of the demo share: a bar that nobody sees, sections without training, a reader of pages, and a browser."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lightning_adapt._shared.report_parts import Cell, Column, Finding, Row, Score, Section, Usage

SILENT_WAV = (
    b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00@\x1f\x00\x00\x80>\x00\x00\x02\x00\x10\x00data"
    + bytes(4)
)


class CountingContext:
    """The demo's context in its smallest form; counts what the progress bar would show."""

    quick = True

    def __init__(self) -> None:
        self.total, self.steps = 0, 0
        self.said: list[str] = []

    def start(self, total: int) -> None:
        self.total = total

    def doing(self, what: str) -> None:
        self.said.append(what)

    def advance(self, steps: int = 1) -> None:
        self.steps += steps


# -- sections without training ----------------------------------------------------------------------------------------
def a_score(**changed: Any) -> Score:
    values = {"measure": "loss", "baseline": "without", "without": "1.25", "ours": "1.00", "change": "-0.25"}
    return Score(**{**values, "result": "better", "but": "twice the time", **changed})


def a_finding(**changed: Any) -> Finding:
    values = {
        "caption": "Numbers",
        "columns": (Column("loss", better="lower"), Column("time", "s", 2)),
        "rows": (
            Row("without", "baseline", (Cell(1.25), None)),
            Row("with", "ours", (Cell(1000, 0.5), Cell(2, 0.125))),
        ),
        "setting": "A setting.",
        "gained": "A gain.",
        "not_gained": "A price.",
        "score": a_score(),
    }
    return Finding(**{**values, **changed})


def a_section(*findings: Finding, **changed: Any) -> Section:
    values = {
        "method": "other",
        "title": "Other: a method",
        "problem": "A problem.",
        "findings": findings or (a_finding(),),
        "usage": Usage("a command", "some = python", "some: yaml"),
        "seconds": 1.0,
    }
    return Section(**{**values, **changed})


def an_empty_figure() -> Any:
    from matplotlib.figure import Figure

    return Figure()


# -- a reader of pages ------------------------------------------------------------------------------------------------
class ReadPage(HTMLParser):
    """Tags, attributes and files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.files: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.files += [value for key, value in attrs if key in ("src", "srcset") and value]

    def values(self, key: str, tag: str | None = None) -> list[str]:
        """Return the values of an attribute."""
        return [value or "" for its, name, value in self.attributes if name == key and tag in (None, its)]


# -- a browser --------------------------------------------------------------------------------------------------------
# Measures a page in frames of several widths; a window of headless Chromium is never narrower than 500 pixels.
_MEASURE = (Path(__file__).parent / "demo_measure.js").read_text(encoding="utf-8")
_FRAMES = """<!DOCTYPE html><title>none</title><body style="margin:0">{frames}<script>
const found = {{}};
addEventListener("message", (event) => {{
  found[event.data.width] = event.data;
  if (Object.keys(found).length === {count}) document.title = "MEASURED " + JSON.stringify(found);
}});</script>"""


def chromium() -> str:
    """Return the browser; without one the test fails in CI and is skipped elsewhere."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI") == "true":
        pytest.fail("No Chromium: install the package chromium.")
    pytest.skip("No Chromium on this machine.")


def opened(page: Path, scratch: Path, scheme: str = "light") -> tuple[str, str]:
    """Open a page; return its document after loading, and what the console said."""
    colours = {"light": "1", "dark": "0"}[scheme]
    command = [
        *(chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"),
        *(f"--user-data-dir={scratch / 'profile'}", f"--blink-settings=preferredColorScheme={colours}"),
        *("--window-size=1440,900", "--virtual-time-budget=8000", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def measured(page: Path, scratch: Path, scheme: str, widths: tuple[int, ...]) -> dict[int, dict[str, Any]]:
    """Return what the measuring script found in a copy of the page, by width."""
    copy = scratch / f"page-{scheme}"
    shutil.copytree(page.parent, copy)
    text = page.read_text(encoding="utf-8")
    # the policy allows no script but the page's own
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    (copy / "index.html").write_text(text.replace("</body>", f"<script>{_MEASURE}</script></body>"), encoding="utf-8")
    frames = "".join(f'<iframe src="index.html" style="width:{w}px;height:900px;border:0"></iframe>' for w in widths)
    (copy / "frames.html").write_text(_FRAMES.format(frames=frames, count=len(widths)), encoding="utf-8")
    document, _ = opened(copy / "frames.html", copy, scheme)
    title = re.search(r"<title>MEASURED ([^<]*)</title>", document)
    assert title is not None, document[:500]
    return {int(width): found for width, found in json.loads(html.unescape(title[1])).items()}
