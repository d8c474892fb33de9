"""The tensors of a voice: matrices, or factors whose products they are; checked, multiplied out and mixed; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["checked_tensors", "largest_rank", "matrices_of", "mixed_tensors", "product_of"]

_LEFT, _RIGHT = ".u", ".w"
_CONV = re.compile(r"conv\.\d+")
_REMEDY = "A voice file holds NAME of shape (H, K, V), or NAME.u of shape (R, H, K) and NAME.w of shape (R, H, V)."


# -- what is allowed ---------------------------------------------------------------------------------------------------
def checked_tensors(tensors: Mapping[str, Tensor], *, convolutions: bool) -> dict[str, Tensor]:
    """Return copies of a voice's tensors on the CPU in float32.

    Args:
        tensors: NAME -> (H, K, V), or NAME.u -> (R, H, K) and NAME.w -> (R, H, V) with R >= 1; "conv.i" -> (3, C).
        convolutions: Whether "conv.i" may be there.

    Returns:
        The tensors, in order, without history; they share memory with nothing.

    Raises:
        TypeError: If it is no mapping from names to tensors of floats.
        ValueError: If there is none, a shape is wrong, a factor lacks its other half, or a number is not finite.
    """
    if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
        raise TypeError(problem("tensors", "a dict from names to tensors", tensors, _REMEDY))
    if not tensors:
        raise ValueError(problem("tensors", "at least one tensor long", "none", _REMEDY))
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(problem(f"tensors[{name!r}]", "a tensor of floats", value, _REMEDY))
        found[name] = value.detach().to("cpu", torch.float32, copy=True).contiguous()
        if not bool(found[name].isfinite().all()):
            remedy = "Tuning that ended in NaN gives no voice: lower the learning rate."
            raise ValueError(problem(f"tensors[{name!r}]", "finite", "NaN or infinite numbers", remedy))
    for name, value in found.items():
        _check_shape(name, value, found, convolutions)
    return found


def _check_shape(name: str, value: Tensor, others: Mapping[str, Tensor], convolutions: bool) -> None:
    argument, shape = f"tensors[{name!r}]", tuple(value.shape)
    if _CONV.fullmatch(name):
        if not convolutions:
            remedy = "Tuning learns no inputs of convolutions; only voices from prompts have them."
            raise ValueError(problem(argument, "absent in a tuned voice", shape, remedy))
        if value.dim() != 2 or not value.numel():
            raise ValueError(problem(argument, "of shape (3, C)", shape, _REMEDY))
        return
    if value.dim() != 3 or not value.numel():
        raise ValueError(problem(argument, "of three dimensions, none of them 0", shape, _REMEDY))
    stem, half = name[:-2], name[-2:]
    if half in (_LEFT, _RIGHT):
        other = others.get(stem + (_RIGHT if half == _LEFT else _LEFT))
        if other is None or other.shape[:2] != value.shape[:2]:
            found = "nothing" if other is None else f"{tuple(other.shape)} beside {shape}"
            allowed = "beside its other factor, with the same rank and the same heads"
            raise ValueError(problem(argument, allowed, found, _REMEDY))
        if stem in others:
            raise ValueError(problem(argument, f"absent where {stem!r} is given as a matrix", shape, _REMEDY))


# -- matrices ----------------------------------------------------------------------------------------------------------
def product_of(u_RHK: Tensor, w_RHV: Tensor) -> Tensor:  # noqa: N803  # suffixes name the dimensions
    """Return the matrix of two factors, sum_r u_r w_r^T per head.

    Multiplied number by number: `matmul` would round to bfloat16 under autocast and where the user allowed it.

    Args:
        u_RHK: Left factors. Shape (R, H, K).
        w_RHV: Right factors. Shape (R, H, V).

    Returns:
        The matrix. Shape (H, K, V), dtype and device of the factors.

    Example:
        >>> product_of(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]])).tolist()
        [[[3.0, 4.0], [6.0, 8.0]]]
    """
    total = u_RHK.new_zeros(*u_RHK.shape[1:], w_RHV.shape[2])
    for u_HK, w_HV in zip(u_RHK, w_RHV, strict=True):  # noqa: N806
        total += u_HK[:, :, None] * w_HV[:, None, :]
    return total


def matrices_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the matrices that a voice stands for.

    Args:
        tensors: As `checked_tensors` gives them.

    Returns:
        NAME -> matrix. Shape (H, K, V), dtype float32. Inputs of convolutions are left out.
    """
    return {name: _matrix(name, tensors) for name in _names(tensors)}


def _names(tensors: Mapping[str, Tensor]) -> list[str]:
    stems = [name[:-2] if name[-2:] in (_LEFT, _RIGHT) else name for name in tensors if not _CONV.fullmatch(name)]
    return list(dict.fromkeys(stems))


def _matrix(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    return tensors[name] if name in tensors else product_of(tensors[name + _LEFT], tensors[name + _RIGHT])


def largest_rank(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the largest rank of all factors; None if a matrix is kept in full.

    Args:
        tensors: As `checked_tensors` gives them.

    Returns:
        R, or None.
    """
    names = _names(tensors)
    if not names or any(name in tensors for name in names):
        return None
    return max(len(tensors[name + _LEFT]) for name in names)


# -- mixtures ----------------------------------------------------------------------------------------------------------
def mixed_tensors(parts: Sequence[tuple[float, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Return the tensors of a weighted sum; what one voice lacks counts as zero there.

    Factors are joined while that takes less memory than the matrix.

    Args:
        parts: Weight and tensors of each voice, of one model.

    Returns:
        The tensors, as a voice keeps them.

    Raises:
        ValueError: If the matrices of one name have different shapes.
    """
    mixed: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for _, tensors in parts for name in _names(tensors)):
        having = [part for part in parts if name in part[1] or name + _LEFT in part[1]]
        _check_alike(name, [_layout(name, tensors) for _, tensors in having])
        if _joined_is_smaller(name, [tensors for _, tensors in having]):
            mixed[name + _LEFT] = torch.cat([tensors[name + _LEFT] for _, tensors in having])
            mixed[name + _RIGHT] = torch.cat([weight * tensors[name + _RIGHT] for weight, tensors in having])
        else:
            mixed[name] = sum((weight * _matrix(name, tensors) for weight, tensors in having), torch.zeros(()))
    for name in dict.fromkeys(name for _, tensors in parts for name in tensors if _CONV.fullmatch(name)):
        rows = [(weight, tensors[name]) for weight, tensors in parts if name in tensors]
        _check_alike(name, [tuple(row.shape) for _, row in rows])
        mixed[name] = sum((weight * row for weight, row in rows), torch.zeros(()))
    return mixed


def _layout(name: str, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    if name in tensors:
        return tuple(tensors[name].shape)
    return (*tensors[name + _LEFT].shape[1:], tensors[name + _RIGHT].shape[2])


def _check_alike(name: str, shapes: Sequence[tuple[int, ...]]) -> None:
    if len(set(shapes)) > 1:
        raise ValueError(problem(f"voices: {name}", "of one shape in all voices", shapes, "Mix voices of one model."))


def _joined_is_smaller(name: str, having: Sequence[Mapping[str, Tensor]]) -> bool:
    if any(name in tensors for tensors in having):
        return False
    _, keys, values = _layout(name, having[0])
    return sum(len(tensors[name + _LEFT]) for tensors in having) * (keys + values) < keys * values
