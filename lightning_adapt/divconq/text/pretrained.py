"""Models and tokenizers of transformers by name or folder, with an error that says which argument is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require

__all__ = ["load_pretrained"]


def load_pretrained(kind: str, name: str | Path, argument: str, **options: Any) -> Any:
    """Load a model or a tokenizer; from a folder without the progress bar of transformers.

    Args:
        kind: Class of transformers, such as "AutoTokenizer".
        name: Folder, or name on the hub.
        argument: Where the name came from, for the error text.
        options: Of `from_pretrained`.

    Returns:
        What was loaded.

    Raises:
        ModuleNotFoundError: If transformers is missing; names the extra.
        ValueError: If it cannot be loaded.
    """
    require("llm", f"`{argument}` by its name", "transformers")
    import transformers

    with _no_progress_bar(Path(name).is_dir()):
        try:
            return getattr(transformers, kind).from_pretrained(str(name), **options)
        except (OSError, ValueError) as error:
            what = "tokenizer" if kind == "AutoTokenizer" else "model"
            remedy = f"Check the name, the folder or the connection. transformers says: {error}"
            allowed = f"a folder with a {what}, or the name of one that can be loaded"
            raise ValueError(problem(argument, allowed, str(name), remedy)) from error


@contextmanager
def _no_progress_bar(hidden: bool) -> Iterator[None]:
    from transformers.utils import logging

    bars: Any = logging
    shown = hidden and bars.is_progress_bar_enabled()
    if shown:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
