"""Ways to spoil a file that know what is in it: bytes, lines of text, JSON values."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

MARKS = (
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\xc2\x85",
    b"\r\n", b"\r", b"\n", b'"', b"|", b",", b"\t", b"\x1a", b"\xf0\x9f\x92\xa9", b"../", b"~", b"%s", b"1e999", b"NaN",
    b"{", b"[",     b"]", b"}", b"\x1f\x8b", b"PK\x03\x04", b"\x93NUMPY",
)  # fmt: skip
EVIL: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**64), 10**30, 0.5, -0.0, 1e308, math.nan, math.inf,
    -math.inf, "", " ", "x", "0", "nan", "\ud800", "\x00", "\u202e", "a\nb", "../../etc/passwd", "x" * 5000,
    [], [None], [[]], {},     {"": 0}, {"kind": "bpe"}, [1e400], ["a", 1], {"a": {"b": {}}},
)  # fmt: skip


# -- bytes -------------------------------------------------------------------------------------------------------------
def flip(data: bytes, draw: random.Random) -> bytes:
    spoilt = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
    return bytes(spoilt)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice((0, 1, 4, 8, draw.randrange(len(data) + 1), max(0, len(data) - 1)))]


def remove(data: bytes, draw: random.Random) -> bytes:
    first = draw.randrange(len(data) + 1)
    return data[:first] + data[first + draw.choice((1, 4, 64, 1024)) :]


def insert(data: bytes, draw: random.Random) -> bytes:
    place = draw.choice((0, len(data), draw.randrange(len(data) + 1)))
    return data[:place] + draw.choice(MARKS) * draw.choice((1, 1, 2, 100)) + data[place:]


def splice(data: bytes, draw: random.Random) -> bytes:
    first, second = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    piece, place = data[first : min(second, first + 4096)], draw.randrange(len(data) + 1)
    return data[:place] + piece * draw.choice((1, 2)) + data[place + draw.choice((0, len(piece))) :]


def noise(data: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice((1, 8, 64, 1000)))


BYTES: tuple[Mutation, ...] = (flip, flip, cut, remove, insert, splice, noise)


# -- text in lines -----------------------------------------------------------------------------------------------------
def lines(data: bytes, draw: random.Random) -> bytes:
    """Spoil a table in text: line ends, whole lines, fields."""
    rows = data.split(b"\n")
    row = draw.randrange(len(rows))
    kind = draw.randrange(7)
    if kind == 0:
        return b"\r\n".join(rows)
    if kind == 1:
        rows.insert(row, draw.choice((b"", b"   ", rows[draw.randrange(len(rows))], b"\xef\xbb\xbf" + rows[row])))
    elif kind == 2:
        del rows[row]
    elif kind == 3:
        return b"\xef\xbb\xbf" + data
    else:
        mark = next((mark for mark in (b"|", b"\t", b"::", b",") if mark in rows[row]), b",")
        fields = rows[row].split(mark)
        place = draw.randrange(len(fields))
        value = draw.choice((*MARKS, b"", b"-1", b"9" * 5000, b"1e400", b"\xd9\xa3", b"nan", b"x" * 200_000))
        if kind == 4:
            fields[place] = value
        elif kind == 5:
            fields.insert(place, value)
        else:
            del fields[place]
        rows[row] = mark.join(fields)
    return b"\n".join(rows)


# -- JSON values -------------------------------------------------------------------------------------------------------
def changed(value: Any, draw: random.Random, evil: tuple[Any, ...] = EVIL) -> Any:
    """Return plain nested values with one of them changed, removed, renamed or moved."""
    value = copy.deepcopy(value)
    parents = [found for found in containers(value) if len(found)]
    if not parents or draw.random() < 0.03:
        return copy.deepcopy(draw.choice(evil))
    # small ones first: what a state says of itself is more telling than the hundredth of its numbers
    parent = draw.choice(parents[: draw.choice((1, 4, len(parents)))])
    places = list(parent) if isinstance(parent, dict) else range(len(parent))
    place = draw.choice(places)
    kind = draw.randrange(8)
    if kind == 0:
        del parent[place]
    elif kind == 1 and isinstance(parent, dict):
        parent[draw.choice((f"{place}x", "", "version", "kind", "__class__"))] = parent.pop(place)
    elif kind == 2:
        parent[place] = copy.deepcopy(parent[draw.choice(places)])
    elif kind == 3 and isinstance(parent, list):
        parent.insert(place, copy.deepcopy(draw.choice(evil)))
    elif kind == 4 and isinstance(parent[place], (int, float)) and not isinstance(parent[place], bool):
        parent[place] = draw.choice((str(parent[place]), -parent[place], parent[place] + 1, parent[place] * 10**9))
    else:
        parent[place] = copy.deepcopy(draw.choice(evil))
    return value


def containers(value: Any) -> list[Any]:
    found, waiting = [], [value]
    while waiting:
        here = waiting.pop(0)
        if isinstance(here, (dict, list)):
            found.append(here)
            waiting.extend(here.values() if isinstance(here, dict) else here[:50])
    return found


def json_text(value: Any, draw: random.Random) -> str:
    """Write JSON with one value changed, or with what no value gives: nesting, doubled keys, endless numbers."""
    text = json.dumps(changed(value, draw), ensure_ascii=draw.random() < 0.7)
    kind = draw.randrange(12)
    if kind == 0:
        depth = draw.choice((100, 2000, 100_000))
        return text.replace(draw.choice((":", "[", ",")), ":" + "[" * depth, 1) + "]" * draw.choice((0, depth))
    if kind == 1:
        return text.replace(draw.choice("0123456789"), "9" * draw.choice((400, 5000, 200_000)), 1)
    if kind == 2:
        return text.replace("{", '{"version": 1, "kind": null, "format": [], ', 1)
    return text


def json_file(data: bytes, draw: random.Random) -> bytes:
    return json_text(json.loads(data), draw).encode("utf-8", "surrogatepass")


def json_lines(data: bytes, draw: random.Random) -> bytes:
    rows = data.decode().splitlines()
    row = draw.randrange(len(rows))
    rows[row] = json_text(json.loads(rows[row]), draw)
    return "\n".join(rows).encode("utf-8", "surrogatepass")
