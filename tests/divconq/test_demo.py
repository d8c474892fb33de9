"""The divconq section of the demo, in its smallest form: its rows, and a verdict that says what they hold."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt import demo
from lightning_adapt._shared.report import write_page
from lightning_adapt.divconq import demo as ours

NBSP = "\N{NO-BREAK SPACE}"
SHARES = {"random": 60.0, "equal": 33.0, "perplexity": 70.0, "ours": 15.0}


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    caught, out = [], tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            demo, "write_page", lambda found, *rest, **more: caught.extend(found) or write_page(found, *rest, **more)
        )
        patch.chdir(out)
        assert demo.run("divconq", out / "page", quick=True) == 0
    names = {f"divconq-{name}-{scheme}.svg" for name in ("weights", "map") for scheme in ("light", "dark")}
    assert {path.name for path in (out / "page").iterdir()} == {"index.html", *names}
    return caught[0]


def test_rows_hold_the_method_its_controls_and_its_baseline(section):
    assert [row.kind for row in section.rows] == ["baseline", "control", "control", "ours"]
    losses, gains, garbage, seconds = ([row.cells[column].value for row in section.rows] for column in range(4))
    assert all(3 < loss < 7 for loss in losses)  # a model that knows nothing has 6.7
    assert gains == pytest.approx([loss - losses[0] for loss in losses])
    assert garbage[3] < garbage[1] < garbage[0]
    assert garbage[3] < garbage[2]
    assert all(value > 0 for value in seconds)


def test_the_verdict_holds_the_numbers_of_the_rows(section):
    for row in section.rows:
        assert f"{row.cells[2].value:.0f}{NBSP}%" in section.verdict
        if row.name != ours._ARMS["perplexity"].name:
            assert f"{row.cells[0].value:.3f}" in section.verdict


@pytest.mark.parametrize(
    ("losses", "perplexity", "words"),
    [
        ([4.0, 4.1, 4.05], 70.0, ["is lower (-0.500, 95", "and lower (-0.300, 95", "go by decides"]),
        ([4.3, 4.4, 4.35], 10.0, ["is lower", "not clearly different from (+0.000, 95", "no worse"]),
        ([5.0, 5.1, 5.05], 70.0, ["is higher (+0.500", "and higher"]),
    ],
)
def test_the_verdict_follows_the_paired_differences(losses, perplexity, words):
    others = {"random": [4.5, 4.6, 4.55], "equal": [4.3, 4.4, 4.35], "perplexity": [4.6, 4.6, 4.6]}
    verdict = ours._verdict({**others, "ours": losses}, {**SHARES, "perplexity": perplexity})
    assert all(word in verdict for word in words)
    assert f"15{NBSP}% of the rows were garbage" in verdict


def test_clusters_are_named_by_their_topics_and_weigh_what_their_garbage_weighs():
    pool = [{"topic": topic, "garbage": topic == "chess"} for topic in ("area", "area", "chess", "code", "chess")]
    labels = torch.tensor([0, 0, 0, 1, 2])
    assert ours._names(labels, pool) == ["area", "code", "CHESS"]
    assert ours._garbage_weight(torch.tensor([0.3, 0.6, 0.1]), labels, pool) == pytest.approx(0.3 / 3 + 0.1)
