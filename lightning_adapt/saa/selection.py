"""Selection: what one run knows of its unlabelled samples, and when it selected; plain PyTorch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.saa.history import LossHistory

__all__ = ["Selection"]

STATE_VERSION = 1


class Selection:
    """The history of a run, the batches it has seen, and its selections.

    Args:
        history: Losses and flags of the unlabelled samples.

    Attributes:
        batches: Training batches so far.
        curve: Of each selection: batches, cut in nats, share of naive samples.
    """

    def __init__(self, history: LossHistory) -> None:
        self.history = history
        self.batches = 0
        self.curve: list[list[float]] = []
        self._on_device: Tensor | None = None  # the flags, as last asked for on another device

    def select(self, *, require_confident: bool) -> bool:
        """Cut the losses anew and note the result.

        Args:
            require_confident: As in `LossHistory.select`.

        Returns:
            Whether there was a cut.
        """
        if not self.history.select(require_confident=require_confident):
            return False
        self.curve.append([float(self.batches), self.history.threshold, self.history.naive_share])
        self._on_device = None
        return True

    def flagged(self, index: Tensor) -> Tensor:
        """Say which samples are naive.

        Args:
            index: Rows of the unlabelled set. Shape (B,), dtype int64, on any device.

        Returns:
            Shape (B,), dtype bool, on the device of `index`.
        """
        if self._on_device is None or self._on_device.device != index.device:
            self._on_device = self.history.flags.to(index.device)  # once per selection: it waits for the copy
        flagged: Tensor = self._on_device[index]
        return flagged

    def why_nothing(self) -> str:
        """Return what to tell a user in whose run nothing was ever selected."""
        history = self.history
        if history.coverage == 0:
            return (
                "SampleAdaptiveAugmentation has selected nothing: no training step has returned or reported a finite "
                "loss so far. Return {'loss': loss, 'sample_loss': ..., 'index': ...} from `training_step`, or call "
                "`report` on the callback in it."
            )
        return (
            f"SampleAdaptiveAugmentation has selected nothing in this run: {history.coverage:.0%} of the {history.n} "
            f"unlabelled samples have a loss (min_coverage={history.min_coverage}), or all losses are equal, or no "
            "selection was due. Train longer, lower `min_coverage` or `update_every`, or check `n_unlabeled`."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return a plain state with a version."""
        numbers = {"batches": self.batches, "curve": [list(one) for one in self.curve]}
        return with_version({"history": self.history.state_dict(), **numbers}, STATE_VERSION)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If it is of another number of samples, or its version is unknown.
        """
        read_version(state, STATE_VERSION, "SampleAdaptiveAugmentation")
        self.history.load_state_dict(state["history"])
        self.batches, self.curve = state["batches"], [list(one) for one in state["curve"]]
        self._on_device = None
