"""EnCodec, DAC and Mimi of transformers as codecs: one layout, exact lengths, a fingerprint and streams."""

# Dimension suffixes: B batch, T audio samples, Q codebooks, N frames.
# ruff: noqa: N806 - tensor names carry their dimensions

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from lightning_adapt._shared.checks import check_integer
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.state import read_version
from lightning_adapt.lina_speech.codecs.codec import STATE_VERSION, check_codec, fingerprint_text, tensors_digest
from lightning_adapt.lina_speech.codecs.inputs import audio_batch, code_batch
from lightning_adapt.lina_speech.codecs.stream_decoder import WindowedStreamDecoder
from lightning_adapt.lina_speech.codecs.transformers_kinds import kind_of

__all__ = ["TransformersCodec"]


class TransformersCodec:
    """A neural codec of transformers: EnCodec (mono), DAC or Mimi.

    S samples give ceil(S / hop) frames, the last one filled up with silence, and N frames give exactly N * hop samples
    (a DAC whose strides are odd lacks the last few; they are silence). Audio must have the model's `sample_rate_hz`.

    Streams are decoded in blocks of a quarter of a second, each with context around it. DAC depends on few frames
    (10 of the published models), so its stream equals `decode` but for rounding. EnCodec (an LSTM) and Mimi (attention)
    remember longer than the context of 1 to 2 s: their streams only come near `decode`.

    Args:
        model: The model, or its name on the hub, or a folder that `save_pretrained` wrote. A model is used as it is
            and put into evaluation mode.
        n_codebooks: How many of its codebooks to use, from the first; None for all. All these models are residual, so
            the first ones do not depend on the rest.
        revision: Commit, tag or branch for a name on the hub; name a commit to be sure of the weights.

    Raises:
        ModuleNotFoundError: If transformers is not installed (extra `speech`).
        OSError: If there is no such name or folder.
        TypeError: If the model is none of these, or an argument has the wrong type.
        ValueError: If it is a stereo model, or has fewer codebooks.
    """

    def __init__(self, model: Any, *, n_codebooks: int | None = None, revision: str | None = None) -> None:
        require("speech", "TransformersCodec", "transformers")
        self.name: str | None = _full_name(model) if isinstance(model, (str, Path)) else None
        self.model = model if self.name is None else _loaded(self.name, revision)
        self._kind = kind_of(self.model)
        self.model.eval()
        config = self.model.config
        self.name = self.name or getattr(config, "name_or_path", "") or None
        self.revision = revision or getattr(config, "_commit_hash", None)
        self.hop_length = self._kind.hop_length(config)
        self.sample_rate_hz = int(config.sampling_rate)
        self.frame_rate_hz = self.sample_rate_hz / self.hop_length
        self.codebook_size = int(config.codebook_size)
        most = self._kind.n_codebooks(config)
        remedy = "Leave it out for all that the model has."
        self.n_codebooks = check_integer(
            "n_codebooks", most if n_codebooks is None else n_codebooks, remedy, minimum=1, maximum=most
        )

    @property
    def device(self) -> torch.device:
        """Where the codec computes and where its results are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def to(self, device: str | torch.device) -> Self:
        """Move the model to a device, in place, and return the codec."""
        self.model.to(device)
        for part in self.model.modules():
            # Mimi keeps its centers a second time outside its buffers, where a move does not reach them
            if "_embed" in vars(part):
                vars(part)["_embed"] = None
        return self

    @property
    def fingerprint(self) -> str:
        """Class, Q, C, frame rate and a hash of geometry and codebooks; the same on every device.

        Of the codebooks the signs of all numbers are hashed: they do not change when a model is converted to another
        float type, and another training has others.
        """
        config, books = self.model.config, self._kind.books(self.model)[: self.n_codebooks]
        settings = {"model": config.model_type, "sample_rate_hz": self.sample_rate_hz, "hop_length": self.hop_length}
        signs = {f"{number:03d}": torch.signbit(book.detach()) for number, book in enumerate(books)}
        kind = f"{type(self).__name__}.{config.model_type}"
        digest = tensors_digest(signs, settings)
        return fingerprint_text(kind, self.n_codebooks, self.codebook_size, self.frame_rate_hz, digest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name or 'a model'}, {self.fingerprint}, {self.sample_rate_hz} Hz)"

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes of mono audio at `sample_rate_hz`.

        Args:
            audio: Shape (S,) or (B, S), float32, in [-1, 1].

        Returns:
            Shape (Q, N) or (B, Q, N) with N = ceil(S / hop), dtype int64, on the device of the model.

        Raises:
            TypeError: If it is no tensor of floats.
            ValueError: If the shape is wrong, nothing is in it, or a number is NaN or far outside [-1, 1].
        """
        rows_BT = audio_batch(audio, self.device)
        n_frames = -(-rows_BT.shape[1] // self.hop_length)
        filled = F.pad(rows_BT, (0, n_frames * self.hop_length - rows_BT.shape[1]))
        with torch.autocast(self.device.type, enabled=False):
            found = self._kind.encode(self.model, filled[:, None].to(self.model.dtype), self.n_codebooks)
        codes_BQN = found[:, : self.n_codebooks, :n_frames].long()
        return codes_BQN[0] if audio.ndim == 1 else codes_BQN

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio of codes.

        Args:
            codes: Shape (Q, N) or (B, Q, N), whole numbers in 0..C-1, N >= 0.

        Returns:
            Shape (N * hop,) or (B, N * hop), float32, in [-1, 1], on the device of the model.

        Raises:
            TypeError: If they are no tensor of whole numbers.
            ValueError: If the shape is wrong or a code is out of range.
        """
        codes_BQN = code_batch(codes, self.n_codebooks, self.codebook_size, self.device)
        n_samples = codes_BQN.shape[2] * self.hop_length
        if not codes_BQN.numel():
            audio_BT = torch.zeros(codes_BQN.shape[0], n_samples, device=self.device)
        else:
            with torch.autocast(self.device.type, enabled=False):
                found = self._kind.decode(self.model, codes_BQN)
            audio_BT = found.reshape(len(found), -1)[:, :n_samples].float().clamp(-1.0, 1.0)
            audio_BT = F.pad(audio_BT, (0, n_samples - audio_BT.shape[1]))
        return audio_BT[0] if codes.ndim == 2 else audio_BT

    def stream_decoder(
        self, *, block_frames: int | None = None, left_frames: int | None = None, right_frames: int | None = None
    ) -> WindowedStreamDecoder:
        """Return a fresh decoder for the frames of one stream.

        Args:
            block_frames: Frames whose audio is given out at once; None for a quarter of a second.
            left_frames: Frames of context before a block; None for what the model calls for.
            right_frames: Frames of context after it; None for what the model calls for (none where it is causal).

        Returns:
            The decoder; see `WindowedStreamDecoder` for latency and cost.
        """
        wanted = (block_frames, left_frames, right_frames)
        usual = self._kind.stream_sizes(self.model.config, self.frame_rate_hz)
        block, left, right = (own if size is None else size for size, own in zip(wanted, usual, strict=True))
        return WindowedStreamDecoder(
            self.decode,
            self.n_codebooks,
            self.codebook_size,
            self.hop_length,
            block_frames=block,
            left_frames=left,
            right_frames=right,
            device=self.device,
        )

    def to_state(self) -> dict[str, Any]:
        """Return name, revision, number of codebooks and fingerprint; the weights stay where they came from."""
        return {
            "version": STATE_VERSION,
            "class": type(self).__name__,
            "name": self.name,
            "revision": self.revision,
            "n_codebooks": self.n_codebooks,
            "sample_rate_hz": self.sample_rate_hz,
            "frame_rate_hz": self.frame_rate_hz,
            "codebook_size": self.codebook_size,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Load the model that `to_state` named, on the CPU.

        Raises:
            ModuleNotFoundError: If transformers is not installed (extra `speech`).
            OSError: If there is no such name or folder any more.
            ValueError: If the state is of something else, names no weights, or they are others by now.
        """
        read_version(state, STATE_VERSION, "a codec")
        if state.get("class") != cls.__name__:
            raise ValueError(f"The saved state is of {state.get('class')!r}, not of {cls.__name__}. Use its own class.")
        if not state.get("name"):
            raise ValueError(
                f"The saved state names no weights: the codec {state.get('fingerprint')} was made from a model that "
                "was not loaded by name. Pass the codec itself as `codec`."
            )
        codec = cls(state["name"], n_codebooks=state["n_codebooks"], revision=state["revision"])
        check_codec(codec, state["fingerprint"], f"The saved state of {state['name']}")
        return codec


def _full_name(name: str | Path) -> str:
    folder = Path(name).expanduser()  # a state must find its folder from wherever it is loaded
    return str(folder.absolute()) if folder.is_dir() else str(name)


def _loaded(name: str, revision: str | None) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(name, revision=revision or "main")
