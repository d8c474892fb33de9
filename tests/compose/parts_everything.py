"""A selection, RS2 guided by losses, SAA's flags and an error memory in one run, beside what Lightning brings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint

from tests.compose import acting
from tests.compose.parts import chosen, guided, memory
from tests.compose.parts_saa import Asking
from tests.compose.stacks import LOSS, MEMORY, SAA, SELECTION, Stack, served
from tests.saa.entries import selection as naive

FOUR = Stack(
    (SELECTION, LOSS, SAA, MEMORY),
    {
        "selection": chosen,
        "rs2": guided,
        "saa": partial(naive, min_coverage=0.4),
        "memory": memory,
    },
    acting.all_of(acting.halved, acting.guides, acting.flags),
    module=Asking,
    order=("selection", "rs2"),
    stream=served,
)
WITH: dict[str, Any] = {"accumulate_grad_batches": 2, "max_epochs": 6, "enable_checkpointing": True}


def lightnings(folder: Path) -> dict[str, Callback]:
    """Lightning's own: averaged weights, checkpoints by a metric, and a stop that would come much later."""
    best: dict[str, Any] = {"monitor": "val_loss", "save_last": True, "save_top_k": -1}
    return {
        "ema": EMAWeightAveraging(decay=0.9),
        "checkpoint": ModelCheckpoint(folder, "best-{epoch}", **best),
        "stopping": EarlyStopping("val_loss", patience=3),
    }
