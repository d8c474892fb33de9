"""A small module, its data and short runs, for the tests of instruction tuning."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_adapt.divconq.models.instruction_data import InstructionDataModule
from lightning_adapt.divconq.models.instruction_module import InstructionTuningModule
from tests.divconq.instruction_parts import pairs, tiny

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}
SMALL = {"r": 4, "lora_dropout": 0.0}


def module(**options):
    return InstructionTuningModule(tiny()[0], **{"lora": SMALL, "learning_rate": 1e-2, **options})


def data(count=12, **options):
    return InstructionDataModule(pairs(count), tiny()[1], **{"batch_size": 4, **options})


def fit(tuned, datamodule=None, ckpt_path=None, **options):
    trainer = Trainer(**{**QUIET, "max_epochs": 1, **options})
    trainer.fit(tuned, datamodule=data() if datamodule is None else datamodule, ckpt_path=ckpt_path)
    return trainer


def batch_of(count=5):
    made = data(count, batch_size=count)
    made.setup("fit")
    return next(iter(made.train_dataloader()))
