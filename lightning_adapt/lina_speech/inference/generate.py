"""Decoding of many streams at once: one step of the model per column of codes, and streams that have ended drop out."""

# dimension suffixes: B streams at the start, A those still running, Q codebooks, T columns, N frames, M text tokens

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt.lina_speech.inference.sampling import SamplingOptions, draw, stream_uniforms
from lightning_adapt.lina_speech.model.delay import BOA, CODE_OFFSET, EOA

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.model.attention import TextMemory
    from lightning_adapt.lina_speech.model.model import LinaModel
    from lightning_adapt.lina_speech.model.state import State

__all__ = ["CodeStreams", "GeneratedCodes", "generate_codes"]

_CHECK_EVERY = 8  # columns between two looks at a GPU for ended streams; each look waits for the GPU


@dataclass(frozen=True)
class GeneratedCodes:
    """What one stream said.

    Attributes:
        codes: Codes 0..codebook_size-1. Shape (Q, N), dtype int64, on the CPU, N >= 1.
        stopped: Whether it ended by itself; False where the limit cut it off.
        alignment: Attention of each frame over the text; M is 0 where it was not kept. Shape (N, M), dtype float32, on
            the CPU.
    """

    codes: Tensor
    stopped: bool
    alignment: Tensor


class CodeStreams:
    """Streams that are decoded together, in portions of any size.

    Codebook 0 decides where a stream ends, at its first EOA; the others follow i frames behind by the delay pattern,
    and no codebook can break that pattern. The first frame cannot be the end. A stream that has ended costs nothing
    more: the batch shrinks (on a GPU it is looked at every 8 columns, since each look waits for the GPU). What a step
    costs does not depend on how much was said before.

    Call it in eval mode and without gradients, best under `torch.inference_mode()`.

    Args:
        model: The model.
        memory: Encoded texts of the B streams.
        state: What the streams start from, of B streams.
        options: How codes are drawn.
        max_frames: Longest stream in frames, >= 1.
        keys: Key of each stream's random numbers, see `stream_key`. Length B.
        keep_alignment: Whether to keep the attention of each frame, the one thing that grows with frames times text.

    Raises:
        ValueError: If the numbers of streams differ, or the model gives no finite numbers.
    """

    def __init__(
        self,
        model: LinaModel,
        memory: TextMemory,
        state: State,
        *,
        options: SamplingOptions,
        max_frames: int,
        keys: Sequence[int],
        keep_alignment: bool = True,
    ) -> None:
        self.max_frames = check_integer("max_frames", max_frames, "Pass 1000.", minimum=1)
        if state.batch_size != len(keys):
            remedy = "Expand the state, or pass a key per stream."
            raise ValueError(problem("state", f"of {len(keys)} streams, as `keys`", state.batch_size, remedy))
        n_streams, n_codebooks = len(keys), model.config.n_codebooks
        self._model, self._memory, self._state, self._options = model, memory, state, options
        self._keep_alignment = keep_alignment
        self._drawn = options.drawn_codebooks(n_codebooks)
        device = state.gla[0].device
        columns = self.max_frames + n_codebooks + 1
        self._offsets = torch.arange(n_codebooks, device=device)
        self._ids = torch.full((n_streams, columns, n_codebooks), BOA, device=device)
        self._uniforms = stream_uniforms(keys, columns, n_codebooks).to(device) if self._drawn else None
        self._alignment: Tensor | None = None
        self._bias = torch.empty(0)
        self._column = 0  # the last one that is there
        self._rows = torch.arange(n_streams, device=device)  # of the streams that still run
        self._never = columns
        self._ends = torch.full((n_streams,), self._never, device=device)  # column of codebook 0's EOA
        self._cut = torch.zeros(n_streams, dtype=torch.bool, device=device)

    @property
    def column(self) -> int:
        """Columns decoded so far: a frame is complete Q - 1 columns after its first code."""
        return self._column

    @property
    def running(self) -> int:
        """How many streams have not ended."""
        return len(self._rows)

    def advance(self, n_columns: int) -> None:
        """Decode so many more columns, or fewer if all streams end before.

        Args:
            n_columns: At least 1.
        """
        look_every = _CHECK_EVERY if self._ids.is_cuda else 1
        for done in range(1, n_columns + 1):
            if not self.running:
                return
            self._step()
            if done % look_every == 0 or done == n_columns or self._column >= self._last_column():
                self._drop_ended()

    def _last_column(self) -> int:
        return self.max_frames + max(1, self._ids.shape[2] - 1)

    def _step(self) -> None:
        rows, everyone = self._rows, len(self._rows) == len(self._ids)
        inputs = self._ids[:, self._column] if everyone else self._ids[rows, self._column]
        made = self._model.step(inputs, self._memory, self._state, output_attention=self._keep_alignment)
        self._state = made.state
        if self._column == 0:
            self._begin(made.logits, made.attention)
        self._column += 1
        codes = self._choose(made.logits, None if everyone else rows)
        ids = self._delayed(codes, self._noted_ends(codes, rows, everyone))
        if everyone:
            self._ids[:, self._column] = ids
        else:
            self._ids[rows, self._column] = ids
        if self._alignment is not None and made.attention is not None and self._column <= self.max_frames:
            row = slice(None) if everyone else rows
            self._alignment[row, self._column - 1] = made.attention.float()

    def _noted_ends(self, codes: Tensor, rows: Tensor, everyone: bool) -> Tensor:
        """Note which streams end in this column, and return the ends of those that run."""
        ends = self._ends if everyone else self._ends[rows]
        if self._column > self.max_frames + 1:
            return ends
        now = codes[:, 0] == EOA  # again later, after the first one, where `minimum` keeps that
        if self._column == self.max_frames + 1:
            self._cut[rows] = (ends == self._never) & ~now
            now = torch.ones_like(now)
        ends = torch.where(now, ends.clamp(max=self._column), ends)
        if everyone:
            self._ends = ends
        else:
            self._ends[rows] = ends
        return ends

    def _delayed(self, codes: Tensor, ends: Tensor) -> Tensor:
        """Put BOA before the beginning and EOA after the end of each codebook."""
        n_codebooks = codes.shape[1]
        if n_codebooks > 1 or self._column > self.max_frames:  # a single codebook says its EOA itself
            behind = self._column - self._offsets  # of each codebook, the column of codebook 0 with the same frame
            codes = torch.where(behind >= ends.unsqueeze(1), EOA, codes)
        if self._column < n_codebooks:
            codes = torch.where(self._column <= self._offsets, BOA, codes)
        return codes

    def _begin(self, logits: Tensor, attention: Tensor | None) -> None:
        if not bool(logits.isfinite().all()):
            remedy = "It was trained to NaN: lower the learning rate, or clip gradients."
            raise ValueError(problem("model", "one that gives finite numbers", "NaN or infinity", remedy))
        if attention is not None:  # not filled: memory that no frame reaches is not used
            shape = (len(self._ids), self.max_frames, attention.shape[1])
            self._alignment = torch.empty(shape, device=attention.device, dtype=torch.float32)

    def _choose(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """Return an id per stream and codebook, of shape (A, Q): codes, and EOA in codebook 0 alone."""
        logits = logits.float() + self._allowed(logits)
        chosen = logits.argmax(-1)
        if self._uniforms is not None:
            numbers = self._uniforms[:, self._column - 1] if rows is None else self._uniforms[rows, self._column - 1]
            drawn = self._drawn
            chosen[:, :drawn] = draw(logits[:, :drawn], numbers[:, :drawn], self._options)
        return chosen

    def _allowed(self, logits: Tensor) -> Tensor:
        """Return what is added to the logits: -inf for what is no code, but for the end in codebook 0."""
        if self._column <= 2:  # in the first column no end may come
            self._bias = torch.zeros(logits.shape[1:], device=logits.device)
            self._bias[:, : EOA + 1] = -math.inf
            if self._column == 2:
                self._bias[0, EOA] = 0.0
        return self._bias

    def _drop_ended(self) -> None:
        ends = self._ends if len(self._rows) == len(self._ids) else self._ends[self._rows]
        running = ends + max(0, self._ids.shape[2] - 2) > self._column
        if not bool(running.all()):  # waits for a GPU
            kept = running.nonzero().squeeze(1)
            self._rows = self._rows[kept]
            if len(kept):
                self._memory, self._state = self._memory.select(kept), self._state.select(kept)

    def total_frames(self) -> int:
        """Return the frames of codebook 0 of all streams so far."""
        return int((self._ends - 1).clamp(max=self._column).sum())

    # -- what was said --------------------------------------------------------------------------------------------
    def n_frames(self, row: int) -> int:
        """Return how many frames of a stream have all their codes.

        Args:
            row: The stream, counted from 0.

        Returns:
            N.
        """
        return max(0, min(self._column - self._ids.shape[2] + 1, int(self._ends[row]) - 1))

    def codes(self, row: int, start: int = 0) -> Tensor:
        """Return the codes of the complete frames.

        Args:
            row: The stream, counted from 0.
            start: First frame wanted.

        Returns:
            Codes 0..codebook_size-1. Shape (Q, N - start), dtype int64, on the CPU.
        """
        end = max(self.n_frames(row), start)
        lines = [self._ids[row, start + 1 + i : end + 1 + i, i] for i in range(self._ids.shape[2])]
        return torch.stack(lines).cpu() - CODE_OFFSET

    def result(self, row: int) -> GeneratedCodes:
        """Return what a stream said so far.

        Args:
            row: The stream, counted from 0.

        Returns:
            Codes, whether it stopped by itself, and its alignment.
        """
        stopped = bool(self._ends[row] < self._never) and not bool(self._cut[row])
        n_frames = self.n_frames(row)
        aligned = torch.zeros(n_frames, 0) if self._alignment is None else self._alignment[row, :n_frames].cpu().clone()
        return GeneratedCodes(self.codes(row), stopped, aligned)


def generate_codes(
    model: LinaModel,
    memory: TextMemory,
    *,
    state: State,
    options: SamplingOptions,
    max_frames: int,
    keys: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> list[GeneratedCodes]:
    """Decode all streams to their ends.

    Args:
        model: The model, in eval mode.
        memory: Encoded texts of the B streams.
        state: What the streams start from, of B streams.
        options: How codes are drawn.
        max_frames: Longest stream in frames, >= 1.
        keys: Key of each stream's random numbers, see `stream_key`. Length B.
        progress: Is told the frames of all streams so far, now and then.

    Returns:
        What each stream said.

    Raises:
        ValueError: If the numbers of streams differ, or the model gives no finite numbers.
    """
    streams = CodeStreams(model, memory, state, options=options, max_frames=max_frames, keys=keys)
    while streams.running:
        streams.advance(2 * _CHECK_EVERY)
        if progress is not None:
            progress(streams.total_frames())
    return [streams.result(row) for row in range(len(keys))]
