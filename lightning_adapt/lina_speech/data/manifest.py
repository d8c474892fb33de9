"""Manifests of speech with text: jsonl, CSV with a header, LJSpeech's metadata.csv, and LibriTTS's folders."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning_adapt._shared.checks import describe, problem
from lightning_adapt._shared.text_files import read_text

__all__ = ["read_manifest"]

Row = dict[str, Any]

AUDIO_COLUMNS = ("audio", "path", "audio_filepath", "audio_path", "file", "wav")
TEXT_COLUMNS = ("text", "normalized_text", "transcript", "sentence")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "speaker_name")
ID_COLUMNS = ("id", "utterance_id")
AUDIO_ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".opus")
_TEXT_ENDINGS = (".normalized.txt", ".original.txt", ".txt")  # the first that is there counts


def read_manifest(path: str | Path) -> list[Row]:
    """Read which recording says what, and who speaks.

    Formats, found by the content:

    - jsonl: one object per line with "audio" (or "path", "audio_filepath"), "text" and, if known, "speaker" and "id".
    - CSV with a header of such names; separated by commas, tabs or "|".
    - LJSpeech: `metadata.csv` of id|text|normalised text without a header, the recordings in `wavs/` beside it. A
      fourth column is the speaker.
    - A folder: its `metadata.csv`, `manifest.jsonl` or `manifest.csv`; or a tree like LibriTTS's,
      `speaker/chapter/name.wav` with `name.normalized.txt` beside each.

    Paths inside a manifest are relative to its folder. Whether the recordings are there is seen when they are read.

    Args:
        path: The file or the folder.

    Returns:
        One {"audio", "text", "speaker", "id", "place"} per recording: the path of the recording, its text ("" where
        the row has none), its speaker ("" for unknown), a name that no other row has (by default the file's name
        without its ending), and where the row comes from, such as "metadata.csv, line 3".

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If nothing is in it, the format is none of these, a row is broken, or two rows have the same id;
            names the file and the line.
    """
    manifest = Path(path).expanduser()
    if not manifest.exists():
        raise FileNotFoundError(problem("manifest", "a file or folder that is there", str(path), "Check the path."))
    rows = list(_rows(manifest))
    if not rows:
        raise ValueError(problem("manifest", "at least one row long", str(path), "It has no rows; check the file."))
    _check_ids(rows, manifest)
    return rows


def _rows(manifest: Path) -> Iterator[Row]:
    if manifest.is_dir():
        for name in ("metadata.csv", "manifest.jsonl", "manifest.csv"):
            if (manifest / name).is_file():
                return _rows(manifest / name)
        return _tree(manifest)
    if manifest.suffix in (".jsonl", ".json", ".ndjson"):
        return _json_lines(manifest)
    return _table(manifest)


def _lines(manifest: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end) of the lines that are not blank."""
    try:
        content = manifest.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        broken = manifest.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(_at(manifest, broken, "text in UTF-8", "other bytes", "Convert the file to UTF-8.")) from error
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def _json_lines(manifest: Path) -> Iterator[Row]:
    for number, line in _lines(manifest):
        expected = 'one JSON object with "audio" and "text"'
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:  # nested too deeply, or a number with thousands of digits
            remedy = f"The parser says: {error}."
            raise ValueError(_at(manifest, number, expected, line, remedy)) from error
        if not isinstance(found, dict):
            raise ValueError(_at(manifest, number, expected, found, 'Write {"audio": "a.wav", "text": "..."}.'))
        yield _row(manifest, number, found)


def _table(manifest: Path) -> Iterator[Row]:
    first = next((line for _, line in _lines(manifest)), "")
    delimiter = next((mark for mark in ("|", "\t", ",") if mark in first), ",")
    names = [name.strip().strip('"').lower() for name in first.split(delimiter)]
    if _column(names, AUDIO_COLUMNS) is not None and _column(names, TEXT_COLUMNS) is not None:
        return _with_header(manifest, delimiter, names)
    if delimiter == "|":
        return _ljspeech(manifest)
    if not first:
        return iter(())
    raise ValueError(_about_header(manifest, first, names))


def _about_header(manifest: Path, first: str, names: list[str]) -> str:
    """Return what a first line lacks that is no header of ours."""
    wanted = {"recording": AUDIO_COLUMNS, "text": TEXT_COLUMNS}
    missing = [noun for noun, accepted in wanted.items() if _column(names, accepted) is None]
    separated = [name.strip().strip('"').lower() for name in first.split(";")]
    if any(_column(separated, columns) is not None for columns in wanted.values()) and len(separated) > 1:
        remedy = "The columns seem to be separated by ';': separate them by commas, tabs or '|'."
    elif len(missing) == 1:
        remedy = "Rename the column."
    else:
        remedy = 'LJSpeech\'s format is id|text|normalised text, without a header; jsonl files end in ".jsonl".'
    what = " and ".join(f"no column for the {noun} (accepted: {', '.join(wanted[noun])})" for noun in missing)
    return f"{manifest}, the header: {what}, but got {describe(first)}. {remedy}"


def _with_header(manifest: Path, delimiter: str, names: list[str]) -> Iterator[Row]:
    plain = delimiter == "|"  # quotes in such text are just quotes
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        rules: dict[str, Any] = {"quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, "strict": True}
        reader = csv.reader(file, delimiter=delimiter, **rules)
        rows = _fields(manifest, reader, one_line=delimiter == "\t")
        next(rows)  # the header
        for number, fields in rows:
            if len(fields) != len(names):
                remedy = f"Leave {delimiter!r} out of texts." if plain else f"Quote a text that holds {delimiter!r}."
                expected = f"{len(names)} fields as in the header"
                raise ValueError(_at(manifest, number, expected, f"{len(fields)} fields", remedy))
            yield _row(manifest, number, dict(zip(names, fields, strict=True)))


def _fields(manifest: Path, reader: Any, *, one_line: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, fields) of the rows that are not blank.

    Between tabs quotes are mostly just quotes, and one that stays open would swallow rows: those must be of one line.
    """
    remedy = 'Write a quote inside a quoted text twice (""), end every quoted text, and leave line breaks out.'
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(_at(manifest, number, "fields that can be told apart", str(error), remedy)) from error
        if one_line and any("\n" in field or "\r" in field for field in fields):
            raise ValueError(
                _at(manifest, number, "a recording on one line", f"one up to line {reader.line_num}", remedy)
            )
        if any(field.strip() for field in fields):
            yield number, fields


def _ljspeech(manifest: Path) -> Iterator[Row]:
    for number, line in _lines(manifest):
        name, *texts = (field.strip() for field in line.split("|"))
        if not name or not 1 <= len(texts) <= 3:
            expected = "id|text|normalised text, and a speaker if you like"
            raise ValueError(_at(manifest, number, expected, line, "Check the number of fields."))
        text = texts[1] if len(texts) > 1 and texts[1] else texts[0]
        speaker = texts[2] if len(texts) > 2 else ""
        audio = _recording(manifest.parent, name)
        yield {"audio": audio, "text": text, "speaker": speaker, "id": name, "place": f"{manifest.name}, line {number}"}


def _recording(folder: Path, name: str) -> str:
    endings = ("", *AUDIO_ENDINGS) if name.lower().endswith(AUDIO_ENDINGS) else AUDIO_ENDINGS
    candidates = [folder / "wavs" / f"{name}{ending}" for ending in endings]
    candidates += [folder / f"{name}{ending}" for ending in endings]  # some write the folder into the name
    return str(next((path for path in candidates if path.is_file()), candidates[0]))


def _tree(folder: Path) -> Iterator[Row]:
    # names with a dot in front are what a killed run left unfinished, or a system's own
    recordings = sorted(path for path in folder.rglob("[!.]*") if path.suffix.lower() in AUDIO_ENDINGS)
    texts_seen = False
    for path in recordings:
        text = next((place for place in map(_beside(path), _TEXT_ENDINGS) if place.is_file()), None)
        texts_seen = texts_seen or text is not None
        spoken = "" if text is None else " ".join(read_text(text).split())
        inside = path.relative_to(folder)
        speaker = inside.parts[0] if len(inside.parts) > 1 else ""
        yield {
            "audio": str(path),
            "text": spoken,
            "speaker": speaker,
            "id": inside.with_suffix("").as_posix(),
            "place": inside.as_posix(),
        }
    if not texts_seen:
        expected = "a folder with metadata.csv, manifest.jsonl, manifest.csv, or recordings with .normalized.txt beside"
        raise ValueError(problem("manifest", expected, str(folder), f"It has {len(recordings)} recordings, no text."))


def _beside(path: Path) -> Callable[[str], Path]:
    return lambda ending: path.with_name(path.stem + ending)


def _row(manifest: Path, number: int, found: Row) -> Row:
    found = {str(name).strip().lower(): value for name, value in found.items()}
    audio = _value(found, AUDIO_COLUMNS)
    if not isinstance(audio, str) or not audio.strip():
        keys = ", ".join(found)
        remedy = f'Name the recording as "audio" (also: {", ".join(AUDIO_COLUMNS[1:])}); it has: {keys}.'
        raise ValueError(_at(manifest, number, "the path of a recording", audio, remedy))
    text, speaker = _value(found, TEXT_COLUMNS), _value(found, SPEAKER_COLUMNS)
    if text is None:
        remedy = f'Name what is said "text" (also: {", ".join(TEXT_COLUMNS[1:])}).'
        raise ValueError(_at(manifest, number, "what is said", ", ".join(found), remedy))
    path = manifest.parent / Path(audio.strip()).expanduser()  # an absolute path stays as it is
    name = _value(found, ID_COLUMNS)
    return {
        "audio": str(path),
        "text": str(text).strip(),
        "speaker": "" if speaker is None else str(speaker).strip(),
        "id": path.with_suffix("").name if name in (None, "") else str(name).strip(),
        "place": f"{manifest.name}, line {number}",
        "longer": None if name not in (None, "") else str(Path(audio.strip())),
    }


def _check_ids(rows: list[Row], manifest: Path) -> None:
    """Make names of files unique where folders tell them apart; refuse ids that occur twice."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row["id"], []).append(row)
    for name, same in by_name.items():
        longer = [row.pop("longer", None) for row in same]
        paths = {row["audio"] for row in same}
        if len(same) == 1:
            continue
        if None in longer or len(paths) < len(same):
            places = " and ".join(row["place"] for row in same[:2])
            remedy = f"It is in {places} of {manifest}. Every recording may be there once."
            raise ValueError(problem("id", "different in every row", name, remedy))
        for row, name_in_full in zip(same, longer, strict=True):
            row["id"] = name_in_full  # as the manifest has it: the same wherever the folder lies


def _column(names: list[str], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _value(found: Row, wanted: tuple[str, ...]) -> Any:
    return next((found[name] for name in wanted if found.get(name) is not None), None)


def _at(manifest: Path, line: int, expected: str, received: object, remedy: str) -> str:
    return f"{manifest}, line {line}: expected {expected}, but got {describe(received)}. {remedy}"
