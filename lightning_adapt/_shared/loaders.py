"""Rebuild anybody's DataLoader around one of our samplers, keeping everything else; plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.compat import combined_loader_mode, is_combined_loader, with_leaves
from lightning_adapt._shared.sampling import EpochSampler, RowSampler
from lightning_adapt._shared.state import read_version

STATE_VERSION = 1


class LoaderConflictError(ValueError):
    """A user's loader cannot be rebuilt around our sampler; the text says why and what to do."""


class LoaderParts(NamedTuple):
    """What a rebuilt loader takes over from the user's sampler and batch sampler.

    Attributes:
        source: What to sample from: the data set, or a sampler of ours that restricts it.
        batch_size: Samples per batch of one rank; 1 when the loader does not batch.
        drop_last: Whether a short last batch is left out.
    """

    source: Any
    batch_size: int
    drop_last: bool


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over an `EpochSampler` that starts exactly where training stopped.

    Its iterator builds the real one at the first `next`: Lightning makes the iterator before it sets the epoch, and
    with workers a plain loader would fetch the wrong epoch's first batches (Lightning #21938). It counts the batches
    handed out, not the samples that workers fetch ahead.

    Args:
        dataset: A map-style data set.
        sampler: One of our samplers.
        position: Returns the batches of the running epoch already used, read at each first `next`. None: counted by
            the loader itself and restored by `load_state_dict`.
        **options: The other arguments of `DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        sampler: EpochSampler,
        position: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, sampler=sampler, **options)
        self._position = position
        self._skip = 0
        self._delivered = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # any iterator will do for the users of a loader
        return _LazyIterator(self)

    def _begin(self) -> Iterator[Any]:
        self._delivered = self._skip if self._position is None else self._position()
        self._skip = 0
        self.sampler.start_at(self._delivered * (self.batch_size or 1))  # type: ignore[attr-defined]
        return super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Return a plain state: the epoch, the batches used in it, and what they depend on."""
        sampler: EpochSampler = self.sampler  # type: ignore[assignment]
        return {
            "version": STATE_VERSION,
            "sampler": {**sampler.state_dict(), "yielded": 0},
            "batches": self._delivered % max(len(self), 1),
            "batch_size": self.batch_size or 1,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was taken.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If the samples or the global batch size would differ.
        """
        read_version(state, STATE_VERSION, type(self).__name__)
        sampler: EpochSampler = self.sampler  # type: ignore[assignment]
        here = sampler.num_replicas * (self.batch_size or 1)
        saved = state["sampler"]["num_replicas"] * state["batch_size"]
        if here != saved:
            remedy = "Keep ranks times batch size as in the saved run."
            raise ValueError(problem("batch_size", f"such that the global batch is {saved}", here, remedy))
        sampler.load_state_dict(state["sampler"])
        self._skip = self._delivered = state["batches"]


class _LazyIterator(Iterator[Any]):
    def __init__(self, loader: ResumableLoader) -> None:
        self._loader = loader
        self._running: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self._running is None:
            self._running = self._loader._begin()
        batch = next(self._running)
        self._loader._delivered += 1
        return batch

    def __len__(self) -> int:
        return len(self._loader)


class ListIndexed(Dataset[Any]):
    """Lets a data set be indexed by lists of rows, for loaders that run without batching of their own.

    Args:
        dataset: Any map-style data set.
        collate_fn: Joins the samples of a list.
    """

    def __init__(self, dataset: Any, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn

    def __getitem__(self, rows: list[int]) -> Any:
        return self.collate_fn([self.dataset[row] for row in rows])

    def __len__(self) -> int:
        return len(self.dataset)


def rebuild_loader(
    loader: DataLoader[Any], sampler: EpochSampler, *, position: Callable[[], int] | None = None
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
    batches = loader.batch_sampler is not None
    parts_size = loader.batch_sampler.batch_size if batches else None  # type: ignore[union-attr]
    options: dict[str, Any] = {
        "batch_size": parts_size,
        "drop_last": loader.batch_sampler.drop_last if batches else False,  # type: ignore[union-attr]
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


def inspect_loader(loader: Any, method: str) -> LoaderParts:
    """Check that a loader can be rebuilt and say what to take over from it.

    Args:
        loader: What the user passed or returned.
        method: Who wants to sample, for the error text.

    Returns:
        Source, batch size and drop_last.

    Raises:
        LoaderConflictError: If it is no DataLoader, has an IterableDataset, a weighted or unknown sampler, a batch
            sampler of its own, or iterates in its own way.
    """
    if not isinstance(loader, DataLoader):
        _conflict(method, "a torch DataLoader", type(loader).__name__, "wrap your data in a DataLoader")
    if isinstance(loader.dataset, IterableDataset):
        remedy = "give it a data set with __getitem__ and __len__; a stream has no rows to choose from"
        _conflict(method, "a loader over a map-style data set", f"an {type(loader.dataset).__name__} stream", remedy)
    own_iteration = type(loader).__iter__ not in (DataLoader.__iter__, ResumableLoader.__iter__)
    if own_iteration and not type(loader).__module__.startswith("torchdata"):
        remedy = f"build your {type(loader).__name__} with sampler=RS2Sampler(...) instead of the callback"
        _conflict(method, "a loader that iterates as DataLoader does", f"{type(loader).__name__}.__iter__", remedy)
    batch_sampler = loader.batch_sampler
    if batch_sampler is not None and not _is_plain_batch_sampler(batch_sampler):
        remedy = "pass batch_size and let us batch, or build your batch sampler over an RS2Sampler"
        _conflict(method, "a loader without a batch_sampler of its own", type(batch_sampler).__name__, remedy)
    sampler = loader.sampler if batch_sampler is None else batch_sampler.sampler
    batch_size = 1 if batch_sampler is None else batch_sampler.batch_size
    drop_last = batch_sampler is not None and batch_sampler.drop_last
    return LoaderParts(_source(sampler, loader.dataset, method), batch_size, drop_last)


def _source(sampler: Any, dataset: Any, method: str) -> Any:
    if isinstance(sampler, WeightedRandomSampler):
        remedy = "use RS2Sampler(mode='independent', weights=...) in your loader, or drop the weighted sampler"
        _conflict(method, "a loader without a WeightedRandomSampler", "one", remedy)
    if isinstance(sampler, EpochSampler):
        return sampler
    if isinstance(sampler, SubsetRandomSampler):
        return RowSampler(torch.as_tensor(sampler.indices))
    if type(sampler) in (RandomSampler, SequentialSampler, DistributedSampler):
        return dataset
    remedy = "remove the sampler, or sample over it yourself with RS2Sampler in your loader"
    return _conflict(method, "a loader with a standard torch sampler", type(sampler).__name__, remedy)


def _is_plain_batch_sampler(batch_sampler: Any) -> bool:
    # torchdata's StatefulDataLoader puts its own subclass of the same meaning and name there
    kind = type(batch_sampler)
    return kind is BatchSampler or (kind.__name__ == "BatchSampler" and kind.__module__.startswith("torchdata"))


def replace_loader(loaders: Any, key: str | int | None, build: Callable[[Any], Any], method: str) -> Any:
    """Return the user's train loaders with one of them replaced; their own collection stays as it is.

    Args:
        loaders: One loader, or a dict, list, tuple or CombinedLoader of loaders.
        key: Which one: a dict key or a position; None when there is only one.
        build: Makes the new loader from the old one.
        method: Who wants to sample, for the error text.

    Returns:
        The same structure with the chosen loader replaced.

    Raises:
        LoaderConflictError: If `key` is missing, unknown or needless, or the Trainer would start the new loader again
            inside an epoch (mode "max_size_cycle" beside a longer loader).
    """
    entries = loaders.iterables if is_combined_loader(loaders) else loaders
    if not isinstance(entries, (Mapping, list, tuple)):
        if key is not None:
            _conflict(method, "left at None for a single train loader", key, "remove `loader`", argument="loader")
        new = build(entries)
        return with_leaves(loaders, [new]) if is_combined_loader(loaders) else new
    chosen = _chosen(entries, key, method)
    old = entries[chosen]
    new = build(old)
    _check_not_cycled(loaders, entries, chosen, new, method)
    if is_combined_loader(loaders):
        return with_leaves(loaders, [new if leaf is old else leaf for leaf in loaders.flattened])
    if isinstance(entries, Mapping):
        return {name: new if name == chosen else entry for name, entry in entries.items()}
    return [new if place == chosen else entry for place, entry in enumerate(entries)]


def _chosen(entries: Mapping[Any, Any] | Sequence[Any], key: str | int | None, method: str) -> Any:
    names: list[Any] = list(entries) if isinstance(entries, Mapping) else list(range(len(entries)))
    if key is None:
        if len(names) == 1:
            return names[0]
        received = f"{len(names)} train loaders and loader=None"
        _conflict(method, f"one of {names}", received, f"pass loader={names[0]!r}", argument="loader")
    for name in names:
        if key == name or str(key) == str(name):  # a YAML or command-line "1" means position 1
            return name
    return _conflict(method, f"one of {names}", repr(key), f"pass loader={names[0]!r}", argument="loader")


def _check_not_cycled(loaders: Any, entries: Any, chosen: Any, new: Any, method: str) -> None:
    items = entries.items() if isinstance(entries, Mapping) else enumerate(entries)
    lengths = [len(entry) for name, entry in items if name != chosen and hasattr(entry, "__len__")]
    if combined_loader_mode(loaders) == "max_size_cycle" and lengths and max(lengths) > len(new):
        _conflict(
            method,
            "a sampled loader that is not started again inside an epoch",
            f"{len(new)} batches a round beside a loader of {max(lengths)} in mode 'max_size_cycle'",
            "wrap the loaders in CombinedLoader(..., mode='min_size'), or raise the ratio",
        )


def find_targets(dataset: Any) -> Tensor:
    """Find the class of each row of a data set without reading the samples.

    Looks for `targets`, `labels` or `y`, the last tensor of a TensorDataset, through Subset and ConcatDataset, and for
    a `label` column of a datasets.Dataset.

    Args:
        dataset: A map-style data set.

    Returns:
        Classes. Shape (N,), an integer dtype.

    Raises:
        LoaderConflictError: If none are found.
    """
    found = _targets_or_none(dataset)
    if found is None or found.is_floating_point() or found.ndim != 1 or len(found) != len(dataset):
        _conflict(
            "stratify=True",
            "a data set with one class number per row in `targets`, `labels` or `y`",
            type(dataset).__name__,
            "give it such an attribute, or use RS2Sampler(targets=...) in your loader",
        )
    return found  # type: ignore[return-value]


def _targets_or_none(dataset: Any) -> Tensor | None:
    if hasattr(dataset, "datasets"):  # ConcatDataset
        parts = [_targets_or_none(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat(parts)  # type: ignore[arg-type]
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # Subset
        whole = _targets_or_none(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices)]
    for name in ("targets", "labels", "y"):
        if getattr(dataset, name, None) is not None:
            return torch.as_tensor(getattr(dataset, name))
    if getattr(dataset, "tensors", None):  # TensorDataset
        return torch.as_tensor(dataset.tensors[-1])
    if "label" in (getattr(dataset, "column_names", None) or ()):  # datasets.Dataset
        return torch.as_tensor(dataset["label"][:])
    return None


def _conflict(method: str, allowed: str, received: object, remedy: str, *, argument: str = "train loader") -> Any:
    raise LoaderConflictError(
        f"{method}: the `{argument}` must be {allowed}, but got {received}. To solve it, {remedy}."
    )
