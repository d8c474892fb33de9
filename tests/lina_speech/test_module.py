"""LinaSpeechModule: the loss, what it logs and shows, dropout of its own, precision, compilation, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from lightning_adapt.lina_speech.module import LinaSpeechModule
from tests.lina_speech.speech_parts import QUIET, SMALL, Letters, Steps, batch_of, fit, loader, module

# -- loss -------------------------------------------------------------------------------------------------------------


def losses_by_loop(made, batch):
    """Summed loss and targets of every row: codebook i of frame n is predicted from column n + i on."""
    n_codebooks, sums, counts = made.config.n_codebooks, [], []
    for row in range(len(batch["text"])):
        text = batch["text"][row : row + 1, : batch["text_lengths"][row]]
        codes = batch["codes"][row, :, : batch["code_lengths"][row]]
        n_frames = codes.shape[1]
        grid = torch.full((n_frames + n_codebooks + 1, n_codebooks), 2)
        for book in range(n_codebooks):
            grid[: book + 1, book] = 1
            grid[book + 1 : book + 1 + n_frames, book] = codes[book] + 3
        with torch.no_grad():
            logits = made.model(text, torch.tensor([text.shape[1]]), grid[None, :-1]).logits[0].double().numpy()
        total, count = 0.0, 0
        for step in range(n_frames + n_codebooks):
            for book in range(n_codebooks):
                if step >= book:
                    scores = logits[step, book]
                    total += np.log(np.exp(scores).sum()) - scores[int(grid[step + 1, book])]
                    count += 1
        sums.append(total)
        counts.append(count)
    return np.asarray(sums), np.asarray(counts)


def silent(made):
    made.log = lambda *arguments, **options: None
    return made.eval()


@pytest.mark.parametrize("n_codebooks", [1, 3])
def test_the_loss_is_the_mean_over_codes_and_ends(n_codebooks):
    made, batch = silent(module(n_codebooks)), batch_of(4, n_codebooks)
    sums, counts = losses_by_loop(made, batch)
    assert len(set(counts.tolist())) > 1
    step = made.training_step(batch, 0)
    assert step["loss"].item() == pytest.approx(sums.sum() / counts.sum(), rel=1e-5)
    np.testing.assert_allclose(step["sample_loss"].numpy(), sums / counts, rtol=1e-5)
    assert step["loss"].requires_grad
    assert not step["sample_loss"].requires_grad
    assert step["index"].tolist() == batch["index"].tolist()
    del batch["index"]
    assert set(made.training_step(batch, 0)) == {"loss", "sample_loss"}


def test_training_lowers_the_loss_and_logs():
    made, val = module(), loader(6, start=3)
    before = Trainer(**QUIET).validate(made, val, verbose=False)[0]["val_loss"]
    trainer = fit(made, loader(24, shuffle=True), val, max_epochs=6)
    found = trainer.callback_metrics
    assert found["val_loss"].item() < before - 0.5
    assert {"train_loss", "val_loss", "lina/val_loss_q0", "lina/val_accuracy_q0"} <= set(found)
    assert {"lina/val_ends_found", "lina/val_false_ends"} <= set(found)
    assert found["lina/val_accuracy_q0"] > 0.2
    tested = Trainer(**QUIET).test(made, val, verbose=False)[0]
    assert tested["test_loss"] == pytest.approx(found["val_loss"].item(), rel=1e-5)
    assert "lina/test_accuracy_q0" in tested


def test_a_row_of_no_frames_is_no_nan():
    made, batch = silent(module()), batch_of()
    batch["code_lengths"][1] = 0
    step = made.training_step(batch, 0)
    assert step["loss"].isfinite()
    assert step["sample_loss"].isfinite().all()


# -- dropout ----------------------------------------------------------------------------------------------------------
def test_dropout_follows_seed_and_batch_and_leaves_the_global_state_alone():
    options = {"overrides": {**SMALL, "dropout": 0.3}}
    batch = batch_of()

    def loss(seed, batch_idx):
        made = silent(module(**options, seed=seed)).train()
        torch.manual_seed(batch_idx + 17)
        before = torch.get_rng_state()
        found = made.training_step(batch, batch_idx)["loss"].item()
        assert torch.equal(before, torch.get_rng_state())
        return found

    assert loss(0, 3) == loss(0, 3)
    assert len({loss(0, 3), loss(0, 4), loss(1, 3)}) == 3


# -- memory, precision, compilation -----------------------------------------------------------------------------------
def test_checkpointed_activations_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        made = silent(module(2, checkpoint_activations=recompute, overrides={**SMALL, "dropout": 0.3})).train()
        assert made.model.checkpoint_activations == recompute
        made.training_step(batch_of(3, 2), 0)["loss"].backward()
        gradients.append({name: value.grad for name, value in made.named_parameters()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], msg=name)


def test_bfloat16_with_speech_after_each_validation():
    made = module(codec=Steps(), tokenizer=Letters(), n_audio_samples=1, max_seconds=0.2)
    trainer = fit(made, val=loader(4), precision="bf16-mixed", max_epochs=2, accumulate_grad_batches=2)
    assert trainer.callback_metrics["val_loss"].isfinite()
    assert {value.dtype for value in made.parameters()} == {torch.float32}
    assert made.training


def test_compiled_code_is_used_and_is_no_part_of_the_weights(monkeypatch):
    calls = []

    def fake(function, **options):
        def compiled(*arguments, **keywords):
            calls.append(options)
            return function(*arguments, **keywords)

        return compiled

    monkeypatch.setattr(torch, "compile", fake)
    made, plain = silent(module(compile_model=True)), silent(module())
    assert made.training_step(batch_of(), 0)["loss"] == plain.training_step(batch_of(), 0)["loss"]
    assert calls == [{"dynamic": True}]
    assert set(made.state_dict()) == set(plain.state_dict())


@pytest.mark.filterwarnings("default:.*has no effect:UserWarning")
def test_where_compiling_fails_it_says_so_once_and_goes_on(monkeypatch):
    def broken(function, **options):
        def compiled(*arguments, **keywords):
            raise RuntimeError("no compiler\nwas found")

        return compiled

    monkeypatch.setattr(torch, "compile", broken)
    made = silent(module(compile_model=True))
    with pytest.warns(UserWarning, match=r"torch.compile failed \(RuntimeError: no compiler was found\)") as told:
        found = [made.training_step(batch_of(), 0)["loss"] for _ in range(2)]
    assert len(told) == 1
    assert found[0] == found[1] == silent(module()).training_step(batch_of(), 0)["loss"]
    wrong = {**batch_of(), "text": torch.full_like(batch_of()["text"], 10_000)}
    with pytest.raises(ValueError, match="text_BM"):  # not the compiler's fault
        silent(module(compile_model=True)).training_step(wrong, 0)


# -- runs -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"limit_train_batches": 2}, {"max_steps": 1}])
def test_short_runs_train(options):
    made = module(warmup_steps=500)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    fit(made, val=loader(4), **options)
    assert any(not torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_the_rate_reaches_its_end_and_a_run_without_end_keeps_it():
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *arguments):
            trainer.should_stop = trainer.global_step >= 6

    trainer = fit(module(min_learning_rate_ratio=0.1), max_epochs=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(5e-4)
    trainer = fit(module(), max_epochs=-1, callbacks=[Stop()])
    assert trainer.optimizers[0].param_groups[0]["lr"] == 5e-3
    assert sorted({group["weight_decay"] for group in trainer.optimizers[0].param_groups}) == [0.0, 0.1]
    assert trainer.optimizers[0].defaults["betas"] == (0.9, 0.999)


# -- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda batch: list(batch.values()), "`batch` must be a dict with texts and codes"),
        (lambda batch: {"text": batch["text"]}, "`batch` must be a dict with texts and codes"),
        (lambda batch: {**batch, "codes": batch["codes"][:, 0]}, r"`batch\['codes'\]` must be whole numbers of 3"),
        (lambda batch: {**batch, "codes": batch["codes"].float()}, r"`batch\['codes'\]` must be whole numbers"),
        (lambda batch: {**batch, "text": "one"}, r"`batch\['text'\]`"),
        (lambda batch: {**batch, "text_lengths": batch["text_lengths"][1:]}, "as many texts as codes"),
        (lambda batch: {**batch, "codes": batch["codes"].repeat(1, 2, 1)}, "Pass n_codebooks=2 to LinaSpeechModule"),
    ],
)
def test_other_batches_are_refused(change, text):
    with pytest.raises(MisconfigurationException, match=text):
        silent(module()).training_step(change(batch_of()), 0)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"preset": "small"}, ValueError, "`preset` must be one of"),
        ({"overrides": {"d_modal": 3}}, TypeError, "d_modal"),
        ({"overrides": "dropout"}, TypeError, "`overrides` must be a dict"),
        ({"learning_rate": 0}, ValueError, "learning_rate"),
        ({"warmup_steps": -1}, ValueError, "warmup_steps"),
        ({"weight_decay": -0.1}, ValueError, "`weight_decay` must be"),
        ({"weight_decay": "a"}, TypeError, "`weight_decay` must be"),
        ({"betas": (0.9, 1.0)}, ValueError, "betas"),
        ({"min_learning_rate_ratio": 2}, ValueError, "min_learning_rate_ratio"),
        ({"checkpoint_activations": 1}, TypeError, "checkpoint_activations"),
        ({"compile_model": "yes"}, TypeError, "compile_model"),
        ({"backend": "triton"}, ValueError, "backend"),
        ({"n_audio_samples": -1}, ValueError, "n_audio_samples"),
        ({"audio_every_n_epochs": 0}, ValueError, "audio_every_n_epochs"),
        ({"log_figure": None}, TypeError, "log_figure"),
        ({"max_seconds": 0}, ValueError, "max_seconds"),
        ({"seed": -1}, ValueError, "seed"),
        ({"codec": 3}, TypeError, "codec"),
        ({"codec": "nowhere.safetensors"}, OSError, "nowhere"),
        ({"tokenizer": 3}, TypeError, "tokenizer"),
        ({"codec": Steps(2)}, ValueError, "n_codebooks=2"),
        ({"tokenizer": Letters(), "text_vocab_size": 20}, ValueError, "text_vocab_size=104"),
    ],
)
def test_bad_arguments_are_named(options, error, text):
    with pytest.raises(error, match=text):
        module(**options)


def test_the_command_line_takes_them(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # the method that newer releases renamed
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(LinaSpeechModule, "model")
    given = ["--model.preset", "tiny", "--model.overrides", '{"d_model": 64}', "--model.tokenizer", "characters"]
    made = parser.instantiate_classes(parser.parse_args([*given, "--model.betas", "[0.8, 0.9]"])).model
    assert made.config.d_model == 64
    assert made.betas == (0.8, 0.9)
    assert made.tokenizer.vocab_size <= 256
