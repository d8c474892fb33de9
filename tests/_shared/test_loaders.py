"""Replacing one loader in any collection, and finding the classes of any data set."""

from __future__ import annotations

import datasets
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

from lightning_adapt import rs2_loader
from lightning_adapt._shared.compat import RaisesWhenUsed
from lightning_adapt._shared.loaders import (
    Advice,
    LoaderConflictError,
    check_not_cycled,
    inspect_loader,
    replace_loader,
)
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt._shared.targets import find_targets
from tests.rs2.parts import Rows, row_loader


def halved(loader):
    return rs2_loader(loader, 0.5)


def replace(loaders, key=None):
    return replace_loader(loaders, key, halved, "RS2")


def test_a_single_loader():
    assert isinstance(replace(row_loader()), ResumableLoader)


@pytest.mark.parametrize("key", ["b", 1, "1"])
@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_one_of_a_collection(kind, key):
    loaders = [row_loader(20), row_loader(80)]
    collection = {"a": loaders[0], "b": loaders[1]} if kind is dict else kind(loaders)
    if (kind is dict) != (key == "b"):
        with pytest.raises(LoaderConflictError, match=r"RS2: the `loader` must be one of .* To solve it, pass loader="):
            replace(collection, key)
        return
    replaced = replace(collection, key)
    assert type(replaced) is kind
    ours, theirs = (replaced[place] for place in (("b", "a") if kind is dict else (1, 0)))
    assert isinstance(ours, ResumableLoader)
    assert len(ours) == 10
    assert theirs is loaders[0]
    assert (list(collection.values()) if kind is dict else list(collection)) == loaders


@pytest.mark.parametrize("mode", ["min_size", "max_size", "sequential", "max_size_cycle"])
def test_one_of_a_combined_loader(mode):
    loaders = {"a": row_loader(20), "b": row_loader(80)}
    combined = CombinedLoader(loaders, mode)
    replaced = replace(combined, "b")
    assert type(replaced) is CombinedLoader
    assert replaced._mode == mode
    assert isinstance(replaced.iterables["b"], ResumableLoader)
    assert replaced.iterables["a"] is loaders["a"]
    assert combined.iterables == loaders  # the user's object is as it was
    assert combined.flattened == list(loaders.values())
    iter(replaced)
    lengths = {"min_size": 5, "max_size": 10, "max_size_cycle": 10, "sequential": 15}
    assert len(list(replaced)) == len(replaced) == lengths[mode]


def test_a_combined_loader_of_one():
    for iterables, key in [
        (row_loader(), None),
        ([row_loader()], None),
        ([row_loader()], 0),
        ({"a": row_loader()}, "a"),
    ]:
        replaced = replace(CombinedLoader(iterables, "min_size"), key)
        assert isinstance(replaced.flattened[0], ResumableLoader)


def test_the_only_one_of_a_collection_needs_no_key():
    assert isinstance(replace({"a": row_loader()})["a"], ResumableLoader)
    assert isinstance(replace([row_loader()])[0], ResumableLoader)


def test_the_same_loader_twice_is_replaced_once():
    loader = row_loader()
    replaced = replace(CombinedLoader({"a": loader, "b": loader}, "min_size"), "a")
    assert isinstance(replaced.iterables["a"], ResumableLoader)
    assert replaced.iterables["b"] is loader


def test_whole_number_keys_and_their_words():
    loaders = {0: row_loader(20), 1: row_loader(80)}
    assert isinstance(replace(loaders, "1")[1], ResumableLoader)


@pytest.mark.parametrize("collection", [dict, CombinedLoader])
def test_a_round_that_would_start_again_inside_an_epoch_is_refused(collection):
    loaders = {"a": row_loader(80), "b": row_loader(80)}
    replaced = replace(loaders if collection is dict else CombinedLoader(loaders, "max_size_cycle"), "a")
    with pytest.raises(LoaderConflictError, match="10 batches a round beside a loader of 20 in mode 'max_size_cycle'"):
        check_not_cycled(replaced, "a", "RS2", advice=Advice())


def test_another_method_gives_advice_of_its_own():
    loaders = CombinedLoader({"a": replace(row_loader(80)), "b": row_loader(80)}, "max_size_cycle")
    with pytest.raises(LoaderConflictError, match=r"mode='min_size'\), or take more\.$"):
        check_not_cycled(loaders, "a", "Other", advice=Advice(length=", or take more"))
    sampler = WeightedRandomSampler([1.0] * 80, 80)
    with pytest.raises(LoaderConflictError, match=r"Other: .*To solve it, drop the weighted sampler\.$"):
        inspect_loader(DataLoader(Rows(80), sampler=sampler), "Other", advice=Advice())


def test_a_stream_beside_it_has_no_length_to_compare():
    class Stream(IterableDataset):
        def __iter__(self):
            yield 0

    replaced = replace({"a": row_loader(), "b": DataLoader(Stream())}, "a")
    assert isinstance(replaced["a"], ResumableLoader)


def test_a_loader_that_changes_what_it_loads_is_refused():
    class Filters(DataLoader):
        def _get_iterator(self):
            return map(torch.neg, super()._get_iterator())

    with pytest.raises(LoaderConflictError, match="a loader that iterates as DataLoader does"):
        inspect_loader(Filters(Rows(80)), "Other", advice=Advice())


@pytest.mark.parametrize("key", ["a", 0])
def test_a_needless_key_is_refused(key):
    with pytest.raises(
        LoaderConflictError, match=f"`loader` must be left at None for a single train loader, but got {key}"
    ):
        replace(row_loader(), key)


@pytest.mark.parametrize("key", [None, "unlabeled", 1])
def test_an_error_that_waits_for_its_use_is_handed_on(key):
    waiting = RaisesWhenUsed(ValueError("another order"))
    assert replace(waiting, key) is waiting


# -- targets -----------------------------------------------------------------------------------------------------
class WithTargets(Rows):
    def __init__(self, name, values):
        super().__init__(len(values))
        del self.targets
        setattr(self, name, values)


CLASSES = [2, 0, 1, 1, 2]


def same(dataset, expected=CLASSES):
    found = find_targets(dataset)
    assert found.tolist() == expected
    assert not found.is_floating_point()


@pytest.mark.parametrize("name", ["targets", "labels", "y"])
@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_targets_in_an_attribute(name, kind):
    same(WithTargets(name, kind(CLASSES)))


def test_targets_of_torch_containers():
    whole = TensorDataset(torch.randn(5, 2), torch.tensor(CLASSES))
    same(whole)
    same(Subset(whole, [4, 0, 2]), [2, 2, 1])
    same(Subset(Subset(whole, torch.tensor([4, 0, 2])), [1]), [2])
    same(ConcatDataset([whole, Subset(whole, [1]), WithTargets("y", [9])]), [*CLASSES, 0, 9])


def test_targets_where_more_tensors_follow():
    whole = TensorDataset(torch.randn(5, 2), torch.tensor(CLASSES), torch.arange(10, 15))
    assert find_targets(ConcatDataset([whole, Subset(whole, [4, 1])]), place=1).tolist() == [*CLASSES, 2, 0]
    same(Subset(whole, [1, 3]), [11, 13])
    with pytest.raises(LoaderConflictError):
        find_targets(Subset(TensorDataset(torch.arange(4)), [2]), place=1)


def test_targets_of_a_hugging_face_dataset():
    whole = datasets.Dataset.from_dict({"text": list("abcde"), "label": CLASSES})
    same(whole)
    same(whole.select([3, 0]), [1, 2])
    same(Subset(whole, [1, 2]), [0, 1])


@pytest.mark.parametrize(
    "dataset",
    [
        [1, 2, 3],
        TensorDataset(torch.arange(4.0)),
        TensorDataset(torch.zeros(4, 3, dtype=torch.int64)),
        WithTargets("targets", [0.5, 1.5]),
        ConcatDataset([TensorDataset(torch.arange(4)), Rows(3), [1]]),
        datasets.Dataset.from_dict({"text": ["a"]}),
    ],
    ids=["list", "floating", "two dimensions", "floating attribute", "one part without", "no column"],
)
def test_data_without_classes_is_refused(dataset):
    with pytest.raises(
        LoaderConflictError, match=r"one class number per row .* To solve it, give it such an attribute"
    ):
        find_targets(dataset)
