"""The forward and the backward pass of chunked Gated Linear Attention, segment by segment.

Inside a chunk: `intra`. Across chunks: what a chunk writes, K^T V, is one product for all chunks of a segment, the loop
over chunks only decays and adds, and all queries read their states in one product. The backward pass keeps the inputs,
the scores and one state per segment; it computes the rest again.

Shapes: B batch, T steps, H heads, K key width, V value width, G = B H, N chunks of a segment, C steps of a chunk,
M = N G.
"""
# ruff: noqa: N803, N806, N815  (names end in their dimensions)

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_adapt.lina_speech.gla.blocks import Segment, Workspace, segment_chunks, segments
from lightning_adapt.lina_speech.gla.inputs import LEAST_LOG_DECAY
from lightning_adapt.lina_speech.gla.intra import Intra, intra, scaled_bmm, sum_back


@dataclass
class Inputs:
    """The inputs of one call.

    Attributes:
        q_BTHK: Queries. Shape (B, T, H, K).
        k_BTHK: Keys. Shape (B, T, H, K).
        v_BTHV: Values. Shape (B, T, H, V).
        log_decay_BTHK: Logarithms of the decays. Shape (B, T, H, K).
        mask_BT: True where a step counts. Shape (B, T), dtype bool; or None.
        scale: Factor on the queries.
        chunk_size: Steps of a chunk, C.
        workspace: Gives the buffers, and says in which dtype to compute.
    """

    q_BTHK: Tensor
    k_BTHK: Tensor
    v_BTHV: Tensor
    log_decay_BTHK: Tensor
    mask_BT: Tensor | None
    scale: float
    chunk_size: int
    workspace: Workspace

    @property
    def chunks_each(self) -> int:
        """Chunks of a segment; the last may have fewer."""
        batch, _, heads, K = self.q_BTHK.shape
        return segment_chunks(self.chunk_size, batch * heads * max(K, self.v_BTHV.shape[-1]))

    def segments(self) -> list[Segment]:
        """Return the segments in order."""
        return segments(self.q_BTHK.shape[1], self.chunk_size, self.chunks_each)

    def load(self, segment: Segment, name: str, source_BTHD: Tensor) -> Tensor:
        """Return the segment of a tensor. Shape (M, C, D)."""
        return segment.load(self.workspace, name, source_BTHD, self.mask_BT).flatten(0, 1)


class Chunks:
    """One segment: its values, the inside of its chunks, and the states around these.

    Args:
        inputs: The inputs.
        segment: Which part of them.
    """

    def __init__(self, inputs: Inputs, segment: Segment) -> None:
        self.inputs, self.segment = inputs, segment
        q, k = inputs.load(segment, "q", inputs.q_BTHK), inputs.load(segment, "k", inputs.k_BTHK)
        self.v_MCV = inputs.load(segment, "v", inputs.v_BTHV)
        log_decay = inputs.load(segment, "log_decay", inputs.log_decay_BTHK)
        log_decay.clamp_(LEAST_LOG_DECAY[log_decay.dtype], 0)
        self.inside: Intra = intra(inputs.workspace, q, k, log_decay)
        self.links = self.inside.links(segment.chunks)

    def states(self, state_GKV: Tensor) -> Tensor:
        """Return the states that the chunks read, and the one behind the last chunk. Shape (N + 1, G, K, V)."""
        states = self.inputs.workspace.get("states", self.segment.chunks + 1, *state_GKV.shape)
        states[0].copy_(state_GKV)  # first, as it may be the last of the buffer, left by the segment before
        torch.bmm(self.inside.key_MCK.transpose(1, 2), self.v_MCV, out=states[1:].flatten(0, 1))
        if self.links.leave_NGK1 is not None:
            states[1:].mul_(self.links.leave_NGK1)
        if self.links.enter_GK1 is not None:
            states[0].mul_(self.links.enter_GK1)
        for before, after, carry in zip(states[:-1], states[1:], self.links.carry_NGK1, strict=True):
            after.addcmul_(before, carry)
        return states

    def d_states(self, d_output_MCV: Tensor, d_state_GKV: Tensor) -> Tensor:
        """Return the gradients of `states`. Shape (N + 1, G, K, V)."""
        N = self.segment.chunks
        d_states = self.inputs.workspace.get("d_states", N + 1, *d_state_GKV.shape)
        d_states[N].copy_(d_state_GKV)  # first, as it may be the first of the buffer, left by the segment behind
        scaled_bmm(self.inside.query_MCK.transpose(1, 2), d_output_MCV, self.inputs.scale, d_states[:N].flatten(0, 1))
        for n in reversed(range(N)):
            d_states[n].addcmul_(d_states[n + 1], self.links.carry_NGK1[n])
        return d_states

    def d_written(self, d_states_NGKV: Tensor) -> Tensor:
        """Return the gradients of what the chunks write, from those of the states after. Shape (M, K, V)."""
        if self.links.leave_NGK1 is None:
            return d_states_NGKV.flatten(0, 1)
        written = self.inputs.workspace.get("d_written", *d_states_NGKV.shape)
        return torch.mul(d_states_NGKV, self.links.leave_NGK1, out=written).flatten(0, 1)


class Kept(NamedTuple):
    """What the forward pass keeps for the backward pass, besides the inputs.

    Attributes:
        states_SGKV: The state before each of S segments. Shape (S, G, K, V).
        scores_ZCC: Scores inside all chunks of all heads. Shape (Z, C, C).
    """

    states_SGKV: Tensor
    scores_ZCC: Tensor

    def scores(self, segment: Segment) -> Tensor:
        """Return the scores of one segment. Shape (M, C, C)."""
        G = self.states_SGKV.shape[1]
        return self.scores_ZCC[segment.first_chunk * G : (segment.first_chunk + segment.chunks) * G]


def room(inputs: Inputs, state_GKV: Tensor, *, keep: bool) -> Kept:
    """Return memory for what is kept: that of nothing, unless `keep` is set.

    The sizes are computed, not counted: a compiled graph then serves every number of steps.
    """
    C = inputs.chunk_size
    chunks = -(-inputs.q_BTHK.shape[1] // C) if keep else 0
    count = -(-chunks // inputs.chunks_each)
    return Kept(state_GKV.new_empty(count, *state_GKV.shape), state_GKV.new_empty(chunks * state_GKV.shape[0], C, C))


def forward(inputs: Inputs, state_GKV: Tensor, output_BTHV: Tensor, kept: Kept) -> Tensor:
    """Write the outputs.

    Args:
        inputs: The inputs.
        state_GKV: The state to start from. Shape (G, K, V).
        output_BTHV: Where the outputs go. Shape (B, T, H, V).
        kept: Takes what the backward pass needs; empty when there is none.

    Returns:
        The state behind the last step. Shape (G, K, V).
    """
    workspace, C = inputs.workspace, inputs.chunk_size
    for number, segment in enumerate(inputs.segments()):
        chunks = Chunks(inputs, segment)
        M = segment.chunks * state_GKV.shape[0]
        scores = workspace.get("scores", M, C, C)
        if kept.states_SGKV.shape[0]:
            kept.states_SGKV[number].copy_(state_GKV)
            scores = kept.scores(segment)
        chunks.inside.scores(inputs.scale, scores)
        states = chunks.states(state_GKV)
        output = torch.bmm(scores, chunks.v_MCV, out=workspace.get("output", *chunks.v_MCV.shape))
        output.baddbmm_(chunks.inside.query_MCK, states[:-1].flatten(0, 1), alpha=inputs.scale)
        segment.store(output, output_BTHV)
        state_GKV = states[-1]
    return state_GKV.clone()


def backward(inputs: Inputs, kept: Kept, d_output_BTHV: Tensor, d_state_GKV: Tensor) -> tuple[Tensor, ...]:
    """Compute the gradients.

    Args:
        inputs: The inputs.
        kept: What the forward pass kept.
        d_output_BTHV: Gradient of the outputs. Shape (B, T, H, V).
        d_state_GKV: Gradient of the state behind the last step. Shape (G, K, V).

    Returns:
        Those of q, k, v and the log decays, in their shapes and dtypes, and that of the first state, shape (G, K, V).
    """
    workspace = inputs.workspace
    given = (inputs.q_BTHK, inputs.k_BTHK, inputs.v_BTHV, inputs.log_decay_BTHK)
    gradients = tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in given)
    for segment, state in reversed(list(zip(inputs.segments(), kept.states_SGKV, strict=True))):
        chunks, scores = Chunks(inputs, segment), kept.scores(segment)
        inside, v_MCV = chunks.inside, chunks.v_MCV
        d_output = inputs.load(segment, "d_output", d_output_BTHV)
        states, d_states = chunks.states(state), chunks.d_states(d_output, d_state_GKV)
        read, d_written = states[:-1].flatten(0, 1), chunks.d_written(d_states[1:])
        d_v = torch.bmm(scores.transpose(1, 2), d_output, out=workspace.get("d_v", *v_MCV.shape))
        d_v.baddbmm_(inside.key_MCK, d_written)
        shape = inside.query_MCK.shape
        d_query = scaled_bmm(d_output, read.transpose(1, 2), inputs.scale, workspace.get("d_query", *shape))
        d_key = torch.bmm(v_MCV, d_written.transpose(1, 2), out=workspace.get("d_key", *shape))
        d_scores = workspace.get("d_scores", *scores.shape)
        scaled_bmm(d_output, v_MCV.transpose(1, 2), inputs.scale, d_scores).tril_()
        d_log_decay = inside.pull(d_scores, d_query, d_key)
        # what a chunk hands on counts for each of its steps; with the last step it reaches all others in the sum
        d_log_decay[:, -1].add_(states[1:].mul_(d_states[1:]).sum(-1).flatten(0, 1))
        sum_back(d_log_decay)
        for buffer, target in zip((d_query, d_key, d_v, d_log_decay), gradients, strict=True):
            segment.store(buffer, target)
        enter = chunks.links.enter_GK1
        d_state_GKV = d_states[0] if enter is None else d_states[0].mul_(enter)
    if inputs.mask_BT is not None:
        gradients[3].masked_fill_(~inputs.mask_BT[:, :, None, None], 0)
    return (*gradients, d_state_GKV.clone())
