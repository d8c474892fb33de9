"""A codec that is fitted in seconds: residual k-means on log mel frames, Griffin-Lim back to audio."""

# Dimension suffixes: B batch, T audio samples, Q codebooks, C values of a code, N frames, M mel bands.
# ruff: noqa: N803, N806 - tensor names carry their dimensions

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from lightning_adapt._shared.checks import check_integer, check_positive, problem
from lightning_adapt.lina_speech.codecs.codec import STATE_VERSION, check_state
from lightning_adapt.lina_speech.codecs.codec_file import read_codec_file, write_codec_file
from lightning_adapt.lina_speech.codecs.fingerprint import fingerprint_text, tensors_digest
from lightning_adapt.lina_speech.codecs.inputs import audio_batch, code_batch
from lightning_adapt.lina_speech.codecs.kmeans_fit import drawn_frames, residual_books
from lightning_adapt.lina_speech.codecs.kmeans_stream import KMeansMelStreamDecoder
from lightning_adapt.lina_speech.codecs.mel import MelFrames

__all__ = ["KMeansMelCodec"]

_LONGEST_HOP = 2**14
_HIGHEST_RATE_HZ = 384_000  # more is no audio, and the matrices of its windows fill the memory
_LARGEST_CODEBOOK = 65_536
_SHORTEST_HOP = 16


class KMeansMelCodec:
    """Codes are numbers of cluster centers of log mel frames; each codebook codes what those before it have left.

    It needs no pretrained weights and is fitted on the audio of its task (`fit`), which it then suits; neural codecs
    sound better. A recording of S samples gives ceil(S / hop) frames, decoded to frames * hop samples, where
    hop = sample_rate_hz / frame_rate_hz. Decoding goes in blocks of 4 frames with 8 frames of look-ahead, so that a
    stream gives the same samples as a whole: audio starts after 12 frames.

    Args:
        codebooks: Cluster centers, shape (Q, C, n_mels), float32.
        sample_rate_hz: Rate of the audio.
        frame_rate_hz: Frames per second; `sample_rate_hz` must be a whole multiple of it.

    Raises:
        ModuleNotFoundError: If torchaudio is not installed (extra `speech`).
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or a center is not finite.

    Example:
        >>> noise = torch.rand(4410, generator=torch.Generator().manual_seed(0)) - 0.5
        >>> codec = KMeansMelCodec.fit([noise], n_codebooks=2, codebook_size=4)
        >>> codec.encode(noise).shape, codec.decode(codec.encode(noise)).shape
        (torch.Size([2, 10]), torch.Size([4410]))
    """

    def __init__(self, codebooks: Tensor, *, sample_rate_hz: int = 22_050, frame_rate_hz: float = 50.0) -> None:
        self.hop_length = _checked_hop(sample_rate_hz, frame_rate_hz)
        self.sample_rate_hz, self.frame_rate_hz = int(sample_rate_hz), float(frame_rate_hz)
        self.codebooks = _checked_codebooks(codebooks)
        self.n_codebooks, self.codebook_size, self.n_mels = self.codebooks.shape
        self.mel = MelFrames(self.sample_rate_hz, self.hop_length, self.n_mels)

    @classmethod
    def fit(
        cls,
        audios: Iterable[Tensor],
        *,
        sample_rate_hz: int = 22_050,
        frame_rate_hz: float = 50.0,
        n_codebooks: int = 1,
        codebook_size: int = 512,
        n_mels: int = 80,
        max_frames: int = 100_000,
        iterations: int = 25,
        seed: int = 0,
    ) -> Self:
        """Fit the codebooks, one after the other, on what the ones before have left.

        Bands are not brought to equal spread: on speech this kept less of the voice. The same audio in the same order
        gives the same codec.

        Args:
            audios: Recordings, each of shape (S,), float32, in [-1, 1]; taken one at a time.
            sample_rate_hz: Rate of the audio.
            frame_rate_hz: Frames per second; `sample_rate_hz` must be a whole multiple of it.
            n_codebooks: Q, codes per frame.
            codebook_size: C, values of a code.
            n_mels: Mel bands.
            max_frames: Most frames to fit on (100,000 are 33 minutes at 50 Hz); of more, so many are drawn.
            iterations: Most iterations of each k-means.
            seed: Any whole number.

        Returns:
            The codec, on the CPU.

        Raises:
            ModuleNotFoundError: If torchaudio is not installed (extra `speech`).
            TypeError: If an argument has the wrong type.
            ValueError: If an argument is out of range, a recording is unfit, or there are fewer frames than centers.
        """
        remedy = "Pass a positive whole number."
        n_codebooks = check_integer("n_codebooks", n_codebooks, remedy, minimum=1)
        codebook_size = check_integer("codebook_size", codebook_size, remedy, minimum=2, maximum=_LARGEST_CODEBOOK)
        check_integer("n_mels", n_mels, remedy, minimum=1)
        check_integer("max_frames", max_frames, f"{remedy} It may not be below `codebook_size`.", minimum=codebook_size)
        mel = MelFrames(sample_rate_hz, _checked_hop(sample_rate_hz, frame_rate_hz), n_mels)
        frames_NM = drawn_frames(audios, mel, max_frames, seed)
        if len(frames_NM) < codebook_size:
            remedy = f"They last {len(frames_NM) / frame_rate_hz:.1f} s. Give more audio, or a smaller `codebook_size`."
            what = f"at least `codebook_size` = {codebook_size} frames of audio"
            raise ValueError(problem("audios", what, len(frames_NM), remedy))
        books = residual_books(frames_NM, n_codebooks, codebook_size, iterations, seed)
        return cls(books, sample_rate_hz=sample_rate_hz, frame_rate_hz=frame_rate_hz)

    @property
    def device(self) -> torch.device:
        """Where the codec computes and where its results are."""
        return self.codebooks.device

    def to(self, device: str | torch.device) -> Self:
        """Move the codec to a device, in place as a module does, and return it."""
        self.codebooks = self.codebooks.to(device)
        self.mel.to(self.device)
        return self

    @property
    def fingerprint(self) -> str:
        """Class, Q, C, frame rate and a hash of rates and centers; the same on every device and after loading."""
        settings = {"sample_rate_hz": self.sample_rate_hz, "frame_rate_hz": self.frame_rate_hz}
        digest = tensors_digest({"codebooks": self.codebooks}, settings)
        return fingerprint_text(type(self).__name__, self.n_codebooks, self.codebook_size, self.frame_rate_hz, digest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.fingerprint}, {self.sample_rate_hz} Hz)"

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes of mono audio at `sample_rate_hz`.

        Args:
            audio: Shape (S,) or (B, S), float32, in [-1, 1]. Silence after a recording does not change the codes of
                its own ceil(S / hop) frames.

        Returns:
            Shape (Q, N) or (B, Q, N) with N = ceil(S / hop), dtype int64, on the device of the codec.

        Raises:
            TypeError: If it is no tensor of floats.
            ValueError: If the shape is wrong, nothing is in it, or a number is NaN or far outside [-1, 1].
        """
        rows_BT = audio_batch(audio, self.device)
        with torch.autocast(self.device.type, enabled=False):
            left_BNM = self.mel.analyse(rows_BT)
            codes = []
            for centers_CM in self.codebooks:
                codes.append(_nearest(left_BNM, centers_CM))
                left_BNM = left_BNM - centers_CM[codes[-1]]
        codes_BQN = torch.stack(codes, 1)
        return codes_BQN[0] if audio.ndim == 1 else codes_BQN

    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio of codes, the same as that of `stream_decoder` sample for sample.

        Args:
            codes: Shape (Q, N) or (B, Q, N), whole numbers in 0..C-1, N >= 0.

        Returns:
            Shape (N * hop,) or (B, N * hop), float32, in [-1, 1], on the device of the codec.

        Raises:
            TypeError: If they are no tensor of whole numbers.
            ValueError: If the shape is wrong or a code is out of range.
        """
        rows = [self._whole(row) for row in code_batch(codes, self.n_codebooks, self.codebook_size, self.device)]
        if codes.ndim == 2:
            return rows[0]
        return torch.stack(rows) if rows else torch.zeros(0, codes.shape[-1] * self.hop_length, device=self.device)

    def _whole(self, codes_QN: Tensor) -> Tensor:
        decoder = self.stream_decoder()
        return torch.cat([decoder.push(codes_QN), decoder.finish()])

    def stream_decoder(self) -> KMeansMelStreamDecoder:
        """Return a fresh decoder for the frames of one stream."""
        return KMeansMelStreamDecoder(self)

    def log_mel(self, codes_QN: Tensor) -> Tensor:
        """Return the log mel frames that codes stand for.

        Args:
            codes_QN: Shape (Q, N), int64, in 0..C-1, on the device of the codec.

        Returns:
            Shape (N, M), float32.
        """
        books = torch.arange(self.n_codebooks, device=codes_QN.device)[:, None]
        return self.codebooks[books, codes_QN].sum(0)

    def to_state(self) -> dict[str, Any]:
        """Return everything that makes the codec: plain values, and the centers on the CPU."""
        settings = {"sample_rate_hz": self.sample_rate_hz, "frame_rate_hz": self.frame_rate_hz}
        return {
            "version": STATE_VERSION,
            "class": type(self).__name__,
            **settings,
            "codebooks": self.codebooks.cpu().clone(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the codec that `to_state` described, on the CPU.

        Raises:
            ModuleNotFoundError: If torchaudio is not installed (extra `speech`).
            ValueError: If the state is of something else, of a newer release or unfit.
        """
        check_state(state, cls.__name__)
        try:
            rates = {name: state[name] for name in ("sample_rate_hz", "frame_rate_hz")}
            return cls(state["codebooks"], **rates)
        except (KeyError, TypeError, ArithmeticError, RuntimeError) as error:  # such as rates no memory has room for
            word = "complete" if isinstance(error, (KeyError, TypeError)) else "usable"
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"The saved state of {cls.__name__} is not {word}: {reason}. Save it again.") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the codec to a safetensors file, whole or not at all.

        Args:
            path: The file; one that is there is replaced.

        Raises:
            ModuleNotFoundError: If safetensors is not installed.
            OSError: If the file cannot be written.
        """
        write_codec_file(path, self.to_state())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Build the codec from a file that `save` wrote, on the CPU.

        Args:
            path: The file.

        Returns:
            The codec, with the same fingerprint.

        Raises:
            ModuleNotFoundError: If safetensors or torchaudio is not installed.
            OSError: If there is no such file.
            ValueError: If the file is damaged, of something else, or of a newer release.
        """
        return cls.from_state(read_codec_file(path))


def _checked_hop(sample_rate_hz: int, frame_rate_hz: float) -> int:
    rate = check_integer(
        "sample_rate_hz",
        sample_rate_hz,
        "Pass the rate of your audio, such as 22050.",
        minimum=1,
        maximum=_HIGHEST_RATE_HZ,
    )
    frames = check_positive("frame_rate_hz", frame_rate_hz, "Pass frames per second, such as 50.")
    hop = round(rate / frames)
    if not _SHORTEST_HOP <= hop <= _LONGEST_HOP or abs(hop * frames - rate) > 1e-6 * rate:
        allowed = f"a divisor of sample_rate_hz = {rate}: {_SHORTEST_HOP} samples per frame or more, <= {_LONGEST_HOP}"
        raise ValueError(
            problem("frame_rate_hz", allowed, frame_rate_hz, "50 goes into 16000, 22050, 24000 and 44100.")
        )
    return hop


def _checked_codebooks(codebooks: Tensor) -> Tensor:
    wanted = "a float tensor of shape (codebooks, values, mel bands)"
    remedy = "Fit a codec with KMeansMelCodec.fit, or load one."
    if not isinstance(codebooks, Tensor) or not codebooks.dtype.is_floating_point:
        raise TypeError(problem("codebooks", wanted, codebooks, remedy))
    if codebooks.ndim != 3 or not codebooks.numel():
        raise ValueError(problem("codebooks", wanted, tuple(codebooks.shape), remedy))
    if not bool(codebooks.isfinite().all()):
        raise ValueError(problem("codebooks", "finite", "NaN or inf", remedy))
    return codebooks.detach().float().contiguous().clone()


def _nearest(left_BNM: Tensor, centers_CM: Tensor) -> Tensor:
    """Return the number of the nearest center, shape (B, N); the first of several that are equally near."""
    # differences, not a matrix product: a frame's code must not depend on how many frames are asked for
    how = "donot_use_mm_for_euclid_dist"
    return torch.cdist(left_BNM.flatten(0, 1), centers_CM, compute_mode=how).argmin(-1).reshape(left_BNM.shape[:2])
