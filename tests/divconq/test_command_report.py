"""The page of `select`: one file, nothing fetched, hostile texts harmless, numbers as they are, pictures true."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from lightning_adapt.divconq.offline import command_figures as figures
from lightning_adapt.divconq.offline import command_report
from lightning_adapt.divconq.offline.command_report import Findings, page
from lightning_adapt.divconq.offline.file_pool import Pool
from lightning_adapt.divconq.text.rows import texts_of

pytest.importorskip("matplotlib")
HOSTILE = "<script>alert('x')</script> <img src=https://example.org/x.png> & \"quoted\""


def findings(*, labels: bool = True, vectors: bool = True, n: int = 40) -> Findings:
    """Return a selection of every fifth row of 38 usable ones; row 3 is a copy and row 4 has no response."""
    data = [{"prompt": f"{HOSTILE} {row}", "response": "a" * (row + 1)} for row in range(n)]
    lengths = np.arange(1, n + 1, dtype=np.int32)
    lengths[4] = 0
    usable = np.delete(np.arange(n), [3, 4])
    pool = Pool(texts_of(data), np.zeros((n, 16), np.uint8), lengths, None, "f")
    clusters = usable % 3 if labels else None
    places = np.random.default_rng(0).normal(size=(len(usable), 5)).astype(np.float32)
    summary = [("rows", str(n)), (HOSTILE, "1")]
    return Findings(
        HOSTILE,
        pool,
        usable,
        np.array([3]),
        usable[::5],
        clusters,
        places if vectors else None,
        summary,
        [HOSTILE],
        HOSTILE,
    )


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.open, self.headings = [], [], [], []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "link", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def shown():
    return page(findings())


def test_the_page_is_well_formed_and_fetches_nothing(shown):
    seen = _Page(shown)
    assert seen.open == []
    assert "script" not in seen.tags
    assert seen.tags.count("img") == 3  # the map, the sizes, the lengths
    assert seen.headings == ["What was chosen", "Chosen rows", "Map", "Clusters", "Lengths of responses", "Left out"]
    for tag, name, value in seen.attributes:
        if name in ("src", "srcset", "href") and value != "data:,":
            assert value.startswith(("data:image/svg+xml;base64,", "#")), (tag, value[:40])
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in seen.attributes
    anchors = {value for _, name, value in seen.attributes if name == "id"}
    links = {value for _, name, value in seen.attributes if name in ("href",) and value.startswith("#")}
    assert {link[1:] for link in links} <= anchors
    labelled = [value for _, name, value in seen.attributes if name == "aria-labelledby"]
    assert set(labelled) <= anchors
    drawings = [value for tag, name, value in seen.attributes if (tag, name) in (("img", "src"), ("source", "srcset"))]
    svgs = [base64.b64decode(drawing.partition(",")[2]) for drawing in drawings]
    assert len(set(svgs)) == 6  # each for light and for dark screens
    assert all(b"<svg" in svg and b'xlink:href="http' not in svg and b"dc:date" not in svg for svg in svgs)


def test_every_picture_has_words_and_every_table_headings(shown):
    seen = _Page(shown)
    alts = [value for tag, name, value in seen.attributes if (tag, name) == ("img", "alt")]
    assert all(len(alt) > 20 for alt in alts)
    assert "Rows as points: 38, chosen ones: 8." in alts
    assert "Clusters: 3, of 12 to 13 rows; without a chosen row: 0." in alts
    assert "The middle response has 21.5 characters in the pool, 20.5 chosen." in alts  # of 1, 2, 3, 6, 7, ..., 40
    assert seen.tags.count("caption") == seen.tags.count("table") == 5
    scopes = [value for tag, name, value in seen.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == seen.tags.count("th")


def test_examples_are_text_and_not_markup(shown):
    seen = _Page(shown)
    assert "alert('x')" in seen.text
    assert f"{HOSTILE} 3" in seen.text  # the copy
    assert f"{HOSTILE} 4" in seen.text  # without a response
    assert "Rows with an empty response: 1. Copies of earlier rows: 1." in seen.text


def test_ten_chosen_rows_are_shown_with_prompt_and_response(shown):
    tables = {}

    def keep(name, caption, heads, rows, numbers=()):
        tables[name] = (caption, [heads, *rows])
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_report, "table", keep)
        patch.setattr(command_report, "inline_picture", lambda _: "")
        found = findings(n=400)
        page(found)
    caption, (heads, *rows) = tables["some"]
    assert caption == "10 of the 80 chosen rows, evenly over the file"
    assert heads == ("row", "prompt", "response")
    assert [row[0] for row in (rows[0], rows[-1])] == [str(found.chosen[0]), str(found.chosen[-1])]
    assert {int(row) for row, *_ in rows} <= set(found.chosen.tolist())
    assert all(prompt == f"{HOSTILE} {row}" for row, prompt, _ in rows)
    assert [response for *_, response in rows][:2] == ["a", "a" * 43]
    assert len(rows[-1][2]) == 180
    assert rows[-1][2].endswith("a...")
    assert "8 of the 8 chosen rows" in _Page(shown).text


def test_the_same_selection_gives_the_same_page(shown):
    assert page(findings()) == shown


def test_without_clusters_and_vectors_there_are_no_pictures_of_them(monkeypatch):
    monkeypatch.setattr(command_report, "inline_picture", lambda picture: f"<p>{picture.name}</p>")
    headings = _Page(page(findings(labels=False))).headings
    assert headings == ["What was chosen", "Chosen rows", "Map", "Lengths of responses", "Left out"]
    headings = _Page(page(findings(labels=False, vectors=False))).headings
    assert headings == ["What was chosen", "Chosen rows", "Lengths of responses", "Left out"]


def test_the_map_has_the_whole_selection_and_words_of_its_clusters(monkeypatch):
    drawn = []
    monkeypatch.setattr(command_report, "map_figure", lambda *given: drawn.append(given))
    monkeypatch.setattr(command_report, "inline_picture", lambda picture: str(picture.draw()))
    found = findings()
    page(found)
    points, labels, chosen, names = drawn[0]
    assert len(points) == len(labels) == 38
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(found.usable[chosen], found.chosen)
    assert names == ["0", "1", "2"]  # all prompts have the same words


def test_clusters_are_named_by_the_words_that_set_them_apart():
    prompts = ["bake some bread", "bake a bread roll", "play chess today", "a chess opening", "bake 12 buns", "1 2 3"]
    pool = Pool(
        texts_of([{"prompt": prompt, "response": "a"} for prompt in prompts]),
        np.zeros((6, 16), np.uint8),
        np.ones(6, np.int32),
        None,
        "f",
    )
    rows = np.arange(6)
    found = Findings("", pool, rows, rows[:0], rows[:2], None, None, [], [], "")
    labels = np.array([0, 0, 1, 1, 0, 3])
    assert command_report._names(found, labels, rows) == ["0: bake bread", "1: chess opening", "2", "3"]


# -- figures -----------------------------------------------------------------------------------------------------------
def test_the_figures_hold_the_numbers():
    axes = figures.sizes_figure(np.array([3, 9, 5]), np.array([1, 0, 2])).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[9, 5, 3], [0, 2, 1]]
    before = np.array([1, 10, 10, 1000])
    shares = [patch.get_data()[0] for patch in figures.lengths_figure(before, before[1:2]).axes[0].patches]
    assert [share.sum() for share in shares] == pytest.approx([100, 100])  # the longest one counts, too
    assert shares[0].max() == pytest.approx(50)
