"""The benchmark of planted noise: its rows are paired, its control knows nothing, and its claims can fail."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.benchmarks.divconq_parts import write_lima


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_lima(tmp_path_factory.mktemp("data"))


@pytest.fixture
def script(script_of):
    return script_of("divconq_planted_noise")


@pytest.fixture
def training(script_of):
    return script_of("_divconq_training")


@pytest.fixture
def small(training, script_of, monkeypatch):
    """A few steps."""
    monkeypatch.setattr(script_of("_divconq_lima"), "FOR_PRETRAINING", 40)
    noise = training.Noise(40, 20, 2)
    return training.Setting(noise, held_out=8, budget=24, k=6, pretraining_epochs=1, last_epochs=1)


def test_parts_of_a_seed_do_not_overlap_and_only_garbage_is_flagged(script_of, folder):
    lima = script_of("_divconq_lima")
    pairs = lima.read_lima(folder)
    assert len(pairs) == 1029  # one had no answer
    pool = lima.pool_of(pairs, lima.Noise(300, 45, 9), 100, seed=1)
    assert [len(part) for part in pool] == [250, 345, 100]
    prompts = [row["messages"][0]["content"] for part in pool for row in part]
    assert len(set(prompts)) > 0.97 * 695  # cut short, a few of them are alike
    assert [row["garbage"] for row in pool.rows] == [False] * 300 + [True] * 45
    assert not any(row["garbage"] for row in [*pool.before, *pool.held_out])
    words = set(lima.dictionary(pairs))
    for row in pool.rows:
        prompt, answer = (message["content"].split() for message in row["messages"])
        assert len(prompt) <= lima.PROMPT_WORDS
        assert len(answer) <= lima.RESPONSE_WORDS
        assert not row["garbage"] or set(answer) <= words
    again = lima.pool_of(pairs, lima.Noise(40, 20, 2), 100, seed=1)
    assert again.before == pool.before
    assert again.held_out == pool.held_out  # the same whatever the noise
    assert again.rows[:40] == pool.rows[:40]


def test_rows_of_a_seed_share_start_and_steps_and_differ_in_what_they_select(script_of, training, small, folder):
    pairs = script_of("_divconq_lima").read_lima(folder)
    rows = (training.UNIFORM, training.EQUAL, training.OURS)
    with training.h.bench_settings(1):
        found = {row: training.run(row, 0, small, pairs) for row in rows}
        again = training.run(training.OURS, 0, small, pairs)
    assert training.base_of.cache_info().misses == 1
    assert {run["steps"] for run in found.values()} == {6}  # 24 rows by 8, twice
    assert {run["selected"] for run in found.values()} == {24}
    assert len({run["loss"] for run in found.values()}) > 1
    assert {key: value for key, value in again.items() if key != "seconds"} == {
        key: value for key, value in found[training.OURS].items() if key != "seconds"
    }
    assert "weights" not in found[training.UNIFORM]
    assert len(found[training.EQUAL]["weights"]) == 1
    weights = found[training.OURS]["weights"]
    assert len(weights) == 3
    assert weights[2] < weights[0]


def test_the_weight_of_garbage_is_that_of_its_clusters(training):
    selection = SimpleNamespace(
        labels=torch.tensor([0, 0, 1, 1, 1, 2, -1]),
        rows=torch.tensor([0, 5]),
        k=3,
        history=[{"weights": [0.5, 0.25, 0.25]}, {"weights": [0.1, 0.3, 0.6]}],
    )
    garbage = torch.tensor([True, False, False, False, False, True, True])
    found = training.summary(selection, garbage)
    assert found["weights"] == pytest.approx([0.25 + 0.25, 0.05 + 0.6])
    assert found["mixed"] == 1
    assert found["garbage"] == 1.0


def test_random_scores_move_weights_both_ways_and_not_on_average(training, script_of, small, folder):
    pairs = script_of("_divconq_lima").read_lima(folder)
    found = training.random_scores(0, small, pairs, draws=60)
    assert found == training.random_scores(0, small, pairs, draws=60)
    assert found != training.random_scores(1, small, pairs, draws=60)
    assert len(found["weights"]) == 3
    assert found["weights"][2] == pytest.approx(found["weights"][0], abs=0.12)
    assert 0 < found["low"] < 0.7


def study(script, size="full", **weights):
    """A study with made-up results."""
    options = script.h.Options(size == "quick", True, None, (0, 1, 2), "cpu", 1)
    made = script.h.Study("divconq_planted_noise", "weight", {}, options)
    values = {script.OURS: 0.01, script.OURS_MINILM: 0.01, script.PERPLEXITY: 0.4} | weights
    for row, value in values.items():
        for seed in options.seeds:
            made.add(row, seed, {"weight": value})
    return made


@pytest.mark.parametrize(
    ("row", "weight", "failing"),
    [
        ("iterative, TF-IDF", 0.049, 0),
        ("iterative, TF-IDF", 0.051, 1),
        ("iterative, MiniLM", 0.021, 1),
        ("iterative, perplexity", 0.24, 1),
    ],
)
def test_the_claims_hold_up_to_their_bounds(script, row, weight, failing):
    claims = script.check(study(script, **{row: weight}), script.THRESHOLDS["full"])
    assert len(claims) == 3
    assert sum(not claim.holds for claim in claims) == failing


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_shipped_thresholds_fail_when_nothing_is_driven_out(script, size):
    same = dict.fromkeys((script.OURS, script.OURS_MINILM, script.PERPLEXITY), 4 / 24)
    claims = script.check(study(script, size, **same), script.THRESHOLDS[size])
    assert not any(claim.holds for claim in claims)


def test_one_bad_seed_fails_a_claim_about_the_worst(script):
    made = study(script)
    made.add(script.OURS, 1, {"weight": 0.2})
    assert [claim.holds for claim in script.check(made, script.THRESHOLDS["full"])] == [False, True, True]


def test_the_script_runs_and_goes_on(script, monkeypatch, small, folder, tmp_path, capsys):
    monkeypatch.setattr(script, "QUICK", small)
    out = tmp_path / "out.json"
    options = ["--quick", "--data", str(folder), "--out", str(out)]
    assert script.main(options) == 0  # without --check the claims are only printed
    rows = {row["method"]: row["n"] for row in json.loads(out.read_text())["rows"]}
    assert rows == dict.fromkeys(script.THRESHOLDS["quick"], 1)
    assert out.with_suffix(".png").stat().st_size > 0
    text = capsys.readouterr().out
    assert "40 rows of LIMA, 20 of garbage" in text
    assert text.count("(quick)") == 2
    before = out.read_bytes()
    monkeypatch.setattr(script, "run", lambda *_: pytest.fail("it was there"))
    assert script.main(options) == 0
    monkeypatch.setattr(script, "QUICK", replace(small, k=5))
    assert script.main(options) == 2
    assert "k=6, here 5" in capsys.readouterr().out.replace("\n", " ")
    assert out.read_bytes() == before


def test_without_lima_it_says_where_it_looked(script, tmp_path, capsys):
    assert script.main(["--data", str(tmp_path)]) == 2
    assert str(tmp_path / "lima" / "train.jsonl") in capsys.readouterr().out.replace("\n", "")
    assert script.main(["--quick", "--check", "--data", str(tmp_path)]) == 0
