"""InitialStateTuning in a fit: what is tuned, what is not, and a module that comes back as it was, whatever happens."""

from __future__ import annotations

import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback

from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.lina_speech.tuning.protocol import AcceptsInitialStates
from tests.foreign import ForeignModule, loader, trainer
from tests.foreign_gla import ChainData, ForeignGLA
from tests.lina_speech.tuning_parts import base, fit, loss_of, same, tuning, weights_of

# what a module has in evaluation mode is the point of some tests
pytestmark = pytest.mark.filterwarnings("ignore:Found 7 module.s. in eval mode at the start of training")


class Raises(Callback):
    """Raises in the third step, or wherever it is told to."""

    def __init__(self, error: BaseException, hook: str = "on_train_batch_end") -> None:
        self.error = error
        setattr(self, hook, self.strike)

    def strike(self, *arguments, **options) -> None:
        raise self.error


class Watch(Callback):
    """Notes what the optimizer has, and which gradients there are."""

    def __init__(self) -> None:
        self.rates, self.losses, self.grads, self.given = [], [], set(), []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.given.append(dict(pl_module.beginning))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].detach().clone())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.optimizer = optimizer
        self.tuned = {id(value) for group in optimizer.param_groups for value in group["params"]}
        self.grads |= {name for name, value in pl_module.named_parameters() if value.grad is not None}
        self.all = {name: id(value) for name, value in pl_module.named_parameters()}


def facts(module) -> dict:
    """What must not be different afterwards."""
    return {
        "weights": weights_fingerprint(module),
        "flags": {name: value.requires_grad for name, value in module.named_parameters()},
        "grads": {name: value.grad is None for name, value in module.named_parameters()},
        "modes": {name: part.training for name, part in module.named_modules()},
        "own": sorted(name for name in vars(module) if "configure" in name),
        "beginning": module.beginning,
    }


def prepared() -> ForeignGLA:
    """A module with some of everything: parameters frozen already, parts in evaluation mode."""
    module = base(dropout=0.3, batch_norm=True)
    module.embedding.weight.requires_grad_(False)
    module.layers[0].eval()
    return module


# -- the module comes back ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rank", [1, "full"])
def test_the_module_comes_back_as_it_was(rank, tmp_path):
    module = prepared()
    before, weights = facts(module), weights_of(module)
    fit(tmp_path, tuning(rank=rank), module)
    assert facts(module) == before
    assert same(weights_of(module), weights), "running statistics and counters, too"


@pytest.mark.parametrize(
    "hook", ["on_train_batch_end", "on_validation_batch_end", "on_fit_start", "on_train_end", "setup"]
)
@pytest.mark.parametrize(("error", "seen"), [(RuntimeError("no"), RuntimeError), (KeyboardInterrupt(), SystemExit)])
@pytest.mark.parametrize("first", [True, False])
def test_it_comes_back_after_an_error_anywhere(hook, error, seen, first, tmp_path):
    module, callback, raises = prepared(), tuning(), Raises(error, hook)
    before, weights = facts(module), weights_of(module)
    callbacks = [callback, raises] if first else [raises, callback]
    with pytest.raises(seen):
        trainer(tmp_path, callbacks, max_epochs=2).fit(module, ChainData(n=32))
    assert facts(module) == before
    assert same(weights_of(module), weights)
    assert callback.voices == {}
    fit(tmp_path, callback, module)  # and it can be used again
    assert facts(module) == before


def test_an_optimizer_of_the_instance_comes_back(tmp_path):
    module = base()
    module.configure_optimizers = own = lambda: torch.optim.SGD(module.parameters(), 0.1)
    fit(tmp_path, tuning(), module)
    assert module.configure_optimizers is own


def test_layers_with_running_statistics_use_them_while_the_rest_trains(tmp_path):
    module, modes = prepared(), []
    dropout, norm = module.middle
    module.middle.register_forward_hook(lambda *_: modes.append((module.training, dropout.training, norm.training)))
    fit(tmp_path, tuning(), module)
    assert set(modes) == {(True, True, False), (False, False, False)}, "training and validation"


def test_weights_that_change_all_the_same_are_an_error(tmp_path):
    class Averages(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            pl_module.head.weight.data.mul_(0.5)

    module, callback = base(), tuning()
    with pytest.raises(RuntimeError, match=r"not what they were .* a callback that averages or swaps weights"):
        fit(tmp_path, callback, module, others=[Averages()])
    assert all(value.requires_grad for value in module.parameters())
    assert callback.voices == {}


# -- what is tuned -----------------------------------------------------------------------------------------------------
def test_gradients_and_the_optimizer_have_the_states_alone(tmp_path):
    watch = Watch()
    fit(tmp_path, tuning(rank=2), others=[watch])
    states = {name for name in watch.all if name.startswith("tuned_initial_states.")}
    assert len(states) == 4
    assert watch.grads == states
    assert watch.tuned == {watch.all[name] for name in states}
    assert type(watch.optimizer) is torch.optim.Adam
    assert watch.optimizer.param_groups[0]["weight_decay"] == 0
    assert set(watch.rates) == {0.1}


def test_what_the_module_says_of_optimizers_does_not_matter(tmp_path):
    class Refuses(ForeignGLA):
        def configure_optimizers(self):
            raise AssertionError("must not be asked")

    voices = []
    for module in (base(), Refuses()):
        module.load_state_dict(base().state_dict())
        callback = tuning()
        fit(tmp_path, callback, module)
        voices.append(callback.tuned)
    assert same(dict(voices[0].tensors), dict(voices[1].tensors))


def test_full_rank_starts_bit_equal_to_the_base_and_its_rate_falls_along_a_cosine(tmp_path):
    watch, module, seen = Watch(), base(), []
    fit(tmp_path, tuning(rank="full"), module, ChainData(n=64), others=[watch, Batches(seen)], max_epochs=2)
    with torch.no_grad():
        assert torch.equal(watch.losses[0], module.loss(seen[0]))
    shares = torch.arange(16) / 16
    expected = 0.1 * (0.1 + 0.9 * 0.5 * (1 + torch.cos(torch.pi * shares)))
    assert torch.allclose(torch.tensor(watch.rates), expected, rtol=1e-6)
    watch = Watch()
    fit(tmp_path, tuning(rank="full", max_steps=4), others=[watch])
    assert watch.rates[2] == pytest.approx(0.055), "half way of the steps asked for"


class Batches(Callback):
    def __init__(self, seen: list) -> None:
        self.seen = seen

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.seen.append(batch)


def test_low_rank_starts_close_to_the_base(tmp_path):
    watch, module, seen = Watch(), base(), []
    fit(tmp_path, tuning(rank=2), module, others=[watch, Batches(seen)])
    with torch.no_grad():
        assert watch.losses[0].item() == pytest.approx(module.loss(seen[0]).item(), abs=1e-3)


@pytest.mark.parametrize(("layers", "expected"), [([0], {"layers.0"}), (["layers.1"], {"layers.1"})])
def test_layers_that_are_not_named_start_from_zeros(layers, expected, tmp_path):
    watch, callback, module = Watch(), tuning(layers=layers), base()
    fit(tmp_path, callback, module, others=[watch])
    assert all(set(given) == expected for given in watch.given)
    assert set(callback.tuned.matrices()) == expected
    assert loss_of(module, 0, {name: value[None] for name, value in callback.tuned.matrices().items()}) < loss_of(
        module, 0
    )


def test_text_positions_are_tuned_when_they_are_asked_for(tmp_path):
    class Positions(ForeignGLA):
        def initial_state_shapes(self):
            return {"layers.0": (2, 4, 8), "position": (2, 4, 8)}

        def use_initial_states(self, states):
            states = dict(states or {})
            super().use_initial_states({"layers.1" if name == "position" else name: states[name] for name in states})

    for positional, expected in ((False, {"layers.0"}), (True, {"layers.0", "position"})):
        callback = tuning(positional_state=positional)
        fit(tmp_path, callback, Positions())
        assert set(callback.tuned.matrices()) == expected


def test_a_voice_lowers_the_loss_of_its_style_and_the_base_forgets_nothing(tmp_path):
    module = base()
    before = [loss_of(module, style) for style in range(3)]
    callback = tuning("ada", rank=2)
    fit(tmp_path, callback, module, max_epochs=10)
    assert [loss_of(module, style) for style in range(3)] == before
    states = {name: value[None] for name, value in callback.tuned.matrices().items()}
    assert loss_of(module, 0, states) < 0.97 * before[0]
    assert callback.tuned.held_out["tuned"] == pytest.approx(loss_of(module, 0, states), rel=1e-5)
    assert callback.tuned.held_out["untuned"] == pytest.approx(before[0], rel=1e-6)
    voice = callback.tuned
    assert (voice.name, voice.kind, voice.rank) == ("ada", "tuned", 2)
    assert voice.model_fingerprint == weights_fingerprint(module)
    assert (voice.codec_fingerprint, voice.sample_rate_hz, voice.training_seconds) == (None, None, None)
    assert callback.voices.keys() == {"ada"}


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}])
def test_accumulation_and_mixed_precision(options, tmp_path):
    module, callback, watch = base(), tuning(rank=2), Watch()
    weights = weights_of(module)
    fit(tmp_path, callback, module, others=[watch], max_epochs=4, **options)
    assert len(watch.rates) == (8 if "accumulate_grad_batches" in options else 16)
    assert all(value.dtype == torch.float32 for given in watch.given for value in given.values())
    assert callback.tuned.held_out["tuned"] < 0.99 * callback.tuned.held_out["untuned"]
    assert same(weights_of(module), weights)


def test_under_the_trainer_of_pytorch_lightning(tmp_path):
    class Theirs(pytorch_lightning.LightningModule):
        __init__ = ForeignGLA.__init__

    for name, value in vars(ForeignGLA).items():
        if not name.startswith("__"):
            setattr(Theirs, name, value)
    # `super().__init__` of the class above knows its own class only
    module = Theirs.__new__(Theirs)
    pytorch_lightning.LightningModule.__init__(module)
    for name, part in base().named_children():
        module.add_module(name, part)
    module.beginning, module.hparams["estimate_steps"] = {}, False
    voices = []
    for kind, tuned in ((pytorch_lightning.Trainer, module), (None, base())):
        callback = tuning(rank=2)
        options = {} if kind is None else {"trainer_class": kind}
        data = ChainData(n=32)
        loaders = (data.train_dataloader(), data.val_dataloader())
        trainer(tmp_path, [callback], max_epochs=2, **options).fit(tuned, *loaders)
        voices.append(callback.tuned)
    assert voices[0].held_out == voices[1].held_out
    assert same(dict(voices[0].tensors), dict(voices[1].tensors))


# -- what cannot be tuned ----------------------------------------------------------------------------------------------
def test_the_protocol_is_seen():
    assert isinstance(base(), AcceptsInitialStates)
    assert not isinstance(ForeignModule(), AcceptsInitialStates)


def test_a_module_that_accepts_no_states(tmp_path):
    match = (
        "`module` must be one that accepts initial states, but got 'ForeignModule'. Add initial_state_shapes, "
        "use_initial_states, sequence_losses to it: see AcceptsInitialStates in "
        "lightning_adapt.lina_speech.tuning.protocol, or"
    )
    with pytest.raises(MisconfigurationException, match=match):
        trainer(tmp_path, [tuning()]).fit(ForeignModule(), loader())
    module = base()
    module.sequence_losses = None
    with pytest.raises(MisconfigurationException, match=r"but got 'ForeignGLA'\. Add sequence_losses to it: see"):
        fit(tmp_path, tuning(), module)


def test_manual_optimisation_is_refused(tmp_path):
    module = base()
    module.automatic_optimization = False
    with pytest.raises(
        MisconfigurationException, match="`automatic_optimization` must be True with InitialStateTuning"
    ):
        fit(tmp_path, tuning(), module)


def test_a_name_that_is_taken(tmp_path):
    module = base()
    module.tuned_initial_states = 3
    match = "`module.tuned_initial_states` must be free for InitialStateTuning, but got 3. Rename it"
    with pytest.raises(MisconfigurationException, match=match):
        fit(tmp_path, tuning(), module)
    assert module.tuned_initial_states == 3


def test_a_layer_that_is_not_there(tmp_path):
    module = base()
    before = facts(module)
    with pytest.raises(MisconfigurationException, match=r"`layers` must be numbers from 0 to 1, .* but got 5"):
        fit(tmp_path, tuning(layers=[5]), module)
    assert facts(module) == before


def test_states_without_gradients_are_told(tmp_path):
    class Detaches(ForeignGLA):
        def use_initial_states(self, states):
            super().use_initial_states({name: value.detach() for name, value in (states or {}).items()})

    with pytest.raises(MisconfigurationException, match="`training_step` must be a loss that depends on the initial"):
        fit(tmp_path, tuning(), Detaches())
