"""What an entry of the registry says of a public name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from tests.foreign import ForeignModule, numbered_rows

Kind = Literal["order", "training", "serving", "data", "module", "object"]


def validation() -> DataLoader[Any]:
    return DataLoader(numbered_rows(16), 8)


@dataclass(frozen=True)
class Setup:
    """What goes into `Trainer(callbacks=...)`, `trainer.fit(module, **data)` and `trainer.test(module, **stream)`.

    Attributes:
        data: For `fit`: four batches of 8 rows in each epoch.
        callbacks: For the Trainer.
        module: (estimate_steps, record) -> a new module that notes in `seen` the rows it is trained on and writes them
            down at the end; `tests.foreign_clicks.noted` makes one of any module.
        stream: For `validate`, `test` and `predict`: 16 rows.
    """

    data: dict[str, Any]
    callbacks: list[Any] = field(default_factory=list)
    module: Callable[..., Any] = ForeignModule
    stream: dict[str, Any] = field(default_factory=lambda: {"dataloaders": validation()})


@dataclass(frozen=True)
class Entry:
    """How the contracts use one public name.

    Attributes:
        kind: Which contracts apply beside those of everything that a Trainer runs. "order": decides what is trained on,
            32 rows of `tests.foreign` in each epoch. "training": a callback that changes what is done with them.
            "serving": a callback for `tests.foreign_clicks.ForeignClicks`
            that acts in test and predict and leaves training alone, or what such a callback uses. "data": a DataModule
            with data of its own. "module": a LightningModule. "object": nothing that a Trainer runs.
        build: (workers, batch size) -> Setup with the method at work; for every kind but "object".
        resume: "exact": everywhere; "loader": end and middle of an epoch as far as Lightning restores loader state
            (not after `estimated_stepping_batches`, #20550); "epoch": at the end of an epoch without workers (#21938).
        without: The same training without the method; None for that of `tests.foreign`.
        disabled: Setups that must train (kind "serving": and answer) bit-equal to the same without them, by name.
        state: Makes a fresh object whose saved state is kept in tests/fixtures as JSON.
        monitor: What validation logs.
        make: Makes a fresh object to look at by itself: pickled, copied, asked twice; for kind "object", and for any
            other whose class has `get_extra_state`.
        use: Uses such an object and returns what came out.
        copies: Whether it can be pickled and copied; False for what holds a lock or a file.
        file: (ending of its files in tests/fixtures, what loads them), for classes with a `save` of their own.
    """

    kind: Kind
    build: Callable[[int, int], Setup] | None = None
    resume: Literal["exact", "loader", "epoch"] | None = None
    without: Callable[[], Setup] | None = None
    disabled: dict[str, Callable[[], Setup]] = field(default_factory=dict)
    state: Callable[[], Any] | None = None
    monitor: str = "val_loss"
    make: Callable[[], Any] | None = None
    use: Callable[[Any], torch.Tensor] | None = None
    copies: bool = True
    file: tuple[str, Callable[[Path], Any]] | None = None
