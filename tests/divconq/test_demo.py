"""The divconq section of the demo, in its smallest form: its rows, and a verdict that says what they hold."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt._shared.quiet import quiet_lightning
from lightning_adapt._shared.report import write_page
from lightning_adapt.divconq import demo as ours
from tests.contracts.demo_parts import CountingContext

NBSP = "\N{NO-BREAK SPACE}"
SHARES = {"random": 60.0, "equal": 33.0, "perplexity": 70.0, "ours": 15.0}


@pytest.fixture(scope="module")
def finding(tmp_path_factory):
    out, context = tmp_path_factory.mktemp("demo"), CountingContext()
    with quiet_lightning():
        section = ours.run(context)
    assert context.steps == context.total > 0
    write_page([section], out)
    names = {f"divconq-{name}-{scheme}.svg" for name in ("weights", "map") for scheme in ("light", "dark")}
    assert {path.name for path in out.iterdir()} == {"index.html", *names}
    (finding,) = section.findings
    return finding


def test_rows_hold_the_method_its_controls_and_its_baseline(finding):
    assert [row.kind for row in finding.rows] == ["baseline", "control", "control", "ours"]
    losses, gains, garbage, seconds = ([row.cells[column].value for row in finding.rows] for column in range(4))
    assert all(3 < loss < 7 for loss in losses)  # a model that knows nothing has 6.7
    assert gains == pytest.approx([loss - losses[0] for loss in losses])
    assert garbage[3] < garbage[1] < garbage[0]
    assert garbage[3] < garbage[2]
    assert all(value > 0 for value in seconds)


def test_the_verdict_holds_the_numbers_of_the_rows(finding):
    for row in finding.rows:
        assert f"{row.cells[2].value:.0f}{NBSP}%" in finding.gained + finding.not_gained
        if row.name != ours._ARMS["perplexity"].name:
            assert f"{row.cells[0].value:.3f}" in finding.gained + finding.not_gained


@pytest.mark.parametrize(
    ("losses", "perplexity", "words"),
    [
        (
            [4.0, 4.1, 4.05],
            70.0,
            [
                "is better than a random subset (-0.500, 95",
                "and better than equal quotas of clusters (-0.300, 95",
                "what is hard",
            ],
        ),
        (
            [4.3, 4.4, 4.35],
            10.0,
            ["is better than a random", "not clearly different from equal quotas of clusters (+0.000, 95", "no worse"],
        ),
        ([5.0, 5.1, 5.05], 70.0, ["is worse than a random subset (+0.500", "is worse than equal quotas"]),
    ],
)
def test_the_verdict_follows_the_paired_differences(losses, perplexity, words):
    others = {"random": [4.5, 4.6, 4.55], "equal": [4.3, 4.4, 4.35], "perplexity": [4.6, 4.6, 4.6]}
    losses, shares = {**others, "ours": losses}, {**SHARES, "perplexity": perplexity}
    seconds = {"random": 4.0, "ours": 6.0}
    text = f"{ours._gained(losses, shares)} {ours._not_gained(losses, shares, seconds)}"
    assert all(word in text for word in words)
    assert "15 % of the rows are garbage" in text
    assert "6.0 s against 4.0 s" in text
    score = ours._score(losses, shares, seconds)
    assert score.result == ("better" if "is better than a random" in text else "worse")
    assert ("not clearly better than choosing once" in score.but) == ("and better than equal" not in text)
    assert "1.5 times the time" in score.but


def test_clusters_are_named_by_their_topics_and_weigh_what_their_garbage_weighs():
    pool = [{"topic": topic, "garbage": topic == "chess"} for topic in ("area", "area", "chess", "code", "chess")]
    labels = torch.tensor([0, 0, 0, 1, 2])
    assert ours._names(labels, pool) == ["area", "code", "CHESS"]
    assert ours._garbage_weight(torch.tensor([0.3, 0.6, 0.1]), labels, pool) == pytest.approx(0.3 / 3 + 0.1)
