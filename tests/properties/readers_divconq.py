"""The readers of Diversify and Conquer: instruction files, chat rows, round files, vectors, qualities."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lightning_adapt import PrecomputedEmbedder, read_round
from lightning_adapt._shared.datasets import fashion_mnist
from lightning_adapt.divconq.embed.vector_file import VectorFile, read_vector_file
from lightning_adapt.divconq.offline.file_pool import read_pool
from lightning_adapt.divconq.scoring.quality import ArrayQuality
from lightning_adapt.divconq.text.readers import open_rows, write_rows
from lightning_adapt.divconq.training.round_files import write_round
from tests.properties import file_mutations as w
from tests.properties import mutations as m
from tests.properties.readers import Reader

ROWS: list[dict[str, Any]] = [
    {"instruction": "Add 2 and 2.", "input": "", "output": "4", "score": 1.5, "history": [["a", "b"]], "system": None},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "score": 2},
    {"conversations": ["2+2?", "4"], "score": 0},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "\u00e9\u4e2d"}], "score": -1},
    {
        "messages": [{"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}],
        "score": 3,
    },
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}]}], "score": 3},
    {"prompt": "a", "response": "b", "score": 4},
    {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}], "score": 4},
    {"question": "a", "answer": "b", "score": 5},
]


def pool(path: Path) -> None:
    """Read a file as `lightning-adapt select` does, and write some rows out again."""
    with tempfile.TemporaryDirectory() as folder:
        rows = open_rows(path)
        found = read_pool(rows, format=None, quality="score", progress=lambda *_: None)
        [found.texts[row] for row in range(len(rows))]
        found.candidates(copies=False)
        if len(rows):
            write_rows([0], rows, Path(folder) / f"out{path.suffix}")


def json_rows(_: Path) -> list[bytes]:
    return ["".join(json.dumps(row) + "\n" for row in ROWS).encode()]


def json_list(_: Path) -> list[bytes]:
    return [json.dumps(ROWS, indent=1).encode(), json.dumps(ROWS).encode()]


def parquet_rows(_: Path) -> list[bytes]:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    rows = [{"instruction": f"do {n}", "output": "x" * n, "score": n / 2} for n in range(20)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=7)
    return [file.getvalue()]


# -- round files -------------------------------------------------------------------------------------------------------
def round_files(ending: str) -> Any:
    def seeds(folder: Path) -> list[bytes]:
        table: dict[str, list[Any]] = {name: [0, 1, 2] for name in ("index", "cluster", "q", "S", "w")}
        summary: dict[str, Any] = dict.fromkeys(("n", "k", "seed", "round", "entropy"), 0)
        summary |= {
            "versions": {"torch": "2"},
            "settings": {"k": 4},
            "engine": "torch",
            "fingerprint": "0",
            "rows": [0, 1],
        }
        write_round(folder, summary, {**table, "row_hash": ["a", None, "c"]})
        return [(folder / f"round-0.{ending}").read_bytes()]

    return seeds


# -- vectors -----------------------------------------------------------------------------------------------------------
def numbers(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    def seeds(_: Path) -> list[bytes]:
        found = []
        for kind in (dtype, np.float16):
            file = io.BytesIO()
            np.save(file, np.arange(np.prod(shape), dtype=kind).reshape(shape))
            found.append(file.getvalue())
        return found

    return seeds


def safetensors_vectors(_: Path) -> list[bytes]:
    import torch
    from safetensors.torch import save

    return [save({"vectors": torch.arange(12.0).reshape(3, 4)}), save({"v": torch.ones(3, 2, dtype=torch.bfloat16)})]


ABOUT = {"embedder": "tf-idf", "rows": 5}


def cached_vectors(ending: str) -> Any:
    def seeds(folder: Path) -> list[bytes]:
        with VectorFile(folder / "cached.npy", ABOUT, 5) as file:
            file.put(0, np.arange(10, dtype=np.float32).reshape(5, 2))
            file.finish()
        return [(folder / f"cached.{ending}").read_bytes()]

    return seeds


def unfinished_vectors(ending: str) -> Any:
    """What a killed process left: rows, and a note of how many are done; a good copy of both lies in a folder."""

    def seeds(folder: Path) -> list[bytes]:
        with VectorFile(folder / "good/cached.npy", ABOUT, 5) as file:
            file.put(0, np.arange(6, dtype=np.float32).reshape(3, 2))
        return [(folder / f"good/.unfinished-cached.{ending}").read_bytes()]

    return seeds


def gone_on(path: Path) -> None:
    """Go on after a kill, in copies."""
    with tempfile.TemporaryDirectory() as name:
        for file in (*(path.parent / "good").iterdir(), path):
            shutil.copy(file, name)
        with VectorFile(Path(name) / "cached.npy", ABOUT, 5) as vectors:
            rows = vectors.rows_done
            if rows < 5:
                vectors.put(rows, np.zeros((5 - rows, 2), np.float32))
            vectors.finish()


def images(_: Path) -> list[bytes]:
    import gzip

    head = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (3, 28, 28))
    return [gzip.compress(head + bytes(range(256)) * 9 + bytes(48))]


def labels_beside(folder: Path) -> list[bytes]:
    import gzip

    head = bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big")
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + bytes([1, 2, 3])))
    return images(folder)


ARRAYS = (*m.BYTES, *(w.npy,) * 7, w.object_npy)
READERS: dict[str, Reader] = {
    "instructions in JSON lines": Reader("p.jsonl", json_rows, pool, (*m.BYTES, *(m.json_lines,) * 21)),
    "instructions in a JSON list": Reader("p.json", json_list, pool, (*m.BYTES, *(m.json_file,) * 21)),
    "instructions in parquet": Reader("p.parquet", parquet_rows, pool, (*m.BYTES, *(w.parquet,) * 4)),
    "round, JSON": Reader(
        "round-0.json", round_files("json"), lambda path: read_round(path.parent, 0), (*m.BYTES, *(m.json_file,) * 14)
    ),
    "round, parquet": Reader(
        "round-0.parquet",
        round_files("parquet"),
        lambda path: read_round(path.parent, 0),
        (*m.BYTES, *(w.parquet,) * 7),
    ),
    "PrecomputedEmbedder, npy": Reader("v.npy", numbers((5, 4)), PrecomputedEmbedder, ARRAYS),
    "PrecomputedEmbedder, safetensors": Reader(
        "v.safetensors", safetensors_vectors, PrecomputedEmbedder, (*m.BYTES, *(w.header,) * 7)
    ),
    "ArrayQuality": Reader("q.npy", numbers((5,)), lambda path: ArrayQuality(str(path)), ARRAYS),
    "cached vectors": Reader("cached.npy", cached_vectors("npy"), lambda p: read_vector_file(p, ABOUT, 5), ARRAYS),
    "note of cached vectors": Reader(
        "cached.json",
        cached_vectors("json"),
        lambda path: read_vector_file(path.with_suffix(".npy"), ABOUT, 5),
        (*m.BYTES, *(m.json_file,) * 7),
    ),
    "unfinished vectors": Reader(".unfinished-cached.npy", unfinished_vectors("npy"), gone_on, ARRAYS),
    "note of unfinished vectors": Reader(
        ".unfinished-cached.json", unfinished_vectors("json"), gone_on, (*m.BYTES, *(m.json_file,) * 7)
    ),
    "Fashion-MNIST": Reader(
        "t10k-images-idx3-ubyte.gz",
        labels_beside,
        lambda path: fashion_mnist("test", path.parent),
        (*m.BYTES, *(w.gzipped,) * 7),
    ),
}
