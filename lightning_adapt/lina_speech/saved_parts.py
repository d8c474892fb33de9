"""Codec and tokenizer out of a checkpoint of LinaSpeechModule, for what is built before the module or without it."""

from __future__ import annotations

import os
import zipfile
from typing import Any

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.state import read_version

__all__ = ["PARTS_KEY", "PARTS_VERSION", "check_checkpoint_is_there", "saved_content", "saved_part"]

PARTS_KEY, PARTS_VERSION = "lina_speech", 1  # where a checkpoint holds codec and tokenizer


def saved_part(path: str | os.PathLike[str], name: str) -> dict[str, Any] | None:
    """Return what a checkpoint of `LinaSpeechModule` holds of its codec or tokenizer.

    Nothing in the file is executed, and its weights are not read.

    Args:
        path: A file of any kind.
        name: "codec" or "tokenizer".

    Returns:
        {"fingerprint", "state"}; None if the file is something else, or cannot be read.

    Raises:
        ValueError: If the checkpoint is of a newer release, or its model has none.
    """
    content = saved_content(path)
    if not isinstance(content, dict) or PARTS_KEY not in content:
        return None
    saved = content[PARTS_KEY]
    read_version(saved, PARTS_VERSION, "LinaSpeechModule")
    part = saved.get(name)
    if part is None:
        allowed = f"a checkpoint of a model that has a {name}"
        raise ValueError(problem(name, allowed, str(path), f"Its model was trained without: pass the {name} itself."))
    if not isinstance(part, dict) or not {"fingerprint", "state"} <= set(part) or not isinstance(part["state"], dict):
        raise ValueError(
            f"{os.fspath(path)} is damaged: what it holds of the {name} is no state. Use another checkpoint."
        )
    return part


def check_checkpoint_is_there(path: str | os.PathLike[str], argument: str) -> None:
    """Refuse the name of a checkpoint that is not there, such as one that stands in an example for the user's own.

    Args:
        path: What may be one; anything without the ending of a Trainer's checkpoints is passed over.
        argument: Name of the argument, for the error text.

    Raises:
        FileNotFoundError: If it ends in ".ckpt" and is no file.
    """
    if os.fspath(path).endswith(".ckpt") and not os.path.isfile(path):  # noqa: PTH113  # a str or a path
        raise FileNotFoundError(
            f"`{argument}`: there is no file {os.fspath(path)!r}; put the path of your checkpoint here."
        )


def saved_content(path: str | os.PathLike[str]) -> Any:
    """Return what `torch.save` wrote to a file; nothing in it is executed, and its tensors are not read.

    Args:
        path: A file of any kind.

    Returns:
        What was saved; None if the file is something else, or cannot be read.
    """
    if not zipfile.is_zipfile(path):  # a Trainer writes no other kind, and torch would read all of it
        return None
    import torch  # tokenizers do without it

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # what is no such file may raise anything, an IndexError for one
        return None
