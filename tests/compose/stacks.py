"""Several methods in one Trainer: the stacks that tests run whole, in every order, resumed, in two processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from lightning_adapt import DiversitySelectionCallback, InitialStateTuning, RS2DataModule
from tests.compose import acting
from tests.compose.parts import (
    ClickData,
    Letters,
    N,
    Tabular,
    chains,
    chosen,
    clicks,
    guided,
    memory,
    pictures,
    rs2,
    tuning,
)
from tests.compose.parts_saa import Asking, OneLogit, tested_images
from tests.foreign_clicks import click_stream, noted
from tests.foreign_gla import ChainData
from tests.foreign_images import ForeignFixMatch
from tests.lina_speech.entries import speech, training
from tests.saa.entries import data as images
from tests.saa.entries import selection as naive

RS2 = "RS2Callback"
LOSS = 'RS2Callback(mode="loss")'
RS2_DATA = "RS2DataModule"
MEMORY = "ErrorMemoryCallback"
SAA_DATA = "SAADataModule"
SAA = "SampleAdaptiveAugmentation"
SELECTION = "DiversitySelectionCallback"
SPEECH = "TextSpeechDataModule"
TUNING = "InitialStateTuning"
PIECES = (RS2, LOSS, RS2_DATA, MEMORY, SAA_DATA, SAA, SELECTION, SPEECH, TUNING)


@dataclass(frozen=True)
class Stack:
    """Methods that share a run.

    Attributes:
        pieces: Which main pieces of the methods are in it.
        callbacks: Makes each callback, by a short name, in an order that is allowed.
        acts: Asserts that each of them did something.
        module: Makes the module; it notes in `seen` what it was trained on.
        data: (workers, rows of a batch) -> what `fit` gets.
        order: Two callbacks, the first of which must stand before the second; the other order must raise.
        batch_size: Rows of a global batch.
        stream: Makes what is served after training, where something serves.
        ranks: Whether it is run in two processes, too.
    """

    pieces: tuple[str, ...]
    callbacks: dict[str, Callable[[], Any]]
    acts: acting.Act
    module: Callable[[], Any] = Tabular
    data: Callable[..., dict[str, Any]] = clicks
    order: tuple[str, str] = ("", "")
    batch_size: int = 4
    stream: Callable[[], Any] | None = None
    ranks: bool = False


def served() -> Any:
    return click_stream(8, 32)


def wrapped(make: Callable[..., Any], ratio: float = 0.5, **options: Any) -> Callable[..., dict[str, Any]]:
    return lambda workers=0, batch_size=8: {"datamodule": RS2DataModule(make(workers, batch_size), ratio, **options)}


def click_data(workers: int = 0, batch_size: int = 4) -> ClickData:
    return ClickData(workers, batch_size)


def chain_data(workers: int = 0, batch_size: int = 4) -> ChainData:
    return ChainData(workers, batch_size, n=N)


def spoken(workers: int = 0, batch_size: int = 8) -> dict[str, Any]:
    return {"datamodule": speech(workers, batch_size)}


def of_voices(**options: Any) -> DiversitySelectionCallback:
    """Half of the 32 utterances, by vectors of ours."""
    vectors = torch.randn(32, 3, generator=torch.Generator().manual_seed(3))
    settings: dict[str, Any] = {"k": 2, "engine": "torch", "embedder": vectors, "lr_horizon": "ignore"}
    return DiversitySelectionCallback(16, **{**settings, **options})


def three_voices() -> InitialStateTuning:
    return InitialStateTuning(["voice 0", "voice 1", "voice 2"], patience=None, learning_rate=1.0)


speaker = noted(training)
rounds, of_speech = acting.rounds_of(24, N), acting.rounds_of(16, 32)

STACKS: dict[str, Stack] = {
    "rs2, memory": Stack(
        (RS2, MEMORY),
        {"rs2": rs2, "memory": memory},
        acting.all_of(rounds, acting.served),
        stream=served,
        ranks=True,
    ),
    "guided rs2, memory": Stack(
        (LOSS, MEMORY),
        {"rs2": guided, "memory": memory},
        acting.all_of(acting.guides, acting.served),
        stream=served,
    ),
    "rs2 data, memory": Stack(
        (RS2_DATA, MEMORY),
        {"memory": memory},
        acting.all_of(rounds, acting.served),
        data=wrapped(click_data),
        stream=served,
    ),
    "selection, memory": Stack(
        (SELECTION, MEMORY),
        {"selection": chosen, "memory": memory},
        acting.all_of(acting.inside, acting.served),
        stream=served,
    ),
    "selection, rs2": Stack(
        (SELECTION, RS2),
        {"selection": chosen, "rs2": rs2},
        acting.halved,
        order=("selection", "rs2"),
        ranks=True,
    ),
    "selection, guided rs2": Stack(
        (SELECTION, LOSS),
        {"selection": chosen, "rs2": guided},
        acting.all_of(acting.halved, acting.guides),
        order=("selection", "rs2"),
    ),
    "selection in rounds, rs2": Stack(
        (SELECTION, RS2),
        {"selection": partial(chosen, rounds=2, epochs_per_round=2), "rs2": rs2},
        acting.all_of(acting.inside, acting.in_rounds),
        order=("selection", "rs2"),
        ranks=True,
    ),
    "saa, rs2": Stack(
        (SAA_DATA, SAA, RS2),
        {"saa": naive, "rs2": partial(rs2, ratio=0.3, loader="unlabeled")},
        acting.all_of(acting.rounds_of(32, 107), acting.flags),
        module=ForeignFixMatch,
        data=pictures,
        batch_size=8,
        ranks=True,
    ),
    "saa, guided rs2": Stack(
        (SAA_DATA, SAA, LOSS),
        {"saa": naive, "rs2": partial(guided, ratio=0.3, loader="unlabeled")},
        acting.all_of(acting.flags, acting.guides),
        module=ForeignFixMatch,
        data=pictures,
        batch_size=8,
    ),
    "saa, rs2 data": Stack(
        (SAA_DATA, SAA, RS2_DATA),
        {"saa": naive},
        acting.all_of(acting.rounds_of(32, 107), acting.flags),
        module=ForeignFixMatch,
        data=wrapped(images, 0.3, loader="unlabeled"),
        batch_size=8,
    ),
    "saa, memory": Stack(
        (SAA_DATA, SAA, MEMORY),
        {"saa": naive, "memory": memory},
        acting.all_of(acting.flags, acting.served_images),
        module=OneLogit,
        data=pictures,
        batch_size=8,
        stream=tested_images,
    ),
    "saa, selection": Stack(
        (SAA, SELECTION),
        {"saa": partial(naive, min_coverage=0.4), "selection": chosen},
        acting.all_of(acting.inside, acting.flags, acting.asked),
        module=Asking,
    ),
    "tuning, rs2": Stack(
        (TUNING, RS2),
        {"tuning": tuning, "rs2": rs2},
        acting.all_of(rounds, acting.tuned),
        module=Letters,
        data=chains,
        ranks=True,
    ),
    "tuning, guided rs2": Stack(
        (TUNING, LOSS),
        {"tuning": tuning, "rs2": guided},
        acting.all_of(acting.guides, acting.tuned),
        module=Letters,
        data=chains,
    ),
    "tuning, rs2 data": Stack(
        (TUNING, RS2_DATA),
        {"tuning": tuning},
        acting.all_of(rounds, acting.tuned),
        module=Letters,
        data=wrapped(chain_data),
    ),
    "tuning, selection": Stack(
        (TUNING, SELECTION),
        {"tuning": tuning, "selection": chosen},
        acting.all_of(acting.inside, acting.tuned),
        module=Letters,
        data=chains,
    ),
    "speech, rs2": Stack(
        (SPEECH, RS2), {"rs2": rs2}, acting.all_of(of_speech), module=speaker, data=spoken, batch_size=8
    ),
    "speech, rs2 data": Stack(
        (SPEECH, RS2_DATA), {}, acting.all_of(of_speech), module=speaker, data=wrapped(speech), batch_size=8
    ),
    "speech, selection, rs2": Stack(
        (SPEECH, SELECTION, RS2),
        {"selection": of_voices, "rs2": rs2},
        acting.all_of(acting.inside_of(16), acting.halved_of(16)),
        module=speaker,
        data=spoken,
        order=("selection", "rs2"),
        batch_size=8,
        ranks=True,
    ),
    "speech, tuning, rs2": Stack(
        (SPEECH, TUNING, RS2),
        {"tuning": three_voices, "rs2": rs2},
        acting.all_of(of_speech, acting.tuned),
        module=speaker,
        data=spoken,
        batch_size=8,
    ),
}
