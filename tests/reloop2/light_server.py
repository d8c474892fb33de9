"""A server with a model that is there at once: `python -m tests.reloop2.light_server FOLDER PORT TOKEN`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

from lightning_adapt.reloop2.serving.api import error_memory_api, serve
from lightning_adapt.reloop2.serving.journal import Journal
from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor
from tests.reloop2.predictor_parts import predictor

torch.set_num_threads(1)
LIMITS = {"rows": 50, "bytes": 10_000}


def build(folder: Path, device: str) -> ErrorMemoryPredictor:
    return predictor("adaptive", journal=Journal(folder / "journal", snapshot_every=80))


def main(folder: str, port: str, token: str) -> None:
    api = error_memory_api(partial(build, Path(folder)), max_rows=LIMITS["rows"])
    serve(api, port=int(port), token=token, max_body_bytes=LIMITS["bytes"])


if __name__ == "__main__":
    main(*sys.argv[1:])
