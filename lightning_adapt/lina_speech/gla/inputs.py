"""What every way to compute Gated Linear Attention asks of its inputs, and the scale and state it starts from.

Shapes: B batch, T steps, H heads, K key width, V value width.
"""
# ruff: noqa: N803  (names end in their dimensions)

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.tensor_checks import check_tensor

# e^-17 and e^-40 are below half the last bit of their dtypes: a step that decays more forgets all. -inf would make NaN,
# and `intra` needs that the products of four such factors, and their inverses, are far from the ends of the dtype: with
# e^68 queries and keys may be as large as 1e8.
LEAST_LOG_DECAY = {torch.float32: -17.0, torch.float64: -40.0}


def check_inputs(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_decay_BTHK: Tensor, state: Tensor | None, mask_BT: Tensor | None
) -> None:
    """Refuse tensors that do not fit each other; their values are not looked at.

    Args:
        q_BTHK: Queries. Shape (B, T, H, K), floating point.
        k_BTHK: Keys. Shape (B, T, H, K), floating point.
        v_BTHV: Values. Shape (B, T, H, V), floating point.
        log_decay_BTHK: Logarithms of the decays, <= 0. Shape (B, T, H, K), floating point.
        state: Where the recurrence starts. Shape (B or 1, H, K, V), floating point; or None.
        mask_BT: True where a step counts. Shape (B, T), dtype bool; or None.

    Raises:
        TypeError: If a tensor has a dtype that does not fit.
        ValueError: If the shapes do not fit each other.
    """
    named = {"q": q_BTHK, "k": k_BTHK, "v": v_BTHV, "log_decay": log_decay_BTHK}
    for name, tensor in named.items():
        check_tensor(name, tensor, ndim=4 if name == "v" else None)
    if q_BTHK.dim() != 4:
        raise ValueError(problem("q", "of shape (B, T, H, K)", tuple(q_BTHK.shape), "Put time before heads."))
    batch, steps, heads, width = q_BTHK.shape
    for name, tensor in named.items():
        wanted = (batch, steps, heads, width) if name != "v" else (batch, steps, heads, tensor.shape[-1])
        if tensor.shape != wanted:
            shape = f"of shape {wanted}" if name != "v" else f"of shape ({batch}, {steps}, {heads}, V)"
            raise ValueError(problem(name, shape + ", as `q` says", tuple(tensor.shape), "Put time before heads."))
        if not tensor.is_floating_point():
            raise TypeError(problem(name, "of a floating point dtype", tensor.dtype, "Convert it first."))
    if state is not None:
        check_state(state, batch, heads, width, v_BTHV.shape[-1])
    if mask_BT is not None and (mask_BT.dtype != torch.bool or mask_BT.shape != (batch, steps)):
        allowed = f"of dtype torch.bool and shape ({batch}, {steps})"
        received = f"{mask_BT.dtype} of shape {tuple(mask_BT.shape)}"
        raise ValueError(problem("mask", allowed, received, "True marks the steps that count."))


def check_state(state: Tensor, batch: int, heads: int, key_width: int, value_width: int) -> None:
    """Refuse a state of another shape or of whole numbers.

    Args:
        state: The state.
        batch: Streams; a state of one stream serves all.
        heads: Heads.
        key_width: Width of a key.
        value_width: Width of a value.

    Raises:
        ValueError: If the shape is another.
        TypeError: If it is not floating point.
    """
    inner = (heads, key_width, value_width)
    if state.dim() != 4 or state.shape[0] not in (1, batch) or state.shape[1:] != inner:
        allowed = f"of shape ({batch} or 1, {heads}, {key_width}, {value_width})"
        remedy = "A state belongs to one model; widths and heads must be its own."
        raise ValueError(problem("initial_state", allowed, tuple(state.shape), remedy))
    if not state.is_floating_point():
        raise TypeError(problem("initial_state", "of a floating point dtype", state.dtype, "Convert it first."))


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype of the computation: float64 as soon as one tensor is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def resolve_scale(scale: float | None, key_width: int) -> float:
    """Return the factor on the queries: K^-0.5 unless given."""
    return key_width**-0.5 if scale is None else scale


def first_state(state: Tensor | None, q_BTHK: Tensor, v_BTHV: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the state to start from, zeros where there is none. Shape (B, H, K, V)."""
    batch, _, heads, width = q_BTHK.shape
    if state is None:
        return torch.zeros(batch, heads, width, v_BTHV.shape[-1], dtype=dtype, device=q_BTHK.device)
    return state.to(device=q_BTHK.device, dtype=dtype).expand(batch, -1, -1, -1)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context in which products keep the dtype of their factors."""
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
