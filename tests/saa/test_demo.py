"""The SAA section of the demo, in its smallest form: its rows, and a verdict that says what they hold."""

from __future__ import annotations

from statistics import mean

import pytest

from lightning_adapt._shared.demo_frame import Gap
from lightning_adapt._shared.quiet import quiet_lightning
from lightning_adapt._shared.report import write_page
from lightning_adapt.saa import demo as ours
from tests.contracts.demo_parts import CountingContext

NBSP = "\N{NO-BREAK SPACE}"
TIE = {"supervised": [80.0, 82.0, 81.0], "fixmatch": [90.0, 92.0, 91.2], "all": [90.0, 91.8, 91.5]}


@pytest.fixture(scope="module")
def finding(tmp_path_factory):
    out, context = tmp_path_factory.mktemp("demo"), CountingContext()
    with quiet_lightning():
        section = ours.run(context)
    assert context.steps == context.total > 0
    write_page([section], out)
    names = {f"saa-{name}-{scheme}.svg" for name in ("selection", "views") for scheme in ("light", "dark")}
    assert {path.name for path in out.iterdir()} == {"index.html", *names}
    (finding,) = section.findings
    return finding


def test_rows_hold_the_method_its_control_and_its_baselines(finding):
    assert [row.kind for row in finding.rows] == ["baseline", "baseline", "control", "ours"]
    accuracy, gain, regrouped, seconds = ([row.cells[column].value for row in finding.rows] for column in range(4))
    assert all(15 < value < 100 for value in accuracy)  # chance is 10
    assert gain == pytest.approx([value - accuracy[1] for value in accuracy])
    assert regrouped[:3] == [0, 0, 100]
    assert 0 < regrouped[3] < 100
    assert all(value > 0 for value in seconds)


def test_the_verdict_holds_the_numbers_of_the_rows(finding):
    for row in finding.rows:
        assert f"{row.cells[0].value:.1f}{NBSP}%" in finding.gained + finding.not_gained


@pytest.mark.parametrize(
    ("saa", "all_of_them", "words", "result"),
    [
        ([95.0, 97.1, 96.1], TIE["all"], "not that of a harder view for everyone", "better"),
        ([95.0, 97.1, 96.1], [95.1, 97.0, 96.2], "need not come from choosing", "better"),
        ([90.5, 91.5, 91.3], TIE["all"], "these were 240", "level"),
        ([85.0, 87.1, 86.1], TIE["all"], "costs accuracy here", "worse"),
    ],
)
def test_words_follow_the_paired_differences(saa, all_of_them, words, result):
    accuracy = {**TIE, "all": all_of_them, "saa": saa}
    gained, score = ours._gained(accuracy), ours._score(accuracy, 240)
    assert words in ours._not_gained(accuracy, 240)
    assert f"{mean(saa):.1f} %" in gained
    assert score.result == result
    assert gained.startswith("Over FixMatch nothing that these runs can show") == (result != "better")
    assert ("not clearly different" in gained) == (result == "level")
    assert score.but.startswith("240 steps are few")
    chosen = Gap.between(saa, all_of_them).result
    assert ("not clearly better than harder views" in score.but) == (chosen == "level")
    assert ("harder views for all do better" in score.but) == (chosen == "worse")
    assert ("; it is better than every view regrouped (" in gained) == (chosen == "better")
