"""The throughput benchmark: a twin of equal size that learns, and a check that says no when it should."""

import json

import pytest
import torch

QUICK = ["--quick", "--check"]


@pytest.fixture
def bench(script_of):
    return script_of("lina_throughput")


@pytest.fixture
def small(bench, monkeypatch):
    monkeypatch.setitem(bench.SIZES, ("cpu", "quick"), bench.Size("tiny", (32,), 64, 1, 1))
    return bench


@pytest.mark.parametrize("name", ["tiny", "60m", "169m", "230m", "359m"])
def test_the_twin_has_the_parameters_of_the_model(bench, name):
    with torch.device("meta"):
        sizes = [
            sum(
                parameter.numel()
                for parameter in bench.twin.build(kind, bench.preset(name, short_conv=False), "meta").parameters()
            )
            for kind in bench.KINDS
        ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


def test_the_twin_is_causal_and_sees_what_was_before(bench):
    torch.manual_seed(0)
    mixer = bench.twin.SDPAMixer(64, bench.preset("tiny"))
    x = torch.randn(1, 6, 64)
    before = mixer(x).y
    x[0, 3] += 1
    after = mixer(x).y
    torch.testing.assert_close(after[0, :3], before[0, :3])
    assert (after - before)[0, 3:].abs().amax(1).gt(1e-4).all()


def test_both_kinds_train(bench):
    size = bench.Size("tiny", (16,), 32, 1, 0)
    for kind in bench.KINDS:
        config = bench.preset(size.preset, codebook_size=8)
        model = bench.twin.build(kind, config, "cpu")
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        batch = bench._batch(config, 2, 16, "cpu", 0)
        losses = [bench._train(model, optimiser, batch, "cpu").item() for _ in range(12)]
        assert losses[-1] < 0.7 * losses[0]


def test_the_quick_run_writes_both_kinds_and_says_what_was_not_measured(small, tmp_path, capsys):
    assert small.main([*QUICK, "--out", str(tmp_path / "a.json")]) == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["GLA, 32 tokens", "SDPA, 32 tokens"]
    assert all(row["runs"][0]["tokens_per_s"] > 0 for row in rows)
    assert (tmp_path / "a.png").stat().st_size > 0
    shown = capsys.readouterr().out
    assert shown.count("not measured") == 4
    assert "60m bf16 on a GPU, GLA, 8192 tokens" in shown


@pytest.mark.parametrize("changed", [{"loss": float("nan")}, {"parameters": 1_000_000}])
def test_check_fails_with_a_loss_that_is_not_finite_or_a_twin_of_another_size(small, monkeypatch, capsys, changed):
    good = {"tokens_per_s": 1.0, "loss": 6.0, "parameters": 1_300_000, "peak_MiB": None}
    answers = {"GLA, 32 tokens": good, "SDPA, 32 tokens": {**good, **changed}}
    monkeypatch.setattr(small, "measure", lambda size, device, row, seed: dict(answers[row]))
    assert small.main(QUICK) == 1
    assert "FAILS" in capsys.readouterr().out
