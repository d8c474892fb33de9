"""The text encoder: a small transformer that sees the whole text, with rotary embeddings on half of each head.

With LN layer normalisation, `n_text_layers` times

    x <- x + Attention(LN(x));  x <- x + SwiGLU(LN(x));  x <- dropout(x)

One fused map with bias gives q, k and v, there is no output map and no norm after the last block, as in the authors'
code. The first half of each head's channels is turned by the angles of RoPE (Su et al., 2021, arXiv 2104.09864; base
10,000, channel i paired with channel i + half). Differs from the authors' code in nothing we know of; which half of a
head they turn was not to be found.
"""

# ruff: noqa: N803, N806  - dimension suffixes: B batch, M text tokens, D width, H heads, R rotated channels, E of a head

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_adapt.lina_speech.model.config import LinaConfig
from lightning_adapt.lina_speech.model.layers import SwiGLU

__all__ = ["TEXT_PAD", "TextEncoder"]

TEXT_PAD = 0
_ROTARY_BASE = 10_000.0


class TextEncoder(nn.Module):
    """Turn text ids into one vector per token.

    Args:
        config: Width, blocks, heads, vocabulary and text dropout are taken from here.
    """

    def __init__(self, config: LinaConfig) -> None:
        super().__init__()
        self.head_width = config.d_model // config.n_text_heads
        self.embedding = nn.Embedding(config.text_vocab_size, config.d_model, padding_idx=TEXT_PAD)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.n_text_layers))

    def forward(self, text_BM: Tensor, mask_BM: Tensor) -> Tensor:
        """Encode texts; a row's result does not depend on how far it is padded.

        Args:
            text_BM: Text ids. Shape (B, M), int64.
            mask_BM: True at real tokens. Shape (B, M), bool.

        Returns:
            One vector per token; those after a row's end have no meaning but are finite. Shape (B, M, D).
        """
        n_tokens = text_BM.shape[1]
        itself = torch.eye(n_tokens, dtype=torch.bool, device=text_BM.device)
        attends_B1MM = mask_BM[:, None, None, :] | itself  # a padded row sees itself, so that no softmax is empty
        turn = rotary_angles(n_tokens, self.head_width // 2, text_BM.device)
        x: Tensor = self.embedding(text_BM)
        for block in self.blocks:
            x = block(x, attends_B1MM, turn)
        return x


class TextBlock(nn.Module):
    """Bidirectional self-attention and SwiGLU; see the equations above."""

    def __init__(self, config: LinaConfig) -> None:
        super().__init__()
        width = config.d_model
        self.n_heads = config.n_text_heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = SwiGLU(width)
        self.dropout = nn.Dropout(config.text_dropout)

    def forward(self, x_BMD: Tensor, attends_B1MM: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Return the stream after the block; `turn` is what `rotary_angles` gave."""
        batch, n_tokens, width = x_BMD.shape
        qkv = self.qkv(self.attention_norm(x_BMD)).view(batch, n_tokens, 3, self.n_heads, width // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, M, E) each
        q, k = rotate_half_of_head(q, turn), rotate_half_of_head(k, turn)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attends_B1MM)
        x = x_BMD + mixed.transpose(1, 2).reshape(batch, n_tokens, width)
        y: Tensor = self.dropout(x + self.mlp(self.mlp_norm(x)))
        return y


def rotary_angles(n_tokens: int, n_rotated: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angle m * 10000^(-2 i / R) of token m and channel pair i.

    Args:
        n_tokens: Tokens [M].
        n_rotated: Channels that are turned [R], even.
        device: Where to put them.

    Returns:
        Cosines and sines. Shape (M, R / 2) each, float32.
    """
    pairs = torch.arange(0, n_rotated, 2, dtype=torch.float32, device=device)
    angles = torch.arange(n_tokens, device=device)[:, None] * _ROTARY_BASE ** (-pairs / n_rotated)
    return angles.cos(), angles.sin()


def rotate_half_of_head(x_BHME: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the first half of the channels, channel i with channel i + R / 2, and leave the second half as it is.

    Args:
        x_BHME: Queries or keys. Shape (B, H, M, E).
        turn: What `rotary_angles` gave for R = E / 2.

    Returns:
        The turned tensor, shape and dtype of x.
    """
    cosine, sine = (part.to(x_BHME.dtype) for part in turn)
    pair = cosine.shape[-1]
    first, second, rest = torch.split(x_BHME, [pair, pair, x_BHME.shape[-1] - 2 * pair], -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine, rest), -1)
