"""The passes of chunked Gated Linear Attention as autograd sees them: a function, and operators for compiled graphs.

Eager code takes the autograd function. A compiled graph takes the operators, which the compiler leaves as they are: it
would gain nothing inside (products dominate), and need a C++ compiler for it. Both call the same two functions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_adapt.lina_speech.gla import engine
from lightning_adapt.lina_speech.gla.blocks import Workspace
from lightning_adapt.lina_speech.gla.inputs import without_autocast


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor,
    mask: Tensor | None,
    scale: float,
    chunk_size: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return outputs and last state, and what the backward pass needs beside the inputs."""
    inputs = engine.Inputs(q, k, v, log_decay, mask, scale, chunk_size, Workspace(state.dtype, q.device))
    first = state.flatten(0, 1)
    output, kept = torch.empty_like(v, memory_format=torch.contiguous_format), engine.room(inputs, first, keep=keep)
    with without_autocast(q.device.type):
        last = engine.forward(inputs, first, output, kept)
    return output, last.view(state.shape), *kept


def _backward(
    d_output: Tensor,
    d_state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    mask: Tensor | None,
    states: Tensor,
    scores: Tensor,
    scale: float,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, the log decays and the first state."""
    inputs = engine.Inputs(q, k, v, log_decay, mask, scale, chunk_size, Workspace(states.dtype, q.device))
    with without_autocast(q.device.type):
        *gradients, d_first = engine.backward(inputs, engine.Kept(states, scores), d_output, d_state.flatten(0, 1))
    d_q, d_k, d_v, d_log_decay = gradients
    return d_q, d_k, d_v, d_log_decay, d_first.view(d_state.shape)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        output, last, *kept = _forward(*arguments)
        ctx.save_for_backward(*arguments[:4], arguments[5], *kept)
        ctx.options = arguments[6:8]
        return output, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor, d_state: Tensor) -> tuple[Any, ...]:
        return (*_backward(d_output, d_state, *ctx.saved_tensors, *ctx.options), None, None, None, None)


_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor log_decay"
_forward_operator: Any = torch.library.custom_op(
    "lightning_adapt::chunked_gla",
    _forward,
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor state, Tensor? mask, float scale, int chunk_size, bool keep)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
_backward_operator: Any = torch.library.custom_op(
    "lightning_adapt::chunked_gla_backward",
    _backward,
    mutates_args=(),
    schema=f"(Tensor d_output, Tensor d_state, {_INPUTS}, Tensor? mask, Tensor states, Tensor scores, float scale,"
    " int chunk_size) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _forward_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, k, v, log_decay, state, mask, scale, chunk_size, keep = arguments
    inputs = engine.Inputs(q, k, v, log_decay, mask, scale, chunk_size, Workspace(state.dtype, q.device))
    kept = engine.room(inputs, state.flatten(0, 1), keep=keep)
    output = torch.empty_like(v, memory_format=torch.contiguous_format)
    return output, torch.empty_like(state, memory_format=torch.contiguous_format), *kept


def _backward_shapes(*arguments: Any) -> tuple[Tensor, ...]:
    tensors = (*arguments[2:6], arguments[1])
    return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:4], inputs[5], *output[2:])
    ctx.options = inputs[6:8]


def _pull(ctx: Any, d_output: Tensor, d_state: Tensor, *_: Any) -> tuple[Any, ...]:
    return (*_backward_operator(d_output, d_state, *ctx.saved_tensors, *ctx.options), None, None, None, None)


_forward_operator.register_fake(_forward_shapes)
_backward_operator.register_fake(_backward_shapes)
_forward_operator.register_autograd(_pull, setup_context=_save)


def passes(inputs: tuple[Tensor, ...], mask: Tensor | None, scale: float, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Compute outputs and last state, with gradients.

    Args:
        inputs: q, k, v, the log decays and the first state; the last says in which dtype to compute.
        mask: True where a step counts, or None.
        scale: Factor on the queries.
        chunk_size: Steps of a chunk.

    Returns:
        The outputs and the last state.
    """
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if torch.compiler.is_compiling():
        output, last = _forward_operator(*inputs, mask, scale, chunk_size, keep)[:2]
    else:
        output, last = _Eager.apply(*inputs, mask, scale, chunk_size, keep)  # type: ignore[no-untyped-call]
    return output, last
