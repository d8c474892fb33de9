"""Keeps tests apart from each other, and skips honest: in CI a skip for a missing tool or missing data is a failure.

`pytest` alone runs the whole suite in up to four processes, a file in one of them, so that what a file keeps for its
tests is made once. `pytest PATH` stays in one process: a chosen test should start at once and stop in a debugger.
`-n 0` and `-n 8` say otherwise.
"""

from __future__ import annotations

import functools
import gc
import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # small tensors on few cores: more threads only wait for each other


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the number
def pytest_cmdline_main(config: pytest.Config) -> None:
    options, cores = config.option, os.cpu_count() or 1
    if not hasattr(options, "numprocesses") or hasattr(config, "workerinput"):
        return  # pytest-xdist is not installed, or this is one of its processes
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not options.collectonly
    if options.numprocesses is None and options.dist == "no" and whole and not options.usepdb and cores > 1:
        options.numprocesses = min(cores, 4)
    if options.numprocesses and options.dist == "no":
        options.dist = "loadfile"
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # for faiss and scikit-learn in the new processes


gc.disable()  # until all tests are collected; what is made until then stays


def pytest_collection_finish() -> None:
    """What modules and tests are made of is never garbage: a million objects less to look at in every collection."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _plugins_looked_up_once():
    """Every new Trainer reads the entry points of all installed packages: a fifth of what a small run costs."""
    from lightning.fabric.utilities import registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", functools.cache(registry.entry_points))
        yield


@pytest.fixture(autouse=True)
def _nothing_beside_what_is_timed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A test marked `timed` waits until the other processes have ended theirs, and holds them up until it is done."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import fcntl

    with (tmp_path_factory.getbasetemp().parent / "timed.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if request.node.get_closest_marker("timed") else fcntl.LOCK_SH)
        yield
        fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: processes that a test forked may hold the file, too


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_session(tmp_path_factory: pytest.TempPathFactory):
    """What is kept for the next run goes to a folder of this one, never to the home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a Trainer drops go to the test's own folder, never into the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _keep_global_random_state():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = (yield).get_result()
    if report.skipped and os.environ.get("CI") == "true" and "gpu" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where everything must run: {report.longrepr}"
