"""Samplers whose order is a pure function of (seed, epoch, position): rank-aware, resumable, plain PyTorch.

They subclass `DistributedSampler` because Lightning leaves exactly that class alone under DDP (any other sampler is
wrapped, reshuffled and padded). The constructor of `DistributedSampler` is not called: it asks the process group for
rank and size at once, and users build loaders before the Trainer starts its processes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sized
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.per_row import digest
from lightning_adapt._shared.state import read_version, reading_state

STATE_VERSION = 1
_CHUNK = 65_536  # rows drawn at once: large enough to amortise the call, small enough to start without delay


class StateMismatchError(ValueError):
    """A saved position means other samples here; the text names each difference."""


class EpochSampler(DistributedSampler[Any]):
    """Base of our samplers: yields rows of a data set, sharded by rank, from any position of any epoch.

    Position p of an epoch belongs to rank p mod W, so the b-th batch of all ranks together is the b-th contiguous
    block of positions, for every number of ranks W at equal global batch size.

    A subclass implements `epoch_size` and `draw`. Both must depend on nothing but the constructor's arguments and the
    epoch, so that ranks agree without talking and a resume needs no random state.

    Args:
        data_source: A data set (anything with `len`), a number of rows, or another `EpochSampler` of ours whose rows
            are to be sampled (for example RS2 over a selected subset).
        num_replicas: Number of ranks W. None: read from the process group at every use, 1 without one.
        rank: This rank. None: read from the process group at every use, 0 without one.
        seed: Seed shared by all ranks, >= 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `data_source` is empty, or `rank` does not fit `num_replicas`.
    """

    def __init__(
        self,
        data_source: int | Sized | EpochSampler,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        self.inner = data_source if isinstance(data_source, EpochSampler) else None
        self._n_source = _source_length(data_source)
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**63 - 1)
        self._num_replicas, self._rank = _check_ranks(num_replicas, rank)
        self._digested: tuple[int, str | None] | None = None  # version and digest of the inner sampler's rows
        self.epoch = 0
        self._start = 0  # samples of this rank to skip in the next iteration
        self._yielded = 0  # samples of this rank handed out in the running iteration, skipped ones included

    # -- to be written by subclasses ------------------------------------------------------------------------------
    def epoch_size(self, epoch: int) -> int:
        """Return how many samples all ranks together draw in an epoch; a multiple of `num_replicas`."""
        raise NotImplementedError(f"{type(self).__name__} must implement epoch_size.")

    def draw(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the rows (0 <= row < n_rows) at positions (0 <= p < epoch_size), both int64 of shape (P,)."""
        raise NotImplementedError(f"{type(self).__name__} must implement draw.")

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for a saved position to mean the same samples; plain values."""
        return {"n": self.n_rows, "seed": self.seed}

    # -- population -----------------------------------------------------------------------------------------------
    @property
    def n_rows(self) -> int:
        """Number of rows to draw from, N."""
        if self.inner is not None:
            rows = self.inner.rows()
            return self.inner.n_rows if rows is None else len(rows)
        return self._n_source

    @property
    def version(self) -> int:
        """Counts changes of the population; samplers stacked on this one plan anew when it moves."""
        return self.inner.version if self.inner is not None else 0

    def rows(self) -> Tensor | None:
        """Return the data set rows this sampler chooses from, int64 of shape (N,); None means all of 0..N-1."""
        return self.inner.rows() if self.inner is not None else None

    def _rows_digest(self) -> str | None:
        """Return a digest of the inner sampler's rows; None without an inner sampler that restricts them."""
        if self._digested is None or self._digested[0] != self.version:
            self._digested = (self.version, digest(self.rows()))
        return self._digested[1]

    def _rows_described(self) -> tuple[int, bool]:
        """Return how many rows `targets` and `weights` must describe, and whether exactly that many."""
        rows = self.rows()
        return (self.n_rows, True) if rows is None else (int(rows.max()) + 1, False)

    def _of_population(self, values: Tensor | None) -> Tensor:
        """Return what is given per row of the data set for the rows to draw from."""
        if values is None:
            raise RuntimeError("This draw needs targets or weights that the sampler was not given.")
        rows = self.rows()
        return values if rows is None else values[rows]

    # -- ranks ----------------------------------------------------------------------------------------------------
    @property
    def num_replicas(self) -> int:  # type: ignore[override]  # a property, so that it follows the process group
        """Number of ranks W."""
        if self._num_replicas is not None:
            return self._num_replicas
        return dist.get_world_size() if _has_process_group() else 1

    @property
    def rank(self) -> int:  # type: ignore[override]
        """This rank, 0..W-1."""
        if self._rank is not None:
            return self._rank
        return dist.get_rank() if _has_process_group() else 0

    # -- sampler protocol -----------------------------------------------------------------------------------------
    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws.

        Args:
            epoch: Number of the epoch, from 0. Calling it twice with the same number changes nothing.

        Raises:
            ValueError: If it is negative.
        """
        epoch = check_integer("epoch", epoch, "Pass the number of the epoch, from 0.")
        if epoch != self.epoch:  # a position belongs to the epoch in which it was reached
            self._start = self._yielded = 0
        self.epoch = epoch

    def start_at(self, samples: int) -> None:
        """Skip the first samples of this rank in the next iteration (only there), to resume inside an epoch.

        Args:
            samples: Samples of this rank that were already used.

        Raises:
            ValueError: If it is negative.
        """
        self._start = check_integer("samples", samples, "Pass the number of samples this rank has used.")
        self._yielded = self._start

    def __iter__(self) -> Iterator[int]:
        epoch, start, size = self.epoch, self._start, self.epoch_size(self.epoch)
        rank, replicas = self.rank, self.num_replicas
        self._start, self._yielded = 0, start
        for first in range(rank + start * replicas, size, _CHUNK * replicas):
            positions = torch.arange(first, min(first + _CHUNK * replicas, size), replicas)
            for row in self._source_rows(self.draw(epoch, positions)).tolist():
                self._yielded += 1
                yield row

    def __len__(self) -> int:
        return self.epoch_size(self.epoch) // self.num_replicas

    def _source_rows(self, drawn: Tensor) -> Tensor:
        rows = self.rows()
        return drawn if rows is None else rows[drawn]

    def epoch_rows(self, epoch: int) -> Tensor:
        """Return the data set rows of a whole epoch, all ranks together, in order; int64 of shape (epoch_size,)."""
        size = self.epoch_size(epoch)
        rows = torch.empty(size, dtype=torch.int64)
        for first in range(0, size, 4 * _CHUNK):  # in parts: a draw needs memory for several numbers per position
            positions = torch.arange(first, min(first + 4 * _CHUNK, size))
            rows[first : first + 4 * _CHUNK] = self._source_rows(self.draw(epoch, positions))
        return rows

    def rank_rows(self, samples: Tensor) -> Tensor:
        """Return the data set rows that this rank draws in the running epoch.

        Args:
            samples: Which of its samples, 0 <= s < len(self). Shape (S,), dtype int64.

        Returns:
            Rows of the data set. Shape (S,), dtype int64.
        """
        return self._source_rows(self.draw(self.epoch, samples * self.num_replicas + self.rank))

    # -- resume ---------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return a plain state: fingerprint, epoch and the samples this rank has handed out in it.

        With worker processes a DataLoader asks for samples ahead of their use; `rs2_loader` and the callbacks count
        what was really used.
        """
        done = self._yielded >= len(self)
        return {
            "version": STATE_VERSION,
            "fingerprint": self.fingerprint(),
            "epoch": self.epoch + done,
            "yielded": 0 if done else self._yielded,
            "num_replicas": self.num_replicas,
        }

    @reading_state("a sampler")
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was taken, after checking that it means the same samples here.

        Args:
            state: What `state_dict` returned. A different number of ranks is allowed as long as the samples used so
                far divide evenly among the ranks here.

        Raises:
            ValueError: If the fingerprint differs (it names each difference), or the version is unknown.
        """
        read_version(state, STATE_VERSION, type(self).__name__)
        check_fingerprint(type(self).__name__, saved=state["fingerprint"], here=self.fingerprint())
        used, left = divmod(state["yielded"] * state["num_replicas"], self.num_replicas)
        if left:
            raise ValueError(
                problem(
                    "num_replicas",
                    f"a divisor of the {state['yielded'] * state['num_replicas']} samples already used",
                    self.num_replicas,
                    "Resume with the number of ranks of the saved run.",
                )
            )
        self.set_epoch(state["epoch"])
        self.start_at(used)


def check_fingerprint(what: str, *, saved: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise if a saved sampler position would mean other samples here.

    Args:
        what: Name of the sampler or callback, for the error text.
        saved: Fingerprint from the checkpoint.
        here: Fingerprint of the running sampler.

    Raises:
        StateMismatchError: If they differ; names each difference.
    """
    keys = [key for key in {**saved, **here} if saved.get(key) != here.get(key)]
    if keys:
        size = "number of ranks" if "plan" in here else "global batch size"  # batches are planned for so many ranks
        differences = ", ".join(f"{key}: saved {saved.get(key)!r}, here {here.get(key)!r}" for key in keys)
        raise StateMismatchError(
            f"The saved state of {what} belongs to another sample order ({differences}). Resume with the same data "
            f"set, arguments and {size}, or start a new run from the weights only."
        )


def _source_length(data_source: object) -> int:
    if isinstance(data_source, EpochSampler):
        return data_source.n_rows
    remedy = "Pass a data set with a length, the number of rows, or a lightning_adapt sampler."
    if isinstance(data_source, bool) or not (isinstance(data_source, Sized) or hasattr(data_source, "__index__")):
        raise TypeError(problem("data_source", "a data set with a length or a number of rows", data_source, remedy))
    length = len(data_source) if isinstance(data_source, Sized) else operator.index(data_source)
    if length < 1:
        raise ValueError(problem("data_source", "of at least one row", length, remedy))
    return length


def _check_ranks(num_replicas: int | None, rank: int | None) -> tuple[int | None, int | None]:
    if num_replicas is not None:
        num_replicas = check_integer("num_replicas", num_replicas, "Pass the number of ranks, or None.", minimum=1)
    if rank is not None:
        rank = check_integer("rank", rank, "Pass this rank, counted from 0, or None.")
    if (num_replicas is None) != (rank is None):
        raise ValueError(
            problem(
                "rank",
                "given together with `num_replicas`",
                f"num_replicas={num_replicas}, rank={rank}",
                "Pass both, or neither to read them from the process group.",
            )
        )
    if num_replicas is not None and rank is not None and rank >= num_replicas:
        raise ValueError(
            problem("rank", f"from 0 to num_replicas - 1 = {num_replicas - 1}", rank, "Count ranks from 0.")
        )
    return num_replicas, rank


def _has_process_group() -> bool:
    return dist.is_available() and dist.is_initialized()
