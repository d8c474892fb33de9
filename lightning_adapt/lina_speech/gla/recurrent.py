"""Gated Linear Attention step by step: the specification that the other ways must meet, and the step of decoding.

Gated Linear Attention Transformers with Hardware-Efficient Training, Yang et al., 2023, arXiv 2312.06635. Shapes:
B batch, T steps, H heads, K key width, V value width.
"""
# ruff: noqa: N803, N806  (names end in their dimensions)

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adapt.lina_speech.gla.inputs import (
    check_inputs,
    compute_dtype,
    first_state,
    resolve_scale,
    without_autocast,
)

__all__ = ["gla_step", "recurrent_gla"]


def recurrent_gla(
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
    """Compute Gated Linear Attention by its definition, one step after another.

    S_t = diag(a_t) S_{t-1} + k_t v_t^T and o_t = scale S_t^T q_t, with a_t = exp(log_decay_t). Slow and heavy on memory
    when gradients are asked for (it keeps every S_t): use `chunked_gla` to train.

    Args:
        q_BTHK: Queries. Shape (B, T, H, K), any float dtype.
        k_BTHK: Keys. Shape (B, T, H, K), any float dtype.
        v_BTHV: Values. Shape (B, T, H, V), any float dtype.
        log_decay_BTHK: Logarithms of the decays, <= 0, -inf forgets all. Shape (B, T, H, K), best float32.
        initial_state: S_0, zeros when left out. Shape (B, H, K, V), or (1, H, K, V) for all streams.
        scale: Factor on the queries; K^-0.5 when left out.
        mask: True where a step counts; others leave the state as it is and give 0. Shape (B, T), dtype bool.
        output_final_state: Whether to return the last state.

    Returns:
        The outputs, shape (B, T, H, V), dtype of `v`; and S_T, shape (B, H, K, V), dtype float32 (float64 for float64
        inputs), or None.

    Raises:
        TypeError: If a tensor has a dtype that does not fit.
        ValueError: If the shapes do not fit each other.

    Example:
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> recurrent_gla(ones, ones, ones, ones.mul(0.5).log())[0].flatten().tolist()
        [1.0, 1.5, 1.75]
    """
    check_inputs(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, initial_state, mask)
    dtype = compute_dtype(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK)
    state_BHKV, outputs = first_state(initial_state, q_BTHK, v_BTHV, dtype), []
    q, k, v = (tensor.to(dtype) for tensor in (q_BTHK, k_BTHK, v_BTHV))
    q, decay = q * resolve_scale(scale, q.shape[-1]), log_decay_BTHK.to(dtype).clamp(max=0).exp()
    if mask is not None:
        pad = ~mask[:, :, None, None]
        q, k, v, decay = q.masked_fill(pad, 0), k.masked_fill(pad, 0), v.masked_fill(pad, 0), decay.masked_fill(pad, 1)
    for t in range(q.shape[1]):
        state_BHKV = decay[:, t, :, :, None] * state_BHKV + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, :, None] * state_BHKV).sum(-2))
    o_BTHV = torch.stack(outputs, 1) if outputs else v * 1.0
    return o_BTHV.to(v_BTHV.dtype), state_BHKV.contiguous() if output_final_state else None


def gla_step(
    q_BHK: Tensor,
    k_BHK: Tensor,
    v_BHV: Tensor,
    log_decay_BHK: Tensor,
    state_BHKV: Tensor,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute one step: what decoding calls once per token and layer. Its cost does not depend on what came before.

    Args:
        q_BHK: Query. Shape (B, H, K), any float dtype.
        k_BHK: Key. Shape (B, H, K), any float dtype.
        v_BHV: Value. Shape (B, H, V), any float dtype.
        log_decay_BHK: Logarithm of the decay, <= 0. Shape (B, H, K).
        state_BHKV: The state before; it is not changed. Shape (B, H, K, V), any float dtype.
        scale: Factor on the query; K^-0.5 when left out.

    Returns:
        The output, shape (B, H, V), dtype of `v`; and the state after, shape (B, H, K, V), dtype float32 (float64
        for a float64 state).

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> gla_step(one, one, one, 0.5 * one.log(), torch.ones(1, 1, 1, 1))[0].item()
        2.0
    """
    factor = resolve_scale(scale, q_BHK.shape[-1])
    if torch.is_autocast_enabled(q_BHK.device.type):
        with without_autocast(q_BHK.device.type):
            return _step(q_BHK, k_BHK, v_BHV, log_decay_BHK, state_BHKV, factor)
    return _step(q_BHK, k_BHK, v_BHV, log_decay_BHK, state_BHKV, factor)


def _step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, log_decay_BHK: Tensor, state_BHKV: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Compute one step; at this size every call counts, also conversions to the same."""
    if state_BHKV.dtype not in (torch.float32, torch.float64):  # a voice may be kept in half precision, not grown in it
        state_BHKV = state_BHKV.float()
    dtype, output_dtype = state_BHKV.dtype, v_BHV.dtype
    if not q_BHK.dtype == k_BHK.dtype == output_dtype == log_decay_BHK.dtype == dtype:
        q_BHK, k_BHK, v_BHV, log_decay_BHK = (part.to(dtype) for part in (q_BHK, k_BHK, v_BHV, log_decay_BHK))
    after_BHKV = state_BHKV * log_decay_BHK.exp().unsqueeze(-1)
    after_BHKV.addcmul_(k_BHK.unsqueeze(-1), v_BHV.unsqueeze(-2))
    o_G1V = torch.bmm((q_BHK * scale).flatten(0, 1).unsqueeze(1), after_BHKV.flatten(0, 1))
    o_BHV = o_G1V.view(v_BHV.shape)
    return (o_BHV if output_dtype == dtype else o_BHV.to(output_dtype)), after_BHKV
