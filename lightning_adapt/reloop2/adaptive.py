"""AdaptiveErrorMemory: many small memories of one model's errors, weighed against each other by past feedback alone."""

# Over 300 lines: one public class, half of it documentation; what it is made of is in experts/.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt.reloop2.experts.combiner import Combiner
from lightning_adapt.reloop2.experts.layout import Layout, layout_of
from lightning_adapt.reloop2.experts.settings import AdaptiveSettings, parts_of_saved, saved_parts
from lightning_adapt.reloop2.experts.signals import SignalBank
from lightning_adapt.reloop2.functional import Kind, full_precision
from lightning_adapt.reloop2.memory_file import FileMixin
from lightning_adapt.reloop2.stores.inputs import check_values, moved

__all__ = ["AdaptiveErrorMemory"]


class AdaptiveErrorMemory(FileMixin):
    """Compensates a base model by whatever turned out to help, with no choice left to the user.

    Signals are the effects of each id field and of crosses of two fields (`ResidualEffects`), an intercept, and an
    `ErrorMemory` for each key space. An online blend of them (AdaGrad on the loss), each of them alone and the base
    model itself are experts of a mixture that follows the best of them; by how much it falls behind is measured and
    bounded (`regret`, `regret_bound`). Weights move
    on feedback only, so nothing is learnt from a label before it was written. Not in the paper.

    `keys` is a dict: int64 tensors of shape (B,) are id fields, floating point tensors of shape (B, d) are key spaces.
    Its names are fixed by the first call.

    Args:
        experts: "auto" for all fields, all key spaces, an intercept and as many crosses as there are slots; or names:
            of fields ("user"), key spaces ("embeddings"), crosses ("user*genre") and "intercept".
        half_life: Rows of feedback after which old evidence counts half.
        prior_variance: Variance of an effect before any feedback, in squared units of the logit; for regression
            relative to the residual variance.
        n_buckets: Rows of each effect table, a power of two. Ids below it have a row of their own, as long as no larger
            ones come, which share all rows.
        max_crosses: Slots for crosses. With more pairs than slots, a test on residuals chooses (`CrossSearch`).
        key_backend: Backend of the key spaces' memories, "sketch" (constant cost) or "knn" (exact).
        task: "binary" or "regression".
        eps: Probabilities stay in [eps, 1 - eps].
        seed: Seed of the sketches.

    Raises:
        ValueError, TypeError: If an argument is out of its range; names it.

    Example:
        >>> memory = AdaptiveErrorMemory()
        >>> keys = {"user": torch.tensor([0, 1, 0]), "item": torch.tensor([5, 5, 7])}
        >>> base = torch.tensor([0.5, 0.5, 0.5])
        >>> torch.equal(memory.compensate(base, keys), base)  # nothing is known yet
        True
        >>> memory.write(keys, torch.tensor([1.0, 0.0, 1.0]), base)
        >>> served = memory.compensate(base, keys)
        >>> bool(served[0] > served[1])
        True
    """

    def __init__(
        self,
        experts: Literal["auto"] | Sequence[str] = "auto",
        *,
        half_life: float = 10_000,
        prior_variance: float = 0.1,
        n_buckets: int = 65_536,
        max_crosses: int = 36,
        key_backend: Literal["sketch", "knn"] = "sketch",
        task: Literal["binary", "regression"] = "binary",
        eps: float = 1e-6,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = AdaptiveSettings(
            experts=experts,  # type: ignore[arg-type]
            half_life=half_life,
            prior_variance=prior_variance,
            n_buckets=n_buckets,
            max_crosses=max_crosses,
            key_backend=key_backend,
            task=task,
            eps=eps,
            seed=seed,
        )
        self.bank: SignalBank | None = None
        self.register_load_state_dict_pre_hook(_build_for)  # type: ignore[no-untyped-call]
        self.rows_written: Tensor
        self.residuals: Tensor
        with torch.inference_mode(False):
            self.register_buffer("rows_written", torch.zeros((), dtype=torch.int64))
            self.register_buffer("residuals", torch.zeros(2, dtype=torch.float64))  # sum of squares, rows

    # -- serving ------------------------------------------------------------------------------------------------------
    def signals(self, keys: Mapping[str, Tensor], base: Tensor) -> Tensor:
        """Return what the memory says of some rows now; to be kept with them until their labels come.

        Args:
            keys: Id fields and key spaces of the rows.
            base: Base model's probability, or value in regression. Shape (B,).

        Returns:
            Shape (B, m), float32: what is known of the rows, and last the prediction to serve.
        """
        keys, asked, base = self._here(keys), base, self._here(base)
        bank = self._bank(keys)
        base = check_values("base", base, bank.layout.n_rows(keys), binary=self.settings.task == "binary")
        with full_precision(base.device):
            known = bank.read(keys)
            served = self.combiner.serve(bank.features(known, self._start(base)), bank.errors(known), base)
            return torch.cat([known, served.float()[:, None]], 1).to(asked.device)

    def correct(self, output: Tensor, signals: Tensor, kind: Kind = "probability") -> Tensor:
        """Return the compensated output.

        Args:
            output: What the base model gave. B elements, any shape.
            signals: Of the same rows, from `signals`.
            kind: "probability", "logit" or "regression".

        Returns:
            Shape and dtype of `output`; `output` itself, bit by bit, before any feedback.
        """
        if not self.n_written:
            return output
        served = signals[:, -1].reshape(output.shape)
        if kind == "logit":
            served = torch.logit(served)
        elif kind == "probability":  # what is below 1 in float32 may not be in half precision
            served = served.clamp(max=1 - max(self.settings.eps, torch.finfo(output.dtype).eps / 2))
        return served.to(output)

    def compensate(self, output: Tensor, keys: Mapping[str, Tensor], kind: Kind = "probability") -> Tensor:
        """Return the compensated output of some rows: `signals` and `correct` in one, with their arguments."""
        base = output.detach().reshape(-1).float()
        base = torch.sigmoid(base) if kind == "logit" else base
        return self.correct(output, self.signals(keys, base), kind)

    # -- feedback -----------------------------------------------------------------------------------------------------
    def write(self, keys: Mapping[str, Tensor], labels: Tensor, base: Tensor, signals: Tensor | None = None) -> None:
        """Learn from labels that have arrived.

        Args:
            keys: Id fields and key spaces of the rows.
            labels: 0 or 1 (soft labels between them work), or values. Shape (B,).
            base: What the base model gave when these rows were served, uncompensated. Shape (B,).
            signals: What `signals` returned then; None: taken now.
        """
        keys, labels, base, signals = map(self._here, (keys, labels, base, signals))
        bank = self._bank(keys)
        labels, base = (
            check_values(name, values, bank.layout.n_rows(keys), binary=self.settings.task == "binary")
            for name, values in (("labels", labels), ("base", base))
        )
        if signals is None:
            signals = self.signals(keys, base)
        with full_precision(labels.device):
            self.residuals += torch.stack(
                [(labels - base).double().square().sum(), self.residuals.new_tensor(len(labels))]
            )
            known, noise = bank.valid(signals[:, :-1]), self._noise
            features, weights = bank.features(known, self._start(base)), self.combiner.blend.weights.clone()
            slope, curvature = self.combiner.learn(features, bank.errors(known), base, labels, signals[:, -1], noise)
            bank.learn(keys, labels, base, features, weights)
            self.combiner.restart(bank.look_for_crosses(keys, slope, curvature, weights))
            self.rows_written += len(labels)

    def calibrate(self, keys: Mapping[str, Tensor]) -> None:
        """Show the key spaces' memories rows to whiten by, before the first feedback.

        Args:
            keys: Id fields and key spaces of rows.
        """
        keys = self._here(keys)
        bank = self._bank(keys)
        for name, memory in zip(bank.layout.keys, bank.memories, strict=True):
            memory.calibrate(keys[name])  # type: ignore[operator]

    # -- parts --------------------------------------------------------------------------------------------------------
    def _here(self, given: Any) -> Any:
        return moved(given, self.rows_written.device)

    def _bank(self, keys: Mapping[str, Tensor]) -> SignalBank:
        if self.bank is None:
            self.build(layout_of(keys, self.settings.experts))
        if self.bank is None:  # cannot be: for the type checker
            raise RuntimeError("The memory was not built.")
        self.bank.layout.check(keys)
        return self.bank

    def build(self, layout: Layout) -> None:
        """Make the parts that a layout needs; the first call of `signals`, `write` or `calibrate` does it.

        Args:
            layout: Names of the fields, crosses and key spaces.
        """
        settings = self.settings
        names = ("half_life", "task", "eps", "seed")
        with torch.inference_mode(False):
            bank = SignalBank(
                layout,
                max_crosses=settings.max_crosses,
                prior_variance=settings.prior_variance,
                half_life=settings.half_life,
                n_buckets=settings.n_buckets,
                memory={"backend": settings.key_backend, **{name: getattr(settings, name) for name in names}},
                regression=settings.task == "regression",
            )
            self.combiner = Combiner(
                bank.n_effects, len(layout.keys), regression=settings.task == "regression", eps=settings.eps
            )
            self.bank = bank
            self.to(self.rows_written.device)

    def _start(self, base: Tensor) -> Tensor:
        return base if self.settings.task == "regression" else torch.logit(base, self.settings.eps)

    @property
    def _noise(self) -> float:
        """Variance of the base model's residuals so far; 1 before any."""
        total, count = self.residuals.tolist()
        return max(total / count, 1e-12) if count else 1.0

    # -- what came of it ----------------------------------------------------------------------------------------------
    def blend_weights(self) -> dict[str, float]:
        """Return how much the blend uses each signal, largest first; empty before the first call."""
        if self.bank is None:
            return {}
        weights = zip(self.bank.names, self.combiner.blend.weights[2:].tolist(), strict=True)
        return dict(sorted(((name, weight) for name, weight in weights if name), key=lambda pair: -pair[1]))

    def regret(self) -> float:
        """Return the loss of all served rows minus that of the best single expert, summed over the feedback (nats)."""
        return 0.0 if self.bank is None else self.combiner.mixture.regret()

    def regret_bound(self) -> float:
        """Return a bound that `regret` never exceeds, certified by what was added up on the way (nats)."""
        return 0.0 if self.bank is None else self.combiner.mixture.regret_bound()

    @property
    def n_written(self) -> int:
        """Rows of feedback so far."""
        return int(self.rows_written)

    @property
    def is_calibrated(self) -> bool:
        """Whether all key spaces have statistics to whiten by; without, they take those of the first feedback."""
        return self.bank is not None and all(bool(memory.is_calibrated) for memory in self.bank.memories)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(value.numel() * value.element_size() for value in self.buffers())

    def reset(self) -> None:
        """Forget all feedback; what the key spaces are whitened by stays."""
        if self.bank is not None:
            self.bank.reset()
            self.combiner.reset()
        self.rows_written.zero_()
        self.residuals.zero_()

    def merge_(self, other: AdaptiveErrorMemory) -> None:
        """Take in what another shard learnt from other rows.

        Args:
            other: A memory with the same settings, fields and key spaces; stays as it is.

        Raises:
            ValueError: If settings, names or chosen crosses differ.
        """
        if other.bank is None:
            return
        if self.bank is None:  # nothing of its own to merge: crosses that a search chose come along
            self.load_state_dict(other.state_dict())
            return
        mine, theirs = ({**memory.config(), "signals": memory.names()} for memory in (self, other))
        if mine != theirs:
            remedy = "Merge memories with equal settings, fields and crosses (a fixed list in `experts` ensures it)."
            raise ValueError(problem("other", f"a memory with {mine}", theirs, remedy))
        self.bank.merge_(other.bank)
        self.combiner.merge_(other.combiner)
        self.rows_written += other.rows_written.to(self.rows_written)
        self.residuals += other.residuals.to(self.residuals)

    # -- state --------------------------------------------------------------------------------------------------------
    def config(self) -> dict[str, Any]:
        """Return the arguments that build an equal, empty memory, as plain values."""
        return self.settings.plain()

    def empty_copy(self) -> AdaptiveErrorMemory:
        """Return a memory without feedback: same settings, same parts, same whitening, same device."""
        copy = type(self)(**self.config()).to(self.rows_written.device)
        if self.bank is not None:
            copy.load_state_dict(self.state_dict())
            copy.reset()
        return copy

    def names(self) -> list[str]:
        """Return the names of the signals; "" for a cross slot that is empty."""
        return [] if self.bank is None else self.bank.names

    def get_extra_state(self) -> dict[str, Any]:
        """Return what the buffers do not say: version, settings and the names of the parts."""
        return saved_parts(self.settings, None if self.bank is None else self.bank.layout)

    def set_extra_state(self, state: Any) -> None:
        """Take what `get_extra_state` returned: `_build_for` has done so, before the buffers were read."""


def _build_for(module: AdaptiveErrorMemory, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Make the parts that a saved state has, before it is loaded: their number depends on what the memory saw."""
    layout = parts_of_saved(state.get(f"{prefix}_extra_state"), module.settings)
    if layout is None:
        module.bank = None
        if hasattr(module, "combiner"):
            del module.combiner
    elif module.bank is None or module.bank.layout != layout:
        module.build(layout)
