"""Instruction tuning and text embeddings on a CUDA device; tiny random models, nothing is downloaded."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_adapt.divconq.embed.transformer import TransformerEmbedder
from lightning_adapt.divconq.models.instruction_data import InstructionDataModule
from lightning_adapt.divconq.models.instruction_module import InstructionTuningModule
from tests.divconq.instruction_parts import pairs, talks, tiny

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

QUIET = {
    "accelerator": "gpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


def module(**options):
    torch.manual_seed(0)
    return InstructionTuningModule(tiny()[0], **{"learning_rate": 1e-2, "max_new_tokens": 6, **options})


def data(**options):
    return InstructionDataModule(pairs(16), tiny()[1], **{"batch_size": 4, "val": pairs(16), **options})


@pytest.mark.parametrize("lora", [True, {"r": 4}, False])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_in_bfloat16_lowers_the_loss(lora, checkpointing):
    tuned = module(lora=lora, gradient_checkpointing=checkpointing)
    trainer = Trainer(**QUIET, precision="bf16-mixed", max_epochs=8)
    before = trainer.validate(tuned, datamodule=data(), verbose=False)[0]["val_loss"]
    trainer.fit(tuned, datamodule=data())
    assert trainer.callback_metrics["val_loss"].item() < before - 0.2
    assert {value.dtype for value in tuned.parameters()} == {torch.float32}


def test_answers_are_those_of_the_cpu_and_leave_no_trace():
    tuned = module(tokenizer=tiny()[1])
    here = tuned.generate_responses(talks())
    tuned.to("cuda")
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    there = tuned.generate_responses(talks())
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], torch.cuda.get_rng_state())
    assert all(part.training for part in tuned.model.modules())
    # a random model has near ties, where the last bits decide; the texts must agree all the same in most places
    assert sum(a == b for a, b in zip(here, there, strict=True)) >= len(here) - 1


def test_a_checkpoint_of_the_gpu_loads_on_the_cpu():
    tuned, rows = module(lora={"r": 4}), data()
    trainer = Trainer(**QUIET, max_epochs=1)
    trainer.fit(tuned, datamodule=rows)
    trainer.save_checkpoint("tuned.ckpt")
    loaded = InstructionTuningModule.load_from_checkpoint("tuned.ckpt", model=tiny()[0], map_location="cpu")
    loaded.eval()
    tuned.cpu().eval()
    ids = torch.arange(10).view(2, 5)
    with torch.no_grad():
        assert torch.equal(loaded(ids), tuned(ids))


def test_the_loss_of_a_step_is_that_of_the_cpu():
    rows = data()
    rows.setup("fit")
    batch, tuned = next(iter(rows.train_dataloader())), module(lora={"r": 4, "lora_dropout": 0.0})
    tuned.log = lambda *args, **options: None
    here = tuned.training_step(batch, 0)
    tuned.to("cuda")
    there = tuned.training_step({name: value.cuda() for name, value in batch.items()}, 0)
    torch.testing.assert_close(there["sample_loss"].cpu(), here["sample_loss"], rtol=1e-4, atol=1e-4)


def test_embeddings_are_those_of_the_cpu():
    model, tokenizer = tiny()
    texts = [" ".join(turn.content for turn in turns) for turns in talks()] + ["word " * 300]
    model = model.model  # without the head: states, not scores
    here = TransformerEmbedder(model, tokenizer=tokenizer, max_length=64).encode(texts)
    there = TransformerEmbedder(model.cuda(), tokenizer=tokenizer, max_length=64).encode(texts)
    assert abs(here - there).max() < 1e-3
    assert abs((there**2).sum(axis=1) - 1).max() < 1e-5
