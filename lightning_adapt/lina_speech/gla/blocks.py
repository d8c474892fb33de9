"""Moves a segment of a sequence into buffers, chunk first and head before time, and its results back.

Shapes: B batch, T steps, H heads, D width, N chunks of a segment, C steps of a chunk.
"""
# ruff: noqa: N803  (names end in their dimensions)

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

SEGMENT_STEPS = 128  # at least: one state is kept per segment, and calls cost time
SEGMENT_ELEMENTS = 2**17  # of a buffer where the steps allow it: all buffers stay in the cache, and memory is reused


class Workspace:
    """Buffers by name, taken once and used by one segment after another.

    Args:
        dtype: Dtype of all of them.
        device: Where they are.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self._buffers: dict[str, Tensor] = {}

    def get(self, name: str, *shape: int) -> Tensor:
        """Return the buffer of that name in a shape; what it holds is left from before."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name] = torch.empty(size, dtype=self.dtype, device=self.device)
        return buffer[:size].view(shape)


@dataclass(frozen=True)
class Segment:
    """A run of chunks.

    Attributes:
        start: Its first step.
        steps: Steps that the sequence has of it; the last chunk may be longer than that.
        chunks: Chunks, N.
        first_chunk: How many chunks come before it.
        width: Steps of a chunk, C.
    """

    start: int
    steps: int
    chunks: int
    first_chunk: int
    width: int

    def load(self, workspace: Workspace, name: str, source_BTHD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Return the segment of a tensor; 0 behind its end and where the mask is False. Shape (N, B H, C, D)."""
        batch, _, heads, width = source_BTHD.shape
        buffer = workspace.get(name, self.chunks, batch, heads, self.width, width)
        if self.steps < self.chunks * self.width:
            buffer[-1].zero_()
        for inside, outside in self._views(buffer, source_BTHD):
            inside.copy_(outside)
        if mask_BT is not None:
            for inside, outside in self._views(buffer, mask_BT[:, :, None, None]):
                inside.masked_fill_(~outside, 0)
        return buffer.view(self.chunks, batch * heads, self.width, width)

    def store(self, buffer: Tensor, target_BTHD: Tensor) -> None:
        """Write the segment of a tensor."""
        batch, _, heads, width = target_BTHD.shape
        for inside, outside in self._views(buffer.view(self.chunks, batch, heads, self.width, width), target_BTHD):
            outside.copy_(inside)

    def _views(self, buffer: Tensor, outer_BTHD: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield where the same steps are in the buffer and in the tensor: the full chunks, then what is left."""
        full, rest = divmod(self.steps, self.width)
        if full:
            batch, _, heads, width = outer_BTHD.shape
            steps = outer_BTHD[:, self.start : self.start + full * self.width]
            chunks = steps.view(batch, full, self.width, heads, width)
            yield buffer[:full], chunks.permute(1, 0, 3, 2, 4)
        if rest:
            end = self.start + self.steps
            yield buffer[full, :, :, :rest], outer_BTHD[:, end - rest : end].transpose(1, 2)


def segment_chunks(chunk_size: int, elements_a_step: int) -> int:
    """Return how many chunks a segment has.

    Args:
        chunk_size: Steps of a chunk.
        elements_a_step: Elements that the widest buffer holds of one step.
    """
    return max(1, max(SEGMENT_STEPS, SEGMENT_ELEMENTS // max(1, elements_a_step)) // chunk_size)


def segments(steps: int, chunk_size: int, chunks_each: int) -> list[Segment]:
    """Cut a sequence into segments of whole chunks.

    Args:
        steps: Steps of the sequence, T.
        chunk_size: Steps of a chunk.
        chunks_each: Chunks of a segment; the last may have fewer.

    Returns:
        The segments in order; none for an empty sequence.
    """
    total = -(-steps // chunk_size)
    return [
        Segment(
            first * chunk_size,
            min(steps - first * chunk_size, chunks_each * chunk_size),
            min(chunks_each, total - first),
            first,
            chunk_size,
        )
        for first in range(0, total, chunks_each)
    ]
