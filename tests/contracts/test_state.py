"""States are plain, carry a version, and a state stored by an earlier release keeps loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_adapt._shared.state import check_plain
from tests.registry import REGISTRY

FIXTURES = Path(__file__).parents[1] / "fixtures"
WITH_STATE = [name for name, entry in REGISTRY.items() if entry.state is not None]


def test_everything_with_a_state_is_covered():
    import lightning_adapt

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
