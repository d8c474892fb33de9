"""States are plain, carry a version, and a state or a file stored by an earlier release keeps loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lightning_adapt
from lightning_adapt._shared.state import check_plain
from tests.registry import REGISTRY

FIXTURES = Path(__file__).parents[1] / "fixtures"
WITH_STATE = [name for name, entry in REGISTRY.items() if entry.state is not None]


def test_everything_with_a_state_is_covered():
    stateful = {name for name in REGISTRY if "state_dict" in vars(getattr(lightning_adapt, name))}
    assert stateful <= set(WITH_STATE)


@pytest.mark.parametrize("name", WITH_STATE)
def test_state_is_plain_and_versioned(name):
    state = REGISTRY[name].state().state_dict()
    check_plain(state)
    assert state["version"] >= 1
    json.dumps(state)  # simple enough for any file format


@pytest.mark.parametrize("name", WITH_STATE)
def test_version_1_keeps_loading(name):
    stored = json.loads((FIXTURES / f"{name}-v1.json").read_text())
    assert stored["version"] == 1
    REGISTRY[name].state().load_state_dict(stored)


@pytest.mark.parametrize("name", WITH_STATE)
@pytest.mark.parametrize("broken", [{}, {"version": 99}, {"version": "1"}, {"version": 0}])
def test_unknown_versions_are_refused(name, broken):
    with pytest.raises(ValueError, match="version"):
        REGISTRY[name].state().load_state_dict(broken)


# -- what holds tensors: modules with a state beside their buffers, and files ------------------------------------------
def classes_with(method: str) -> list[str]:
    """Public classes that have a method of this package, their own or inherited."""
    return sorted(
        name
        for name in REGISTRY
        for base in getattr(getattr(lightning_adapt, name), "__mro__", ())
        if method in vars(base) and base.__module__.startswith("lightning_adapt")
    )


def test_extra_states_are_plain_and_versioned_and_unknown_versions_are_refused():
    for name in classes_with("get_extra_state"):
        state = dict(REGISTRY[name].make().state_dict())
        check_plain(state)
        assert state["_extra_state"]["version"] >= 1
        REGISTRY[name].make().load_state_dict(state)
        for broken in (None, 99, "1", 0):
            changed = {**state, "_extra_state": {**state["_extra_state"], "version": broken}}
            with pytest.raises(ValueError, match="version"):
                REGISTRY[name].make().load_state_dict(changed)


def test_files_of_version_1_keep_loading():
    for name in classes_with("save"):
        ending, load = REGISTRY[name].file
        stored = sorted(FIXTURES.glob(f"{name}-*v1{ending}"))
        assert stored
        for path in stored:
            assert type(load(path)) is getattr(lightning_adapt, name)
