"""The registry entry of initial-state tuning: on a language model that knows nothing of speech."""

from __future__ import annotations

from typing import Any

import torch

from lightning_adapt import RS2DataModule
from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from tests.foreign_clicks import noted
from tests.foreign_gla import ChainData, ForeignGLA
from tests.registry_parts import Entry, Setup


class Remembering(ForeignGLA):
    """Keeps the states it was given last where its weights are looked at: as bits, which are no weights."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, shape in self.initial_state_shapes().items():
            self.register_buffer(f"given_{name[-1]}", torch.zeros(shape, dtype=torch.int32))

    def use_initial_states(self, states: Any) -> None:
        super().use_initial_states(states)
        for name, value in (states or {}).items():
            getattr(self, f"given_{name[-1]}").copy_(value[0].detach().contiguous().view(torch.int32))


def tuning(**options: Any) -> InitialStateTuning:
    return InitialStateTuning("ada", **{"patience": None, **options})


def on_rounds(*callbacks: Any) -> Any:
    """The model on texts of one style, in rounds whose order can be resumed anywhere."""

    def build(workers: int = 0, batch_size: int = 8) -> Setup:
        made = [make() for make in callbacks]
        data, stream = RS2DataModule(ChainData(workers, batch_size), 0.3), ChainData(workers, 8)
        return Setup({"datamodule": data}, made, noted(Remembering), {"datamodule": stream})

    return build


ENTRIES: dict[str, Entry] = {
    "InitialStateTuning": Entry(
        kind="training",
        build=on_rounds(tuning),
        resume="exact",
        without=on_rounds(),
        disabled={"enabled=False": on_rounds(lambda: tuning(enabled=False))},
        state=InitialStateTuning,
    )
}
