"""Sizes of a Lina-Speech model, and the presets; the whole configuration is plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from lightning_adapt._shared.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_positive,
    problem,
)

__all__ = ["PRESETS", "CrossAttention", "LinaConfig", "preset"]

CrossAttention = Literal["blind", "plain"]

_DEPTHS = ("n_encoder_layers", "n_decoder_layers", "n_text_layers")
_WIDTHS = ("d_model", "d_blind", "n_heads", "n_text_heads", "gate_rank")
_TABLES = ("n_codebooks", "codebook_size", "text_vocab_size")
_SHARES = ("text_dropout", "attention_dropout", "dropout")


@dataclass(frozen=True, kw_only=True)
class LinaConfig:
    """Sizes and switches of a `LinaModel`; names in brackets are those of the equations in `layers.py`.

    Args:
        d_model: Width of the residual stream [D].
        n_encoder_layers: Recurrent blocks before the cross-attention.
        n_decoder_layers: Recurrent blocks after it.
        n_heads: Heads of the recurrent blocks and of plain cross-attention [H].
        expand_k: Width of queries and keys over `d_model` [K = D * expand_k / H].
        expand_v: Width of values over `d_model` [V = D * expand_v / H].
        n_text_layers: Blocks of the text encoder.
        n_text_heads: Attention heads of the text encoder; a head's width must divide by 4 (rotary embeddings turn half
            of it).
        cross_attention: "blind": content finds a place in the text, a recurrence that sees places only moves it on,
            and its output reads the text by place. "plain": ordinary multi-head attention.
        d_blind: Width of the places and of their recurrence; used by "blind" only.
        n_codebooks: Codebooks of the codec [Q].
        codebook_size: Entries per codebook, without the three special ids.
        text_vocab_size: Text ids, the special ones included.
        short_conv: Whether q, k and v pass a causal depthwise convolution of width 4, with SiLU.
        tie_embeddings: Whether the output heads are the input tables.
        text_dropout: Share of the text encoder's residual stream set to 0 after each block, in [0, 1).
        attention_dropout: Share of cross-attention weights set to 0, in [0, 1).
        dropout: Share of the audio residual stream set to 0 after each recurrent block, in [0, 1).
        gate_rank: Rank of the map from the input to the forget gates.
        gate_normalizer: Divides the log of the gates, which keeps them near 1 [tau].
        gate_bias_init: None: gate biases start at 0, a memory of about 1.44 tau = 23 steps in every channel. (a, b):
            the channels start with memories of a to b steps, evenly spread in the log over channels and heads.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range, or widths do not divide by their heads.

    Example:
        >>> LinaConfig(d_model=64, n_heads=2, d_blind=32).key_width
        64
    """

    d_model: int = 128
    n_encoder_layers: int = 2
    n_decoder_layers: int = 2
    n_heads: int = 2
    expand_k: float = 1.0
    expand_v: float = 2.0
    n_text_layers: int = 2
    n_text_heads: int = 4
    cross_attention: CrossAttention = "blind"
    d_blind: int = 64
    n_codebooks: int = 1
    codebook_size: int = 512
    text_vocab_size: int = 256
    short_conv: bool = False
    tie_embeddings: bool = False
    text_dropout: float = 0.1
    attention_dropout: float = 0.1
    dropout: float = 0.0
    gate_rank: int = 16
    gate_normalizer: float = 16.0
    gate_bias_init: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in (*_DEPTHS, *_WIDTHS, *_TABLES):
            check_integer(name, getattr(self, name), "Start from a preset, such as preset('tiny').", minimum=1)
        for name in ("expand_k", "expand_v", "gate_normalizer"):
            check_positive(name, getattr(self, name), "Leave it out for the authors' value.")
        for name in _SHARES:
            check_number(name, getattr(self, name), "[0, 1)", "Pass 0.0 for none.")
        for name in ("short_conv", "tie_embeddings"):
            check_flag(name, getattr(self, name), "Leave it out for the authors' choice.")
        check_choice("cross_attention", self.cross_attention, ("blind", "plain"), "Use 'blind', the authors' choice.")
        self._check_widths()
        object.__setattr__(self, "gate_bias_init", _checked_spread(self.gate_bias_init))  # JSON gives a list

    def _check_widths(self) -> None:
        divides = [
            ("n_text_heads", self.d_model, 4 * self.n_text_heads, "d_model = 4 * n_text_heads * a whole number"),
            ("n_heads", self.d_model, self.n_heads, "a divisor of d_model"),
        ]
        widths = {"d_model": self.d_model}
        if self.cross_attention == "blind":
            widths["d_blind"] = self.d_blind
            divides.append(("d_blind", self.d_blind, 2, "even, for sines and cosines"))
        for argument, whole, part, allowed in divides:
            if whole % part:
                received = f"{getattr(self, argument)} with d_model {self.d_model}"
                raise ValueError(problem(argument, allowed, received, "Choose widths that divide."))
        for argument, width in widths.items():
            for name in ("expand_k", "expand_v"):
                total = width * getattr(self, name)
                if total != int(total) or int(total) % self.n_heads:
                    allowed = f"such that {argument} * {name} is a multiple of n_heads ({self.n_heads})"
                    received = f"{width} * {getattr(self, name)}"
                    raise ValueError(problem(argument, allowed, received, "Choose widths that divide."))

    @property
    def key_width(self) -> int:
        """Queries or keys of all heads of a recurrent block, H * K."""
        return int(self.d_model * self.expand_k)

    @property
    def value_width(self) -> int:
        """Values of all heads of a recurrent block, H * V."""
        return int(self.d_model * self.expand_v)

    @property
    def n_layers(self) -> int:
        """Recurrent blocks whose state holds the voice: encoder and decoder, without that of blind attention."""
        return self.n_encoder_layers + self.n_decoder_layers

    @property
    def n_audio_ids(self) -> int:
        """Ids per codebook, the three special ones included: the size of the output [V of the logits]."""
        return self.codebook_size + 3

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as plain values, for a checkpoint or a JSON file."""
        values = asdict(self)
        if self.gate_bias_init is not None:
            values["gate_bias_init"] = list(self.gate_bias_init)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LinaConfig:
        """Build a configuration from what `to_dict` gave.

        Args:
            values: Argument -> value; arguments left out keep their defaults.

        Returns:
            The configuration.

        Raises:
            ValueError: If there is no such argument, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            remedy = "Check the spelling, or use the version of this package that wrote them."
            raise ValueError(problem("values", "arguments of LinaConfig: " + ", ".join(known), unknown, remedy))
        return cls(**values)


def _checked_spread(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    allowed, remedy = "None or two numbers of steps 0 < shortest <= longest", "Pass (8, 512), or None for the authors'."
    try:
        shortest, longest = (float(number) for number in value)
    except (TypeError, ValueError) as error:
        raise TypeError(problem("gate_bias_init", allowed, value, remedy)) from error
    if not 0 < shortest <= longest < float("inf"):
        raise ValueError(problem("gate_bias_init", allowed, value, remedy))
    return shortest, longest


_SIX_AND_SIX: dict[str, Any] = {"n_encoder_layers": 6, "n_decoder_layers": 6, "n_heads": 4}
_WIDE: dict[str, Any] = {"d_model": 1024, "n_heads": 4, "n_text_heads": 4}
_ENCODEC: dict[str, Any] = {"n_codebooks": 4, "codebook_size": 1024}
_WAVTOKENIZER: dict[str, Any] = {"n_codebooks": 1, "codebook_size": 4096}
_SLIM: dict[str, Any] = {"d_model": 512, "n_text_heads": 8, "d_blind": 128, "attention_dropout": 0.2}
_DEEP: dict[str, Any] = {"n_encoder_layers": 12, "n_decoder_layers": 12, "cross_attention": "plain"}

# name -> arguments. 60m and 230m: the authors' published and historical configurations; 359m: sizes inferred from the
# file of their 24-layer checkpoint. 169m is OUR reconstruction: the released model's expansion factors and text depth
# are unknown, and with expand_v 2 no depth of the text encoder gives its 169 M parameters; 1/1 and 6 do.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"short_conv": True},  # without them 0.2 nats worse after 400 steps
    "60m": {**_SIX_AND_SIX, **_SLIM, **_ENCODEC, "n_text_layers": 9},
    "169m": {**_WIDE, **_SIX_AND_SIX, **_WAVTOKENIZER, "n_text_layers": 6, "expand_v": 1.0, "d_blind": 128},
    "230m": {**_WIDE, **_SIX_AND_SIX, **_ENCODEC, "n_text_layers": 9, "d_blind": 512},
    "359m": {**_WIDE, **_DEEP, **_WAVTOKENIZER, "n_text_layers": 6},
}


def preset(name: str, *, small_state: bool = False, **overrides: Any) -> LinaConfig:
    """Return a configuration by name.

    Parameters: "tiny" 1.3 M (demos and tests), "60m" 59.9 M, "169m" 169.8 M, "230m" 232.6 M, "359m" 358.9 M. "169m" is
    our reconstruction (expand_k = expand_v = 1, 6 text blocks) of the authors' released model, whose exact sizes are
    not published; "359m" has one plain cross-attention in the middle of 24 blocks.

    Args:
        name: One of `PRESETS`.
        small_state: Use expand_k 0.5 and expand_v 1, the defaults of flash-linear-attention's layer: a state (and a
            voice) of a quarter of the size at 1/2, and half the parameters in the mixers.
        overrides: Any argument of `LinaConfig`, such as `n_codebooks=4`.

    Returns:
        The configuration.

    Raises:
        TypeError: If an override is no argument of `LinaConfig`, or of the wrong type.
        ValueError: If there is no such preset, or a value is out of range.

    Example:
        >>> preset("60m", n_codebooks=8).d_model
        512
    """
    check_choice("preset", name, tuple(PRESETS), "Use 'tiny' to try things out.")
    check_flag("small_state", small_state, "Pass True for the smaller state.")
    small = {"expand_k": 0.5, "expand_v": 1.0} if small_state else {}
    return LinaConfig(**{**PRESETS[name], **small, **overrides})
