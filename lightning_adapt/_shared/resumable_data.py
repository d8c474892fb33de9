"""ResumableData: a DataModule whose train order goes on where a checkpoint left it, or says that it cannot."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from lightning_adapt._shared.compat import RaisesWhenUsed, has_trained, position_in_run
from lightning_adapt._shared.resumed_epochs import count_next_epoch
from lightning_adapt._shared.sampling import check_fingerprint
from lightning_adapt._shared.state import read_version, reading_state, with_version

__all__ = ["ResumableData", "at_the_beginning", "position_of_data", "resumes"]

STATE_VERSION = 1


def resumes(trainer: Any) -> bool:
    """Say whether a run goes on from a checkpoint, so that what was restored belongs to it; not so after a test.

    Args:
        trainer: The Trainer of a DataModule, or None.
    """
    return trainer is not None and trainer.ckpt_path is not None


def at_the_beginning(trainer: Any) -> bool:
    """Say whether nothing was trained yet, so that a state saved now fits any order.

    A batch size finder restores the beginning of a run whose batches have another size by then.

    Args:
        trainer: The Trainer of a DataModule, or None, where nobody can say it.
    """
    return trainer is not None and not has_trained(trainer)


def position_of_data(trainer: Any) -> tuple[int, int]:
    """Return the epoch that a DataModule is asked for and the batches of it that are used; the epoch counts from then.

    Args:
        trainer: The Trainer, at the first batch of the epoch.
    """
    count_next_epoch(trainer)
    return position_in_run(trainer)


class ResumableData:
    """Mix-in, before Lightning's base class: keeps in checkpoints what decides the order of the training rows.

    The round and the batches done in it are the Trainer's own counters; saved is what they mean. Use `misfit` and
    `position` in `train_dataloader`.
    """

    trainer: Any
    _restored: dict[str, Any] | None = None

    @abstractmethod
    def _fingerprint(self) -> dict[str, Any]:
        """Return what decides the order, as plain values; made when a run starts or is saved."""

    def misfit(self) -> RaisesWhenUsed | None:
        """Return what to give the Trainer in place of a loader where the checkpoint belongs to another order.

        Returns:
            Something that raises when it is used; None where all is well.
        """
        if self._restored is None or not resumes(self.trainer):
            return None
        try:
            check_fingerprint(type(self).__name__, saved=self._restored, here=self._fingerprint())
        except ValueError as found:
            from lightning.fabric.utilities.exceptions import MisconfigurationException

            return RaisesWhenUsed(MisconfigurationException(str(found)))
        return None

    @property
    def position(self) -> Callable[[], tuple[int, int]] | None:
        """What tells a `ResumableLoader` the running epoch and its batches done; None without a Trainer."""
        return None if self.trainer is None else self._position

    def _position(self) -> tuple[int, int]:
        return position_of_data(self.trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, plain and with a version; without a fingerprint before the first batch of a run."""
        fingerprint = None if at_the_beginning(self.trainer) else self._fingerprint()
        return with_version({"fingerprint": fingerprint}, STATE_VERSION)

    @reading_state("a DataModule")
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of a checkpoint; it is compared when training asks for its rows.

        Args:
            state_dict: What `state_dict` returned.
        """
        read_version(state_dict, STATE_VERSION, type(self).__name__)
        self._restored = state_dict["fingerprint"]
