"""Cross-attention: equal to its equations in NumPy, blind to content where it says so, and never empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.model.attention import BlindCrossAttention, PlainCrossAttention, TextMemory, sinusoids
from tests.lina_speech.model_parts import small_config

WIDTH, PLACES = 32, 16
KINDS = {"blind": BlindCrossAttention, "plain": PlainCrossAttention}


def attention(kind, **overrides):
    torch.manual_seed(0)
    made = KINDS[kind](small_config(cross_attention=kind, **overrides)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def inputs(n_tokens=5, n_steps=6, batch=2, seed=1):
    draw = torch.Generator().manual_seed(seed)
    text = torch.randn(batch, n_tokens, WIDTH, generator=draw, dtype=torch.float64)
    mask = torch.arange(n_tokens) < torch.tensor([n_tokens, n_tokens - 2])[:batch, None]
    return torch.randn(batch, n_steps, WIDTH, generator=draw, dtype=torch.float64), text, mask


def mapped(made, name, x):
    """LN(W x + b) in NumPy."""
    weight = {key: value.detach().numpy() for key, value in made.state_dict().items()}
    y = x @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    return y * weight[f"{name}_norm.weight"] + weight[f"{name}_norm.bias"]


def softmax(scores, real):
    grown = np.exp(scores - scores.max(-1, keepdims=True)) * real
    return grown / grown.sum(-1, keepdims=True)


def test_plain_attention_equals_its_equations():
    made = attention("plain")
    x, text, mask = inputs()
    out = made(x, made.remember(text, mask))
    for row in range(2):
        q, k, v = (
            mapped(made, *pair)
            for pair in (("query", x[row].numpy()), ("key", text[row].numpy()), ("value", text[row].numpy()))
        )
        weights = []
        for head in range(2):
            own = slice(head * 16, head * 16 + 16)
            weights.append(softmax(q[:, own] @ k[:, own].T / 4, mask[row].numpy()))
            np.testing.assert_allclose(out.y[row, :, own].detach().numpy(), weights[-1] @ v[:, own], atol=1e-10)
        np.testing.assert_allclose(out.attention_BTM[row].detach().numpy(), sum(weights) / 2, atol=1e-10)


def test_blind_attention_equals_its_equations():
    made = attention("blind")
    x, text, mask = inputs()
    out = made(x, made.remember(text, mask))
    rates = 10_000.0 ** (-np.arange(0, PLACES, 2) / PLACES)
    angle = np.arange(text.shape[1])[:, None] * rates
    places = np.concatenate((np.sin(angle), np.cos(angle)), 1)
    for row in range(2):
        real = mask[row].numpy()
        q, k = mapped(made, "query", x[row].numpy()), mapped(made, "key", text[row].numpy())
        found = softmax(q @ k.T / math.sqrt(WIDTH), real) @ places
        moved = made.block(torch.from_numpy(found)[None]).y[0].detach().numpy()
        weights = softmax(moved @ places.T / math.sqrt(PLACES), real)
        np.testing.assert_allclose(out.attention_BTM[row].detach().numpy(), weights, atol=1e-6)  # sinusoids are float32
        wanted = weights @ mapped(made, "value", text[row].numpy())
        np.testing.assert_allclose(out.y[row].detach().numpy(), wanted, atol=1e-5)


def test_the_recurrence_of_blind_attention_sees_places_only():
    """Texts with equal content weights at equal places give equal alignments, whatever their values are."""
    made = attention("blind")
    x, text, mask = inputs()
    memory = made.remember(text, mask)
    other = TextMemory(memory.keys_BHME, torch.randn_like(memory.values_BHME), memory.bias_BM, memory.places_MP)
    first, second = made(x, memory), made(x, other)
    assert torch.equal(first.attention_BTM, second.attention_BTM)
    assert not torch.allclose(first.y, second.y)


def test_sinusoids_are_those_of_the_transformer():
    table = sinusoids(50, 8)
    for place in (0, 1, 49):
        for i in range(4):
            angle = place / 10_000 ** (2 * i / 8)
            assert float(table[place, i]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(table[place, 4 + i]) == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_there_in_training_and_do_not_show_dropout(kind):
    made = attention(kind, attention_dropout=0.9)
    x, text, mask = inputs()
    memory = made.remember(text, mask)
    exact = made(x, memory)
    made.train()
    if kind == "blind":
        made.dropout.eval()  # dropout of the first softmax moves the place, and so the second map
        torch.testing.assert_close(made(x, memory).attention_BTM, exact.attention_BTM)
    else:
        trained = made(x, memory)
        assert torch.equal(trained.attention_BTM, exact.attention_BTM)
        assert not torch.allclose(trained.y, exact.y)
    torch.testing.assert_close(exact.attention_BTM.sum(-1), torch.ones(2, 6, dtype=torch.float64))
    assert not exact.attention_BTM[1, :, 3:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_attention_dropout_acts_in_training_only(kind):
    made = attention(kind, attention_dropout=0.5)
    x, text, mask = inputs()
    memory = made.remember(text, mask)
    assert torch.equal(made(x, memory).y, made(x, memory).y)
    made.train()
    assert not torch.allclose(made(x, memory).y, made(x, memory).y)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_text_reads_its_first_column(kind):
    made = attention(kind)
    x, text, _ = inputs()
    out = made(x, made.remember(text, torch.zeros(2, 5, dtype=torch.bool)))
    assert out.y.isfinite().all()
    assert torch.equal(out.attention_BTM[..., 0], torch.ones_like(out.attention_BTM[..., 0]))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    made = attention(kind)
    x, text, mask = inputs()
    together = made(x, made.remember(text, mask))
    alone = made(x[1:], made.remember(text[1:, :3], mask[1:, :3]))
    torch.testing.assert_close(together.y[1:], alone.y, atol=1e-10, rtol=0)
    torch.testing.assert_close(together.attention_BTM[1:, :, :3], alone.attention_BTM, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_selected_and_repeated(kind):
    made = attention(kind)
    _, text, mask = inputs()
    memory = made.remember(text, mask)
    swapped = memory.select([1, 0, 1])
    assert swapped.batch_size == 3
    assert torch.equal(swapped.keys_BHME[0], memory.keys_BHME[1])
    assert torch.equal(swapped.values_BHME[1], memory.values_BHME[0])
    assert torch.equal(memory.select(torch.tensor([False, True])).bias_BM, memory.bias_BM[1:])
    assert memory.select([]).batch_size == 0
    twice = memory.repeat(2)
    assert torch.equal(twice.bias_BM, memory.bias_BM[[0, 0, 1, 1]])
    assert (memory.places_MP is None) == (kind == "plain")


def test_a_memory_moves_with_all_its_parts():
    made = attention("blind")
    _, text, mask = inputs()
    moved = made.remember(text, mask).to("meta")
    assert {part.device.type for part in vars(moved).values()} == {"meta"}


def test_a_memory_of_plain_attention_is_refused_by_a_blind_one():
    made, plain = attention("blind", n_heads=1), attention("plain", n_heads=1)
    x, text, mask = inputs()
    with pytest.raises(ValueError, match="one without places"):
        made(x, plain.remember(text, mask))
