# ruff: noqa: E501 - one case per line
"""Every wrong use of a memory names the argument, what is allowed, what came and what to do; and leaves it as it was."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch

from lightning_adapt._shared import imports
from lightning_adapt.reloop2.memory import ErrorMemory
from tests.reloop2.memory_parts import BACKENDS, rows, same, small

T, V = TypeError, ValueError
NAN, INF = float("nan"), float("inf")

ARGUMENTS = {
    "backend": [("lsh", V, "one of 'knn', 'sketch', 'faiss'"), (None, V, "one of")],
    "k": [(0, V, "whole number >= 1"), (1.5, T, "whole number"), (True, T, "whole number")],
    "tau": [(0, V, "number > 0"), (-1, V, "number > 0"), (NAN, V, "number > 0"), ("0.1", T, "number > 0")],
    "gamma": [(-0.1, V, "in [0, 1]"), (1.1, V, "in [0, 1]"), (NAN, V, "in [0, 1]"), (None, T, "in [0, 1]")],
    "lam": [(-0.1, V, "in [0, 1]"), (1.1, V, "in [0, 1]"), ("0.4", T, "in [0, 1]")],
    "capacity": [(0, V, "whole number >= 1"), (1e5, T, "whole number")],
    "n_bits": [(0, V, "whole number from 1 to 24"), (25, V, "whole number from 1 to 24"), (12.0, T, "whole number")],
    "n_tables": [(0, V, "whole number >= 1"), ("64", T, "whole number")],
    "half_life": [(0, V, "number >= 1"), (0.5, V, "None for no"), (INF, V, "number >= 1"), ("1", T, "number >= 1")],
    "support_n0": [(-1, V, "number >= 0"), (NAN, V, "number >= 0"), (INF, V, "number >= 0"), (True, T, "number >= 0")],
    "whiten": [(1, T, "True or False"), (None, T, "True or False")],
    "max_dim": [(0, V, "whole number >= 1"), (1.0, T, "whole number")],
    "task": [("multiclass", V, "one of 'binary', 'regression'")],
    "eps": [(value, V, "a number in [1e-12, 0.5)") for value in (0, 0.5, 1e-13, NAN)],
    "seed": [(-1, V, "whole number from 0"), (2**63, V, "whole number from 0"), (0.5, T, "whole number")],
    "dim": [(0, V, "whole number >= 1"), (1.5, T, "whole number")],
}
CASES = [(name, *case) for name, cases in ARGUMENTS.items() for case in cases]


@pytest.mark.parametrize(("name", "value", "error", "allowed"), CASES, ids=[f"{case[0]}={case[1]!r}" for case in CASES])
def test_a_wrong_argument_is_explained(name, value, error, allowed):
    with pytest.raises(error) as found:
        ErrorMemory(**{name: value})
    text = str(found.value)
    assert text.startswith(f"`{name}` must be ")
    assert allowed in text
    assert repr(value) in text
    assert text.endswith(".")


def test_every_argument_is_checked():
    import inspect

    assert set(inspect.signature(ErrorMemory).parameters) == set(ARGUMENTS)


def test_numbers_of_numpy_and_the_ends_of_ranges_are_taken():
    memory = ErrorMemory(
        np.int64(3),
        k=np.int32(1),
        tau=np.float64(1e-3),
        gamma=1,
        lam=0,
        capacity=1,
        n_bits=1,
        n_tables=1,
        half_life=1,
        support_n0=0,
        max_dim=1,
        eps=np.float32(0.4),
        seed=2**63 - 1,
    )
    assert all(type(value) in (str, int, float, bool) for value in memory.config().values())
    assert ErrorMemory(half_life=None, support_n0=1e9).settings.half_life is None


K, Y, P = rows(6)
WRONG_ROWS = {
    "keys are a list": (lambda m: m.read(K.tolist()), T, "`keys`", "a floating-point tensor", "[["),
    "keys are whole": (lambda m: m.read(K.long()), T, "`keys`", "a floating-point tensor", "int64"),
    "keys are one row": (lambda m: m.read(K[0]), V, "`keys`", "of shape (B, 8)", "(8,)"),
    "keys have another size": (lambda m: m.read(K[:, :7]), V, "`keys`", "of shape (B, 8)", "(6, 7)"),
    "keys with NaN": (lambda m: m.read(K / 0 * 0), V, "`keys`", "finite", "nan"),
    "keys with infinity": (lambda m: m.write(K / 0, Y, P), V, "`keys`", "finite", "inf"),
    "keys whose squares overflow": (lambda m: m.write(K * 1e20, Y, P), V, "`keys`", "length 1e+12 at most", "e+2"),
    "keys too long to be added up": (lambda m: m.read(K * 1e13), V, "`keys`", "length 1e+12 at most", "unscaled"),
    "keys beyond float32": (lambda m: m.read(K.double() * 1e60), V, "`keys`", "length 1e+12 at most", "e+6"),
    "calibrating with NaN": (lambda m: m.empty_copy().calibrate(K * NAN), V, "`keys`", "finite", "nan"),
    "calibrating too late": (lambda m: m.calibrate(K), V, "`keys`", "while nothing is stored", "120"),
    "labels are a list": (lambda m: m.write(K, Y.tolist(), P), T, "`labels`", "a tensor of real numbers", "["),
    "labels are complex": (lambda m: m.write(K, Y + 0j, P), T, "`labels`", "a tensor of real numbers", "complex64"),
    "labels are too few": (lambda m: m.write(K, Y[:5], P), V, "`labels`", "of shape (6,)", "(5,)"),
    "labels are a column": (lambda m: m.write(K, Y[:, None], P), V, "`labels`", "of shape (6,)", "(6, 1)"),
    "labels are -1 and 1": (lambda m: m.write(K, 2 * Y - 1, P), V, "`labels`", "in [0, 1]", "-1.0"),
    "labels are ratings": (lambda m: m.write(K, Y + 3, P), V, "`labels`", "in [0, 1]", "task='regression'"),
    "labels with NaN": (lambda m: m.write(K, Y * NAN, P), V, "`labels`", "in [0, 1]", "nan"),
    "base are logits": (lambda m: m.write(K, Y, P - 2), V, "`base`", "in [0, 1]", "not logits"),
    "base are too many": (lambda m: m.write(K, Y, torch.rand(7)), V, "`base`", "of shape (6,)", "(7,)"),
    "base are missing": (lambda m: m.write(K, Y, None), T, "`base`", "a tensor of real numbers", "None"),
    "estimating for logits": (lambda m: m.estimate(K, P + 2), V, "`base`", "in [0, 1]", "not logits"),
    "logits as probabilities": (lambda m: m.compensate(P - 3, K), V, "`base`", "in [0, 1]", "not logits"),
    "fewer outputs than keys": (lambda m: m.compensate(P[:5], K), V, "`base`", "of shape (6,)", "(5,)"),
    "signals of other rows": (lambda m: m.correct(P, m.signals(K[:5], P[:5])), V, "`output`", "5 predictions", "(6,)"),
    "an unknown kind": (lambda m: m.compensate(P, K, "score"), V, "`kind`", "'probability', 'logit'", "'score'"),
    "the kind of another task": (
        lambda m: m.compensate(P, K, "regression"),
        V,
        "`kind`",
        "'probability', 'logit'",
        "task='binary'",
    ),
    "merging something else": (
        lambda m: m.merge_(torch.nn.Linear(1, 1)),
        T,
        "`other`",
        "another ErrorMemory",
        "Linear",
    ),
    "merging another size": (
        lambda m: m.merge_(written(small(m.settings.backend), rows(20, 9))),
        V,
        "`other`",
        "a memory of 8 features",
        "got 9",
    ),
    "merging another whitening": (
        lambda m: m.merge_(written(small(m.settings.backend), rows(20, seed=8))),
        V,
        "`other`",
        "same statistics",
        "empty_copy()",
    ),
}


def written(memory: ErrorMemory, data) -> ErrorMemory:
    memory.write(*data)
    return memory


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", WRONG_ROWS)
def test_wrong_rows_are_explained_and_nothing_is_stored(backend, case):
    call, error, *parts = WRONG_ROWS[case]
    memory = written(small(backend), rows(120))
    before = memory.read(K)
    with pytest.raises(error) as found:
        call(memory)
    for part in parts:
        assert part in str(found.value)
    assert memory.n_written == 120
    assert same(memory.read(K), before)


@pytest.mark.parametrize("dim", [8, 300])  # statistics of wide keys are added up in float32
def test_keys_of_the_largest_length_can_be_added_up(dim):
    keys, labels, base = rows(2000, dim)
    keys = torch.nn.functional.normalize(keys) * 0.99e12
    memory = small("sketch")
    memory.calibrate(keys)
    written(memory, (keys, labels, base))
    assert torch.isfinite(memory.key_space.whitening.projection).all()
    assert memory.read(keys).support.min() > 0


def test_a_wrong_first_write_fixes_nothing():
    memory = small("knn")
    with pytest.raises(ValueError, match="labels"):
        memory.write(K, Y + 3, P)
    assert memory.dim is None
    assert not memory.is_calibrated
    memory.write(*rows(20, 9))
    assert memory.dim == 9


def test_regression_takes_any_number_that_can_be_squared_and_gives_no_probability():
    memory = written(
        small("knn", task="regression", lam=1.0, support_n0=0.0), (K.repeat(2, 1), 50 * Y.repeat(2), 50 * P.repeat(2))
    )
    assert torch.isfinite(memory.compensate(100 * P, K)).all()
    match = r"`labels` must be finite, and at most 1e\+12 in size, but got nan"
    with pytest.raises(ValueError, match=match):
        memory.write(K, Y * NAN, P)
    with pytest.raises(ValueError, match=r"`base` must be finite, and at most 1e\+12 in size, but got 3\.0"):
        memory.compensate(torch.full_like(P, 3e38), K)  # it would make every later answer NaN
    with pytest.raises(ValueError, match=r"`kind` must be one of 'regression', but got 'logit'.*task='regression'"):
        memory.compensate(P, K, "logit")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("n_bits", 6),
        ("seed", 1),
        ("half_life", 41.0),
        ("whiten", False),
        ("capacity", 51),
        ("task", "regression"),
        ("n_tables", 8),
        ("max_dim", 3),
        ("backend", "knn"),
    ],
)
def test_memories_of_other_settings_are_not_merged(setting, value):
    mine, other = small("sketch"), small(**{"backend": "sketch", setting: value})
    with pytest.raises(
        ValueError, match=rf"The other memory has {setting}={re.escape(repr(value))}, here .* same settings"
    ):
        mine.merge_(other)
    mine.merge_(small("sketch", lam=0.1, gamma=1.0, support_n0=0.0, eps=1e-3, k=3, tau=1.0))  # only how it is read


def test_a_missing_package_is_named(monkeypatch):
    for package in ("faiss-cpu", "safetensors"):
        monkeypatch.setitem(imports.EXTRAS["recsys"], package, imports.RequirementCache(f"no-{package}>=9"))
    with pytest.raises(ModuleNotFoundError, match=r'backend="faiss" needs no-faiss-cpu>=9.*lightning-adapt\[recsys\]'):
        ErrorMemory(backend="faiss")
    with pytest.raises(ModuleNotFoundError, match=r"A memory file needs no-safetensors>=9"):
        small("knn").save("memory.safetensors")


def test_neither_backend_needs_faiss_but_its_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for backend in ("knn", "sketch"):
        written(small(backend), rows(20)).read(K)
