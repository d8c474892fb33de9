"""Plain state: what `torch.load(weights_only=True)` accepts, with a version so that old files keep loading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_LEAVES = (bool, int, float, str, bytes, type(None))


def check_plain(state: Any, path: str = "state") -> None:
    """Raise if a value could not be read back by `torch.load(weights_only=True)`.

    Exact types only: a NumPy float64 is a Python float by inheritance, but its pickle is not plain.

    Args:
        state: Nested dicts (plain keys), lists, tuples, tensors, numbers, strings, bytes, bools and None.
        path: Where `state` sits, for the error text.

    Raises:
        TypeError: If anything else is found; the message names the key path, the type and what to do.
    """
    if type(state) in _LEAVES or type(state) in (torch.Tensor, torch.nn.Parameter):
        return
    if type(state) is dict:
        for key, value in state.items():
            if type(key) not in (str, int):
                raise TypeError(f"`{path}` must have str or int keys, but got {key!r}. Convert the key first.")
            check_plain(value, f"{path}.{key}" if isinstance(key, str) else f"{path}[{key}]")
        return
    if type(state) in (list, tuple):
        for position, value in enumerate(state):
            check_plain(value, f"{path}[{position}]")
        return
    name = f"{type(state).__module__}.{type(state).__qualname__}"
    raise TypeError(
        f"`{path}` must be plain (dict, list, tuple, tensor, int, float, str, bytes, bool, None), but got {name}. "
        "Convert it before saving, or the checkpoint cannot be loaded with weights_only=True."
    )


def to_plain(value: Any) -> Any:
    """Convert the usual near-plain values (NumPy scalars and arrays, dtypes, devices, mappings, sets) to plain ones.

    Args:
        value: Any nested value.

    Returns:
        The same content in plain types; tensors are detached, not copied.

    Raises:
        TypeError: If something is left that `check_plain` refuses.
    """
    plain = _convert(value)
    check_plain(plain)
    return plain


def _convert(value: Any) -> Any:
    if type(value) in _LEAVES:
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key if isinstance(key, int) else str(key): _convert(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [_convert(item) for item in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [_convert(item) for item in value]
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if type(value).__module__ == "numpy":
        return torch.from_numpy(value.copy()) if getattr(value, "ndim", 0) else value.item()
    return value


def on_cpu(state: Any) -> Any:
    """Return a deep copy of a nested state with its tensors on the CPU.

    Args:
        state: Nested dicts, lists and tuples of anything.

    Returns:
        The same as dicts and lists that share no memory with it.
    """
    if isinstance(state, Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, dict):  # also a Counter, whose constructor takes no pairs
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [on_cpu(value) for value in state]
    return state


def with_version(state: dict[str, Any], version: int) -> dict[str, Any]:
    """Stamp a state with its format version and check that it is plain.

    Args:
        state: The state, without a key `version`.
        version: Format version, counted from 1.

    Returns:
        A new dict with the key `version` first.

    Raises:
        TypeError: If the state is not plain.
        ValueError: If the state already has a key `version`.
    """
    if "version" in state:
        raise ValueError("`state` must not have a key 'version' of its own. Rename that key.")
    stamped = {"version": version, **state}
    check_plain(stamped)
    return stamped


@contextmanager
def reading_state(what: str) -> Iterator[None]:
    """Turn what a damaged state does to the code that reads it into one error; also a decorator for that code.

    Args:
        what: What the state belongs to, for the error text.

    Yields:
        Nothing.

    Raises:
        ValueError: If something is missing from the state, or of a type or shape that cannot be.
    """
    try:
        yield
    except torch.OutOfMemoryError:  # a RuntimeError of its own kind
        raise
    except (LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(
            f"The saved state of {what} is damaged: {reason}. Use another checkpoint, or begin anew with its weights."
        ) from error


def read_version(state: Any, newest: int, what: str) -> int:
    """Return the format version of a loaded state, or explain why it cannot be used.

    Args:
        state: What came out of a checkpoint or a file.
        newest: Newest version that this release reads.
        what: What the state belongs to, for the error text.

    Returns:
        The version, in 1..newest.

    Raises:
        ValueError: If there is no version, or it is newer than this release knows.
    """
    version = state.get("version") if isinstance(state, Mapping) else None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"The saved state of {what} has no valid `version`. It was not written by lightning_adapt.")
    if version > newest:
        raise ValueError(
            f"The saved state of {what} has version {version}, but this release reads up to {newest}. "
            "Upgrade lightning-adapt."
        )
    return version
