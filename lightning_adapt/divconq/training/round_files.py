"""Round files: what was chosen in each round and why, as JSON beside a parquet table; equal runs, equal bytes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.text_files import read_json

__all__ = ["RoundFile", "read_round", "write_round"]

FORMAT = 1
COLUMNS = ("index", "row_hash", "cluster", "q", "S", "w")
_DIGITS = 6  # of floating-point numbers: the last ones differ between numbers of ranks
_KEYS = ("format", "versions", "settings", "round", "n", "k", "engine", "seed", "fingerprint", "entropy", "rows")
_REMEDY = "Write it anew with out_dir=..., or choose another round."


class RoundFile(NamedTuple):
    """What a round's two files hold.

    Attributes:
        summary: The JSON file: settings, versions, k, engine, weights and scores of the clusters, entropy, seed,
            fingerprint of the pool, rows drawn in this round (`rows`).
        table: The parquet file, one entry per training row of the round: index (row of the data set), row_hash (of its
            text, or None), cluster, q (quality), S (score, None before the row is scored), w (weight of its cluster).
    """

    summary: dict[str, Any]
    table: dict[str, list[Any]]


def write_round(
    folder: str | os.PathLike[str], summary: Mapping[str, Any], table: Mapping[str, Tensor | list[Any]]
) -> None:
    """Write `round-<r>.json` and `round-<r>.parquet`; each is there whole or not at all.

    Args:
        folder: Where to; made if it is missing.
        summary: Plain values with a key "round"; tensors and floating-point numbers are rounded to 6 digits, NaN
            becomes null.
        table: The columns of `RoundFile.table`: tensors of shape (R,) or lists.

    Raises:
        ModuleNotFoundError: If pyarrow is missing; names the extra.
        OSError: If the folder cannot be written to.
    """
    require_parquet("write_round")
    import pyarrow
    import pyarrow.parquet

    kinds = {"index": pyarrow.int64(), "row_hash": pyarrow.string(), "cluster": pyarrow.int64()}
    columns = {name: pyarrow.array(_plain(table[name]), type=kinds.get(name, pyarrow.float64())) for name in COLUMNS}
    stem = Path(folder) / f"round-{summary['round']}"
    with whole_file(stem.with_suffix(".parquet")) as unfinished:
        pyarrow.parquet.write_table(pyarrow.table(columns), unfinished)
    text = json.dumps(_plain({"format": FORMAT, **summary}), indent=1, allow_nan=False, ensure_ascii=False)
    with whole_file(stem.with_suffix(".json")) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def require_parquet(feature: str) -> None:
    """Raise with the install command unless parquet files can be written.

    Args:
        feature: Who asks, for the error text.

    Raises:
        ModuleNotFoundError: If pyarrow is missing; names the extra.
    """
    if find_spec("pyarrow") is None:
        require("llm", feature, "datasets")  # brings pyarrow


def read_round(folder: str | os.PathLike[str], round_number: int) -> RoundFile:
    """Read the two files of a round.

    Args:
        folder: The callback's `out_dir`.
        round_number: The round, from 0.

    Returns:
        What they hold.

    Raises:
        FileNotFoundError: If one of them is not there.
        ValueError: If one of them is broken, incomplete, of a newer format, or they do not fit together.
    """
    stem = Path(folder) / f"round-{round_number}"
    summary = _read_summary(stem.with_suffix(".json"))
    table = _read_table(stem.with_suffix(".parquet"))
    missing = set(summary["rows"]) - set(table["index"])
    if missing:
        received = f"{stem.name}.parquet without row {min(missing)}"
        raise ValueError(problem("folder", f"one with files of one run ({stem.name}.json)", received, _REMEDY))
    return RoundFile(summary, table)


def _read_summary(path: Path) -> dict[str, Any]:
    _check_there(path)
    try:
        summary = read_json(path)
    except ValueError as error:
        raise ValueError(f"`{path.name}` is no whole JSON file: {error} {_REMEDY}") from error
    missing = [key for key in _KEYS if key not in summary] if isinstance(summary, dict) else ["everything"]
    if missing:
        raise ValueError(f"`{path.name}` is no round file: it has no {', '.join(missing)}. {_REMEDY}")
    if summary["format"] != FORMAT:
        raise ValueError(
            f"`{path.name}` has format {summary['format']!r}, but this release reads {FORMAT}. Upgrade lightning-adapt."
        )
    return summary  # type: ignore[no-any-return]


def _read_table(path: Path) -> dict[str, list[Any]]:
    _check_there(path)
    require_parquet("read_round")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"`{path.name}` is no whole parquet file: {error}. {_REMEDY}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(f"`{path.name}` is no round file: it has no column {', '.join(missing)}. {_REMEDY}")
    return {name: table.column(name).to_pylist() for name in COLUMNS}


def _check_there(path: Path) -> None:
    if not path.is_file():
        found = sorted(file.name for file in path.parent.glob("round-*.json"))
        raise FileNotFoundError(
            problem(
                "folder",
                f"one with {path.name}",
                f"{path.parent} with {', '.join(found) or 'no round files'}",
                "Pass the callback's `out_dir`.",
            )
        )


def _plain(value: Any) -> Any:
    """Return JSON values: rounded floating-point numbers, None for NaN, lists for tensors, numbers for NumPy's."""
    if isinstance(value, (Tensor, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value
