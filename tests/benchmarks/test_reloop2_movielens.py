"""The benchmark on MovieLens says no when it should, says so when there is no data, and checks both protocols."""

import json

import pytest

from tests.benchmarks.reloop2_parts import keep_streams, small_log

QUICK = ["--quick", "--check"]


@pytest.fixture
def movielens(script_of, monkeypatch):
    """The script on a small made-up log instead of MovieLens; what a run trained is there for the next."""
    script = script_of("reloop2_movielens")
    monkeypatch.setattr(script, "load", lambda folder, seed: small_log("gradual", seed))
    keep_streams(monkeypatch, script, script.stream_of)
    bounds = {"over base": 0.3, "logloss over base": 0.0, "over incremental": 0.0, "logloss over incremental": 0.0}
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": bounds, "full": bounds})
    return script


def test_check_passes_with_the_method_and_fails_with_its_control(movielens, monkeypatch, capsys):
    assert movielens.main(QUICK) == 0
    capsys.readouterr()
    monkeypatch.setitem(movielens.ROWS, movielens.r.ADAPTIVE, movielens.r.residuals())
    assert movielens.main(QUICK) == 1
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("FAILS")]
    assert lines
    assert not any(movielens.LATE in line for line in lines)  # that protocol has its own row, which was left as it is


def test_a_full_run_has_every_row_and_is_continued(movielens, monkeypatch, tmp_path):
    out = tmp_path / "movielens.json"
    assert movielens.main(["--seeds", "1", "--out", str(out)]) == 0
    runs = {row["method"]: row["runs"][0] for row in json.loads(out.read_text())["rows"]}
    assert list(runs) == list(movielens.ROWS)
    assert out.with_suffix(".png").stat().st_size > 0
    for name in (movielens.r.ADAPTIVE, movielens.trained(1e-3), movielens.USER_ITEM):
        assert runs[name]["curve"] != runs[name + movielens.LATE]["curve"]
    monkeypatch.setattr(movielens, "stream_of", None)  # nothing is left to run
    assert movielens.main(["--seeds", "1", "--out", str(out)]) == 0
    assert movielens.main(["--seeds", "1", "--out", str(out), "--quick"]) == 2


def test_without_data_a_quick_run_says_how_to_get_it_and_a_full_run_fails(script_of, tmp_path, monkeypatch, capsys):
    script = script_of("reloop2_movielens")
    monkeypatch.delenv(script.VARIABLE, raising=False)
    for arguments, code in ((QUICK, 0), (["--check"], 2)):
        assert script.main([*arguments, "--data", str(tmp_path)]) == code
        printed = capsys.readouterr().out
        assert len(printed.strip().splitlines()) == 1
        assert "download=True" in printed
        assert script.VARIABLE in printed
    assert script.main(QUICK) == 0  # no folder given: ./data is not there either


def test_the_variable_says_where_the_data_is(script_of, monkeypatch, tmp_path):
    script = script_of("reloop2_movielens")
    asked = []

    def load(folder, seed):
        asked.append(folder)
        raise FileNotFoundError

    monkeypatch.setattr(script, "load", load)
    monkeypatch.setenv(script.VARIABLE, str(tmp_path))
    script.main(QUICK)
    script.main([*QUICK, "--data", "elsewhere"])
    assert asked == [str(tmp_path), "elsewhere"]


def made_up(script, size, gain=4.0, loss=-0.03, late_gain=2.6, late_loss=-0.022):
    """A study of three seeds: adaptive that much better than a base of 70 and 0.63, the best rival at +1 and -0.01."""
    study = script.h.Study("any", "slot AUC", {}, script.h.Options(size == "quick", True, None, (0, 1, 2), "cpu", 1))
    rows = {
        script.r.BASE: (0.0, 0.0),
        script.r.ADAPTIVE: (gain, loss),
        script.r.ADAPTIVE + script.LATE: (late_gain, late_loss),
    }
    for late in script.PROTOCOLS.values():
        rows |= {script.trained(rate, late): (1.0 if rate == 1e-3 else 0.2, -0.01) for rate in script.RATES}
    for name, (auc, logloss) in rows.items():
        for seed, wobble in enumerate((-0.1, 0.0, 0.1)):
            study.add(name, seed, {"slot AUC": 70 + wobble + auc, "logloss": 0.63 + logloss})
    return study


@pytest.mark.parametrize(
    "worse",
    [{"gain": 2.4}, {"loss": -0.019}, {"late_gain": 2.4}, {"late_loss": -0.019}, {"gain": 1.9}, {"loss": -0.005}],
)
def test_the_claims_of_the_full_run_are_those_of_the_issue(script_of, worse):
    script = script_of("reloop2_movielens")
    claims = script.check(made_up(script, "full"), script.THRESHOLDS["full"])
    assert len(claims) == 8
    assert all(claim.holds for claim in claims)
    assert not all(claim.holds for claim in script.check(made_up(script, "full", **worse), script.THRESHOLDS["full"]))


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_shipped_thresholds_fail_when_adaptive_is_its_control(script_of, size):
    script = script_of("reloop2_movielens")
    for control in ({"gain": 0.0, "loss": 0.0}, {"late_gain": 0.0, "late_loss": 0.0}, {"gain": 1.0, "loss": -0.01}):
        claims = script.check(made_up(script, size, **control), script.THRESHOLDS[size])
        assert not all(claim.holds for claim in claims)
