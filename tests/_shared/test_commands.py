"""run_command: what a command says and returns when its work ends well, badly, or by Ctrl-C."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pytest

from lightning_adapt._shared.commands import NEEDED, OPTIONAL, print_lines, run_command


def fail(message):
    raise SystemExit(message)


def run(work, *, verbose=False):
    return run_command("select", argparse.Namespace(verbose=verbose), fail, work)


def breaking(error, *written):
    def work(files):
        files.extend(map(Path, written))
        raise error

    return work


def test_work_that_ends_well(capsys):
    assert run(lambda files: print_lines(["one", "[two]"])) == 0
    assert capsys.readouterr().out == "one\n[two]\n"


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, ImportError, RuntimeError])
def test_a_mistake_is_one_line(error):
    with pytest.raises(SystemExit, match=r"^select: no such thing$"):
        run(breaking(error("no such\n   thing")))
    with pytest.raises(SystemExit, match=r"^select: no \(a\.json, b\.json was written\)$"):
        run(breaking(error("no"), "a.json", "b.json"))


def test_with_verbose_it_is_an_error_and_a_defect_always_is():
    with pytest.raises(ValueError, match="no"):
        run(breaking(ValueError("no")), verbose=True)
    with pytest.raises(KeyError):
        run(breaking(KeyError("ours")))


@pytest.mark.parametrize(("written", "what"), [((), "nothing"), (("a.json",), "a.json")])
def test_ctrl_c_says_what_is_there(written, what, capsys):
    assert run(breaking(KeyboardInterrupt(), *written)) == 130
    assert capsys.readouterr().err == f"select: stopped, {what} was written.\n"


def test_warnings_are_lines_of_the_command(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(lambda files: warnings.warn("not\n much", stacklevel=1)) == 0
    assert capsys.readouterr().err == "select: not much\n"


def test_help_shows_no_default_for_what_has_none():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", help="a file", **NEEDED)
    parser.add_argument("--name", help="a name", **OPTIONAL)
    assert "default" not in parser.format_help()
    assert vars(parser.parse_args(["--out", "x"])) == {"out": "x"}
