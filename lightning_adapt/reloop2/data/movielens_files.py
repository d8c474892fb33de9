"""Read and fetch MovieLens: GroupLens' own files (folder or zip) and RecBole's atomic files; without pandas.

Harper & Konstan, ACM TiiS 2015. Both forms give the same columns. A zip is read where it lies, member by member and by
name: nothing is unpacked, so that no member can end up outside the folder.
"""

from __future__ import annotations

import hashlib
import re
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_adapt._shared.files import whole_file

_LARGEST_FILE = 512 * 2**20  # bytes; ml-1m's largest is 25 MB
_TIMEOUT_SECONDS = 60
AGE_EDGES = (18, 22, 25, 28, 31, 35, 40, 45, 50, 56)
YEAR_EDGES = (1940, 1950, 1960, 1970, 1975, 1980, 1985, 1988, *range(1990, 2001))
N_GENRES = 3

# order of the flags in ml-100k's u.item
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


@dataclass(frozen=True)
class Release:
    """One release of GroupLens.

    Args:
        name: Name of its folder and zip.
        md5: GroupLens' published checksum of the zip.
        files: Names of ratings, users and films.
        separator: Between the values of a line of ratings.
        side_separator: Likewise, of users and films.
    """

    name: str
    md5: str
    files: tuple[str, str, str]
    separator: str
    side_separator: str

    @property
    def url(self) -> str:
        """Where GroupLens keeps the zip."""
        return f"https://files.grouplens.org/datasets/movielens/{self.name}.zip"


RELEASES = {
    "100k": Release("ml-100k", "0e33842e24a9c977be4e0107933c0723", ("u.data", "u.user", "u.item"), "\t", "|"),
    "1m": Release("ml-1m", "c4d9eecfca2ab87c1945afe126590906", ("ratings.dat", "users.dat", "movies.dat"), "::", "::"),
}
Users = dict[int, tuple[str, int, str]]  # user -> gender, age in years, occupation
Films = dict[int, tuple[int | None, Sequence[str]]]  # film -> year of release, genres


def find_movielens(root: str | Path, version: str) -> Path | None:
    """Return where a release lies: a folder with its files, or its zip.

    Args:
        root: That place itself, or the folder around it.
        version: A key of `RELEASES`.

    Returns:
        The place, or None.
    """
    release, root = RELEASES[version], Path(root)
    for place in (root, root / release.name, root / f"{release.name}.zip"):
        if place.is_dir() and any((place / file).is_file() for file in (release.files[0], f"{release.name}.inter")):
            return place
        if place.is_file() and zipfile.is_zipfile(place):
            return place
    return None


def read_movielens(root: str | Path, version: str) -> dict[str, Any]:
    """Return the ratings of a release with what is known of user and film.

    Args:
        root: As in `find_movielens`.
        version: As in `find_movielens`.

    Returns:
        Columns of equal length, in the order of the file: "user_id", "item_id", "rating", "timestamp" (s since 1970,
        UTC) and "age" and "year" in buckets with fixed edges, int64 (0 for an unknown year); "gender", "occupation"
        and "genre_1" to "genre_3" as text, None where a film has fewer.

    Raises:
        FileNotFoundError: If the release is not there; says how to get it.
        ValueError: If a file does not hold what it should.
    """
    place, release = find_movielens(root, version), RELEASES[version]
    if place is None:
        raise FileNotFoundError(
            f"MovieLens {version} is not in {str(root)!r}. Pass download=True, or put {release.url} (or the files "
            f"in it, or RecBole's {release.name}.inter, .user and .item) there."
        )
    try:
        if (place / f"{release.name}.inter").is_file():
            return _columns(*_read_atomic(place, release.name))
        return _columns(*_read_grouplens(place, release))
    except (ArithmeticError, LookupError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        message = f"{str(place)!r} does not hold MovieLens {version} as published ({error!r}). Fetch it again."
        raise ValueError(message) from error


def _columns(ratings: list[list[int]], users: Users, films: Films) -> dict[str, Any]:
    table = np.array(ratings, dtype=np.int64).reshape(-1, 4)
    columns: dict[str, Any] = dict(zip(("user_id", "item_id", "rating", "timestamp"), table.T, strict=True))
    who = [users[user] for user in table[:, 0].tolist()]
    what = [films[film] for film in table[:, 1].tolist()]
    columns["gender"] = np.array([gender for gender, _, _ in who], dtype=object)
    columns["age"] = np.digitize([age for _, age, _ in who], AGE_EDGES)
    columns["occupation"] = np.array([occupation for _, _, occupation in who], dtype=object)
    columns["year"] = np.digitize([0 if year is None else year for year, _ in what], (1, *YEAR_EDGES))
    for place in range(N_GENRES):
        nth = [genres[place] if place < len(genres) else None for _, genres in what]
        columns[f"genre_{place + 1}"] = np.array(nth, dtype=object)
    return columns


# -- RecBole's atomic files: tab separated, with a header of name:type ----------------------------------------------
def _read_atomic(folder: Path, name: str) -> tuple[list[list[int]], Users, Films]:
    def table(kind: str, *wanted: str) -> Iterator[list[str]]:
        lines = (folder / f"{name}.{kind}").read_text(encoding="utf-8").splitlines()
        header = [column.split(":")[0] for column in lines[0].split("\t")]
        places = [header.index(column) if column in header else _missing(column, header) for column in wanted]
        for line in lines[1:]:
            values = line.split("\t")
            yield [values[place] for place in places]

    ratings = [
        [int(user), int(item), int(float(rating)), int(float(time))]
        for user, item, rating, time in table("inter", "user_id", "item_id", "rating", "timestamp")
    ]
    users = {
        int(user): (gender, int(age), occupation)
        for user, age, gender, occupation in table("user", "user_id", "age", "gender", "occupation")
    }
    genre_column = "class" if name == "ml-100k" else "genre"
    films: Films = {
        int(item): (_year(year), genres.split())
        for item, year, genres in table("item", "item_id", "release_year", genre_column)
    }
    return ratings, users, films


def _missing(column: str, header: list[str]) -> int:
    raise KeyError(f"no column {column!r} among {header}")


# -- GroupLens' files: no header, Latin-1 --------------------------------------------------------------------------
def _read_grouplens(place: Path, release: Release) -> tuple[list[list[int]], Users, Films]:
    read = _zip_reader(place, release.name) if place.is_file() else lambda file: (place / file).read_bytes()
    ratings_file, users_file, films_file = release.files

    def table(file: str, separator: str) -> Iterator[list[str]]:
        return (line.split(separator) for line in read(file).decode("latin-1").splitlines() if line)

    ratings = [[int(value) for value in line[:4]] for line in table(ratings_file, release.separator)]
    users: Users = {}
    for line in table(users_file, release.side_separator):
        gender, age = (line[2], line[1]) if release.name == "ml-100k" else (line[1], line[2])
        users[int(line[0])] = (gender, int(age), line[3])
    films: Films = {}
    for line in table(films_file, release.side_separator):
        if release.name == "ml-100k":
            genres = [genre for genre, flag in zip(_GENRES, line[5:24], strict=True) if flag == "1"]
            films[int(line[0])] = (_year(line[2][-4:]), genres)
        else:
            films[int(line[0])] = (_year(line[1].rstrip()[-5:-1]), [genre for genre in line[2].split("|") if genre])
    return ratings, users, films


def _year(text: str) -> int | None:
    return int(text) if re.fullmatch(r"(19|20)\d\d", text) else None


def _zip_reader(path: Path, name: str) -> Callable[[str], bytes]:
    def read(file: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{name}/{file}")
            if member.file_size > _LARGEST_FILE:
                raise zipfile.BadZipFile(f"{member.filename} would take {member.file_size} bytes")
            return archive.read(member)

    return read


# -- download ------------------------------------------------------------------------------------------------------
def fetch_movielens(root: str | Path, version: str) -> Path:
    """Fetch a release from GroupLens, unless it is there already.

    Args:
        root: Folder to put the zip into.
        version: A key of `RELEASES`.

    Returns:
        Where the release lies.

    Raises:
        OSError: If it cannot be fetched.
        ValueError: If what came is not what GroupLens published; nothing is kept then.
    """
    found = find_movielens(root, version)
    if found is not None:
        return found
    release = RELEASES[version]
    target = Path(root) / f"{release.name}.zip"
    try:
        with urllib.request.urlopen(release.url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  # always https
            content = answer.read(_LARGEST_FILE)
    except OSError as error:
        raise OSError(
            f"{release.url} cannot be fetched ({error}). Fetch it by hand and put it into {str(root)!r}."
        ) from error
    found_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found_md5 != release.md5:
        raise ValueError(
            f"{release.url} has the checksum {found_md5}, not {release.md5}. Try again, or fetch it by hand."
        )
    with whole_file(target) as unfinished:
        unfinished.write_bytes(content)
    return target
