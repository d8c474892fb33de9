"""What cannot work says so before training, in the words of the user: argument, what is allowed, what came."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, WeightedRandomSampler

from lightning_adapt import RS2Callback, RS2Sampler
from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.scoring.scorers import EmbeddingRelevanceScorer
from tests.divconq.rounds_parts import Asks, N, Texts, fit, row_loader, selection, vectors
from tests.foreign import numbered_rows, trainer


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"budget": 0}, ValueError, "budget"),
        ({"budget": "many"}, ValueError, "budget"),
        ({"method": "best"}, ValueError, "method"),
        ({"method": "random", "rounds": 2}, ValueError, "several rounds"),
        ({"rounds": 0}, ValueError, "rounds"),
        ({"epochs_per_round": 0}, ValueError, "epochs_per_round"),
        ({"k": 0}, ValueError, "`k`"),
        ({"update": "sum"}, ValueError, "update"),
        ({"tau": 0}, ValueError, "tau"),
        ({"drop_below": 2}, ValueError, "drop_below"),
        ({"round_init": "new"}, ValueError, "round_init"),
        ({"text": "answers"}, ValueError, "text"),
        ({"lr_horizon": "stop"}, ValueError, "lr_horizon"),
        ({"loader": 1.5}, TypeError, "loader"),
        ({"out_dir": 3}, TypeError, "out_dir"),
        ({"enabled": 1}, TypeError, "enabled"),
        ({"log_figure": None}, TypeError, "log_figure"),
        ({"seed": -1}, ValueError, "seed"),
        ({"scorer": "best"}, TypeError, "scorer"),
        ({"scorer": EmbeddingRelevanceScorer()}, ValueError, r"`scorer` must be left at None with rounds=1"),
        ({"epochs_per_round": 2}, ValueError, "`epochs_per_round` must be left at 1 with rounds=1"),
        ({"round_init": "restart"}, ValueError, "`round_init` must be left at 'continue' with rounds=1"),
        ({"initial_weights": "proportional"}, ValueError, "`initial_weights` must be left at 'uniform' with rounds=1"),
        ({"update": "ratio"}, ValueError, "`update`.*Ask for several rounds"),
        ({"rounds": 2, "quota": "equal"}, ValueError, "`quota` must be left at 'proportional' with rounds=2"),
        ({"method": "k_center", "k": 3}, ValueError, "`k` must be left at 'auto' with method='k_center'"),
        ({"method": "km_closest", "quota": "equal"}, ValueError, "`quota`.*method='km_closest'"),
        ({"method": "km_random", "quality": torch.ones(N)}, ValueError, "`quality` must be left at None"),
        ({"method": "random", "embedder": vectors()}, ValueError, "`embedder`.*which uses no vectors"),
        ({"method": "random", "text": "response"}, ValueError, "`text`.*which uses no vectors"),
        ({"method": "random", "log_figure": True}, ValueError, "`log_figure`.*which uses no vectors"),
    ],
)
def test_arguments(options, error, match):
    with pytest.raises(error, match=match):
        DiversitySelectionCallback(**{"budget": 10, **options})


def test_what_is_used_is_accepted():
    selection(method="random", dedup="near", embedder=vectors())
    selection(rounds=2, epochs_per_round=2, round_init="restart", update="ratio", initial_weights="proportional")
    selection(method="k_center", scorer=None, quality=None, k="auto", log_figure=True)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`out_dir` must be a folder"):
        DiversitySelectionCallback(10, out_dir=tmp_path / "file")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(numbered_rows(8))


def other_batches():
    from torch.utils.data import BatchSampler, SequentialSampler

    class Own(BatchSampler):
        pass

    return DataLoader(numbered_rows(N), batch_sampler=Own(SequentialSampler(range(N)), 4, drop_last=False))


CASES = {
    "more rows than there are": (lambda: selection(61), row_loader, {}, "budget"),
    "too few epochs": (
        lambda: selection(rounds=3),
        row_loader,
        {"max_epochs": 2},
        "at least 3 for 3 rounds.*but got 2",
    ),
    "epochs of rounds": (lambda: selection(rounds=3, epochs_per_round=2), row_loader, {}, "at least 5 for 3 rounds"),
    "overfitting": (lambda: selection(), row_loader, {"overfit_batches": 2}, "overfit_batches"),
    "too few vectors": (lambda: selection(embedder=vectors(59)), row_loader, {}, "60 rows long, but got 59"),
    "numbers that are none": (lambda: selection(embedder=broken(math.nan)), row_loader, {}, "1 rows? with NaN"),
    "infinite numbers": (lambda: selection(embedder=broken(math.inf)), row_loader, {}, "finite"),
    "quality of others": (lambda: selection(method="kmq", quality=torch.ones(7)), row_loader, {}, "60 numbers long"),
    "quality without numbers": (lambda: selection(method="kmq", quality=[math.nan] * N), row_loader, {}, "finite"),
    "quality of texts": (
        lambda: selection(method="kmq", quality=len),
        row_loader,
        {},
        "`quality` must be an array or a column where rows have no texts",
    ),
    "no texts": (lambda: DiversitySelectionCallback(10, "kmq"), row_loader, {}, "embedder=<array>"),
    "a stream": (lambda: selection(), lambda: DataLoader(Stream(), 4), {}, "map-style"),
    "weighted": (lambda: selection(), lambda: weighted(), {}, "WeightedRandomSampler"),
    "own batches": (lambda: selection(), other_batches, {}, "batch_sampler"),
    "sampled already": (lambda: selection(), lambda: sampled(), {}, "before RS2Callback"),
    "several loaders": (lambda: selection(), lambda: {"a": row_loader(), "b": row_loader()}, {}, "pass loader='a'"),
    "an unknown loader": (lambda: selection(loader="c"), lambda: {"a": row_loader(), "b": row_loader()}, {}, "'c'"),
    "no whole batch later": (
        lambda: selection(11, rounds=3, train_on="new"),
        lambda: row_loader(drop_last=True),
        {},
        "3 rows a round for a global batch of 4",
    ),
    "no whole batch": (lambda: selection(3), lambda: row_loader(drop_last=True), {}, "enough for a batch"),
    "a scorer without embedder": (lambda: selection(rounds=2, scorer=None), row_loader, {}, "cannot embed"),
    "the same by hand": (
        lambda: selection(rounds=2, scorer=EmbeddingRelevanceScorer()),
        row_loader,
        {},
        "cannot embed",
    ),
}


def broken(value):
    found = vectors()
    found[7, 1] = value
    return found


def weighted():
    return row_loader(shuffle=None, sampler=WeightedRandomSampler([1.0] * N, N))


def sampled():
    return row_loader(shuffle=None, sampler=RS2Sampler(N, 0.5))


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_together(name, tmp_path):
    make, data, options, match = CASES[name]
    module = Asks(estimate_steps=False)
    callback, loaders = make(), data()
    with pytest.raises(MisconfigurationException, match=match):
        fit(tmp_path, [callback], module, loaders, **{"max_epochs": 4, **options})
    assert not module.seen
    fit(tmp_path, [selection()], module, max_epochs=1)  # the mistake mended, in the same process


def test_rs2_before_it_is_named(tmp_path):
    with pytest.raises(MisconfigurationException, match="list DiversitySelectionCallback before RS2Callback"):
        fit(tmp_path, [RS2Callback(0.5), selection()], max_epochs=1)


def test_a_scorer_that_returns_too_few_numbers(tmp_path):
    with pytest.raises(ValueError, match="scorer"):
        fit(tmp_path, [selection(rounds=2, scorer=lambda examples, module: [1.0])], max_epochs=2)


def test_a_scorer_that_needs_answers_where_there_are_no_texts(tmp_path):
    class Needs:
        needs_generation = True

        def __call__(self, examples, module):
            return [0.0] * len(examples)

    with pytest.raises(ValueError, match="without generation where rows have no texts"):
        fit(tmp_path, [selection(rounds=2, scorer=Needs())], max_epochs=2)


def test_no_scorer_is_no_function(tmp_path):
    with pytest.raises(TypeError, match="scorer"):
        fit(tmp_path, [selection(rounds=2, scorer="best")], max_epochs=2)


def test_rows_without_a_response_are_named(tmp_path):
    class Empty(Texts):
        def conversation(self, row):
            turns = super().conversation(row)
            return (turns[0], ("assistant", "  ")) if row in (3, 5) else turns

    with pytest.warns(UserWarning, match=r"2 of 40 rows have an empty response; the first is row 3"):
        fit(tmp_path, [DiversitySelectionCallback(8, "random")], data=DataLoader(Empty(), 4), max_epochs=1)


def test_a_folder_that_cannot_be_written_leaves_no_files(tmp_path):
    (tmp_path / "blocked").write_text("a file where the folder's parent should be")
    callback = selection(out_dir=tmp_path / "blocked" / "out")
    with pytest.raises(OSError, match="blocked"):
        fit(tmp_path, [callback], max_epochs=1)


def test_a_data_set_that_changes_when_loaders_are_made_anew(tmp_path):
    class Shrinks(Asks):
        def train_dataloader(self):
            self.asked = getattr(self, "asked", 0) + 1
            return row_loader(n=N if self.asked == 1 else 40)

    runner = trainer(tmp_path, [selection()], reload_dataloaders_every_n_epochs=1)
    with pytest.raises(MisconfigurationException, match="over 60 rows, as before, but got 40"):
        runner.fit(Shrinks())


def test_a_subset_that_changes_when_loaders_are_made_anew(tmp_path):
    class Splits(Asks):
        def train_dataloader(self):
            self.asked = getattr(self, "asked", 0) + 1
            return DataLoader(Subset(numbered_rows(N), range(20 * self.asked)[-20:]), 4)

    class Samples(Splits):
        def train_dataloader(self):
            return row_loader(shuffle=None, sampler=SubsetRandomSampler(super().train_dataloader().dataset.indices))

    for make in (Splits, Samples):
        runner = trainer(tmp_path, [selection(8, "random")], reload_dataloaders_every_n_epochs=1)
        with pytest.raises(MisconfigurationException, match="over the rows it had before, but got 'other rows'"):
            runner.fit(make())


def test_the_way_out_is_this_callbacks(tmp_path):
    for loaders, match in (
        ({"a": row_loader(), "b": row_loader()}, r"mode='min_size'\), or raise `budget`\.$"),
        ({"a": weighted()}, r"drop the weighted sampler\.$"),
    ):
        with pytest.raises(MisconfigurationException, match=match):
            fit(tmp_path, [selection(12, loader="a")], data=loaders, max_epochs=1)


def test_arrays_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="shape"):
        fit(tmp_path, [selection(embedder=np.zeros(N, dtype=np.float32))], max_epochs=1)
