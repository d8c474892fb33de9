"""The registry entries of ReLoop2: the smallest way to use each public name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory
from lightning_adapt.reloop2.callback import ErrorMemoryCallback
from lightning_adapt.reloop2.data.datamodule import PrequentialDataModule
from lightning_adapt.reloop2.data.drift_stream import DriftStream
from lightning_adapt.reloop2.data.movielens import MovieLensDataModule
from lightning_adapt.reloop2.incremental import IncrementalTraining
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.metrics import PrequentialMetrics
from lightning_adapt.reloop2.models.ctr_module import CTRModule
from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor
from tests.foreign_clicks import ForeignClicks, click_columns, click_data, click_stream, noted
from tests.registry_parts import Entry, Setup
from tests.reloop2.predictor_parts import fixed_clicks

# 64 rows: 32 to train on, 16 to validate on, 16 to serve
SPLIT: dict[str, Any] = {"val_share": 0.25, "slots": 4}


def batches(workers: int, batch_size: int) -> dict[str, int]:
    return {"batch_size": batch_size, "test_batch_size": batch_size, "num_workers": workers}


# -- callbacks that serve ----------------------------------------------------------------------------------------------
def serving(make: Callable[[], Any]) -> Callable[..., Setup]:
    """A click model of somebody else, with a callback of ours."""

    def build(workers: int = 0, batch_size: int = 8) -> Setup:
        stream = {"dataloaders": click_stream(batch_size)}
        return Setup(click_data(workers, batch_size), [make()], ForeignClicks, stream)

    return build


def memory(**options: Any) -> ErrorMemory:
    return ErrorMemory(whiten=False, **options)  # eight rows are too few to whiten by


def remembered(keys: Any, memory: Any) -> torch.Tensor:
    """Corrections before and after some rows were written."""
    random = torch.Generator().manual_seed(0)
    base, chance = torch.rand(2, 60, generator=random)
    before = memory.compensate(base, keys)
    memory.write(keys, (chance < 0.5).float(), base)
    return torch.stack([before, memory.compensate(base, keys)])


VECTORS = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
KEYS = {"embedding": VECTORS, "user": torch.arange(60) % 7}


# -- data and modules --------------------------------------------------------------------------------------------------
def prequential(workers: int = 0, batch_size: int = 8) -> PrequentialDataModule:
    columns = {name: values.numpy() for name, values in click_columns(64).items()}
    columns["time"] = columns.pop("index")  # a batch has an "index" of its own
    roles = {"time": "time", "label": "label", "fields": ["user"], "numeric": [f"x{number}" for number in range(6)]}
    return PrequentialDataModule(columns, **roles, train_share=0.75, **SPLIT, **batches(workers, batch_size))


def drift_stream(workers: int = 0, batch_size: int = 8) -> DriftStream:
    sizes = {"n_users": 10, "n_items": 10, "n_categories": 3, "n_groups": 2}
    return DriftStream(n_train=48, n_stream=16, **sizes, **SPLIT, **batches(workers, batch_size))


def movielens(workers: int = 0, batch_size: int = 8) -> MovieLensDataModule:
    folder = Path("ml-100k")  # in the folder of the test
    folder.mkdir(exist_ok=True)
    tables = {
        "inter": [("user_id", "item_id", "rating", "timestamp")]
        + [(row % 9, row % 5, 1 + row * 7 % 5, 900_000_000 + row) for row in range(64)],
        "user": [("user_id", "age", "gender", "occupation")] + [(user, 20 + user, "F", "other") for user in range(9)],
        "item": [("item_id", "release_year", "class")] + [(item, 1990 + item, "Drama") for item in range(5)],
    }
    for kind, rows in tables.items():
        (folder / f"ml-100k.{kind}").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return MovieLensDataModule(".", train_share=0.75, **SPLIT, **batches(workers, batch_size))


def with_ctr_module(make: Callable[[int, int], Any]) -> Callable[..., Setup]:
    """A DataModule of ours under a `CTRModule`."""

    def build(workers: int = 0, batch_size: int = 8) -> Setup:
        data = make(workers, batch_size)
        module = noted(lambda: CTRModule(data.field_sizes, embedding_dim=2, hidden=(4,)))
        return Setup({"datamodule": data}, [], module, {"datamodule": data})

    return build


def with_foreign_module(workers: int = 0, batch_size: int = 8) -> Setup:
    data = prequential(workers, batch_size)
    return Setup({"datamodule": data}, [], ForeignClicks, {"datamodule": data})


def measured(metrics: PrequentialMetrics) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    prediction, base, chance = torch.rand(3, 60, generator=random)
    metrics.update(prediction, (chance < prediction).long(), base=base, group=torch.arange(60) % 5)
    return torch.stack(list(metrics.compute().values()))


class Score(torch.nn.Module):
    """A click model in a few lines, whose weights come from no random numbers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            self.out = torch.nn.Linear(4, 1)
        torch.nn.init.constant_(self.out.weight, 0.3)
        torch.nn.init.zeros_(self.out.bias)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.out(rows)


def answered(predictor: ErrorMemoryPredictor) -> torch.Tensor:
    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(2))
    first = predictor.predict(rows, list(range(20)))
    predictor.feedback(list(range(20)), [row % 2 for row in range(20)])
    return torch.stack([first, predictor.predict(rows, list(range(20, 40)))])


ENTRIES: dict[str, Entry] = {
    "ErrorMemoryPredictor": Entry(
        kind="object",
        make=lambda: ErrorMemoryPredictor(Score(), memory()),
        use=answered,
        copies=False,
        file=(".safetensors", lambda path: ErrorMemoryPredictor.load(path, fixed_clicks())),
    ),
    "ErrorMemoryCallback": Entry(
        kind="serving",
        build=serving(ErrorMemoryCallback),
        resume="loader",
        disabled={
            "enabled=False": serving(lambda: ErrorMemoryCallback(enabled=False)),
            "lam=0": serving(lambda: ErrorMemoryCallback(memory(lam=0.0))),
        },
        state=ErrorMemoryCallback,
    ),
    "IncrementalTraining": Entry(
        kind="serving",
        build=serving(lambda: IncrementalTraining(0.01)),
        resume="loader",
        disabled={"enabled=False": serving(lambda: IncrementalTraining(enabled=False))},
        state=IncrementalTraining,
    ),
    "ErrorMemory": Entry(  # serves through its callback
        kind="serving",
        build=serving(lambda: ErrorMemoryCallback(memory())),
        resume="loader",
        make=memory,
        use=lambda made: remembered(VECTORS, made),
        file=(".safetensors", ErrorMemory.load),
    ),
    "AdaptiveErrorMemory": Entry(
        kind="serving",
        build=serving(lambda: ErrorMemoryCallback(AdaptiveErrorMemory())),
        resume="loader",
        make=AdaptiveErrorMemory,
        use=lambda made: remembered(KEYS, made),
        file=(".safetensors", AdaptiveErrorMemory.load),
    ),
    "PrequentialDataModule": Entry(kind="data", build=with_foreign_module, resume="exact", state=prequential),
    # these resume as the one above does; that is not shown again in all its cases
    "DriftStream": Entry(kind="data", build=with_ctr_module(drift_stream), resume="loader", monitor="val_logloss"),
    "MovieLensDataModule": Entry(kind="data", build=with_ctr_module(movielens), resume="loader", monitor="val_logloss"),
    "CTRModule": Entry(kind="module", build=with_ctr_module(drift_stream), resume="loader", monitor="val_logloss"),
    "PrequentialMetrics": Entry(kind="object", make=lambda: PrequentialMetrics(n_slots=3), use=measured),
}
