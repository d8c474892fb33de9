"""RS2DataModule: RS2 for people who keep their data choices in a DataModule, by Lightning's public interface only."""

from __future__ import annotations

from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from typing_extensions import override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import (
    check_choice,
    check_flag,
    check_fraction,
    check_integer,
    check_loader_key,
    problem,
)
from lightning_adapt._shared.loaders import check_not_cycled, replace_loader
from lightning_adapt._shared.optional_hooks import loaders_in_words
from lightning_adapt._shared.resumable_data import at_the_beginning, position_of_data, resumes
from lightning_adapt._shared.sampling import check_fingerprint
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.rs2.loader import ADVICE, rs2_loader
from lightning_adapt.rs2.sampler import PLAIN_MODES, Mode

__all__ = ["RS2DataModule"]

# hooks that go to the inner DataModule as they are; Lightning sees the inner function, so that one which was not
# overridden there counts as not overridden here
_DELEGATED = (
    "prepare_data",
    "setup",
    "teardown",
    "on_exception",
    "val_dataloader",
    "test_dataloader",
    "predict_dataloader",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
)

STATE_VERSION = 1


class RS2DataModule(LightningDataModule):
    """Wrap a DataModule so that each epoch trains on one RS2 round of its train data.

    Okanovic et al., ICLR 2024, arXiv 2305.18424; see `RS2Sampler` and `RS2Callback`. Everything but the train loader
    comes from the inner DataModule unchanged, validation included: set `Trainer(check_val_every_n_epoch=...)` yourself.
    For `lightning.pytorch` only.

    Args:
        inner: Your DataModule.
        ratio: Share of the data per round, in (0, 1]; the paper's r.
        mode: As in `RS2Sampler`, but for "loss", which needs `RS2Callback`.
        stratify: Keep the class proportions in every round.
        loader: Which train loader when there are several: a dict key or a position.
        seed: Seed of the sample order.

    Raises:
        TypeError: If `inner` is no LightningDataModule.
        ValueError: If an argument is out of range; in `fit`, if the train loader cannot be sampled.
    """

    def __init__(
        self,
        inner: LightningDataModule,
        ratio: float = 0.1,
        *,
        mode: Mode = "without",
        stratify: bool = False,
        loader: str | int | None = None,
        seed: int = 0,
    ) -> None:
        _check_inner(inner)
        super().__init__()
        self._fingerprint: dict[str, Any] | None = None
        self._restored: dict[str, Any] | None = None
        self.ratio = check_fraction("ratio", ratio, "Pass 0.1 to train on a tenth of the data per round.")
        remedy = "Losses come from the training loop: use RS2Callback." if mode == "loss" else "Use 'without'."
        self.mode: Mode = check_choice("mode", mode, PLAIN_MODES, remedy)  # type: ignore[assignment]
        self.stratify = check_flag("stratify", stratify, "Pass True to keep the class proportions.")
        self.loader = check_loader_key(loader)
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**63 - 1)
        for name in ("prepare_data_per_node", "allow_zero_length_dataloader_with_multiple_devices", *_DELEGATED):
            setattr(self, name, getattr(inner, name))
        self.inner = inner  # last: from here on, names of the inner DataModule belong to it

    def __setattr__(self, name: str, value: Any) -> None:
        # Tuner.scale_batch_size writes `batch_size` here and means the inner one's
        inner = self.__dict__.get("inner")
        if inner is not None and name in vars(inner) and name not in self.__dict__ and name != "trainer":
            setattr(inner, name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        # a module may read its own things there: self.trainer.datamodule.n_classes
        if name == "inner" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __str__(self) -> str:
        return loaders_in_words(self)

    @property
    def trainer(self) -> Any:  # the inner DataModule may ask for it in its own hooks
        """The Trainer that both DataModules belong to."""
        return self.inner.trainer

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        if "inner" in self.__dict__:  # not yet while the base class is set up
            self.inner.trainer = trainer

    @override
    def train_dataloader(self) -> Any:
        try:
            loaders = replace_loader(self.inner.train_dataloader(), self.loader, self._rounds, "RS2")
            check_not_cycled(loaders, self.loader, "RS2", advice=ADVICE)
            return loaders
        except ValueError as problem_found:
            if self.trainer is None:
                raise
            return compat.RaisesWhenUsed(MisconfigurationException(str(problem_found)))

    def _rounds(self, loader: Any) -> Any:
        position = None if self.trainer is None else self._position  # without a Trainer, set_epoch says the round
        rounds = rs2_loader(
            loader, self.ratio, mode=self.mode, stratify=self.stratify, seed=self.seed, position=position
        )
        self._fingerprint = {**rounds.sampler.fingerprint(), "global batch": rounds.sampler.multiple}  # type: ignore[attr-defined]
        if self._restored is not None and resumes(self.trainer):
            check_fingerprint("RS2DataModule", saved=self._restored, here=self._fingerprint)
        return rounds

    def _position(self) -> tuple[int, int]:
        return position_of_data(self.trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        fingerprint = None if at_the_beginning(self.trainer) else self._fingerprint
        return with_version({"fingerprint": fingerprint, "inner": self.inner.state_dict()}, STATE_VERSION)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, "RS2DataModule")
        with reading_state("RS2DataModule"):
            self._restored, inner = state_dict["fingerprint"], dict(state_dict["inner"])
        self.inner.load_state_dict(inner)


def _check_inner(inner: object) -> None:
    if not isinstance(inner, LightningDataModule):
        other = any(kind.__module__.startswith("pytorch_lightning.") for kind in type(inner).__mro__)
        here = "Use RS2Callback, which works with the Trainer of that package, too."
        remedy = here if other else "Pass your DataModule, or use rs2_loader for a plain loader."
        raise TypeError(problem("inner", "a lightning.pytorch LightningDataModule", inner, remedy))
