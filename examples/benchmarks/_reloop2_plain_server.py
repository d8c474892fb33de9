"""The server of examples/reloop2_serve.py without a memory and without a journal: what the model alone costs.

python examples/benchmarks/_reloop2_plain_server.py CHECKPOINT PORT
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from lightning_adapt.reloop2.serving.api import error_memory_api, serve
from lightning_adapt.reloop2.serving.request_schema import RequestSchema
from lightning_adapt.reloop2.serving.waiting import FeedbackResult

torch.set_num_threads(1)


class PlainPredictor:
    """Stands where an ErrorMemoryPredictor would; forgets everything."""

    def __init__(self, checkpoint: str) -> None:
        from lightning_adapt import CTRModule  # in the worker alone, as in the example

        self.module = CTRModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()

    @contextmanager
    def group(self) -> Iterator[None]:
        yield

    def predict(self, batch: Mapping[str, torch.Tensor], ids: Sequence[Any]) -> torch.Tensor:  # noqa: ARG002
        with torch.inference_mode():
            return torch.sigmoid(self.module(batch))

    def feedback(self, ids: Sequence[Any], labels: torch.Tensor) -> FeedbackResult:  # noqa: ARG002
        return FeedbackResult(accepted=list(ids))


def build(checkpoint: str, device: str) -> Any:  # noqa: ARG001
    return PlainPredictor(checkpoint)


def main(checkpoint: str, port: str) -> None:
    sizes = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["field_sizes"]
    serve(error_memory_api(partial(build, checkpoint), RequestSchema(sizes)), port=int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
