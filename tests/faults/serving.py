"""A server's calls with a journal: the client repeats what was not answered, and knows what was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from lightning_adapt._shared.files import whole_file
from lightning_adapt.reloop2.serving.journal import Journal
from tests.reloop2.predictor_parts import calls, do, predictor, rows

__all__ = ["MEMORIES", "serve"]

MEMORIES = ("adaptive", "knn")
_CALLS = 60  # of each kind


def serve(folder: Path, memory: str) -> None:
    """Answer the calls that were not answered yet, and write down in the end what became of the memory.

    The answers are appended to a file, as a client would have them; the one that was cut off is asked for again.

    Args:
        folder: For the journal and the answers.
        memory: A name of `tests.reloop2.predictor_parts.MEMORIES`.
    """
    every = list(calls(_CALLS))
    journal = Journal(folder / "journal.sqlite", snapshot_every=15)
    path = folder / "acknowledged.jsonl"
    with predictor(memory, journal=journal) as one:
        done = len(path.read_text().splitlines()) if path.exists() else 0
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for call in every[done:]:
            os.write(handle, f"{answer_of(do(one, call))}\n".encode())
        os.close(handle)
        said = one.predict(rows(20, seed=77), range(20))
        with whole_file(folder / "end.pt") as unfinished:
            torch.save({"state": one.memory.state_dict(), "answers": said}, unfinished)


def answer_of(answer: Any) -> str:
    """An answer in one line, in full."""
    return repr(answer)
