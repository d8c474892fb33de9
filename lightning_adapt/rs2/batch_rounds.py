"""BatchRounds: RS2 where a sampler of the user's data plans whole batches; a round is a share of the planned ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from lightning_adapt._shared.batch_planner import BatchPlanner, rows_of_batches
from lightning_adapt._shared.checks import problem
from lightning_adapt.rs2.guide import GuideOptions
from lightning_adapt.rs2.sampler import Mode, RS2Sampler

__all__ = ["BatchRounds"]

_MODES = ("without", "independent")


class BatchRounds(RS2Sampler):
    """Draw a share of the batches that a planner makes, round after round.

    What `RS2Sampler` draws row by row is drawn batch by batch here, since the planner joins rows that fit together
    (utterances of like length). A plan shuffles its batches already, so that the batches of plan 0, plan 1, ... one
    after the other are an endless stream of passes over the data. Mode "without" reads it in blocks: T rounds of RS2
    are the first T K batches of ordinary training, bit by bit. Mode "independent" takes the head of plan t in round t.
    Plans differ with the number of ranks, and so does K: a saved round means nothing on another number of them.

    Args:
        planner: Plans the batches; rows that it is restricted to may change while training runs.
        ratio: Share of the batches per round, in (0, 1].
        mode: "without" or "independent"; the others name rows.
        num_replicas: As in `RS2Sampler`.
        rank: As in `RS2Sampler`.
        guide: As in `rs2_loader`; of no use in these modes, and refused.

    Raises:
        ValueError: If the mode is another, or a round holds no batch for every rank.
    """

    def __init__(
        self,
        planner: BatchPlanner,
        ratio: float,
        *,
        mode: Mode = "without",
        num_replicas: int | None = None,
        rank: int | None = None,
        **guide: Unpack[GuideOptions],
    ) -> None:
        self.planner = planner
        if mode not in _MODES:
            remedy = "Use 'without', or a loader with a batch_size."
            raise ValueError(problem("mode", f"one of {_MODES} where the loader plans whole batches", mode, remedy))
        ranks: dict[str, Any] = {"num_replicas": num_replicas, "rank": rank}
        super().__init__(planner.n_rows, ratio, mode=mode, seed=planner.seed, **ranks, **guide)

    @property
    def n_rows(self) -> int:
        """Number of batches in a pass, all ranks together: what a round is a share of."""
        return self.planner.epoch_size(0)

    @property
    def version(self) -> int:
        """Counts the changes of the rows that the planner is restricted to."""
        return self.planner.version

    def epoch_size(self, epoch: int) -> int:  # noqa: ARG002
        """Return the batches of a round, all ranks together: a share of those of a pass, the same for each rank."""
        batches, ranks = self.n_rows, self.num_replicas
        size = round(self.ratio * batches) // ranks * ranks
        if size < 1:
            allowed = f"large enough that a round of the {batches} planned batches has one for each of {ranks} ranks"
            remedy = f"Use ratio >= {ranks / batches:.3g}, or smaller batches."
            raise ValueError(problem("ratio", allowed, self.ratio, remedy))
        return size

    def draw(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the numbers of batches in the endless stream of plans, int64 of shape (P,)."""
        return positions + epoch * (self.n_rows if self.mode == "independent" else self.epoch_size(epoch))

    def epoch_rows(self, epoch: int) -> Tensor:
        """Return the rows of a whole round, all ranks together, in the order of the batches; int64 of shape (R,)."""
        first = int(self.draw(epoch, Tensor([0]).long()))
        return rows_of_batches([self._planned(first + place) for place in range(self.epoch_size(epoch))])

    def rank_rows(self, samples: Tensor) -> Tensor:  # noqa: ARG002
        """Refuse: a planned batch has several rows.

        Raises:
            TypeError: Always.
        """
        raise TypeError("A planned batch has several rows; ask `epoch_rows` for those of a round.")

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for (round, position) to mean the same batch."""
        plan = json.dumps(self.planner.fingerprint(), sort_keys=True)
        return {**super().fingerprint(), "plan": hashlib.blake2b(plan.encode(), digest_size=16).hexdigest()}

    def __iter__(self) -> Iterator[Any]:
        for number in super().__iter__():
            yield self._planned(number)

    def _planned(self, number: int) -> Any:
        return self.planner.batch(*divmod(number, self.n_rows))
