"""Which rows of a manifest a voice is tuned on and which are held out; looked at before anything heavy is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_adapt.lina_speech.data.manifest import read_manifest

__all__ = ["held_out_rows", "rows_of_speaker"]

_SHOWN = 20


def rows_of_speaker(manifest: Path, speaker: str | None) -> list[dict[str, Any]]:
    """Return the rows of a manifest that one speaker says.

    Args:
        manifest: The manifest, of --manifest.
        speaker: Who; None for the only one there is.

    Returns:
        Rows as `read_manifest` returns them, at least one.

    Raises:
        FileNotFoundError: If there is no such manifest.
        ValueError: If it is broken, has several speakers and none was chosen, or not the one that was.
    """
    rows = _read("--manifest", manifest)
    if speaker is None:
        _check_one_speaker("--manifest", manifest, rows)
        return rows
    chosen = [row for row in rows if row["speaker"] == speaker]
    if not chosen:
        raise ValueError(f"--speaker {speaker!r} is not in {str(manifest)!r}, which has {_speakers(rows)}.")
    return chosen


def held_out_rows(val: float | Path, rows: Sequence[dict[str, Any]]) -> float | list[dict[str, Any]]:
    """Return what is held out of tuning.

    Args:
        val: A share of the rows, or a manifest; of that, the rows that name the speaker of `rows`, or nobody.
        rows: The rows to tune on.

    Returns:
        The share, or rows of the manifest.

    Raises:
        FileNotFoundError: If there is no such manifest.
        ValueError: If it is broken, has other speakers only, or shares recordings with `rows`; if there are too few
            rows for a share.
    """
    if not isinstance(val, Path):
        if val and len(rows) < 2:
            raise ValueError(
                f"--val {val} needs at least two recordings, but there is one. Record more, or pass --val 0 to hold "
                "none out."
            )
        return val
    found, speaker = _read("--val", val), rows[0]["speaker"]
    if not speaker:
        _check_one_speaker("--val", val, found)
    held_out = [row for row in found if not speaker or row["speaker"] in (speaker, "")]
    if not held_out:
        raise ValueError(f"--val {str(val)!r} has no recording of {speaker!r}, but of {_speakers(found)}.")
    here = {_place(row) for row in rows}
    both = [row["audio"] for row in held_out if _place(row) in here]
    if both:
        raise ValueError(
            f"--val must have other recordings than --manifest, but {len(both)} of them are in both, such as "
            f"{both[0]}. What was tuned on says nothing about what was not."
        )
    return held_out


def _read(option: str, manifest: Path) -> list[dict[str, Any]]:
    if not manifest.exists():
        raise FileNotFoundError(f"{option} {str(manifest)!r} is not there. Pass a file or folder of recordings.")
    return read_manifest(manifest)


def _check_one_speaker(option: str, manifest: Path, rows: Sequence[dict[str, Any]]) -> None:
    if len({row["speaker"] for row in rows}) > 1:
        raise ValueError(
            f"{option} {str(manifest)!r} has several speakers, and a voice is that of one: {_speakers(rows)}. Pass "
            "--speaker NAME, and run it once for each voice you want."
        )


def _place(row: dict[str, Any]) -> Path:
    return Path(row["audio"]).resolve()


def _speakers(rows: Sequence[dict[str, Any]]) -> str:
    counts = Counter(row["speaker"] for row in rows)
    names = [f"{name or 'nobody named'} ({count} rows)" for name, count in counts.most_common()]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
