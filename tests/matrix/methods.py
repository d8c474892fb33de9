"""The columns of the matrix: how a method is attached to a foreign module, and what shows that it acted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_adapt import (
    DiversitySelectionCallback,
    ErrorMemoryCallback,
    InitialStateTuning,
    RS2Callback,
    RS2DataModule,
    SAADataModule,
    SampleAdaptiveAugmentation,
    rs2_loader,
)
from tests.matrix import modules_fixmatch, modules_gru
from tests.matrix.runs import Run, plain, run
from tests.matrix.subjects import BATCH, EPOCHS, N_ROWS, SUBJECTS, Subject
from tests.reference.rs2 import key_of, randperm, stream_round

__all__ = ["METHODS", "Method"]

K = 12  # rows of a round at ratio 0.3
BUDGET, GROUPS = 16, 4


@dataclass(frozen=True)
class Method:
    """A way to use the package.

    Attributes:
        title: Column of the table.
        check: (name of the subject, what is added to its module) -> nothing; raises AssertionError if it did not act.
        make: Makes the callback; None where the method stands in place of the data.
        addition: What `Subject.added` adds, in words for the table.
    """

    title: str
    check: Callable[[str, Any], None]
    make: Callable[..., Any] | None = None
    addition: str = ""


def options_of(subject: Subject, method: str) -> dict[str, Any]:
    """The arguments of a subject; instances are made anew."""
    return {name: value() if callable(value) else value for name, value in subject.options.get(method, {}).items()}


# -- RS2 --------------------------------------------------------------------------------------------------------------
def make_rs2(subject: Subject, **options: Any) -> Any:
    return RS2Callback(0.3, **{"loader": subject.loader, **options})


def expected_rounds(size: int) -> list[list[int]]:
    """The rounds of the independent reference: two passes are enough for all of them."""
    passes = [randperm(N_ROWS, key_of(0, 0, 0), number) for number in range(2)]
    return [stream_round(passes, number, size) for number in range(EPOCHS)]


def check_rounds(done: Run) -> None:
    assert done.rows == expected_rounds(K)
    assert {len(batch) for epoch in done.epochs for batch in epoch} == {BATCH}
    # optimizers that were stepped by hand, or after several batches, follow
    assert len(done.epochs[0]) == done.trainer.num_training_batches == K // BATCH


def check_rs2(name: str, added: Any) -> None:
    subject = SUBJECTS[name]
    done = run(subject, [make_rs2(subject)], module=added)
    check_rounds(done)
    assert done.trainer.callback_metrics["rs2/coverage"] == min(1.0, EPOCHS * K / N_ROWS)


def make_rs2_loss(subject: Subject, **options: Any) -> Any:
    given = {"mode": "loss", "warm_rounds": 1, "loader": subject.loader, **options_of(subject, "rs2 loss")}
    return RS2Callback(0.5, **{**given, **options})


def check_rs2_loss(name: str, added: Any) -> None:
    subject = SUBJECTS[name]
    ours = make_rs2_loss(subject)
    done = run(subject, [ours], module=added)
    size = N_ROWS // 2
    plain_rounds = expected_rounds(size)
    assert done.rows[0] == plain_rounds[0]
    assert {len(set(rows)) for rows in done.rows} == {size}
    assert done.rows[1:] != plain_rounds[1:], "no round was guided"
    last: dict[int, float] = {}
    for rows, kept in done.returned:
        last.update(zip(rows, kept[ours.loss_key].tolist(), strict=True))
    guide = ours.sampler.guide  # the losses of the last round are handed over when the next one begins
    before = {row: loss for row, loss in last.items() if row not in done.rows[-1]}
    assert before
    assert {row: guide.losses[row].item() for row in before} == before


def check_rs2_data(name: str, added: Any) -> None:
    subject = SUBJECTS[name]
    if added is not None:
        check_weighted(run(subject, data=added()))
        return
    data, options = subject.data(), {"loader": subject.loader}
    if "datamodule" in data:
        data = {"datamodule": RS2DataModule(data["datamodule"], 0.3, **options)}
    else:  # raw loaders, or the module's own passed to `fit`
        loader = data["train_dataloaders"] if data else subject.module().train_dataloader()
        data = {**data, "train_dataloaders": rs2_loader(loader, 0.3)}
    check_rounds(run(subject, data=data))


def check_weighted(done: Run) -> None:
    """One row in five is of the rare class, and four times as likely."""
    assert [len(set(rows)) for rows in done.rows] == [K] * EPOCHS
    assert len({tuple(sorted(rows)) for rows in done.rows}) == EPOCHS
    assert sum(row % 5 == 0 for rows in done.rows for row in rows) > 1.5 * EPOCHS * K / 5


# -- error memory -----------------------------------------------------------------------------------------------------
def make_memory(subject: Subject, **options: Any) -> Any:
    return ErrorMemoryCallback(**{**options_of(subject, "memory"), **options})


def check_memory(name: str, added: Any) -> None:
    subject, without = SUBJECTS[name], plain(name)
    ours = make_memory(subject)
    done = run(subject, [ours], module=added, test=True, max_epochs=1)
    assert same(done, without), "training was touched"
    served = {key: value for part in done.tested for key, value in part.items() if key.startswith("reloop2/")}
    theirs = [{key: value for key, value in part.items() if key not in served} for part in done.tested]
    assert ours.memory.n_written > 0
    assert theirs != without.tested, "`test_step` saw what the model said, not what was served"
    metric = next(key for key in ("reloop2/test_logloss", "reloop2/test_mse") if key in served)
    assert served[metric] != served[metric.replace("test_", "test_base_")]


# -- SAA --------------------------------------------------------------------------------------------------------------
def make_saa(subject: Subject, **options: Any) -> Any:
    given = {"warmup": 0, "threshold": "quantile:0.5", **options_of(subject, "saa")}
    return SampleAdaptiveAugmentation(**{**given, **options})


def check_saa(name: str, added: Any) -> None:
    subject = SUBJECTS[name]
    ours = make_saa(subject)
    done = run(subject, [ours], module=added)
    never = run(subject, [make_saa(subject, warmup=1.0)], module=added)
    assert ours.history.coverage == 1
    assert 0 < ours.history.naive_share < 1
    assert done.rows == never.rows
    assert not equal(done.weights, never.weights), "flags changed no view"


def check_saa_data(name: str, added: Any) -> None:
    subject = SUBJECTS[name]
    options = {"n_labels": 8, "batch_size": BATCH, "mu": 2, "steps_per_epoch": 5, "flip": False}
    data = SAADataModule(image_rows(subject), val=image_rows(subject), **options)
    ours = SampleAdaptiveAugmentation(warmup=0, threshold="quantile:0.5")
    if added is None:
        run(replace(subject, marks=nothing, known=None), [ours], data={"datamodule": data})
        return
    regrouped = []

    class Kind(added):  # counts what the data module composed
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            regrouped.append(int(batch["unlabeled"]["regrouped"].sum()))
            return super().training_step(batch, batch_idx)

    once = replace(subject, marks=lambda batch: batch["unlabeled"]["index"])
    done = run(once, [ours], module=Kind, data={"datamodule": data})
    assert {len(set(rows)) for rows in done.rows} == {N_ROWS}
    assert sum(regrouped[:5]) == 0 < sum(regrouped[5:])


def image_rows(subject: Subject) -> Any:
    """The train set of a subject as it is; of the FixMatch, its pictures with labels."""
    if "saa data" in subject.added:
        return TensorDataset(*modules_fixmatch.pictures(N_ROWS, 52))
    data = subject.data()
    source = data.get("datamodule")
    if source is not None and hasattr(source, "setup"):
        source.prepare_data()
        source.setup("fit")
    loader = data.get("train_dataloaders")
    return ((source or subject.module()).train_dataloader() if loader is None else loader).dataset


# -- selection --------------------------------------------------------------------------------------------------------
def vectors() -> Tensor:
    """Four groups of rows, one vector each."""
    noise = torch.randn(N_ROWS, 3, generator=torch.Generator().manual_seed(4)) * 0.1
    corners = torch.tensor([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    return corners[torch.arange(N_ROWS) % GROUPS] + noise


def by_group(examples: Any, module: Any) -> Tensor:
    """Rates rows by their group: those of group 0 are the worst."""
    return (examples.rows % GROUPS).double()


def make_selection(subject: Subject, **options: Any) -> Any:
    given = {"k": GROUPS, "rounds": 2, "embedder": vectors(), "scorer": by_group, "engine": "torch", "shrink": 0.0}
    given |= {"loader": subject.loader, "tau": 0.5, **options_of(subject, "selection")}
    return DiversitySelectionCallback(BUDGET, "km_random", **{**given, **options})


def check_selection(name: str, added: Any) -> None:
    subject = SUBJECTS[name]
    ours = make_selection(subject)
    done = run(subject, [ours], module=added)
    first, *later = (sorted(rows) for rows in done.rows)
    chosen = ours.selection.rows.tolist()
    assert len(set(chosen)) == BUDGET
    assert len(set(first)) == len(first) == BUDGET // 2
    assert set(first) < set(chosen)
    assert later == [sorted(chosen)] * (EPOCHS - 1)
    weights = ours.selection.log_weights.exp()
    assert weights.max() > 1.5 * weights.min(), "the scores moved no weight"


# -- initial states ---------------------------------------------------------------------------------------------------
def nothing(batch: Any) -> Tensor:
    return torch.empty(0)


def other_tunes() -> dict[str, Any]:
    return {"datamodule": modules_gru.MelodyData(step=4)}


def make_tuning(subject: Subject, **options: Any) -> Any:
    return InitialStateTuning(**{"rank": "full", "learning_rate": 0.3, **options_of(subject, "tuning"), **options})


def check_tuning(name: str, added: Any) -> None:
    subject, base = SUBJECTS[name], {}

    def trained() -> Any:
        module = (added or subject.module)()
        if added is not None:  # otherwise it is refused before anything is trained
            base.update(plain(name).weights)
            module.load_state_dict(base)
        return module

    ours = make_tuning(subject)
    # other data than the base knows, of which the matrix needs no rows
    done = run(replace(subject, marks=nothing, known=None), [ours], module=trained, data=added and other_tunes())
    assert equal(done.weights, base), "the weights moved"
    voice = ours.tuned
    assert all(matrix.abs().max() > 0 for matrix in voice.matrices().values())
    assert voice.held_out["tuned"] < voice.held_out["untuned"]


# -- switched off -----------------------------------------------------------------------------------------------------
def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def same(first: Run, second: Run) -> bool:
    return first.epochs == second.epochs and equal(first.weights, second.weights)


def check_off(name: str, make: Callable[..., Any]) -> None:
    """Assert that a callback that is switched off changes no bit, whether the method can be used there or not."""
    subject, without = SUBJECTS[name], plain(name)
    done = run(subject, [make(subject, enabled=False)], test=True, max_epochs=1)
    assert same(done, without)
    assert done.tested == without.tested


METHODS = {
    "rs2": Method("`RS2Callback`", check_rs2, make_rs2),
    "rs2 loss": Method('`RS2Callback(mode="loss")`', check_rs2_loss, make_rs2_loss, "losses returned"),
    "rs2 data": Method("`RS2DataModule`, `rs2_loader`", check_rs2_data, None, "`RS2Sampler`"),
    "selection": Method("`DiversitySelectionCallback`", check_selection, make_selection),
    "memory": Method("`ErrorMemoryCallback`", check_memory, make_memory),
    "saa": Method("`SampleAdaptiveAugmentation`", check_saa, make_saa, "flags asked for"),
    "saa data": Method("`SAADataModule`", check_saa_data, None, "keys renamed"),
    "tuning": Method("`InitialStateTuning`", check_tuning, make_tuning, "three methods added"),
}
