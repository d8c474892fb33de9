"""The control of the decoding benchmark: the same stack of blocks with softmax attention over a cache of the past."""
# B batch, S slots of the cache, D width, H heads, E width of a head, V entries of the vocabulary
# ruff: noqa: N803, N806 - names of tensors end in their axes

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu


class Widths(NamedTuple):
    """What the twin has in common with the model.

    Attributes:
        d_model: D.
        n_heads: H.
        n_layers: Recurrent layers of the model, encoder and decoder together.
        n_codebooks: Codebooks, whose embeddings are summed.
        vocabulary: V.
    """

    d_model: int
    n_heads: int
    n_layers: int
    n_codebooks: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Widths:
        """Read them from a `LinaConfig`."""
        return cls(config.d_model, config.n_heads, config.n_layers, config.n_codebooks, config.n_audio_ids)


class Cache:
    """Keys and values of the past: the slots are there from the start, so that growing costs nothing.

    Args:
        widths: Sizes.
        batch_size: B.
        slots: S, the longest past.
    """

    def __init__(self, widths: Widths, batch_size: int, slots: int) -> None:
        shape = (2, widths.n_layers, batch_size, widths.n_heads, slots, widths.d_model // widths.n_heads)
        self.past = torch.zeros(shape)
        self.filled = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the filled slots."""
        return self.past[..., : self.filled, :].numel() * self.past.element_size()


class _Block(nn.Module):
    """Pre-norm attention over the cache, then SwiGLU, as in the model with the recurrence in attention's place."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        width, hidden = widths.d_model, 4 * widths.d_model // 3
        self.n_heads = widths.n_heads
        self.mix_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x_BD: Tensor, keys_BHSE: Tensor, values_BHSE: Tensor, slot: int) -> Tensor:
        """Write the step into its slot, and read all up to it."""
        q, k, v = self.qkv(self.mix_norm(x_BD)).view(len(x_BD), 3, self.n_heads, 1, -1).unbind(1)
        keys_BHSE[:, :, slot : slot + 1], values_BHSE[:, :, slot : slot + 1] = k, v
        past = keys_BHSE[:, :, : slot + 1], values_BHSE[:, :, : slot + 1]
        x_BD = x_BD + self.out(scaled_dot_product_attention(q, *past).flatten(1))
        gate, up = self.up(self.mlp_norm(x_BD)).chunk(2, -1)
        return x_BD + self.down(silu(gate) * up)


class SdpaTwin(nn.Module):
    """A decoder of the model's widths whose memory is a cache: its steps cost more, the longer the past.

    The text side is left out, in its favour: that costs the same at every step.

    Args:
        widths: Sizes.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.widths = widths
        self.embed = nn.ModuleList(nn.Embedding(widths.vocabulary, widths.d_model) for _ in range(widths.n_codebooks))
        self.blocks = nn.ModuleList(_Block(widths) for _ in range(widths.n_layers))
        self.head = nn.Linear(widths.d_model, widths.n_codebooks * widths.vocabulary, bias=False)

    def step(self, inputs_BQ: Tensor, cache: Cache) -> Tensor:
        """Take one step.

        Args:
            inputs_BQ: Last ids. Shape (B, Q), dtype int64.
            cache: The past, with a free slot; it gains this step.

        Returns:
            Logits. Shape (B, Q, V).
        """
        x_BD = torch.stack([table(inputs_BQ[:, q]) for q, table in enumerate(self.embed)]).sum(0)
        for block, keys, values in zip(self.blocks, *cache.past.unbind(0), strict=True):
            x_BD = block(x_BD, keys, values, cache.filled)
        cache.filled += 1
        return self.head(x_BD).view(len(x_BD), self.widths.n_codebooks, -1)
