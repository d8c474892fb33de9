"""The model: steps equal the parallel path, a carried state equals one stretch, and padding changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_adapt.lina_speech.model.model import LinaModel
from lightning_adapt.lina_speech.model.state import State
from tests.lina_speech.model_parts import KINDS, batch, biggest_gap, small_config, small_model, walk


def made(kind, **options):
    model = small_model(**KINDS[kind], **options)
    return model, batch(model.config.n_codebooks)


@pytest.mark.parametrize("n_steps", [1, 2, 70])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_parallel_path(kind, n_steps):
    model, _ = made(kind)
    text, text_lengths, inputs, _ = batch(model.config.n_codebooks, max(n_steps, 4))
    inputs = inputs[:, :n_steps]
    whole = model(text, text_lengths, inputs, output_state=True, output_attention=True)
    logits, attention, state = walk(model, model.encode_text(text, text_lengths), inputs, model.initial_state(3))
    assert logits.shape == whole.logits.shape == (3, n_steps, model.config.n_codebooks, 23)
    torch.testing.assert_close(logits, whole.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(attention, whole.attention, atol=1e-5, rtol=0)
    assert biggest_gap(state, whole.state) <= 1e-4


@pytest.mark.parametrize("backend", ["chunked", "recurrent"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ways_to_compute_agree(kind, backend):
    model, (text, text_lengths, inputs, lengths) = made(kind)
    other, _ = made(kind, model_options={"backend": backend})
    torch.testing.assert_close(
        model(text, text_lengths, inputs, lengths).logits[0], other(text, text_lengths, inputs, lengths).logits[0]
    )


@pytest.mark.parametrize("cut", [0, 1, 2, 6, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_two_pieces_equal_one(kind, cut):
    model, (text, text_lengths, inputs, _) = made(kind)
    whole = model(text, text_lengths, inputs, output_state=True)
    first = model(text, text_lengths, inputs[:, :cut], output_state=True)
    second = model(text, text_lengths, inputs[:, cut:], state=first.state, output_state=True)
    logits = torch.cat((first.logits, second.logits), 1)
    torch.testing.assert_close(logits, whole.logits, atol=1e-5, rtol=1e-5)
    assert biggest_gap(second.state, whole.state) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_stretch_goes_on_from_steps(kind):
    model, (text, text_lengths, inputs, _) = made(kind)
    memory = model.encode_text(text, text_lengths)
    _, _, state = walk(model, memory, inputs[:, :5], model.initial_state(3))
    rest = model.forward_audio(memory, inputs[:, 5:], state=state.map(torch.clone))
    whole = model(text, text_lengths, inputs)
    torch.testing.assert_close(rest.logits, whole.logits[:, 5:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padded_audio_changes_neither_state_nor_real_logits(kind):
    model, (text, text_lengths, inputs, lengths) = made(kind)
    together = model(text, text_lengths, inputs, lengths, output_state=True)
    for row, length in enumerate(lengths.tolist()):
        own = (text[row : row + 1], text_lengths[row : row + 1], inputs[row : row + 1, :length])
        alone = model(*own, output_state=True)
        torch.testing.assert_close(together.logits[row, :length], alone.logits[0], atol=1e-5, rtol=1e-5)
        assert biggest_gap(together.state.select([row]), alone.state) <= 1e-5
    other = inputs.masked_fill(torch.arange(11)[None, :, None] >= lengths[:, None, None], 5)
    assert biggest_gap(model(text, text_lengths, other, lengths, output_state=True).state, together.state) <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_piece_passes_its_state_on(kind):
    model, (text, text_lengths, inputs, lengths) = made(kind)
    first = model(text, text_lengths, inputs, lengths, output_state=True)
    more = model(text, text_lengths, inputs[:, :6], torch.tensor([6, 2, 0]), state=first.state, output_state=True)
    for row, (length, further) in enumerate(zip(lengths.tolist(), (6, 2, 0), strict=True)):
        joined = torch.cat((inputs[row, :length], inputs[row, :further]))[None]
        alone = model(text[row : row + 1], text_lengths[row : row + 1], joined, output_state=True)
        torch.testing.assert_close(more.logits[row, :further], alone.logits[0, length:], atol=1e-5, rtol=1e-5)
        assert biggest_gap(more.state.select([row]), alone.state) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_padded_text_changes_nothing(kind):
    model, (text, text_lengths, inputs, _) = made(kind)
    together = model(text, text_lengths, inputs, output_state=True)
    for row, length in enumerate(text_lengths.tolist()):
        own = (text[row : row + 1, :length], text_lengths[row : row + 1], inputs[row : row + 1])
        alone = model(*own, output_state=True)
        torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-5, rtol=1e-5)
        assert biggest_gap(together.state.select([row]), alone.state) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_padding_are_finite_and_have_finite_gradients(kind):
    model, (text, text_lengths, inputs, lengths) = made(kind)
    text_lengths, lengths = text_lengths.clone(), lengths.clone()
    text_lengths[1] = lengths[1] = 0
    text[1] = inputs[1] = 0
    out = model(text, text_lengths, inputs, lengths, output_state=True)
    assert out.logits.isfinite().all()
    assert biggest_gap(out.state.select([1]), model.initial_state(1)) == 0
    out.logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_one_stream_serves_all(kind):
    model, (text, text_lengths, inputs, _) = made(kind)
    voice = model.initial_state(1).map(lambda tensor: 0.3 * torch.randn_like(tensor))
    shared = model(text, text_lengths, inputs, state=voice, output_state=True)
    own = model(text, text_lengths, inputs, state=voice.expand(3), output_state=True)
    torch.testing.assert_close(shared.logits, own.logits)
    assert biggest_gap(shared.state, own.state) <= 1e-6
    assert not torch.allclose(shared.logits, model(text, text_lengths, inputs).logits)


@pytest.mark.parametrize("kind", ["blind conv Q4", "plain"])
def test_a_voice_in_half_precision_is_gone_on_from_in_float32(kind):
    model, (text, text_lengths, inputs, _) = made(kind)
    voice = model.initial_state(3).map(
        lambda tensor: torch.linspace(-0.3, 0.3, tensor[0].numel()).view(tensor[:1].shape)
    )
    half = voice.expand(3).map(torch.Tensor.bfloat16)
    whole = model(text, text_lengths, inputs, state=half, output_state=True)
    logits, _, state = walk(model, model.encode_text(text, text_lengths), inputs, half)
    torch.testing.assert_close(logits, whole.logits, atol=1e-4, rtol=0)
    assert biggest_gap(state, whole.state) <= 1e-4
    assert {tensor.dtype for tensor in (state.tensors() | whole.state.tensors()).values()} == {torch.float32}


@pytest.mark.parametrize("kind", ["blind conv Q4", "plain"])
def test_no_streams_give_no_logits(kind):
    model, (text, text_lengths, inputs, lengths) = made(kind)
    out = model(text[:0], text_lengths[:0], inputs[:0], lengths[:0], output_state=True, output_attention=True)
    stepped = model.step(inputs[:0, 0], model.encode_text(text[:0], text_lengths[:0]), out.state)
    assert (len(out.logits), len(out.attention), stepped.logits.shape) == (0, 0, (0, inputs.shape[2], 23))


def test_a_later_column_or_another_stream_does_not_matter():
    model, (text, text_lengths, inputs, _) = made("blind conv Q4")
    before = model(text, text_lengths, inputs).logits
    inputs[:, 7] = (inputs[:, 7] + 1) % 23
    inputs[1] = 5
    after = model(text, text_lengths, inputs).logits
    torch.testing.assert_close(after[0, :7], before[0, :7], atol=1e-5, rtol=1e-5)
    assert (after[0, 7:] - before[0, 7:]).abs().amax((1, 2)).gt(1e-3).all()


def test_every_codebook_has_its_own_table_and_head():
    model, (text, text_lengths, inputs, _) = made("blind conv Q4")
    wanted = sum(model.embedding[q][inputs[:, :, q]] for q in range(4))
    seen = []
    model.encoder[0].mixer_norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    outs = []
    model.decoder[-1].register_forward_hook(lambda _, __, out: outs.append(out.y))
    logits = model(text, text_lengths, inputs).logits
    torch.testing.assert_close(seen[0], wanted)
    for q in range(4):
        torch.testing.assert_close(logits[:, :, q], outs[0] @ model.head[q].T)


def test_tied_logits_are_those_of_the_input_tables_over_the_root_of_the_width():
    model, (text, text_lengths, inputs, _) = made("tied Q4")
    outs = []
    model.decoder[-1].register_forward_hook(lambda _, __, out: outs.append(out.y))
    logits = model(text, text_lengths, inputs).logits
    torch.testing.assert_close(logits[:, :, 2], outs[0] @ model.embedding[2].T / 32**0.5)
    assert model.head is None


def test_the_cross_attention_reads_the_stream_behind_the_encoder_and_is_added_to_it():
    model, (text, text_lengths, inputs, _) = made("plain")
    seen = {}
    model.encoder[-1].register_forward_hook(lambda _, __, out: seen.update(encoded=out.y))
    model.cross.register_forward_hook(lambda _, arguments, out: seen.update(asked=arguments[0], read=out.y))
    model.decoder[0].register_forward_pre_hook(lambda _, arguments: seen.update(decoded=arguments[0]))
    model(text, text_lengths, inputs)
    assert torch.equal(seen["asked"], seen["encoded"])
    assert torch.equal(seen["decoded"], seen["encoded"] + seen["read"])


def test_start_values():
    torch.manual_seed(0)
    model = LinaModel(small_config(d_model=64, n_codebooks=2, codebook_size=500))
    assert model.embedding.std().item() == pytest.approx(1, abs=0.02)
    assert model.head.abs().max().item() == pytest.approx(1 / 8, rel=1e-3)
    text, text_lengths, inputs, _ = batch(2)
    loss = F.cross_entropy(model(text, text_lengths, inputs).logits.flatten(0, 2), inputs.flatten())
    assert loss.item() < 8  # the logarithm of 503 is 6.2


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_dict_loads_into_a_model_of_the_same_configuration(kind):
    model, data = made(kind)
    other = small_model(seed=5, **KINDS[kind])
    assert not torch.allclose(other(*data).logits, model(*data).logits)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(*data).logits, model(*data).logits)


def test_the_bytes_of_a_state_do_not_grow():
    model, (text, text_lengths, inputs, _) = made("blind conv Q4")
    memory, state = model.encode_text(text, text_lengths), model.initial_state(3)
    for n_steps in (1, 10):
        _, _, later = walk(model, memory, inputs[:, :n_steps], state)
        assert later.nbytes == state.nbytes
        assert {tensor.dtype for tensor in later.tensors().values()} == {torch.float32}
    assert isinstance(later, State)
