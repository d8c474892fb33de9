"""Layers: the mixer equals its equations written as loops in NumPy, and its start values are those of the card."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_adapt.lina_speech.model.layers import GLAMixer, MixingBlock, ShortConvolution, SwiGLU
from tests.lina_speech.model_parts import small_config

WIDTH = 16


def mixer(*, double=True, backend="auto", width=WIDTH, **overrides):
    torch.manual_seed(0)
    made = GLAMixer(width, small_config(**overrides), backend=backend)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.double() if double else made


def stretch(batch=2, n_steps=7, width=WIDTH, dtype=torch.float64):
    return torch.randn(batch, n_steps, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def silu(x):
    return x / (1 + np.exp(-x))


def mixer_by_loops(made, x, config):
    """Equations at the top of layers.py for one row, step by step and head by head."""
    weight = {name: parameter.detach().numpy() for name, parameter in made.named_parameters()}
    keys, values = int(WIDTH * config.expand_k), int(WIDTH * config.expand_v)
    projected = x @ weight["project.weight"].T
    mixed, gate = projected[:, : 2 * keys + values], projected[:, 2 * keys + values :]
    if config.short_conv:
        padded = np.concatenate((np.zeros((3, mixed.shape[1])), mixed))
        taps = weight["conv.weight"]
        mixed = silu(np.stack([sum(taps[:, j] * padded[t + j] for j in range(4)) for t in range(len(x))]))
    logits = x @ weight["gate_down.weight"].T @ weight["gate_up.weight"].T + weight["gate_up.bias"]
    decay = (1 / (1 + np.exp(-logits))) ** (1 / config.gate_normalizer)
    key_width, value_width = keys // config.n_heads, values // config.n_heads
    state, outputs = np.zeros((config.n_heads, key_width, value_width)), []
    for t in range(len(x)):
        row = []
        for head in range(config.n_heads):
            of_keys = slice(head * key_width, (head + 1) * key_width)
            q, k = mixed[t, :keys][of_keys], mixed[t, keys : 2 * keys][of_keys]
            v = mixed[t, 2 * keys :][head * value_width : (head + 1) * value_width]
            state[head] = decay[t][of_keys][:, None] * state[head] + np.outer(k, v)
            out = key_width**-0.5 * q @ state[head]
            row.append(out / math.sqrt(np.mean(out**2) + 1e-5) * weight["norm_weight"])
        outputs.append(np.concatenate(row) * silu(gate[t]) @ weight["output.weight"].T)
    return np.stack(outputs), state


OVERRIDES = [{}, {"short_conv": True}, {"expand_k": 0.5, "expand_v": 1.0}, {"gate_normalizer": 1.0, "n_heads": 1}]


@pytest.mark.parametrize("overrides", OVERRIDES)
@pytest.mark.parametrize("backend", ["chunked", "recurrent"])
def test_the_mixer_equals_its_equations(overrides, backend):
    made, x = mixer(backend=backend, **overrides), stretch()
    out = made(x, output_state=True)
    for row in range(len(x)):
        y, state = mixer_by_loops(made, x[row].numpy(), small_config(**overrides))
        np.testing.assert_allclose(out.y[row].detach().numpy(), y, atol=1e-9)
        np.testing.assert_allclose(out.gla[row].detach().numpy(), state, atol=1e-9)


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_steps_equal_the_stretch(overrides):
    made, x = mixer(**overrides), stretch()
    whole = made(x, output_state=True)
    state = conv = None
    for t in range(x.shape[1]):
        y, state, conv = made.step(x[:, t], state, conv)
        torch.testing.assert_close(y, whole.y[:, t], atol=1e-10, rtol=0)
    torch.testing.assert_close(state, whole.gla, atol=1e-10, rtol=0)
    assert (conv is None) == (whole.conv is None)
    if conv is not None:
        torch.testing.assert_close(conv, whole.conv, atol=1e-12, rtol=0)


@pytest.mark.parametrize("double", [False, True])
def test_the_swiglu_equals_its_equation(double):
    torch.manual_seed(0)
    made, x = SwiGLU(10), stretch(width=10)
    made, x = (made.double(), x) if double else (made, x.float())
    assert made.reduce.in_features == 13  # floor(4 * 10 / 3)
    gate, up = F.linear(x, made.expand.weight, made.expand.bias).split(13, -1)
    wanted = F.linear(gate * torch.sigmoid(gate) * up, made.reduce.weight, made.reduce.bias)
    torch.testing.assert_close(made(x), wanted)


@pytest.mark.parametrize("n_steps", [0, 1, 2, 3, 9])
def test_the_convolution_keeps_the_last_three_real_inputs(n_steps):
    torch.manual_seed(0)
    conv, x = ShortConvolution(5).double(), stretch(3, n_steps, 5)
    before = torch.randn(3, 3, 5, dtype=torch.float64)
    lengths = torch.tensor([n_steps, n_steps // 2, 0])
    y, last = conv(x, before, lengths)
    assert y.shape == x.shape
    joined = torch.cat((before, x), 1)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(last[row], joined[row, length : length + 3])
    assert torch.equal(conv(x, before, None)[1], joined[:, n_steps:])


def test_gates_are_float32_under_autocast():
    made, x = mixer(double=False), stretch(dtype=torch.float32)
    exact = made.log_decay(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made.project(x).dtype == torch.bfloat16
        cast = made.log_decay(x)
        out = made(x, output_state=True)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, exact)
    assert out.gla.dtype == torch.float32
    torch.testing.assert_close(out.y.float(), made(x).y, atol=0.05, rtol=0.05)


def test_gates_are_computed_in_float32_in_a_bfloat16_model():
    made, x = mixer(double=False).bfloat16(), stretch(dtype=torch.bfloat16)
    decay = made.log_decay(x)
    low = x.float() @ made.gate_down.weight.float().T
    wanted = F.logsigmoid(low @ made.gate_up.weight.float().T + made.gate_up.bias.float()) / 16
    torch.testing.assert_close(decay, wanted)
    assert made(x).y.dtype == torch.bfloat16


def test_maps_start_as_xavier_uniform_with_a_small_gain():
    torch.manual_seed(0)
    made = GLAMixer(256, small_config(n_heads=4))
    parts = made.project.weight.detach().split([256, 256, 512, 512])
    for weight in (*parts, made.gate_down.weight, made.gate_up.weight, made.output.weight):
        n_out, n_in = weight.shape
        bound = 2**-2.5 * math.sqrt(6 / (n_in + n_out))
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.98 * bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not made.gate_up.bias.any()
    assert made.norm_weight.eq(1).all()


def test_a_memory_of_23_steps_is_what_gates_start_with():
    decay = GLAMixer(WIDTH, small_config()).log_decay(torch.zeros(1, WIDTH))
    torch.testing.assert_close(-1 / decay, torch.full_like(decay, 16 / math.log(2)))


def test_the_gate_bias_spreads_memory_lengths_over_the_channels():
    made = GLAMixer(WIDTH, small_config(gate_bias_init=(8, 512)))
    memory = (-1 / made.log_decay(torch.zeros(WIDTH))).tolist()
    wanted = np.geomspace(8, 512, WIDTH).tolist()
    assert memory == pytest.approx(wanted, rel=1e-4)


def test_a_block_is_mixer_then_swiglu_on_normalised_streams():
    torch.manual_seed(0)
    block, x = MixingBlock(WIDTH, small_config()).double(), stretch()
    middle = x + block.mixer(F.layer_norm(x, (WIDTH,), block.mixer_norm.weight, block.mixer_norm.bias)).y
    torch.testing.assert_close(block(x).y, middle + block.mlp(block.mlp_norm(middle)))


def test_dropout_hits_the_whole_stream_in_training_only():
    torch.manual_seed(0)
    block, x = MixingBlock(WIDTH, small_config(dropout=0.25)), stretch(4, 50, dtype=torch.float32)
    exact = block.eval()(x).y
    assert torch.equal(block(x).y, exact)
    dropped = block.train()(x).y
    kept = dropped != 0
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(dropped[kept], (exact / 0.75)[kept])


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend"):
        MixingBlock(WIDTH, small_config(), backend="fast")
