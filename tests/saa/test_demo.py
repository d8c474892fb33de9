"""The SAA section of the demo, in its smallest form: its rows, and a verdict that says what they hold."""

from __future__ import annotations

from statistics import mean

import pytest

from lightning_adapt import demo
from lightning_adapt._shared.report import write_page
from lightning_adapt.saa import demo as ours

NBSP = "\N{NO-BREAK SPACE}"
TIE = {"supervised": [80.0, 82.0, 81.0], "fixmatch": [90.0, 92.0, 91.2], "all": [90.0, 91.8, 91.5]}


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    caught, out = [], tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            demo, "write_page", lambda found, *rest, **more: caught.extend(found) or write_page(found, *rest, **more)
        )
        patch.chdir(out)
        assert demo.run("saa", out / "page", quick=True) == 0
    names = {f"saa-{name}-{scheme}.svg" for name in ("selection", "views") for scheme in ("light", "dark")}
    assert {path.name for path in (out / "page").iterdir()} == {"index.html", *names}
    return caught[0]


def test_rows_hold_the_method_its_control_and_its_baselines(section):
    assert [row.kind for row in section.rows] == ["baseline", "baseline", "control", "ours"]
    accuracy, gain, regrouped, seconds = ([row.cells[column].value for row in section.rows] for column in range(4))
    assert all(15 < value < 100 for value in accuracy)  # chance is 10
    assert gain == pytest.approx([value - accuracy[1] for value in accuracy])
    assert regrouped[:3] == [0, 0, 100]
    assert 0 < regrouped[3] < 100
    assert all(value > 0 for value in seconds)


def test_the_verdict_holds_the_numbers_of_the_rows(section):
    for row in section.rows:
        assert f"{row.cells[0].value:.1f}{NBSP}%" in section.verdict


@pytest.mark.parametrize(
    ("saa", "all_of_them", "words"),
    [
        ([95.0, 97.1, 96.1], TIE["all"], "not that of a harder view for everyone"),
        ([95.0, 97.1, 96.1], [95.1, 97.0, 96.2], "need not come from choosing"),
        ([90.5, 91.5, 91.3], TIE["all"], "these were 240"),
        ([85.0, 87.1, 86.1], TIE["all"], "costs accuracy here"),
    ],
)
def test_the_verdict_follows_the_paired_differences(saa, all_of_them, words):
    accuracy = {**TIE, "all": all_of_them, "saa": saa}
    verdict = ours._verdict(accuracy, 240)
    assert words in verdict
    assert f"{mean(saa):.1f}{NBSP}%" in verdict
    assert ("no clear difference" in verdict) == ("these were" in verdict)


def test_the_interval_is_that_of_students_t():
    from scipy import stats

    gains = [0.4, 1.9, 1.2]
    expected = stats.t.interval(0.95, 2, mean(gains), stats.sem(gains))
    assert ours._interval(gains) == pytest.approx(expected, abs=0.01)
    assert ours._interval(gains[:2]) == pytest.approx(
        stats.t.interval(0.95, 1, mean(gains[:2]), stats.sem(gains[:2])), abs=0.01
    )
