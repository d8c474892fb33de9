"""Small models and batches for the tests of the Lina-Speech model."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lightning_adapt.lina_speech.model.config import LinaConfig
from lightning_adapt.lina_speech.model.model import LinaModel

SMALL = {"d_model": 32, "n_heads": 2, "n_text_heads": 2, "d_blind": 16, "n_encoder_layers": 2, "n_decoder_layers": 1}
TABLES = {"codebook_size": 20, "text_vocab_size": 30}
KINDS = {
    "blind": {},
    "plain": {"cross_attention": "plain"},
    "blind conv Q4": {"short_conv": True, "n_codebooks": 4},
    "plain conv": {"cross_attention": "plain", "short_conv": True},
    "tied Q4": {"tie_embeddings": True, "n_codebooks": 4},
    "plain conv tied Q4": {
        "cross_attention": "plain",
        "short_conv": True,
        "tie_embeddings": True,
        "n_codebooks": 4,
        "expand_k": 0.5,
        "expand_v": 1.0,
    },
}


def small_config(**overrides):
    return LinaConfig(**{**SMALL, **TABLES, "n_text_layers": 2, **overrides})


def small_model(seed=0, *, model_options=None, **overrides):
    """A model whose weights differ from the start values, so that no part of it is nearly the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LinaModel(small_config(**overrides), **(model_options or {}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def batch(n_codebooks=1, n_steps=11, seed=1):
    """Three texts of lengths 7, 3 and 5, and ids: text, text lengths, inputs, lengths."""
    draw = torch.Generator().manual_seed(seed)
    text_lengths, lengths = torch.tensor([7, 3, 5]), torch.tensor([n_steps, 4, 1])
    text = torch.randint(1, 30, (3, 7), generator=draw).masked_fill(torch.arange(7) >= text_lengths[:, None], 0)
    inputs = torch.randint(0, 23, (3, n_steps, n_codebooks), generator=draw)
    return text, text_lengths, inputs, lengths


def walk(model, memory, inputs, state):
    """Logits and attention of every step, stacked over time, and the last state."""
    logits, attention = [], []
    with torch.inference_mode():
        for column in inputs.unbind(1):
            out = model.step(column, memory, state, output_attention=True)
            state = out.state
            logits.append(out.logits)
            attention.append(out.attention)
    return torch.stack(logits, 1), torch.stack(attention, 1), state


def biggest_gap(state, other):
    """Largest difference between two states of one layout."""
    pairs = zip(state.tensors().items(), other.tensors().items(), strict=True)
    return max(float((mine - theirs).detach().abs().max()) for (_, mine), (_, theirs) in pairs)


def loss_of(model, data, **options):
    """Cross-entropy of the next ids over the real columns of a `batch`."""
    text, text_lengths, inputs, lengths = data
    logits = model(text, text_lengths, inputs[:, :-1], (lengths - 1).clamp(min=0), **options).logits
    real = torch.arange(inputs.shape[1] - 1, device=inputs.device) < lengths[:, None] - 1
    return F.cross_entropy(logits[real].flatten(0, 1), inputs[:, 1:][real].flatten())
