"""The demo's page in headless Chromium: both schemes, wide and narrow, without an error, reached by keyboard."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_adapt._shared.report import write_page
from lightning_adapt._shared.report_parts import Audio, Cell, Column, Picture, Row
from tests.contracts.demo_parts import SILENT_WAV, a_finding, a_section, measured, opened

WIDTHS = (360, 800, 1440)


def _drawn():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2))
    figure.subplots().plot(np.arange(5))
    return figure


def _full_section(method="other"):
    """A section as large as those of the methods."""
    columns = (Column("test accuracy", "%", better="higher"), *(Column(f"number {n}", "CPU s") for n in range(3)))
    kinds = ("baseline", "baseline", "control", "control", "ours")
    rows = tuple(
        Row(f"a way to train, {n}", kind, (Cell(80.0 + n, 1.0), *[Cell(n)] * 3)) for n, kind in enumerate(kinds)
    )
    text = "A sentence with numbers of the table, about as long as those of the methods are, 12.3 % against 45.6 %. "
    pictures = tuple(Picture(name, "What to see in it.", "It rises.", _drawn) for name in ("one", "two"))
    sounds = tuple(Audio(f"said-{n}", f"Good morning number {n}.", SILENT_WAV) for n in range(2))
    finding = a_finding(
        columns=columns, rows=rows, gained=text * 2, not_gained=text * 3, pictures=pictures, audio=sounds
    )
    return a_section(finding, method=method, title="Other: a method with a name that is long")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_page([_full_section(), a_section(method="plain")], tmp_path_factory.mktemp("page"), facts="Facts.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_readable_reachable_and_no_wider_than_its_window(page, tmp_path, scheme):
    found = measured(page, tmp_path, scheme, WIDTHS)
    for width in WIDTHS:
        seen = found[width]
        assert seen["wide"] <= 0, (width, seen)
        assert seen["outside"] == [], width
        assert seen["pale"] == [], width
        assert seen["unseen"] == [], width
        assert seen["small"] == [], width
        assert set(seen["images"]) == {f"other-{name}-{scheme}.svg" for name in ("one", "two")}
        assert all(natural > 0 for natural in seen["images"].values())
        assert seen["copies"] == 6
    assert found[1440]["screens"]["method-other"] <= 840  # 900 less the navigation that stays
    assert found[1440]["overview"] <= 840


def test_policy_lets_the_page_work_and_nothing_else_in(page, tmp_path):
    document, said = opened(page, tmp_path)
    assert said == ""
    assert document.count('class="copy"') == 6
    assert "hidden=" not in document[document.index('class="copy"') :].split("</button>")[0]  # its script ran
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8").replace("</body>", '<script>document.title = "in"</script></body>')
    broken.write_text(text, encoding="utf-8")
    document, said = opened(broken, tmp_path)
    assert "Content Security Policy" in said
    assert "<title>in" not in document


def test_the_measurement_sees_what_is_wrong(tmp_path):
    # the test of the test: a figure that is gone, pale words, and a box wider than the window
    page = write_page([_full_section()], tmp_path / "page")
    for figure in page.parent.glob("*.svg"):
        figure.unlink()
    wrong = '<p style="color:#999;background:#fff">pale words</p><div style="width:2000px">wide</div></main>'
    wrong = wrong.replace("</main>", '<a href="#x" style="outline:none">unseen</a></main>')
    page.write_text(page.read_text(encoding="utf-8").replace("</main>", wrong), encoding="utf-8")
    seen = measured(page, tmp_path, "light", (1440,))[1440]
    assert seen["wide"] > 0
    assert set(seen["images"].values()) == {0}
    assert len(seen["outside"]) == 1
    assert [text.split(" p.: ")[-1] for text in seen["pale"]] == ["pale words"]
    assert seen["unseen"] == ["a.: unseen"]
