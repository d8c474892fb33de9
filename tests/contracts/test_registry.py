"""A public name without an entry, or without a contract of its kind, fails; each is reachable in the promised ways."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import get_args

import pytest
from lightning.pytorch import Callback, LightningDataModule, LightningModule

import lightning_adapt
from tests.contracts import test_ddp, test_drop_in, test_objects, test_resume, test_serving, test_state
from tests.registry import REGISTRY
from tests.registry_parts import Entry, Kind

RUN_BY_A_TRAINER = {
    "test_trains_under_trainer_options",
    "test_limit_train_batches",
    "test_validate_test_and_predict_run_without_fit",
    "test_other_callbacks_keep_working_in_any_order",
    "test_default_checkpoint_is_saved_without_validation_data",
}
SERVES = {
    "test_keeps_the_contract",
    "test_other_callbacks_make_no_difference_in_any_order",
    "test_under_the_trainer_of_pytorch_lightning",
}
CONTRACTS: dict[Kind, set[str]] = {
    "order": RUN_BY_A_TRAINER | {"test_ranks_share_each_round"},
    "training": RUN_BY_A_TRAINER | {"test_ranks_share_each_round", "test_switched_off_gives_bit_equal_weights"},
    "data": RUN_BY_A_TRAINER | {"test_ranks_share_each_round"},
    "module": RUN_BY_A_TRAINER | {"test_ranks_share_each_round"},
    "serving": RUN_BY_A_TRAINER | SERVES,
    "object": {"test_two_of_them_agree_and_draw_no_global_random_numbers", "test_copies_go_on_where_it_was"},
}
STATE = {"test_state_is_plain_and_versioned", "test_version_1_keeps_loading", "test_unknown_versions_are_refused"}
KINDS_OF_CLASSES = {
    Callback: {"order", "training", "serving"},
    LightningDataModule: {"order", "data"},
    LightningModule: {"module"},
}


def names_of(test: object) -> set[str]:
    """The public names that a test is run for."""
    names: set[str] = set()
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            arguments = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
            if "name" in arguments:
                names |= {row if len(arguments) == 1 else row[arguments.index("name")] for row in mark.args[1]}
    return names


def contracts_of(name: str, *modules: ModuleType) -> set[str]:
    tests = [(key, value) for module in modules for key, value in vars(module).items() if key.startswith("test_")]
    return {key for key, value in tests if name in names_of(value)}


def saves_state(value: object) -> bool:
    """Whether a class has a state of its own, itself or by a mix-in of ours."""
    mixed_in = [
        base for base in getattr(value, "__bases__", ()) if base.__module__.startswith("lightning_adapt._shared")
    ]
    return any("state_dict" in vars(kind) for kind in (value, *mixed_in))


def uncovered(name: str, entry: Entry, value: object) -> set[str]:
    """What is asked of a public name and not done."""
    wanted = CONTRACTS[entry.kind] | (STATE if saves_state(value) else set())
    wanted -= set() if entry.copies else {"test_copies_go_on_where_it_was"}
    missing = wanted - contracts_of(name, test_drop_in, test_ddp, test_objects, test_serving, test_state)
    if entry.kind != "object" and entry.resume not in ("exact", "loader", "epoch"):  # the tests of test_resume.py
        missing.add("resume")
    missing |= {
        f"no {entry.kind}"
        for base, kinds in KINDS_OF_CLASSES.items()
        if inspect.isclass(value) and issubclass(value, base) and entry.kind not in kinds
    }
    return missing


def test_every_public_name_has_an_entry():
    assert set(lightning_adapt.__all__) == set(REGISTRY)
    assert set(CONTRACTS) == set(get_args(Kind))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_public_name_is_held_to_the_contracts_of_its_kind(name):
    assert not uncovered(name, REGISTRY[name], getattr(lightning_adapt, name))


def test_a_name_without_contracts_would_be_noticed():
    nothing = uncovered("Nothing", Entry(kind="serving"), type("Nothing", (Callback,), {"state_dict": None}))
    assert nothing == RUN_BY_A_TRAINER | SERVES | STATE | {"resume"}
    assert uncovered("Nothing", Entry(kind="object"), type("Nothing", (), {})) == CONTRACTS["object"]
    assert "no object" in uncovered("RS2Callback", Entry(kind="object"), lightning_adapt.RS2Callback)
    assert "test_resume_is_exact" in contracts_of("RS2Callback", test_resume)
    assert "test_switched_off_gives_bit_equal_weights" in contracts_of("RS2Callback", test_drop_in)


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
