"""The benchmark of loss-guided rounds: its noise, its interval, its clock, and claims that its control fails."""

import pytest
import torch
from scipy import stats


@pytest.fixture
def script(script_of, monkeypatch):
    """The script on small data."""
    script = script_of("rs2_loss_guided")

    def load(split):
        draws = torch.Generator().manual_seed(0)
        targets = torch.randint(10, (1280 if split == "train" else 100,), generator=draws)
        centres = torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        return script.CountedRows(centres[targets] + torch.randn(len(targets), 1, 28, 28, generator=draws), targets)

    monkeypatch.setattr(script, "load", load)
    monkeypatch.setattr(script, "BATCH", 32)
    return script


def test_noise_moves_its_share_to_another_class_evenly(script):
    labels = torch.arange(50_000) % 10
    noisy = script.noisy(labels, 0.2, seed=3)
    moved = noisy != labels
    assert int(moved.sum()) == 10_000
    shift = torch.bincount((noisy - labels)[moved] % 10, minlength=10)
    assert shift[0] == 0
    assert stats.chisquare(shift[1:].numpy()).pvalue > 0.001
    assert torch.equal(noisy, script.noisy(labels, 0.2, seed=3))
    assert not torch.equal(noisy, script.noisy(labels, 0.2, seed=4))
    assert torch.equal(script.noisy(labels, 0.0, seed=3), labels)


def test_interval_against_scipy(script):
    values = [0.3, 0.9, 0.5, 0.7, 0.2]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert script.h.interval(values) == pytest.approx((expected.low, expected.high))
    assert script.h.interval([0.3]) == (-float("inf"), float("inf"))


def study(script, tmp_path, gain, noisy_gain, size="full", cost=0.01):
    """A study with made-up results: compressed full at 90 and 88, guided rounds that much better."""
    options = script.h.Options(size == "quick", True, None, tuple(range(5)), "cpu", 1)
    made = script.h.Study("rs2_loss_guided", "accuracy", {"net": "cnn"}, options)
    for seed, wobble in enumerate((0.1, -0.1, 0.0, 0.05, -0.05)):
        for noise, base, more in ((0.0, 90.0, gain), (0.2, 88.0, noisy_gain)):
            for row, value in ((script.COMPRESSED, base), (script.GUIDED, base + more + wobble)):
                seconds = {"training seconds": 10.0, "selecting seconds": 10 * cost, "seconds": 10.0}
                made.add(script.label(0.1, noise, row), seed, {"accuracy": value, **seconds})
    return made


@pytest.mark.parametrize(
    ("gain", "noisy_gain", "cost", "holds"),
    [(0.6, 0.1, 0.01, True), (0.4, 0.1, 0.01, False), (0.6, -0.3, 0.01, False), (0.6, 0.1, 0.04, False)],
)
def test_the_claims_of_the_full_run(script, tmp_path, gain, noisy_gain, cost, holds):
    claims = script.check(study(script, tmp_path, gain, noisy_gain, cost=cost), script.THRESHOLDS["full"])
    assert len(claims) == 4
    assert all(claim.holds for claim in claims) == holds


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_shipped_thresholds_fail_when_the_method_is_its_control(script, tmp_path, size):
    claims = script.check(study(script, tmp_path, 0.0, 0.0, size), script.THRESHOLDS[size])
    assert not all(claim.holds for claim in claims)


def test_a_wide_interval_fails_the_claim(script, tmp_path):
    made = study(script, tmp_path, 0.6, 0.1)
    made.add(script.label(0.1, 0.0, script.GUIDED), 0, {**made.runs(script.label(0.1, 0.0, script.GUIDED))[0]})
    made._runs[script.label(0.1, 0.0, script.GUIDED)][0]["accuracy"] = 95.0  # one lucky seed
    claims = {claim.text: claim.holds for claim in script.check(made, script.THRESHOLDS["full"])}
    assert [holds for text, holds in claims.items() if "interval" in text] == [False]


def test_guided_rounds_see_the_losses_and_are_clocked(script, monkeypatch):
    options = script.h.Options(False, True, None, (0,), "cpu", 1)
    bench = script.benches("cnn", options)(0, 0.1, 0.2)
    plan = script.guided(bench, 0)
    with script.h.bench_settings(1):
        run = bench.run(0, plan, bench.steps)
    (callback,) = plan.callbacks
    assert run["steps"] == 4 * script.ROUNDS
    guide = callback.sampler.guide
    assert guide.warm == script.ROUNDS // 4
    assert guide.owed is not None  # rounds were guided
    assert int(torch.isfinite(guide.latest()).sum()) == int(plan.data.seen.sum())
    assert 0 < run["selecting seconds"] < run["training seconds"]


@pytest.mark.filterwarnings("ignore:.*losses guide a run of:UserWarning")
def test_the_quick_run_does_what_is_checked_and_writes_it(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "ROUNDS", 4)
    out = tmp_path / "out.json"
    script.main(["--quick", "--seeds", "2", "--out", str(out)])
    assert out.exists()
    assert out.with_suffix(".png").exists()
    text = capsys.readouterr().out
    assert "95 % interval" in text
    assert text.count("(quick)") == 2
