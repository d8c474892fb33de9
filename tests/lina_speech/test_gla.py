"""Chunked Gated Linear Attention is the recurrence: values, states, gradients, strong decays, padding, carrying on."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from lightning_adapt.lina_speech.gla import intra
from lightning_adapt.lina_speech.gla.chunked import chunked_gla
from lightning_adapt.lina_speech.gla.recurrent import gla_step, recurrent_gla
from tests.lina_speech.gla_parts import errors, everything, inputs, loop

LENGTHS = (1, 3, 63, 64, 65, 300)  # the last in three segments, the third shorter
DECAYS = {
    "normaliser 16": {"normaliser": 16.0},
    "normaliser 1": {"normaliser": 1.0},
    "strong": {"normaliser": 0.12},
    "resets": {"normaliser": 16.0, "resets": -20.0},
    "resets of infinity": {"normaliser": 1.0, "resets": float("-inf")},
}


def check(found, wanted):
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found)
    off = errors(found, wanted)
    assert off["outputs"] <= 1e-5, off
    assert max(off.values()) <= 5e-5, off


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("T", LENGTHS)
def test_chunks_in_float32_agree_with_the_loop_in_float64(T, decays):
    widths = {"B": 1, "H": 4, "K": 4, "V": 256} if T == 300 else {}
    parts = inputs(T, **widths, **DECAYS[decays])
    check(everything(chunked_gla, parts, torch.float32, output_final_state=True), everything(loop, parts))


@pytest.mark.parametrize("T", [3, 65])
@pytest.mark.parametrize("decays", DECAYS)
def test_the_readable_loop_is_the_recurrence(T, decays):
    parts = inputs(T, **DECAYS[decays])
    off = errors(everything(recurrent_gla, parts, output_final_state=True), everything(loop, parts))
    assert max(off.values()) < 1e-13


@pytest.mark.parametrize(("normaliser", "resets", "kind"), [(16.0, None, "Anchored"), (1.0, -20.0, "Dyadic")])
def test_decays_choose_how_the_inside_of_a_chunk_is_computed(normaliser, resets, kind, monkeypatch):
    made = []
    for name in ("Anchored", "Dyadic"):
        original = getattr(intra, name)
        monkeypatch.setattr(intra, name, lambda *a, o=original: made.append(o.__name__) or o(*a))
    chunked_gla(*inputs(128, normaliser=normaliser, resets=resets)[:5])
    assert set(made) == {kind}


def test_anchored_chunks_that_decay_strongly_would_be_wrong(monkeypatch):
    parts = inputs(64, resets=-20.0)
    monkeypatch.setattr(intra, "MILDEST", float("inf"))
    found = everything(chunked_gla, parts, torch.float32, output_final_state=True)
    assert not all(bool(torch.isfinite(tensor).all()) for tensor in found)


@pytest.mark.parametrize("chunk_size", [8, 16, 32, 128])
@pytest.mark.parametrize("decays", ["normaliser 16", "resets of infinity"])
def test_other_chunks_give_the_same(chunk_size, decays):
    parts = inputs(200, K=8, V=5, **DECAYS[decays])
    found = everything(chunked_gla, parts, torch.float32, output_final_state=True, chunk_size=chunk_size)
    check(found, everything(loop, parts))


def test_large_numbers_and_mixed_decays_stay_exact():
    q, k, v, log_decay, *rest = inputs(64)
    log_decay[:, 36:40] = log_decay[:, 1:4] = float("-inf")  # all of half a block: the largest factors there are
    log_decay[..., ::2] = 0.0
    parts = (q * 1e7, k * 1e7, v, log_decay, *rest)
    check(everything(chunked_gla, parts, torch.float32, output_final_state=True), everything(loop, parts))


def test_segments_of_different_kinds_follow_each_other():
    parts = inputs(300, B=1, H=4, K=4, V=256)
    parts[3][:, :128] = -1.12  # the strongest for which a whole chunk is anchored
    parts[3][:, 128:256:7] = -20.0
    check(everything(chunked_gla, parts, torch.float32, output_final_state=True), everything(loop, parts))


@pytest.mark.parametrize("resets", [None, -20.0])
def test_gradients_agree_with_differences(resets):
    q, k, v, log_decay, state, *_ = inputs(18, B=1, H=1, K=2, V=2, normaliser=1.0)
    if resets is not None:
        log_decay[:, 4:9] = resets
    mask = torch.arange(18)[None] < 17
    leaves = [tensor.requires_grad_() for tensor in (q, k, v, log_decay, state)]
    assert torch.autograd.gradcheck(
        lambda *given: chunked_gla(*given, mask=mask, output_final_state=True, chunk_size=16), leaves, atol=1e-6
    )


@pytest.mark.parametrize("function", [chunked_gla, recurrent_gla])
def test_an_empty_sequence_hands_the_state_on(function):
    q, k, v, log_decay, state, *_ = inputs(0)
    state.requires_grad_()
    output, last = function(q, k, v, log_decay, state, output_final_state=True)
    assert output.shape == (2, 0, 2, 24)
    assert torch.equal(last, state)
    last.sum().backward()
    assert bool((state.grad == 1).all())


@pytest.mark.parametrize("function", [chunked_gla, recurrent_gla])
def test_no_streams_give_nothing(function):
    leaves = [part.requires_grad_() for part in inputs(5, B=0)[:5]]
    output, last = function(*leaves, output_final_state=True)
    assert (output.shape, last.shape) == ((0, 5, 2, 24), (0, 2, 16, 24))
    (output.sum() + last.sum()).backward()
    assert all(leaf.grad.shape == leaf.shape for leaf in leaves)


@pytest.mark.parametrize("cut", [1, 64, 100, 299])
@pytest.mark.parametrize("decays", ["normaliser 16", "resets"])
def test_a_sequence_in_two_pieces_is_the_sequence(cut, decays):
    q, k, v, log_decay, state, *_ = (part.float() for part in inputs(300, **DECAYS[decays]))
    whole, last = chunked_gla(q, k, v, log_decay, state, output_final_state=True)
    pieces = []
    for piece in (slice(None, cut), slice(cut, None)):
        given = (tensor[:, piece] for tensor in (q, k, v, log_decay))
        output, state = chunked_gla(*given, state, output_final_state=True)
        pieces.append(output)
    assert (torch.cat(pieces, 1) - whole).abs().max() <= 1e-5 * whole.abs().max()
    assert (state - last).abs().max() <= 1e-5 * last.abs().max()


@pytest.mark.parametrize("function", [chunked_gla, recurrent_gla])
def test_pads_leave_the_state_give_zero_and_get_no_gradient(function):
    parts = inputs(100)
    mask = torch.arange(100)[None] < torch.tensor([[100], [37]])
    found = everything(function, parts, mask=mask, output_final_state=True)
    off = errors(found, everything(loop, parts, mask=mask))
    assert max(off.values()) < 1e-12
    alone = function(*(part[1:, :37] for part in parts[:4]), parts[4][1:], output_final_state=True)[1]
    torch.testing.assert_close(found[1][1:], alone)
    assert not found[0][1, 37:].any()
    assert not any(gradient[1, 37:].any() for gradient in found[2:6])
    poisoned = [part.clone() for part in parts]
    for part in poisoned[:4]:
        part[1, 37:] = float("nan")
    again = everything(function, poisoned, mask=mask, output_final_state=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, found, strict=True))


def test_steps_add_up_to_the_sequence():
    q, k, v, log_decay, state, *_ = (part.float() for part in inputs(30))
    outputs, last = chunked_gla(q, k, v, log_decay, state, output_final_state=True)
    before = state.clone()
    for t in range(30):
        output, after = gla_step(q[:, t], k[:, t], v[:, t], log_decay[:, t], state)
        torch.testing.assert_close(output, outputs[:, t], rtol=1e-5, atol=1e-5)
        state = after
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)
    first = gla_step(q[:, 0], k[:, 0], v[:, 0], log_decay[:, 0], before, scale=1.0)[0]
    torch.testing.assert_close(first, outputs[:, 0] * 4, rtol=1e-5, atol=1e-5)
    assert torch.equal(before, inputs(30)[4].float())


def test_a_step_has_gradients_and_takes_half_precision():
    parts = [part[:, 0] if n < 4 else part for n, part in enumerate(inputs(1, K=3, V=2)[:5])]
    assert torch.autograd.gradcheck(gla_step, [part.requires_grad_() for part in parts])
    half = [part.detach().bfloat16() for part in parts[:3]]
    output, after = gla_step(*half, parts[3].detach().float(), parts[4].detach().float())
    assert (output.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    wanted = gla_step(*(part.double() for part in half), *(part.detach() for part in parts[3:]))
    torch.testing.assert_close(after.double(), wanted[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.double(), wanted[0], rtol=1e-2, atol=1e-2)


def test_one_state_serves_all_streams_and_gets_the_sum_of_their_gradients():
    q, k, v, log_decay, state, *_ = inputs(40)
    one = state[:1].requires_grad_()
    output, last = chunked_gla(q, k, v, log_decay, one, output_final_state=True)
    (output.sum() + last.sum()).backward()
    two = state[:1].detach().repeat(2, 1, 1, 1).requires_grad_()
    output, last = loop(q, k, v, log_decay, two)
    (output.sum() + last.sum()).backward()
    torch.testing.assert_close(one.grad, two.grad.sum(0, keepdim=True))


def test_strided_inputs_and_checkpointing_change_nothing():
    parts = inputs(70)
    apart = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in parts[:4]] + list(parts[4:])

    def again(*given, **options):
        return checkpoint(lambda *leaves: chunked_gla(*leaves, **options), *given, use_reentrant=False)

    found = everything(again, apart, output_final_state=True)
    wanted = everything(chunked_gla, parts, output_final_state=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
