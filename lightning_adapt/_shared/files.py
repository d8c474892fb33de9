"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file beside the target, and rename it to the target when the block ends without an error.

    Args:
        path: The target; missing folders are made, a file that is there is replaced and keeps who may read and write
            it; for a new one the umask decides that, as for any file.

    Yields:
        The temporary file, with the ending of the target; write to it inside the block.

    Raises:
        OSError: If the folder cannot be written to. After any error in the block the temporary file is gone and the
            target is as it was.

    Example:
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> with whole_file(folder / "numbers.txt") as unfinished:
        ...     _ = unfinished.write_text("1 2 3")
        >>> [file.name for file in folder.iterdir()]
        ['numbers.txt']
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    temporary = target.with_name(f".unfinished-{token_hex(8)}{target.suffix}")
    # created as private as the file that it replaces; ours to write, even if that one is not
    temporary.touch(0o666 if mode is None else mode | 0o600, exist_ok=False)
    try:
        yield temporary
        if mode is not None:
            temporary.chmod(mode)
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
