"""EnCodec, DAC and Mimi of transformers as codecs: one layout, exact lengths, a fingerprint and streams."""

# Dimension suffixes: B batch, T audio samples, Q codebooks, N frames.

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self, override

from lightning_adapt._shared.checks import check_integer
from lightning_adapt._shared.imports import require
from lightning_adapt.lina_speech.codecs.neural import NeuralCodec
from lightning_adapt.lina_speech.codecs.transformers_kinds import kind_of

__all__ = ["TransformersCodec"]


class TransformersCodec(NeuralCodec):
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
        self._calls = kind_of(self.model)
        self.model.eval()
        config = self.model.config
        self.name = self.name or getattr(config, "name_or_path", "") or None
        self.revision = revision or getattr(config, "_commit_hash", None)
        self.hop_length = self._calls.hop_length(config)
        self.sample_rate_hz = int(config.sampling_rate)
        self.frame_rate_hz = self.sample_rate_hz / self.hop_length
        self.codebook_size = int(config.codebook_size)
        most = self._calls.n_codebooks(config)
        remedy = "Leave it out for all that the model has."
        self.n_codebooks = check_integer(
            "n_codebooks", most if n_codebooks is None else n_codebooks, remedy, minimum=1, maximum=most
        )

    @override
    def to(self, device: str | torch.device) -> Self:
        super().to(device)
        for part in self.model.modules():
            # Mimi keeps its centers a second time outside its buffers, where a move does not reach them
            if "_embed" in vars(part):
                vars(part)["_embed"] = None
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name or 'a model'}, {self.fingerprint}, {self.sample_rate_hz} Hz)"

    @override
    def _kind(self) -> str:
        kind: str = self.model.config.model_type
        return kind

    @override
    def _codebooks(self) -> dict[str, Tensor]:
        books = self._calls.books(self.model)[: self.n_codebooks]
        return {f"{number:03d}": book for number, book in enumerate(books)}

    @override
    def _to_codes(self, audio_BT: Tensor) -> Tensor:
        n_frames = -(-audio_BT.shape[1] // self.hop_length)
        filled = F.pad(audio_BT, (0, n_frames * self.hop_length - audio_BT.shape[1]))
        found = self._calls.encode(self.model, filled[:, None].to(self.model.dtype), self.n_codebooks)
        return found[:, : self.n_codebooks, :n_frames]

    @override
    def _to_audio(self, codes_BQN: Tensor) -> Tensor:
        return self._calls.decode(self.model, codes_BQN).reshape(len(codes_BQN), -1)

    @override
    def _stream_frames(self) -> tuple[int, int, int]:
        return self._calls.stream_sizes(self.model.config, self.frame_rate_hz)

    @override
    def _source(self) -> dict[str, Any]:
        names = ("name", "revision", "n_codebooks", "sample_rate_hz", "frame_rate_hz", "codebook_size")
        return {name: getattr(self, name) for name in names}

    @classmethod
    @override
    def _from_source(cls, state: Mapping[str, Any]) -> tuple[Self, str]:
        if not state.get("name"):
            raise ValueError(
                f"The saved state names no weights: the codec {state.get('fingerprint')} was made from a model that "
                "was not loaded by name. Pass the codec itself as `codec`."
            )
        return cls(state["name"], n_codebooks=state["n_codebooks"], revision=state["revision"]), state["name"]


def _full_name(name: str | Path) -> str:
    folder = Path(name).expanduser()  # a state must find its folder from wherever it is loaded
    return str(folder.absolute()) if folder.is_dir() else str(name)


def _loaded(name: str, revision: str | None) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(name, revision=revision or "main")
