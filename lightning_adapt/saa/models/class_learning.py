"""What FlexMatch knows of each class (Zhang et al. 2021, arXiv 2110.08263): counts kept up by the batch; torch only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_flag, check_integer, problem
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.saa.functional import class_effect, flexmatch_thresholds

__all__ = ["ClassLearning"]

STATE_VERSION = 1


class ClassLearning:
    """The last confident pseudo-label of every unlabelled row, and how many rows each class has.

    The published codes count all N rows at every step; here the counts follow the rows that change, which costs
    O(batch) and makes the device wait for nothing. The result is the same.

    Args:
        n_rows: Number of unlabelled rows, N.
        n_classes: Number of classes, C.
        warm: Whether rows without a confident pseudo-label yet hold the thresholds down (FlexMatch's warm-up).
        device: Where the state lives.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.
    """

    def __init__(
        self, n_rows: int, *, n_classes: int, warm: bool = True, device: torch.device | str | None = None
    ) -> None:
        self.n_rows = check_integer("n_rows", n_rows, "Pass the length of the unlabelled data set.", minimum=1)
        self.n_classes = check_integer("n_classes", n_classes, "Pass 10.", minimum=2)
        self.warm = check_flag("warm", warm, "Pass True, as FlexMatch does.")
        whole = {"dtype": torch.int64, "device": device}
        # one more row than there is data: what must not be written goes there, so that no step depends on a count
        self._labels = torch.full((self.n_rows + 1,), -1, **whole)  # type: ignore[arg-type]
        self._stamps = torch.full((self.n_rows + 1,), -1, **whole)  # type: ignore[arg-type]
        self._next_stamp = 0
        self.counts = torch.zeros(self.n_classes + 1, **whole)  # type: ignore[arg-type]
        self.counts[0] = self.n_rows

    @property
    def labels(self) -> Tensor:
        """The last confident pseudo-label of each row, -1 where there was none. Shape (N,), int64."""
        return self._labels[:-1]

    @property
    def effect(self) -> Tensor:
        """The learning effect of each class, beta in [0, 1]. Shape (C,)."""
        return class_effect(self.counts, warm=self.warm)

    def thresholds(self, label: Tensor, threshold: float) -> Tensor:
        """Return the smallest confidence with which each pseudo-label is used.

        Args:
            label: Pseudo-labels. Shape (B,), int64.
            threshold: That of a class learned best, tau.

        Returns:
            Thresholds. Shape (B,).
        """
        return flexmatch_thresholds(self.effect, label, threshold)

    def write(self, index: Tensor, label: Tensor) -> None:
        """Note the confident pseudo-labels of a batch.

        If a row comes more than once, its last confident pseudo-label counts, on every device.

        Args:
            index: Rows. Shape (B,), int64, in 0..N-1.
            label: Pseudo-labels, -1 where not confident, which changes nothing. Shape (B,), int64.
        """
        stamp = torch.arange(self._next_stamp, self._next_stamp + len(index), device=index.device)
        self._next_stamp += len(index)
        nowhere = torch.full_like(index, self.n_rows)
        place = torch.where(label >= 0, index, nowhere)
        self._stamps.scatter_reduce_(0, place, stamp, "amax")
        wins = (label >= 0) & (self._stamps[place] == stamp)
        place, label = torch.where(wins, index, nowhere), torch.where(wins, label, -1)
        old, change = self._labels[place], wins.long()
        self.counts.scatter_add_(0, old + 1, -change)
        self.counts.scatter_add_(0, label + 1, change)
        self._labels.scatter_(0, place, label)

    def state_dict(self) -> dict[str, Any]:
        """Return the state: plain, versioned, on the CPU."""
        return with_version({"n_classes": self.n_classes, "labels": self.labels.cpu().clone()}, STATE_VERSION)

    @reading_state("FlexMatchModule")
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If it has no valid version, or belongs to another number of rows or classes.
        """
        read_version(state, STATE_VERSION, "FlexMatchModule")
        labels = state["labels"]
        for argument, ours, saved in (
            ("n_unlabeled", self.n_rows, len(labels)),
            ("n_classes", self.n_classes, state["n_classes"]),
        ):
            if ours != saved:
                remedy = "Go on with the data that the run began with, or start a new run."
                raise ValueError(problem(argument, f"{saved}, as in the run so far", ours, remedy))
        self._labels[:-1] = labels.to(self._labels.device)
        self.counts = torch.bincount(self.labels + 1, minlength=self.n_classes + 1)
