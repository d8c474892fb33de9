"""Public functions refuse what they cannot take, by a ValueError or TypeError that names the argument."""

from __future__ import annotations

import inspect
import traceback
import warnings
from typing import Any

import pytest
import torch

import lightning_adapt
from lightning_adapt import functional
from tests.properties.calls import CALLS, NUMBERS, TENSORS
from tests.properties.guards import PACKAGE

# called at every step of a decoder or inside compiled graphs, where a look at each argument would cost time or break
# the graph: what does not fit is torch's to refuse
UNCHECKED = {"gla_step", "sinusoids", ("gla", "scale"), ("recurrent_gla", "scale"), ("silhouette", "labelings")}
PUBLIC_FUNCTIONS = {name for name in lightning_adapt.__all__ if inspect.isfunction(getattr(lightning_adapt, name))}
PROPERTIES_ELSEWHERE = {  # functions that take files, data sets or models: where their arguments are tried
    "planted_instructions": "test_planted.py",
    "read_round": "test_round_files.py",
    "rs2_loader": "test_loader.py",
    "select_file": "test_command.py",
    "select_rows": "test_selection.py",
    "tiny_language_model": "test_tiny.py",
}


def test_every_function_has_an_entry():
    assert set(CALLS) == set(functional.__all__)
    assert set(PROPERTIES_ELSEWHERE) == PUBLIC_FUNCTIONS


@pytest.mark.parametrize("name", CALLS)
def test_the_good_call_names_every_argument_and_works(name):
    parameters = inspect.signature(getattr(functional, name)).parameters.values()
    needed = {one.name for one in parameters if one.default is inspect.Parameter.empty}
    assert needed <= set(CALLS[name]()) <= {one.name for one in parameters}
    getattr(functional, name)(**CALLS[name]())


def documented(error: Exception, argument: str, others: set[str]) -> bool:
    """A line of this package raised it, and its text names the argument, or another one that it does not fit to."""
    inside = traceback.extract_tb(error.__traceback__)[-1].filename.startswith(PACKAGE)
    names = {argument, *others, *(name.rsplit("_", 1)[0] for name in {argument, *others})}
    return type(error) in (ValueError, TypeError) and inside and any(f"`{name}`" in str(error) for name in names)


def outcomes(name: str, argument: str, values: tuple[Any, ...]) -> list[str]:
    """What is wrong with the errors for some values of an argument."""
    wrong = []
    for value in values:
        call = {**CALLS[name](), argument: value}
        try:
            getattr(functional, name)(**call)
        except Exception as error:
            if not documented(error, argument, set(call)):
                wrong.append(f"{value!r}: {type(error).__name__}: {error}")
    return wrong


PAIRS = [(name, argument) for name, call in CALLS.items() if name not in UNCHECKED for argument in call()]


@pytest.mark.parametrize(("name", "argument"), [pair for pair in PAIRS if pair not in UNCHECKED])
def test_what_has_no_right_type_is_refused_by_an_error_of_ours(name, argument):
    is_tensor = isinstance(CALLS[name]()[argument], torch.Tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about conversions
        values = ("x", 3, [None], torch.tensor([1j, 2])) if is_tensor else NUMBERS
        assert not outcomes(name, argument, values)


@pytest.mark.parametrize(("name", "argument"), [pair for pair in PAIRS if pair not in UNCHECKED])
def test_tensors_of_other_shapes_are_accepted_or_refused_but_crash_nothing(name, argument):
    if isinstance(CALLS[name]()[argument], torch.Tensor):
        for value in TENSORS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    getattr(functional, name)(**{**CALLS[name](), argument: value})
                except (ValueError, TypeError, RuntimeError, IndexError):  # shapes that do not fit are torch's to name
                    continue
