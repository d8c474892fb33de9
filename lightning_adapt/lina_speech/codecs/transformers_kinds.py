"""The codec models of transformers behind one face: lengths, layouts and context that differ between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_adapt._shared.checks import describe, problem

__all__ = ["Kind", "StreamSizes", "kind_of"]

_LSTM_SECONDS = 1.0  # context for EnCodec's LSTM, whose memory has no end
_ATTENTION_SECONDS = 2.0  # likewise for Mimi's attention, which looks 10 s back; it would cost 30 decodes a frame
_BLOCK_SECONDS = 0.25
_CONTINUE = "Pass a model that takes one channel of audio, such as EnCodec at 24 kHz."


class StreamSizes(NamedTuple):
    """Frames of a block of a stream, and of the context before and after it."""

    block: int
    left: int
    right: int


@dataclass(frozen=True)
class Kind:
    """What differs between the models.

    Attributes:
        hop_length: Config to samples per frame.
        n_codebooks: Config to the number of codebooks.
        books: Model to tensors that hold one codebook each; signs as those of the centers.
        encode: (model, audio (B, 1, S), codebooks) to codes (B, at least so many codebooks, N).
        decode: (model, codes (B, Q, N)) to audio (B, S) or (B, 1, S).
        context: (config, frames per second) to the frames of context before and after a block.
    """

    hop_length: Callable[[Any], int]
    n_codebooks: Callable[[Any], int]
    books: Callable[[Any], list[Tensor]]
    encode: Callable[[Any, Tensor, int], Tensor]
    decode: Callable[[Any, Tensor], Tensor]
    context: Callable[[Any, float], tuple[int, int]]

    def stream_sizes(self, config: Any, frame_rate_hz: float) -> StreamSizes:
        """Return sizes for a stream: blocks of a quarter of a second, with the context that the model calls for."""
        return StreamSizes(max(1, round(_BLOCK_SECONDS * frame_rate_hz)), *self.context(config, frame_rate_hz))


def kind_of(model: Any) -> Kind:
    """Return what is special about a codec model of transformers.

    Args:
        model: An `EncodecModel`, `DacModel` or `MimiModel`.

    Returns:
        Its kind.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is stereo, or cuts its audio into chunks of its own.
    """
    config = getattr(model, "config", None)
    kind = _KINDS.get(getattr(config, "model_type", ""))
    if kind is None or not isinstance(model, torch.nn.Module):
        wanted = "an EncodecModel, DacModel or MimiModel of transformers, or the name or folder of one"
        raise TypeError(problem("model", wanted, type(model).__name__, "For another codec write a class like `Codec`."))
    channels = getattr(config, "audio_channels", 1)
    if channels != 1:
        raise ValueError(problem("model", "a model of mono audio", f"one of {channels} channels", _CONTINUE))
    if getattr(config, "normalize", False) or getattr(config, "chunk_length_s", None) is not None:
        found = describe({name: getattr(config, name, None) for name in ("normalize", "chunk_length_s")})
        raise ValueError(problem("model", "one that codes its audio as a whole, without scales", found, _CONTINUE))
    return kind


def _encodec_encode(model: Any, audio: Tensor, n_codebooks: int) -> Tensor:
    # the codebooks in use follow from the bandwidth; the first ones do not depend on how many there are
    counts = {width: model.quantizer.get_num_quantizers_for_bandwidth(width) for width in _bandwidths(model.config)}
    width = min((width for width, count in counts.items() if count >= n_codebooks), default=max(counts))
    codes: Tensor = model.encode(audio, bandwidth=width).audio_codes
    return codes[0]  # one chunk


def _bandwidths(config: Any) -> Sequence[float]:
    widths: Sequence[float] = config.target_bandwidths
    return widths


def _mimi_books(model: Any) -> list[Tensor]:
    quantizer = model.quantizer
    halves = (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer)
    return [layer.codebook.embed_sum for half in halves for layer in half.layers]


def _reach(kernel: int, ratios: Sequence[int], residual_kernel: int, dilations: Sequence[int]) -> int:
    """Return how many frames to each side a convolutional decoder looks: kernels, in frames of the rate they work at.

    Args:
        kernel: Width of the first and of the last convolution.
        ratios: Upsampling, first to last.
        residual_kernel: Width of the convolutions between.
        dilations: Their dilations within one stage.
    """
    reach, rate = (kernel - 1) / 2, 1
    for ratio in ratios:
        reach += 1 / rate  # a transposed convolution mixes two neighbours
        rate *= ratio
        reach += sum((residual_kernel - 1) / 2 * dilation for dilation in dilations) / rate
    return math.ceil(reach + (kernel - 1) / 2 / rate)


def _encodec_context(config: Any, frame_rate_hz: float) -> tuple[int, int]:
    dilations = [config.dilation_growth_rate**layer for layer in range(config.num_residual_layers)]
    reach = _reach(config.kernel_size, config.upsampling_ratios, config.residual_kernel_size, dilations)
    memory = math.ceil(_LSTM_SECONDS * frame_rate_hz) if config.num_lstm_layers else 0
    # causal convolutions look back as far as centered ones look to both sides together
    return (memory + 2 * reach, 0) if config.use_causal_conv else (memory + reach, reach)


def _dac_context(config: Any, frame_rate_hz: float) -> tuple[int, int]:  # noqa: ARG001 - one shape for all
    reach = _reach(7, config.upsampling_ratios, 7, (1, 3, 9))
    return reach, reach


def _mimi_context(config: Any, frame_rate_hz: float) -> tuple[int, int]:
    return math.ceil(min(_ATTENTION_SECONDS, config.sliding_window / frame_rate_hz) * frame_rate_hz), 0


_KINDS = {
    "encodec": Kind(
        hop_length=lambda config: math.prod(config.upsampling_ratios),  # older releases have no `hop_length`
        n_codebooks=lambda config: int(config.num_quantizers),
        books=lambda model: [layer.codebook.embed for layer in model.quantizer.layers],
        encode=_encodec_encode,
        decode=lambda model, codes: model.decode(codes[None], [None]).audio_values,
        context=_encodec_context,
    ),
    "dac": Kind(
        hop_length=lambda config: int(config.hop_length),
        n_codebooks=lambda config: int(config.n_codebooks),
        books=lambda model: [layer.codebook.weight for layer in model.quantizer.quantizers],
        encode=lambda model, audio, n: model.encode(audio, n_quantizers=n).audio_codes,
        decode=lambda model, codes: model.decode(audio_codes=codes).audio_values,
        context=_dac_context,
    ),
    "mimi": Kind(
        hop_length=lambda config: round(config.sampling_rate / config.frame_rate),
        n_codebooks=lambda config: int(config.num_quantizers),
        books=_mimi_books,
        encode=lambda model, audio, n: model.encode(audio, num_quantizers=n).audio_codes,
        decode=lambda model, codes: model.decode(codes).audio_values,
        context=_mimi_context,
    ),
}
