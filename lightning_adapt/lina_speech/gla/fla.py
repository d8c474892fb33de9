"""Gated Linear Attention by the Triton kernels of fla-core, on CUDA devices only.

Shapes: B batch, T steps, H heads, K key width, V value width.
"""
# ruff: noqa: N803, N806  (names end in their dimensions)

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import EXTRAS
from lightning_adapt.lina_speech.gla.inputs import LEAST_LOG_DECAY, check_inputs, first_state, resolve_scale

__all__ = ["fla_gla", "why_not_fla"]

_FAILURES: list[str] = []  # of importing the kernels: a failing import takes seconds, so it is tried once
NARROWEST = 16  # what their products sum over, at the least
SHORT = 64  # up to so many steps one kernel that goes step by step beats the chunks, as in fla's own layer


def why_not_fla(q_BTHK: Tensor, v_BTHV: Tensor) -> str | None:
    """Say why the kernels cannot take these tensors; None when they can.

    Args:
        q_BTHK: Queries.
        v_BTHV: Values.

    Returns:
        The reason, to follow "because", or None. Looks for the package only when the tensors are on a CUDA device.
    """
    if q_BTHK.device.type != "cuda":
        return f"the tensors are on {q_BTHK.device.type!r}, and the kernels run on CUDA devices only"
    if q_BTHK.dtype == torch.float64:
        return "the kernels do not compute in float64"
    if min(q_BTHK.shape[-1], v_BTHV.shape[-1]) < NARROWEST:
        return f"the kernels want keys and values of {NARROWEST} channels per head at least"
    if not EXTRAS["speech"]["fla-core"]:
        return 'fla-core is not installed; run: pip install "lightning-adapt[speech]"'
    if not _FAILURES:
        try:
            _kernels()
        except Exception as error:  # a triton that does not fit fails in many ways
            _FAILURES.append(f"importing fla-core failed: {error}")
            warnings.warn(f"{_FAILURES[0]}. Gated Linear Attention runs in slower torch operations.", stacklevel=2)
    return _FAILURES[0] if _FAILURES else None


def _kernels() -> tuple[Any, Any]:
    """Return the kernel that goes chunk by chunk, and that which goes step by step; imports them only now."""
    operations = import_module("fla.ops.gla")
    return operations.chunk_gla, operations.fused_recurrent_gla


def fla_gla(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    initial_state: Tensor | None = None,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute Gated Linear Attention by fla-core's kernels; arguments and results are those of `recurrent_gla`.

    Products are taken in the dtype of `q` (the kernels' rule), states and decays in float32.

    Args:
        q_BTHK: Queries. Shape (B, T, H, K), any float dtype but float64, on a CUDA device.
        k_BTHK: Keys. Shape (B, T, H, K).
        v_BTHV: Values. Shape (B, T, H, V).
        log_decay_BTHK: Logarithms of the decays, <= 0. Shape (B, T, H, K); float32 is best.
        initial_state: S_0, zeros when left out. Shape (B, H, K, V), or (1, H, K, V) for all streams.
        scale: Factor on the queries; K^-0.5 when left out.
        mask: True where a step counts; others leave the state as it is and give 0. Shape (B, T), dtype bool.
        output_final_state: Whether to return the last state.

    Returns:
        The outputs, shape (B, T, H, V), dtype of `v`; and S_T, shape (B, H, K, V), dtype float32, or None.

    Raises:
        TypeError: If a tensor has a dtype that does not fit.
        ValueError: If the shapes do not fit each other, or the kernels cannot be used here; the text says why.
    """
    check_inputs(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, initial_state, mask)
    reason = why_not_fla(q_BTHK, v_BTHV)
    if reason is not None:
        raise ValueError(problem("backend", "one that can run here", "fla", f"It cannot, because {reason}."))
    state = first_state(initial_state, q_BTHK, v_BTHV, torch.float32).contiguous()
    if q_BTHK.shape[0] == 0 or q_BTHK.shape[1] == 0:
        return v_BTHV * 1.0, state if output_final_state else None
    q, k, v = q_BTHK, k_BTHK.to(q_BTHK.dtype), v_BTHV.to(q_BTHK.dtype)
    # the kernels take differences of sums: -inf in one of them would be NaN
    log_decay = log_decay_BTHK.float().clamp(LEAST_LOG_DECAY[torch.float32], 0)
    if mask is not None:
        pad = ~mask[:, :, None, None]
        q, k, v, log_decay = (tensor.masked_fill(pad, 0) for tensor in (q, k, v, log_decay))
    chunks, steps = _kernels()
    options = {"scale": resolve_scale(scale, q.shape[-1]), "initial_state": state, "output_final_state": True}
    if q.shape[1] <= SHORT:
        o_BTHV, last = steps(q, k, v, gk=log_decay, **options)
    else:
        o_BTHV, last = chunks(q, k, v, g=log_decay, **options)
    return o_BTHV.to(v_BTHV.dtype), last if output_final_state else None
