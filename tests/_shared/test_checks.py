"""The argument checks: what passes unchanged, what is refused, and how it is said."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from lightning_adapt._shared.checks import (
    check_choice,
    check_flag,
    check_fraction,
    check_integer,
    check_not_negative,
    check_number,
    check_positive,
    check_share,
    describe,
    problem,
    read_number,
)


def test_numbers_in_texts():
    found = [read_number(text) for text in (" 103 ", "0.05", "5%", "12.5 %", "-1")]
    assert found == [103, 0.05, 0.05, 0.125, -1]
    assert [type(number) for number in found] == [int, float, float, float, int]
    for text in ("", "%", "ten%", "a.csv"):
        with pytest.raises(ValueError, match="could not convert"):
            read_number(text)


def test_problem_is_one_sentence_and_a_remedy():
    assert problem("x", "a number", "y", "Pass 1.") == "`x` must be a number, but got 'y'. Pass 1."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a", "'a'"),
        (None, "None"),
        (True, "True"),
        ([1, 2], "[1, 2] (list)"),
        (torch.ones(2), "tensor([1., 1.]) (Tensor)"),
    ],
)
def test_describe(value, text):
    assert describe(value) == text


def test_describe_keeps_long_and_broken_values_to_one_short_line():
    text = describe(np.zeros((100, 100)))
    assert len(text) < 150
    assert "\n" not in text
    assert text.endswith("... (ndarray)")


@pytest.mark.parametrize("value", [1, 1.0, 0.5, 1e-9, np.float64(0.25)])
def test_fractions_that_pass(value):
    checked = check_fraction("x", value, "Fix it.")
    assert checked == value
    assert type(checked) is float


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (1.0001, ValueError), (-0.1, ValueError), (float("inf"), ValueError), (float("nan"), ValueError),
     ("0.5", TypeError), (True, TypeError), (None, TypeError), ([0.5], TypeError)],
)  # fmt: skip
def test_fractions_that_do_not(value, error):
    with pytest.raises(error, match=r"`x` must be a number in \(0, 1\], but got .*Fix it\."):
        check_fraction("x", value, "Fix it.")


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3), np.uint8(3)])
def test_whole_numbers_that_pass(value):
    checked = check_integer("x", value, "Fix it.", minimum=3, maximum=3)
    assert checked == 3
    assert type(checked) is int


@pytest.mark.parametrize(
    ("value", "error"),
    [(2, ValueError), (10, ValueError), (True, TypeError), (3.0, TypeError), ("3", TypeError), (None, TypeError),
     (torch.tensor(3.5), TypeError), (np.array([3, 4]), TypeError)],
)  # fmt: skip
def test_whole_numbers_that_do_not(value, error):
    with pytest.raises(error, match=r"`x` must be a whole number from 3 to 9, but got .*Fix it\."):
        check_integer("x", value, "Fix it.", minimum=3, maximum=9)


def test_a_whole_number_without_upper_bound():
    assert check_integer("x", 10**30, "Fix it.") == 10**30
    with pytest.raises(ValueError, match="`x` must be a whole number >= 0, but got -1"):
        check_integer("x", -1, "Fix it.")


def test_choices():
    assert check_choice("x", "b", ("a", "b"), "Fix it.") == "b"
    for value in ("c", 1, None, ["a"]):
        with pytest.raises(ValueError, match=r"`x` must be one of 'a', 'b', but got .*Fix it."):
            check_choice("x", value, ("a", "b"), "Fix it.")


def test_flags():
    assert check_flag("x", True, "Fix it.") is True
    assert check_flag("x", False, "Fix it.") is False
    for value in (1, 0, "yes", None):
        with pytest.raises(TypeError, match=r"`x` must be True or False, but got .*Fix it."):
            check_flag("x", value, "Fix it.")


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, np.float32(0.25), np.int64(1)])
def test_shares_include_both_ends(value):
    assert check_share("mix", value, "Pass 0.") == float(value)
    assert type(check_share("mix", value, "Pass 0.")) is float


@pytest.mark.parametrize("value", [1e-9, 3, np.float64(0.1)])
def test_positive_numbers(value):
    assert check_positive("power", value, "Pass 1.") == float(value)


@pytest.mark.parametrize(
    ("check", "allowed", "wrong"),
    [
        (check_share, "a number in [0, 1]", [-0.1, 1.1, math.nan, math.inf]),
        (check_positive, "a number > 0", [0, -1.0, math.nan, math.inf]),
        (check_not_negative, "a number >= 0", [-1, math.nan, math.inf]),
    ],
)
def test_numbers_out_of_range_and_other_types(check, allowed, wrong):
    for value in wrong:
        with pytest.raises(ValueError, match=re.escape(f"`x` must be {allowed}, but got {value}. Do this.")):
            check("x", value, "Do this.")
    for value in (True, "1", None):
        with pytest.raises(TypeError, match=re.escape(f"`x` must be {allowed}, but got {value!r}. Do this.")):
            check("x", value, "Do this.")


@pytest.mark.parametrize(
    ("interval", "allowed", "inside", "outside"),
    [
        ("[0, 1)", "a number in [0, 1)", [0, 0.5, np.float32(0.25)], [1, -1e-9, math.nan]),
        ("(0, 0.5]", "a number in (0, 0.5]", [0.5, 1e-9, Fraction(1, 3)], [0, 0.50001, -math.inf]),
        ("[1, inf)", "a number >= 1", [1, 1e300], [0.999, math.inf, 10**400]),
        ("(-inf, inf)", "a finite number", [0, -1e300, 7], [math.inf, -math.inf, math.nan, -(10**400)]),
    ],
)
def test_intervals_hold_what_mathematics_says(interval, allowed, inside, outside):
    for value in inside:
        checked = check_number("x", value, interval, "Do this.")
        assert checked == float(value)
        assert type(checked) is float
    for value in outside:
        with pytest.raises(ValueError, match=re.escape(f"`x` must be {allowed}, but got ")):
            check_number("x", value, interval, "Do this.")
    for value in (True, "1", None, 1j, [0.5], torch.tensor(0.5)):
        with pytest.raises(TypeError, match=re.escape(f"`x` must be {allowed}, but got ")):
            check_number("x", value, interval, "Do this.")
