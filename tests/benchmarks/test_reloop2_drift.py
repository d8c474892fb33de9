"""The benchmark of drift says no when it should, resumes, and compares what it says it compares."""

import json

import pytest
import torch

from tests.benchmarks.reloop2_parts import keep_streams, small_log

QUICK = ["--quick", "--check"]
# what 4,000 rows of a stream can show
LOOSE = {"knn": 0.5, "sketch": 0.3, "AUC lost": 1.0, "logloss": 1.5, "fixed": -1.5, "incremental": -1.5, "leak": 1.5}


@pytest.fixture
def drift(script_of, monkeypatch):
    """The script on small streams; what a run trained is there for the next."""
    script = script_of("reloop2_drift")

    def make(kind, seed, size, device):
        data = small_log(kind, seed)
        return script.r.Stream(data, seed, device, truth=data.true_probability[-data.n_test :].float())

    keep_streams(monkeypatch, script, make)
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": LOOSE, "full": LOOSE})
    return script


def failed(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILS")]


def run_again_with(drift, monkeypatch, out, row, instead):
    """Run the rest of a finished study after one row of it, on every stream, was taken out and replaced."""
    study = json.loads(out.read_text())
    study["rows"] = [saved for saved in study["rows"] if not saved["method"].endswith(f": {row}")]
    changed = out.with_name("changed.json")
    changed.write_text(json.dumps(study))
    with monkeypatch.context() as patch:
        patch.setitem(drift.ROWS, row, instead)
        return drift.main([*QUICK, "--out", str(changed)])


def test_check_passes_with_the_method_and_fails_with_a_control_or_a_leak(drift, monkeypatch, tmp_path, capsys):
    out = tmp_path / "drift.json"
    assert drift.main([*QUICK, "--out", str(out)]) == 0
    assert not failed(capsys)
    for row in (drift.fixed("knn"), drift.fixed("sketch"), drift.r.ADAPTIVE):
        assert run_again_with(drift, monkeypatch, out, row, drift.r.residuals()) == 1  # a running intercept instead
        lines = failed(capsys)
        assert lines
        assert all(row in line for line in lines)

    def knows_labels(stream):
        return stream.measure((stream.base + 0.1 * (stream.rows["label"] - stream.base)).clamp(0, 1))

    row = drift.r.ADAPTIVE + drift.r.SHUFFLED
    assert run_again_with(drift, monkeypatch, out, row, drift.r.on_shuffled(knows_labels)) == 1
    (line,) = failed(capsys)
    assert "adaptive minus base, shuffled labels" in line


def test_a_full_run_has_every_row_and_is_continued(drift, monkeypatch, tmp_path):
    out = tmp_path / "drift.json"
    monkeypatch.setattr(drift, "KINDS", ("gradual",))
    assert drift.main(["--seeds", "1", "--out", str(out)]) == 0
    runs = {row["method"]: row["runs"][0] for row in json.loads(out.read_text())["rows"]}
    assert set(runs) == {f"gradual: {name}" for name in drift.ROWS}
    assert out.with_suffix(".png").stat().st_size > 0
    oracle = runs.pop(f"gradual: {drift.ORACLE}")
    fair = {name: run for name, run in runs.items() if not name.endswith(drift.r.SHUFFLED)}
    assert all(oracle["slot AUC"] > run["slot AUC"] and oracle["logloss"] < run["logloss"] for run in fair.values())
    assert oracle["calibration"] == pytest.approx(1, abs=0.05)
    assert runs[f"gradual: {drift.DELAYED}"]["curve"] != runs[f"gradual: {drift.r.ADAPTIVE}"]["curve"]

    monkeypatch.setattr(drift, "stream_of", None)  # nothing is left to run
    assert drift.main(["--seeds", "1", "--out", str(out)]) == 0
    assert drift.main(["--seeds", "1", "--out", str(out), "--quick"]) == 2


def made_up(drift, kind_rows):
    """A full study of three seeds with given late AUCs; the rest follows from them."""
    study = drift.h.Study("any", "slot AUC", {}, drift.h.Options(False, True, None, (0, 1, 2), "cpu", 1))
    for (kind, row), late in kind_rows.items():
        for seed, wobble in enumerate((-0.2, 0.0, 0.2)):
            value = late + wobble
            study.add(
                drift.label(kind, row), seed, {"slot AUC": value, "late AUC": value, "logloss": 0.5 - value / 500}
            )
    return study


def results(drift, **better):
    """What holds just so: knn, sketch and adaptive over a base of 60; no drift: as the base."""
    gains = {"knn": 0.85, "sketch": 0.35, "adaptive": 1.45, "leak": 0.15, "none": -0.05, "incremental": 1.9, **better}
    found = {}
    for kind in drift.KINDS:
        drifts = kind in drift.DRIFTS
        found[kind, drift.r.BASE] = found[kind, drift.r.BASE + drift.r.SHUFFLED] = 60.0
        for backend in drift.BACKENDS:
            for number, lam in enumerate(drift.r.LAMBDAS):
                found[kind, drift.fixed(backend, lam)] = 60 + (
                    gains[backend] + 0.3 * number if drifts else gains["none"]
                )
        for rate in drift.RATES:
            found[kind, drift.trained(rate)] = 60 + (gains["incremental"] if rate == 1e-3 and drifts else 0.0)
        found[kind, drift.r.ADAPTIVE] = 60 + (gains["adaptive"] if drifts else gains["none"])
        for row in (drift.fixed("knn"), drift.r.ADAPTIVE):
            found[kind, row + drift.r.SHUFFLED] = 60 + gains["leak"]
    return found


@pytest.fixture
def shipped(script_of):
    return script_of("reloop2_drift")


def test_the_claims_of_the_full_run_are_those_of_the_issue(shipped):
    bounds = shipped.THRESHOLDS["full"]
    claims = shipped.check(made_up(shipped, results(shipped)), bounds)
    assert all(claim.holds for claim in claims)
    assert len(claims) == 4 + 6 + 3 + 1 + 6
    for change in (
        {"knn": 0.75},
        {"sketch": 0.25},
        {"adaptive": 1.3},
        {"leak": 0.25},
        {"none": -0.15},
        {"incremental": 2.0},
    ):
        claims = shipped.check(made_up(shipped, results(shipped, **change)), bounds)
        assert not all(claim.holds for claim in claims), change
    one_worse = {**results(shipped), ("abrupt", shipped.trained(1e-3)): 63.0}  # it is enough to keep up on one drift
    assert all(claim.holds for claim in shipped.check(made_up(shipped, one_worse), bounds))


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_shipped_thresholds_fail_when_a_method_is_its_control(shipped, size):
    for name in ("knn", "sketch"):
        claims = shipped.check(made_up(shipped, results(shipped, **{name: 0.0})), shipped.THRESHOLDS[size])
        broken = [claim.text for claim in claims if not claim.holds]
        assert any(name in text for text in broken)
    claims = shipped.check(made_up(shipped, results(shipped, adaptive=0.0)), shipped.THRESHOLDS[size])
    assert any("best fixed lambda" in claim.text and not claim.holds for claim in claims)


def test_nothing_holds_of_what_was_not_run(shipped):
    empty = made_up(shipped, {})
    assert not any(claim.holds for claim in shipped.check(empty, shipped.THRESHOLDS["full"]))


def test_the_oracle_needs_the_truth(shipped):
    class Untold:
        truth = None

    with pytest.raises(ValueError, match="truth"):
        shipped.oracle(Untold())


def test_the_truth_belongs_to_the_rows_of_the_stream(shipped, monkeypatch):
    monkeypatch.setattr(shipped, "DriftStream", lambda kind, seed, **_: small_log(kind, seed))
    with shipped.h.bench_settings(1):
        stream = shipped.stream_of("abrupt", 1, "quick", "cpu")
    label = stream.rows["label"]
    assert stream.truth.shape == label.shape
    expected = -(label * stream.truth.log() + (1 - label) * (1 - stream.truth).log()).mean()
    entropy = -(stream.truth * stream.truth.log() + (1 - stream.truth) * (1 - stream.truth).log()).mean()
    torch.testing.assert_close(expected, entropy, rtol=0, atol=0.03)
