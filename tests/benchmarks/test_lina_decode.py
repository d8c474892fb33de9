"""The benchmark of decoding: its claims can fail, the control grows, and a cache in place of the state is noticed."""

import json

import pytest
import torch


@pytest.fixture
def script(script_of):
    return script_of("lina_decode")


@pytest.fixture
def small(script, script_of, monkeypatch):
    """Decoders of a few steps."""
    decoders = script_of("_lina_decoders")
    tiny = {"d_model": 16, "n_encoder_layers": 1, "n_decoder_layers": 1, "n_heads": 2, "n_text_layers": 1}
    tiny |= {"n_text_heads": 2, "d_blind": 16, "codebook_size": 8}
    monkeypatch.setattr(script, "LATE", 1500)
    monkeypatch.setattr(script, "SIZES", {"quick": script.Size(8, 0.2), "full": script.Size(8, 0.2)})
    made = {
        script.OURS: lambda: decoders.StateDecoder(2, tiny),
        script.TWIN: lambda: decoders.CacheDecoder(2, tiny, 1600),
    }
    monkeypatch.setattr(script, "DECODERS", made)
    monkeypatch.setattr(script, "speak", lambda seconds, seed: dict.fromkeys(SPOKEN, 0.5) | {"ratio": 0.5})
    return decoders, tiny


SPOKEN = ("first chunk", "chunk", "real-time factor", "seconds")


def study(script, ours=1.0, twin=3.0, late_bytes=100):
    options = script.h.Options(False, True, None, (0, 1, 2), "cpu", 1)
    made = script.h.Study("lina_decode", "ratio", {}, options)
    for seed, noise in enumerate((-0.3, 0.0, 0.4)):  # the median counts
        for row, ratio, late in ((script.OURS, ours, late_bytes), (script.TWIN, twin, 1000)):
            run = {"ratio": ratio + noise, "early": 1.0, "late": ratio, "early bytes": 100, "late bytes": late}
            made.add(row, seed, run)
    return made


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, []),
        ({"ours": 1.14}, []),
        ({"ours": 1.16}, [0]),
        ({"twin": 1.9}, [1]),
        ({"late_bytes": 101}, [2]),
    ],
)
def test_the_claims_hold_up_to_their_bounds(script, changed, failing):
    claims = script.check(study(script, **changed), script.THRESHOLDS["full"])
    assert [number for number, claim in enumerate(claims) if not claim.holds] == failing


def test_missing_rows_are_no_claims_that_hold(script):
    options = script.h.Options(False, True, None, (0,), "cpu", 1)
    empty = script.h.Study("lina_decode", "ratio", {}, options)
    assert not any(claim.holds for claim in script.check(empty, script.THRESHOLDS["quick"]))


def test_it_runs_and_writes_what_it_found(script, small, tmp_path, capsys):
    out = tmp_path / "decode.json"
    assert script.main(["--quick", "--seeds", "2", "--out", str(out)]) == 0
    found = {row["method"]: row["runs"] for row in json.loads(out.read_text())["rows"]}
    assert {run["early bytes"] for run in found[script.OURS]} == {run["late bytes"] for run in found[script.OURS]}
    # keys and values of 2 layers, 2 streams, 16 numbers of 4 bytes a step
    assert [run["late bytes"] for run in found[script.TWIN]] == [2 * 2 * 2 * 16 * 4 * 1500] * 2
    assert out.with_suffix(".png").is_file()
    assert "ms to the first chunk" in capsys.readouterr().out


def test_quick_fails_when_the_state_is_replaced_by_a_cache(script, small, monkeypatch, tmp_path):
    monkeypatch.setitem(script.DECODERS, script.OURS, script.DECODERS[script.TWIN])
    monkeypatch.setattr(script, "milliseconds", lambda decoder, place, steps: 1 + decoder.nbytes / 1e5)
    assert script.main(["--quick", "--check", "--seeds", "1"]) == 1


def test_steps_go_on_where_the_parallel_form_ended(small):
    decoders, tiny = small
    one, two = decoders.StateDecoder(2, tiny), decoders.StateDecoder(2, tiny)
    one.advance(6)
    ids = torch.randint(0, 8, (2, 6, 1), generator=torch.Generator().manual_seed(6)) + 3
    with torch.inference_mode():
        for step in range(6):
            two.state = two.model.step(ids[:, step], two.memory, two.state).state
    for here, there in zip(one.state.tensors().values(), two.state.tensors().values(), strict=True):
        torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-4)
    one.mark(6)
    one.steps(3)
    ended = one.ids
    one.back_to(6)
    one.steps(3)
    assert torch.equal(one.ids, ended)


def test_the_twin_attends_to_all_that_came_before(script_of):
    """Against attention over the whole past at once, written without a cache."""
    twin = script_of("_lina_cache_twin")
    widths = twin.Widths(16, 2, 1, 1, 11)
    torch.manual_seed(3)
    model, cache = twin.SdpaTwin(widths).eval(), twin.Cache(widths, 1, 5)
    ids = torch.tensor([3, 7, 1, 9, 2])
    with torch.no_grad():
        steps = torch.stack([model.step(number.view(1, 1), cache)[0, 0] for number in ids])
        (block,), x = model.blocks, model.embed[0](ids)
        q, k, v = (part.view(5, 2, 8) for part in block.qkv(block.mix_norm(x)).chunk(3, -1))
        scores = torch.einsum("ihe,jhe->hij", q, k) / 8**0.5
        weights = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(-1)
        x = x + block.out(torch.einsum("hij,jhe->ihe", weights, v).flatten(1))
        gate, up = block.up(block.mlp_norm(x)).chunk(2, -1)
        whole = model.head(x + block.down(torch.nn.functional.silu(gate) * up))
    torch.testing.assert_close(steps, whole, atol=1e-5, rtol=1e-4)
    assert cache.nbytes == 2 * 16 * 4 * 5
