"""What the tests of the benchmark scripts share."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


def _forget():
    for path in BENCHMARKS.glob("*[a-z].py"):  # not __main__, which Python itself looks up
        sys.modules.pop(path.stem, None)


@pytest.fixture
def script_of(monkeypatch):
    """Import scripts by name as Python does when one is started; all of them are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    _forget()
    yield importlib.import_module
    _forget()
