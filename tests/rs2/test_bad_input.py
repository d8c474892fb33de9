# ruff: noqa: E501 - one case per line
"""Every wrong use names the argument, what is allowed, what came and what to do; and the advice works."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from lightning_adapt import RS2Callback, RS2DataModule, RS2Sampler, rs2_loader
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt.rs2.functional import expected_coverage, permute, round_size
from tests.foreign import ForeignData
from tests.rs2.parts import Module, Rows, row_loader, small_trainer


class Stream(IterableDataset):
    def __iter__(self):
        yield from torch.zeros(8, 1)


class OwnIteration(DataLoader):
    def __iter__(self):
        return super().__iter__()


class OwnBatches(BatchSampler):
    pass


class OwnSampler(Sampler):
    def __init__(self):
        pass

    def __iter__(self):
        return iter(range(80))

    def __len__(self):
        return 80


def fit(train, *callbacks, **options):
    small_trainer(*(callbacks or [RS2Callback(0.25)]), **{"max_epochs": 2, **options}).fit(Module(), train)


def resume(tmp_path, train=None, **changed):
    """Save after one round, then continue with something changed."""
    first = small_trainer(RS2Callback(0.25), max_epochs=1)
    first.fit(Module(), row_loader())
    first.save_checkpoint(tmp_path / "one.ckpt")
    again = small_trainer(RS2Callback(**{"ratio": 0.25, **changed}), max_epochs=2)
    again.fit(Module(), row_loader() if train is None else train, ckpt_path=tmp_path / "one.ckpt", weights_only=True)


def loader_state_into(other):
    other.load_state_dict(rs2_loader(row_loader(), 0.25).state_dict())


T, V, M = TypeError, ValueError, MisconfigurationException
# what is done wrong -> error, argument, what is allowed, what came, what to do
CASES = {
    "ratio above one": (lambda: RS2Sampler(80, 1.5), V, "`ratio`", "in (0, 1]", "1.5", "Pass 0.1"),
    "ratio zero": (lambda: RS2Callback(0), V, "`ratio`", "in (0, 1]", "got 0", "Pass 0.1"),
    "ratio not a number": (lambda: RS2Callback("0.1"), T, "`ratio`", "a number", "'0.1'", "Pass 0.1"),
    "ratio nan": (lambda: RS2Sampler(80, float("nan")), V, "`ratio`", "in (0, 1]", "nan", "Pass 0.1"),
    "ratio too small": (lambda: len(RS2Sampler(80, 0.001)), V, "`ratio`", "fills one global batch of 1", "0.001", "ratio >= 0.0125"),
    "global batch above a round": (
        lambda: RS2Sampler(80, 0.1, round_to=8, num_replicas=2, rank=0),
        V, "`ratio`", "global batch of 16 samples", "0.1", "ratio >= 0.2",
    ),
    "global batch above the data": (
        lambda: RS2Sampler(80, 1.0, round_to=100, num_replicas=1, rank=0),
        V, "`ratio`", "global batch of 100", "1.0", "at most 80 samples",
    ),
    "unknown mode": (lambda: RS2Sampler(80, mode="with"), V, "`mode`", "'without', 'independent', 'bootstrap'", "'with'", "Use 'without'"),
    "unknown boundary": (lambda: RS2Sampler(80, boundary="cut"), V, "`boundary`", "'stream', 'partition'", "'cut'", "Use 'stream'"),
    "unknown permutation": (lambda: RS2Sampler(80, permutation="md5"), V, "`permutation`", "'feistel'", "'md5'", "Leave it at 'auto'"),
    "no data": (lambda: RS2Sampler([]), V, "`data_source`", "at least one row", "got 0", "Pass a data set"),
    "data without a length": (lambda: RS2Sampler(iter([1])), T, "`data_source`", "with a length", "iterator", "Pass a data set"),
    "negative seed": (lambda: RS2Sampler(80, seed=-1), V, "`seed`", "whole number from 0", "-1", "not negative"),
    "seed not whole": (lambda: RS2Callback(seed=0.5), T, "`seed`", "whole number", "0.5", "Pass any whole number"),
    "seed a fractional tensor": (lambda: RS2Sampler(80, seed=torch.tensor(2.5)), T, "`seed`", "whole number", "2.5", "Pass any whole number"),
    "round_to zero": (lambda: RS2Sampler(80, round_to=0), V, "`round_to`", ">= 1", "got 0", "Pass the batch size"),
    "rank alone": (lambda: RS2Sampler(80, rank=0), V, "`rank`", "together with `num_replicas`", "rank=0", "Pass both"),
    "rank too large": (lambda: RS2Sampler(80, num_replicas=2, rank=2), V, "`rank`", "from 0 to num_replicas - 1 = 1", "got 2", "Count ranks from 0"),
    "targets too short": (lambda: RS2Sampler(80, targets=[0] * 79), V, "`targets`", "shape (80,)", "(79,)", "one class number per row"),
    "targets not whole": (lambda: RS2Sampler(2, 0.5, targets=[0.5, 1]), T, "`targets`", "whole numbers", "float32", "one class number per row"),
    "weights of another length": (
        lambda: RS2Sampler(80, mode="independent", weights=[1.0]), V, "`weights`", "shape (80,)", "(1,)", "one number >= 0 per row",
    ),
    "targets are names": (lambda: RS2Sampler(2, 0.5, targets=["a", "b"]), T, "`targets`", "whole numbers", "'a'", "one class number per row"),
    "weights are a word": (
        lambda: RS2Sampler(4, 0.5, mode="independent", weights="abcd"), T, "`weights`", "numbers", "'abcd'", "one number >= 0 per row",
    ),
    "more blocks than rows": (lambda: RS2Sampler(3, 0.2, boundary="partition", num_replicas=1, rank=0), V, "`ratio`", "at least 1/3", "0.2", "Use a larger ratio"),
    "a sampler of a sampler": (lambda: RS2Sampler(RS2Sampler(80)), V, "`data_source`", "anything but an RS2Sampler", "RS2Sampler", "Multiply the two ratios"),
    "negative weight": (
        lambda: RS2Sampler(2, 0.5, mode="independent", weights=[1, -3]), V, "`weights`", "finite and >= 0", "-3", "one number >= 0",
    ),
    "no positive weight": (
        lambda: RS2Sampler(4, 0.5, mode="independent", weights=[0] * 4), V, "`weights`", "at least 2 rows", "got 0", "ive more rows a weight.",
    ),
    "weights in another mode": (
        lambda: RS2Sampler(2, 0.5, weights=[1, 1]), V, "`weights`", "unless mode='independent'", "'without'", "Pass mode='independent'",
    ),
    "weights and targets": (
        lambda: RS2Sampler(2, 0.5, mode="independent", weights=[1, 1], targets=[0, 1]),
        V, "`targets`", "left out when `weights`", "both", "Fold the class balance",
    ),
    "partition in another mode": (
        lambda: RS2Sampler(80, mode="bootstrap", boundary="partition"), V, "`boundary`", "'stream' unless mode='without'", "partition", "Use mode='without'",
    ),
    "partition of an odd ratio": (
        lambda: RS2Sampler(80, 0.3, boundary="partition"), V, "`ratio`", "one over a whole number", "0.3", "ratio=1/3",
    ),
    "negative epoch": (lambda: RS2Sampler(80).set_epoch(-1), V, "`epoch`", ">= 0", "-1", "from 0"),
    "negative position": (lambda: RS2Sampler(80).start_at(-1), V, "`samples`", ">= 0", "-1", "Pass the number of samples"),
    "permute outside": (lambda: permute(torch.tensor([3, 10]), 10, 0), V, "`index`", "n - 1 = 9", "3..10", "modulo n"),
    "permute nothing": (lambda: permute(torch.tensor([0]), 0, 0), V, "`n`", "a whole number from 1", "got 0", "Pass the number of rows"),
    "permute with a typo": (lambda: permute(torch.tensor([0]), 1, 0, method="rand"), V, "`method`", "'randperm'", "'rand'", "Leave it at 'auto'"),
    "coverage of an unknown mode": (lambda: expected_coverage(1, 2, 1, "x"), V, "`mode`", "'without'", "'x'", "See RS2Sampler"),
    "rows twice": (lambda: RowSampler([1, 1]), V, "`rows`", "distinct", "[1, 1]", "at most once"),
    "callback loader key": (lambda: RS2Callback(loader=1.5), T, "`loader`", "a dict key, a position or None", "1.5", "Name one"),
    "callback validate word": (lambda: RS2Callback(validate="epoch"), V, "`validate`", "'pass', 'round'", "'epoch'", "Use 'pass'"),
    "callback validate zero": (lambda: RS2Callback(validate=0), V, "`validate`", ">= 1", "got 0", "Use 'pass'"),
    "callback on_conflict": (lambda: RS2Callback(on_conflict="skip"), V, "`on_conflict`", "'raise', 'warn'", "'skip'", "Use 'raise'"),
    "callback flag as a word": (lambda: RS2Callback(stratify="yes"), T, "`stratify`", "True or False", "'yes'", "Pass True"),
    "datamodule around a loader": (lambda: RS2DataModule(row_loader()), T, "`inner`", "LightningDataModule", "DataLoader", "rs2_loader"),
    "datamodule of mode loss": (lambda: RS2DataModule(ForeignData(), mode="loss"), V, "`mode`", "one of 'without', 'independent', 'bootstrap'", "'loss'", "use RS2Callback."),
    "rs2_loader of a list": (lambda: rs2_loader([1, 2]), V, "train loader", "a torch DataLoader", "list", "wrap your data"),
    "state with another batch size": (
        lambda: loader_state_into(rs2_loader(row_loader(batch_size=2), 0.25)), V, "`batch_size`", "global batch is 4", "got 2", "Keep ranks times batch size",
    ),
    "stratify without targets": (
        lambda: rs2_loader(DataLoader(range(80), 4), 0.5, stratify=True), V, "train loader", "`targets`, `labels` or `y`", "range", "RS2Sampler(targets=...)",
    ),
}  # fmt: skip
# the same in a fit; all are MisconfigurationException
FIT_CASES = {
    "a stream": (lambda: fit(DataLoader(Stream())), "train loader", "map-style data set", "Stream", "__getitem__"),
    "a weighted sampler": (
        lambda: fit(row_loader(sampler=WeightedRandomSampler([1.0] * 80, 80))),
        "train loader", "without a WeightedRandomSampler", "got one", "RS2Sampler(mode='independent', weights=...)",
    ),
    "overfit_batches": (
        lambda: fit(row_loader(shuffle=False), overfit_batches=2), "`overfit_batches`", "0 beside RS2Callback", "got 2", "remove one of the two",
    ),
    "several loaders and no key": (lambda: fit({"a": row_loader(), "b": row_loader()}), "`loader`", "one of ['a', 'b']", "loader=None", "pass loader='a'"),
    "an unknown key": (
        lambda: fit({"a": row_loader(), "b": row_loader()}, RS2Callback(0.5, loader="c")), "`loader`", "['a', 'b']", "'c'", "pass loader='a'",
    ),
    "a needless key": (lambda: fit(row_loader(), RS2Callback(0.5, loader="a")), "`loader`", "left at None", "got a", "remove `loader`"),
    "less than a batch": (lambda: fit(row_loader(), RS2Callback(0.03)), "`ratio`", "global batch of 4 samples", "0.03", "ratio >= 0.05"),
    "a longer loader beside it": (
        lambda: fit({"a": row_loader(), "b": row_loader()}, RS2Callback(0.25, loader="a")),
        "train loader", "not started again inside an epoch", "5 batches a round beside a loader of 20", "mode='min_size'",
    ),
    "a batch sampler of its own": (
        lambda: fit(DataLoader(Rows(80), batch_sampler=OwnBatches(SequentialSampler(Rows(80)), 4, False))),
        "train loader", "without a batch_sampler", "OwnBatches", "pass batch_size",
    ),
    "an iteration of its own": (
        lambda: fit(OwnIteration(Rows(80), 4)), "train loader", "iterates as DataLoader does", "OwnIteration.__iter__", "sampler=RS2Sampler(...)",
    ),
    "a sampler of its own": (lambda: fit(row_loader(sampler=OwnSampler())), "train loader", "a standard torch sampler", "OwnSampler", "remove the sampler"),
    "sampler and callback": (
        lambda: fit(row_loader(sampler=RS2Sampler(80, 0.5))), "train loader", "without an RS2Sampler", "got one", "not both",
    ),
    "no targets to stratify": (
        lambda: fit(DataLoader(torch.zeros(80, 1), 4), RS2Callback(0.5, stratify=True)), "train loader", "`targets`", "Tensor", "RS2Sampler(targets=...)",
    ),
}  # fmt: skip
# in a fit that resumes; the text names what differs
RESUME_CASES = {
    "other length": ({"train": row_loader(88)}, "n: saved 80, here 88"),
    "other ratio": ({"ratio": 0.5}, "k: saved 20, here 40"),
    "other seed": ({"seed": 5}, "seed: saved 0, here 5"),
    "other mode": ({"mode": "bootstrap"}, "mode: saved 'without', here 'bootstrap'"),
    "other batch": ({"train": row_loader(batch_size=2)}, "global batch: saved 4, here 2"),
    "other classes": ({"stratify": True}, "targets: saved None"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_use_is_explained(case):
    wrong, error, *words = CASES[case]
    with pytest.raises(error) as caught:
        wrong()
    assert_explained(str(caught.value), words)


@pytest.mark.parametrize("case", FIT_CASES)
def test_a_conflict_in_fit_is_explained(case):
    wrong, *words = FIT_CASES[case]
    with pytest.raises(M) as caught:
        wrong()
    assert_explained(str(caught.value), words)


@pytest.mark.parametrize("case", RESUME_CASES)
def test_a_resume_that_would_change_the_order_is_refused(case, tmp_path):
    changed, difference = RESUME_CASES[case]
    with pytest.raises((M, ValueError)) as caught:
        resume(tmp_path, **changed)
    assert_explained(
        str(caught.value), ["The saved state of", "another sample order", difference, "Resume with the same"]
    )


def assert_explained(text, words):
    assert len(words) == 4
    for part in words:
        assert part in text
    assert text.endswith(".")
    assert "\n" not in text


def test_there_are_enough_cases():
    assert len(CASES) + len(FIT_CASES) + len(RESUME_CASES) >= 55


def test_the_ratios_in_the_advice_work(tmp_path):
    assert len(RS2Sampler(80, 0.0125)) == 1
    assert len(RS2Sampler(80, 0.2, round_to=8, num_replicas=2, rank=0)) == 8
    assert len(RS2Sampler(80, 1.0, round_to=80, num_replicas=1, rank=0)) == 80
    assert len(RS2Sampler(80, 1 / 3, boundary="partition")) in (26, 27)
    assert round_size(80, 0.05, 4) == 4
    fit(row_loader(), RS2Callback(0.05))
    resume(tmp_path)
