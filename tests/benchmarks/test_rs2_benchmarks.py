"""The RS2 benchmarks say no when they should, resume, and refuse results that may not be mixed."""

import json
import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def scripts(script_of):
    return {name: script_of(name) for name in ("_harness", "_rs2_training", "rs2_time_to_accuracy", "rs2_overhead")}


@pytest.fixture
def accuracy(scripts, monkeypatch):
    """rs2_time_to_accuracy without Fashion-MNIST: ten noisy classes that a tenth of the rows does not teach."""
    script, training = scripts["rs2_time_to_accuracy"], scripts["_rs2_training"]
    centres = torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    def load(split):
        draws = torch.Generator().manual_seed(len(split))
        targets = torch.randint(10, (4800 if split == "train" else 1000,), generator=draws)
        return training.CountedRows(
            centres[targets] + 4 * torch.randn(len(targets), 1, 28, 28, generator=draws), targets
        )

    monkeypatch.setattr(script, "load", load)
    monkeypatch.setattr(script, "BATCH", 32)
    monkeypatch.setattr(script, "QUICK_ROWS", (script.COMPRESSED, script.STATIC, script.RS2))
    thresholds = {"over static random": 3.0, "from compressed full": 12.0}
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": thresholds, "full": thresholds})
    return script


QUICK = ["--quick", "--check"]


def test_check_passes_with_the_method_and_fails_with_its_control(accuracy, monkeypatch, capsys):
    assert accuracy.main(QUICK) == 0
    monkeypatch.setitem(accuracy.ROWS, accuracy.RS2, accuracy.static_random)
    assert accuracy.main(QUICK) == 1
    assert "FAILS" in capsys.readouterr().out


def test_every_row_of_the_full_run_makes_its_steps(accuracy, monkeypatch, tmp_path):
    load = accuracy.load

    def fewer(split):
        rows = load(split)
        return accuracy.CountedRows(rows.images[:1600], rows.labels[:1600])

    monkeypatch.setattr(accuracy, "load", fewer)
    monkeypatch.setattr(accuracy, "ROUNDS", {"full": 2})
    monkeypatch.setattr(accuracy, "POINTS", {"full": 2})
    out = tmp_path / "rs2.json"
    assert accuracy.main(["--seeds", "1", "--out", str(out)]) == 0  # without --check the claims are only printed
    runs = {row["method"]: row["runs"][0] for row in json.loads(out.read_text())["rows"]}
    labels = {accuracy.LIMITED: "limit_train_batches=0.1"}
    assert list(runs) == [labels.get(name, name) for name in accuracy.ROWS]
    assert {name: run["steps"] for name, run in runs.items()} == {**dict.fromkeys(runs, 10), accuracy.FULL: 100}
    assert runs[accuracy.FULL]["share of data seen"] == 1
    assert runs[accuracy.STATIC]["share of data seen"] == pytest.approx(0.1)
    assert runs[accuracy.RS2]["share of data seen"] == pytest.approx(0.2)
    free = {accuracy.STATIC, "InfoBatch, equal steps"}  # a random subset takes some time, but hardly any
    charged = {name for name, run in runs.items() if run["selecting seconds"] > 0}
    assert charged - free == set(accuracy.RIVALS) - free


def test_a_rerun_continues_and_draws(accuracy, monkeypatch, tmp_path):
    out = tmp_path / "deep" / "rs2.json"
    ran = []
    monkeypatch.setattr(accuracy, "QUICK_ROWS", (accuracy.STATIC, accuracy.RS2))

    def counted(name, plan):
        def build(bench, seed):
            ran.append((name, seed))
            if name == accuracy.RS2 and len(ran) == 2:
                raise KeyboardInterrupt
            return plan(bench, seed)

        return build

    for name in (accuracy.STATIC, accuracy.RS2):
        monkeypatch.setitem(accuracy.ROWS, name, counted(name, accuracy.ROWS[name]))
    with pytest.raises(KeyboardInterrupt):
        accuracy.main(["--quick", "--out", str(out)])
    accuracy.main(["--quick", "--out", str(out)])
    assert ran == [(accuracy.STATIC, 0), (accuracy.RS2, 0), (accuracy.RS2, 0)]
    saved = json.loads(out.read_text())
    assert {"name", "hardware", "versions", "settings", "rows"} <= set(saved)
    assert [(row["method"], row["n"], row["sd"]) for row in saved["rows"]] == [
        (accuracy.STATIC, 1, None),
        (accuracy.RS2, 1, None),
    ]
    assert saved["rows"][1]["runs"][0]["share of data seen"] == pytest.approx(0.8)  # 8 rounds of a tenth
    assert out.with_suffix(".png").stat().st_size > 0
    assert not out.with_suffix(".partial").exists()


def test_other_settings_are_refused(accuracy, monkeypatch, tmp_path, capsys):
    out = tmp_path / "rs2.json"
    monkeypatch.setattr(accuracy, "QUICK_ROWS", (accuracy.STATIC,))
    accuracy.main(["--quick", "--out", str(out)])
    before = out.read_bytes()
    monkeypatch.setattr(accuracy, "ROUNDS", {"quick": 7})
    assert accuracy.main(["--quick", "--out", str(out)]) == 2
    assert "rounds=8, here 7" in capsys.readouterr().out.replace("\n", " ")
    assert out.read_bytes() == before


def recorded(scripts, values, metric):
    options = scripts["_harness"].Options(False, True, None, (0, 1, 2), "cpu", 1)
    study = scripts["_harness"].Study("recorded", metric, {}, options)
    for method, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            study.add(method, seed, value if isinstance(value, dict) else {metric: value})
    return study, options


@pytest.mark.parametrize(
    ("rs2", "code"),
    [
        ([90.1, 90.0, 89.9], 0),
        ([87.0, 88.0, 87.5], 1),  # more than 1.0 below the compressed run
        ([92.0, 91.5, 91.8], 1),  # more than 1.0 above it: then something else than RS2 was measured
        ([86.2, 86.1, 86.3], 1),  # the static subset itself
        ([], 1),  # not measured is not passed
    ],
)
def test_the_claims_of_the_full_run(scripts, rs2, code):
    script, harness = scripts["rs2_time_to_accuracy"], scripts["_harness"]
    values = {
        script.COMPRESSED: [90.0, 89.8, 90.1],
        script.STATIC: [86.2, 86.1, 86.3],
        script.MARGIN: [67, 66, 68],
        script.EL2N: [24, 25, 26],
        script.RS2: rs2,
    }
    study, options = recorded(scripts, values, "accuracy")
    assert harness.verdict(script.check(study, script.THRESHOLDS["full"]), options) == code


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_shipped_thresholds_fail_when_the_method_is_its_control(scripts, size):
    script, harness = scripts["rs2_time_to_accuracy"], scripts["_harness"]
    static = [86.2, 86.1, 86.3]
    values = {script.COMPRESSED: [86.0, 86.2, 86.1], script.STATIC: static, script.MARGIN: [67, 66, 68]}
    study, options = recorded(scripts, {**values, script.EL2N: [24, 25, 26], script.RS2: static}, "accuracy")
    assert harness.verdict(script.check(study, script.THRESHOLDS[size]), options) == 1


@pytest.mark.parametrize(("ratio", "extra", "code"), [(1.02, 2, 0), (1.06, 2, 1), (1.02, 12, 1)])
def test_the_claims_about_overhead(scripts, ratio, extra, code):
    script, harness = scripts["rs2_overhead"], scripts["_harness"]
    plain = [{script.METRIC: 8 + seed, "turnover": 5.0} for seed in range(3)]
    ours = [{script.METRIC: (8 + seed) * ratio, "turnover": 5.0 + extra} for seed in range(3)]
    values = {script.TRAINER: plain, script.TRAINER_RS2: ours, script.LOOP: plain, script.LOOP_RS2: ours}
    study, options = recorded(scripts, values, script.METRIC)
    assert harness.verdict(script.check(study, script.THRESHOLDS["full"]), options) == code


def test_summary_leaves_out_the_first_rounds(scripts):
    times = [[(0.0, 1.0)], [(1.5, 9.0)], [(9.5, 10.0), (10.0, 11.0)], [(11.5, 12.0), (12.0, 13.0)]]
    summary = scripts["rs2_overhead"].summary(times)
    assert summary == pytest.approx({"milliseconds": 1000.0, "between turnovers": 750.0, "turnover": 500.0})


def test_the_script_runs_and_rs2_makes_a_tenth_of_the_steps(capsys):
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(EXAMPLES / "rs2_script.py"), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.strip().splitlines()
    steps = [int(line.split(" steps")[0].split()[-1]) for line in lines]
    accuracies = [float(line.split("accuracy ")[1].split()[0]) for line in lines]
    assert steps == [1800, 180, 180]
    assert accuracies[1] > 90
