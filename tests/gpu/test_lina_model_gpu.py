"""The codec language model on a CUDA device: the logits, states and gradients of the CPU, and steps that agree."""

from __future__ import annotations

import copy

import pytest
import torch

from lightning_adapt.lina_speech.voices.voice import Voice
from tests.lina_speech.made_voice_parts import voice_for
from tests.lina_speech.model_parts import KINDS, batch, biggest_gap, loss_of, small_model, walk

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

# the kernels want heads of 16 channels at least, blind attention's too
WIDE = {"d_model": 64, "n_heads": 2, "d_blind": 32}


def on_gpu(tensors):
    return tuple(tensor.cuda() for tensor in tensors)


def pair(kind, **options):
    model = small_model(**{**WIDE, **KINDS[kind], **options})
    return model, copy.deepcopy(model).cuda(), batch(model.config.n_codebooks, 70)


@pytest.fixture(autouse=True)
def _exact_products():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_states_are_those_of_the_cpu(kind):
    model, there, data = pair(kind)
    wanted = model(*data, output_state=True, output_attention=True)
    found = there(*on_gpu(data), output_state=True, output_attention=True)
    for row, length in enumerate(data[3].tolist()):
        torch.testing.assert_close(found.logits[row, :length].cpu(), wanted.logits[row, :length], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            found.attention[row, :length].cpu(), wanted.attention[row, :length], atol=1e-3, rtol=1e-3
        )
    assert biggest_gap(found.state.to("cpu"), wanted.state) <= 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_parallel_path(kind):
    _, there, data = pair(kind)
    text, text_lengths, inputs, _ = on_gpu(data)
    whole = there(text, text_lengths, inputs, output_state=True)
    logits, _, state = walk(there, there.encode_text(text, text_lengths), inputs, there.initial_state(3))
    torch.testing.assert_close(logits, whole.logits, atol=1e-3, rtol=1e-3)
    assert biggest_gap(state, whole.state) <= 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_two_pieces_equal_one(kind):
    _, there, data = pair(kind)
    text, text_lengths, inputs, _ = on_gpu(data)
    whole = there(text, text_lengths, inputs, output_state=True)
    first = there(text, text_lengths, inputs[:, :37], output_state=True)
    second = there(text, text_lengths, inputs[:, 37:], state=first.state, output_state=True)
    torch.testing.assert_close(second.logits, whole.logits[:, 37:], atol=1e-3, rtol=1e-3)
    assert biggest_gap(second.state, whole.state) <= 1e-3


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("kind", ["blind", "plain conv tied Q4"])
def test_gradients_of_weights_and_voices_are_those_of_the_cpu(kind, checkpoint):
    model, there, data = pair(kind, model_options={"checkpoint_activations": checkpoint})
    gradients = []
    for net, batch_there in ((model, data), (there, on_gpu(data))):
        voice = net.initial_state(1).map(lambda tensor: (tensor + 0.1).requires_grad_())
        loss_of(net, batch_there, state=voice).backward()
        parts = [*voice.tensors().values(), *net.parameters()]
        gradients.append([part.grad.cpu() for part in parts])
    for wanted, found in zip(*gradients, strict=True):
        scale = float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, atol=2e-3 * scale + 1e-6, rtol=2e-3)


@pytest.mark.parametrize("kind", ["blind", "blind conv Q4", "plain"])
def test_bfloat16_autocast_stays_close_and_finite(kind):
    model, there, data = pair(kind)
    exact = loss_of(model, data)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = loss_of(there.train(), on_gpu(data))
        out = there(*on_gpu(data), output_state=True)
    loss.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in there.parameters())
    assert {tensor.dtype for tensor in out.state.tensors().values()} == {torch.float32}


def test_a_forward_and_a_step_wait_for_nothing():
    _, there, data = pair("blind conv Q4")
    text, text_lengths, inputs, lengths = on_gpu(data)
    memory, state = there.encode_text(text, text_lengths), there.initial_state(3)
    there(text, text_lengths, inputs, lengths)  # kernels are compiled
    there.step(inputs[:, 0], memory, state)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        there(text, text_lengths, inputs, lengths, output_state=True)
        there.step(inputs[:, 0], memory, state)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_states_voices_and_texts_move(tmp_path):
    _, there, data = pair("blind conv Q4")
    text, text_lengths, inputs, _ = on_gpu(data)
    state = there(text, text_lengths, inputs, output_state=True).state.detach()
    assert biggest_gap(state.to("cpu").to("cuda"), state) == 0
    voice = voice_for(there)
    voice.save(tmp_path / "voice.safetensors")
    start = Voice.load(tmp_path / "voice.safetensors").state(there)
    assert all(tensor.is_cuda for tensor in start.tensors().values())
    assert biggest_gap(start.to("cpu"), voice_for(there.cpu()).state(there)) == 0
    there.cuda()
    memory = there.encode_text(text, text_lengths).to("cpu").to("cuda").select([2, 0])
    out = there.step(inputs[[2, 0], 0], memory, there.initial_state(2))
    assert out.logits.is_cuda
