"""Every public name -> the smallest way to use it; the contract tests loop over this, and a missing entry fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader

from lightning_adapt import RS2Callback, RS2DataModule, RS2Sampler, TimeToAccuracy, rs2_loader
from tests.foreign import ForeignData, loader, numbered_rows


@dataclass(frozen=True)
class Setup:
    """What goes into `Trainer(callbacks=...)` and `trainer.fit(module, **data)`."""

    data: dict[str, Any]
    callbacks: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """How the contracts use one public name.

    Attributes:
        build: (workers, batch size) -> Setup with the method at work.
        resume: "exact": everywhere; "loader": end and middle of an epoch as far as Lightning restores loader state
            (not after `estimated_stepping_batches`, #20550); "epoch": at the end of an epoch without workers (#21938).
        disabled: Setups that must train bit-equal to `plain`, by name.
        state: Makes a fresh object whose saved state is kept in tests/fixtures.
    """

    build: Callable[[int, int], Setup]
    resume: str
    disabled: dict[str, Callable[[], Setup]] = field(default_factory=dict)
    state: Callable[[], Any] | None = None


def plain(workers: int = 0, batch_size: int = 8) -> Setup:
    """The same training without any method."""
    return Setup({"train_dataloaders": loader(workers, batch_size)})


def _rs2_callback(workers: int = 0, batch_size: int = 8, **options: Any) -> Setup:
    return Setup({"train_dataloaders": loader(workers, batch_size)}, [RS2Callback(**{"ratio": 0.3, **options})])


def _timed_rs2_callback(workers: int = 0, batch_size: int = 8) -> Setup:
    setup = _rs2_callback(workers, batch_size)
    setup.callbacks.append(TimeToAccuracy("train_loss", 0.1, "min"))
    return setup


REGISTRY: dict[str, Entry] = {
    "RS2Callback": Entry(
        build=_rs2_callback,
        resume="exact",
        disabled={
            "enabled=False": lambda: _rs2_callback(enabled=False),
            "ratio=1": lambda: _rs2_callback(ratio=1.0),
        },
        state=lambda: RS2Callback(0.3),
    ),
    "RS2DataModule": Entry(
        build=lambda workers, batch_size: Setup({"datamodule": RS2DataModule(ForeignData(workers, batch_size), 0.3)}),
        resume="exact",
        state=lambda: RS2DataModule(ForeignData(), 0.3),
    ),
    "rs2_loader": Entry(
        build=lambda workers, batch_size: Setup({"train_dataloaders": rs2_loader(loader(workers, batch_size), 0.3)}),
        resume="loader",
        state=lambda: rs2_loader(loader(0, 8), 0.3),
    ),
    "RS2Sampler": Entry(
        build=lambda workers, batch_size: Setup(
            {
                "train_dataloaders": DataLoader(
                    numbered_rows(),
                    batch_size,
                    sampler=RS2Sampler(numbered_rows(), 0.3, round_to=batch_size),
                    num_workers=workers,
                )
            }
        ),
        resume="epoch",
        state=lambda: RS2Sampler(100, 0.3),
    ),
    "TimeToAccuracy": Entry(  # changes nothing itself, so it is looked at beside what does
        build=_timed_rs2_callback,
        resume="exact",
        state=lambda: TimeToAccuracy("train_loss", 0.1, "min"),
    ),
}
