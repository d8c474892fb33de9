"""The ReLoop2 section of the demo, in its smallest form: its rows, and a verdict that says what they hold."""

from __future__ import annotations

import re

import pytest

from lightning_adapt._shared.quiet import quiet_lightning
from lightning_adapt._shared.report import write_page
from lightning_adapt.reloop2 import demo as ours
from tests.contracts.demo_parts import CountingContext


@pytest.fixture(scope="module")
def finding(tmp_path_factory):
    out, context = tmp_path_factory.mktemp("demo"), CountingContext()
    with quiet_lightning():
        section = ours.run(context)
    assert context.steps == context.total > 0
    write_page([section], out)
    assert {path.name for path in out.iterdir()} == {
        "index.html",
        "reloop2-slots-light.svg",
        "reloop2-slots-dark.svg",
    }
    (finding,) = section.findings
    return finding


def test_rows_hold_the_method_its_controls_and_its_baselines(finding):
    assert [row.kind for row in finding.rows] == [
        "baseline",
        "control",
        "baseline",
        "baseline",
        "control",
        "ours",
        "ours",
    ]
    late, whole, loss, milliseconds = ([row.cells[column].value for row in finding.rows] for column in range(4))
    assert all(50 < value < 80 for value in late + whole)
    assert all(0.3 < value < 0.8 for value in loss)
    assert min(milliseconds) == milliseconds[0] > 0
    assert late[-1] == max(late)


def test_words_hold_the_numbers_of_the_rows(finding):
    for row in finding.rows:
        if "0.0002" not in row.name:  # only the better of both rates is in the words
            assert f"{row.cells[0].value:.1f}\N{NO-BREAK SPACE}%" in finding.gained + finding.not_gained
    slots = finding.pictures[0].alt
    assert len(re.findall(r"\d\d\N{NO-BREAK SPACE}%", slots)) == 3


BASE, HIGH = [57.9, 58.0, 57.8], [64.0, 65.0, 64.4]


@pytest.mark.parametrize(
    ("adaptive", "bold", "words", "result", "beaten"),
    [
        (HIGH, [60.0, 60.5, 60.2], "and better than training on at the better rate (+4.2", "better", True),
        (HIGH, [64.1, 64.9, 64.5], "is not clearly different from training on", "better", False),
        (BASE, HIGH, "is worse than training on", "level", False),
    ],
)
def test_words_follow_the_paired_differences(adaptive, bold, words, result, beaten):
    late = {**dict.fromkeys(ours._ARMS, BASE), "adaptive": adaptive, "bold": bold}
    score = ours._score(late, {"base": 5.0, "adaptive": 20.0})
    text = ours._not_gained(late, {"base": 5.0, "adaptive": 20.0})
    assert words in (ours._gained(late) if beaten else text)
    assert score.result == result
    assert score.but.startswith("serving takes 4.0 times as long")
    assert ("no better than training on" in score.but) != beaten
    assert ("better than the model served as it is" in ours._gained(late)) == (result == "better")
