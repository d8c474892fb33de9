"""What every codec offers, and how one is named, kept in a checkpoint and told from another."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from lightning_adapt._shared.checks import describe, problem
from lightning_adapt._shared.state import read_version
from lightning_adapt.lina_speech.saved_parts import check_checkpoint_is_there, saved_part

__all__ = [
    "Codec",
    "StreamDecoder",
    "as_codec",
    "check_codec",
    "check_codec_like",
    "check_state",
    "codec_from_state",
]

STATE_VERSION = 1
# class of a state -> the module that defines it; imported when such a state is read
_HOMES = {
    "KMeansMelCodec": "lightning_adapt.lina_speech.codecs.kmeans_mel",
    "TransformersCodec": "lightning_adapt.lina_speech.codecs.transformers_codec",
    "WavTokenizerCodec": "lightning_adapt.lina_speech.codecs.wavtokenizer",
}
_MODELS = ("encodec", "dac", "mimi")  # codecs of transformers
_CHECKPOINTS = (".ckpt", ".pt", ".pth")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_NAMES = (
    "a codec; the file that `KMeansMelCodec.save` wrote; 'encodec:', 'dac:' or 'mimi:' before a name on the hub or a "
    "folder, or such a name ('owner/name') or folder alone; a checkpoint of `LinaSpeechModule`; or the .ckpt or "
    ".safetensors file of a WavTokenizer"
)
_NEEDED = ("sample_rate_hz", "frame_rate_hz", "n_codebooks", "codebook_size", "fingerprint")
_NEEDED_METHODS = ("encode", "decode", "stream_decoder", "to_state")


@runtime_checkable
class StreamDecoder(Protocol):
    """Turns the frames of one stream into audio as they come.

    All pieces joined are the same sample for sample however the frames were pushed, and equal `Codec.decode` of all
    of them where the codec says so.
    """

    def push(self, codes: Tensor) -> Tensor:
        """Take the next frames, shape (Q, n) with n >= 0, int64; return the audio that is final now, shape (S,)."""
        ...

    def finish(self) -> Tensor:
        """Return the audio that was held back for frames to come, shape (S,); nothing may be pushed afterwards."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Audio to Q whole numbers per frame and back. One frame is `sample_rate_hz / frame_rate_hz` samples, the hop.

    Attributes:
        sample_rate_hz: Rate of the audio.
        frame_rate_hz: Frames per second.
        n_codebooks: Q, numbers per frame.
        codebook_size: C; codes are 0..C-1.
        fingerprint: Class, Q, C, frame rate and a hash of everything that decides what a code sounds like. A model
            works with the codec of its training only, and with any other it speaks fluent babble without an error.
    """

    sample_rate_hz: int
    frame_rate_hz: float
    n_codebooks: int
    codebook_size: int

    @property
    def fingerprint(self) -> str:
        """The text that tells this codec from every other."""
        ...

    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes of mono audio in [-1, 1] at `sample_rate_hz`; S samples give ceil(S / hop) frames.

        Args:
            audio: Shape (S,) or (B, S), float32, S >= 1.

        Returns:
            Shape (Q, N) or (B, Q, N), dtype int64.
        """
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio of codes: exactly N * hop samples in [-1, 1].

        Args:
            codes: Shape (Q, N) or (B, Q, N), dtype int64, each in 0..C-1, N >= 0.

        Returns:
            Shape (S,) or (B, S), float32.
        """
        ...

    def stream_decoder(self) -> StreamDecoder:
        """Return a fresh decoder for the frames of one stream."""
        ...

    def to_state(self) -> dict[str, Any]:
        """Return what `codec_from_state` needs: plain values and tensors that load with `weights_only=True`."""
        ...


def check_codec(codec: Codec, fingerprint: str, what: str) -> None:
    """Raise unless a codec is the one that something was made with.

    Args:
        codec: The codec at hand.
        fingerprint: Fingerprint of the codec that is needed.
        what: What was made with it, such as "the checkpoint last.ckpt".

    Raises:
        ValueError: If the fingerprints differ; the text names both.
    """
    if codec.fingerprint != fingerprint:
        raise ValueError(
            f"{what} was made with the codec {fingerprint}, but got the codec {codec.fingerprint}. Codes of one codec "
            "are noise to another, even where the shapes match. Pass the codec that it was made with."
        )


def check_state(state: Mapping[str, Any], kind: str) -> None:
    """Raise ValueError unless a codec's state is of a class, and of a release that this one can read."""
    read_version(state, STATE_VERSION, "a codec")
    if state.get("class") != kind:
        raise ValueError(f"The saved state is of {state.get('class')!r}, not of {kind}. Use its own class.")


def check_codec_like(value: object, argument: str = "codec") -> Codec:
    """Return a value that has everything a codec needs.

    Args:
        value: What the user passed.
        argument: Name of the argument, for the error text.

    Returns:
        The value.

    Raises:
        TypeError: If something is missing; the text names it.
    """
    missing = [name for name in _NEEDED if not hasattr(value, name)]
    missing += [f"{name}()" for name in _NEEDED_METHODS if not callable(getattr(value, name, None))]
    if isinstance(value, type):
        raise TypeError(problem(argument, "a codec", value, "It is a class: make an object of it."))
    if missing:
        raise TypeError(problem(argument, "a codec", value, f"It has no {_listed(missing)}, which `Codec` asks for."))
    return value  # type: ignore[return-value]


def as_codec(value: Any, argument: str = "codec") -> Codec:
    """Return the codec that a user asked for.

    Args:
        value: A codec, which comes back as it is; or a str or path, of one of

            - the .safetensors file that `KMeansMelCodec.save` wrote,
            - "encodec:NAME", "dac:NAME" or "mimi:NAME": the name of such a model on the hub, or its folder,
            - a name on the hub ("owner/name") or a folder that `save_pretrained` wrote: a `TransformersCodec`,
            - a checkpoint of `LinaSpeechModule`: the codec of its model,
            - the .ckpt or .safetensors file of a WavTokenizer of published sizes.
        argument: Name of the argument, for the error text.

    Returns:
        The codec. One of transformers has all codebooks of its model; for fewer pass a `TransformersCodec`.

    Raises:
        ModuleNotFoundError: If the codec needs a package that is not installed.
        OSError: If there is no such file, folder or name; the text lists what is allowed.
        TypeError: If it is none of these.
        ValueError: If the file is damaged, the model is of another kind, or the checkpoint has no codec.
    """
    if not isinstance(value, (str, os.PathLike)):
        return check_codec_like(value, argument)
    name = os.fspath(value)
    kind, colon, rest = name.partition(":")
    if colon and kind in _MODELS:
        return _of_transformers(rest, kind, argument)
    path = Path(name).expanduser()
    if path.is_file():
        return _of_file(path, argument)
    check_checkpoint_is_there(path, argument)
    known = (*_CHECKPOINTS, ".safetensors")
    if path.is_dir() or (isinstance(value, str) and _HUB_NAME.fullmatch(name) and path.suffix not in known):
        return _of_transformers(name, None, argument)
    raise FileNotFoundError(problem(argument, _NAMES, name, "There is no such file; check the path."))


def _of_file(path: Path, argument: str) -> Codec:
    from lightning_adapt.lina_speech.codecs.codec_file import is_other_safetensors, read_codec_file

    part = saved_part(path, "codec")
    if part is not None:
        return codec_from_state(part["state"], expected_fingerprint=part["fingerprint"])
    if path.suffix not in _CHECKPOINTS and not is_other_safetensors(path):
        return codec_from_state(read_codec_file(path))
    try:
        return _class("WavTokenizerCodec")(path)  # type: ignore[no-any-return]
    except ValueError as error:
        raise ValueError(problem(argument, _NAMES, str(path), str(error))) from error


def _of_transformers(name: str, kind: str | None, argument: str) -> Codec:
    try:
        codec = _class("TransformersCodec")(name)
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise OSError(problem(argument, _NAMES, name, f"Nothing can be loaded by that name: {reason}")) from error
    found = codec.model.config.model_type
    if kind is not None and found != kind:
        raise ValueError(problem(argument, f"a model of the kind {kind!r}", found, f"Write '{found}:{name}'."))
    return codec  # type: ignore[no-any-return]


def _class(kind: str) -> Any:
    return getattr(importlib.import_module(_HOMES[kind]), kind)


def codec_from_state(state: Mapping[str, Any], *, expected_fingerprint: str | None = None) -> Codec:
    """Rebuild a codec from what `to_state` gave.

    Args:
        state: The state; of a pretrained codec it holds the name of the weights, which are loaded again.
        expected_fingerprint: What the codec must be; None for no check.

    Returns:
        The codec, on the CPU.

    Raises:
        ModuleNotFoundError: If the codec needs a package that is not installed.
        OSError: If pretrained weights are not where the state says.
        ValueError: If the state is of something else or of a newer release, or the fingerprint differs.
    """
    read_version(state, STATE_VERSION, "a codec")
    kind = state.get("class")
    if kind not in _HOMES:
        raise ValueError(
            f"The saved state of a codec names the class {describe(kind)}, which this release cannot build (it builds "
            f"{_listed(list(_HOMES))}). Pass the codec itself as `codec`."
        )
    codec: Codec = _class(kind).from_state(state)
    if expected_fingerprint is not None:
        check_codec(codec, expected_fingerprint, "The saved state")
    return codec


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
