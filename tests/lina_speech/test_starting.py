"""States in use: what starts from them, the losses of each utterance, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer

from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.lina_speech.model.delay import delay_codes
from lightning_adapt.lina_speech.samples import Samples
from lightning_adapt.lina_speech.tuning.protocol import AcceptsInitialStates
from tests.lina_speech.speech_parts import QUIET, SMALL, Letters, Steps, batch_of, fit, loader, module

SHAPES = {"gla.0": (2, 16, 32), "gla.1": (2, 16, 32), "position": (2, 8, 16)}


def made_module(n_codebooks=1, **options):
    made = module(n_codebooks, codec=Steps(n_codebooks), tokenizer=Letters(), max_seconds=0.3, **options)
    made.log = lambda *arguments, **more: None
    return made.eval()


def matrices(rows=1, seed=0, names=tuple(SHAPES), dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, *SHAPES[name], generator=draw, dtype=dtype) for name in names}


def started_from(made, given):
    """The module with an `initial_state` of its own that holds the same."""
    zeros = made.model.initial_state(1)
    made.initial_state = type(zeros).from_tensors(zeros.tensors() | given)
    return made


def test_the_module_keeps_the_protocol():
    made = made_module()
    assert isinstance(made, AcceptsInitialStates)
    assert made.initial_state_shapes() == SHAPES
    plain = made_module(overrides={**SMALL, "cross_attention": "plain"})
    assert list(plain.initial_state_shapes()) == ["gla.0", "gla.1"]


# -- losses ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_codebooks", [1, 3])
@pytest.mark.parametrize("rows", [None, 1, 4])
def test_losses_are_those_of_each_utterance_alone(n_codebooks, rows):
    made, batch = made_module(n_codebooks), batch_of(4, n_codebooks)
    states = None if rows is None else matrices(rows)
    made.use_initial_states(states)
    found, counts = made.sequence_losses(batch)
    assert (found.shape, counts.shape, found.dtype) == ((4,), (4,), torch.float32)
    assert counts.tolist() == [
        int(n) * n_codebooks + n_codebooks * (n_codebooks + 1) // 2 for n in batch["code_lengths"]
    ]
    for row in range(4):
        n_frames = int(batch["code_lengths"][row])
        ids = delay_codes(batch["codes"][row : row + 1, :, :n_frames], torch.tensor([n_frames]))
        text = batch["text"][row : row + 1, : int(batch["text_lengths"][row])]
        start = made.model.initial_state(1).tensors()
        for name, value in (states or {}).items():
            start[name] = value[row if rows == 4 else 0][None]
        state = type(made.model.initial_state(1)).from_tensors(start)
        logits = made.model(text, torch.tensor([text.shape[1]]), ids[:, :-1], state=state).logits[0].flatten(0, 1)
        targets = ids[0, 1:].flatten()
        alone = F.cross_entropy(logits, targets, reduction="none")[targets >= 2].double().sum()
        torch.testing.assert_close(found[row].double(), alone, atol=1e-3, rtol=1e-5)


def test_the_loss_of_a_step_is_the_mean_over_targets():
    made, batch = made_module(2), batch_of(4, 2)
    made.use_initial_states(matrices())
    sums, counts = made.sequence_losses(batch)
    step = made.training_step(batch, 0)
    torch.testing.assert_close(step["loss"], sums.sum() / counts.sum())
    torch.testing.assert_close(step["sample_loss"], (sums / counts).detach())


def test_losses_are_not_logged():
    made = made_module()
    made.log = made.log_dict = None
    made.sequence_losses(batch_of())


# -- gradients ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [1, 4])
def test_gradients_reach_the_states_and_no_other_row(rows):
    made = made_module()
    leaves = {name: value.requires_grad_() for name, value in matrices(rows).items()}
    made.use_initial_states(leaves)
    sums, _ = made.sequence_losses(batch_of())
    sums[2].backward()
    for name, leaf in leaves.items():
        touched = leaf.grad.flatten(1).abs().sum(1) > 0
        assert touched.tolist() == ([True] if rows == 1 else [False, False, True, False]), name


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_those_of_differences(name):
    made, batch = made_module().double(), batch_of()
    states = matrices(dtype=torch.float64)
    made.use_initial_states({other: value.requires_grad_() for other, value in states.items()})
    made.sequence_losses(batch)[0].sum().backward()
    slope, losses = states[name].grad, []
    for step in (0.01, -0.01):  # along the gradient; losses are float32
        moved = {other: value.detach() for other, value in states.items()}
        made.use_initial_states({**moved, name: moved[name] + step * slope / slope.norm()})
        losses.append(float(made.sequence_losses(batch)[0].detach().double().sum()))
    assert (losses[0] - losses[1]) / 0.02 == pytest.approx(float(slope.norm()), rel=0.02)


@pytest.mark.parametrize("names", [["gla.1"], ["position"], []])
def test_names_left_out_start_from_zeros_and_not_from_the_initial_state(names):
    made, batch = made_module(), batch_of()
    started_from(made, {name: torch.full((1, *shape), 0.5) for name, shape in SHAPES.items()})
    given = matrices(names=names)
    made.use_initial_states(given)
    found, _ = made.sequence_losses(batch)
    zeros = {name: torch.zeros(1, *shape) for name, shape in SHAPES.items()}
    made.use_initial_states({**zeros, **given})
    assert torch.equal(found, made.sequence_losses(batch)[0])
    made.use_initial_states(None)
    as_before, _ = made.sequence_losses(batch)
    assert not torch.equal(found, as_before)
    made.use_initial_states({name: zeros[name] + 0.5 for name in SHAPES})  # what the module's own state says
    assert torch.equal(as_before, made.sequence_losses(batch)[0])


def test_short_convolutions_start_at_zero():
    made = made_module()
    assert made.config.short_conv
    made.initial_state = made.model.initial_state(1).map(lambda value: value + 0.5)
    made.use_initial_states(matrices())
    found, _ = made.sequence_losses(batch_of())
    made.use_initial_states(None)
    assert torch.equal(found, started_from(made, matrices()).sequence_losses(batch_of())[0])


# -- what starts from them ---------------------------------------------------------------------------------------------
def test_training_evaluation_and_predictions_start_from_the_states_in_use():
    made, batch = made_module(), batch_of()
    states = matrices()
    own = started_from(made_module(), states)
    for rows in (1, 4):
        made.use_initial_states({name: value.expand(rows, -1, -1, -1) for name, value in states.items()})
        assert torch.equal(made.training_step(batch, 0)["loss"], own.training_step(batch, 0)["loss"])
        del made.log, own.log
        found = Trainer(**QUIET).validate(made, loader(4), verbose=False)[0]
        assert found == Trainer(**QUIET).validate(own, loader(4), verbose=False)[0]
        assert found != Trainer(**QUIET).validate(module(), loader(4), verbose=False)[0]
        tested = Trainer(**QUIET).test(made, loader(4), verbose=False)[0]
        assert tested == Trainer(**QUIET).test(own, loader(4), verbose=False)[0]
        assert tested["test_loss"] == found["val_loss"]
        made.log = own.log = lambda *arguments, **more: None
        for mine, theirs in zip(made.predict_step(batch, 0), own.predict_step(batch, 0), strict=True):
            assert torch.equal(mine.codes, theirs.codes)
            torch.testing.assert_close(mine.alignment, theirs.alignment)


def test_predictions_give_each_row_its_own_state():
    made, batch = made_module(), batch_of()
    states = matrices(4)
    made.use_initial_states(states)
    spoken = made.predict_step(batch, 0)
    for row in range(4):
        made.use_initial_states({name: value[row : row + 1] for name, value in states.items()})
        alone = made.predict_step({name: value[row : row + 1] for name, value in batch.items()}, 0)[0]
        assert torch.equal(spoken[row].codes, alone.codes)
        torch.testing.assert_close(spoken[row].alignment, alone.alignment, atol=1e-5, rtol=1e-4)


def test_a_validation_speaks_no_samples_while_states_are_in_use(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(Samples, "show", lambda self, trainer, speaker, limit: seen.append(speaker) or {})
    for states, spoken in ((matrices(), 0), (None, 1)):
        made = module(codec=Steps(), tokenizer=Letters(), n_audio_samples=1, max_seconds=0.3)
        made.use_initial_states(states)
        fit(made, val=loader(2), default_root_dir=tmp_path, limit_train_batches=1)
        assert len(seen) == spoken


def test_speech_without_a_voice_starts_from_states_for_all():
    made, states = module(codec=Steps(), tokenizer=Letters(), max_seconds=0.3), matrices()
    made.use_initial_states(states)
    tuned = made.generate(["one"], temperature=0.0)[0]
    made.use_initial_states(matrices(2))  # whose would it be?
    plain = made.generate(["one"], temperature=0.0)[0]
    made.use_initial_states(None)
    assert torch.equal(plain.alignment, made.generate(["one"], temperature=0.0)[0].alignment)
    assert not torch.equal(plain.alignment, tuned.alignment)


# -- precision ---------------------------------------------------------------------------------------------------------
def test_under_bf16_mixed_states_stay_in_float32():
    made, seen = made_module(), []
    leaves = {name: value.requires_grad_() for name, value in matrices().items()}
    with torch.autocast("cpu", torch.bfloat16):
        made.use_initial_states(leaves)
        original = made.model.forward
        made.model.forward = lambda *rest, state, **options: (
            seen.append(state) or original(*rest, state=state, **options)
        )
        made.training_step(batch_of(), 0)["loss"].backward()
    assert {tensor.dtype for tensor in seen[0].tensors().values()} == {torch.float32}
    assert all(torch.equal(seen[0].tensors()[name], value) for name, value in leaves.items())
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves.values())


def test_states_take_the_float_type_of_a_double_model():
    made = made_module().double()
    made.use_initial_states(matrices())
    assert made.sequence_losses(batch_of())[0].isfinite().all()


# -- what voices belong to ---------------------------------------------------------------------------------------------
def test_seconds_and_origin():
    made, batch = made_module(2), batch_of(4, 2)
    torch.testing.assert_close(made.sequence_seconds(batch), batch["code_lengths"] / 50.0)
    assert made.voice_origin() == {
        "model": weights_fingerprint(made.model),
        "codec": "Steps-2x12-a",
        "sample_rate_hz": 400,
    }
    silent = module()
    assert silent.sequence_seconds(batch) is None
    assert silent.voice_origin() == {"model": weights_fingerprint(silent.model), "codec": None, "sample_rate_hz": None}


def test_states_in_use_are_in_no_checkpoint(tmp_path):
    made = made_module()
    made.use_initial_states(matrices())
    assert set(made.state_dict()) == set(made_module().state_dict())
    assert weights_fingerprint(made) == weights_fingerprint(made_module())


@pytest.mark.parametrize(
    ("states", "error", "text"),
    [
        ([torch.zeros(1, 2, 16, 32)], TypeError, "`states` must be a dict"),
        ({"gla.0": [1.0]}, TypeError, "`states` must be a dict"),
        ({"gla.2": torch.zeros(1, 2, 16, 32)}, ValueError, "`states` must be named gla.0, gla.1, position, but got"),
        ({"conv.0": torch.zeros(1, 3, 64)}, ValueError, "initial_state_shapes"),
        ({"gla.0": torch.zeros(2, 16, 32)}, ValueError, r"`states: gla\.0` must be of shape"),
        ({"gla.0": torch.zeros(3, 2, 16, 32), "gla.1": torch.zeros(2, 2, 16, 32)}, ValueError, r"gla\.1"),
    ],
)
def test_states_that_do_not_fit_are_refused_and_the_old_ones_stay(states, error, text):
    made = made_module()
    before = made.sequence_losses(batch_of())[0]
    with pytest.raises(error, match=text):
        made.use_initial_states(states)
    assert torch.equal(before, made.sequence_losses(batch_of())[0])


def test_a_batch_of_another_size_than_the_states_is_refused():
    made = made_module()
    made.use_initial_states(matrices(3))
    with pytest.raises(ValueError, match="3"):
        made.sequence_losses(batch_of(4))
