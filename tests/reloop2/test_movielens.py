"""MovieLens: both file forms give the same columns, downloads are checked, and the real data is as the card says."""

from __future__ import annotations

import hashlib
import io
import os
import urllib.error
import urllib.request
import zipfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_adapt.reloop2.data import movielens_files
from lightning_adapt.reloop2.data.movielens import MovieLensDataModule
from lightning_adapt.reloop2.data.movielens_files import RELEASES, fetch_movielens, find_movielens, read_movielens

RATINGS = [(196, 2, 3, 881250949), (186, 1, 5, 891717742), (196, 1, 4, 881250949), (22, 3, 1, 878887116)]
USERS = {196: ("M", 49, "writer"), 186: ("F", 17, "other"), 22: ("M", 56, "executive")}
FILMS = {1: (1995, ["Animation", "Children's", "Comedy", "Crime"]), 2: (1938, ["Drama"]), 3: (None, [])}


def atomic(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += ["\t".join(map(str, rating)) for rating in RATINGS]
    (folder / "ml-100k.inter").write_text("\n".join(lines) + "\n")
    lines = ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
    lines += [f"{user}\t{age}\t{gender}\t{occupation}\t0" for user, (gender, age, occupation) in USERS.items()]
    (folder / "ml-100k.user").write_text("\n".join(lines) + "\n")
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    lines += [f"{film}\tL'été\t{year or 'V'}\t{' '.join(genres)}" for film, (year, genres) in FILMS.items()]
    (folder / "ml-100k.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def grouplens(folder: Path, version: str = "100k") -> Path:
    release = RELEASES[version]
    folder = folder / release.name
    folder.mkdir(parents=True)
    ratings = [release.separator.join(map(str, rating)) for rating in RATINGS]
    if version == "100k":
        users = [f"{user}|{age}|{gender}|{occupation}|0" for user, (gender, age, occupation) in USERS.items()]
        films = [
            f"{film}|L'été|{f'01-Jan-{year}' if year else ''}||http://x|"
            + "|".join("1" if genre in genres else "0" for genre in movielens_files._GENRES)
            for film, (year, genres) in FILMS.items()
        ]
    else:
        users = [f"{user}::{gender}::{age}::{occupation}::0" for user, (gender, age, occupation) in USERS.items()]
        films = [f"{film}::L'été ({year or 'V'})::{'|'.join(genres)}" for film, (year, genres) in FILMS.items()]
    for name, lines in zip(release.files, (ratings, users, films), strict=True):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


def zipped(folder: Path, version: str = "100k") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../outside.txt", "a member that leaves the folder")
        for file in folder.iterdir():
            archive.write(file, f"{RELEASES[version].name}/{file.name}")
    return content.getvalue()


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)


def test_columns_by_hand(tmp_path):
    columns = read_movielens(atomic(tmp_path / "ml"), "100k")
    assert columns["user_id"].tolist() == [196, 186, 196, 22]
    assert columns["rating"].tolist() == [3, 5, 4, 1]
    assert columns["gender"].tolist() == ["M", "F", "M", "M"]
    assert columns["age"].tolist() == [8, 0, 8, 10]  # 45 to 49; under 18; 56 and above
    assert columns["year"][0] == 1  # before 1940
    assert columns["year"][3] == 0  # unknown
    assert columns["genre_1"].tolist() == ["Drama", "Animation", "Animation", None]
    assert columns["genre_3"].tolist() == [None, "Comedy", "Comedy", None]


@pytest.mark.parametrize("version", ["100k", "1m"])
def test_grouplens_folder_and_zip_hold_what_the_atomic_files_hold(version, tmp_path):
    expected = read_movielens(atomic(tmp_path / "atomic"), "100k")
    folder = grouplens(tmp_path / "raw", version)
    (tmp_path / f"{RELEASES[version].name}.zip").write_bytes(zipped(folder, version))
    places = [folder, folder.parent, tmp_path / f"{RELEASES[version].name}.zip"]
    for place in (*places, *map(str, places)):
        assert same(read_movielens(place, version), expected)


def test_a_zip_is_read_in_place(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml-100k.zip").write_bytes(zipped(grouplens(tmp_path / "raw")))
    before = sorted(tmp_path.rglob("*"))
    assert len(read_movielens(tmp_path / "data", "100k")["rating"]) == 4
    assert sorted(tmp_path.rglob("*")) == before


def test_rows_are_sorted_by_time_user_and_item(tmp_path):
    module = MovieLensDataModule(str(atomic(tmp_path / "ml")), slots=1, time_fields=True)
    table = module.table
    assert [table.vocabulary["user_id"][row - 1] for row in table.columns["user_id"]] == [22, 196, 196, 186]
    assert [table.vocabulary["item_id"][row - 1] for row in table.columns["item_id"]] == [3, 1, 2, 1]
    assert table.columns["label"].tolist() == [0, 1, 0, 1]
    assert module.seen_in_training("user_id").tolist() == [True, False]
    times = [datetime.fromtimestamp(second, tz=timezone.utc) for second in sorted(rating[3] for rating in RATINGS)]
    assert [table.vocabulary["hour"][row - 1] for row in table.columns["hour"]] == [each.hour for each in times]
    days = [table.vocabulary["weekday"][row - 1] for row in table.columns["weekday"]]
    assert days == [each.weekday() for each in times]
    assert "hour" not in MovieLensDataModule(str(tmp_path / "ml"), slots=1).field_sizes


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("ml-100k.inter", "user_id:token\trating:float\n1\t2\n"),
        ("ml-100k.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n999\t1\t3\t5\n"),
        ("ml-100k.user", ""),
        ("ml-100k.item", "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n1\tToy\n"),
    ],
)
def test_broken_files_are_named(file, content, tmp_path):
    folder = atomic(tmp_path / "ml")
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match="does not hold MovieLens 100k as published"):
        read_movielens(folder, "100k")


def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    (tmp_path / "ml-100k.zip").write_bytes(zipped(grouplens(tmp_path / "raw")))
    monkeypatch.setattr(movielens_files, "_LARGEST_FILE", 10)
    with pytest.raises(ValueError, match="would take"):
        read_movielens(tmp_path, "100k")


def test_nothing_there(tmp_path):
    assert find_movielens(tmp_path, "100k") is None
    with pytest.raises(FileNotFoundError, match=r"download=True.*ml-100k\.zip"):
        MovieLensDataModule(str(tmp_path)).setup("fit")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A GroupLens of our own; returns (requests, answer)."""
    content = zipped(grouplens(tmp_path / "raw"))
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(movielens_files.RELEASES, "100k", replace(RELEASES["100k"], md5=md5))
    requests, answer = [], {"content": content}

    def urlopen(url, timeout):
        requests.append((url, timeout))
        return io.BytesIO(answer["content"])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return requests, answer


def test_download_once_and_whole(tmp_path, published):
    requests, _ = published
    root = tmp_path / "new" / "data"
    module = MovieLensDataModule(str(root), download=True, slots=1)
    module.prepare_data()
    module.prepare_data()
    assert requests == [("https://files.grouplens.org/datasets/movielens/ml-100k.zip", 60)]
    assert [file.name for file in root.iterdir()] == ["ml-100k.zip"]
    assert module.n_train == 2
    MovieLensDataModule(str(root / "other")).prepare_data()
    assert len(requests) == 1


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x", lambda content: b""])
def test_what_is_not_as_published_is_not_kept(change, tmp_path, published):
    _, answer = published
    answer["content"] = change(answer["content"])
    with pytest.raises(ValueError, match="checksum"):
        fetch_movielens(tmp_path / "data", "100k")
    assert not (tmp_path / "data").exists()


def test_no_network(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(OSError, match=r"no route to host.*by hand"):
        fetch_movielens(tmp_path, "100k")


def test_bad_arguments():
    with pytest.raises(ValueError, match="version"):
        MovieLensDataModule(version="25m")
    with pytest.raises(TypeError, match="download"):
        MovieLensDataModule(download="yes")
    with pytest.raises(TypeError, match="time_fields"):
        MovieLensDataModule(time_fields=1)


def test_the_real_data():
    """Counts of the README of ml-100k, and what the benchmark says of its stream."""
    root = os.environ.get("LIGHTNING_ADAPT_TEST_DATA")
    if root is None or find_movielens(root, "100k") is None:
        pytest.skip("MovieLens-100k is not there: set LIGHTNING_ADAPT_TEST_DATA to the folder around ml-100k")
    columns = read_movielens(root, "100k")
    assert len(columns["rating"]) == 100_000
    assert (len(set(columns["user_id"].tolist())), len(set(columns["item_id"].tolist()))) == (943, 1682)
    assert (columns["timestamp"].min(), columns["timestamp"].max()) == (874724710, 893286638)
    module = MovieLensDataModule(root)
    assert (module.n_train, module.n_test) == (50_000, 50_000)
    rows = module.table.rows(slice(0, None))
    assert rows["label"].mean().item() == pytest.approx(np.mean(columns["rating"] >= 4), abs=1e-6)
    seen = module.seen_in_training("user_id").double().mean().item()
    assert seen == pytest.approx(0.13, abs=0.01)
    order = np.lexsort((columns["item_id"], columns["user_id"], columns["timestamp"]))
    assert np.array_equal(np.array(module.table.vocabulary["item_id"])[rows["item_id"] - 1], columns["item_id"][order])
    assert torch.equal(module.slot_edges, torch.arange(50_000, 100_001, 5_000))
