"""What the tests of the Diversify & Conquer benchmarks share: made-up rows in LIMA's format."""

import json

from lightning_adapt.divconq.text.planted import planted_instructions


def write_lima(folder, n=1030):
    """Write n clean conversations where the benchmarks look for LIMA."""
    path = folder / "lima" / "train.jsonl"
    path.parent.mkdir()
    rows = planted_instructions(n, 0, seed=9)
    lines = [json.dumps({"conversations": [one["content"] for one in row["messages"]]}) for row in rows]
    lines[3] = json.dumps({"conversations": ["a prompt without an answer"]})
    path.write_text("\n".join(lines), encoding="utf-8")
    return folder
