"""RS2Sampler: each round draws a fresh random share of the data; plain PyTorch, no Lightning."""

# Over 300 lines: one public class, half of it documentation; the arithmetic is in functional.py and guide.py.

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_choice, check_fraction, check_integer, problem
from lightning_adapt._shared.hashing import derive_key, generator
from lightning_adapt._shared.per_row import check_targets, check_weights, digest
from lightning_adapt._shared.sampling import EpochSampler
from lightning_adapt._shared.state import reading_state
from lightning_adapt.rs2.combinations import check_combination, check_guide_is_used
from lightning_adapt.rs2.functional import (
    PERMUTATION_VERSION,
    RANDPERM_LIMIT,
    Method,
    bootstrap_rows,
    expected_coverage,
    permute,
    round_size,
    stratified_order,
    weighted_order,
)
from lightning_adapt.rs2.guide import GUIDE_DEFAULTS, GuideOptions, LossGuide
from lightning_adapt.rs2.population import Population

__all__ = ["Boundary", "Mode", "RS2Sampler"]

Mode = Literal["without", "independent", "bootstrap", "loss"]
Boundary = Literal["stream", "partition"]

PLAIN_MODES: tuple[str, ...] = ("without", "independent", "bootstrap")
MODES = (*PLAIN_MODES, "loss")


class RS2Sampler(EpochSampler):
    """Draw a fresh random share of the data each round (Repeated Sampling of Random Subsets).

    Okanovic et al., ICLR 2024, arXiv 2305.18424. A round takes the place of an epoch: the same number of rounds as
    epochs before costs `ratio` of the time, and a learning-rate schedule written per epoch still ends at its end.
    Mode "without" reads an endless stream of reshuffled passes over the data in blocks of K: position p lies in pass
    c = p div N at place p mod N, and round t owns the positions [tK, (t+1)K). After T rounds every row was seen
    floor(TK/N) or ceil(TK/N) times. Differs from the authors' code in: the block that crosses the end of a pass takes
    its rest from the next pass (theirs repeats the head of the old one), and nothing is dropped.

    Use it with any DataLoader; call `set_epoch(round)` before each round, as for `DistributedSampler` (Lightning does).

    Args:
        data_source: A data set, its number of rows, or a lightning_adapt sampler to sample from.
        ratio: Share of the data per round, in (0, 1]; the paper's r.
        mode: "without" replacement over rounds (the paper's headline); "independent": a fresh subset each round, no
            row twice inside it (the paper's variant with replacement); "bootstrap": with replacement everywhere;
            "loss" (ours): plain rounds first, then each row as often as its last training loss says, see `record`.
        targets: Class of each row of the data set, shape (N,): every round then holds the classes in proportion (ours).
        weights: Sampling weight of each row of the data set, shape (N,), >= 0; only with mode "independent".
        boundary: "stream" as above; "partition": each pass is cut into 1/ratio blocks, so that a round never holds a
            row twice. Needs 1/ratio to be a whole number. Blocks differ by one row, or, with `round_to` or several
            ranks, are rounded down, leaving out a few (different) rows per pass.
        round_to: Round K down to a multiple of this many samples per rank, usually the batch size.
        permutation: "randperm", "feistel" (O(1) memory) or "auto": the latter above 2^24 rows.
        warm_rounds: Mode "loss": plain rounds first; a share of `total_rounds` in (0, 1), or a whole number >= 1.
        power: Mode "loss": exponent of the loss.
        loss_cap: Mode "loss": quantile at which losses are cut, so that wrong labels weigh no more than hard rows.
        uniform_mix: Mode "loss": share of the visits that are spread evenly, in [0, 1].
        total_rounds: Mode "loss": rounds of the whole run, needed where `warm_rounds` is a share.
        num_replicas: Number of ranks W. None: from the process group, at use.
        rank: This rank. None: from the process group, at use.
        seed: Seed shared by all ranks.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or two exclude each other. That K holds no whole global batch is
            found when the number of ranks is known, at the first `len` or iteration.

    Example:
        >>> sampler = RS2Sampler(1000, ratio=0.1, seed=7)
        >>> seen = set()
        >>> for round_index in range(10):
        ...     sampler.set_epoch(round_index)
        ...     seen.update(sampler)
        >>> len(sampler), len(seen)
        (100, 1000)
    """

    def __init__(
        self,
        data_source: int | Sized | EpochSampler,
        ratio: float = 0.1,
        *,
        mode: Mode = "without",
        targets: Sequence[int] | Tensor | None = None,
        weights: Sequence[float] | Tensor | None = None,
        boundary: Boundary = "stream",
        round_to: int | None = None,
        permutation: Method = "auto",
        warm_rounds: float = 0.25,
        power: float = 1.0,
        loss_cap: float = 0.75,
        uniform_mix: float = 0.0,
        total_rounds: int | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(data_source, RS2Sampler):
            remedy = "Multiply the two ratios and use one RS2Sampler over the data set."
            raise ValueError(problem("data_source", "anything but an RS2Sampler", data_source, remedy))
        super().__init__(data_source, num_replicas=num_replicas, rank=rank, seed=seed)
        self.ratio = check_fraction("ratio", ratio, "Pass 0.1 to train on a tenth of the data per round.")
        self.mode = check_choice("mode", mode, MODES, "Use 'without' unless you need another.")
        self.boundary = check_choice("boundary", boundary, ("stream", "partition"), "Use 'stream'.")
        self.permutation = check_choice(
            "permutation", permutation, ("auto", "randperm", "feistel"), "Leave it at 'auto'."
        )
        self.round_to = (
            None if round_to is None else check_integer("round_to", round_to, "Pass the batch size.", minimum=1)
        )
        self.targets = None if targets is None else check_targets(targets, *self._rows_described())
        self.weights = None if weights is None else check_weights(weights, *self._rows_described())
        check_combination(self)
        guide: GuideOptions = {"warm_rounds": warm_rounds, "total_rounds": total_rounds, "power": power}
        guide |= {"loss_cap": loss_cap, "uniform_mix": uniform_mix}
        check_guide_is_used(self.mode, {**guide}, GUIDE_DEFAULTS)
        self.guide = LossGuide(**guide) if mode == "loss" else None
        self._cache: dict[tuple[Any, ...], Tensor] = {}
        if self._num_replicas is not None:
            self.epoch_size(0)  # raises now when no global batch fits

    # -- size of a round ------------------------------------------------------------------------------------------
    @property
    def multiple(self) -> int:
        """Samples that K is a multiple of: ranks times `round_to`."""
        return self.num_replicas * (self.round_to or 1)

    def epoch_size(self, epoch: int) -> int:
        """Return the samples of a round, all ranks together: K, the same for each unless blocks differ by one."""
        if self.boundary == "partition":
            first, end = self._block(epoch)
            return end - first
        return round_size(self.n_rows, self.ratio, self.multiple)

    def coverage(self, rounds: int) -> float:
        """Return the expected share of distinct rows seen after some rounds.

        Args:
            rounds: Rounds done, >= 0.

        Returns:
            A share in [0, 1]; exact in mode "without". With `weights` it is an upper bound. In mode "loss" the share of
            the rows with a loss so far, whatever `rounds` says.
        """
        check_integer("rounds", rounds, "Pass a number of rounds.")
        if self.guide is not None:
            return min(1.0, self.guide.seen() / self.n_rows)
        k = self.epoch_size(0)
        if self.boundary == "partition" and self.multiple > 1:  # each pass leaves out other rows
            blocks = round(1 / self.ratio)
            passes, rest = divmod(rounds, blocks)
            return 1 - (1 - blocks * k / self.n_rows) ** passes * (1 - rest * k / self.n_rows)
        return expected_coverage(rounds, self.n_rows, k, self.mode)

    def _block(self, epoch: int) -> tuple[int, int]:
        blocks = round(1 / self.ratio)
        if self.n_rows < blocks:
            raise ValueError(
                problem("ratio", f"at least 1/{self.n_rows}, one row a block", self.ratio, "Use a larger ratio.")
            )
        number = epoch % blocks
        first, end = number * self.n_rows // blocks, (number + 1) * self.n_rows // blocks
        if self.multiple > 1:  # ranks and loaders need equal rounds: all get the smallest block, in whole batches
            size = self.n_rows // blocks // self.multiple * self.multiple
            if size < 1:
                most = self.n_rows // self.multiple
                remedy = f"Use ratio=1/{most} or larger." if most else f"Use a global batch of at most {self.n_rows}."
                allowed = (
                    f"such that every block of the {self.n_rows} rows fills a global batch of {self.multiple} samples"
                )
                raise ValueError(problem("ratio", allowed, self.ratio, remedy))
            end = first + size
        return first, end

    # -- what a round draws ---------------------------------------------------------------------------------------
    def draw(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the rows at some positions of a round.

        Args:
            epoch: The round, t.
            positions: 0 <= p < K. Shape (P,), dtype int64.

        Returns:
            Rows in 0..N-1. Shape (P,), dtype int64.
        """
        if self.mode == "bootstrap":
            return self._draw_bootstrap(epoch, positions)
        if self.weights is not None:
            return self._cached("weighted", epoch, self._weighted_round)[positions]
        if self.mode == "independent":
            return self._pass(epoch, positions)
        if self.boundary == "partition":
            return self._pass(epoch // round(1 / self.ratio), positions + self._block(epoch)[0])
        if self.guide is not None:
            guided = self.guide.round_order(epoch, self.version, self._population)
            if guided is not None:
                return guided[positions]
        stream = positions + epoch * self.epoch_size(epoch)
        first, last = (int(stream.min()) // self.n_rows, int(stream.max()) // self.n_rows) if len(stream) else (0, 0)
        if first == last:
            return self._pass(first, stream - first * self.n_rows)
        drawn = torch.empty_like(stream)
        for cycle in range(first, last + 1):
            inside = stream // self.n_rows == cycle
            drawn[inside] = self._pass(cycle, stream[inside] - cycle * self.n_rows)
        return drawn

    def _pass(self, cycle: int, place: Tensor) -> Tensor:
        """Return the rows at some places of a shuffled pass over the data."""
        if self.targets is not None:
            return self._cached("stratified", cycle, self._stratified_pass)[place]
        if self._uses_feistel():
            return permute(place, self.n_rows, self._key, cycle, method="feistel")
        return self._cached("pass", cycle, self._whole_pass)[place]

    def _draw_bootstrap(self, epoch: int, positions: Tensor) -> Tensor:
        if self.targets is None:
            return bootstrap_rows(positions, self.n_rows, self._key, epoch)
        slots = self._cached("stratified", epoch, self._stratified_pass)[positions]  # fixes the class of each slot
        labels = self._of_population(self.targets)
        by_class = self._cached("by class", 0, lambda _: torch.argsort(labels, stable=True))
        counts = torch.bincount(labels)
        first, label = torch.cumsum(counts, 0) - counts, labels[slots]
        # a uniform number per position, reused as the place inside the class
        within = bootstrap_rows(positions, 2**53 - 1, self._key, epoch) % counts[label]
        return by_class[first[label] + within]

    def _whole_pass(self, cycle: int) -> Tensor:
        return torch.randperm(self.n_rows, generator=generator(self._key, cycle))  # what `permute` reads from

    def _stratified_pass(self, cycle: int) -> Tensor:
        return stratified_order(self._of_population(self.targets), self._key, cycle)

    def _weighted_round(self, epoch: int) -> Tensor:
        return weighted_order(self._of_population(self.weights), self.epoch_size(epoch), self._key, epoch)

    def record(self, rows: Tensor, losses: Tensor) -> None:
        """Note the training losses of the running round; they guide the rounds after it (mode "loss").

        With several ranks, all of them must record the rows of all ranks (`RS2Callback` sees to it).

        Args:
            rows: Rows of the data set. Shape (B,), dtype int64.
            losses: Loss of each, >= 0; what is not finite is left out. Shape (B,), floating point, any device.

        Raises:
            ValueError: If the mode is another, the shapes differ, or a loss is negative.
        """
        if self.guide is None:
            raise ValueError(problem("mode", "'loss' for record()", self.mode, "Build RS2Sampler(mode='loss')."))
        self.guide.record(rows, losses)

    def _population(self) -> Population:
        targets = None if self.targets is None else self._of_population(self.targets)
        return Population(self.n_rows, self.rows(), targets, self.epoch_size(0), self._key, self._pass)

    def _cached(self, what: str, number: int, build: Callable[[int], Tensor]) -> Tensor:
        """Keep the two orders used last: a round touches at most two passes when K <= N."""
        key = (what, number, self.version)
        order = self._cache.pop(key, None)
        if order is None:
            while len(self._cache) >= 2:
                del self._cache[next(iter(self._cache))]
            order = build(number)
        self._cache[key] = order  # last in line again
        return order

    def _uses_feistel(self) -> bool:
        return self.permutation == "feistel" or (self.permutation == "auto" and self.n_rows > RANDPERM_LIMIT)

    @property
    def _key(self) -> int:
        # a domain per mode: the same seed must not give correlated orders; other rows are another stream
        rows = self._rows_digest()
        mode = "without" if self.mode == "loss" else self.mode  # whose plain rounds are the same
        return derive_key(self.seed, MODES.index(mode), int(rows, 16) if rows else 0)

    # -- resume ---------------------------------------------------------------------------------------------------
    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for (round, position) to mean the same row."""
        return {
            "n": self.n_rows,
            "k": self.epoch_size(0),
            "seed": self.seed,
            "mode": self.mode,
            "version": PERMUTATION_VERSION,
            "boundary": self.boundary,
            "permutation": "feistel" if self._uses_feistel() else "randperm",
            "targets": digest(self.targets),
            "weights": digest(self.weights),
            "rows": self._rows_digest(),
            **({} if self.guide is None else self.guide.fingerprint()),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return a plain state; in mode "loss" with the losses, 8 bytes per row."""
        return {**super().state_dict(), **({} if self.guide is None else {"guide": self.guide.state_dict()})}

    @reading_state("RS2Sampler")
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was taken, after checking that it means the same samples here.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: As in `EpochSampler.load_state_dict`.
        """
        super().load_state_dict(state)
        if self.guide is not None:
            self.guide.load_state_dict(state["guide"])
