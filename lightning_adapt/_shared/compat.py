"""The only place that touches private or version-dependent parts of Lightning; each function has a test of its own.

Nothing is imported from Lightning: the functions work on the attributes that the Trainers of `lightning.pytorch` and of
`pytorch_lightning` share.
"""

# Over 300 lines: one small function per access, half of each its documentation.

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
        transform: Takes what the user's loaders are (any collection) and returns what the Trainer should use; not
            called where a DataModule of ours gives a `RaisesWhenUsed`.
    """
    source = trainer.fit_loop._data_source
    transforms: dict[Hashable, LoaderTransform] = source.__dict__.setdefault("_lightning_adapt_transforms", {})
    transforms[owner] = transform

    def dataloader() -> Any:
        loaders = type(source).dataloader(source)
        if isinstance(loaders, RaisesWhenUsed):  # what it has to say is the reason; a transform would find another
            return loaders
        try:
            for apply in list(transforms.values()):
                loaders = apply(loaders)
        except Exception as error:
            return RaisesWhenUsed(error)
        return loaders

    source.dataloader = dataloader


class RaisesWhenUsed:
    """Carries an error out of the Trainer's loader request, to be raised at the next step.

    Lightning 2.6.6 patches `DataLoader.__init__` during the request and does not undo it when the request raises: the
    user's next run in the same process, with the mistake mended, would fail on loaders that are fine.

    Args:
        error: What to raise.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> NoReturn:
        if isinstance(self.error, TypeError):  # Lightning would say that this is no loader, and not what went wrong
            raise ValueError(str(self.error)) from self.error
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


def batches_to_skip(trainer: Any) -> int:
    """Return how many train batches a resumed run has used of the epoch that it continues.

    It is the number that the Trainer itself counts on from; 0 in a run, or an epoch, that starts at its beginning.

    Args:
        trainer: The Trainer, at the first batch of the epoch.

    Returns:
        Batches of this rank, >= 0.
    """
    loop = trainer.fit_loop
    return int(loop.epoch_loop.batch_progress.current.ready) if loop.restarting else 0


def position_in_run(trainer: Any) -> tuple[int, int]:
    """Return the epoch that runs and the batches of it that are used.

    Not what the Trainer passes to `set_epoch`: resumed after a run that `max_steps` ended inside an epoch, it continues
    that epoch's batches under the next one's number (read in 2.6.6), and skips what is left of the first.

    Args:
        trainer: The Trainer, at the first batch of the epoch.

    Returns:
        The epoch, and batches of this rank.
    """
    return int(trainer.current_epoch), batches_to_skip(trainer)


def has_trained(trainer: Any) -> bool:
    """Say whether a run, or the one that it goes on from, has asked for a batch to train on.

    `global_step` does not say it: gradients may be accumulated.

    Args:
        trainer: The Trainer.

    Returns:
        False before the first batch, also when a learning-rate or batch size finder has taken back what it did.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready) > 0


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


def users_check_val(trainer: Any) -> int | None:
    """Return the user's own `check_val_every_n_epoch`, whatever callbacks of ours made of it.

    Args:
        trainer: The Trainer.

    Returns:
        The number, or None when the user validates by steps.
    """
    kept = trainer.fit_loop.__dict__.get("_lightning_adapt_validation")
    users: int | None = trainer.check_val_every_n_epoch if kept is None else kept["every"]
    return users


def thin_out_validation(trainer: Any, owner: Hashable, epochs: int) -> None:
    """Validate every so many epochs; with several owners the largest number holds.

    EarlyStopping decides in its own `setup` whether to check at the end of each train epoch; with validation rarer
    than that it would look for a metric that is not there, so it is told to check after validation.

    Args:
        trainer: The Trainer, once training has started.
        owner: Who asks.
        epochs: Epochs between validations.
    """
    kept = trainer.fit_loop.__dict__.setdefault(
        "_lightning_adapt_validation", {"every": trainer.check_val_every_n_epoch, "wishes": {}, "stoppers": []}
    )
    kept["wishes"][owner] = epochs
    trainer.check_val_every_n_epoch = max(kept["wishes"].values())
    if trainer.check_val_every_n_epoch > 1:
        for callback in trainer.early_stopping_callbacks:
            if callback._check_on_train_epoch_end:
                callback._check_on_train_epoch_end = False
                kept["stoppers"].append(callback)


def restore_validation(trainer: Any, owner: Hashable) -> None:
    """Take back what `thin_out_validation` did for one owner; harmless when there is nothing to take back.

    Args:
        trainer: The Trainer.
        owner: Who asked.
    """
    kept = trainer.fit_loop.__dict__.get("_lightning_adapt_validation")
    if kept is None or kept["wishes"].pop(owner, None) is None:
        return
    trainer.check_val_every_n_epoch = max(kept["wishes"].values(), default=kept["every"])
    if not kept["wishes"]:
        for callback in kept["stoppers"]:
            callback._check_on_train_epoch_end = True
        del trainer.fit_loop.__dict__["_lightning_adapt_validation"]


def validate_in_this_epoch(trainer: Any) -> None:
    """Have the epoch that starts now end with validation, however rare validation is.

    Args:
        trainer: The Trainer, in `on_train_epoch_start`.
    """
    # a divisor of the epoch's number; not 1, which would tell ModelCheckpoint to save without waiting for validation
    trainer.check_val_every_n_epoch = trainer.current_epoch + 1


def checkpoints_that_miss_validation(trainer: Any) -> list[int]:
    """Return the `every_n_epochs` of ModelCheckpoints that save after validation, but not after each one.

    Args:
        trainer: The Trainer, once training has started.

    Returns:
        The numbers, those that are no multiple of the epochs between validations.
    """
    epochs = trainer.check_val_every_n_epoch or 1
    numbers = [
        getattr(callback, "_every_n_epochs", 1)
        for callback in trainer.checkpoint_callbacks
        if not getattr(callback, "_save_on_train_epoch_end", False)
    ]
    return [number for number in numbers if number > 1 and number % epochs]


def reload_train_loader(trainer: Any) -> None:
    """Have the Trainer ask for the train loaders anew before the next epoch, and for nothing more than that.

    Only so do `num_training_batches`, `limit_train_batches` and persistent workers follow a data set that changed.

    Args:
        trainer: The Trainer, in `on_train_start` or `on_train_epoch_end`.
    """
    loop = trainer.fit_loop
    loop.__dict__.setdefault("_lightning_adapt_reload", trainer.reload_dataloaders_every_n_epochs)
    trainer.reload_dataloaders_every_n_epochs = 1
    loop._last_train_dl_reload_epoch = float("-inf")  # resumed or fitted again, it may be the epoch that comes


def restore_reloading(trainer: Any) -> None:
    """Give the user's `reload_dataloaders_every_n_epochs` back; harmless when there is nothing to give back.

    Args:
        trainer: The Trainer; call it when the epoch has started, so that no validation loader is made anew.
    """
    loop = trainer.fit_loop.__dict__
    if "_lightning_adapt_reload" in loop:
        trainer.reload_dataloaders_every_n_epochs = loop.pop("_lightning_adapt_reload")


def epoch_is_complete(trainer: Any) -> bool:
    """Say whether the epoch that ends has used all of its batches.

    `max_steps`, `max_time` or a callback may end training inside an epoch; `on_train_epoch_end` runs all the same.

    Args:
        trainer: The Trainer, in `on_train_epoch_end`.

    Returns:
        False where a resumed run would go on inside this epoch.
    """
    return bool(trainer.fit_loop.epoch_loop._num_ready_batches_reached())


def begin_after_last_batch(trainer: Any) -> None:
    """Let a run resumed from a checkpoint of the last batch of an epoch start the next one at its first batch.

    Lightning 2.6.6 tells such a checkpoint by the number of batches, which it compares with those of the next epoch: it
    would skip as many there, if the next one is longer.

    Args:
        trainer: The Trainer, in `on_train_epoch_start` of the first epoch; nothing happens in any other run.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch:
        loop.batch_progress.increment_completed()
        for progress in (loop.batch_progress, loop.scheduler_progress, loop.automatic_optimization.optim_progress):
            progress.reset_on_run()
        loop.val_loop.batch_progress.total.reset()
        loop.reset_restart_stage()


def is_dev_run(trainer: Any) -> bool:
    """Say whether the Trainer only tries out a few batches (`fast_dev_run`, which a connector of it sets)."""
    return bool(trainer.fast_dev_run)
