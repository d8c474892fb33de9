"""Manifests: every format gives the same rows; a broken one names file and line."""

from __future__ import annotations

import json

import pytest

from lightning_adapt.lina_speech.data.manifest import read_manifest
from lightning_adapt.lina_speech.data.sources import Source
from tests.lina_speech.data_parts import write_wav

TEXTS = {"a": ("Hello, there.", "ann"), "b": ('He said "no".', "bob"), "c": ("Third: a|b is not here", "ann")}


def expected(folder, *, place="manifest"):
    return [
        {"audio": str(folder / f"{name}.wav"), "text": text, "speaker": speaker, "id": name}
        for name, (text, speaker) in TEXTS.items()
    ]


def plain(rows):
    return [{key: value for key, value in row.items() if key != "place"} for row in rows]


def jsonl(folder, audio="audio", text="text"):
    lines = [json.dumps({audio: f"{name}.wav", text: said, "speaker": who}) for name, (said, who) in TEXTS.items()]
    path = folder / "manifest.jsonl"
    path.write_text("\n".join([*lines[:1], "", *lines[1:]]))  # a blank line counts as a line, but is no row
    return path


def commas(folder):
    lines = ['"Hello, there."', '"He said ""no""."', "Third: a|b is not here"]
    path = folder / "manifest.csv"
    body = [f"{who},{said},{name}.wav" for (name, (_, who)), said in zip(TEXTS.items(), lines, strict=True)]
    path.write_bytes(("\ufeffSpeaker,Text,Audio\r\n" + "\r\n".join(body) + "\r\n\r\n").encode())
    return path


def tabs(folder):
    path = folder / "list.tsv"
    lines = [f"{name}.wav\t{said}\t{who}" for name, (said, who) in TEXTS.items()]
    path.write_text("\n".join(["path\ttranscript\tspeaker_id", *lines]).replace('"', '""').replace('""no""', '"no"'))
    return path


@pytest.mark.parametrize(
    "write",
    [jsonl, commas, tabs, lambda folder: jsonl(folder, "audio_filepath"), lambda folder: jsonl(folder, "path")],
)
def test_every_format_gives_the_same_rows(write, tmp_path):
    assert plain(read_manifest(write(tmp_path))) == expected(tmp_path)


def test_rows_know_their_line_and_absolute_paths_stay(tmp_path):
    rows = read_manifest(jsonl(tmp_path))
    assert [row["place"] for row in rows] == [f"manifest.jsonl, line {line}" for line in (1, 3, 4)]
    (tmp_path / "other.jsonl").write_text('{"audio": "/far/away.flac", "text": "x", "id": 7}')
    assert plain(read_manifest(tmp_path / "other.jsonl")) == [
        {"audio": "/far/away.flac", "text": "x", "speaker": "", "id": "7"}
    ]


def test_ljspeech(tmp_path):
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "LJ-2.flac").touch()
    (tmp_path / "metadata.csv").write_text('LJ-1|In 1900 "x|In nineteen hundred "x\nLJ-2|as is|\nLJ-3|no|yes|kim\n')
    rows = read_manifest(tmp_path)
    assert plain(rows) == [
        {"audio": str(tmp_path / "wavs/LJ-1.wav"), "text": 'In nineteen hundred "x', "speaker": "", "id": "LJ-1"},
        {"audio": str(tmp_path / "wavs/LJ-2.flac"), "text": "as is", "speaker": "", "id": "LJ-2"},
        {"audio": str(tmp_path / "wavs/LJ-3.wav"), "text": "yes", "speaker": "kim", "id": "LJ-3"},
    ]
    assert read_manifest(tmp_path / "metadata.csv") == rows


def test_columns_separated_by_bars_with_a_header_are_no_ljspeech(tmp_path):
    (tmp_path / "all.txt").write_text('audio|text|speaker\na.wav|He said "no|ann\n')
    assert plain(read_manifest(tmp_path / "all.txt")) == [
        {"audio": str(tmp_path / "a.wav"), "text": 'He said "no', "speaker": "ann", "id": "a"}
    ]


def test_libritts(tmp_path):
    for name, text in (("84/121/84_121_0", "One.\nTwo. "), ("84/122/84_122_1", None), ("9/5/9_5_0", "Three.")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.wav").touch()
        (tmp_path / f"{name}.original.txt").write_text("raw")
        if text:
            (tmp_path / f"{name}.normalized.txt").write_text(text)
    rows = read_manifest(tmp_path)
    assert [(row["id"], row["text"], row["speaker"]) for row in rows] == [
        ("84/121/84_121_0", "One. Two.", "84"),
        ("84/122/84_122_1", "raw", "84"),
        ("9/5/9_5_0", "Three.", "9"),
    ]
    assert rows[2]["place"] == "9/5/9_5_0.wav"


def test_equal_file_names_in_several_folders_are_told_apart(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"audio": f"{who}/1.wav", "text": "x"}) + "\n" for who in "ab"))
    assert [row["id"] for row in read_manifest(path)] == ["a/1.wav", "b/1.wav"]  # wherever the folder lies


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("m.jsonl", '{"audio": "a.wav", "text": "x"}\n{"audio": ', r"m\.jsonl, line 2: expected one JSON object"),
        ("m.jsonl", "\n[1, 2]\n", r"m\.jsonl, line 2: .*one JSON object"),
        ("m.jsonl", '{"text": "x", "sound": "a"}', r"m\.jsonl, line 1: .*path of a recording.*has: text, sound"),
        ("m.jsonl", '{"audio": "", "text": "x"}', r"m\.jsonl, line 1: .*path of a recording"),
        ("m.jsonl", '{"audio": 3, "text": "x"}', r"m\.jsonl, line 1: .*path of a recording"),
        ("m.jsonl", '{"audio": "a.wav"}', r"m\.jsonl, line 1: expected what is said.*\(also: normalized_text"),
        ("m.csv", "audio,text\na.wav,b,c\n", r"m\.csv, line 2: .*2 fields as in the header.*3 fields"),
        ("m.csv", 'audio,text\na.wav,"b\nb"\nc.wav\n', r"m\.csv, line 4: .*got '1 fields'"),
        (
            "m.csv",
            "name,words\na.wav,b\n",
            r"m\.csv, the header: no column for the recording .*and no column for the text",
        ),
        (
            "m.csv",
            "path,satz\na.wav,b\n",
            r"m\.csv, the header: no column for the text \(accepted: text, normalized_text, transcript, sentence\), "
            r"but got 'path,satz'\. Rename",
        ),
        (
            "m.tsv",
            "Text\tklang\nb\ta.wav\n",
            r"header: no column for the recording \(accepted: audio, path, .*'Text.tklang'",
        ),
        ("m.csv", "audio;text\na.wav;b\n", r"but got 'audio;text'\. The columns seem to be separated by ';': separ"),
        ("metadata.csv", "a|b\nLJ-1\n", r"metadata\.csv, line 2: .*id\|text\|normalised text"),
        ("metadata.csv", "a|b\nc|d|e|f|g\n", r"metadata\.csv, line 2: .*id\|text\|normalised text"),
        ("m.jsonl", "", "at least one row long.*m.jsonl"),
        ("m.csv", "\n \n", "at least one row long.*m.csv"),
        ("m.csv", "audio,text\n", "at least one row long.*m.csv"),
        ("metadata.csv", "a|x\nb|y\na|z\n", r"`id` must be different.*'a'.*line 1 and metadata.csv, line 3"),
        ("m.jsonl", '{"audio": "a.wav", "text": "x"}\n' * 2, r"`id` must be different.*line 1 and m.jsonl, line 2"),
    ],
)
def test_a_broken_manifest_names_file_and_line(name, content, text, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=text):
        read_manifest(tmp_path / name)


def test_a_file_in_another_encoding_or_none_at_all(tmp_path):
    (tmp_path / "m.jsonl").write_bytes('{"audio": "a", "text": "x"}\n{"audio": "b", "text": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"m\.jsonl, line 2: .*UTF-8"):
        read_manifest(tmp_path / "m.jsonl")
    with pytest.raises(FileNotFoundError, match="`manifest` must be a file or folder that is there"):
        read_manifest(tmp_path / "nowhere.csv")
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").touch()
    with pytest.raises(ValueError, match=r"`manifest` must be a folder with metadata\.csv.*1 recordings, no text"):
        read_manifest(tmp_path / "sounds")


@pytest.mark.parametrize(
    "text",
    [
        'audio\ttext\na.wav\t"Hello there\nb.wav\tand you"\nc.wav\tbye\n',  # would be two rows instead of three
        'audio,text\na.wav,"never closed\nb.wav,lost\n',
        'audio,text\na.wav,"one" two\nb.wav,x\n',
    ],
)
def test_an_open_quote_is_named_and_swallows_no_rows(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"m.csv, line 2: .*quote"):
        read_manifest(path)


def test_blank_lines_before_a_header_do_not_make_it_a_row(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("\n\r\naudio,text\r\n\r\na.wav,hi\r\n")
    (row,) = read_manifest(path)
    assert (row["text"], row["place"]) == ("hi", "m.csv, line 5")


def test_the_home_folder_may_be_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": "~/sounds/a.wav", "text": "hi"}))
    assert read_manifest("~/m.jsonl")[0]["audio"] == str(tmp_path / "sounds/a.wav")
    assert len(Source("~/m.jsonl", "data")) == 1


def test_ljspeech_names_may_hold_the_folder(tmp_path):
    write_wav(tmp_path / "wavs/a.wav", [0.1] * 10)
    (tmp_path / "metadata.csv").write_text("wavs/a.wav|hello\n")
    assert read_manifest(tmp_path)[0]["audio"] == str(tmp_path / "wavs/a.wav")
