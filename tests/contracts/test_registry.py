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


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        lightning_adapt.Nothing  # noqa: B018
