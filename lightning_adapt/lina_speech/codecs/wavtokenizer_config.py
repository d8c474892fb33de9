"""The sizes of a WavTokenizer: the published ones, and those of a dict or of one of the authors' YAML files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import Self

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.text_files import parse_json, read_text

__all__ = ["PRESETS", "WavTokenizerConfig", "config_from", "preset_of_weights"]

_LARGEST_FILE = 2**13  # characters, three times the authors' files: a parser of YAML takes seconds for more
_GROUPS = 32  # groups of the decoder's group norms
_REMEDY = "Take the sizes from the YAML file that belongs to the checkpoint."


@dataclass(frozen=True)
class WavTokenizerConfig:
    """Sizes of encoder, codebook and decoder. The defaults are those of the published models of 75 tokens per second.

    Attributes:
        ratios: Factors between audio and frames, slowest rate first; the encoder takes them from the last to the first.
        n_filters: Channels after the encoder's first convolution; they double with each factor.
        n_lstm_layers: Layers of the encoder's LSTM.
        codebook_size: C, centers of the one codebook.
        codebook_dim: Width of a center.
        width: Channels of the decoder, a multiple of 32.
        feedforward_width: Channels inside a ConvNeXt block.
        n_blocks: ConvNeXt blocks.
        n_fft: Samples of a window of the inverse transform.
        sample_rate_hz: Rate of the audio.
    """

    ratios: tuple[int, ...] = (8, 5, 4, 2)
    n_filters: int = 32
    n_lstm_layers: int = 2
    codebook_size: int = 4096
    codebook_dim: int = 512
    width: int = 768
    feedforward_width: int = 2304
    n_blocks: int = 12
    n_fft: int = 1280
    sample_rate_hz: int = 24000

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            TypeError: If a size is no whole number.
            ValueError: If a size is out of range, or sizes do not fit together.
        """
        for name, value in asdict(self).items():
            if name != "ratios":
                check_integer(name, value, _REMEDY, minimum=1)
        if not self.ratios:
            raise ValueError(problem("ratios", "at least one factor", self.ratios, _REMEDY))
        for ratio in self.ratios:
            check_integer("ratios", ratio, _REMEDY, minimum=1)
        if self.width % _GROUPS:
            raise ValueError(problem("width", f"a multiple of {_GROUPS}", self.width, _REMEDY))
        if self.n_fft < self.hop_length or (self.n_fft - self.hop_length) % 2:
            allowed = f"the hop of {self.hop_length} samples plus an even number"
            raise ValueError(problem("n_fft", allowed, self.n_fft, _REMEDY))

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as plain values; `config_from` reads them."""
        return {**asdict(self), "ratios": list(self.ratios)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the sizes of a dict.

        Args:
            values: By the names of the attributes (what is left out has its default), or as the authors' YAML files
                nest them.

        Returns:
            The sizes.

        Raises:
            TypeError: If a size is no whole number.
            ValueError: If a name is unknown, a size is out of range, or it is not a model of this kind.
        """
        try:
            flat = dict(values)
            flat = dict(flat.get("model", {}).get("init_args", flat))
            if {"feature_extractor", "backbone", "head"} <= set(flat):
                flat = _from_authors(flat)
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(
                f"`config` lacks or garbles a part of the authors' YAML files: {error!r}. {_REMEDY}"
            ) from error
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(map(str, flat)) - known)
        if unknown:
            raise ValueError(problem("config", f"a dict with keys of {', '.join(sorted(known))}", unknown, _REMEDY))
        if not isinstance(flat.get("ratios", ()), (list, tuple)):
            raise TypeError(problem("ratios", "a list of whole numbers", flat["ratios"], _REMEDY))
        if "ratios" in flat:
            flat["ratios"] = tuple(flat["ratios"])
        return cls(**flat)


# the published models, by their tokens per second; "small", "medium" and "large" differ in their data only
PRESETS: dict[str, WavTokenizerConfig] = {
    "75 tokens per second": WavTokenizerConfig(),
    "40 tokens per second": WavTokenizerConfig(ratios=(6, 5, 5, 4), n_fft=2400),
}


def config_from(value: Any) -> WavTokenizerConfig:
    """Return the sizes that a user named.

    Args:
        value: A config, a dict (see `WavTokenizerConfig.from_dict`), or the path of a YAML or JSON file with one.

    Returns:
        The sizes.

    Raises:
        ModuleNotFoundError: If it is a YAML file and pyyaml is not installed (extra `cli`).
        OSError: If there is no such file.
        TypeError: If it is none of these.
        ValueError: If the sizes are unfit.
    """
    if isinstance(value, WavTokenizerConfig):
        return value
    if isinstance(value, (str, Path)):
        value = _read(Path(value))
    if not isinstance(value, Mapping):
        raise TypeError(problem("config", "a dict of sizes, or the file of one", value, _REMEDY))
    return WavTokenizerConfig.from_dict(value)


def preset_of_weights(weights: Mapping[str, Tensor], path: str | os.PathLike[str]) -> WavTokenizerConfig:
    """Return the published sizes that the tensors of a checkpoint have.

    Args:
        weights: Tensors by the names of `WavTokenizerModel`. The window of the inverse transform tells them apart.
        path: Where they come from, for the error text.

    Returns:
        The sizes.

    Raises:
        ValueError: If these are not the sizes of a published model.
    """
    head = weights.get("head.out.weight")
    n_fft = None if head is None else head.shape[0] - 2
    for config in PRESETS.values():
        if config.n_fft == n_fft:
            return config
    known = ", ".join(f"{config.n_fft} ({name})" for name, config in PRESETS.items())
    found = "no head.out.weight" if n_fft is None else f"a window of {n_fft} samples"
    raise ValueError(
        f"{path} has {found}; the published WavTokenizers have {known}. Pass the sizes as `config`: a dict, or the "
        "YAML file that the model was trained with."
    )


def _from_authors(nested: Mapping[str, Any]) -> dict[str, Any]:
    features, backbone, head = (nested[part]["init_args"] for part in ("feature_extractor", "backbone", "head"))
    if features.get("num_quantizers", 1) != 1:
        raise ValueError(problem("num_quantizers", "1", features["num_quantizers"], "Pass a model of one codebook."))
    if head.get("padding", "same") != "same":
        raise ValueError(problem("padding", "'same'", head["padding"], "Pass a model whose frames fill their hop."))
    flat = {
        "ratios": features["dowmsamples"],  # spelled so
        "codebook_size": features["vq_bins"],
        "codebook_dim": backbone["input_channels"],
        "width": backbone["dim"],
        "feedforward_width": backbone["intermediate_dim"],
        "n_blocks": backbone["num_layers"],
        "n_fft": head["n_fft"],
        "sample_rate_hz": nested.get("sample_rate", 24000),
    }
    if math.prod(flat["ratios"]) != head["hop_length"]:
        allowed = f"the product of the encoder's factors {flat['ratios']}"
        raise ValueError(problem("hop_length", allowed, head["hop_length"], _REMEDY))
    return flat


def _read(path: Path) -> Any:
    text = read_text(path)
    if len(text) > _LARGEST_FILE:
        raise ValueError(f"{path} is too long for a file of sizes. {_REMEDY}")
    if path.suffix == ".json":
        return parse_json(text, str(path))
    require("cli", "The YAML file of a WavTokenizer", "pyyaml")
    import yaml

    class NoAliases(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # a few can unfold to any size
                raise ValueError("it has aliases")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, NoAliases)  # noqa: S506 - a SafeLoader that refuses one thing more
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as YAML: {reason}. {_REMEDY}") from error
