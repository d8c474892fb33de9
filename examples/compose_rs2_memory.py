"""RS2 and an error memory in one Trainer: `fit` costs a third, `test` corrects by the labels that have come since.

python examples/compose_rs2_memory.py
"""

import logging
import warnings

import torch
from lightning.pytorch import Trainer

from lightning_adapt import CTRModule, DriftStream, ErrorMemoryCallback, RS2Callback


def run(name: str, callbacks: list) -> None:
    stream = DriftStream(
        "abrupt", n_train=40_000, n_stream=10_000, batch_size=256
    )  # what users like changes in the middle
    torch.manual_seed(0)
    module = CTRModule(stream.field_sizes, embedding_dim=8, hidden=(32,))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=3, accelerator="cpu", callbacks=callbacks, enable_model_summary=False, **quiet)
    trainer.fit(module, stream)
    steps = trainer.global_step
    (result,) = trainer.test(module, stream, verbose=False)
    auc, loss = 100 * result["test_auc"], result["test_logloss"]
    print(f"{name:22} {steps:4} steps   AUC {auc:.1f} %   log loss {loss:.4f}")


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    run("as it is", [])
    run("RS2", [RS2Callback(1 / 3)])
    run("error memory", [ErrorMemoryCallback()])
    run("RS2 and error memory", [RS2Callback(1 / 3), ErrorMemoryCallback()])  # in any order


if __name__ == "__main__":
    main()
