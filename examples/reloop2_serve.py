"""A click model behind HTTP that learns from its feedback within milliseconds, and loses nothing when it is killed.

    python examples/reloop2_serve.py
    curl localhost:8000/reloop2 -H 'Content-Type: application/json' -d '{"type": "predict", "ids": ["view 1"],
        "features": {"user_id": [7], "item_id": [3], "group": [1], "category": [5], "position": [2]}}'
    curl localhost:8000/reloop2 -H 'Content-Type: application/json' -d '{"type": "feedback", "ids": ["view 1"],
        "labels": [1]}'

Without --checkpoint it trains a small model on made-up clicks first. With a host that others can reach, a token is
needed: in the environment variable LIGHTNING_ADAPT_TOKEN here, in the header "Authorization: Bearer ..." there.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightning_adapt.reloop2.serving.api import error_memory_api, serve

torch.set_num_threads(1)  # requests are small


def stream() -> Any:
    from lightning_adapt import DriftStream

    return DriftStream(n_train=20_000, n_stream=5_000, n_users=300, n_items=200, n_categories=12, n_groups=4)


def train(checkpoint: Path) -> None:
    from lightning.pytorch import Trainer  # only here and in build: the process that hands requests on starts sooner

    from lightning_adapt import CTRModule

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=2, accelerator="cpu", enable_checkpointing=False, **quiet)
    torch.manual_seed(0)
    trainer.fit(CTRModule(embedding_dim=8, hidden=(32, 16)), datamodule=stream())
    trainer.save_checkpoint(checkpoint, weights_only=False)


def build(checkpoint: Path, journal: Path, device: str) -> Any:
    """Load the model and replay the journal; called in the one process that owns the memory."""
    from lightning_adapt import CTRModule, ErrorMemoryPredictor

    return ErrorMemoryPredictor.from_checkpoint(CTRModule, checkpoint, map_location=device, journal=journal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="of a CTRModule; none: train a small one")
    parser.add_argument("--folder", type=Path, default=Path("reloop2_server"), help="where model and journal are kept")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in, with a token")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = options.checkpoint or options.folder / "model.ckpt"
    if not checkpoint.exists() and options.checkpoint is None:
        train(checkpoint)
    api = error_memory_api(partial(build, checkpoint, options.folder / "journal.sqlite"))
    serve(api, host=options.host, port=options.port, token=os.environ.get("LIGHTNING_ADAPT_TOKEN"))


if __name__ == "__main__":
    main()
