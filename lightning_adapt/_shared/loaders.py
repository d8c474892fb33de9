"""Rebuild anybody's DataLoader around one of our samplers, keeping everything else; plain PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from lightning_adapt._shared.compat import RaisesWhenUsed, combined_loader_mode, is_combined_loader, with_iterables
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt._shared.sampling import EpochSampler


class LoaderConflictError(ValueError):
    """A user's loader cannot be rebuilt around our sampler; the text says why and what to do."""


class LoaderParts(NamedTuple):
    """What a sampler of ours must know of the user's loader.

    Attributes:
        source: What to sample from: the data set, or a sampler of ours that restricts it.
        batch_size: Samples per batch of one rank; 1 when the loader does not batch.
    """

    source: Any
    batch_size: int


class Advice(NamedTuple):
    """What else a method offers about a loader that does not fit; each follows a remedy in a text, "" for nothing.

    Attributes:
        iteration: For a loader that iterates in its own way; `{kind}` is its class.
        batches: For a batch sampler of the user's own.
        weights: For a weighted sampler.
        draws: For drawing with replacement, or a number of rows.
        sampler: For another sampler.
        length: For a sampled loader beside a longer one.
    """

    iteration: str = ""
    batches: str = ""
    weights: str = ""
    draws: str = ""
    sampler: str = ""
    length: str = ""


def rebuild_loader(
    loader: DataLoader[Any], sampler: EpochSampler, *, position: Callable[[], tuple[int, int]] | None = None
) -> ResumableLoader:
    """Return a loader like the given one that draws from our sampler.

    Keeps data set, batch size, workers, collate_fn, pinning, time-out, worker_init_fn, context, generator, prefetch
    and order. Workers are made persistent: rounds are short, and starting workers anew costs more than a round.

    Args:
        loader: The user's loader; it stays as it is. Check it with `inspect_loader` first.
        sampler: One of our samplers.
        position: As in `ResumableLoader`.

    Returns:
        The new loader.
    """
    batches: Any = loader.batch_sampler  # knows the size also when the user passed it as `batch_sampler`
    options: dict[str, Any] = {
        "batch_size": None if batches is None else batches.batch_size,
        "drop_last": batches is not None and batches.drop_last,
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "generator": loader.generator,
        "persistent_workers": loader.num_workers > 0,
        "in_order": loader.in_order,
    }
    if loader.num_workers > 0:
        options["prefetch_factor"] = loader.prefetch_factor
        options["multiprocessing_context"] = loader.multiprocessing_context
    if loader.pin_memory_device:  # deprecated in recent torch: passed on only when it was set
        options["pin_memory_device"] = loader.pin_memory_device
    return ResumableLoader(loader.dataset, sampler=sampler, position=position, **options)


def inspect_loader(loader: Any, method: str, *, advice: Advice) -> LoaderParts:
    """Check that a loader can be rebuilt and say what to take over from it.

    Args:
        loader: What the user passed or returned.
        method: Who wants to sample, for the error text.
        advice: What else the method offers.

    Returns:
        Source and batch size.

    Raises:
        LoaderConflictError: If it is no DataLoader, has an IterableDataset, a weighted or unknown sampler, a batch
            sampler of its own, or iterates in its own way.
    """
    if not isinstance(loader, DataLoader):
        conflict(method, "a torch DataLoader", type(loader).__name__, "wrap your data in a DataLoader")
    if isinstance(loader.dataset, IterableDataset):
        remedy = "give it a data set with __getitem__ and __len__; a stream has no rows to choose from"
        conflict(method, "a loader over a map-style data set", f"a stream ({type(loader.dataset).__name__})", remedy)
    own_iteration = type(loader).__iter__ not in (DataLoader.__iter__, ResumableLoader.__iter__)
    own_iteration |= any("_get_iterator" in vars(kind) for kind in _kinds_before_dataloader(loader))
    if own_iteration and not type(loader).__module__.startswith("torchdata"):
        remedy = "use a plain DataLoader" + advice.iteration.format(kind=type(loader).__name__)
        conflict(method, "a loader that iterates as DataLoader does", f"{type(loader).__name__}.__iter__", remedy)
    batch_sampler = loader.batch_sampler
    if batch_sampler is not None and not _is_plain_batch_sampler(batch_sampler):
        remedy = "pass batch_size and let us batch" + advice.batches
        conflict(method, "a loader without a batch_sampler of its own", type(batch_sampler).__name__, remedy)
    sampler = loader.sampler if batch_sampler is None else batch_sampler.sampler
    batch_size = 1 if batch_sampler is None else batch_sampler.batch_size
    return LoaderParts(_source(sampler, loader.dataset, method, advice), batch_size)


def _kinds_before_dataloader(loader: DataLoader[Any]) -> Iterable[type]:
    """Return the classes of a loader that could change what DataLoader does; its `__iter__` calls `_get_iterator`."""
    return itertools.takewhile(lambda kind: kind is not DataLoader, type(loader).__mro__)


def _source(sampler: Any, dataset: Any, method: str, advice: Advice) -> Any:
    if isinstance(sampler, WeightedRandomSampler):
        remedy = "drop the weighted sampler" + advice.weights
        conflict(method, "a loader without a WeightedRandomSampler", "one", remedy)
    if isinstance(sampler, EpochSampler):
        return sampler
    if isinstance(sampler, SubsetRandomSampler):
        return RowSampler(torch.as_tensor(sampler.indices))
    if isinstance(sampler, RandomSampler) and (sampler.replacement or sampler.num_samples != len(dataset)):
        remedy = "use shuffle=True" + advice.draws
        conflict(method, "a loader that shuffles the whole data set once", "replacement or num_samples", remedy)
    standard = type(sampler) in (RandomSampler, SequentialSampler, DistributedSampler)
    if standard or _is_torchdata(sampler, "RandomSampler"):
        return dataset
    remedy = "remove the sampler" + advice.sampler
    return conflict(method, "a loader with a standard torch sampler", type(sampler).__name__, remedy)


def _is_plain_batch_sampler(batch_sampler: Any) -> bool:
    # torchdata's StatefulDataLoader puts its own subclass of the same meaning and name there
    return type(batch_sampler) is BatchSampler or _is_torchdata(batch_sampler, "BatchSampler")


def _is_torchdata(sampler: Any, name: str) -> bool:
    return type(sampler).__name__ == name and type(sampler).__module__.startswith("torchdata")


def replace_loader(loaders: Any, key: str | int | None, build: Callable[[Any], Any], method: str) -> Any:
    """Return the user's train loaders with one of them replaced; their own collection stays as it is.

    Call `check_not_cycled` on what runs in the end: another callback may replace the other loaders, too.

    Args:
        loaders: One loader, or a dict, list, tuple or CombinedLoader of loaders.
        key: Which one: a dict key or a position; None when there is only one.
        build: Makes the new loader from the old one.
        method: Who wants to sample, for the error text.

    Returns:
        The same structure with the chosen loader replaced; a `RaisesWhenUsed` as it is.

    Raises:
        LoaderConflictError: If `key` is missing, unknown or needless.
    """
    if isinstance(loaders, RaisesWhenUsed):
        return loaders
    entries = loaders.iterables if is_combined_loader(loaders) else loaders
    if not isinstance(entries, (Mapping, list, tuple)):
        if key is not None:
            conflict(method, "left at None for a single train loader", key, "remove `loader`", argument="loader")
        new = build(entries)
        return with_iterables(loaders, new) if is_combined_loader(loaders) else new
    chosen = _chosen(entries, key, method)
    new = build(entries[chosen])
    if isinstance(entries, Mapping):
        replaced: Any = {name: new if name == chosen else entry for name, entry in entries.items()}
    else:
        replaced = [new if place == chosen else entry for place, entry in enumerate(entries)]
        if isinstance(entries, tuple):
            replaced = type(entries)(*replaced) if hasattr(entries, "_fields") else tuple(replaced)
    return with_iterables(loaders, replaced) if is_combined_loader(loaders) else replaced


def _chosen(entries: Mapping[Any, Any] | Sequence[Any], key: str | int | None, method: str) -> Any:
    names: list[Any] = list(entries) if isinstance(entries, Mapping) else list(range(len(entries)))
    remedy = "pass " + " or ".join(f"loader={name!r}" for name in names[:3])
    if key is None:
        if len(names) == 1:
            return names[0]
        received = f"{len(names)} train loaders and loader=None"
        conflict(method, f"one of {names}", received, remedy, argument="loader")
    for name in names:
        if key == name or str(key) == str(name):  # a YAML or command-line "1" means position 1
            return name
    return conflict(method, f"one of {names}", repr(key), remedy, argument="loader")


def check_not_cycled(loaders: Any, key: str | int | None, method: str, *, advice: Advice) -> None:
    """Raise if the Trainer would start the sampled loader again inside an epoch.

    Args:
        loaders: As in `replace_loader`, with the sampled loader in place.
        key: As in `replace_loader`.
        method: As in `replace_loader`.
        advice: What else the method offers.

    Raises:
        LoaderConflictError: If it runs beside a longer one in mode "max_size_cycle".
    """
    entries = loaders.iterables if is_combined_loader(loaders) else loaders
    if not isinstance(entries, (Mapping, list, tuple)) or combined_loader_mode(loaders) != "max_size_cycle":
        return
    chosen = _chosen(entries, key, method)
    items = entries.items() if isinstance(entries, Mapping) else enumerate(entries)
    others = [batches_in(entry) for name, entry in items if name != chosen]
    lengths = [length for length in others if length is not None]
    batches = len(entries[chosen])
    if lengths and max(lengths) > batches:
        conflict(
            method,
            "a sampled loader that is not started again inside an epoch",
            f"{batches} batches a round beside a loader of {max(lengths)} in mode 'max_size_cycle'",
            "wrap the loaders in CombinedLoader(..., mode='min_size')" + advice.length,
        )


def batches_in(loader: Any) -> int | None:
    """Return the batches of a loader.

    Args:
        loader: Any iterable.

    Returns:
        The number; None for a stream, whose `__len__` raises.
    """
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def conflict(method: str, allowed: str, received: object, remedy: str, *, argument: str = "train loader") -> Any:
    """Raise a LoaderConflictError in the one style of this package.

    Args:
        method: Who wants to sample.
        allowed: What would have been accepted, worded to follow "must be".
        received: What came.
        remedy: What to do, worded to follow "To solve it,".
        argument: What the text is about.

    Raises:
        LoaderConflictError: Always; the return type lets callers say `return conflict(...)`.
    """
    raise LoaderConflictError(
        f"{method}: the `{argument}` must be {allowed}, but got {received}. To solve it, {remedy}."
    )
