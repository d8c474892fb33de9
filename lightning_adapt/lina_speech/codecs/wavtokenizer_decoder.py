"""The decoder of WavTokenizer: frames through convolutions and attention to spectra, and spectra to audio."""

# Dimension suffixes: B batch, N frames, D width, F bins of the spectrum, L samples of a window, T audio samples.
# ruff: noqa: N803, N806 - tensor names carry their dimensions

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_adapt.lina_speech.codecs.wavtokenizer_config import WavTokenizerConfig

__all__ = ["Backbone", "SpectrumHead"]

_GROUPS = 32
_EPSILON = 1e-6
_LOUDEST_BIN = 100.0  # the trained models count on this bound


class Backbone(nn.Module):
    """Embeddings of frames to hidden states of frames: four residual blocks around attention, then ConvNeXt blocks.

    This is the backbone of Vocos (Siuzdak 2023, arXiv 2306.00814) with attention in front (Ji et al. 2024). Group
    norms and attention see all frames, so a frame sounds a little different in other company. The adaptive layer norms
    of the originals have one condition in use, so here they are layer norms with that condition's scale and shift.

    Args:
        config: The sizes.
    """

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        width = config.width
        self.embed = nn.Conv1d(config.codebook_dim, width, 7, padding=3)
        self.pos_net = nn.Sequential(
            _ResidualBlock(width),
            _ResidualBlock(width),
            _Attention(width),
            _ResidualBlock(width),
            _ResidualBlock(width),
            _group_norm(width),
        )
        self.norm = nn.LayerNorm(width, _EPSILON)
        self.convnext = nn.ModuleList(_ConvNeXtBlock(width, config.feedforward_width) for _ in range(config.n_blocks))
        self.final_layer_norm = nn.LayerNorm(width, _EPSILON)

    def forward(self, embeddings_BDN: Tensor) -> Tensor:
        """Return hidden states of shape (B, N, width) of embeddings of shape (B, codebook_dim, N)."""
        hidden_BND = self.norm(self.pos_net(self.embed(embeddings_BDN)).mT)
        for block in self.convnext:
            hidden_BND = block(hidden_BND)
        output: Tensor = self.final_layer_norm(hidden_BND)
        return output


class SpectrumHead(nn.Module):
    """Hidden states to log magnitudes and phases of one window per frame, and those to audio.

    Windows overlap and are added; the sum is divided by that of the squared windows and cut so that a frame gives one
    hop of samples ("same" padding in Vocos, where the first hop has the first frame's window in its middle).

    Args:
        config: The sizes.
    """

    window: Tensor

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.n_fft, self.hop_length = config.n_fft, config.hop_length
        self.out = nn.Linear(config.width, config.n_fft + 2)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, hidden_BND: Tensor) -> Tensor:
        """Return audio of shape (B, N * hop) of hidden states of shape (B, N, width)."""
        log_magnitude_BFN, phase_BFN = self.out(hidden_BND).mT.chunk(2, 1)
        spectrum_BFN = torch.polar(log_magnitude_BFN.exp().clamp(max=_LOUDEST_BIN), phase_BFN)
        pieces_BLN = torch.fft.irfft(spectrum_BFN, self.n_fft, dim=1) * self.window[:, None]
        cover_1LN = self.window.square()[None, :, None].expand(1, -1, hidden_BND.shape[1])
        return self._added(pieces_BLN) / self._added(cover_1LN)

    def _added(self, pieces_BLN: Tensor) -> Tensor:
        n_frames = pieces_BLN.shape[2]
        total = (n_frames - 1) * self.hop_length + self.n_fft
        added = F.fold(pieces_BLN, (1, total), (1, self.n_fft), stride=(1, self.hop_length))[:, 0, 0]
        start = (self.n_fft - self.hop_length) // 2
        return added[:, start : start + n_frames * self.hop_length]


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _group_norm(width), _group_norm(width)
        self.conv1, self.conv2 = (nn.Conv1d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, hidden_BDN: Tensor) -> Tensor:
        first = self.conv1(F.silu(self.norm1(hidden_BDN)))
        change: Tensor = self.conv2(F.silu(self.norm2(first)))
        return hidden_BDN + change


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _group_norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(width, width, 1) for _ in range(4))

    def forward(self, hidden_BDN: Tensor) -> Tensor:
        normed = self.norm(hidden_BDN)
        q_BND, k_BND, v_BND = (project(normed).mT for project in (self.q, self.k, self.v))
        mixed_BND = F.scaled_dot_product_attention(q_BND, k_BND, v_BND)  # one head
        change: Tensor = self.proj_out(mixed_BND.mT)
        return hidden_BDN + change


class _ConvNeXtBlock(nn.Module):
    def __init__(self, width: int, feedforward_width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, _EPSILON)
        self.pwconv1 = nn.Linear(width, feedforward_width)
        self.pwconv2 = nn.Linear(feedforward_width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, hidden_BND: Tensor) -> Tensor:
        near_BND = self.norm(self.dwconv(hidden_BND.mT).mT)
        change: Tensor = self.gamma * self.pwconv2(F.gelu(self.pwconv1(near_BND)))
        return hidden_BND + change


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, _EPSILON)
