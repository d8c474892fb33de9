"""States in checkpoints: a run goes on from a file in which the part of this package is spoilt."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_adapt import RS2Callback
from tests.foreign import ForeignModule, loader, trainer
from tests.properties import file_mutations as w
from tests.properties.readers import ERRORS, Reader
from tests.registry import REGISTRY
from tests.registry_parts import Setup

# what Lightning itself writes and reads; all else is of callbacks, DataModules and modules
_LIGHTNING = {
    "epoch",
    "global_step",
    "pytorch-lightning_version",
    "state_dict",
    "loops",
    "optimizer_states",
    "lr_schedulers",
}
_LIGHTNING |= {"hparams_name", "hyper_parameters", "datamodule_hparams_name", "datamodule_hyper_parameters"}
_LIGHTNING |= {"callbacks", "hparams_type", "MixedPrecision", "current_model_state"}


class Losses(ForeignModule):
    """A module that returns the loss of every row, as loss-guided rounds need it."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        features, _, label = batch
        each = torch.nn.functional.cross_entropy(self.net(features), label, reduction="none")
        return {"loss": each.mean(), "sample_loss": each.detach()}


def loss_guided(workers: int = 0, batch_size: int = 8) -> Setup:
    guided = RS2Callback(0.3, mode="loss", warm_rounds=1)
    return Setup({"train_dataloaders": loader(workers, batch_size)}, [guided], Losses)


def ours(content: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The places of a checkpoint that this package fills."""
    found: list[tuple[dict[str, Any], str]] = [(content, key) for key in content if key not in _LIGHTNING]
    # the averaging of weights is Lightning's
    return found + [(content["callbacks"], key) for key in content["callbacks"] if "EMA" not in key]


def of_ours(data: bytes, draw: random.Random) -> bytes:
    content = torch.load(io.BytesIO(data), weights_only=True)
    parent, key = draw.choice(ours(content))
    parent[key] = w.state_changed(parent[key], draw)
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def run(build: Callable[[int, int], Setup], folder: Path, epochs: int, **options: Any) -> Any:
    setup = build(0, 8)
    with contextlib.redirect_stdout(io.StringIO()):
        made = trainer(folder, setup.callbacks, max_epochs=epochs)
        made.fit(setup.module(), **setup.data, **options)
    return made


def resumed(build: Callable[[int, int], Setup]) -> Reader:
    """Train an epoch, spoil the checkpoint, and train another one from it."""

    def seeds(folder: Path) -> list[bytes]:
        path = folder / "whole.ckpt"
        run(build, folder, 1).save_checkpoint(path)
        assert ours(torch.load(path, weights_only=True))
        return [path.read_bytes()]

    def read(path: Path) -> None:
        run(build, path.parent, 2, ckpt_path=str(path), weights_only=True)

    return Reader("spoilt.ckpt", seeds, read, (of_ours,), (*ERRORS, MisconfigurationException))


NAMES = (
    "RS2Callback",
    "RS2DataModule",
    "TimeToAccuracy",
    "SampleAdaptiveAugmentation",
    "SAADataModule",
    "FlexMatchModule",
    "ErrorMemoryCallback",
    "IncrementalTraining",
    "PrequentialDataModule",
    "DiversitySelectionCallback",
    "InstructionDataModule",
    "TextSpeechDataModule",
    "LinaSpeechModule",
    "InitialStateTuning",
)
READERS: dict[str, Reader] = {
    "state of RS2Callback in mode loss": resumed(loss_guided),
    **{f"state of {name}": resumed(REGISTRY[name].build) for name in NAMES},  # type: ignore[arg-type]
}
