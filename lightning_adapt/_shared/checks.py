"""Argument checks with one error style: which argument, what is allowed, what came, what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

_SHOWN_CHARACTERS = 120


def describe(value: object) -> str:
    """Return a short, one-line picture of a value for an error message.

    Args:
        value: Anything.

    Returns:
        `repr(value)` with its type where that is not plain, cut to a readable length.
    """
    text = " ".join(repr(value).split())
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 3] + "..."
    return text if isinstance(value, (str, int, float, bool, type(None))) else f"{text} ({type(value).__name__})"


def problem(argument: str, allowed: str, received: object, remedy: str) -> str:
    """Compose the one error text that every check of this package uses.

    Args:
        argument: Name of the argument as the user writes it.
        allowed: What would have been accepted, worded to follow "must be".
        received: The value that came.
        remedy: What the user should do, a full sentence.

    Returns:
        One line of text.

    Example:
        >>> problem("ratio", "a number in (0, 1]", 2, "Pass 0.1 to train on a tenth of the data per round.")
        '`ratio` must be a number in (0, 1], but got 2. Pass 0.1 to train on a tenth of the data per round.'
    """
    return f"`{argument}` must be {allowed}, but got {describe(received)}. {remedy}"


def read_number(text: str) -> int | float:
    """Return the number that a text says.

    Args:
        text: A whole number ("103"), a number (0.05) or a percentage ("5%").

    Returns:
        An int for a whole number; else a float, 0.05 for 5%.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> read_number("103"), read_number("0.05"), read_number("5%")
        (103, 0.05, 0.05)
    """
    text = text.strip()
    if text.endswith("%"):
        return float(text[:-1]) / 100
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def check_number(argument: str, value: Any, interval: str, remedy: str) -> float:
    """Check a real number inside an interval.

    Args:
        argument: Name of the argument.
        value: What the user passed; booleans and texts are refused, NumPy's numbers are taken.
        interval: As mathematics writes it: "[0, 1)" holds 0 and not 1, "(0, inf)" every finite number above 0.
        remedy: What the user should do instead.

    Returns:
        The value as a float.

    Raises:
        TypeError: If the value is no real number.
        ValueError: If it is outside the interval, infinite or NaN.

    Example:
        >>> check_number("momentum", 0, "[0, 1)", "Pass 0.9.")
        0.0
    """
    low, high = interval[1:-1].split(", ")
    bound = "a finite number" if low == "-inf" else f"a number {'>=' if interval[0] == '[' else '>'} {low}"
    allowed = bound if high == "inf" else f"a number in {interval}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(problem(argument, allowed, value, remedy))
    try:
        number = float(value)
    except OverflowError:  # a whole number with hundreds of digits
        number = math.nan
    above = number >= float(low) if interval[0] == "[" else number > float(low)  # NaN is neither
    below = number <= float(high) if interval[-1] == "]" else number < float(high)
    if not (above and below):
        raise ValueError(problem(argument, allowed, value, remedy))
    return number


def check_fraction(argument: str, value: Any, remedy: str) -> float:
    """Check a share in (0, 1]; arguments, result and errors as in `check_number`."""
    return check_number(argument, value, "(0, 1]", remedy)


def check_share(argument: str, value: Any, remedy: str) -> float:
    """Check a share in [0, 1]; arguments, result and errors as in `check_number`."""
    return check_number(argument, value, "[0, 1]", remedy)


def check_positive(argument: str, value: Any, remedy: str) -> float:
    """Check a finite number above 0; arguments, result and errors as in `check_number`."""
    return check_number(argument, value, "(0, inf)", remedy)


def check_not_negative(argument: str, value: Any, remedy: str) -> float:
    """Check a finite number that may be 0; arguments, result and errors as in `check_number`."""
    return check_number(argument, value, "[0, inf)", remedy)


def check_integer(argument: str, value: Any, remedy: str, *, minimum: int = 0, maximum: int | None = None) -> int:
    """Check a whole number inside a closed range.

    Args:
        argument: Name of the argument.
        value: What the user passed; booleans are refused.
        remedy: What the user should do instead.
        minimum: Smallest value allowed.
        maximum: Largest value allowed; None for no bound.

    Returns:
        The value as an int.

    Raises:
        TypeError: If the value is no whole number.
        ValueError: If it is outside the range.
    """
    allowed = f"a whole number >= {minimum}" if maximum is None else f"a whole number from {minimum} to {maximum}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(problem(argument, allowed, value, remedy))
    try:
        number = int(value.__index__())
    except TypeError as error:  # a tensor or array that is not one whole number
        raise TypeError(problem(argument, allowed, value, remedy)) from error
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(problem(argument, allowed, value, remedy))
    return number


def check_choice(argument: str, value: Any, choices: Sequence[str], remedy: str) -> str:
    """Check that a value is one of a few words.

    Args:
        argument: Name of the argument.
        value: What the user passed.
        choices: The words allowed.
        remedy: What the user should do instead.

    Returns:
        The value.

    Raises:
        ValueError: If the value is not among the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(problem(argument, "one of " + ", ".join(map(repr, choices)), value, remedy))
    return value


def check_flag(argument: str, value: Any, remedy: str) -> bool:
    """Check a true/false switch.

    Args:
        argument: Name of the argument.
        value: What the user passed.
        remedy: What the user should do instead.

    Returns:
        The value.

    Raises:
        TypeError: If the value is no bool (1, "yes" and None are refused: they hide mistakes).
    """
    if not isinstance(value, bool):
        raise TypeError(problem(argument, "True or False", value, remedy))
    return value


def check_text(argument: str, value: Any, remedy: str) -> str:
    """Return a text with something in it; raise an error that names the argument otherwise.

    Args:
        argument: Name of the argument.
        value: What the user passed.
        remedy: What to do, a full sentence.

    Returns:
        The text.

    Raises:
        TypeError: If it is no string.
        ValueError: If it is empty or blank.

    Example:
        >>> check_text("name", "anna", "Name the speaker.")
        'anna'
    """
    if not isinstance(value, str):
        raise TypeError(problem(argument, "a string", value, remedy))
    if not value.strip():
        raise ValueError(problem(argument, "a text that is not empty", value, remedy))
    return value


def check_loader_key(loader: Any) -> str | int | None:
    """Check the name of one of several train loaders.

    Args:
        loader: What the user passed.

    Returns:
        The value.

    Raises:
        TypeError: If it is neither a dict key, nor a position, nor None.
    """
    if loader is None or (isinstance(loader, (str, int)) and not isinstance(loader, bool)):
        return loader
    raise TypeError(
        problem("loader", "a dict key, a position or None", loader, "Name one of your train loaders, or leave it out.")
    )


def check_held_out(argument: str, value: Any, source: str) -> Any:
    """Return a share of the rows as a float, None for no rows, anything else as it is.

    Args:
        argument: Name of the argument.
        value: What the user passed: a share, or rows to hold out, in some form.
        source: Word for rows in a file, such as "manifest".

    Returns:
        The share, None, or the value.

    Raises:
        ValueError: If it is a number that is no share.
    """
    if isinstance(value, bool) or (isinstance(value, (int, float)) and not 0 <= value < 1):
        remedy = f"Pass 0.05, a {source}, rows, or 0 for no validation."
        raise ValueError(problem(argument, f"a share in [0, 1), a {source} or rows", value, remedy))
    if isinstance(value, (int, float)):
        return float(value) or None
    return value
