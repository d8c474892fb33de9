"""The readers of ReLoop2: memories, snapshots, journals, tables and MovieLens."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from lightning_adapt import AdaptiveErrorMemory, ErrorMemory, ErrorMemoryPredictor
from lightning_adapt.reloop2.data.movielens_files import read_movielens
from lightning_adapt.reloop2.data.tables import read_table
from lightning_adapt.reloop2.memory_file import read_memory_extra
from lightning_adapt.reloop2.serving.journal import JournalError
from tests.properties import file_mutations as w
from tests.properties import mutations as m
from tests.properties.readers import ERRORS, FIXTURES, Reader, stored
from tests.reloop2.predictor_parts import MEMORIES, fixed_clicks

SEALED = (*m.BYTES, *(w.header,) * 4, *(w.resealed,) * 12)
JOURNAL = "journal-v1.sqlite"


def journal_beside(spoil_snapshot: bool) -> Any:
    """A good copy of the other one of the two files of a journal lies in the folder."""
    names = (JOURNAL, f"{JOURNAL}.snapshot.safetensors")

    def seeds(folder: Path) -> list[bytes]:
        (folder / "other").mkdir(exist_ok=True)
        shutil.copy(FIXTURES / names[not spoil_snapshot], folder / "other")
        return [(FIXTURES / names[spoil_snapshot]).read_bytes()]

    return seeds


def served(path: Path) -> None:
    """Go on with a journal: on copies, since a server writes to it."""
    with tempfile.TemporaryDirectory() as name:
        for file in (*(path.parent / "other").iterdir(), path):
            shutil.copy(file, name)
        ErrorMemoryPredictor(fixed_clicks(), MEMORIES["knn"](), journal=Path(name) / JOURNAL).close()


# -- tables ------------------------------------------------------------------------------------------------------------
def text_table(separator: str) -> Any:
    rows = [("time", "user", "item", "clicked", "price"), *((n, f"u{n % 4}", n % 3, n % 2, n / 7) for n in range(12))]
    text = "".join(separator.join(map(str, row)) + "\n" for row in rows)
    return lambda _: [text.encode(), text.replace("\n", "\r\n").encode()]


def parquet_table(_: Path) -> list[bytes]:
    import pandas as pd

    file = BytesIO()
    frame = pd.DataFrame({"time": range(12), "user": list("abcdefghijkl"), "clicked": [0, 1] * 6})
    frame.to_parquet(file)
    return [file.getvalue()]


# -- MovieLens ---------------------------------------------------------------------------------------------------------
_RATINGS = "".join(f"{row % 5 + 1}::{row % 4 + 1}::{row % 5 + 1}::{978300000 + row}\n" for row in range(20))
_USERS = "".join(f"{user}::{'FM'[user % 2]}::{25 + user}::{user}::55117\n" for user in range(1, 6))
_FILMS = "".join(f"{film}::Film {film} (199{film})::Drama|Comedy\n" for film in range(1, 5))


def movielens_zip(_: Path) -> list[bytes]:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in (("ratings", _RATINGS), ("users", _USERS), ("movies", _FILMS)):
            archive.writestr(f"ml-1m/{name}.dat", text)
    return [file.getvalue()]


def movielens_beside(folder: Path) -> list[bytes]:
    (folder / "ml-100k").mkdir(exist_ok=True)
    users = [("user_id", "age", "gender", "occupation"), *((user, 20 + user, "F", "other") for user in range(9))]
    films = [("item_id", "release_year", "class"), *((film, 1990 + film, "Drama Comedy") for film in range(5))]
    rows = [("user_id:token", "item_id:token", "rating:float", "timestamp:float")]
    rows += [(row % 9, row % 5, 1 + row * 7 % 5, 900_000_000 + row) for row in range(20)]
    texts = ["".join("\t".join(map(str, row)) + "\n" for row in table) for table in (users, films, rows)]
    for kind, text in zip(("user", "item"), texts, strict=False):
        (folder / f"ml-100k/ml-100k.{kind}").write_text(text)
    return [texts[2].encode()]


READERS: dict[str, Reader] = {
    "ErrorMemory, knn": Reader("m.safetensors", stored("ErrorMemory-knn-v1.safetensors"), ErrorMemory.load, SEALED),
    "ErrorMemory, sketch": Reader(
        "m.safetensors", stored("ErrorMemory-sketch-v1.safetensors"), ErrorMemory.load, SEALED
    ),
    "ErrorMemory, faiss": Reader("m.safetensors", stored("ErrorMemory-faiss-v1.safetensors"), ErrorMemory.load, SEALED),
    "AdaptiveErrorMemory": Reader(
        "m.safetensors", stored("AdaptiveErrorMemory-v1.safetensors"), AdaptiveErrorMemory.load, SEALED
    ),
    "read_memory_extra": Reader(
        "m.safetensors", stored("ErrorMemory-knn-v1.safetensors"), read_memory_extra, (w.header, w.resealed)
    ),
    "ErrorMemoryPredictor": Reader(
        "p.safetensors",
        stored("ErrorMemoryPredictor-v1.safetensors"),
        lambda path: ErrorMemoryPredictor.load(path, fixed_clicks()),
        SEALED,
    ),
    "journal": Reader(JOURNAL, journal_beside(False), served, (*m.BYTES, *(w.database,) * 8), (*ERRORS, JournalError)),
    "snapshot of a journal": Reader(
        f"{JOURNAL}.snapshot.safetensors", journal_beside(True), served, SEALED, (*ERRORS, JournalError)
    ),
    "table in CSV": Reader("log.csv", text_table(","), read_table, (*m.BYTES, *(m.lines,) * 7)),
    "table in TSV": Reader("log.tsv", text_table("\t"), read_table, (*m.BYTES, *(m.lines,) * 7)),
    "table in parquet": Reader("log.parquet", parquet_table, read_table, (*m.BYTES, w.parquet)),
    "MovieLens, zip": Reader(
        "ml-1m.zip", movielens_zip, lambda path: read_movielens(path.parent, "1m"), (*m.BYTES, *(w.archive,) * 9)
    ),
    "MovieLens, atomic": Reader(
        "ml-100k/ml-100k.inter",
        movielens_beside,
        lambda path: read_movielens(path.parents[1], "100k"),
        (*m.BYTES, *(m.lines,) * 7),
    ),
}
