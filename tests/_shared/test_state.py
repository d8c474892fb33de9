"""Plain state: exactly what torch.load(weights_only=True) reads back."""

from __future__ import annotations

import enum
import io
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_adapt._shared.state import check_plain, on_cpu, read_version, to_plain, with_version


@dataclass
class Point:
    x: int = 1


class Colour(enum.IntEnum):
    RED = 1


PLAIN = {
    "numbers": [1, 2.5, True, None, "text", b"bytes", (1, (2,))],
    3: {"tensor": torch.arange(3), "parameter": torch.nn.Parameter(torch.ones(2))},
    "half": torch.ones(2, dtype=torch.bfloat16),
}
ODD = {
    "numpy scalar": np.float64(1.0),
    "numpy bool": np.bool_(True),
    "array": np.zeros(2),
    "set": {1},
    "dataclass": Point(),
    "enum": Colour.RED,
    "path": Path("a"),
    "defaultdict": defaultdict(int),
    "dtype": torch.float32,
    "complex": 1j,
    "generator": torch.Generator(),
}


def reload(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_what_passes_is_read_back_equal():
    check_plain(PLAIN)
    back = reload(PLAIN)
    assert back["numbers"] == PLAIN["numbers"]
    assert torch.equal(back[3]["tensor"], torch.arange(3))
    assert back["half"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", ODD)
def test_everything_else_is_refused_with_its_path(name):
    with pytest.raises(TypeError, match=r"`state\.a\[1\]\.b` must be plain .*, but got .*Convert it before saving"):
        check_plain({"a": [0, {"b": ODD[name]}]})


@pytest.mark.parametrize("key", [1.5, (1, 2), None, True, Colour.RED])
def test_other_keys_are_refused(key):
    with pytest.raises(TypeError, match="`state` must have str or int keys"):
        check_plain({key: 1})


def test_paths_of_whole_number_keys():
    with pytest.raises(TypeError, match=r"`state\[7\]`"):
        check_plain({7: {1}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(1.5), 1.5),
        (np.int32(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (torch.float16, "torch.float16"),
        (torch.device("cpu"), "cpu"),
        (OrderedDict(a=np.int64(1)), {"a": 1}),
        (defaultdict(list, b=[(np.float32(2),)]), {"b": [[2.0]]}),
        ({"k": None, 2: b"x"}, {"k": None, 2: b"x"}),
    ],
)
def test_to_plain(value, expected):
    plain = to_plain(value)
    assert plain == expected
    assert type(plain) is type(expected)
    assert reload(plain) == expected


def test_to_plain_of_arrays_and_tensors():
    array = np.arange(6.0).reshape(2, 3)
    plain = to_plain({"a": array, "t": torch.ones(2, requires_grad=True) * 2})
    assert torch.equal(plain["a"], torch.from_numpy(array))
    array[0, 0] = 9
    assert plain["a"][0, 0] == 0  # a copy: the array may change before it is saved
    assert not plain["t"].requires_grad
    reload(plain)


@pytest.mark.parametrize("value", [Point(), Path("a"), {"a": 1j}, [object()]])
def test_to_plain_refuses_what_has_no_plain_form(value):
    with pytest.raises(TypeError, match="must be plain"):
        to_plain(value)


def test_versions():
    stamped = with_version({"a": 1}, 2)
    assert stamped == {"version": 2, "a": 1}
    assert next(iter(stamped)) == "version"
    assert read_version(stamped, 2, "X") == read_version(stamped, 3, "X") == 2
    with pytest.raises(ValueError, match=r"version 2, but this release reads up to 1. Upgrade"):
        read_version(stamped, 1, "X")
    with pytest.raises(ValueError, match="must not have a key 'version'"):
        with_version(stamped, 1)
    with pytest.raises(TypeError, match="must be plain"):
        with_version({"a": {1}}, 1)


@pytest.mark.parametrize(
    "state", [{}, {"version": 0}, {"version": True}, {"version": "1"}, {"version": None}, None, [1]]
)
def test_a_state_without_a_version_is_refused(state):
    with pytest.raises(ValueError, match="The saved state of X has no valid `version`"):
        read_version(state, 1, "X")


def test_a_copy_on_the_cpu_shares_nothing():
    weights = torch.ones(2, requires_grad=True)
    state = {"a": [weights, (torch.zeros(1), {"b": [1]})], "c": None}
    copied = on_cpu(state)
    assert copied["a"][1][1] == {"b": [1]}
    assert not copied["a"][0].requires_grad
    with torch.no_grad():
        weights += 1
    state["a"][1][1]["b"].append(2)
    assert copied["a"][0].tolist() == [1, 1]
    assert copied["a"][1][1]["b"] == [1]
