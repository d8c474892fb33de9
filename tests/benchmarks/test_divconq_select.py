"""The benchmark of `select` runs the real command in a process of its own, and says no when it should."""

import json

import pytest

pytest.importorskip("sklearn")


@pytest.fixture
def script(script_of):
    return script_of("divconq_select")


def test_a_pool_is_seeded_and_has_topics_copies_and_empty_responses(script):
    lines = list(script.pool(2100, 0))  # more than a block
    assert len(lines) == 2100
    assert lines[:20] != list(script.pool(20, 1))
    assert list(script.pool(50, 0)) == list(script.pool(50, 0))
    rows = [json.loads(line)["messages"] for line in lines]
    assert all([turn["role"] for turn in row] == ["user", "assistant"] for row in rows)
    empty = sum(not row[1]["content"] for row in rows)
    assert 3 <= empty <= 25  # 10 expected
    assert 6 <= len(lines) - len(set(lines)) <= 45  # 21 expected
    lengths = [len(row[0]["content"].split()) for row in rows]
    assert (min(lengths), max(lengths)) == (8, 60)


def test_the_command_runs_and_its_cost_is_measured(script, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(script, "ROWS", {"quick": 100})
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": {"seconds": 300.0, "MiB": 4000.0}})
    out = tmp_path / "select.json"
    arguments = ["--quick", "--check", "--threads", "1", "--out", str(out)]
    assert script.main(arguments) == 0
    saved = {row["method"]: row["runs"][0] for row in json.loads(out.read_text())["rows"]}
    assert set(saved) == {"kmq", "random"}
    for run in saved.values():
        assert run["chosen"] == 5
        assert 100 < run["MiB"] < 4000
        assert run["cpu seconds"] > 0
        assert run["seconds"] > 0
    assert saved["kmq"]["MiB"] > saved["random"]["MiB"]
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": {"seconds": 0.1, "MiB": 4000.0}})
    monkeypatch.setattr(script, "measure", lambda *_: pytest.fail("it is measured already"))
    assert script.main(arguments) == 1
    assert "FAILS  (quick) kmq on 100 rows: seconds (end to end) <= 0.1" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("changed", "code"),
    [({}, 0), ({"seconds": 181}, 1), ({"MiB": 5000}, 1), ({"chosen": 9_999}, 1), ({"chosen": 10_001}, 1)],
)
def test_the_claims_of_the_full_run(script, changed, code):
    options = script.h.Options(False, True, None, (0,), "cpu", 2)
    study = script.h.Study("divconq_select", script.METRIC, {}, options)
    cost = {"seconds": 170, "cpu seconds": 200, "MiB": 1000, "chosen": 10_000, "rows": 200_000}
    study.add("kmq", 0, {**cost, **changed})
    study.add("random", 0, {**cost, "seconds": 500, "MiB": 9000})  # what others cost is no claim
    assert script.h.verdict(script.check(study, "full"), options) == code


def test_nothing_measured_is_nothing_claimed(script):
    options = script.h.Options(False, True, None, (0,), "cpu", 2)
    study = script.h.Study("divconq_select", script.METRIC, {}, options)
    assert script.h.verdict(script.check(study, "full"), options) == 1


def test_a_command_that_fails_is_no_measurement(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "BUDGET", 2.5)
    with pytest.raises(RuntimeError, match="ended with code 2"):
        script.measure(30, tmp_path, 1, "random", 0)
