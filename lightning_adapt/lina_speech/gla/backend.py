"""One function for Gated Linear Attention, which picks the way to compute it.

Shapes: B batch, T steps, H heads, K key width, V value width.
"""
# ruff: noqa: N803  (names end in their dimensions)

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from lightning_adapt._shared.checks import check_choice
from lightning_adapt._shared.tensor_checks import check_tensor
from lightning_adapt.lina_speech.gla.chunked import chunked_gla
from lightning_adapt.lina_speech.gla.fla import fla_gla, why_not_fla
from lightning_adapt.lina_speech.gla.recurrent import recurrent_gla

__all__ = ["BACKENDS", "Backend", "check_backend", "gla"]

Backend = Literal["auto", "chunked", "recurrent", "fla"]
BACKENDS: tuple[str, ...] = get_args(Backend)
_WAYS: dict[str, Callable[..., tuple[Tensor, Tensor | None]]] = {
    "chunked": chunked_gla,
    "recurrent": recurrent_gla,
    "fla": fla_gla,
}


def check_backend(backend: str) -> str:
    """Check the name of a way to compute.

    Args:
        backend: What the user passed.

    Returns:
        The name.

    Raises:
        ValueError: If there is no such way.
    """
    return check_choice("backend", backend, BACKENDS, "'auto' takes the fastest that runs where the tensors are.")


def gla(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHK: Tensor,
    initial_state: Tensor | None = None,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    output_final_state: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Compute Gated Linear Attention: S_t = diag(a_t) S_{t-1} + k_t v_t^T and o_t = scale S_t^T q_t.

    Yang et al., 2023, arXiv 2312.06635. All ways agree up to rounding; see `recurrent_gla` for the definition.

    Args:
        q_BTHK: Queries. Shape (B, T, H, K), any float dtype.
        k_BTHK: Keys. Shape (B, T, H, K), any float dtype.
        v_BTHV: Values. Shape (B, T, H, V), any float dtype.
        log_decay_BTHK: Logarithms of the decays, log a_t <= 0. Shape (B, T, H, K), best float32.
        initial_state: S_0, zeros when left out. Shape (B, H, K, V), or (1, H, K, V) for all streams.
        scale: Factor on the queries; K^-0.5 when left out.
        mask: True where a step counts; others leave the state as it is and give 0. Shape (B, T), dtype bool.
        output_final_state: Whether to return the last state.
        backend: "chunked" (torch only), "recurrent" (the slow definition), "fla" (Triton kernels of fla-core, CUDA), or
            "auto": "fla" on a CUDA device where it can be imported and the heads have 16 channels, else "chunked".

    Returns:
        The outputs, shape (B, T, H, V), dtype of `v`; and S_T, shape (B, H, K, V), dtype float32 (float64 for float64
        inputs), or None.

    Raises:
        TypeError: If a tensor has a dtype that does not fit.
        ValueError: If the shapes do not fit each other, or the backend is unknown or cannot run here.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> gla(ones, ones, ones, ones.mul(0.5).log())[0].flatten().tolist()
        [1.0, 1.5, 1.75]
    """
    way = check_backend(backend)
    check_tensor("q", q_BTHK)
    if way == "auto":
        way = "fla" if q_BTHK.is_cuda and why_not_fla(q_BTHK, v_BTHV) is None else "chunked"
    return _WAYS[way](
        q_BTHK,
        k_BTHK,
        v_BTHV,
        log_decay_BTHK,
        initial_state,
        scale=scale,
        mask=mask,
        output_final_state=output_final_state,
    )
