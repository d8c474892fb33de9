"""Key whitening: without it, cosine and SimHash see little of a last layer but its one dominant direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.reloop2.functional import full_precision
from lightning_adapt.reloop2.stores.store import fit_buffers

__all__ = ["Whitening"]

STATE_VERSION = 1
_WIDE = 256  # features
_FLAT = 1e-5  # share of the largest variance below which a direction is noise, or the rounding of bfloat16 features


class Whitening(nn.Module):
    """Turn keys into unit vectors whose components are uncorrelated and of equal variance. Ours, not the paper's.

    z = (h - mean) V diag(v + mean(v) / n)^(-1/2), then z / |z|: PCA to the `max_dim` directions V of the largest
    variances v that are not flat. The ridge counts as one more row with the mean variance in every direction; it keeps
    statistics of few rows from blowing up directions that they happen not to show, and is gone with many.

    The statistics grow with each `update` until `seal`, which frees what only further updates need (4 d^2 bytes). An
    update costs O(B d^2), the projection O(d^3) once: about a second for d = 1,000.

    Args:
        max_dim: Components kept at most.

    Attributes:
        n_rows: Rows that the statistics rest on.
        sealed: Whether further updates start anew.
    """

    mean: Tensor
    scatter: Tensor
    projection: Tensor

    def __init__(self, max_dim: int = 64) -> None:
        super().__init__()
        self.max_dim, self.n_rows, self.sealed = max_dim, 0, False
        self.register_buffer("mean", torch.empty(0, dtype=torch.float32))
        self.register_buffer("scatter", torch.empty(0, 0, dtype=torch.float32))
        self.register_buffer("projection", torch.empty(0, 0, dtype=torch.float32))  # empty until it is needed
        self.register_load_state_dict_pre_hook(fit_buffers)  # type: ignore[no-untyped-call]

    def update(self, keys: Tensor) -> None:
        """Add rows to the statistics; after `seal`, begin new ones.

        Args:
            keys: Representations. Shape (B, d), float32.
        """
        if not len(keys):
            return
        dim = keys.shape[1]
        rows = keys if keys.is_cuda else keys.cpu()  # other accelerators have no float64
        with torch.inference_mode(False), full_precision(rows.device):  # see fit_buffers
            # a processor takes ten times as long for the product of wide keys in float64
            rows = rows.double() if rows.is_cuda or dim <= _WIDE else rows
            if self.sealed or not self.n_rows:
                self.n_rows, self.sealed = 0, False
                self.mean, self.scatter = self.mean.new_zeros(dim), self.mean.new_zeros(dim, dim)
            total, new_mean = self.n_rows + len(rows), rows.mean(0)
            apart = new_mean - self.mean.to(new_mean)
            centred = rows - new_mean
            added = centred.T @ centred + torch.outer(apart, apart) * (self.n_rows * len(rows) / total)
            self.scatter = self.scatter + added.to(self.scatter)
            self.mean = self.mean + (apart * (len(rows) / total)).to(self.mean)
            self.projection = self.projection.new_empty(0, 0)
        self.n_rows = total

    def seal(self) -> None:
        """Fix the statistics, because keys made with them are stored."""
        if self.sealed:
            return
        self.prepare()
        self.sealed = True
        with torch.inference_mode(False):
            self.scatter = self.scatter.new_empty(0, 0)

    def prepare(self) -> None:
        """Compute the projection if it is not known, which `forward` does otherwise."""
        if self.projection.numel():
            return
        with torch.inference_mode(False), torch.no_grad():
            variances, directions = torch.linalg.eigh(self.scatter.cpu().double() / self.n_rows)
            variances, directions = variances.flip(0), directions.flip(1)
            if variances[0] <= 0:  # all rows are alike: nothing to whiten by
                self.mean = torch.zeros_like(self.mean)
                self.projection = torch.eye(len(self.mean)).to(self.mean)
                return
            # of fewer rows than features, most directions are flat because nothing has been seen of them
            shown = len(variances) if self.n_rows <= len(variances) else int((variances > _FLAT * variances[0]).sum())
            kept = min(self.max_dim, shown)
            variances = variances.clamp(min=0) + variances.mean() / self.n_rows
            # contiguous, as it comes back from a file: products of another layout are rounded in another order
            self.projection = (directions[:, :kept] / variances[:kept].sqrt()).to(self.mean).contiguous()

    def forward(self, keys: Tensor) -> Tensor:
        """Whiten keys.

        Args:
            keys: Representations. Shape (B, d), float32.

        Returns:
            Unit vectors (0 for a key at the mean). Shape (B, m), float32, m <= max_dim.
        """
        self.prepare()
        with full_precision(keys.device):
            # the mean is taken off after the product: no second tensor of the size of the keys
            return normalize(keys @ self.projection - self.mean @ self.projection)

    def same_as(self, other: Any) -> bool:
        """Say whether another whitening makes the same of every key."""
        self.prepare()
        other.prepare()
        pairs = ((self.mean, other.mean), (self.projection, other.projection))
        return all(mine.shape == its.shape and bool((mine == its.to(mine)).all()) for mine, its in pairs)

    @property
    def nbytes(self) -> int:
        """Bytes of the statistics."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    def get_extra_state(self) -> dict[str, Any]:
        """Return the part of the state that is not in buffers."""
        return with_version({"n_rows": self.n_rows, "sealed": self.sealed}, STATE_VERSION)

    def set_extra_state(self, state: Any) -> None:
        """Restore what `get_extra_state` returned; torch calls it when the buffers are loaded."""
        read_version(state, STATE_VERSION, "Whitening")
        self.n_rows, self.sealed = int(state["n_rows"]), bool(state["sealed"])
        dim, projection = len(self.mean), self.projection
        fits = self.scatter.shape in ((0, 0), (dim, dim)) and projection.ndim == 2 and len(projection) in (0, dim)
        if self.mean.ndim != 1 or not fits:
            shapes = [tuple(value.shape) for value in (self.mean, self.scatter, projection)]
            raise ValueError(f"The saved state of Whitening is damaged: mean, scatter and projection have {shapes}.")
