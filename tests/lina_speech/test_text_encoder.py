"""The text encoder: equal to its equations in NumPy, blind to padding, and relative in place."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.model.text_encoder import TextEncoder, rotary_angles, rotate_half_of_head
from tests.lina_speech.model_parts import batch, small_config


def encoder(**overrides):
    torch.manual_seed(0)
    made = TextEncoder(small_config(**overrides)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def norm(x, weight, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def turned(x, n_rotated):
    """Rotary embedding of one head, written with complex numbers. Shape (M, E)."""
    half = n_rotated // 2
    angle = np.arange(len(x))[:, None] * 10_000.0 ** (-2 * np.arange(half) / n_rotated)
    pairs = (x[:, :half] + 1j * x[:, half:n_rotated]) * np.exp(1j * angle)
    return np.concatenate((pairs.real, pairs.imag, x[:, n_rotated:]), 1)


def encode_by_loops(made, ids, n_heads):
    weight = {name: parameter.detach().numpy() for name, parameter in made.named_parameters()}
    x = weight["embedding.weight"][ids]
    width = x.shape[1] // n_heads
    for number in range(len(made.blocks)):
        of = {name.split(".", 2)[2]: w for name, w in weight.items() if name.startswith(f"blocks.{number}.")}
        h = norm(x, of["attention_norm.weight"], of["attention_norm.bias"]) @ of["qkv.weight"].T + of["qkv.bias"]
        heads = []
        for head in range(n_heads):
            q, k, v = (h[:, i * x.shape[1] + head * width :][:, :width] for i in range(3))
            scores = turned(q, width // 2) @ turned(k, width // 2).T / math.sqrt(width)
            grown = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(grown / grown.sum(1, keepdims=True) @ v)
        x = x + np.concatenate(heads, 1)
        gate, up = np.split(
            norm(x, of["mlp_norm.weight"], of["mlp_norm.bias"]) @ of["mlp.expand.weight"].T + of["mlp.expand.bias"],
            2,
            1,
        )
        x = x + gate / (1 + np.exp(-gate)) * up @ of["mlp.reduce.weight"].T + of["mlp.reduce.bias"]
    return x


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_encoding_equals_the_equations(n_heads):
    made, ids = encoder(n_text_heads=n_heads), torch.tensor([5, 3, 29, 7, 1, 3])
    out = made(ids[None], torch.ones(1, 6, dtype=torch.bool))[0].detach().numpy()
    np.testing.assert_allclose(out, encode_by_loops(made, ids.numpy(), n_heads), atol=1e-6)  # angles are float32


def test_padding_changes_nothing():
    made = encoder()
    text, lengths, _, _ = batch()
    mask = torch.arange(text.shape[1]) < lengths[:, None]
    together = made(text, mask)
    assert together.isfinite().all()
    for row, length in enumerate(lengths.tolist()):
        alone = made(text[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-10, rtol=0)


def test_a_row_of_padding_is_finite():
    out = encoder()(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.bool))
    assert out.isfinite().all()


def test_every_token_sees_the_whole_text():
    made, mask = encoder(), torch.ones(1, 5, dtype=torch.bool)
    before, after = (made(torch.tensor([[5, 3, 29, 7, last]]), mask)[0] for last in (1, 2))
    assert (before - after).abs().amax(1).gt(1e-6).all()


def test_rotation_makes_products_depend_on_distance_only_in_the_first_half():
    width = 8
    q, k = torch.randn(2, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = rotary_angles(12, width // 2)
    rotated_q, rotated_k = (rotate_half_of_head(x.expand(1, 1, 12, -1), turn)[0, 0] for x in (q, k))
    products = rotated_q @ rotated_k.T
    for distance in (0, 1, 5):
        torch.testing.assert_close(
            products.diagonal(distance), products[0, distance].expand(12 - distance), rtol=1e-5, atol=1e-6
        )
    assert not torch.allclose(products[0, 0], products[0, 5])
    assert torch.equal(rotated_q[:, width // 2 :], q[width // 2 :].expand(12, -1))


def test_the_padding_id_has_no_vector_and_no_gradient():
    torch.manual_seed(0)
    made = TextEncoder(small_config())
    assert not made.embedding.weight[0].any()
    assert made.embedding.weight[1:].std().item() == pytest.approx(1, abs=0.05)  # N(0, 1)
    made(torch.tensor([[4, 0]]), torch.tensor([[True, False]])).sum().backward()
    assert not made.embedding.weight.grad[0].any()
    assert made.embedding.weight.grad[4].any()


def test_text_dropout_hits_the_stream_in_training_only():
    torch.manual_seed(0)
    made = TextEncoder(small_config(text_dropout=0.4, n_text_layers=1))
    ids, mask = torch.randint(1, 30, (4, 40)), torch.ones(4, 40, dtype=torch.bool)
    assert float((made.train()(ids, mask) == 0).float().mean()) == pytest.approx(0.4, abs=0.03)
    assert torch.equal(made.eval()(ids, mask), made(ids, mask))
