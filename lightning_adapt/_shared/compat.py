"""The only place that touches private or version-dependent parts of Lightning; each function has a test of its own.

Nothing is imported from Lightning: the functions work on the attributes that the Trainers of `lightning.pytorch` and of
`pytorch_lightning` share.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NoReturn

LoaderTransform = Callable[[Any], Any]


def add_train_loader_transform(trainer: Any, owner: Hashable, transform: LoaderTransform) -> None:
    """Let a callback replace the train loaders whenever the Trainer asks for them, wherever they come from.

    The Trainer reads its train loaders (DataModule, module or raw object) through one source object; its `dataloader`
    method is shadowed on the instance, so the user's objects stay as they are.

    Args:
        trainer: The Trainer; call from a callback's `setup`.
        owner: Who asks; adding again replaces the transform. Transforms run in the order in which owners came.
        transform: Takes what the user's loaders are (any collection) and returns what the Trainer should use.
    """
    source = trainer.fit_loop._data_source
    transforms: dict[Hashable, LoaderTransform] = source.__dict__.setdefault("_lightning_adapt_transforms", {})
    transforms[owner] = transform

    def dataloader() -> Any:
        loaders = type(source).dataloader(source)
        try:
            for apply in list(transforms.values()):
                loaders = apply(loaders)
        except Exception as error:
            return _RaisesWhenUsed(error)
        return loaders

    source.dataloader = dataloader


class _RaisesWhenUsed:
    """Carries an error out of the Trainer's loader request, to be raised at the next step.

    Lightning 2.6.6 patches `DataLoader.__init__` during the request and does not undo it when the request raises: the
    user's next run in the same process, with the mistake mended, would fail on loaders that are fine.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> NoReturn:
        raise self.error


def remove_train_loader_transform(trainer: Any, owner: Hashable) -> None:
    """Take back what `add_train_loader_transform` did for one owner; harmless when there is nothing to take back.

    Args:
        trainer: The Trainer.
        owner: Who asked.
    """
    source = trainer.fit_loop._data_source
    transforms = source.__dict__.get("_lightning_adapt_transforms", {})
    transforms.pop(owner, None)
    if not transforms:
        source.__dict__.pop("dataloader", None)
        source.__dict__.pop("_lightning_adapt_transforms", None)


def batches_done_in_epoch(trainer: Any) -> int:
    """Return how many train batches of the running epoch the Trainer has taken from its loader.

    Right after a mid-epoch checkpoint was loaded it is the number to skip: the Trainer counts on from there.

    Args:
        trainer: The Trainer, inside `fit`.

    Returns:
        Batches of this rank, >= 0.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)


def is_combined_loader(loaders: Any) -> bool:
    """Say whether an object is a Lightning `CombinedLoader` (of either package name).

    Args:
        loaders: Anything.

    Returns:
        True for a CombinedLoader.
    """
    return any(kind.__name__ == "CombinedLoader" for kind in type(loaders).__mro__)


def combined_train_loader(trainer: Any) -> Any:
    """Return the CombinedLoader that the Trainer made of the train loaders.

    Args:
        trainer: The Trainer, once training has started.

    Returns:
        The CombinedLoader.
    """
    return trainer.fit_loop._combined_loader


def combined_loader_mode(loaders: Any) -> str:
    """Return how the Trainer will run several loaders together.

    Args:
        loaders: A CombinedLoader, or a collection that the Trainer will wrap in one.

    Returns:
        The mode, "max_size_cycle" for a plain collection (the Trainer's default).
    """
    return str(loaders._mode) if is_combined_loader(loaders) else "max_size_cycle"


def with_iterables(combined: Any, iterables: Any) -> Any:
    """Return a CombinedLoader like another one around other loaders; the user's object stays as it is.

    Args:
        combined: A CombinedLoader.
        iterables: The collection of loaders for the new one.

    Returns:
        The new CombinedLoader.
    """
    return type(combined)(iterables, mode=combined._mode)


def let_early_stopping_follow_validation(trainer: Any) -> None:
    """Make EarlyStopping callbacks check after validation when validation no longer runs every epoch.

    EarlyStopping decides in its own `setup`, from `check_val_every_n_epoch`, whether to check at the end of the train
    epoch. One that was set up before that number was raised would look for a metric that is not there yet.

    Args:
        trainer: The Trainer, after `check_val_every_n_epoch` was raised from 1.
    """
    for callback in trainer.early_stopping_callbacks:
        if callback._check_on_train_epoch_end:
            callback._check_on_train_epoch_end = False


def users_check_val(trainer: Any) -> int | None:
    """Return the user's own `check_val_every_n_epoch`, whatever callbacks of ours made of it.

    Args:
        trainer: The Trainer.

    Returns:
        The number, or None when the user validates by steps.
    """
    kept: tuple[int | None, dict[Hashable, int]] | None = trainer.fit_loop.__dict__.get("_lightning_adapt_check_val")
    users: int | None = trainer.check_val_every_n_epoch if kept is None else kept[0]
    return users


def set_check_val(trainer: Any, owner: Hashable, rounds: int) -> None:
    """Validate every so many epochs; with several owners the largest number holds.

    Args:
        trainer: The Trainer.
        owner: Who asks.
        rounds: Epochs between validations.
    """
    users = users_check_val(trainer)
    _, wishes = trainer.fit_loop.__dict__.setdefault("_lightning_adapt_check_val", (users, {}))
    wishes[owner] = rounds
    trainer.check_val_every_n_epoch = max(wishes.values())


def give_back_check_val(trainer: Any, owner: Hashable) -> None:
    """Take back what `set_check_val` did for one owner; harmless when there is nothing to take back.

    Args:
        trainer: The Trainer.
        owner: Who asked.
    """
    users, wishes = trainer.fit_loop.__dict__.get("_lightning_adapt_check_val", (None, {}))
    if wishes.pop(owner, None) is None:
        return
    trainer.check_val_every_n_epoch = max(wishes.values()) if wishes else users
    if not wishes:
        del trainer.fit_loop.__dict__["_lightning_adapt_check_val"]
