"""The ReLoop2 section of the demo, in its smallest form: its rows, and a verdict that says what they hold."""

from __future__ import annotations

import pytest

from lightning_adapt import demo
from lightning_adapt._shared.report import Cell, write_page
from lightning_adapt.reloop2 import demo as ours


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    caught, out = [], tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            demo, "write_page", lambda found, *rest, **more: caught.extend(found) or write_page(found, *rest, **more)
        )
        patch.chdir(out)
        assert demo.run("reloop2", out / "page", quick=True) == 0
    assert {path.name for path in (out / "page").iterdir()} == {
        "index.html",
        "reloop2-slots-light.svg",
        "reloop2-slots-dark.svg",
    }
    return caught[0]


def test_rows_hold_the_method_its_controls_and_its_baselines(section):
    assert [row.kind for row in section.rows] == [
        "baseline",
        "control",
        "baseline",
        "baseline",
        "control",
        "ours",
        "ours",
    ]
    late, whole, loss, milliseconds = ([row.cells[column].value for row in section.rows] for column in range(4))
    assert all(50 < value < 80 for value in late + whole)
    assert all(0.3 < value < 0.8 for value in loss)
    assert min(milliseconds) == milliseconds[0] > 0
    assert late[-1] == max(late)


def test_verdict_says_what_the_rows_hold(section):
    auc = {name: row.cells[0] for name, row in zip(ours._ARMS, section.rows, strict=True)}
    for name in ("base", "adaptive", "sketch", "paper"):
        assert f"{auc[name].value:.1f} %" in section.verdict
    beaten = {**auc, "bold": Cell(auc["adaptive"].value + 1)}
    assert "no better than that" in ours._verdict(beaten)
    assert "no better than that" not in ours._verdict({**auc, "bold": auc["base"], "timid": auc["base"]})
