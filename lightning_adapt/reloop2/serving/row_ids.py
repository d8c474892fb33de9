"""Ids by which a server's rows are known between prediction and label, and the labels that come for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt.reloop2.stores.inputs import check_values

__all__ = ["RowId", "check_ids", "check_labels"]

RowId = int | str
LONGEST_ID = 256  # characters


def check_ids(ids: Any, *, distinct: bool) -> list[RowId]:
    """Check the ids of some rows.

    Args:
        ids: A sequence of strings and whole numbers, or a tensor (B,) of whole numbers. 1 and "1" are two ids.
        distinct: Whether no two may be alike.

    Returns:
        The ids as plain values.

    Raises:
        TypeError: If they are something else.
        ValueError: If there are none, one is too long or too large, or two are alike that may not be.
    """
    remedy = "Pass a list of strings or whole numbers, one per row."
    if isinstance(ids, Tensor):
        if ids.ndim != 1 or ids.is_floating_point() or ids.dtype == torch.bool:
            raise TypeError(problem("ids", "a list, or a tensor (B,) of whole numbers", ids, remedy))
        ids = ids.tolist()
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Sequence):
        raise TypeError(problem("ids", "a list of strings and whole numbers", ids, remedy))
    if not ids:
        raise ValueError(problem("ids", "at least one id", ids, remedy))
    checked = [_check_id(name) for name in ids]
    twice = [name for name, count in Counter(checked).items() if count > 1]
    if distinct and twice:
        raise ValueError(problem("ids", "distinct within one call", twice[0], "Give each row an id of its own."))
    return checked


def check_labels(labels: Any, n_rows: int, *, binary: bool) -> Tensor:
    """Check labels that have come.

    Args:
        labels: A tensor (B,) or a sequence of numbers.
        n_rows: The B that is expected.
        binary: Whether they must lie in [0, 1].

    Returns:
        The labels. Shape (B,), float32, on the CPU.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If their number is wrong, or one is not finite or out of range.
    """
    if not isinstance(labels, Tensor):
        try:
            labels = torch.tensor(labels, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            remedy = "Pass 1 for a click."
            raise TypeError(problem("labels", "a list of numbers, one per id", labels, remedy)) from error
    return check_values("labels", labels, n_rows, binary=binary).cpu()


def _check_id(name: Any) -> RowId:
    if isinstance(name, str):
        if len(name) > LONGEST_ID or not name or not _is_utf8(name):
            raise ValueError(problem("ids", f"texts of 1 to {LONGEST_ID} characters of Unicode", name, "Shorten it."))
        return name
    return check_integer("ids", name, "Pass strings or whole numbers.", minimum=-(2**63), maximum=2**63 - 1)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can bring
        return False
    return True
