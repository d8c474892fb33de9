"""Every pure function shows an example; pytest runs all of them as doctests (`--doctest-modules` in pyproject.toml)."""

from __future__ import annotations

import doctest
import inspect

import pytest

import lightning_adapt
from lightning_adapt import functional

N_CLASSES = 28  # public classes and functions beside `functional` that show one, too; more is better


def shown(value: object) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


@pytest.mark.parametrize("name", functional.__all__)
def test_every_pure_function_shows_an_example_that_is_checked(name):
    examples = shown(getattr(functional, name))
    assert any(f"{name}(" in example.source for example in examples)
    assert examples[-1].want or any("assert" in example.source for example in examples), "nothing is compared"


def test_most_public_names_show_one():
    assert sum(bool(shown(getattr(lightning_adapt, name))) for name in lightning_adapt.__all__) >= N_CLASSES
