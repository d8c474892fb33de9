"""The files of a selection: checked before the work, each there whole or not at all, put back if one fails."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.files import existing_folder
from lightning_adapt.divconq.text.readers import write_rows

__all__ = ["Outputs", "plan_outputs", "write_outputs"]

_KINDS = (".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True)
class Outputs:
    """Where the files of a selection go.

    Attributes:
        data: The chosen rows, in the input's own format; a folder where the input is one.
        indices: Their numbers, with all that led to them (JSON).
        report: The page; None for none.
    """

    data: Path
    indices: Path
    report: Path | None

    @property
    def all(self) -> list[Path]:
        """Every path, the data last."""
        return [*([] if self.report is None else [self.report]), self.indices, self.data]


def plan_outputs(source: Path, out: Path, *, report: bool, force: bool, others: Sequence[Path] = ()) -> Outputs:
    """Name the files of a selection and check that they can be written, before minutes of work.

    Args:
        source: The input.
        out: Where the chosen rows go; `chosen.jsonl` brings `chosen.indices.json` and `chosen.html` beside it.
        report: Whether there is a page.
        force: Replace files that are there; never a folder.
        others: Further files or folders that are read and must stay, such as the embedder's.

    Returns:
        The paths.

    Raises:
        FileExistsError: If a file is there and `force` is not given, or a folder is there.
        OSError: If the folder cannot be written to.
        ValueError: If an output is an input or inside of one, or `out` has another ending.
    """
    folder = source.is_dir()
    if not folder and source.suffix in _KINDS and out.suffix != source.suffix:  # of other kinds the reader says more
        remedy = "The chosen rows keep the format of the input."
        raise ValueError(problem("out", f"a {source.suffix} file like the input", str(out), remedy))
    stem = out.name if folder else out.stem
    page = out.with_name(f"{stem}.html") if report else None
    outputs = Outputs(out, out.with_name(f"{stem}.indices.json"), page)
    for path in outputs.all:
        for read in (source, *others):
            if _is_in(path, read):
                remedy = f"{path} would be written over or into it. Name another `--out`."
                raise ValueError(problem("out", f"another path than the input {read}", str(out), remedy))
    _check_free(outputs, force)
    _check_writable(out)
    return outputs


def _is_in(path: Path, read: Path) -> bool:
    """Return whether a path is an input, by whatever name, or would be inside of one."""
    if path.exists() and read.exists() and path.samefile(read):
        return True
    return read.resolve() in (path.resolve(), *path.resolve().parents)


def _check_free(outputs: Outputs, force: bool) -> None:
    folders = [path for path in outputs.all if path.is_dir()]
    if folders:
        names = " and ".join(map(str, folders))
        raise FileExistsError(f"A folder is never replaced: {names}. Move it away, or pass another `--out`.")
    there = [path for path in outputs.all if path.exists()]
    if there and not force:
        names = " and ".join(map(str, there))
        raise FileExistsError(f"{names} would be replaced. Pass `--force` (`force=True`), or another `--out`.")


def _check_writable(out: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=existing_folder(out.absolute())):
            pass
    except OSError as error:
        remedy = "Give a path that you may write to."
        raise type(error)(problem("out", "in a folder that can be written to", str(out), remedy)) from error


def write_outputs(
    outputs: Outputs, source: Any, rows: npt.NDArray[np.int64], record: Mapping[str, Any], page: str | None
) -> None:
    """Write all files beside their places first, then move them there; after an error all is as it was.

    Only a process that is killed between two of the moves leaves new files beside old ones, each of them whole.

    Args:
        outputs: Where to.
        source: What `open_rows` returned for the input.
        rows: Chosen rows, ascending.
        record: What goes into the file of indices; plain values.
        page: The page; None for none.

    Raises:
        OSError: If a file cannot be written.
    """
    outputs.data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=outputs.data.parent) as name:
        new, old = Path(name) / "new", Path(name) / "old"
        new.mkdir()
        old.mkdir()
        if outputs.report is not None and page is not None:
            (new / outputs.report.name).write_text(page, encoding="utf-8")
        lines = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in record.items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"  # a line per entry: a list of rows stays one
        (new / outputs.indices.name).write_text(text, encoding="utf-8")
        write_rows(rows.tolist(), source, new / outputs.data.name)
        _move(outputs.all, new, old)


def _move(targets: Sequence[Path], new: Path, old: Path) -> None:
    for path in targets:
        if path.exists():
            shutil.copy2(path, old / path.name)  # a copy: at no time is the target missing
    try:
        for path in targets:
            (new / path.name).replace(path)
    except BaseException:
        for path in targets:
            if not (new / path.name).exists():  # it has been moved
                path.replace(new / path.name)
                if (old / path.name).exists():
                    (old / path.name).replace(path)
        raise
