"""The network of WavTokenizer: EnCodec's encoder, one codebook, and the decoder."""

# Dimension suffixes: B batch, N frames, D width, C codebook size, T audio samples.
# ruff: noqa: N803, N806 - tensor names carry their dimensions

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from lightning_adapt._shared.imports import require
from lightning_adapt.lina_speech.codecs.wavtokenizer_config import WavTokenizerConfig
from lightning_adapt.lina_speech.codecs.wavtokenizer_decoder import Backbone, SpectrumHead

__all__ = ["WavTokenizerModel"]


class WavTokenizerModel(nn.Module):
    """Encoder, codebook and decoder for inference; the encoder's weight norms are folded into its weights.

    Args:
        config: The sizes.

    Raises:
        ModuleNotFoundError: If transformers, whose EnCodec encoder this uses, is not installed (extra `speech`).
    """

    codebook: Tensor

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced by those of a file
            self.encoder = _encoder(config)
            self.backbone = Backbone(config)
            self.head = SpectrumHead(config)
        self.register_buffer("codebook", torch.zeros(config.codebook_size, config.codebook_dim))

    def to_codes(self, audio_BT: Tensor) -> Tensor:
        """Return the number of the center next to each frame: shape (B, N), int64, N = ceil(T / hop)."""
        features_BND = self.encoder(audio_BT[:, None]).mT
        # squared distance, without the part that is the same for all centers
        distance_BNC = self.codebook.square().sum(1) - 2 * features_BND @ self.codebook.T
        codes_BN: Tensor = distance_BNC.argmin(2)
        return codes_BN

    def to_audio(self, codes_BN: Tensor) -> Tensor:
        """Return the audio of codes: shape (B, N * hop)."""
        audio_BT: Tensor = self.head(self.backbone(F.embedding(codes_BN, self.codebook).mT))
        return audio_BT


def _encoder(config: WavTokenizerConfig) -> nn.Module:
    require("speech", "WavTokenizerCodec", "transformers")
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecEncoder

    encoder: nn.Module = EncodecEncoder(
        EncodecConfig(
            sampling_rate=config.sample_rate_hz,
            audio_channels=1,
            num_filters=config.n_filters,
            upsampling_ratios=list(config.ratios),
            hidden_size=config.codebook_dim,
            codebook_dim=config.codebook_dim,
            num_lstm_layers=config.n_lstm_layers,
            use_causal_conv=False,
            norm_type="weight_norm",
            pad_mode="reflect",
            num_residual_layers=1,
            kernel_size=7,
            last_kernel_size=7,
            residual_kernel_size=3,
            dilation_growth_rate=2,
            compress=2,
            use_conv_shortcut=True,
        )
    )
    for part in encoder.modules():
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight")
    return encoder
