"""More ways to spoil a file: safetensors, arrays, archives, checkpoints, tables, databases."""

from __future__ import annotations

import copy
import functools
import gzip
import io
import json
import math
import pickle
import random
import sqlite3
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.properties.mutations import BYTES, EVIL, changed, containers, json_text, lines


class Evil:
    """What a pickle that runs code looks like: `eval` is called when it is read with a full unpickler."""

    def __reduce__(self) -> Any:
        return eval, ("1 + 1",)


# -- safetensors -------------------------------------------------------------------------------------------------------
def header(data: bytes, draw: random.Random) -> bytes:
    """Spoil what a safetensors file says of itself: the length of its header, shapes, offsets, metadata."""
    length = int.from_bytes(data[:8], "little")
    rest = data[8 + length :]
    if draw.random() < 0.4:
        told = draw.choice((0, 1, 7, length - 1, length + 1, len(data), 2**31, 2**40, 2**63, 2**64 - 1))
        return told.to_bytes(8, "little") + data[8:]
    text = json_text(json.loads(data[8 : 8 + length]), draw).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + rest


def resealed(data: bytes, draw: random.Random) -> bytes:
    """Change tensors or body of a file of `write_tensor_file`, and give it the checksum of what it now holds."""
    from lightning_adapt._shared.tensor_file import read_tensor_file, write_tensor_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.safetensors"
        path.write_bytes(data)
        header_length = int.from_bytes(data[:8], "little")
        kind = json.loads(data[8 : 8 + header_length])["__metadata__"]["format"]
        tensors, body = read_tensor_file(path, kind, "file", foreign="is foreign")
        if draw.random() < 0.6:
            body = changed(body, draw)
        if draw.random() < 0.6 or not isinstance(body, dict):
            tensors = tensors_changed(tensors, draw)
        try:
            write_tensor_file(path, kind, tensors, body)
        except (TypeError, ValueError, RuntimeError):  # our own writer or safetensors' does not write such a thing
            return header(data, draw)
        return path.read_bytes()


def tensors_changed(tensors: dict[str, torch.Tensor], draw: random.Random) -> dict[str, torch.Tensor]:
    tensors = {name: value.clone() for name, value in tensors.items()}
    if not tensors:
        return {"new": torch.zeros(2)}
    name = draw.choice(sorted(tensors))
    if draw.random() < 0.2:
        value = tensors.pop(name)
        if draw.random() < 0.5:
            tensors[draw.choice(("", "x", f"{name}.u", f"{name}x"))] = value
        return tensors
    tensors[name] = tensor_changed(tensors[name], draw).contiguous()
    return tensors


def tensor_changed(value: torch.Tensor, draw: random.Random) -> torch.Tensor:
    """Return a tensor of another shape, another dtype or with numbers that cannot be."""
    kind = draw.randrange(6)
    if kind == 0:
        return value.flatten()[: draw.choice((0, 1, max(1, value.numel() // 2)))].clone()
    if kind == 1:
        return value.to(draw.choice((torch.float64, torch.float16, torch.int8, torch.int64, torch.bool))).clone()
    if kind == 2:
        return value.unsqueeze(0).clone()
    if kind == 3:
        return torch.cat([value, value]) if value.dim() else value.repeat(2)
    value = value.clone()
    if value.numel():
        flat, place = value.view(-1), draw.randrange(value.numel())
        if value.is_floating_point():
            flat[place] = draw.choice((math.nan, math.inf, -math.inf, 1e30, -1.0))
        elif value.dtype != torch.bool:
            info = torch.iinfo(value.dtype)
            flat[place] = draw.choice((info.max, info.min, 0, min(info.max, 10**6)))
    return value


# -- arrays, archives, tables ------------------------------------------------------------------------------------------
def npy(data: bytes, draw: random.Random) -> bytes:
    """Write an array file whose header promises something else than it holds."""
    shapes = ("(3, 4)", "(-1, 4)", "(10**12,)", "(1000000000000, 4)", "()", "(2, 0)", "((3,),)", "None", "(" * 300)
    kinds = ("'<f4'", "'|O'", "'<f8'", "'<U9'", "'<c8'", "'|V5'", "[('a', '<f4')]", "'<M8[s]'", "'zz'", "5", "'|b1'")
    order = draw.choice(("False", "True", "1", "__import__('os').getpid()"))
    text = f"{{'descr': {draw.choice(kinds)}, 'fortran_order': {order}, 'shape': {draw.choice(shapes)}, }}"
    head = text.encode().ljust(118) + b"\n"
    length = draw.choice((len(head), len(head), len(head), 65535, 1))
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + head + data[128:]


def object_npy(data: bytes, draw: random.Random) -> bytes:
    """Write an array of Python objects, one of which runs code when it is unpickled."""
    file = io.BytesIO()
    np.save(file, np.array([Evil(), None], dtype=object), allow_pickle=True)
    return file.getvalue()


def archive(data: bytes, draw: random.Random) -> bytes:
    """Spoil a zip from inside: a member changed, missing, doubled or of another name."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        members = old.infolist()
        victim = draw.choice(members).filename
        for member in members:
            content = old.read(member)
            if member.filename == victim:
                kind = draw.randrange(4)
                if kind == 0:
                    continue
                if kind == 1:
                    new.writestr(f"../{member.filename}", content)
                    continue
                content = lines(content, draw) if kind == 2 else draw.choice(BYTES)(content, draw)
            new.writestr(member.filename, content)
    return file.getvalue()


def saved(data: bytes, draw: random.Random) -> bytes:
    """Change what `torch.save` wrote: plain values, tensors, and objects that only code could build."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    kind = draw.randrange(10)
    if kind == 0:
        content = {**content, "evil": Evil()} if isinstance(content, dict) else Evil()
    elif kind == 1:
        return pickle.dumps({"state_dict": {"a": Evil()}})
    else:
        content = state_changed(content, draw)
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def state_changed(state: Any, draw: random.Random) -> Any:
    """Change one value of a nested state with tensors."""
    tensors = [found for found in _holders(state) if draw.random() < 0.5]
    if tensors and draw.random() < 0.4:
        state = copy.deepcopy(state)
        parent, place = draw.choice(list(_holders(state)))
        parent[place] = tensor_changed(parent[place], draw)
        return state
    return changed(state, draw, (*EVIL, torch.zeros(3), torch.tensor(2)))


def _holders(state: Any) -> list[tuple[Any, Any]]:
    found = []
    for parent in containers(state):
        for place in list(parent) if isinstance(parent, dict) else range(len(parent)):
            if isinstance(parent[place], torch.Tensor):
                found.append((parent, place))
    return found


def gzipped(data: bytes, draw: random.Random) -> bytes:
    """Spoil what is inside a gzip file; or let it unfold to 400 MiB."""
    if draw.random() < 0.1:
        return bomb()
    return gzip.compress(draw.choice((*BYTES, idx))(gzip.decompress(data), draw))


@functools.cache
def bomb(mebibytes: int = 400, head: bytes = b"\0\0\x08\x01\x18\xff\xff\xf8") -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9) as packed:
        packed.write(head)
        for _ in range(mebibytes):
            packed.write(bytes(2**20))
    return file.getvalue()


def idx(data: bytes, draw: random.Random) -> bytes:
    """Spoil the head of an idx file: kind, number of dimensions, sizes."""
    spoilt = bytearray(data)
    place = draw.randrange(min(16, len(spoilt)))
    spoilt[place] = draw.choice((0, 1, 2, 8, 13, 127, 255))
    return bytes(spoilt)


def parquet(data: bytes, draw: random.Random) -> bytes:
    """Write a parquet file with a column of another kind, missing, doubled or of another name."""
    import pyarrow
    from pyarrow import parquet as files

    table = files.read_table(io.BytesIO(data))
    place = draw.randrange(table.num_columns)
    name, kind = table.column_names[place], draw.randrange(6)
    values = draw.choice(([None], [1.5], ["x"], [[1]], [{"a": 1}], [True], [b"\xff"], [2**62], [math.nan]))
    if kind == 0:
        table = table.remove_column(place)
    elif kind == 1:
        table = table.rename_columns([f"{other}x" if other == name else other for other in table.column_names])
    elif kind == 2:
        table = table.append_column(name, table.column(place))
    elif kind == 3:
        table = table.slice(0, draw.randrange(table.num_rows + 1))
    else:
        table = table.set_column(place, name, pyarrow.array(values * table.num_rows))
    file = io.BytesIO()
    files.write_table(table, file)
    return file.getvalue()


def database(data: bytes, draw: random.Random) -> bytes:
    """Change a value, a row or a table of an SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.sqlite"
        path.write_bytes(data)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=DELETE")
        for line, values in _statements(connection, draw):
            try:
                connection.execute(line, values)
            except sqlite3.Error:  # a constraint of the table: nothing happens then
                continue
        connection.close()
        return path.read_bytes()


def _statements(connection: sqlite3.Connection, draw: random.Random) -> list[tuple[str, tuple[Any, ...]]]:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    table = draw.choice(tables)
    column = draw.choice([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
    value = draw.choice(
        (-1, 0, 2**62, 1.5, math.inf, "", "x", "[]", "{}", "null", "[1]", b"", b"\0" * 8, None, "9" * 5000)
    )
    row = f"rowid = (SELECT rowid FROM {table} ORDER BY random() LIMIT 1)"
    return [
        draw.choice(
            (
                (f"UPDATE {table} SET {column} = ? WHERE {row}", (value,)),
                (f"UPDATE {table} SET {column} = ?", (value,)),
                (f"DELETE FROM {table} WHERE {row}", ()),
                (f"DELETE FROM {table}", ()),
                (f"DROP TABLE {table}", ()),
                (f"ALTER TABLE {table} RENAME COLUMN {column} TO other", ()),
                (f"ALTER TABLE {table} ADD COLUMN more", ()),
                (f"CREATE VIEW other AS SELECT * FROM {table}", ()),
            )
        )
    ]
