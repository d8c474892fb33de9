"""OptionalHooks: a DataModule that has a loader for a stage, or not, depending on its arguments."""

from __future__ import annotations

from typing import Any

__all__ = ["OptionalHooks", "loaders_in_words"]


class OptionalHooks:
    """Mix-in, first among the bases: hides a hook by putting the one of Lightning's base class in its place.

    Lightning takes a hook that is the base class's for "there is no such loader". A bound hook is pickled by its name,
    which would bring back the hidden one in a process that gets a copy (ddp_spawn); so it is hidden there again.
    """

    _hidden: tuple[str, ...] = ()

    def hide_hook(self, name: str) -> None:
        """Hide a hook of this class from Lightning.

        Args:
            name: Name of the hook, such as "val_dataloader".
        """
        self._hidden = (*self._hidden, name)
        furthest = [kind for kind in type(self).__mro__ if name in vars(kind)][-1]
        setattr(self, name, getattr(furthest, name).__get__(self))

    def __str__(self) -> str:
        return loaders_in_words(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        hidden, self._hidden = self._hidden, ()
        for name in hidden:
            self.hide_hook(name)


def loaders_in_words(datamodule: Any) -> str:
    """Return what `LightningDataModule.__str__` does, which looks into every loader; one that raises is None.

    Args:
        datamodule: The DataModule.

    Returns:
        A line per loader, such as "{Train dataloader: size=100}".
    """
    lines = []
    for stage, word in (("train", "Train"), ("val", "Validation"), ("test", "Test"), ("predict", "Predict")):
        try:
            size = _size_in_words(getattr(datamodule, f"{stage}_dataloader")())
        except Exception:  # as Lightning has it: there is no such loader, or not yet
            size = "None"
        lines.append(f"{{{word} dataloader: {size}}}")
    return "\n".join(lines)


def _size_in_words(loaders: Any) -> str:
    if isinstance(loaders, (list, tuple)):
        return " ; ".join(f"{number}. {_size_in_words(loader)}" for number, loader in enumerate(loaders, 1))
    if isinstance(loaders, dict):
        return " ; ".join(f"{name}. {_size_in_words(loader)}" for name, loader in loaders.items())
    dataset = loaders.dataset
    return f"size={len(dataset) if hasattr(dataset, '__len__') else 'NA'}"
