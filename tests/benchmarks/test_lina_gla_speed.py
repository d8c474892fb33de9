"""The benchmark of Gated Linear Attention says no when it should, and measures what it says."""

import json

import pytest
import torch

from lightning_adapt.lina_speech.gla.recurrent import recurrent_gla

QUICK = ["--quick", "--check", "--seeds", "1"]


@pytest.fixture
def speed(script_of, monkeypatch):
    """The script with short sequences."""
    script = script_of("lina_gla_speed")
    monkeypatch.setattr(script, "SHORT", {"quick": 256})
    monkeypatch.setattr(script, "LENGTHS", {"quick": (256, 384, 768)})
    monkeypatch.setattr(script, "MATMUL_WIDTH", 128)
    loose = {"loop": 2, "sdpa": 8, "long": 0.2, "double": 4, "memory": 0.6, "outputs": 1e-5, "gradients": 5e-5}
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": loose})
    return script


def test_check_passes_with_the_chunks_and_fails_with_the_loop_in_their_place(speed, monkeypatch, capsys, tmp_path):
    out = tmp_path / "speed.json"
    assert speed.main([*QUICK, "--out", str(out)]) == 0
    assert "FAILS" not in capsys.readouterr().out
    names = {row["method"]: row["runs"][0] for row in json.loads(out.read_text())["rows"]}
    assert set(speed.rows("quick")) < set(names)
    assert 0 < names["memory of chunks, T=256"]["MiB"] < names["memory of step loop, T=256"]["MiB"]
    assert names["chunks, T=384"]["GFLOP/s"] > 0
    assert out.with_suffix(".png").stat().st_size > 0
    monkeypatch.setattr(speed, "CHUNKED", recurrent_gla)
    assert speed.main(QUICK) == 1
    printed = capsys.readouterr().out
    assert "FAILS  (quick) T=256: times the step loop's speed >= 2" in printed
    assert "FAILS  (quick) T=256: extra memory over the step loop's <= 0.6" in printed


def test_check_fails_with_wrong_numbers(speed, monkeypatch, capsys):
    def forgetful(q, k, v, log_decay):
        half = q.shape[1] // 2
        parts = [
            recurrent_gla(*(x[:, part] for x in (q, k, v, log_decay)))[0] for part in (slice(half), slice(half, None))
        ]
        return torch.cat(parts, 1), None

    monkeypatch.setattr(speed, "CHUNKED", forgetful)
    found = speed.differences(64)
    assert min(found["outputs"], found["gradients"]) > 1e-3
    monkeypatch.setattr(speed, "differences", lambda steps: found)
    assert speed.main(QUICK) == 1
    assert "FAILS  (quick) T=256: error of outputs" in capsys.readouterr().out


FULL = {
    "step loop, T=1024": 378.0,
    "torch SDPA, T=1024": 31.0,
    "chunks, T=1024": 20.0,
    "torch SDPA, T=4096": 361.0,
    "chunks, T=4096": 80.0,
    "chunks, T=8192": 161.0,
}
ERRORS = {"outputs": 1e-6, "gradients": 2e-6}
MEMORY = {"memory of chunks, T=1024": 40.0, "memory of step loop, T=1024": 433.0}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"step loop, T=1024": 155.0}, 1),  # 7.75 times
        ({"torch SDPA, T=1024": 15.0}, 1),  # 1.33 times its time
        ({"torch SDPA, T=4096": 190.0}, 1),  # 2.4 times faster
        ({"chunks, T=8192": 180.0}, 1),  # 2.25 times
        ({"memory of chunks, T=1024": 110.0}, 1),
        ({"gradients": 1e-4}, 1),
        ({"chunks, T=4096": None}, 1),  # not measured is not passed
        ({"memory of step loop, T=1024": None}, 1),
    ],
)
def test_the_claims_of_the_full_run(script_of, changed, code):
    script = script_of("lina_gla_speed")
    options = script.h.Options(False, True, None, (0, 1, 2), "cpu", 2)
    study = script.h.Study("recorded", script.METRIC, {}, options)
    errors = {name: changed.get(name, value) for name, value in ERRORS.items()}
    study.add(script.DIFFERENCES, 0, {script.METRIC: 0.0, **errors})
    for name, value in {**FULL, **MEMORY, **changed}.items():
        for seed, slower in enumerate((1.0, 1.5, 0.9) if value else ()):  # the machine is slower at times, for all rows
            study.add(name, seed, {script.METRIC: value * slower, "MiB": value})
    assert script.h.verdict(script.check(study, "full"), options) == code


def test_operations_are_those_of_the_products(script_of):
    script = script_of("lina_gla_speed")
    assert script.flops(64) == 2 * 4 * 13 * 2 * 64**3


def test_it_measures_the_cpu_only(speed, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert speed.main([*QUICK, "--device", "cuda"]) == 2
    assert "Leave out --device" in capsys.readouterr().out
