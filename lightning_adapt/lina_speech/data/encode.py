"""Encode a source into the cache: every usable recording once, everything else into a report; plain PyTorch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_positive, problem
from lightning_adapt._shared.progress import progress_bar
from lightning_adapt._shared.text_files import read_json
from lightning_adapt.lina_speech.data.audio import PIPELINE_VERSION, AudioError, mono, read_audio, trim_silence
from lightning_adapt.lina_speech.data.code_cache import CodeCache, settings_key, write_beside
from lightning_adapt.lina_speech.data.left_out import LeftOut, Report
from lightning_adapt.lina_speech.data.sources import Recording, Source, key_of

__all__ = ["Encoded", "Preparation", "check_spoken", "encode_source", "find_encoded"]

VERSION = 1
# A longer file is not read as a whole, however much of it is silence. The same for all lengths that are common, so that
# codes in the cache of runs with another `max_seconds` do not change what is left out
_HOPELESS_SECONDS = 600.0


@dataclass(frozen=True)
class Preparation:
    """How recordings are prepared, and which are too short or too long.

    Attributes:
        min_seconds: Shortest recording after trimming.
        max_seconds: Longest recording after trimming.
        trim_silence_db: As `threshold_db` of `trim_silence`; None to leave the ends as they are.
    """

    min_seconds: float = 0.3
    max_seconds: float = 20.0
    trim_silence_db: float | None = 40.0

    @classmethod
    def checked(cls, min_seconds: float, max_seconds: float, trim_silence_db: float | None) -> Preparation:
        """Return a preparation after checking its numbers.

        Raises:
            TypeError: If one is no number.
            ValueError: If one is out of range.
        """
        shortest = check_positive("min_seconds", min_seconds, "Pass 0.3.")
        longest = check_positive("max_seconds", max_seconds, "Pass 20.")
        if longest <= shortest:
            remedy = f"It is compared with min_seconds={shortest}."
            raise ValueError(problem("max_seconds", "larger than `min_seconds`", max_seconds, remedy))
        threshold = None if trim_silence_db is None else check_positive("trim_silence_db", trim_silence_db, "Pass 40.")
        return cls(shortest, longest, threshold)

    def prepared(self, recording: Recording, sample_rate_hz: int, report: Report | None = None) -> Tensor:
        """Return the samples that are encoded.

        Args:
            recording: A row of a source.
            sample_rate_hz: Rate of the codec.
            report: Where to count what was done.

        Returns:
            Shape (S,), float32.

        Raises:
            AudioError: If the recording cannot be used.
        """
        longest = max(_HOPELESS_SECONDS, self.max_seconds)
        try:
            options: dict[str, Any] = {"source_rate_hz": recording.sample_rate_hz, "longest_seconds": longest}
            channels, rate = read_audio(recording.audio, **options)
        except (TypeError, ValueError) as error:
            if isinstance(error, AudioError):
                raise
            raise AudioError("cannot be read", str(error)) from error
        audio = mono(channels, rate, sample_rate_hz)
        if report is not None and len(channels) > 1:
            report.add("mixed down to mono")
        if self.trim_silence_db is not None:
            audio = trim_silence(audio, sample_rate_hz, threshold_db=self.trim_silence_db)
        self.check_length(len(audio) / sample_rate_hz)
        return audio

    def check_length(self, seconds: float) -> None:
        """Raise an AudioError if a recording is too short or too long."""
        if seconds < self.min_seconds:
            raise AudioError("too short", f"{seconds:.2f} s, shorter than min_seconds={self.min_seconds}")
        if seconds > self.max_seconds:
            raise AudioError("too long", f"{seconds:.1f} s, longer than max_seconds={self.max_seconds}")

    def settings(self, codec: Any) -> dict[str, Any]:
        """Return what codes depend on besides the recording."""
        return {"codec": codec.fingerprint, "trim_silence_db": self.trim_silence_db, "pipeline": PIPELINE_VERSION}


@dataclass
class Encoded:
    """A source whose codes are in the cache.

    Attributes:
        rows: {"id", "text", "speaker", "key"} of every usable recording, sorted by id.
        report: What was left out.
        cache: Where the codes are.
    """

    rows: list[dict[str, str]]
    report: Report
    cache: CodeCache


def find_encoded(
    source: Source, codec: Any, folder: Path, preparation: Preparation, *, cache: CodeCache
) -> Encoded | None:
    """Return what an earlier `encode_source` of the same source wrote down.

    Args:
        source: The recordings.
        codec: Only its fingerprint counts.
        folder: The cache folder.
        preparation: As in `encode_source`.
        cache: The codes.

    Returns:
        An `Encoded`; None if there is none, or some codes are not there (any more).
    """
    path = _record_path(source, codec, folder, preparation)
    try:
        content = read_json(path)
        rows, report = content["rows"], Report.from_dict(content["report"])
        found = content["version"] == VERSION and all(row["key"] in cache for row in rows)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not found:
        return None
    report.path = str(_report_path(path)) if report.left_out or report.notes else ""
    return Encoded(rows, report, cache)


def encode_source(
    source: Source,
    codec: Any,
    folder: Path,
    preparation: Preparation,
    *,
    cache: CodeCache,
    progress: bool = False,
) -> Encoded:
    """Encode what is not in the cache yet, and write down what belongs to the source.

    Args:
        source: The recordings.
        codec: Encodes them.
        folder: The cache folder.
        preparation: How recordings are prepared.
        cache: Takes the codes.
        progress: Whether to show a progress bar.

    Returns:
        The usable recordings, sorted by id, so that their order does not depend on that of the rows.

    Raises:
        OSError: If the cache cannot be written to.
        ValueError: If no recording is usable (names the first fault), two have the same id, or the codec gives
            something else than codes.
    """
    report = Report(rows=len(source))
    rows: dict[str, dict[str, str]] = {}
    try:
        with progress_bar(f"Encoding `{source.argument}`", len(source), progress) as advance:
            for index in range(len(source)):
                recording = source[index]
                if recording.id in rows:
                    remedy = "Every recording may be there once."
                    raise ValueError(
                        problem("id", f"different in every row of `{source.argument}`", recording.id, remedy)
                    )
                try:
                    key = _encode_one(recording, codec, preparation, cache, report)
                except AudioError as error:
                    report.left_out.append(_left_out(recording, error))
                else:
                    text, speaker = recording.text, recording.speaker
                    rows[recording.id] = {"id": recording.id, "text": text, "speaker": speaker, "key": key}
                advance(1)
    finally:
        cache.flush()  # also what was done before an error or Ctrl-C
    if not rows:
        first = report.left_out[0]
        raise ValueError(
            f"None of the {report.rows} recordings of `{source.argument}` can be used ({report.summary()}). The first "
            f"one, {first.place}: {first.reason} ({first.detail})."
        )
    path = _record_path(source, codec, folder, preparation)
    if report.left_out or report.notes:
        report.path = str(_report_path(path))
        write_beside(Path(report.path), report.to_json())
    kept = [rows[name] for name in sorted(rows)]
    content = {"version": VERSION, "rows": kept, "report": report.to_dict()}
    write_beside(path, json.dumps(content).encode())
    return Encoded(kept, report, cache)


def _encode_one(recording: Recording, codec: Any, preparation: Preparation, cache: CodeCache, report: Report) -> str:
    check_spoken(recording)
    key = key_of(recording)
    if key in cache:
        preparation.check_length(cache.seconds(key))
        return key
    audio = preparation.prepared(recording, codec.sample_rate_hz, report)
    with torch.no_grad():
        codes = codec.encode(audio)
    _check_codes(codes, codec)
    if codes.shape[1] == 0:
        raise AudioError("too short", "less than a frame of the codec")
    cache.put(key, codes, len(audio) / codec.sample_rate_hz)
    return key


def check_spoken(recording: Recording) -> None:
    """Raise an AudioError if nothing can be said in the text of a recording."""
    if not any(character.isalnum() for character in recording.text):
        raise AudioError("no text", recording.text)


def _check_codes(codes: Any, codec: Any) -> None:
    expected = f"a codec whose `encode` gives whole numbers of shape ({codec.n_codebooks}, N)"
    if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.ndim != 2 or len(codes) != codec.n_codebooks:
        raise ValueError(problem("codec", expected, codes, "See the protocol Codec."))
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codec.codebook_size:
        found = f"{int(codes.min())} to {int(codes.max())}"
        remedy = "Its `codebook_size` does not fit what it encodes."
        raise ValueError(problem("codec", f"a codec of codes from 0 to {codec.codebook_size - 1}", found, remedy))


def _left_out(recording: Recording, error: AudioError) -> LeftOut:
    audio = recording.audio if isinstance(recording.audio, str) else ""
    return LeftOut(recording.place, recording.id, audio, error.reason, error.detail)


def _record_path(source: Source, codec: Any, folder: Path, preparation: Preparation) -> Path:
    limits = [preparation.min_seconds, preparation.max_seconds]
    about = {**preparation.settings(codec), "source": source.identity, "seconds": limits}
    return folder / f"rows-{settings_key(about)}.json"


def _report_path(record: Path) -> Path:
    return record.with_name(f"report-{record.stem}.json")
