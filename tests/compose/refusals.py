"""Pairs that do not go together: what a user does, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_adapt import DiversitySelectionCallback
from tests.compose.parts import Letters, Tabular, chains, chosen, clicks, guided, memory, pictures, rs2, tuning
from tests.compose.stacks import chain_data, of_voices, speaker, spoken, wrapped
from tests.foreign import trainer
from tests.foreign_images import ForeignFixMatch
from tests.lina_speech.entries import speech
from tests.saa.entries import selection as naive

Case = tuple[Callable[[Path], None], type[Exception], str]  # what is done, what is raised or warned, its text


def fit(make: Callable[[], list[Any]], module: Callable[[], Any], data: Callable[[], dict[str, Any]]) -> Any:
    def run(folder: Path) -> None:
        trainer(folder, make(), max_epochs=2).fit(module(), **data())

    return run


def test(make: Callable[[], Any], module: Callable[[], Any], stream: Callable[[], Any]) -> Any:
    def run(folder: Path) -> None:
        trainer(folder, [make()]).test(module(), stream(), verbose=False)

    return run


test.__test__ = False  # type: ignore[attr-defined]  # a helper, for modules that import it


def of_images() -> DiversitySelectionCallback:
    return DiversitySelectionCallback(
        16, k=2, engine="torch", embedder=torch.ones(107, 2).cumsum(0), loader="unlabeled"
    )


REFUSALS: dict[str, Case] = {
    "two rs2": (
        fit(lambda: [rs2(), guided()], Tabular, clicks),
        RuntimeError,
        "Found more than one stateful callback of type `RS2Callback`",
    ),
    "rs2 over rs2 data": (
        fit(lambda: [rs2()], Letters, wrapped(chain_data)),
        MisconfigurationException,
        "use either the callback or a sampler of your own, not both",
    ),
    "selection over rs2 data": (
        fit(lambda: [chosen()], Letters, wrapped(chain_data)),
        MisconfigurationException,
        "list DiversitySelectionCallback before RS2Callback",
    ),
    "guided speech": (
        fit(lambda: [guided()], speaker, spoken),
        MisconfigurationException,
        "`mode` must be one of .* where the loader plans whole batches, but got 'loss'. Use 'without'",
    ),
    "stratified speech": (
        fit(lambda: [rs2(stratify=True)], speaker, spoken),
        MisconfigurationException,
        "`stratify` must be False where the loader plans whole batches",
    ),
    "too small a share of speech": (
        fit(lambda: [rs2(0.1)], speaker, spoken),
        MisconfigurationException,
        r"a round of the 4 planned batches has one for each of 1 ranks, but got 0.1. Use ratio >= 0.25",
    ),
    "selection of speech in rounds": (
        fit(lambda: [of_voices(rounds=2, scorer=lambda examples, _: examples.rows)], speaker, spoken),
        MisconfigurationException,
        "`rounds` must be 1 where the loader plans whole batches",
    ),
    "selection of speech by text": (
        fit(lambda: [of_voices(embedder=None)], speaker, spoken),
        MisconfigurationException,
        "Pass vectors of your own as `embedder=<array>`",
    ),
    "selection of images": (
        fit(lambda: [naive(), of_images()], ForeignFixMatch, pictures),
        MisconfigurationException,
        "choose rows before training with `select_rows`",
    ),
    "rs2 of images without a name": (
        fit(lambda: [rs2()], ForeignFixMatch, pictures),
        MisconfigurationException,
        r"`loader` must be one of \['labeled', 'unlabeled'\]",
    ),
    "memory of speech": (
        test(memory, speaker, lambda: speech().test_dataloader()),
        MisconfigurationException,
        "no Linear",
    ),
    "memory of letters": (
        test(memory, Letters, lambda: chain_data().test_dataloader()),
        MisconfigurationException,
        r"`output_module` must be given where the model has no Linear\(., 1\)",
    ),
    "memory of classes": (
        test(memory, ForeignFixMatch, lambda: pictures()["datamodule"]),
        MisconfigurationException,
        r"`output_module` must be given where the model has no Linear\(., 1\)",
    ),
    "tuning of images": (
        fit(lambda: [tuning()], ForeignFixMatch, pictures),
        MisconfigurationException,
        "`module` must be one that accepts initial states, but got 'ForeignFixMatch'",
    ),
    "saa of letters": (
        fit(lambda: [naive(), tuning()], Letters, chains),
        MisconfigurationException,
        "`index_key` must be a key of what `training_step` returns",
    ),
    "saa of speech": (
        fit(lambda: [naive()], speaker, spoken),
        UserWarning,
        "flags samples, but nothing asks for the flags",
    ),
}
