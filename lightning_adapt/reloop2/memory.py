"""ErrorMemory: recent feedback as a correction of a served model; a plain PyTorch module, no Lightning."""

# Over 300 lines: one public class, half of it documentation; what it is made of is in stores/ and settings.py.

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_choice, problem
from lightning_adapt.reloop2.functional import (
    Kind,
    MemoryReading,
    base_prediction,
    compensate,
    error_estimate,
    full_precision,
)
from lightning_adapt.reloop2.memory_file import FileMixin
from lightning_adapt.reloop2.settings import PAPER, Backend, MemorySettings, PaperData, Task, check_saved
from lightning_adapt.reloop2.stores.backends import build_store
from lightning_adapt.reloop2.stores.key_space import KeySpace

__all__ = ["ErrorMemory", "MemoryReading"]


class ErrorMemory(FileMixin):
    """Remember what a base model got wrong lately, and correct what it says about similar inputs.

    Zhu et al., KDD 2023, arXiv 2306.08808. The memory keeps (key, label, base prediction) of recent feedback; a key is
    a hidden layer of the base model. For a new input it reads what is stored near its key, estimates the error of the
    base prediction from it (Eq. 13) and adds a share of that (Eq. 9). Nothing is trained. Differs from the paper in:
    keys are whitened; gamma is 0 (the mean residual) instead of 1; the estimate is multiplied by n / (n + n0), n the
    support; old samples are evicted or decay. `ErrorMemory.paper()` undoes all of that.

    Works inside and outside of inference mode, on any device, whatever autocast says. What is written must be read with
    the keys of the same base weights: `reset()` when they change.

    Args:
        dim: Features of a key, d. None: whatever comes first.
        backend: "knn": the newest `capacity` samples, searched exactly; "sketch": 2^L * K * 12 bytes and a constant
            cost, however much is written; "faiss": as knn, searched approximately (extra `recsys`).
        k: Neighbours to read (knn, faiss).
        tau: Temperature of their softmax weights (knn, faiss); the paper's tau.
        gamma: 0 adds the neighbours' mean residual, 1 pulls to their mean label; in [0, 1].
        lam: Share of the estimated error that is added, in [0, 1]; the paper's lambda. 0 changes nothing.
        capacity: Samples kept, first in first out (knn, faiss).
        n_bits: Bits of a hash, L (sketch).
        n_tables: Arrays, K (sketch).
        half_life: Samples after which one counts half, >= 1 (sketch); None: no decay.
        support_n0: Support at which half of the estimate is trusted, >= 0.
        whiten: Whiten the keys, by statistics from `calibrate` or, without it, from the first keys written.
        max_dim: Components that whitening keeps at most.
        task: "binary": labels and predictions in [0, 1]; "regression": any numbers.
        eps: Distance to 0 and 1 that a corrected probability keeps.
        seed: Seed of the hash. Sketches with different seeds cannot be merged.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        ModuleNotFoundError: If the backend is "faiss" and faiss-cpu is not installed.

    Example:
        >>> memory = ErrorMemory(4, whiten=False, support_n0=0.0)
        >>> keys = torch.eye(4)
        >>> memory.write(keys[:1], torch.tensor([1.0]), torch.tensor([0.5]))
        >>> memory.compensate(torch.tensor([0.5]), keys[:1])
        tensor([0.7000])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        backend: Backend = "knn",
        k: int = 100,
        tau: float = 0.1,
        gamma: float = 0.0,
        lam: float = 0.4,
        capacity: int = 100_000,
        n_bits: int = 12,
        n_tables: int = 64,
        half_life: float | None = 50_000,
        support_n0: float = 1.0,
        whiten: bool = True,
        max_dim: int = 64,
        task: Task = "binary",
        eps: float = 1e-6,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = MemorySettings(
            backend,
            k,
            tau,
            gamma,
            lam,
            capacity,
            n_bits,
            n_tables,
            half_life,
            support_n0,
            whiten,
            max_dim,
            task,
            eps,
            seed,
        )
        self.key_space = KeySpace(dim, whiten=self.settings.whiten, max_dim=self.settings.max_dim)
        self.store = build_store(self.settings)
        self.register_load_state_dict_pre_hook(check_saved)  # type: ignore[no-untyped-call]

    @classmethod
    def paper(cls, dim: int | None = None, *, tuned_on: PaperData = "microvideo", **overrides: Any) -> ErrorMemory:
        """Build a memory with the paper's settings: a sketch of 2^16 buckets, gamma 1, no whitening, decay or gate.

        Args:
            dim: Features of a key.
            tuned_on: Optimum of section 4.4: "microvideo": K = k = 70, lambda 0.4 (55 MB); "amazon": 180, 0.9 (142 MB).
            overrides: Any other argument of the constructor.
        """
        check_choice("tuned_on", tuned_on, tuple(PAPER), "Use 'microvideo'.")
        return cls(dim, **{**PAPER[tuned_on], **overrides})

    # -- what it is ---------------------------------------------------------------------------------------------------
    @property
    def dim(self) -> int | None:
        """Features of a key; None as long as it is not known."""
        return self.key_space.dim

    @property
    def n_written(self) -> int:
        """Samples written since the last reset, those evicted since then included."""
        return self.store.n_written

    @property
    def is_calibrated(self) -> bool:
        """Whether the whitening statistics are there, or none are needed."""
        return self.key_space.is_calibrated

    @property
    def nbytes(self) -> int:
        """Bytes that the stored samples take; `fixed_nbytes` comes on top."""
        return self.store.nbytes

    @property
    def fixed_nbytes(self) -> int:
        """Bytes of the whitening statistics and of the sketch's projections, which no sample changes."""
        return self.store.fixed_nbytes + self.key_space.nbytes

    @property
    def device(self) -> torch.device:
        """Where the memory lives; keys may come from elsewhere."""
        return self.store.device

    # -- reading ------------------------------------------------------------------------------------------------------
    def read(self, keys: Tensor) -> MemoryReading:
        """Return what is stored near some keys.

        Args:
            keys: Representations. Shape (B, d), floating point, finite, no row longer than 1e12.

        Returns:
            Mean label, mean base prediction and support. Shape (B,), float32, on the device of `keys`.

        Raises:
            ValueError: If their shape is wrong, a number is not finite or a row too long (TypeError: if they are no
                such tensor).
        """
        checked = self.key_space.checked(keys)
        if not self.n_written or not len(keys):
            return MemoryReading(*checked.new_zeros(3, len(keys)))
        with full_precision(self.device):
            reading = self.store.read(self.key_space(checked.to(self.device)))
        return MemoryReading(*(values.to(keys.device) for values in reading))

    def estimate(self, keys: Tensor, base: Tensor) -> Tensor:
        """Estimate the error of base predictions, Eq. 13, times the support gate n / (n + n0).

        Args:
            keys: Representations. Shape (B, d), floating point.
            base: Base predictions: probabilities (binary) or values (regression). Shape (B,).

        Returns:
            Estimated label minus prediction; 0 without support. Shape (B,), float32.

        Raises:
            ValueError: If `base` has another length or is out of range; and as `read`.
        """
        return self._estimate(self.read(keys), base)

    def _estimate(self, reading: MemoryReading, base: Tensor) -> Tensor:
        predicted = self.settings.checked_values("base", base, len(reading.base)).to(reading.base.device)
        error = error_estimate(reading.label, reading.base, predicted, self.settings.gamma)
        gate = reading.support / (reading.support + self.settings.support_n0)
        return torch.where(reading.support > 0, error * gate, 0.0)

    def signals(self, keys: Tensor, base: Tensor, *, units: bool = False) -> Tensor:
        """Return what `correct` needs for some predictions: `estimate` as a column of shape (B, 1), float32.

        With `units` and a memory that is not empty, the encoded keys follow, to spare `write` the encoding; they hold
        until a `reset`. Shape (B, 1 + m) then.
        """
        if not units or not self.n_written or not len(keys):
            return self.estimate(keys, base).unsqueeze(1)
        with full_precision(self.device):
            encoded = self.key_space(self.key_space.checked(keys).to(self.device))
            estimate = self._estimate(self.store.read(encoded), base)
        return torch.cat((estimate.unsqueeze(1), encoded), 1).to(keys.device)

    def correct(self, output: Tensor, signals: Tensor, kind: Kind | None = None) -> Tensor:
        """Apply signals made earlier to the output they were made for, Eq. 9.

        Args:
            output: Output of the base model. Shape (B,) or (B, 1), floating point.
            signals: What `signals` returned. Shape (B, 1).
            kind: "probability", "logit" or "regression". None: "probability", or "regression" if that is the task.

        Returns:
            Corrected output; shape, dtype and device as `output`, bit-identical to it where nothing is to be added.

        Raises:
            ValueError: If the kind does not go with the task, or the shapes do not belong together.
        """
        return compensate(output, signals[:, 0], self.settings.lam, self.settings.checked_kind(kind), self.settings.eps)

    def compensate(self, output: Tensor, keys: Tensor, kind: Kind | None = None) -> Tensor:
        """Correct an output by what is stored near its keys, of shape (B, d); the rest is as in `correct`."""
        return self.correct(output, self.signals(keys, base_prediction(output, self.settings.checked_kind(kind))), kind)

    # -- writing ------------------------------------------------------------------------------------------------------
    def calibrate(self, keys: Tensor) -> None:
        """Add rows to the whitening statistics; best of the training data, as often as you like before the first write.

        Args:
            keys: Representations. Shape (B, d), floating point, finite. Without whitening only d is taken from them;
                after a `reset`, statistics begin anew.

        Raises:
            ValueError: If something is stored already; and as `read`.
        """
        if self.n_written:
            remedy = "Calibrate before the first write, or call reset() first: stored keys cannot be whitened anew."
            raise ValueError(problem("keys", "given to calibrate() while nothing is stored", self.n_written, remedy))
        self.key_space.calibrate(self.key_space.checked(keys).to(self.device))

    def write(self, keys: Tensor, labels: Tensor, base: Tensor, signals: Tensor | None = None) -> None:
        """Store feedback, in the order in which it was served.

        Args:
            keys: Representations at serving time. Shape (B, d), floating point, finite.
            labels: Labels: in [0, 1] (binary) or any (regression). Shape (B,).
            base: What the base model had predicted, *uncorrected*: probabilities (binary) or values. Shape (B,).
            signals: What `signals` returned then; only used where it holds the encoded keys.

        Raises:
            ValueError: If shapes do not belong together, or a number is out of range or not finite (TypeError: if one
                is no tensor of numbers). Then nothing is stored.
        """
        known = self.n_written and signals is not None and signals.shape[1] > 1
        checked = None if known else self.key_space.checked(keys).to(self.device)
        values = [
            self.settings.checked_values(name, part, len(keys)) for name, part in (("labels", labels), ("base", base))
        ]
        if not len(keys):
            return
        with full_precision(self.device):
            if checked is None:
                encoded = signals[:, 1:].to(self.device)  # type: ignore[index]
            else:
                self.key_space.fix(checked)
                encoded = self.key_space(checked)
            self.store.write(encoded, *(part.to(self.device) for part in values))

    def reset(self) -> None:
        """Forget all samples, because the base weights have changed; whitening statistics stay until `calibrate`."""
        self.store.reset()
        self.key_space.seal()

    def empty_copy(self) -> ErrorMemory:
        """Return a memory without samples that `merge_` takes back: same settings, same whitening, same device."""
        copy = type(self)(**self.config()).to(self.device)
        copy.key_space.load_state_dict(self.key_space.state_dict())
        return copy

    def merge_(self, other: ErrorMemory) -> ErrorMemory:
        """Take in what another memory holds: a shard, or the delta of a rank.

        Args:
            other: A memory with equal settings and whitening (see `empty_copy`); is left as it is. To knn and faiss its
                samples are newer than their own; sketches add up.

        Returns:
            This memory.

        Raises:
            ValueError: If settings, key size or whitening differ (TypeError: if the other is no such memory).
        """
        if type(other) is not type(self):
            raise TypeError(problem("other", f"another {type(self).__name__}", other, "Merge memories of one kind."))
        self.settings.check_same(other.settings.stored(), "The other memory")
        if other.n_written:
            with full_precision(self.device):
                self.key_space.adopt(other.key_space)
                self.store.merge_(other.store)
        return self

    # -- state --------------------------------------------------------------------------------------------------------
    def config(self) -> dict[str, Any]:
        """Return the arguments that build an equal, empty memory."""
        return {"dim": self.dim, **asdict(self.settings)}

    def get_extra_state(self) -> dict[str, Any]:
        """Return the part of the state that is not in buffers."""
        return self.settings.saved()

    def set_extra_state(self, state: Any) -> None:
        """Take the state: `check_saved` has found it good."""
