"""Array files of numbers, mapped and never unpickled; whatever is wrong with one becomes a ValueError that names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["open_array"]


def open_array(path: str | os.PathLike[str], mode: Literal["r", "r+"] = "r") -> npt.NDArray[Any]:
    """Return the array of a `.npy` file as a memory map.

    Args:
        path: The file.
        mode: "r" to read it, "r+" to go on writing it.

    Returns:
        The array.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no array of plain numbers, or is cut off; names the file.
    """
    Path(path).open("rb").close()  # a missing file is an OSError of its own
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")  # which checks the length; "r+" makes up rows of zeros
        return mapped if mode == "r" else np.lib.format.open_memmap(path, mode=mode)
    except Exception as error:  # a header is taken apart like Python text, so that nearly anything may come of it
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{os.fspath(path)} is no readable .npy file of numbers: {reason}") from error
