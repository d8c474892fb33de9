"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file beside the target, and rename it to the target when the block ends without an error.

    Args:
        path: The target; missing folders are made, a file that is there is replaced.

    Yields:
        The temporary file, with the ending of the target; write to it inside the block.

    Raises:
        OSError: If the folder cannot be written to. After any error in the block the temporary file is gone and the
            target is as it was.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole_file(folder / "numbers.txt") as unfinished:
        ...     _ = unfinished.write_text("1 2 3")
        >>> [file.name for file in folder.iterdir()]
        ['numbers.txt']
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".unfinished-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files private; these are for others to see
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def existing_folder(path: Path) -> Path:
    """Return the nearest folder above a path that is there; it may turn out to be a file.

    Args:
        path: A path that may not be there yet.

    Returns:
        The folder; absolute if the path is.
    """
    return next(folder for folder in path.parents if folder.exists())


def obstacle_to(files: Sequence[Path]) -> Path | None:
    """Return what keeps files of one folder from being written, to be known before any work is done for them.

    Args:
        files: At least one.

    Returns:
        What is above them if it is no folder or may not be written to; or the first of them that is a folder; or None.
    """
    above = existing_folder(files[0])
    if not above.is_dir() or not os.access(above, os.W_OK):
        return above
    return next((file for file in files if file.is_dir()), None)
