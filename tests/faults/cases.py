"""What is killed: one small training run for each method, with the files that it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from lightning_adapt.reloop2.callback import ErrorMemoryCallback
from lightning_adapt.rs2.datamodule import RS2DataModule
from lightning_adapt.saa.models.fixmatch import FixMatchModule
from tests.divconq.rounds_parts import Texts, by_group
from tests.foreign import ForeignModule, loader
from tests.foreign_clicks import ForeignClicks, noted
from tests.foreign_gla import ChainData, ForeignGLA
from tests.lina_speech.entries import kmeans_codec, rows, training
from tests.registry_parts import Setup
from tests.reloop2.entries import prequential
from tests.rs2.test_loss_rounds import LossModule, guided
from tests.saa.entries import selection, small, trained

__all__ = ["CASES", "Case"]

GLOBAL_BATCH = 8


@dataclass(frozen=True)
class Case:
    """One run that can be killed.

    Attributes:
        build: (folder, batch size of a rank) -> what goes into the Trainer; files go into the folder.
        options: Further arguments of the Trainer.
        saves_every: Steps between two checkpoints. 3 also hits last batches of epochs, where stock Lightning counts the
            next epoch wrong and leaves the validation out, which callbacks of ours mend as far as they can; 7 does not.
        serves: Whether `trainer.test` follows `trainer.fit`, and its answers are compared, too.
    """

    build: Callable[[Path, int], Setup]
    options: dict[str, Any] = field(default_factory=dict)
    saves_every: int = 7
    serves: bool = False


def _rs2(folder: Path, batch_size: int) -> Setup:
    from lightning_adapt.rs2.callback import RS2Callback

    return Setup({"train_dataloaders": loader(0, batch_size)}, [RS2Callback(0.3)], ForeignModule)


def _rs2_loss(folder: Path, batch_size: int) -> Setup:
    return Setup({"train_dataloaders": loader(0, batch_size)}, [guided()], LossModule)


def _memory(folder: Path, batch_size: int) -> Setup:
    data = {"datamodule": prequential(0, batch_size)}
    return Setup(data, [ErrorMemoryCallback()], ForeignClicks, data)


def _saa(folder: Path, batch_size: int) -> Setup:
    return trained(small(FixMatchModule), selection)(0, batch_size)


def _selection(folder: Path, batch_size: int) -> Setup:
    """Three rounds on texts whose vectors are kept, rated by their group; 16, 32 and 48 rows."""
    files = {"out_dir": folder / "rounds", "cache_dir": folder / "vectors"}
    options: dict[str, Any] = {"rounds": 3, "k": 4, "engine": "torch", "scorer": by_group, "lr_horizon": "ignore"}
    data = DataLoader(Texts(120), batch_size, shuffle=True)
    return Setup({"train_dataloaders": data}, [DiversitySelectionCallback(48, **options, **files)], ForeignModule)


def _speech(folder: Path, batch_size: int) -> Setup:
    """Sounds are encoded at first, and their codes kept."""
    sizes: dict[str, Any] = {"max_batch_size": batch_size, "tokens_per_batch": 100 * batch_size}
    more: dict[str, Any] = {"join_probability": 0.0, "progress": False, "min_seconds": 0.05, "trim_silence_db": None}
    data = TextSpeechDataModule(
        rows(32), val=rows(8, 50), codec=kmeans_codec(), cache_dir=folder / "codes", **sizes, **more
    )
    return Setup({"datamodule": data}, [], noted(training))


def _tuning(folder: Path, batch_size: int) -> Setup:
    data = RS2DataModule(ChainData(0, batch_size), 0.3)
    tuning = InitialStateTuning("ada", rank=2, patience=None, out=folder / "voice.safetensors")
    return Setup({"datamodule": data}, [tuning], noted(ForeignGLA))


CASES: dict[str, Case] = {
    "RS2Callback": Case(_rs2, saves_every=3),
    "RS2Callback, mode loss": Case(_rs2_loss, saves_every=3),
    "ErrorMemoryCallback, fit and test": Case(_memory, serves=True),
    "SampleAdaptiveAugmentation, FixMatch": Case(_saa, saves_every=3),
    "DiversitySelectionCallback, 3 rounds": Case(_selection, saves_every=3),
    "LinaSpeechModule, TextSpeechDataModule": Case(_speech),
    "InitialStateTuning": Case(_tuning),
}
