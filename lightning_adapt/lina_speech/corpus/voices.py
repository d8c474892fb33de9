"""A speech corpus made on the spot: seeded texts, spoken by the voices of a speech synthesiser."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import torch

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.files import whole_file
from lightning_adapt.lina_speech.corpus.engine import Engine
from lightning_adapt.lina_speech.corpus.engines import chosen_voices, make_engine
from lightning_adapt.lina_speech.corpus.wave_files import pcm16, samples_of_wave, wave_bytes
from lightning_adapt.lina_speech.corpus.words import DIGIT_WORDS, default_words, draw_texts, text_key

__all__ = ["SynthesisedVoices"]

_AHEAD = 8  # rows made at a time by engines that start programs: threads keep all cores busy


class SynthesisedVoices(Sequence[Mapping[str, Any]]):
    """A corpus of synthesised speech, row by row like one of recordings: the voices say seeded random texts.

    Equal arguments give equal voices, texts and samples (on one version of the synthesiser, see `fingerprint`). Each
    voice says texts of its own, which depend on the seed and the name of the voice alone: not on the other voices.
    Corpora whose seeds differ by 1 to 15 share no text (if their words allow at least 100,000 of them), so another seed
    gives texts that are held out, and `first_voice` gives voices that are. Sound is made when a row is first read;
    it is then kept, in memory at 2 bytes per sample, or in `cache_dir`.

    Args:
        n_voices: Voices; None for 20, or for all of `voices`. espeak has 110, formant 100, flite 4 of its own.
        n_utterances: Utterances of each voice.
        engine: "espeak" (needs espeak-ng), "flite" (needs flite), "formant" (built in) or "auto": espeak where it is
            found, else formant.
        words: Least and most words of an utterance.
        digits: Whether the words are spoken digits ("seven three nine").
        vocabulary: Words to draw from instead; not together with `digits`.
        seed: Decides the texts.
        voices: Names of voices instead of the engine's own, with settings where wanted: "espeak:en-gb+f3",
            "flite:slt", "formant:v07", "en-us+m1,pitch=35,speed=150" (without an engine's name: one of `engine`).
        first_voice: How many of the engine's voices (or of `voices`) are left out at the start. The first 20 are
            chosen to be easily told apart; those from 20 on are then unseen ones.
        sample_rate_hz: Samples per second; espeak makes 22,050 by itself, flite 16,000 (resampling needs torchaudio).
        cache_dir: Folder for wave files named by what they hold; worth it for many hours, or to share them.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If there are too few voices, or one is unknown (the message names near ones).
        ModuleNotFoundError: If the engine is not installed; the message says how to install it.

    Example:
        >>> corpus = SynthesisedVoices(2, 3, engine="formant", digits=True)
        >>> len(corpus), corpus.speakers
        (6, ('formant:v00', 'formant:v01'))
        >>> sorted(corpus[0])
        ['audio', 'id', 'sample_rate_hz', 'speaker', 'text']
    """

    def __init__(
        self,
        n_voices: int | None = None,
        n_utterances: int = 50,
        *,
        engine: Literal["auto", "espeak", "flite", "formant"] = "auto",
        words: tuple[int, int] = (3, 6),
        digits: bool = False,
        vocabulary: Sequence[str] | None = None,
        seed: int = 0,
        voices: Sequence[str] | None = None,
        first_voice: int = 0,
        sample_rate_hz: int = 22050,
        cache_dir: str | Path | None = None,
    ) -> None:
        check_integer("n_utterances", n_utterances, "Pass the utterances of each voice, such as 50.", minimum=1)
        check_integer("seed", seed, "Pass a whole number.")
        remedy = "Pass the rate of your codec, such as 22050."
        self.sample_rate_hz = check_integer("sample_rate_hz", sample_rate_hz, remedy, minimum=8000, maximum=192000)
        self._engines: dict[str, Engine] = {}
        self.speakers = chosen_voices(engine, voices, n_voices, first_voice)
        for speaker in self.speakers:
            name, _, voice = speaker.partition(":")
            self._engines.setdefault(name, make_engine(name)).check_voice(voice)
        spoken = _vocabulary(vocabulary, digits=digits)
        self._rows: list[tuple[str, str, str]] = []  # speaker, text, id
        for speaker in self.speakers:
            texts = draw_texts(n_utterances, words=words, vocabulary=spoken, seed=seed, key=text_key(speaker))
            stem = re.sub(r"[^A-Za-z0-9]+", "-", speaker)
            self._rows += [(speaker, text, f"{stem}-{place:04d}") for place, text in enumerate(texts)]
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self._memory: dict[int, npt.NDArray[np.int16]] = {}

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of all rows, voice after voice; nothing is spoken for them."""
        return tuple(text for _, text, _ in self._rows)

    @property
    def fingerprint(self) -> str:
        """A text that is equal for corpora of equal sound and text: it covers the version of the synthesiser, too."""
        engines = sorted(engine.fingerprint for engine in self._engines.values())
        content = json.dumps([engines, self._rows, self.sample_rate_hz])
        return f"SynthesisedVoices-{len(self)}-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return a row, or a list of rows for a slice.

        Args:
            index: Number of the row; voice after voice.

        Returns:
            `audio` (float32 in [-1, 1], shape (S,)), `sample_rate_hz`, `text`, `speaker` and `id`.

        Raises:
            IndexError: If there is no such row.
        """
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        speaker, text, name = self._rows[place]
        audio = torch.from_numpy(self._samples(place).astype(np.float32)) / 32768.0
        return {"audio": audio, "sample_rate_hz": self.sample_rate_hz, "text": text, "speaker": speaker, "id": name}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.speakers)} voices, {len(self)} utterances)"

    def __getstate__(self) -> dict[str, Any]:
        # sound can be made again: what travels to a worker stays small
        return {**self.__dict__, "_memory": {}}

    def write(self, folder: str | Path) -> Path:
        """Write the corpus as files: `wavs/<id>.wav`, and a manifest of one JSON object per line.

        Args:
            folder: Folder for the files; it is made if missing.

        Returns:
            The manifest, `manifest.jsonl`, with `audio` (a path relative to the folder), `text`, `speaker` and `id`.

        Raises:
            OSError: If the folder cannot be written to.
        """
        target = Path(folder).expanduser()
        lines = []
        for place, (speaker, text, name) in enumerate(self._rows):
            audio = Path("wavs") / f"{name}.wav"
            with whole_file(target / audio) as unfinished:
                unfinished.write_bytes(wave_bytes(self._samples(place), self.sample_rate_hz))
            lines.append(json.dumps({"audio": audio.as_posix(), "text": text, "speaker": speaker, "id": name}))
        manifest = target / "manifest.jsonl"
        with whole_file(manifest) as unfinished:
            unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return manifest

    def _samples(self, place: int) -> npt.NDArray[np.int16]:
        if place not in self._memory:
            name = self._rows[place][0].partition(":")[0]
            first = place // _AHEAD * _AHEAD
            ahead = range(first, min(first + _AHEAD, len(self)))
            if not self._engines[name].starts_programs:
                return self._keep(place)
            missing = [row for row in ahead if row not in self._memory]
            with ThreadPoolExecutor(min(len(missing), 2 * (os.cpu_count() or 1))) as pool:
                made = dict(zip(missing, pool.map(self._keep, missing), strict=True))
            return made[place]
        return self._memory[place]

    def _keep(self, place: int) -> npt.NDArray[np.int16]:
        speaker, text, _ = self._rows[place]
        name, _, voice = speaker.partition(":")
        engine = self._engines[name]
        if self.cache_dir is None:
            samples = pcm16(engine.speak(text, voice, self.sample_rate_hz))
            self._memory[place] = samples
            return samples
        content = json.dumps([engine.fingerprint, voice, text, self.sample_rate_hz])
        file = self.cache_dir / f"{hashlib.blake2b(content.encode(), digest_size=16).hexdigest()}.wav"
        samples, _ = samples_of_wave(file.read_bytes() if file.exists() else b"")
        if not samples.size:
            samples = pcm16(engine.speak(text, voice, self.sample_rate_hz))
            with whole_file(file) as unfinished:
                unfinished.write_bytes(wave_bytes(samples, self.sample_rate_hz))
        return samples


def _vocabulary(vocabulary: Sequence[str] | None, *, digits: bool) -> Sequence[str]:
    if vocabulary is None:
        return DIGIT_WORDS if digits else default_words()
    if digits:
        raise ValueError(problem("vocabulary", "left out with digits=True", vocabulary, "Pass one of the two."))
    return vocabulary
