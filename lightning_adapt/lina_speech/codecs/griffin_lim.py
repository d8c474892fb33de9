"""Griffin-Lim in blocks: phases for magnitudes that come a few frames at a time, each block's audio final at once."""

# Dimension suffixes: W frames of a block and its look-ahead, F bins of the spectrum, L samples of a window.
# ruff: noqa: N803, N806 - tensor names carry their dimensions

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_adapt._shared.hashing import derive_key, uniform

__all__ = ["BLOCK_FRAMES", "LOOK_AHEAD_FRAMES", "BlockGriffinLim"]

BLOCK_FRAMES, LOOK_AHEAD_FRAMES = 4, 8
ITERATIONS = 16  # a frame takes part in three blocks, so it sees three times as many
MOMENTUM = 0.99
_TABLE_FRAMES = 64  # initial phases repeat after so many frames
_FAINTEST_COVER = 1e-8  # sum of squared windows below which no sample is covered


class BlockGriffinLim:
    """Griffin-Lim with momentum (Griffin and Lim 1984; Perraudin et al. 2013), frame by frame as RTISI-LA does it.

    Real-time iterative spectrogram inversion with look-ahead (Zhu, Beauregard and Wyse 2007): the phases of a block
    and of some frames after it are improved together, while what the frames before have added to their samples stays
    as it is. Then the block is final, and the frames after it start the next block from their phases so far. A frame
    that comes in starts from phases of a fixed table, so nothing is drawn.

    The result is a function of the blocks alone: the same magnitudes in the same blocks give the same samples.

    Args:
        n_fft: L, samples of a window (Hann).
        hop_length: Samples per frame, at most n_fft / 2.
        device: Where to compute.
    """

    def __init__(self, n_fft: int, hop_length: int, device: torch.device) -> None:
        self._n_fft, self._hop = n_fft, hop_length
        self._window = torch.hann_window(n_fft, device=device, dtype=torch.float32)
        self._table = _phase_table(n_fft // 2 + 1).to(device)
        self._phases = self._table[:0]  # of the frames after the last block
        self._frame = 0  # number of the first frame of the next block
        # what frames so far add to samples to come; float32 whatever torch's default is
        self._tail = torch.zeros(n_fft - hop_length, device=device, dtype=torch.float32)
        self._tail_cover = torch.zeros_like(self._tail)

    def block(self, magnitudes_WF: Tensor, n_final: int) -> Tensor:
        """Return the samples of the first frames given; they stay as they are.

        Args:
            magnitudes_WF: Magnitudes of the block and of the frames after it, shape (W, F), float32, above 0.
            n_final: Frames of the block, 1..W. All further frames must be given again in the next call.

        Returns:
            Shape (n_final * hop,), float32. They start (n_fft - hop) / 2 samples before the first frame of the block.
        """
        spectra = magnitudes_WF * self._start(len(magnitudes_WF))
        cover = self._cover(len(magnitudes_WF))
        before: Tensor | None = None
        for _ in range(ITERATIONS):
            found = self._analyse(self._overlap_add(spectra) / cover)
            moved = found if before is None else found + MOMENTUM * (found - before)
            before = found
            spectra = magnitudes_WF * torch.sgn(moved)
        self._phases = torch.sgn(spectra[n_final:])
        samples, covered = self._overlap_add(spectra[:n_final]), self._cover(n_final)
        end = n_final * self._hop
        self._tail, self._tail_cover = samples[end:], covered[end:]
        self._frame += n_final
        return samples[:end] / covered[:end]

    def tail(self) -> Tensor:
        """Return the samples after the last block, shape (n_fft - hop,), float32: the end of the audio."""
        return self._tail / self._tail_cover.clamp(min=_FAINTEST_COVER)

    def _start(self, n_frames: int) -> Tensor:
        known = self._phases[:n_frames]
        fresh = torch.arange(self._frame + len(known), self._frame + n_frames, device=known.device)
        return torch.cat([known, self._table[fresh % _TABLE_FRAMES]])

    def _overlap_add(self, spectra_WF: Tensor) -> Tensor:
        frames_WL = torch.fft.irfft(spectra_WF, n=self._n_fft) * self._window
        return self._added(frames_WL, self._tail)

    def _cover(self, n_frames: int) -> Tensor:
        squares = self._window.square().expand(n_frames, -1)
        return self._added(squares, self._tail_cover).clamp(min=_FAINTEST_COVER)

    def _added(self, frames_WL: Tensor, tail: Tensor) -> Tensor:
        n_samples = (len(frames_WL) - 1) * self._hop + self._n_fft
        size, kernel, stride = (1, n_samples), (1, self._n_fft), (1, self._hop)
        summed: Tensor = F.fold(frames_WL.t()[None], size, kernel, stride=stride)[0, 0, 0]
        return torch.cat([summed[: len(tail)] + tail, summed[len(tail) :]])

    def _analyse(self, samples: Tensor) -> Tensor:
        spectra_WF: Tensor = torch.fft.rfft(samples.unfold(0, self._n_fft, self._hop) * self._window)
        return spectra_WF


@lru_cache(maxsize=4)
def _phase_table(n_bins: int) -> Tensor:
    """Return phases that look random, as complex numbers of size 1. Shape (frames, bins)."""
    turns = uniform(torch.arange(_TABLE_FRAMES * n_bins), derive_key(0, n_bins)).float().reshape(_TABLE_FRAMES, n_bins)
    phases: Tensor = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
    return phases
