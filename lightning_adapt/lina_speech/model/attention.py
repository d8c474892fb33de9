"""Cross-attention from the audio stream to the text: plain, and blind (by place), the authors' choice.

With LN layer normalisation after each map, c the encoded text and x the audio stream:

    plain   softmax(LN(Wq x) LN(Wk c)^T / sqrt(E)) LN(Wv c)              per head of width E = D / H
    blind   r = softmax(LN(Wq x) LN(Wk c)^T / sqrt(D)) P                 one head; P are sinusoids of the places 0..M-1
            s = Block(r)                                                 recurrent (GLA), width P, sees places only
            softmax(s P^T / sqrt(P)) LN(Wv c)                            text is read by place alone

The result is added to the stream; there is no output map. Content so decides where in the text we are, a recurrence
that cannot see content smooths it and moves it on, which guards against skipped and repeated words. Lemerle et al.,
2024, arXiv 2410.23320 (position-aware cross-attention, 2406.04467). Differs from the authors' code in one softmax for
training and evaluation, with maps in both, and in a state of the recurrence for every stream of a batch; plain
attention has no rotary option.
"""

# ruff: noqa: N803, N806, N815  - dimension suffixes: B batch, T audio steps, M text tokens, D width, H heads, E of a head, P place

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import problem
from lightning_adapt.lina_speech.gla.backend import Backend
from lightning_adapt.lina_speech.model.config import LinaConfig
from lightning_adapt.lina_speech.model.layers import BlockOutput, MixingBlock

__all__ = ["BlindCrossAttention", "CrossOutput", "PlainCrossAttention", "TextMemory", "sinusoids"]


@dataclass(frozen=True)
class TextMemory:
    """What decoding needs of the texts, computed once by `LinaModel.encode_text`.

    Attributes:
        keys_BHME: Normalised keys over the square root of their width; one head if attention is blind.
        values_BHME: Normalised values.
        bias_BM: 0 at real tokens, -inf at padding; column 0 is 0 in every row. Float32.
        places_MP: Sinusoids of the places, dtype of the keys; None if attention is plain.
    """

    keys_BHME: Tensor
    values_BHME: Tensor
    bias_BM: Tensor
    places_MP: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of texts."""
        return len(self.bias_BM)

    def select(self, rows: Tensor | Sequence[int]) -> TextMemory:
        """Return some texts, in the order of `rows` (row numbers, or a bool per text if a tensor)."""
        index = torch.as_tensor(rows, device=self.bias_BM.device)
        index = index if index.dtype == torch.bool else index.long()  # an empty list would be float
        return TextMemory(self.keys_BHME[index], self.values_BHME[index], self.bias_BM[index], self.places_MP)

    def repeat(self, n: int) -> TextMemory:
        """Return every text `n` times, copies of one text side by side."""
        index = torch.arange(self.batch_size, device=self.bias_BM.device).repeat_interleave(n)
        return self.select(index)

    def to(self, device: torch.device | str) -> TextMemory:
        """Return the texts on another device."""
        places = None if self.places_MP is None else self.places_MP.to(device)
        return TextMemory(self.keys_BHME.to(device), self.values_BHME.to(device), self.bias_BM.to(device), places)


class CrossOutput(NamedTuple):
    """What cross-attention returns.

    Attributes:
        y: What is added to the stream. Shape (B, T, D).
        attention_BTM: Weights over the tokens, before dropout; the mean over heads if attention is plain.
        gla: State of the recurrence of blind attention after the last real step, or None. Shape (B, H, K, V).
        conv: Last inputs of its convolution, or None.
    """

    y: Tensor
    attention_BTM: Tensor
    gla: Tensor | None = None
    conv: Tensor | None = None


class PlainCrossAttention(nn.Module):
    """Multi-head attention to the text; equations at the top of this file.

    Args:
        config: Width, heads and attention dropout are taken from here.
        backend: Not used; there is no recurrence here.
    """

    def __init__(self, config: LinaConfig, *, backend: Backend = "auto") -> None:
        super().__init__()
        del backend
        width = config.d_model
        self.n_heads = config.n_heads
        self.query, self.query_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.key, self.key_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.value, self.value_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.attention_dropout)

    def remember(self, text_BMD: Tensor, mask_BM: Tensor) -> TextMemory:
        """Return keys and values of encoded texts, shape (B, M, D), with True at real tokens, shape (B, M)."""
        keys = self._heads(self.key_norm(self.key(text_BMD)))
        values = self._heads(self.value_norm(self.value(text_BMD)))
        reachable = mask_BM.clone()
        reachable[:, 0] = True  # an empty text is one of padding, not a softmax over nothing
        bias = torch.zeros_like(reachable, dtype=torch.float32).masked_fill(~reachable, -torch.inf)
        return TextMemory(keys * keys.shape[-1] ** -0.5, values, bias)

    def forward(
        self,
        x_BTD: Tensor,
        memory: TextMemory,
        state: Tensor | None = None,
        conv: Tensor | None = None,
        mask_BT: Tensor | None = None,
        lengths_B: Tensor | None = None,
        output_state: bool = False,
    ) -> CrossOutput:
        """Attend to the text; only the first two arguments are used, the others are for `BlindCrossAttention`."""
        del state, conv, mask_BT, lengths_B, output_state
        weights_BHTM = self._weights(x_BTD, memory)
        read_BHTE = self._drop(weights_BHTM, memory) @ memory.values_BHME
        return CrossOutput(read_BHTE.transpose(1, 2).flatten(2), weights_BHTM.mean(1))

    def step(self, x_BD: Tensor, memory: TextMemory, state: Tensor | None, conv: Tensor | None) -> CrossOutput:
        """Attend for one step: x and y of shape (B, D), attention of shape (B, M)."""
        out = self(x_BD.unsqueeze(1), memory, state, conv)
        return CrossOutput(out.y.squeeze(1), out.attention_BTM.squeeze(1))

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.n_heads, width // self.n_heads).transpose(1, 2)

    def _drop(self, weights: Tensor, memory: TextMemory) -> Tensor:
        """Return weights after dropout, in the dtype of what they weigh."""
        kept: Tensor = self.dropout(weights) if self.training else weights
        return kept.to(memory.values_BHME.dtype)

    def _weights(self, x_BTD: Tensor, memory: TextMemory) -> Tensor:
        q_BHTE = self._heads(self.query_norm(self.query(x_BTD)))
        return masked_softmax(q_BHTE @ memory.keys_BHME.mT, memory.bias_BM[:, None, None, :])


class BlindCrossAttention(PlainCrossAttention):
    """Position-aware attention to the text with one head; equations at the top of this file.

    Args:
        config: Width, width of the places, recurrent block and attention dropout are taken from here.
        backend: How to compute the recurrence in training; see `gla`.
    """

    def __init__(self, config: LinaConfig, *, backend: Backend = "auto") -> None:
        super().__init__(config)
        self.n_heads = 1
        self.place_width = config.d_blind
        self.block = MixingBlock(config.d_blind, config, backend=backend)

    def remember(self, text_BMD: Tensor, mask_BM: Tensor) -> TextMemory:
        """Return keys, values and places of encoded texts, shape (B, M, D), with True at real tokens, shape (B, M)."""
        plain = super().remember(text_BMD, mask_BM)
        places = sinusoids(text_BMD.shape[1], self.place_width, text_BMD.device)
        return TextMemory(plain.keys_BHME, plain.values_BHME, plain.bias_BM, places.to(plain.keys_BHME.dtype))

    def forward(
        self,
        x_BTD: Tensor,
        memory: TextMemory,
        state: Tensor | None = None,
        conv: Tensor | None = None,
        mask_BT: Tensor | None = None,
        lengths_B: Tensor | None = None,
        output_state: bool = False,
    ) -> CrossOutput:
        """Attend to the text.

        Args:
            x_BTD: The audio stream. Shape (B, T, D).
            memory: What `remember` returned.
            state: State of the recurrence before the first step; None for zeros. Shape (B or 1, H, K, V), float32.
            conv: Inputs of its convolution before the first step; None for zeros.
            mask_BT: True at real steps; None for all. Shape (B, T), bool.
            lengths_B: Real steps per row; None for all. Shape (B,), int64.
            output_state: Whether to return the state after the last real step.

        Returns:
            What to add to the stream, the weights, and the state.
        """
        found_BTP = self._place(x_BTD, memory)
        moved = self.block(found_BTP, state, conv, mask_BT, lengths_B, output_state)
        read_BTD, weights_BTM = self._read(moved.y, memory)
        return CrossOutput(read_BTD, weights_BTM, moved.gla, moved.conv)

    def step(self, x_BD: Tensor, memory: TextMemory, state: Tensor | None, conv: Tensor | None) -> CrossOutput:
        """Attend for one step: x and y of shape (B, D), attention of shape (B, M)."""
        found_BTP = self._place(x_BD.unsqueeze(1), memory)
        moved: BlockOutput = self.block.step(found_BTP.squeeze(1), state, conv)
        read_BTD, weights_BTM = self._read(moved.y.unsqueeze(1), memory)
        return CrossOutput(read_BTD.squeeze(1), weights_BTM.squeeze(1), moved.gla, moved.conv)

    def _place(self, x_BTD: Tensor, memory: TextMemory) -> Tensor:
        weights_BTM = self._drop(self._weights(x_BTD, memory).squeeze(1), memory)
        found_BTP: Tensor = weights_BTM @ _places(memory)
        return found_BTP

    def _read(self, place_BTP: Tensor, memory: TextMemory) -> tuple[Tensor, Tensor]:
        scores_BTM = (place_BTP * self.place_width**-0.5) @ _places(memory).T
        weights_BTM = masked_softmax(scores_BTM, memory.bias_BM[:, None, :])
        return self._drop(weights_BTM, memory) @ memory.values_BHME.squeeze(1), weights_BTM


def sinusoids(n_places: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return the sines, then the cosines, of m * 10000^(-2 i / P) for place m and i = 0..P/2-1.

    Vaswani et al., 2017, arXiv 1706.03762, section 3.5; there sines and cosines alternate, which only renumbers them.

    Args:
        n_places: Places [M].
        width: Numbers per place [P], even.
        device: Where to put them.

    Returns:
        The table. Shape (M, P), float32.

    Example:
        >>> sinusoids(2, 4)
        tensor([[0.0000, 0.0000, 1.0000, 1.0000],
                [0.8415, 0.0100, 0.5403, 0.9999]])
    """
    rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    angles = torch.arange(n_places, device=device)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)


def masked_softmax(scores: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(scores + bias) over the last dimension, in at least float32."""
    return torch.softmax(scores + bias, -1)  # a float32 bias makes the sum float32 under autocast


def _places(memory: TextMemory) -> Tensor:
    if memory.places_MP is None:
        remedy = "Encode the texts with this model."
        raise ValueError(problem("memory", "of a model with blind attention", "one without places", remedy))
    return memory.places_MP
