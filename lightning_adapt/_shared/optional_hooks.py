"""OptionalHooks: a DataModule that has a loader for a stage, or not, depending on its arguments."""

from __future__ import annotations

from typing import Any


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

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        hidden, self._hidden = self._hidden, ()
        for name in hidden:
            self.hide_hook(name)
