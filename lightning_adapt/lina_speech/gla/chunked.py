"""Gated Linear Attention chunk by chunk, in torch operations alone: fast on a CPU, linear in the length.

Gated Linear Attention Transformers with Hardware-Efficient Training, Yang et al., 2023, arXiv 2312.06635. Shapes:
B batch, T steps, H heads, K key width, V value width.
"""
# ruff: noqa: N803, N806  (names end in their dimensions)

from __future__ import annotations

from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt.lina_speech.gla.inputs import check_inputs, compute_dtype, first_state, resolve_scale
from lightning_adapt.lina_speech.gla.intra import SMALLEST
from lightning_adapt.lina_speech.gla.passes import passes

__all__ = ["chunked_gla"]


def chunked_gla(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    initial_state: Tensor | None = None,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    output_final_state: bool = False,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor | None]:
    """Compute Gated Linear Attention chunk by chunk; the results are those of `recurrent_gla` up to rounding.

    Time and memory grow linearly with T. The backward pass gives gradients for all inputs and the initial state, also
    those that come through the final state; it has no gradient of its own. A decay below e^-17 (e^-40 in float64)
    counts as that, which is below the rounding of what it forgets; beyond the bounds the gradient is that at the bound.
    Gradients of log decays are differences of larger sums (as in the Triton kernels): exact to the rounding of these.

    Args:
        q_BTHK: Queries. Shape (B, T, H, K), any float dtype.
        k_BTHK: Keys. Shape (B, T, H, K), any float dtype.
        v_BTHV: Values. Shape (B, T, H, V), any float dtype.
        log_decay_BTHK: Logarithms of the decays, <= 0 (more counts as 0). Shape (B, T, H, K), best float32.
        initial_state: S_0, zeros when left out. Shape (B, H, K, V), or (1, H, K, V) for all streams.
        scale: Factor on the queries; K^-0.5 when left out.
        mask: True where a step counts; others leave the state as it is and give 0. Shape (B, T), dtype bool.
        output_final_state: Whether to return the last state.
        chunk_size: Steps of a chunk, a power of two, 8 at least. Changes the time, not the result.

    Returns:
        The outputs, shape (B, T, H, V), dtype of `v`; and S_T, shape (B, H, K, V), dtype float32 (float64 for float64
        inputs), or None.

    Raises:
        TypeError: If a tensor has a dtype that does not fit.
        ValueError: If the shapes do not fit each other, or `chunk_size` is no such number.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> chunked_gla(ones, ones, ones, ones.mul(0.5).log())[0].flatten().tolist()
        [1.0, 1.5, 1.75]
    """
    check_inputs(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, initial_state, mask)
    check_integer("chunk_size", chunk_size, "64 is a good choice.", minimum=1)
    if chunk_size < SMALLEST or chunk_size & (chunk_size - 1):
        raise ValueError(problem("chunk_size", f"a power of two >= {SMALLEST}", chunk_size, "64 is a good choice."))
    state = first_state(initial_state, q_BTHK, v_BTHV, compute_dtype(q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK))
    while chunk_size > SMALLEST and chunk_size // 2 >= q_BTHK.shape[1]:
        chunk_size //= 2  # a short sequence fills no chunk
    inputs = (q_BTHK, k_BTHK, v_BTHV, log_decay_BTHK, state)
    o_BTHV, last = passes(inputs, mask, resolve_scale(scale, q_BTHK.shape[-1]), chunk_size)
    return o_BTHV, last if output_final_state else None
