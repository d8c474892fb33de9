"""The benchmark of the loss: the oracle selects no garbage, steps are equal, and its claims can fail."""

import json

import pytest

from tests.benchmarks.divconq_parts import write_lima

GAINS = (0.01, -0.01, 0.0)  # what three seeds differ by


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_lima(tmp_path_factory.mktemp("data"))


@pytest.fixture
def script(script_of):
    return script_of("divconq_loss")


@pytest.fixture
def small(script, script_of, monkeypatch):
    """A few steps."""
    monkeypatch.setattr(script_of("_divconq_lima"), "FOR_PRETRAINING", 40)
    noise = script.Noise(40, 60, 3)
    return script.Setting(noise, held_out=8, budget=24, k=6, pretraining_epochs=1, last_epochs=1)


def study(script, size="full", **over):
    """A study with made-up results: how far the loss of each row is over ours."""
    options = script.h.Options(size == "quick", True, None, (0, 1, 2), "cpu", 1)
    made = script.h.Study("divconq_loss", "loss", {}, options)
    for seed, gain in enumerate(GAINS):
        made.add(script.OURS, seed, {"loss": 4.8 + 10 * gain})  # seeds differ by more than rows, so pairing counts
        for row, more in ({script.UNIFORM: 0.08, script.EQUAL: 0.03} | over).items():
            made.add(row, seed, {"loss": 4.8 + 10 * gain + more + gain})
    return made


@pytest.mark.parametrize(
    ("row", "more", "failing"),
    [
        ("uniform random", 0.051, 0),
        ("uniform random", 0.049, 1),
        ("equal clusters", 0.021, 0),
        ("equal clusters", 0.019, 1),
    ],
)
def test_the_claims_hold_up_to_their_bounds(script, row, more, failing):
    claims = script.check(study(script, **{row: more}), script.THRESHOLDS["full"])
    assert len(claims) == 2
    assert sum(not claim.holds for claim in claims) == failing


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_shipped_thresholds_fail_when_all_select_alike(script, size):
    claims = script.check(study(script, size, **{script.UNIFORM: 0.0, script.EQUAL: 0.0}), script.THRESHOLDS[size])
    assert not any(claim.holds for claim in claims)


def test_a_missing_row_is_not_a_claim_that_holds(script):
    made = study(script)
    made._runs.pop(script.EQUAL)
    assert [claim.holds for claim in script.check(made, script.THRESHOLDS["full"])] == [True, False]


def test_all_rows_take_equal_steps_and_the_oracle_takes_no_garbage(
    script, small, folder, monkeypatch, tmp_path, capsys
):
    rows = (script.UNIFORM, script.ORACLE, script.QUALITY, script.PERPLEXITY)
    monkeypatch.setattr(script, "ROWS", rows)
    monkeypatch.setattr(script, "SETTING", small)
    out = tmp_path / "out.json"
    assert script.main(["--seeds", "1", "--data", str(folder), "--out", str(out)]) == 0
    found = {row["method"]: row["runs"][0] for row in json.loads(out.read_text())["rows"]}
    assert set(found) == set(rows)
    assert {run["steps"] for run in found.values()} == {6}
    assert found[script.ORACLE]["garbage"] == 0
    assert found[script.UNIFORM]["garbage"] > 0.3
    text = capsys.readouterr().out
    assert "PerplexityScorer raises the weight" in text
    assert "not measured" in text  # the claims about rows that did not run


def test_epochs_make_equal_steps(script, small):
    full = script.SETTING
    sizes = [full.budget // 3, 2 * full.budget // 3, full.budget]
    rounds = [1] * 2 + [full.last_epochs]
    visits = sum(size * epochs for size, epochs in zip(sizes, rounds, strict=True))
    assert visits == full.budget * full.epochs(script.UNIFORM) == 960
    assert sum(rounds) == full.epochs(script.OURS) == 5
    assert full.budget // 3 % full.batch == 0  # no short batches in any round


def test_without_lima_it_says_where_it_looked(script, tmp_path, capsys):
    assert script.main(["--data", str(tmp_path)]) == 2
    assert str(tmp_path / "lima" / "train.jsonl") in capsys.readouterr().out.replace("\n", "")
