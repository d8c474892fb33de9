"""Voice: how a model speaks like somebody, as a small file; the state that its recurrences start from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from lightning_adapt._shared.checks import (
    check_choice,
    check_integer,
    check_not_negative,
    check_number,
    check_text,
    problem,
)
from lightning_adapt._shared.fingerprint import known_fingerprint
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.state import read_version
from lightning_adapt._shared.tensor_file import read_tensor_file, write_tensor_file
from lightning_adapt.lina_speech.voices.factors import checked_tensors, largest_rank, matrices_of, mixed_tensors

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.model.model import LinaModel
    from lightning_adapt.lina_speech.model.state import State

__all__ = ["Voice"]

FORMAT = "lightning_adapt voice"
_VERSION = 1
_KINDS = ("tuned", "prompt", "mixed")
_HELD_OUT = ("untuned", "tuned")
_CONVERTED = " Weights in another precision count as another model: call `voice.state(model)` before converting them."


@dataclass(frozen=True, eq=False)
class Voice:
    """What a model with frozen weights starts from in order to speak like somebody.

    A voice belongs to one model and one codec, told by their fingerprints; anything else is refused, since it would
    speak babble without an error. Values that are passed are copied to the CPU in float32 and checked.

    Args:
        name: Whose voice it is, or what it sounds like.
        tensors: Matrix of each recurrence by its name, such as "gla.0". Shape (H, K, V); or as factors NAME.u of shape
            (R, H, K) and NAME.w of shape (R, H, V), whose sum_r u_r w_r^T is the matrix. A recurrence that is left out
            starts from zeros. Voices from a prompt also have "conv.0".., last inputs of convolutions, shape (3, C).
        model_fingerprint: `weights_fingerprint` of the model.
        codec_fingerprint: Fingerprint of the codec; None if there was none.
        sample_rate_hz: Rate of the codec's audio.
        kind: "tuned" (learnt with frozen weights), "prompt" (the state after a recording) or "mixed".
        training_seconds: Audio that it was made of.
        held_out: Loss on utterances that were not trained on, nats per target: {"untuned": ..., "tuned": ...}.
        consent: Who agreed to what, in words. Announce synthetic speech as such.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, shapes do not belong together, or a number is not finite.

    Example:
        >>> import torch
        >>> voice = Voice("anna", {"gla.0.u": torch.ones(1, 2, 3), "gla.0.w": torch.ones(1, 2, 4)}, "0123")
        >>> voice.rank, voice.nbytes, voice.matrices()["gla.0"].shape
        (1, 56, torch.Size([2, 3, 4]))
    """

    name: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    model_fingerprint: str
    codec_fingerprint: str | None = None
    sample_rate_hz: int | None = None
    kind: Literal["tuned", "prompt", "mixed"] = "tuned"
    training_seconds: float | None = None
    held_out: Mapping[str, float] | None = None
    consent: str | None = None

    def __post_init__(self) -> None:
        check_text("name", self.name, "Name the speaker.")
        check_text("model_fingerprint", self.model_fingerprint, "Pass weights_fingerprint(module.model).")
        for argument in ("codec_fingerprint", "consent"):
            if getattr(self, argument) is not None:
                check_text(argument, getattr(self, argument), "Leave it out if there is none.")
        check_choice("kind", self.kind, _KINDS, "Leave it out for a tuned voice.")
        if self.sample_rate_hz is not None:
            check_integer("sample_rate_hz", self.sample_rate_hz, "Pass that of the codec.", minimum=1)
        seconds = self.training_seconds
        if seconds is not None:
            remedy = "Leave it out if it is not known."
            object.__setattr__(self, "training_seconds", check_not_negative("training_seconds", seconds, remedy))
        object.__setattr__(self, "held_out", _checked_losses(self.held_out))
        object.__setattr__(self, "tensors", checked_tensors(self.tensors, convolutions=self.kind != "tuned"))

    # -- what it is -----------------------------------------------------------------------------------------------
    @property
    def rank(self) -> int | Literal["full"]:
        """Largest rank of its matrices; "full" if one is kept as it is."""
        rank = largest_rank(self.tensors)
        return "full" if rank is None else rank

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; the file is a little larger."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def matrices(self) -> dict[str, Tensor]:
        """Return the matrix of each recurrence that the voice says something of: (H, K, V), float32, on the CPU."""
        return matrices_of(self.tensors)

    def check(self, model_fingerprint: str, codec_fingerprint: str | None = None) -> None:
        """Refuse another model or codec than those that the voice was made with.

        Args:
            model_fingerprint: `weights_fingerprint` of the model at hand.
            codec_fingerprint: Fingerprint of the codec at hand; None if it is not known, which is not refused.

        Raises:
            ValueError: If one differs; the text names both.
        """
        pairs = {
            "model": (self.model_fingerprint, model_fingerprint),
            "codec": (self.codec_fingerprint, codec_fingerprint),
        }
        for noun, (own, here) in pairs.items():
            if own is not None and here is not None and own != here:
                raise ValueError(
                    f"The voice {self.name!r} was made with the {noun} {own}, but got the {noun} {here}. It means "
                    f"nothing to another {noun}. Load the {noun} it was made with, or make it again with this one."
                    + (_CONVERTED if noun == "model" else "")
                )

    def state(self, model: LinaModel, codec: Any = None) -> State:
        """Return the state that the streams of a model start from in this voice.

        Args:
            model: The model.
            codec: The codec it will speak through; None for no check.

        Returns:
            State of one stream, on the device of the model; what the voice leaves out is zero.

        Raises:
            ValueError: If model or codec are not those of the voice, or a shape does not fit.
        """
        from lightning_adapt.lina_speech.model.state import completed_state

        self.check(known_fingerprint(model), None if codec is None else codec.fingerprint)
        convs = {name: value for name, value in self.tensors.items() if value.dim() == 2}
        parts = {name: value[None] for name, value in (self.matrices() | convs).items()}
        return completed_state(parts, model.initial_state(1), f"voice {self.name!r}")

    # -- files ----------------------------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the voice to a safetensors file, whole or not at all.

        Args:
            path: The file, best with the ending ".safetensors"; one that is there is replaced.

        Raises:
            ModuleNotFoundError: If safetensors is not installed.
            OSError: If the file cannot be written.
        """
        require("speech", "A voice file", "safetensors")
        plain = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "tensors"}
        file = Path(path).expanduser()
        write_tensor_file(file, FORMAT, self.tensors, {"version": _VERSION, "rank": self.rank, **plain})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Voice:
        """Read a voice that `save` wrote.

        Args:
            path: The file.

        Returns:
            The voice.

        Raises:
            ModuleNotFoundError: If safetensors is not installed.
            OSError: If there is no such file.
            ValueError: If the file is damaged, of something else, of a newer release, or what it holds is no voice.
        """
        require("speech", "A voice file", "safetensors")
        path = Path(path).expanduser()
        tensors, body = read_tensor_file(path, FORMAT, "voice", foreign="is no voice file of lightning_adapt")
        read_version(body, _VERSION, f"the voice {os.fspath(path)}")
        rank = body.pop("rank", None)
        del body["version"]
        try:
            voice = cls(tensors=tensors, **body)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no voice that this release knows: {error}") from error
        if voice.rank != rank:
            raise ValueError(f"{path} says it is a voice of rank {rank!r}, but its tensors have rank {voice.rank!r}.")
        return voice

    # -- mixtures -------------------------------------------------------------------------------------------------
    @classmethod
    def mix(cls, voices: Sequence[Voice], weights: Sequence[float] | None = None, *, name: str | None = None) -> Voice:
        """Return the voice whose matrices are the weighted sum of those of others.

        Weights may be any finite numbers and need not add up to 1. The model without a voice starts from zeros, so a
        sum below 1 lets its own voice in for the rest; a sum above 1 exaggerates, a negative weight leads away from a
        voice. Voices of low rank give one of low rank, the sum of theirs, while that is smaller than full matrices.

        Args:
            voices: At least one, all of one model and one codec.
            weights: One per voice, 0 for no part in the result; None for equal shares that add up to 1.
            name: Of the result; None for one such as "0.7 anna + 0.3 bob".

        Returns:
            A voice of the kind "mixed"; its `training_seconds` are the sum where all are known, its `consent` names
            that of each. A single voice with weight 1 is returned as it is.

        Raises:
            TypeError: If it is given something else than voices and numbers.
            ValueError: If the lengths differ, a weight is not finite, all are 0, or models or codecs differ.
        """
        weights = [1 / max(1, len(voices))] * len(voices) if weights is None else weights
        parts, codec = _checked_parts(voices, weights)
        if not parts:
            raise ValueError(problem("weights", "other than 0 for some voice", list(weights), "Pass [0.5, 0.5]."))
        used = [voice for _, voice in parts]
        if len(parts) == 1 and parts[0][0] == 1.0:
            return used[0] if name is None else dataclasses.replace(used[0], name=name)
        seconds = [voice.training_seconds for voice in used]
        return cls(
            name=" + ".join(f"{weight:g} {voice.name}" for weight, voice in parts) if name is None else name,
            tensors=mixed_tensors([(weight, voice.tensors) for weight, voice in parts]),
            model_fingerprint=used[0].model_fingerprint,
            codec_fingerprint=codec,
            sample_rate_hz=next((voice.sample_rate_hz for voice in used if voice.sample_rate_hz), None),
            kind="mixed",
            training_seconds=None if None in seconds else sum(second for second in seconds if second is not None),
            consent=_joined_consent(used),
        )

    @classmethod
    def interpolate(cls, first: Voice, second: Voice, share: float, *, name: str | None = None) -> Voice:
        """Return a voice on the line between two: `mix([first, second], [1 - share, share])`.

        Args:
            first: What a share of 0 gives.
            second: What a share of 1 gives.
            share: Any finite number; outside [0, 1] it goes beyond the two.
            name: As in `mix`.

        Returns:
            The voice.

        Raises:
            TypeError: As `mix`.
            ValueError: As `mix`.
        """
        share = _finite("share", share)
        return cls.mix([first, second], [1.0 - share, share], name=name)


# -- checks ------------------------------------------------------------------------------------------------------------
def _checked_losses(value: Any) -> dict[str, float] | None:
    if value is None:
        return None
    remedy = 'Pass {"untuned": 3.1, "tuned": 2.7}.'
    if not isinstance(value, Mapping) or set(value) != set(_HELD_OUT):
        raise ValueError(problem("held_out", "a dict of the two losses 'untuned' and 'tuned'", value, remedy))
    return {name: _finite(f"held_out[{name!r}]", value[name]) for name in _HELD_OUT}


def _finite(argument: str, value: Any) -> float:
    return check_number(argument, value, "(-inf, inf)", "Pass 0.5.")


def _checked_parts(voices: Sequence[Voice], weights: Sequence[float]) -> tuple[list[tuple[float, Voice]], str | None]:
    """Return weight and voice of those whose weight is not 0, and the codec of all."""
    voices, weights = list(voices), list(weights)
    for number, voice in enumerate(voices):
        if not isinstance(voice, Voice):
            raise TypeError(problem(f"voices[{number}]", "a Voice", voice, "Load it with Voice.load(path)."))
    if len(voices) != len(weights) or not voices:
        raise ValueError(problem("weights", f"one per voice ({len(voices)})", len(weights), "Pass [0.5, 0.5]."))
    codec = next((voice.codec_fingerprint for voice in voices if voice.codec_fingerprint is not None), None)
    for voice in voices:
        voice.check(voices[0].model_fingerprint, codec)
    checked = [_finite(f"weights[{number}]", weight) for number, weight in enumerate(weights)]
    return [(weight, voice) for weight, voice in zip(checked, voices, strict=True) if weight != 0.0], codec


def _joined_consent(voices: Sequence[Voice]) -> str | None:
    if all(voice.consent is None for voice in voices):
        return None
    return "; ".join(f"{voice.name}: {voice.consent or 'not stated'}" for voice in voices)
