"""The cache of codes: each recording encoded once, whatever happens in between; any change encodes anew."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.data import code_cache
from lightning_adapt.lina_speech.data.code_cache import CodeCache, audio_key
from tests.lina_speech.data_parts import RATE, LoudnessCodec, data, rows, tone, write_wav


def test_what_was_put_is_read_in_any_order(monkeypatch, tmp_path):
    monkeypatch.setattr(code_cache, "_FLUSH_UTTERANCES", 4)
    random = torch.Generator().manual_seed(0)
    codes = {f"k{n}": torch.randint(0, 70_000 if n == 7 else 500, (2, 3 + n), generator=random) for n in range(10)}
    cache = CodeCache(tmp_path, {"codec": "x"})
    for number, (key, value) in enumerate(codes.items()):
        cache.put(key, value, 0.5 + number)
    assert len(list(cache.folder.glob("*.safetensors"))) == 2
    cache.flush()
    other = CodeCache(tmp_path, {"codec": "x"})
    wanted = ["k7", "k0", "k9", "k0", "k3"]
    flat, ends, seconds = other.read(wanted)
    assert [flat[:, a:b].tolist() for a, b in pairwise(ends)] == [codes[k].tolist() for k in wanted]
    assert seconds.tolist() == [7.5, 0.5, 9.5, 0.5, 3.5]
    assert other.read(["k0"]).flat.dtype == torch.int16
    assert "k0" in other
    assert "k0" not in CodeCache(tmp_path, {"codec": "y"})
    with pytest.raises(KeyError):
        other.read(["k11"])


def test_the_key_of_a_recording_is_its_content(tmp_path):
    first = write_wav(tmp_path / "a.wav", tone(0.5))
    assert audio_key(first) == audio_key(shutil.copy(first, tmp_path / "b.wav"))
    assert audio_key(first) != audio_key(write_wav(tmp_path / "c.wav", tone(0.5, 1)))
    samples = torch.arange(8.0)
    assert audio_key(samples, 8000) == audio_key(samples.numpy(), 8000)
    different = [audio_key(samples, 8000), audio_key(samples, 9000), audio_key(samples.double(), 8000)]
    different += [audio_key(samples.reshape(2, 4), 8000), audio_key(samples + 1, 8000), audio_key(samples[:0], 8000)]
    assert len(set(different)) == len(different)


def test_codes_wait_no_longer_than_a_minute_to_be_written(monkeypatch, tmp_path):
    clock = [0.0]
    monkeypatch.setattr(code_cache.time, "monotonic", lambda: clock[0])
    cache = CodeCache(tmp_path, {})
    cache.put("a", torch.ones(1, 2).long(), 1.0)
    assert not cache.folder.exists()
    clock[0] = 61.0
    cache.put("b", torch.ones(1, 2).long(), 1.0)
    assert "a" in CodeCache(tmp_path, {})


def encoded(source, cache="cache", **options):
    """How many recordings a data module encodes, and what it then has."""
    codec = options.pop("codec", LoudnessCodec())
    codec.calls = 0
    made = data(source, cache, codec=codec, **options)
    made.setup("fit")
    return codec.calls, made


def test_nothing_is_encoded_twice_and_any_change_anew():
    source = rows(8)
    assert encoded(source)[0] == 8
    assert encoded(source)[0] == 0
    assert encoded([{**row, "text": "another text"} for row in source])[0] == 0
    assert encoded(source[::-1] + rows(2, start=8))[0] == 2
    assert encoded(source, min_seconds=0.31, seed=3, tokens_per_batch=999)[0] == 0
    assert encoded(source, trim_silence_db=30.0)[0] == 8
    assert encoded(source, trim_silence_db=None)[0] == 8
    assert encoded(source, codec=LoudnessCodec(name="other"))[0] == 8
    assert encoded(source)[0] == 0
    louder = [{**row, "audio": row["audio"] * 1.01} for row in source[:1]] + source[1:]
    assert encoded(louder)[0] == 1


def test_files_are_known_by_their_content(tmp_path):
    paths = [write_wav(tmp_path / f"{n}.wav", tone(0.5, n)) for n in range(4)]
    source = [{"audio": path, "text": "some words"} for path in paths]
    assert encoded(source)[0] == 4
    shutil.copytree(tmp_path, tmp_path / "moved", ignore=lambda *_: ["cache"])
    moved = [{"audio": str(tmp_path / "moved" / Path(path).name), "text": "some words"} for path in paths]
    assert encoded(moved)[0] == 0
    write_wav(paths[2], tone(0.5, 9))  # as long as before
    calls, made = encoded(source)
    assert calls == 1
    assert torch.equal(made.train_set[2]["codes"], LoudnessCodec().encode(torch.from_numpy(tone(0.5, 9))))


class Interrupted(LoudnessCodec):
    def encode(self, audio):
        if self.calls == 5:
            raise KeyboardInterrupt
        return super().encode(audio)


def test_work_that_was_cut_off_goes_on_where_it_was():
    with pytest.raises(KeyboardInterrupt):
        encoded(rows(8), codec=Interrupted())
    assert not list(Path("cache").rglob(".unfinished*"))
    calls, made = encoded(rows(8))
    assert calls == 3
    whole = encoded(rows(8), "other")[1]
    assert made.train_set.digest == whole.train_set.digest
    assert torch.equal(made.train_set.codes, whole.train_set.codes)


def test_a_damaged_file_is_made_again():
    whole = encoded(rows(8))[1]
    (damaged,) = Path("cache").rglob("*.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"safetensors cannot be read; its utterances are encoded again"):
        calls, made = encoded(rows(8))
    assert calls == 8
    assert torch.equal(made.train_set.codes, whole.train_set.codes)
    assert encoded(rows(8))[0] == 0
    (record,) = Path("cache").glob("rows-*.json")
    record.write_text("{")
    assert encoded(rows(8))[0] == 0  # the codes are still there
    json.loads(record.read_text())


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="`cache_dir` must be a folder that can be written to"):
        encoded(rows(3), tmp_path / "file" / "cache")


def test_a_whole_cache_is_only_read(monkeypatch):
    encoded(rows(4))

    def refused(*_):
        raise AssertionError("nothing may be written")

    monkeypatch.setattr(code_cache, "whole_file", refused)
    assert encoded(rows(4))[0] == 0
    with pytest.raises(AssertionError):
        encoded(rows(5))


class Wrong(LoudnessCodec):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def encode(self, audio):
        return self.made


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (torch.zeros(2, 5), r"`codec` must be a codec whose `encode` gives whole numbers of shape \(2, N\)"),
        (torch.zeros(3, 5).long(), r"shape \(2, N\)"),
        (torch.zeros(5).long(), r"shape \(2, N\)"),
        (torch.full((2, 5), 16), r"codes from 0 to 15, but got '16 to 16'"),
        (torch.full((2, 5), -1), "codes from 0 to 15"),
        ([1, 2], r"shape \(2, N\)"),
    ],
)
def test_a_codec_that_breaks_its_promise_is_named(made, text):
    with pytest.raises(ValueError, match=text):
        encoded(rows(2), codec=Wrong(made))


def test_changed_numbers_are_noticed():
    made = encoded(rows(8))[1]
    (path,) = Path("cache").rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"safetensors is damaged: its checksum differs\. Delete it"):
        encoded(rows(8))
    path.unlink()
    assert torch.equal(encoded(rows(8))[1].train_set.codes, made.train_set.codes)


def test_files_of_another_release_are_left_aside(monkeypatch):
    encoded(rows(4))
    monkeypatch.setattr(code_cache, "VERSION", code_cache.VERSION + 1)
    assert encoded(rows(4))[0] == 4


@pytest.mark.parametrize("before", [None, 20.0])
def test_what_is_too_long_does_not_depend_on_the_codes_of_other_runs(before):
    silence = np.zeros(50 * RATE, np.float32)
    source = rows(2)
    source.append({**source[0], "id": "long", "audio": write_wav("long.wav", np.concatenate([silence, tone(1.0)]))})
    if before is not None:
        encoded(source, max_seconds=before)
    assert encoded(source, max_seconds=2.0)[1].train_set.ids == ["long", "u0000", "u0001"]


def test_names_that_are_not_utf8_are_listed_too():
    source = [{**row, "id": f"\udcff{row['id']}"} for row in rows(4)]
    source[1]["text"] = "..."
    with pytest.warns(UserWarning, match="1 no text"):
        made = encoded(source, val=0.5)[1]
    assert Path(made.report.path).read_text().count("udcff") == 1


def test_the_folder_may_be_in_the_short_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    encoded(rows(2), "~/codes")
    assert list((tmp_path / "codes").glob("rows-*.json"))
