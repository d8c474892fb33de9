"""Validation, test and prediction after a fit start from the voice, and the module is left as without it."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from tests.foreign import ForeignModule, trainer
from tests.foreign_gla import ChainData, Chains
from tests.lina_speech.tuning_parts import base, fit, loss_of, same, tuning
from tests.registry_parts import validation

# the callback that saved is not needed to load
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


def whole_stream() -> DataLoader:
    """All held-out texts of one length in one batch, so that the module's own mean is that over targets."""
    return DataLoader(Chains(16, (0,), seed=99), batch_size=16)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A fit of the first style: the callback, the module, its voice as states, the checkpoint."""
    folder = tmp_path_factory.mktemp("tuned")
    callback, module = tuning("ada", rank=2), base()
    checkpoint = ModelCheckpoint(folder, "tuned", save_on_train_epoch_end=True)
    fit(folder, callback, module, others=[checkpoint], max_epochs=4)
    states = {name: value[None] for name, value in callback.tuned.matrices().items()}
    return callback, module, states, folder / "tuned.ckpt"


def test_validate_and_test_have_the_loss_of_the_voice(tuned, tmp_path):
    callback, module, states, _ = tuned
    with_voice, without = loss_of(module, 0, states), loss_of(module, 0)
    assert with_voice < 0.99 * without
    for callbacks, expected in (([callback], with_voice), ([], without)):
        runner = trainer(tmp_path, callbacks)
        (found,) = runner.validate(module, whole_stream(), verbose=False)
        assert found["val_loss"] == pytest.approx(expected, rel=1e-5)
        (found,) = runner.test(module, whole_stream(), verbose=False)
        assert found["test_loss"] == pytest.approx(expected, rel=1e-5)
        assert module.beginning == {}


def test_predictions_start_from_the_voice(tuned, tmp_path):
    callback, module, states, _ = tuned
    (found,) = trainer(tmp_path, [callback]).predict(module, whole_stream())
    (batch,) = whole_stream()
    module.eval()
    module.use_initial_states(states)
    with torch.no_grad():
        expected = module.predict_step(batch, 0)
    module.use_initial_states(None)
    module.train()
    assert torch.allclose(found, expected, atol=1e-6)
    (plain,) = trainer(tmp_path, []).predict(module, whole_stream())
    assert not torch.allclose(found, plain, atol=1e-3)


def test_a_callback_that_never_tuned_leaves_everything_alone(tmp_path):
    module, runner = base(), trainer(tmp_path, [tuning()])
    (found,) = runner.test(module, whole_stream(), verbose=False)
    assert found["test_loss"] == pytest.approx(loss_of(module, 0), rel=1e-5)
    runner.test(ForeignModule(), validation(), verbose=False)  # and asks for no protocol


def test_a_checkpoint_of_the_run_brings_the_voice_back(tuned, tmp_path):
    _, module, states, path = tuned
    fresh = tuning("ada", rank=2)
    runner = trainer(tmp_path, [fresh])
    (found,) = runner.test(base(), whole_stream(), ckpt_path=path, weights_only=True, verbose=False)
    assert found["test_loss"] == pytest.approx(loss_of(module, 0, states), rel=1e-5)
    by_hand = tuning("ada", rank=2)
    by_hand.load_state_dict(torch.load(path, weights_only=True)["callbacks"]["InitialStateTuning"])
    (found,) = trainer(tmp_path, [by_hand]).test(base(), whole_stream(), verbose=False)
    assert found["test_loss"] == pytest.approx(loss_of(module, 0, states), rel=1e-5)
    assert same(by_hand.tuned.matrices(), {name: value[0] for name, value in states.items()})


def test_a_state_of_other_settings_is_refused(tuned, tmp_path):
    path = tuned[3]
    for callback, match in (
        (tuning("ada", rank=1), "`rank` must be that of the saved run, 2, but got 1. Go on with the settings"),
        (tuning("bo", rank=2), r"`voice` must be that of the saved run, \['ada'\]"),
        (tuning("ada", rank=2, layers=[0]), "`layers` must be that of the saved run"),
    ):
        runner = trainer(tmp_path, [callback])
        with pytest.raises(MisconfigurationException, match=match):
            runner.test(base(), whole_stream(), ckpt_path=path, weights_only=True, verbose=False)
        with pytest.raises(MisconfigurationException, match=match):
            trainer(tmp_path, [callback]).fit(base(), ChainData(n=32), ckpt_path=path, weights_only=True)


def test_other_weights_are_refused(tuned, tmp_path):
    other = base()
    other.head.bias.data += 1
    with pytest.raises(
        MisconfigurationException, match=r"`model` must be the one that was tuned, .* load those of the"
    ):
        trainer(tmp_path, [tuned[0]]).test(other, whole_stream(), verbose=False)
    with pytest.raises(MisconfigurationException, match="`module` must be one that accepts initial states"):
        trainer(tmp_path, [tuned[0]]).test(ForeignModule(), validation(), verbose=False)


def test_a_fit_does_not_go_on_with_other_weights(tuned, tmp_path):
    other, data = base(), ChainData(n=32)
    other.head.bias.data += 1
    loaded = tuning("ada", rank=2)
    loaded.load_state_dict(tuned[0].state_dict())
    with pytest.raises(MisconfigurationException, match="`model` must be the one that was tuned"):
        trainer(tmp_path, [loaded]).fit(other, data)
    assert all(value.requires_grad for value in other.parameters())
    runner = trainer(tmp_path, [tuning("ada", rank=2)], max_epochs=1)
    runner.fit(base(), data)
    runner.fit_loop.max_epochs = 2
    with pytest.raises(MisconfigurationException, match="`model` must be the one that was tuned"):
        runner.fit(other, data)


def test_an_error_in_a_stage_leaves_the_module_alone(tuned, tmp_path):
    class Raises(Callback):
        def on_test_batch_end(self, *_) -> None:
            raise RuntimeError("no")

    callback, module, *_ = tuned
    with pytest.raises(RuntimeError, match="no"):
        trainer(tmp_path, [callback, Raises()]).test(module, whole_stream(), verbose=False)
    assert module.beginning == {}


def test_a_fit_that_failed_gives_no_voice_to_start_from(tmp_path):
    class Raises(Callback):
        def on_train_epoch_start(self, trainer, *_) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("no")

    callback, module = tuning(rank=2), base()
    with pytest.raises(RuntimeError, match="no"):
        fit(tmp_path, callback, module, others=[Raises()])
    (found,) = trainer(tmp_path, [callback]).test(module, whole_stream(), verbose=False)
    assert found["test_loss"] == pytest.approx(loss_of(module, 0), rel=1e-5)


def test_a_second_fit_begins_anew(tuned, tmp_path):
    callback, first = tuning("ada", rank=2), tuned[0].tuned
    for _ in range(2):
        fit(tmp_path, callback, base(), max_epochs=4)
        for name, value in callback.tuned.tensors.items():
            assert torch.equal(value, first.tensors[name])


def test_switched_off_it_does_nothing_in_any_stage(tuned, tmp_path):
    off = tuning("ada", rank=2, enabled=False)
    off.load_state_dict(tuned[0].state_dict())
    module = tuned[1]
    (found,) = trainer(tmp_path, [off]).test(module, whole_stream(), verbose=False)
    assert found["test_loss"] == pytest.approx(loss_of(module, 0), rel=1e-5)


def test_tuned_is_the_voice_of_a_fit_of_one():
    with pytest.raises(RuntimeError, match="`tuned` is the voice of a fit of one voice, but there are: none: no fit"):
        _ = tuning().tuned
