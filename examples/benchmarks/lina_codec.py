"""How much of a voice the k-means codec keeps, and what fitting, encoding and decoding cost.

Of every four recordings one is held out, and the codec is fitted on the others. SECS is the cosine similarity of voice
embeddings (Resemblyzer) of a held-out recording and of what the codec makes of it. For scale: mel frames that were not
coded, with our Griffin-Lim in blocks and with that of torchaudio over the whole; another recording of the voice;
another voice. Real-time factors are seconds of work per second of audio.

    LIGHTNING_ADAPT_TEST_DATA=DIR python examples/benchmarks/lina_codec.py --check --out lina_codec.json
    python examples/benchmarks/lina_codec.py --quick --check

Full: recordings of LJ Speech, DIR/ljspeech-32/wavs/*.wav (or --data DIR). Quick: synthesised voices.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import _harness as h
import torch
from torch import Tensor

from lightning_adapt.lina_speech.codecs.griffin_lim import BLOCK_FRAMES, ITERATIONS, LOOK_AHEAD_FRAMES, MOMENTUM
from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices
from lightning_adapt.lina_speech.data.audio import load_audio

VARIABLE = "LIGHTNING_ADAPT_TEST_DATA"
RATE = 22_050
FOUR, ONE = "4x256", "1x512"
FOUR_WHOLE = "4x256, Griffin-Lim over the whole"
MEL, MEL_WHOLE = "mel, not coded", "mel, not coded, Griffin-Lim over the whole"
SAME, OTHER = "another recording of the voice", "another voice"
ROWS = (FOUR, FOUR_WHOLE, ONE, MEL, MEL_WHOLE, SAME, OTHER)
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {FOUR: 0.80, "blocks": -0.03, "fit": 60.0, "encode": 0.05, "decode": 0.4, "first audio": 150.0},
    "quick": {FOUR: 0.80, "blocks": -0.08, "fit": 30.0, "encode": 0.2, "decode": 0.8, "first audio": 300.0},
}


@dataclass(frozen=True)
class Setting:
    """What is measured on.

    Attributes:
        sizes: Codebooks and their size, for each codec.
        every: One recording of so many is held out.
        most: Most recordings held out.
    """

    sizes: dict[str, tuple[int, int]]
    every: int = 4
    most: int = 8


FULL = Setting({FOUR: (4, 256), ONE: (1, 512)})
QUICK = Setting({FOUR: (4, 256), ONE: (1, 512)}, most=3)


def recordings(folder: str | Path | None) -> tuple[list[Tensor], Tensor]:
    """Return recordings of one voice at RATE, and one of another voice.

    Args:
        folder: The folder around ljspeech-32; None for synthesised voices.

    Raises:
        FileNotFoundError: If there are no recordings in the folder; says where it looked.
    """
    voices = SynthesisedVoices(2, 12, words=(5, 8), sample_rate_hz=RATE)
    other = voices[12]["audio"]
    if folder is None:
        return [row["audio"] for row in voices[:12]], other
    wavs = sorted((Path(folder) / "ljspeech-32" / "wavs").glob("*.wav"))
    if not wavs:
        where = Path(folder) / "ljspeech-32" / "wavs"
        raise FileNotFoundError(
            f"There are no recordings in {where}. Put some clips of LJ Speech (keithito.com/LJ-Speech-Dataset) there, "
            f"or name the folder around ljspeech-32/ by --data or {VARIABLE}."
        )
    return [load_audio(wav, RATE) for wav in wavs], other


@cache
def _encoder() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old imports inside Resemblyzer
        from resemblyzer import VoiceEncoder

        return VoiceEncoder("cpu", verbose=False)


def voice_of(audio: Tensor) -> Tensor:
    """Return the voice embedding of audio at RATE, shape (256,), of length 1."""
    encoder = _encoder()
    from resemblyzer import preprocess_wav

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(encoder.embed_utterance(preprocess_wav(audio.numpy(), source_sr=RATE)))


class Bench:
    """Recordings, their voices and the fitted codecs.

    Args:
        setting: What is measured on.
        folder: See `recordings`.
        device: Where the codec works.
    """

    def __init__(self, setting: Setting, folder: str | Path | None, device: str) -> None:
        self.setting, self.device = setting, device
        audios, self.other = recordings(folder)
        self.held_out = audios[:: setting.every][: setting.most]
        self.fitted_on = [audio for place, audio in enumerate(audios) if place % setting.every]
        self.voices = [voice_of(audio) for audio in self.held_out]
        self.seconds = sum(len(audio) for audio in self.held_out) / RATE
        self._codecs: dict[tuple[str, int], tuple[KMeansMelCodec, float]] = {}

    def described(self) -> dict[str, Any]:
        lengths = [len(audio) for audio in (*self.held_out, *self.fitted_on)]
        synthesis = {"block": BLOCK_FRAMES, "look-ahead": LOOK_AHEAD_FRAMES, "iterations": ITERATIONS}
        return {**asdict(self.setting), "samples": lengths, **synthesis}

    def codec(self, row: str, seed: int) -> tuple[KMeansMelCodec, float]:
        """Return the codec of a row and the seconds of its fit."""
        if (row, seed) not in self._codecs:
            n_codebooks, codebook_size = self.setting.sizes[row]
            sizes = {"n_codebooks": n_codebooks, "codebook_size": codebook_size}
            began = h.spent("cpu")  # the fit is on the CPU
            fitted = KMeansMelCodec.fit(self.fitted_on, sample_rate_hz=RATE, seed=seed, **sizes)
            self._codecs[row, seed] = fitted.to(self.device), h.spent("cpu") - began
        return self._codecs[row, seed]

    def measure(self, row: str, seed: int) -> h.Run:
        if row == SAME:
            return {"SECS": self._similarity(self.held_out[1:] + self.held_out[:1])}
        if row == OTHER:
            return {"SECS": self._similarity([self.other] * len(self.held_out))}
        codec, fit_seconds = self.codec(row if row in self.setting.sizes else FOUR, seed)
        if row in (MEL, MEL_WHOLE):
            frames = [codec.mel.analyse(audio[None].to(self.device))[0] for audio in self.held_out]
            make = in_blocks if row == MEL else whole
            return {"SECS": self._similarity([make(codec, log_mel).cpu() for log_mel in frames])}
        codec.decode(codec.encode(self.held_out[0][:RATE]))  # plans and tables, at nobody's cost
        encode_seconds, codes = self._timed(codec.encode, self.held_out)
        back: Callable[[Tensor], Tensor] = codec.decode
        if row == FOUR_WHOLE:
            back = lambda row_codes: whole(codec, codec.log_mel(row_codes))  # noqa: E731
        decode_seconds, audios = self._timed(back, codes)
        run = {"SECS": self._similarity([audio.cpu() for audio in audios])}
        run |= {"encode": encode_seconds / self.seconds, "decode": decode_seconds / self.seconds}
        if row != FOUR_WHOLE:
            run |= {"fit": fit_seconds, "first audio": self._first_audio(codec, codes[0])}
        return run

    def _timed(self, work: Callable[[Tensor], Tensor], items: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        began = h.spent(self.device)
        done = [work(item) for item in items]
        return h.spent(self.device) - began, done

    def _first_audio(self, codec: KMeansMelCodec, codes: Tensor) -> float:
        """Return the milliseconds from the frames that a stream waits for to its first audio."""
        seconds, (audio,) = self._timed(codec.stream_decoder().push, [codes[:, : BLOCK_FRAMES + LOOK_AHEAD_FRAMES]])
        if not audio.numel():
            raise RuntimeError("The stream decoder gave no audio for a block and its look-ahead.")
        return 1000 * seconds

    def _similarity(self, audios: Sequence[Tensor]) -> float:
        pairs = zip(self.voices, audios, strict=True)
        return float(torch.stack([voice @ voice_of(audio) for voice, audio in pairs]).mean())


def in_blocks(codec: KMeansMelCodec, log_mel: Tensor) -> Tensor:
    """Return the audio of (N, M) log mel frames as the codec makes it: a codec whose centers are these frames."""
    own = KMeansMelCodec(log_mel[None], sample_rate_hz=RATE).to(codec.device)
    return own.decode(torch.arange(len(log_mel))[None])


def whole(codec: KMeansMelCodec, log_mel: Tensor) -> Tensor:
    """Return the audio of (N, M) log mel frames by torchaudio's Griffin-Lim over all of them."""
    from torchaudio.transforms import GriffinLim

    settings = {"hop_length": codec.hop_length, "power": 1.0, "momentum": MOMENTUM, "rand_init": False}
    n_iter = ITERATIONS * (BLOCK_FRAMES + LOOK_AHEAD_FRAMES) // BLOCK_FRAMES  # as many as a frame sees in blocks
    synthesis = GriffinLim(codec.mel.n_fft, n_iter, **settings).to(codec.device)
    audio: Tensor = synthesis(codec.mel.magnitudes(log_mel).t())
    return audio.clamp(-1.0, 1.0)


def check(study: h.Study, options: h.Options) -> list[h.Claim]:
    """Return the claims."""
    bounds = THRESHOLDS[options.size]
    claims = [h.at_least(f"{FOUR}: SECS to the original", study.values(FOUR), bounds[FOUR])]
    text = f"{FOUR}: SECS minus that with Griffin-Lim over the whole"
    claims.append(h.at_least(text, study.differences(FOUR, FOUR_WHOLE), bounds["blocks"]))
    claims.append(h.at_least(f"{FOUR}: SECS minus that of {OTHER}", study.differences(FOUR, OTHER), 0.05))
    units = {"fit": "fit, seconds", "encode": "encoding, real-time factor", "decode": "decoding, real-time factor"}
    units["first audio"] = "first audio of a stream, ms of work"
    for row in (FOUR, ONE):
        for key, unit in units.items():
            worst = max(study.values(row, key), default=None)
            claims.append(h.at_most(f"{row}: {unit}, worst seed", worst, bounds[key]))
    return claims


def report(study: h.Study) -> None:
    """Print similarity and cost."""
    table = []
    for row in ROWS:
        cells = [row, h.show(study.values(row), 3)]
        for key, digits in (("fit", 1), ("encode", 4), ("decode", 3), ("first audio", 0)):
            values = [run[key] for run in study.runs(row) if key in run]
            cells.append(h.show(values, digits))
        table.append(cells)
    columns = ["row", "SECS", "fit, s", "encode, x real time", "decode, x real time", "first audio, ms"]
    h.print_table("Held-out recordings; mean ± sd over the seeds of the fit", columns, table)


def draw(study: h.Study) -> Any:
    """Draw the similarity of every row, seed by seed."""
    from matplotlib.figure import Figure

    rows = [row for row in ROWS if study.values(row)]
    figure = Figure(figsize=(7.5, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        values, color = study.values(row), "tab:blue" if row in (FOUR, ONE) else "tab:gray"
        axes.barh(place, h.mean_sd(values)[0], color=color, alpha=0.6)
        axes.scatter(values, [place] * len(values), s=8, color="black", zorder=3)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set(xlabel="similarity of the voice to that of the recording (SECS)", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def chooser() -> argparse.ArgumentParser:
    """Return the option that says where the recordings are."""
    parser = argparse.ArgumentParser(add_help=False)
    default = os.environ.get(VARIABLE, "data")
    parser.add_argument("--data", metavar="DIR", default=default, help=f"folder around ljspeech-32 (or {VARIABLE})")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    parser = chooser()
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv, parents=[parser])
    folder = None if options.quick else parser.parse_known_args(argv)[0].data
    setting = QUICK if options.quick else FULL
    try:
        bench = Bench(setting, folder, options.device)
        study = h.Study("lina_codec", "SECS", bench.described(), options)
    except FileNotFoundError as missing:
        h.console.print(f"Not run: {missing}", markup=False, soft_wrap=True)
        return 2
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    with h.bench_settings(options.threads):
        h.run_missing(study, ROWS, options.seeds, bench.measure)
    report(study)
    h.save_figure(partial(draw, study), options)
    return h.verdict(check(study, options), options)


if __name__ == "__main__":
    sys.exit(main())
