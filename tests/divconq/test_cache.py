"""The cache of vectors: one key for one content, resumed after a kill, damage noticed, the same on any rank."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lightning_adapt.divconq.embed import vector_file
from lightning_adapt.divconq.embed.cache import cache_key, embed_texts
from lightning_adapt.divconq.embed.embedders import PrecomputedEmbedder

TEXTS = [f"text {row}" for row in range(10)]


@pytest.mark.parametrize("part", [(0, 1), (1, 2)])
def test_texts_that_are_all_empty_are_refused(part):
    with pytest.raises(ValueError, match=r"`texts` must be some text in at least one row, but got '3 empty ones'"):
        embed_texts(Numbers(), ["", " ", "\n"], part=part)


class Numbers:
    """Row n of "text n" is (n, 1): which rows were made, and where they went, can be seen."""

    name = "numbers"

    def __init__(self, version=1, width=2):
        self.version, self.width, self.made = version, width, []

    def fit(self, documents):
        raise AssertionError("fitting is not the cache's task")

    def encode(self, texts):
        numbers = [int(text.split()[1]) for text in texts]
        self.made += numbers
        return np.array([[number] + [1] * (self.width - 1) for number in numbers], dtype=np.float32)

    def describe(self):
        return {"name": self.name, "version": self.version}


EXPECTED = Numbers().encode(TEXTS)


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_without_a_folder_the_vectors_are_in_memory(capsys):
    embedder = Numbers()
    vectors = embed_texts(embedder, TEXTS, batch_size=4, progress=True)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, EXPECTED)
    assert embedder.made == list(range(10))
    captured = capsys.readouterr()
    assert "10/10" in captured.err
    assert not captured.out
    assert files(Path.cwd()) == []


def test_a_second_call_reads_the_file(tmp_path):
    first = embed_texts(Numbers(), TEXTS, cache_dir=tmp_path / "new", batch_size=3)
    assert isinstance(first, np.memmap)
    embedder = Numbers()
    second = embed_texts(embedder, tuple(TEXTS), cache_dir=str(tmp_path / "new"), batch_size=7)
    np.testing.assert_array_equal(second, EXPECTED)
    assert embedder.made == []
    key = cache_key(TEXTS, Numbers().describe())
    assert files(tmp_path / "new") == [f"{key}.json", f"{key}.npy"]
    about = json.loads((tmp_path / "new" / f"{key}.json").read_text())["about"]
    assert about == {"key": key, "texts": 10, "embedder": {"name": "numbers", "version": 1}}
    with pytest.raises(ValueError, match="read-only"):
        second[0, 0] = 5


@pytest.mark.parametrize(
    ("texts", "version"),
    [(TEXTS[::-1], 1), ([*TEXTS[:-1], "text 10"], 1), (TEXTS[:-1], 1), (TEXTS, 2), ([*TEXTS[:-1], "text 9 "], 1)],
)
def test_other_content_has_another_key(tmp_path, texts, version):
    embed_texts(Numbers(), TEXTS, cache_dir=tmp_path)
    embedder = Numbers(version)
    embed_texts(embedder, texts, cache_dir=tmp_path)
    assert len(embedder.made) == len(texts)
    assert len(files(tmp_path)) == 4


def flip(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
        lambda path: np.save(path, EXPECTED[:5]),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.with_suffix(".json").write_text("{"),
    ],
    ids=["bit", "truncated", "empty", "pickle", "rows", "no-json", "other-json", "half-json"],
)
def test_a_damaged_file_is_made_again_with_a_warning(tmp_path, damage):
    embed_texts(Numbers(), TEXTS, cache_dir=tmp_path)
    damage(next(tmp_path.glob("*.npy")))
    embedder = Numbers()
    with pytest.warns(UserWarning, match="damaged and are made again"):
        vectors = embed_texts(embedder, TEXTS, cache_dir=tmp_path)
    np.testing.assert_array_equal(vectors, EXPECTED)
    assert len(embedder.made) == 10
    np.testing.assert_array_equal(embed_texts(Numbers(), TEXTS, cache_dir=tmp_path), EXPECTED)  # no warning now


class Stops(Numbers):
    def encode(self, texts):
        if "text 6" in texts:
            raise KeyboardInterrupt
        return super().encode(texts)


def test_an_error_keeps_what_is_done(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        embed_texts(Stops(), TEXTS, cache_dir=tmp_path, batch_size=2)
    assert not [name for name in files(tmp_path) if not name.startswith(".unfinished")]
    embedder = Numbers()
    np.testing.assert_array_equal(embed_texts(embedder, TEXTS, cache_dir=tmp_path, batch_size=2), EXPECTED)
    assert embedder.made == [6, 7, 8, 9]
    assert len(files(tmp_path)) == 2


def test_unfinished_rows_of_something_else_are_not_used(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        embed_texts(Stops(), TEXTS, cache_dir=tmp_path, batch_size=2)
    note = next(tmp_path.glob(".unfinished*.json"))
    good = note.read_text()
    for text in (good.replace('"texts": 10', '"texts": 11'), good.replace('"rows": 6', '"rows": 11'), "{", "[]"):
        note.write_text(text)
        embedder = Numbers()
        embed_texts(embedder, TEXTS, cache_dir=tmp_path, batch_size=2)
        assert embedder.made == list(range(10))
        for path in tmp_path.glob("*.npy"):
            path.unlink()
        with pytest.raises(KeyboardInterrupt):
            embed_texts(Stops(), TEXTS, cache_dir=tmp_path, batch_size=2)


def test_unfinished_rows_that_are_cut_off_are_made_again(tmp_path):
    """A copy of the folder may end in the middle of a file; NumPy would fill it up with zeros."""
    with pytest.raises(KeyboardInterrupt):
        embed_texts(Stops(), TEXTS, cache_dir=tmp_path, batch_size=2)
    (data,) = tmp_path.glob(".unfinished*.npy")
    data.write_bytes(data.read_bytes()[:-60])
    vectors = embed_texts(Numbers(), TEXTS, cache_dir=tmp_path, batch_size=2)
    np.testing.assert_array_equal(vectors, EXPECTED)


def test_a_kill_while_cut_off_rows_are_made_again_leaves_no_note_of_more_rows(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        embed_texts(Stops(), TEXTS, cache_dir=tmp_path, batch_size=2)
    (data,) = tmp_path.glob(".unfinished*.npy")
    data.write_bytes(data.read_bytes()[:-60])
    about = json.loads(next(tmp_path.glob(".unfinished*.json")).read_text())["about"]
    path = tmp_path / f"{data.stem.removeprefix('.unfinished-')}.npy"
    with vector_file.VectorFile(path, about, len(TEXTS)) as file:
        file.put(0, EXPECTED[:1])
        assert not list(tmp_path.glob(".unfinished*.json")), "until rows of this file are noted"


def test_the_space_of_all_rows_is_taken_before_the_first_one_is_written(tmp_path, monkeypatch):
    """A map of a file with holes is killed by a signal when the disk gets full; asked for at once it is an error."""
    length, width = 2**15, 32
    with vector_file.VectorFile(tmp_path / "rows.npy", {}, length) as file:
        file.put(0, np.ones((1, width), dtype=np.float32))
        (data,) = tmp_path.glob(".unfinished*.npy")
        assert data.stat().st_blocks * 512 >= length * width * 4

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(OSError, match="No space left"),
        vector_file.VectorFile(tmp_path / "others.npy", {}, length) as file,
    ):
        file.put(0, np.ones((1, width), dtype=np.float32))
    assert not list(tmp_path.glob(".unfinished-others*"))


KILLED = """
import sys, time
import numpy as np
from lightning_adapt.divconq.embed import vector_file
from lightning_adapt.divconq.embed.cache import embed_texts

class Slow:
    name = "numbers"
    def encode(self, texts):
        if "text 6" in texts:
            print("at 6", flush=True)
            time.sleep(60)
        return np.array([[int(text.split()[1]), 1] for text in texts], dtype=np.float32)
    def describe(self):
        return {"name": "numbers", "version": 1}

vector_file.MARK_SECONDS = 0.0
embed_texts(Slow(), [f"text {row}" for row in range(10)], cache_dir=sys.argv[1], batch_size=2)
"""


def test_a_killed_process_is_resumed_and_its_lock_is_gone(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"at 6\n"
            other = Numbers()  # while it lives, another process makes a file of its own
            np.testing.assert_array_equal(embed_texts(other, TEXTS, cache_dir=tmp_path, batch_size=2), EXPECTED)
            assert len(other.made) == 10
        finally:
            process.send_signal(signal.SIGKILL)
    for path in tmp_path.glob(f"{cache_key(TEXTS, Numbers().describe())}.*"):
        path.unlink()
    embedder = Numbers()
    np.testing.assert_array_equal(embed_texts(embedder, TEXTS, cache_dir=tmp_path, batch_size=2), EXPECTED)
    assert embedder.made == [6, 7, 8, 9]
    assert len(files(tmp_path)) == 2


def _write_slowly(folder, seed, together):
    class Slow(Numbers):
        def encode(self, texts):
            time.sleep(0.002 * (seed + 1))
            return super().encode(texts)

    vector_file.MARK_SECONDS = 0.0
    for version in range(5):
        together.wait(30)
        vectors = embed_texts(Slow(version), TEXTS, cache_dir=folder, batch_size=1)
        assert np.array_equal(vectors, EXPECTED)


def test_writers_at_the_same_time_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    processes = [context.Process(target=_write_slowly, args=(tmp_path, seed, together)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(files(tmp_path)) == 5 * 2  # and nothing is left behind


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("cached", [False, True])
def test_ranks_share_the_batches(tmp_path, world, cached):
    folder = tmp_path if cached else None
    seen = []
    for rank in range(world):
        embedder = Numbers()
        options = {"batch_size": 3, "part": (rank, world)}
        vectors = embed_texts(embedder, TEXTS, cache_dir=folder, **options)
        rows = [row for row in range(10) if row // 3 % world == rank]
        np.testing.assert_array_equal(vectors, EXPECTED[rows])
        assert vectors.shape[1] == 2
        seen += rows
        if cached and len(rows):
            again = Numbers()
            np.testing.assert_array_equal(embed_texts(again, TEXTS, cache_dir=folder, **options), vectors)
            assert again.made == []
    assert sorted(seen) == list(range(10))


def test_a_whole_file_serves_every_rank(tmp_path):
    embed_texts(Numbers(), TEXTS, cache_dir=tmp_path)
    embedder = Numbers()
    vectors = embed_texts(embedder, TEXTS, cache_dir=tmp_path, batch_size=3, part=(1, 2))
    np.testing.assert_array_equal(vectors, EXPECTED[[3, 4, 5, 9]])
    assert embedder.made == []


def test_precomputed_vectors_need_no_cache(tmp_path):
    embedder = PrecomputedEmbedder(EXPECTED)
    assert embed_texts(embedder, TEXTS, cache_dir=tmp_path) is embedder.vectors
    np.testing.assert_array_equal(embed_texts(embedder, TEXTS, batch_size=4, part=(1, 2)), EXPECTED[4:8])
    assert files(tmp_path) == []
    with pytest.raises(ValueError, match=r"each of the 9 examples.*10 rows"):
        embed_texts(embedder, TEXTS[:9])


class Broken(Numbers):
    def encode(self, texts):
        vectors = super().encode(texts)
        vectors[[text == "text 7" for text in texts]] = np.nan
        return vectors


class Narrow(Numbers):
    def encode(self, texts):
        return super().encode(texts)[:, : 1 if "text 7" in texts else 2]


class Short(Numbers):
    def encode(self, texts):
        return super().encode(texts)[1:]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("embedder", "message"),
    [(Broken, "1 rows with NaN.*: 7"), (Narrow, "length 1 after 2"), (Short, r"each of the 2 texts.*\(1, 2\)")],
)
def test_bad_vectors_are_refused(tmp_path, embedder, message, cached):
    with pytest.raises(ValueError, match=message):
        embed_texts(embedder(), TEXTS, cache_dir=tmp_path if cached else None, batch_size=2)
    assert not [name for name in files(tmp_path) if not name.startswith(".unfinished")]


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least one text"):
        embed_texts(Numbers(), [])
    with pytest.raises(ValueError, match="`batch_size`"):
        embed_texts(Numbers(), TEXTS, batch_size=0)
    with pytest.raises(TypeError, match="`progress`"):
        embed_texts(Numbers(), TEXTS, progress=1)
    for part in ((1, 1), (-1, 2), (0, 0), 3, (0, 1, 2)):
        with pytest.raises(ValueError, match="`part`"):
            embed_texts(Numbers(), TEXTS, part=part)
