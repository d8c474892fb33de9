"""The demo's page as HTML: everything on it, escaped, without a network, and readable by a screen reader."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from lightning_adapt._shared.report import write_page
from lightning_adapt._shared.report_parts import Audio, Cell, Column, Picture, Row, Usage
from lightning_adapt._shared.report_style import CSS, SCHEMES
from tests.contracts.demo_parts import (
    SILENT_WAV,
    ReadPage,
    a_finding,
    a_score,
    a_section,
    an_empty_figure,
)

HOSTILE = "<script>alert('x')</script> & \"quoted\""


def shown(*sections, folder, **more):
    return write_page(sections, folder, **more).read_text(encoding="utf-8")


def two_findings():
    first = a_finding(
        pictures=(
            Picture("one", "First.", "Rises.", an_empty_figure),
            Picture("two", "2nd.", "Falls.", an_empty_figure),
        ),
        audio=(Audio("said", "Good morning.", SILENT_WAV),),
    )
    return a_section(first, a_finding(caption="More numbers", gained="It is small.", not_gained="It is slow."))


def test_page_holds_all_of_a_section_in_the_order_of_reading(tmp_path):
    text = shown(two_findings(), folder=tmp_path)
    words = ["Other: a method", "A problem.", "A gain.", "A price.", "1,000.0", "Rises.", "A setting.", "Falls."]
    words += [
        "Good morning.",
        "More numbers",
        "It is small.",
        "It is slow.",
        "a command",
        "some = python",
        "some: yaml",
    ]
    main = text[text.index('<section class="method"') :]
    places = [main.index(word) for word in words]
    assert places == sorted(places)
    numbers = re.findall(r'<td class="number">([^<]*)</td>', main)
    assert numbers == ["1.2", "not measured", "1,000.0 ±\N{NO-BREAK SPACE}0.5", "2.00 ±\N{NO-BREAK SPACE}0.12"] * 2
    assert "1 more figure<" in main


def test_overview_has_a_line_per_finding_with_what_was_gained_and_what_was_not(tmp_path):
    scores = [a_score(result=result, but=f"but {result}") for result in ("better", "level", "worse")]
    text = shown(a_section(*(a_finding(score=score) for score in scores)), folder=tmp_path)
    overview = text[text.index('class="overview"') : text.index('<section class="method"')]
    lines = re.findall(r'<tr role="row">.*?</tr>', overview, re.DOTALL)
    for line, score, word in zip(lines, scores, ("gained", "no clear gain", "lost"), strict=True):
        assert f">{word}</span> -0.25" in line
        assert score.but in line
        assert 'href="#method-other"' in line
        assert "1.25" in line


def test_page_needs_no_network_and_every_file_is_there(tmp_path):
    text = shown(two_findings(), folder=tmp_path / "new" / "folder")
    parsed = ReadPage(text)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        ["index.html", *parsed.files]
    )
    assert len(parsed.files) == 5  # two figures, light and dark, and a sound
    assert (tmp_path / "new" / "folder" / "other-said.wav").read_bytes() == SILENT_WAV
    assert not re.search(r"(?:https?:)?//\w", text.replace("  // only what scrolls", ""))
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = parsed.values("content")[:1]
    assert policy.startswith("default-src 'none'; img-src 'self' file: data:; media-src 'self' file:;")


def test_page_can_be_read_by_a_screen_reader_and_by_keyboard(tmp_path):
    text = shown(two_findings(), a_section(method="third", title="Third"), folder=tmp_path, missing=["fourth: why"])
    parsed = ReadPage(text)
    for once in ("h1", "main", "header", "footer", "nav"):
        assert parsed.tags.count(once) == 1, once
    levels = [int(tag[1]) for tag in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert parsed.tags.count("table") == parsed.tags.count("caption") == 4
    assert set(parsed.values("scope", "th")) == {"row", "col"}
    assert len(parsed.values("scope", "th")) == parsed.tags.count("th")
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    anchors = [value[1:] for value in parsed.values("href", "a")]
    assert set(anchors + parsed.values("aria-labelledby")) <= set(ids)
    assert anchors[0] == "main"  # the way past the navigation comes first
    assert len(parsed.values("alt", "img")) == parsed.tags.count("img")
    assert all(parsed.values("alt", "img"))
    labels = parsed.values("aria-label")
    assert all(labels)
    assert "Good morning." in parsed.values("aria-label", "audio")
    assert len(set(parsed.values("aria-label", "button"))) == parsed.tags.count("button") == 6
    assert "lower is better" in text


def test_all_text_is_escaped(tmp_path):
    hostile = a_section(
        a_finding(
            caption=HOSTILE,
            setting=HOSTILE,
            gained=HOSTILE,
            not_gained=HOSTILE,
            columns=(Column(HOSTILE, HOSTILE),),
            rows=(Row(HOSTILE, "ours", (Cell(1),)),),
            score=a_score(
                measure=HOSTILE, baseline=HOSTILE, without=HOSTILE, ours=HOSTILE, change=HOSTILE, but=HOSTILE
            ),
            pictures=(Picture("drawn", HOSTILE, HOSTILE, an_empty_figure),),
            audio=(Audio("said", HOSTILE, SILENT_WAV),),
        ),
        title=HOSTILE,
        problem=HOSTILE,
        usage=Usage(HOSTILE, HOSTILE, HOSTILE),
    )
    parsed = ReadPage(shown(hostile, folder=tmp_path, facts=HOSTILE, missing=[HOSTILE]))
    assert parsed.tags.count("script") == 1  # ours
    assert ("img", "alt", HOSTILE) in parsed.attributes
    assert "quoted" not in {key for _, key, _ in parsed.attributes}


def test_the_dots_beside_the_numbers_lie_where_the_numbers_lie(tmp_path):
    rows = tuple(Row(f"{value}", "ours", (Cell(value, 1.0),)) for value in (10.0, 15.0, 20.0))
    text = shown(a_section(a_finding(columns=(Column("x"),), rows=rows)), folder=tmp_path)
    low, middle, high = (float(place) for place in re.findall(r'<circle cx="([\d.]+)"', text))
    assert middle == pytest.approx((low + high) / 2, abs=0.11)
    left, right = (float(end) for end in re.findall(r'class="spread" d="M([\d.]+) 7.0H([\d.]+)"', text)[1])
    assert (right - left) / (high - low) == pytest.approx(2 / 10, abs=0.01)  # one standard deviation to each side
    alike = (Row("a", "ours", (Cell(1),)), Row("b", "ours", (None,)))
    assert "<circle" not in shown(a_section(a_finding(columns=(Column("x"),), rows=alike)), folder=tmp_path)


def test_a_failed_write_leaves_the_old_page(tmp_path):
    page = write_page([a_section()], tmp_path)
    before = page.read_bytes()

    def fail():
        raise RuntimeError("cannot draw")

    with pytest.raises(RuntimeError, match="cannot draw"):
        write_page([a_section(a_finding(pictures=(Picture("bad", "c", "a", fail),)))], tmp_path)
    assert page.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def _light(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    dark, light = sorted((_light(one), _light(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_measured_as_the_guidelines_say():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_figures_are_readable_in_both_schemes_and_as_bright_as_the_page(scheme):
    settings = SCHEMES[scheme]
    ground = settings["figure.facecolor"]
    cards = re.findall(r"--card: (#\w+)", CSS)
    assert ground == cards[list(SCHEMES).index(scheme)]
    for key in ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"):
        assert contrast(settings[key], ground) >= 4.5
    lines = re.findall(r"#\w{6}", settings["axes.prop_cycle"])
    assert len(lines) >= 5
    assert all(contrast(line, ground) >= 3 for line in lines)  # of graphics, the guidelines ask 3
