"""How many rows a budget means, and how many of them each round draws."""

from __future__ import annotations

import math
from typing import Any

from lightning_adapt._shared.checks import check_integer, problem, read_number

__all__ = ["check_budget", "resolve_budget", "round_sizes"]

_BUDGET_FORMS = "a number of rows (103), a share in (0, 1] (0.05) or a percentage ('5%')"


def check_budget(budget: int | float | str) -> int | float:
    """Read a budget whose pool is not known yet.

    Args:
        budget: Rows (103 or "103"), a share in (0, 1] (0.05 or "0.05") or a percentage ("5%").

    Returns:
        Rows as an int >= 1, or a share in (0, 1] as a float.

    Raises:
        TypeError: If it is neither a number nor text.
        ValueError: If it is 0 or less, a share above 1, or text of another form.
    """
    number = _read_budget(budget)
    if isinstance(number, int):
        return check_integer("budget", number, "Pass at least one row.", minimum=1)
    if not 0 < number <= 1:  # NaN is no share either
        raise ValueError(problem("budget", _BUDGET_FORMS, budget, "Write a number of rows without a decimal point."))
    return number


def _read_budget(budget: int | float | str) -> int | float:
    if isinstance(budget, str):
        try:
            return read_number(budget)
        except ValueError:
            raise ValueError(problem("budget", _BUDGET_FORMS, budget, "Write 103, 0.05 or 5%.")) from None
    number: Any = budget  # may be a whole number of NumPy or torch
    if not isinstance(number, (bool, float)) and hasattr(number, "__index__"):
        return int(number.__index__())
    if isinstance(number, bool) or not isinstance(number, float):
        raise TypeError(problem("budget", _BUDGET_FORMS, budget, "Pass one of these."))
    return number


def resolve_budget(budget: int | float | str, n: int) -> int:
    """Return how many rows a budget means.

    Args:
        budget: Rows (103 or "103"), a share in (0, 1] (0.05 or "0.05") or a percentage ("5%"); shares are rounded to
            the nearest row.
        n: Rows of the pool, N.

    Returns:
        The budget b, 1 <= b <= N.

    Raises:
        TypeError: If `budget` is neither a number nor text.
        ValueError: If it comes to no row or to more than `n`.

    Example:
        >>> resolve_budget("5%", 1030), resolve_budget(0.1, 1030), resolve_budget(103, 1030)
        (52, 103, 103)
    """
    check_integer("n", n, "Pass the rows of the pool.", minimum=1)
    number = check_budget(budget)
    rows = number if isinstance(number, int) else math.floor(number * n + 0.5)
    if rows < 1:
        raise ValueError(problem("budget", f"at least one of the {n} rows", budget, "Pass a larger share."))
    if rows > n:
        raise ValueError(problem("budget", f"at most the {n} rows of the pool", rows, "Lower it, or add data."))
    return rows


def round_sizes(budget: int, rounds: int) -> list[int]:
    """Return how many new rows each round draws: floor(b / R), and the remainder in the earliest rounds.

    Algorithm 1 of Yu et al., 2024, arXiv 2409.11378 draws b / N_rounds; how to round is ours.

    Args:
        budget: Rows in all, b.
        rounds: Rounds, 1 <= R <= b.

    Returns:
        New rows of each round; they add up to `budget`.

    Raises:
        ValueError: If a round would get no row.

    Example:
        >>> round_sizes(103, 3)
        [35, 34, 34]
    """
    check_integer("budget", budget, "Pass at least one row.", minimum=1)
    check_integer("rounds", rounds, "Pass 1 for a single selection.", minimum=1)
    if rounds > budget:
        remedy = f"Use at most {budget} rounds, or a larger budget."
        raise ValueError(problem("rounds", f"at most the budget of {budget} rows", rounds, remedy))
    size, left = divmod(budget, rounds)
    return [size + (number < left) for number in range(rounds)]
