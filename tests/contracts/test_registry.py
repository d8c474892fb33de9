"""A public name without a registry entry fails, and each name is reachable in the three promised ways."""

from __future__ import annotations

import importlib

import pytest

import lightning_adapt
from tests.registry import REGISTRY


def test_every_public_name_has_an_entry():
    assert set(lightning_adapt.__all__) == set(REGISTRY)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_name_comes_from_the_package_and_from_its_method(name):
    value = getattr(lightning_adapt, name)
    method = value.__module__.split(".")[1]
    assert method in lightning_adapt.METHODS
    assert getattr(importlib.import_module(f"lightning_adapt.{method}"), name) is value
    assert value.__doc__


@pytest.mark.parametrize("method", lightning_adapt.METHODS)
def test_pure_functions_of_every_method_are_in_one_flat_place(method):
    theirs = importlib.import_module(f"lightning_adapt.{method}.functional")
    functions = [name for name in theirs.__all__ if callable(getattr(theirs, name))]
    flat = importlib.import_module("lightning_adapt.functional")
    assert {name: getattr(flat, name) for name in functions} == {name: getattr(theirs, name) for name in functions}
    assert set(functions) <= set(flat.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        lightning_adapt.Nothing  # noqa: B018
