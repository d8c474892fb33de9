"""Inputs and an independent reference for Gated Linear Attention: a loop over every number, in float64."""

from __future__ import annotations

import torch
from torch.nn import functional as F

NAMES = ("outputs", "state", "dq", "dk", "dv", "dlog_decay", "dh0")


def inputs(T, *, B=2, H=2, K=16, V=24, normaliser=16.0, resets=None, seed=0):
    """q, k, v, log decays, first state, and gradients of the outputs and of the last state; float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, v = normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V)
    log_decay = F.logsigmoid(normal(B, T, H, K)) / normaliser
    if resets is not None:
        log_decay[torch.rand(log_decay.shape, generator=generator) < 0.05] = resets
        log_decay[:, T // 2 : T // 2 + (5 if T > 20 else 0)] = resets  # several in a row, in all channels
    return q, k, v, log_decay, normal(B, H, K, V), normal(B, T, H, V), normal(B, H, K, V)


def loop(q, k, v, log_decay, state, *, mask=None):
    """The recurrence by einsum, differentiable; nothing of the package."""
    outputs = []
    for t in range(q.shape[1]):
        written = torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        after = torch.einsum("bhk,bhkv->bhkv", log_decay[:, t].exp(), state) + written
        output = torch.einsum("bhk,bhkv->bhv", q[:, t], after) / q.shape[-1] ** 0.5
        if mask is not None:
            counts = mask[:, t, None, None]
            after, output = torch.where(counts[..., None], after, state), torch.where(counts, output, 0.0)
        state = after
        outputs.append(output)
    return (torch.stack(outputs, 1) if outputs else v.clone()), state


def everything(function, parts, dtype=torch.float64, device="cpu", state_dtype=None, **options):
    """Outputs, last state and all gradients, through both of these; decays and states stay in `state_dtype`."""
    state_dtype = state_dtype or dtype
    dtypes = (dtype, dtype, dtype, state_dtype, state_dtype, dtype, state_dtype)
    parts = [part.to(device, kind) for part, kind in zip(parts, dtypes, strict=True)]
    leaves = [part.clone().requires_grad_() for part in parts[:5]]
    output, state = function(*leaves, **options)
    gradients = torch.autograd.grad([output, state], leaves, [parts[5], parts[6]])
    return [output.detach(), state.detach(), *gradients]


def errors(found, wanted):
    """Largest error of each, relative to the largest value wanted."""
    return {
        name: float((ours.double().cpu() - theirs.double().cpu()).abs().max() / theirs.abs().max().clamp(min=1e-30))
        for name, ours, theirs in zip(NAMES, found, wanted, strict=True)
    }
