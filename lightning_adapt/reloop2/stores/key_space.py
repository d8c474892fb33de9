"""From a hidden layer to the unit vectors that a memory stores: how many features, and whether they are whitened."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.reloop2.stores.inputs import check_keys
from lightning_adapt.reloop2.stores.whitening import Whitening

__all__ = ["KeySpace"]

STATE_VERSION = 1


class KeySpace(nn.Module):
    """Check keys and turn them into unit vectors.

    Args:
        dim: Features of a key, d. None: those of the first keys that are kept.
        whiten: Whiten keys before they are scaled to length 1.
        max_dim: Components that whitening keeps at most.
    """

    def __init__(self, dim: int | None, *, whiten: bool, max_dim: int) -> None:
        super().__init__()
        self.dim = None if dim is None else check_integer("dim", dim, "Pass the features of a key.", minimum=1)
        self.whitening = Whitening(max_dim) if whiten else None

    @property
    def is_calibrated(self) -> bool:
        """Whether the whitening statistics are there, or none are needed."""
        return self.whitening is None or self.whitening.n_rows > 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whitening statistics."""
        return 0 if self.whitening is None else self.whitening.nbytes

    def checked(self, keys: Any) -> Tensor:
        """Return keys as float32 after checking them; see `check_keys`."""
        return check_keys(keys, self.dim)

    def calibrate(self, keys: Tensor) -> None:
        """Add checked keys to the whitening statistics. Shape (B, d)."""
        self.dim = keys.shape[1]
        if self.whitening is not None:
            self.whitening.update(keys)

    def fix(self, keys: Tensor) -> None:
        """Make encodings final, because some are about to be stored; without statistics those of these keys are used.

        Args:
            keys: The checked keys that are to be stored. Shape (B, d), B >= 1.
        """
        if not self.is_calibrated:
            if len(keys) < keys.shape[1]:
                warnings.warn(
                    f"Keys of {keys.shape[1]} features are whitened by the statistics of the first {len(keys)} rows "
                    "written. Call calibrate(keys) with keys of the training data first.",
                    stacklevel=3,
                )
            self.calibrate(keys)
        self.dim = keys.shape[1]
        if self.whitening is not None:
            self.whitening.seal()

    def seal(self) -> None:
        """Keep the statistics as they are, until `calibrate` begins new ones."""
        if self.whitening is not None and self.is_calibrated:
            self.whitening.seal()

    def forward(self, keys: Tensor) -> Tensor:
        """Encode checked keys.

        Args:
            keys: Representations. Shape (B, d), float32.

        Returns:
            Unit vectors. Shape (B, m), float32; m is d, or at most `max_dim` with whitening.
        """
        return normalize(keys) if self.whitening is None else self.whitening(keys)

    def adopt(self, other: Any) -> None:
        """Make sure that keys encoded by another key space may be stored here; if none are yet, encode as it does.

        Args:
            other: A key space with equal settings, with final encodings.

        Raises:
            ValueError: If it encodes keys in another way.
        """
        if self.dim not in (None, other.dim):
            raise ValueError(problem("other", f"a memory of {self.dim} features", other.dim, "Use one key layer."))
        if self.whitening is not None:
            if not self.is_calibrated:
                self.whitening.load_state_dict(other.whitening.state_dict())
            if not self.whitening.same_as(other.whitening):
                remedy = "Calibrate one memory, and make the others with its empty_copy()."
                raise ValueError(problem("other", "whitened by the same statistics", "others", remedy))
            self.whitening.seal()
        self.dim = other.dim

    def get_extra_state(self) -> dict[str, Any]:
        """Return the part of the state that is not in buffers."""
        return with_version({"dim": self.dim}, STATE_VERSION)

    def set_extra_state(self, state: Any) -> None:
        """Restore what `get_extra_state` returned."""
        read_version(state, STATE_VERSION, "KeySpace")
        dim = state.get("dim")
        self.dim = None if dim is None else check_integer("dim", dim, "The saved state is damaged.", minimum=1)
