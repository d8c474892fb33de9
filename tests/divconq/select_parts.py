"""A small pool of instructions in every format and kind of file, for the tests of `select`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOPICS = {
    "cooking": "flour butter oven bake sugar dough pan whisk egg vanilla",
    "sailing": "mast rudder harbour wind sail anchor tide deck rope keel",
    "algebra": "matrix vector kernel rank basis eigenvalue trace field ring group",
}
N = 60  # rows; the last two are a copy of row 0 and one without a response
FORMATS = ("alpaca", "sharegpt", "messages", "prompt-response")


def pairs(n: int = N) -> list[tuple[str, str]]:
    """Return n prompts and responses, row i about topic i % 3; no two are equal but the planted copy."""
    rows = []
    for row in range(n):
        words = list(TOPICS.values())[row % 3].split()
        prompt = " ".join(words[(row * 7 + 3 * place) % 10] for place in range(6)) + f" {words[row % 10]}"
        rows.append((f"Explain {prompt} number {row}.", " ".join(words[: 3 + row % 7]) + f" äöü {row}"))
    rows[-2] = rows[0]
    rows[-1] = (rows[-1][0], "  \n")
    return rows


def row_of(pair: tuple[str, str], kind: str) -> dict[str, Any]:
    prompt, response = pair
    if kind == "alpaca":
        return {"instruction": prompt, "input": "", "output": response}
    if kind == "sharegpt":
        return {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": response}]}
    if kind == "messages":
        return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]}
    return {"prompt": prompt, "response": response}


def rows(kind: str = "alpaca", **columns: Any) -> list[dict[str, Any]]:
    """Return the rows in a format; `columns` are functions from the row number to a further value."""
    made = [row_of(pair, kind) for pair in pairs()]
    return [{**row, **{name: value(place) for name, value in columns.items()}} for place, row in enumerate(made)]


def write_pool(path: Path, content: list[dict[str, Any]]) -> Path:
    """Write rows as the ending of the path says; no ending: a folder of `datasets`."""
    if path.suffix == ".jsonl":  # with odd spacing: chosen lines must be copied, not written anew
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False, separators=(" , ", ": ")) + "\n" for row in content)
        )
    elif path.suffix == ".json":
        path.write_text(json.dumps(content, indent=2))
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(content), path, row_group_size=25)
    else:
        from datasets import Dataset

        Dataset.from_list(content).save_to_disk(path)
    return path


def read_pool(path: Path) -> list[dict[str, Any]]:
    """Read rows back, by other means than the package."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    from datasets import load_from_disk

    return load_from_disk(str(path)).to_list()
