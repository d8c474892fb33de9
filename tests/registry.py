"""Every public name -> the smallest way to use it; the contract tests loop over this, and a missing entry fails."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from lightning_adapt import RS2Callback, RS2DataModule, RS2Sampler, TimeToAccuracy, rs2_loader
from tests.divconq.entries import ENTRIES as DIVCONQ
from tests.foreign import ForeignData, loader, numbered_rows
from tests.lina_speech.entries import ENTRIES as LINA_SPEECH
from tests.registry_parts import Entry, Kind, Setup
from tests.reloop2.entries import ENTRIES as RELOOP2
from tests.saa.entries import ENTRIES as SAA


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
    **RELOOP2,
    **SAA,
    **DIVCONQ,
    **LINA_SPEECH,
    "RS2Callback": Entry(
        kind="order",
        build=_rs2_callback,
        resume="exact",
        disabled={
            "enabled=False": lambda: _rs2_callback(enabled=False),
            "ratio=1": lambda: _rs2_callback(ratio=1.0),
        },
        state=lambda: RS2Callback(0.3),
    ),
    "RS2DataModule": Entry(
        kind="order",
        build=lambda workers, batch_size: Setup({"datamodule": RS2DataModule(ForeignData(workers, batch_size), 0.3)}),
        resume="exact",
        state=lambda: RS2DataModule(ForeignData(), 0.3),
    ),
    "rs2_loader": Entry(
        kind="order",
        build=lambda workers, batch_size: Setup({"train_dataloaders": rs2_loader(loader(workers, batch_size), 0.3)}),
        resume="loader",
        state=lambda: rs2_loader(loader(0, 8), 0.3),
        make=lambda: rs2_loader(loader(0, 8), 0.3),
        use=lambda rounds: torch.cat([rows for _, rows, _ in rounds]),
    ),
    "RS2Sampler": Entry(
        kind="order",
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
        make=lambda: RS2Sampler(100, 0.3),
        use=lambda sampler: torch.tensor(list(sampler)),
    ),
    "TimeToAccuracy": Entry(  # changes nothing itself, so it is looked at beside what does
        kind="order",
        build=_timed_rs2_callback,
        resume="exact",
        state=lambda: TimeToAccuracy("train_loss", 0.1, "min"),
    ),
}
TRAINED = sorted(name for name, entry in REGISTRY.items() if entry.build is not None)


def of_kind(*kinds: Kind) -> list[str]:
    return sorted(name for name, entry in REGISTRY.items() if entry.kind in kinds)
