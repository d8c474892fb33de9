"""Checks of tensors that a user passes to a pure function, in the one error style."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["check_tensor"]

_REMEDY = "See the shapes in its docstring."


def check_tensor(
    argument: str, value: Any, kind: Literal["any", "real", "whole"] = "any", *, ndim: int | None = None
) -> None:
    """Refuse what is no tensor of a kind; its values are not looked at.

    Args:
        argument: Name of the argument.
        value: What the user passed.
        kind: "real": floating point; "whole": integers or bool; "any": either of them.
        ndim: Dimensions it has to have; None for any.

    Raises:
        TypeError: If it is no tensor, or of another kind.
        ValueError: If it has another number of dimensions.

    Example:
        >>> import torch
        >>> check_tensor("losses", torch.tensor([0.5, 1.0]), "real", ndim=1)
    """
    floating = isinstance(value, Tensor) and value.is_floating_point()
    if not isinstance(value, Tensor) or value.is_complex() or (kind != "any" and floating != (kind == "real")):
        raise TypeError(problem(argument, _allowed(kind, ndim), value, _REMEDY))
    if ndim is not None and value.ndim != ndim:
        raise ValueError(problem(argument, _allowed(kind, ndim), tuple(value.shape), _REMEDY))


def _allowed(kind: str, ndim: int | None) -> str:
    """Return what is asked for in words; only for an error, since steps of a decoder check their tensors, too."""
    noun = {"any": "a tensor of real numbers", "real": "a floating-point tensor", "whole": "a tensor of whole numbers"}
    return noun[kind] if ndim is None else f"{noun[kind]} with {ndim} dimension{'s' * (ndim != 1)}"
