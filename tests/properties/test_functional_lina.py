"""Properties of the pure functions of Lina-Speech, over their input spaces."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import strategies as st

from lightning_adapt import functional as f
from lightning_adapt.lina_speech.inference.sampling import SamplingOptions
from tests.properties.parts import SEEDS, floats, given, vectors

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 2), st.integers(1, 5), st.integers(1, 4))


def streams(shape, seed, dtype=torch.float64):
    batch, steps, heads, keys, values = shape
    draw = torch.Generator().manual_seed(seed % 2**63)
    q, k, decay = (torch.randn(batch, steps, heads, keys, generator=draw, dtype=dtype) for _ in range(3))
    v = torch.randn(batch, steps, heads, values, generator=draw, dtype=dtype)
    state = torch.randn(batch, heads, keys, values, generator=draw, dtype=dtype)
    return (q, k, v, -decay.abs()), state


# -- gated linear attention --------------------------------------------------------------------------------------------
@given(SHAPES, SEEDS, st.data())
def test_all_ways_agree_and_a_stream_may_be_cut_anywhere(shape, seed, data):
    inputs, state = streams(shape, seed)
    output, last = f.recurrent_gla(*inputs, state, output_final_state=True)
    for way in (f.chunked_gla, f.gla):
        found, found_last = way(*inputs, state, output_final_state=True)
        torch.testing.assert_close(found, output, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(found_last, last, atol=1e-9, rtol=1e-9)
    cut = data.draw(st.integers(0, shape[1]))
    first, between = f.chunked_gla(*(part[:, :cut] for part in inputs), state, output_final_state=True)
    second, end = f.chunked_gla(*(part[:, cut:] for part in inputs), between, output_final_state=True)
    torch.testing.assert_close(torch.cat([first, second], 1), output, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(end, last, atol=1e-9, rtol=1e-9)


@given(SHAPES, SEEDS)
def test_a_step_is_a_step_of_the_definition_and_changes_nothing_that_it_was_given(shape, seed):
    inputs, state = streams(shape, seed)
    kept, here, outputs = state.clone(), state, []
    for step in range(shape[1]):
        output, here = f.gla_step(*(part[:, step] for part in inputs), here)
        outputs.append(output)
    assert torch.equal(state, kept)
    expected, last = f.recurrent_gla(*inputs, state, output_final_state=True)
    torch.testing.assert_close(torch.stack(outputs, 1), expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(here, last, atol=1e-9, rtol=1e-9)


@given(SHAPES, SEEDS, st.sampled_from((torch.float16, torch.bfloat16, torch.float32)), st.sampled_from((0.5, 2.0)))
def test_dtypes_are_kept_and_what_is_masked_is_as_if_it_were_not_there(shape, seed, dtype, factor):
    inputs, state = streams(shape, seed, torch.float32)
    half = [part.to(dtype) for part in inputs[:3]]
    output, last = f.gla(*half, inputs[3], output_final_state=True)
    assert (output.dtype, last.dtype) == (dtype, torch.float32)
    mask = torch.arange(shape[1]).expand(shape[0], -1) % 2 == 0
    masked, end = f.gla(*inputs, state, mask=mask, output_final_state=True)
    without, end_without = f.gla(*(part[:, ::2] for part in inputs), state, output_final_state=True)
    torch.testing.assert_close(masked[:, ::2], without, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(end, end_without, atol=1e-4, rtol=1e-4)
    assert not masked[:, 1::2].any()
    doubled = f.gla(inputs[0] * factor, *inputs[1:], state)[0]  # linear in the queries
    torch.testing.assert_close(doubled, f.gla(*inputs, state)[0] * factor, atol=1e-4, rtol=1e-4)


# -- alignments --------------------------------------------------------------------------------------------------------
@given(st.integers(1, 12), st.integers(1, 8), SEEDS)
def test_alignment_scores_are_in_their_ranges_and_a_repetition_lowers_them(frames, tokens, seed):
    draw = torch.Generator().manual_seed(seed % 2**63)
    weights = torch.softmax(3 * torch.randn(frames, tokens, generator=draw), 1)
    coverage, backward = f.text_coverage(weights), f.backward_share(weights)
    assert 0 <= coverage <= 1
    assert backward >= 0
    assert f.alignment_score(weights) == coverage - backward <= 1
    again = torch.cat([weights, weights])
    assert f.text_coverage(again) >= coverage - 1e-9
    assert f.backward_share(again) >= 2 * backward - 1e-9
    assert f.text_coverage(weights.flip(1)) == pytest.approx(coverage)
    reading = torch.eye(tokens).repeat_interleave(2, 0)
    assert f.alignment_score(reading) == 1.0


# -- sampling and places -----------------------------------------------------------------------------------------------
@given(
    st.lists(st.one_of(floats(-9, 9), st.just(-math.inf)), min_size=1, max_size=12).filter(
        lambda x: max(x) > -math.inf
    ),
    st.floats(0.01, 9),
    st.one_of(st.none(), st.integers(1, 14)),
    st.floats(0.01, 1),
    floats(-5, 5),
)
def test_kept_probabilities_are_the_largest_and_add_up(logits, temperature, top_k, top_p, shift):
    scores, options = torch.tensor(logits), SamplingOptions(temperature, top_k, top_p)
    found = f.kept_probabilities(scores, options)
    assert found.dtype == torch.float64
    assert float(found.sum()) == pytest.approx(1)
    kept, whole = found > 0, (scores.double() / temperature).softmax(-1)
    if top_k is not None and top_p == 1:
        assert int(kept.sum()) >= min(top_k, int((whole > 0).sum()))
    assert not bool((scores[~kept][:, None] > scores[kept]).any())  # nothing is kept that is less than what is not
    assert (
        float(whole[kept].sum()) >= min(top_p, float(whole.sort(descending=True).values[:top_k].sum()) * top_p) - 1e-9
    )
    torch.testing.assert_close(found[kept] * whole[kept].sum(), whole[kept])
    order = torch.arange(len(logits)).flip(0)
    torch.testing.assert_close(f.kept_probabilities(scores[order], options), found[order])
    assert torch.equal(f.kept_probabilities(torch.stack([scores, scores]), options)[1], found)


@given(st.integers(0, 30), st.integers(1, 16))
def test_places_are_told_apart_and_lie_on_circles(n, half):
    table = f.sinusoids(n, 2 * half)
    assert table.shape == (n, 2 * half)
    torch.testing.assert_close(table[:, :half] ** 2 + table[:, half:] ** 2, torch.ones(n, half))
    assert len({tuple(row) for row in table.tolist()}) == n
    torch.testing.assert_close(f.sinusoids(n + 1, 2 * half)[:n], table)


# -- delay -------------------------------------------------------------------------------------------------------------
@given(st.integers(1, 4), st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(0, 2), SEEDS)
def test_delayed_codes_come_back_whatever_lies_after_their_end(n_codebooks, lengths, more, seed):
    frames = max(lengths) + more
    codes = torch.randint(
        0, 9, (len(lengths), n_codebooks, frames), generator=torch.Generator().manual_seed(seed % 2**63)
    )
    ids = f.delay_codes(codes, torch.tensor(lengths))
    assert ids.shape == (len(lengths), frames + n_codebooks + 1, n_codebooks)
    for row, length in enumerate(lengths):
        assert torch.equal(f.undelay_codes(ids[row]), codes[row, :, :length])
        for cut in range(n_codebooks + 1, len(ids[row]) + 1):  # cut off: the frames that are whole
            left = f.undelay_codes(ids[row, :cut])
            assert torch.equal(left, codes[row, :, : left.shape[1]])


@given(vectors(0, 12))
def test_undelaying_anything_gives_codes(values):
    codes = f.undelay_codes(values.long().reshape(-1, 1))
    assert codes.dtype == torch.int64
    assert bool((codes >= 0).all())
