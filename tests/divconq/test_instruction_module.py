"""InstructionTuningModule: the loss, schedules, memory and precision, generation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment

from lightning_adapt.divconq.models.instruction_data import InstructionDataModule
from lightning_adapt.divconq.models.instruction_module import InstructionTuningModule
from lightning_adapt.divconq.models.tuning_optimizer import schedule_factor
from tests.divconq.instruction_parts import pairs, talks, tiny
from tests.divconq.tuning_parts import QUIET, SMALL, batch_of, data, fit, module


def nll_by_loop(model, batch):
    """Summed loss and tokens of every row, token by token in float64."""
    with torch.no_grad():
        scores = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double().numpy()
    sums, counts = [], []
    for row, labels in enumerate(batch["labels"].tolist()):
        total, count = 0.0, 0
        for place, label in enumerate(labels):
            if label != -100:
                line = scores[row, place - 1]
                total += np.log(np.exp(line - line.max()).sum()) + line.max() - line[label]
                count += 1
        sums.append(total)
        counts.append(count)
    return np.asarray(sums), np.asarray(counts)


# -- loss -------------------------------------------------------------------------------------------------------------
def test_the_loss_is_the_mean_over_tokens_and_sample_loss_over_each_answer():
    tuned, batch = module(), batch_of()
    tuned.log = lambda *args, **options: None
    sums, counts = nll_by_loop(tuned.model, batch)
    made = tuned.training_step(batch, 0)
    assert len(set(counts.tolist())) > 1
    torch.testing.assert_close(made["loss"].item(), sums.sum() / counts.sum(), rtol=1e-5, atol=0)
    np.testing.assert_allclose(made["sample_loss"].numpy(), sums / counts, rtol=1e-5)
    assert made["loss"].requires_grad
    assert not made["sample_loss"].requires_grad
    assert made["index"].tolist() == batch["index"].tolist()
    theirs = tuned.model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    torch.testing.assert_close(made["loss"], theirs)


def test_a_row_without_labels_costs_nothing_and_is_no_nan():
    tuned, batch = module(), batch_of()
    tuned.log = lambda *args, **options: None
    some = {**batch, "labels": batch["labels"].clone()}
    some["labels"][2] = -100
    kept = torch.tensor([0, 1, 3, 4])
    without = tuned.training_step({name: value[kept] for name, value in batch.items()}, 0)
    made = tuned.training_step(some, 0)
    torch.testing.assert_close(made["loss"], without["loss"])
    assert made["sample_loss"][2] == 0
    none = tuned.training_step({**batch, "labels": torch.full_like(batch["labels"], -100)}, 0)
    assert none["loss"] == 0


class Expects(Callback):
    """The validation loss is that of all tokens of the set, in every process."""

    def __init__(self, expected):
        self.expected = expected

    def on_validation_end(self, trainer, pl_module):
        torch.testing.assert_close(trainer.callback_metrics["val_loss"].item(), self.expected, rtol=1e-5, atol=0)
        perplexity = trainer.callback_metrics["val_perplexity"].item()
        torch.testing.assert_close(perplexity, float(np.exp(self.expected)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_validation_weighs_every_token_once(ranks):
    tuned, rows = module(), data(val=pairs(7, start=30), eval_batch_size=2)
    rows.setup("fit")
    whole = rows._loader_options()["collate_fn"]([rows.val_set[row] for row in range(7)])
    sums, counts = nll_by_loop(tuned.model, whole)
    options = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]} if ranks > 1 else {}
    trainer = Trainer(**QUIET, **options, callbacks=[Expects(float(sums.sum() / counts.sum()))])
    trainer.validate(tuned, datamodule=rows, verbose=False)


# -- optimizer --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "total"), [(0.0, 10), (0.03, 10), (0.25, 10), (0.5, 7)])
def test_schedules_are_those_of_transformers(schedule, warmup, total):
    from transformers import get_scheduler

    name = "constant_with_warmup" if schedule == "constant" else schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    options = {"num_warmup_steps": int(np.ceil(warmup * total)), "num_training_steps": total}
    theirs = get_scheduler(name, optimizer, **options).lr_lambdas[0]
    ours = [schedule_factor(step, total, warmup=warmup, schedule=schedule) for step in range(total + 1)]
    np.testing.assert_allclose(ours, [theirs(step) for step in range(total + 1)], atol=1e-12)


class Rates(Callback):
    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, *args):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("length", [{"max_epochs": 2}, {"max_steps": 6, "max_epochs": -1}])
def test_the_rate_reaches_zero_at_the_end_of_the_run(length):
    rates = Rates()
    trainer = fit(module(warmup_ratio=0.3, learning_rate=1.0), callbacks=[rates], **length)
    np.testing.assert_allclose(rates.rates, [0, 0.5, 1, 0.75, 0.5, 0.25], atol=1e-12)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0


def test_a_run_without_end_needs_a_constant_rate():
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step >= 4

    endless = {"max_epochs": -1, "callbacks": [Stop()]}
    fit(module(schedule="constant", warmup_ratio=0.0), **endless)
    with pytest.raises(MisconfigurationException, match="constant"):
        fit(module(), **endless)


def test_norms_and_biases_do_not_decay():
    tuned = module(lora=False, weight_decay=0.1)
    optimizer = tuned.configure_optimizers()["optimizer"]
    names = {id(value): name for name, value in tuned.named_parameters()}
    decays = {names[id(value)]: group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert set(decays) == set(names.values())
    assert {name for name, decay in decays.items() if decay == 0} == {name for name in decays if "norm" in name}
    assert isinstance(optimizer, torch.optim.AdamW)


# -- memory and precision ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lora", [SMALL, False])
def test_gradient_checkpointing_gives_the_same_gradients(lora):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        tuned = module(lora=lora, gradient_checkpointing=checkpointing)
        tuned.log = lambda *args, **options: None
        switched_on = [getattr(part, "gradient_checkpointing", False) for part in tuned.model.modules()]
        assert any(switched_on) == checkpointing
        tuned.training_step(batch_of(), 0)["loss"].backward()
        gradients.append({name: value.grad for name, value in tuned.named_parameters() if value.requires_grad})
    assert any(value.abs().sum() > 0 for value in gradients[0].values())
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], msg=name)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_with_validation_and_generation_between(checkpointing):
    class Generates(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            state, flags = torch.get_rng_state(), [part.training for part in pl_module.modules()]
            self.answers = pl_module.generate_responses(talks()[:3])
            assert torch.equal(state, torch.get_rng_state())
            assert flags == [part.training for part in pl_module.modules()]

    generates = Generates()
    tuned = module(gradient_checkpointing=checkpointing, max_new_tokens=5)
    trainer = fit(tuned, data(12, val=0.25), precision="bf16-mixed", max_epochs=4, callbacks=[generates])
    assert len(generates.answers) == 3
    assert tuned.dtype == torch.float32
    assert trainer.callback_metrics["val_loss"].isfinite()


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    tuned, rows = module(), data(12, val=pairs(12))
    trainer = Trainer(**QUIET)
    before = trainer.validate(tuned, datamodule=rows, verbose=False)[0]["val_loss"]
    after = fit(tuned, rows, max_epochs=8).callback_metrics["val_loss"].item()
    assert after < before - 0.2


# -- generation and tokenizers ----------------------------------------------------------------------------------------
def test_predict_answers_every_row():
    tuned = module(max_new_tokens=4)
    answers = Trainer(**QUIET).predict(tuned, datamodule=data(6))
    rows = data(6)
    expected = module(max_new_tokens=4, tokenizer=tiny()[1]).generate_responses(
        [rows.train_set.conversation(row) for row in range(6)]
    )
    assert [text for batch in answers for text in batch] == expected


def test_without_a_tokenizer_generation_says_what_to_do():
    with pytest.raises(ValueError, match=r"tokenizer=\.\.\. to InstructionTuningModule"):
        module().generate_responses(talks())


def test_a_tokenizer_larger_than_the_model_is_refused():
    tokenizer = tiny()[1]
    tokenizer.add_tokens(["new1", "new2"])
    rows = InstructionDataModule(pairs(8), tokenizer, batch_size=4)
    with pytest.raises(MisconfigurationException, match="resize_token_embeddings"):
        fit(module(), rows)


def test_other_batches_are_refused():
    with pytest.raises(MisconfigurationException, match="dict with token ids and labels"):
        module().training_step((torch.zeros(1), torch.zeros(1)), 0)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"lora": "yes"}, TypeError, "lora"),
        ({"learning_rate": 0}, ValueError, "learning_rate"),
        ({"warmup_ratio": 1.0}, ValueError, "warmup_ratio"),
        ({"warmup_ratio": "a"}, TypeError, "warmup_ratio"),
        ({"schedule": "polynomial"}, ValueError, "schedule"),
        ({"weight_decay": -1}, ValueError, "weight_decay"),
        ({"gradient_checkpointing": 1}, TypeError, "gradient_checkpointing"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens"),
        ({"generation_batch_size": 0}, ValueError, "generation_batch_size"),
    ],
)
def test_bad_arguments_are_named(options, error, text):
    with pytest.raises(error, match=text):
        module(**options)


def test_models_of_another_kind_and_adapters_twice_are_refused():
    with pytest.raises(TypeError, match="`model` must be"):
        InstructionTuningModule(3)
    with pytest.raises(ValueError, match="without adapters"):
        InstructionTuningModule(module().model)
    assert InstructionTuningModule(module().model, lora=False).base_fingerprint


def test_the_command_line_takes_names(tmp_path, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # the method that newer releases renamed
    from jsonargparse import ArgumentParser

    tiny()[0].save_pretrained(str(tmp_path / "base"))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(InstructionTuningModule, "model")
    arguments = ["--model.model", str(tmp_path / "base"), "--model.lora", '{"r": 2}', "--model.schedule", "cosine"]
    made = parser.instantiate_classes(parser.parse_args(arguments)).model
    assert made.model.peft_config["default"].r == 2
    assert made.schedule == "cosine"
