"""FixMatchModule in a Trainer: averaged weights, checkpoints, resuming, precisions, foreign backbones, processes."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment

from lightning_adapt.saa.models.averaging import RampedEMA, ramped_average
from lightning_adapt.saa.models.fixmatch import FixMatchModule
from lightning_adapt.saa.models.flexmatch import FlexMatchModule
from tests.foreign import trainer
from tests.saa.parts_models import N_CLASSES, N_UNLABELED, Batches, StepBatches, fit, same_state, small_net

MODULES = {"fixmatch": FixMatchModule, "flexmatch": FlexMatchModule}


def small(kind=FixMatchModule, **options):
    torch.manual_seed(0)
    return kind(small_net(), **{"n_classes": N_CLASSES, "channels": 1, "learning_rate": 0.1, **options})


def named(kind=FixMatchModule, **options):
    torch.manual_seed(0)
    return kind("cnn", **{"n_classes": N_CLASSES, "channels": 1, "learning_rate": 0.1, **options})


class Watch(Callback):
    """Notes the state after each training batch and during each validation."""

    def __init__(self):
        self.live, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.live.append(copy.deepcopy(pl_module.state_dict()))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append((len(self.live), copy.deepcopy(pl_module.state_dict())))


def averages(live, decay, parameters):
    """The moving average after each step by a loop, in float64; buffers are those of the network in training."""
    means = []
    for k, state in enumerate(live):
        keep = min(1 - 1 / (k + 1), decay)
        mean = {name: value.double() for name, value in state.items()}
        for name in parameters:
            before = means[-1][name] if means else 0.0
            mean[name] = keep * before + (1 - keep) * mean[name]
        means.append(mean)
    return means


def close(state, expected):
    return all(torch.allclose(value.double(), expected[name], rtol=1e-5, atol=1e-6) for name, value in state.items())


@pytest.mark.parametrize("decay", [0.6, 0.999])
def test_average_is_that_of_a_loop(decay, tmp_path):
    watch, module = Watch(), small(ema_decay=decay)
    parameters = [name for name, _ in module.named_parameters()]
    fit(tmp_path, module, callbacks=[watch])
    expected = averages(watch.live, decay, parameters)
    assert len(expected) == 8
    assert close(module.state_dict(), expected[-1])  # after fit the module has the averaged weights
    assert not close(module.state_dict(), {name: value.double() for name, value in watch.live[-1].items()})
    assert [step for step, _ in watch.validated] == [4, 8]
    for step, state in watch.validated:
        assert close(state, expected[step - 1])
    for name, value in module.named_buffers():  # copied to the bit
        assert torch.equal(value, watch.live[-1][name])
    assert any("running_mean" in name for name, _ in module.named_buffers())


def test_ramp():
    average = torch.tensor(0.0)
    for k, value in enumerate([2.0, 4.0, 9.0]):  # the plain mean as long as the decay is not reached
        average = ramped_average(average, torch.tensor(value), torch.tensor(k), decay=0.99)
    assert average.item() == pytest.approx(5.0)
    assert ramped_average(torch.tensor(1.0), torch.tensor(0.0), 10**6, decay=0.99).item() == pytest.approx(0.99)
    half = ramped_average(torch.tensor([1.0]), torch.tensor([2.0], dtype=torch.bfloat16), 1, decay=0.9)
    assert (half.dtype, half.item()) == (torch.float32, 1.5)


def test_without_average(tmp_path):
    watch, module = Watch(), small(ema_decay=None)
    training = fit(tmp_path, module, callbacks=[watch])
    assert same_state(dict(module.state_dict()), dict(watch.live[-1]))
    assert not any(isinstance(callback, RampedEMA) for callback in training.callbacks)


def test_an_average_of_the_user_is_used_instead(tmp_path):
    training = fit(tmp_path, small(), callbacks=[EMAWeightAveraging(decay=0.5)])
    assert not any(isinstance(callback, RampedEMA) for callback in training.callbacks)
    with pytest.raises(ValueError, match="`decay`"):
        RampedEMA(1.0)


@pytest.mark.parametrize("kind", MODULES)
def test_checkpoint_holds_the_average_and_is_plain(kind, tmp_path):
    module = named(MODULES[kind], threshold=torch.tensor(0.9).numpy()[()])  # a NumPy number
    training = fit(tmp_path, module)
    path = tmp_path / "end.ckpt"
    training.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["backbone"] == "cnn"
    loaded = MODULES[kind].load_from_checkpoint(path, weights_only=True)
    assert same_state(dict(loaded.state_dict()), dict(module.state_dict()))
    assert loaded.hparams == module.hparams
    again = named(MODULES[kind], n_unlabeled=7) if kind == "flexmatch" else named()
    results = [
        trainer(tmp_path).test(net, datamodule=Batches(), ckpt_path=ckpt, weights_only=plain, verbose=False)
        for net, ckpt, plain in ((module, None, None), (loaded, None, None), (again, path, True))
    ]
    assert results[0] == results[1] == results[2]


def test_an_injected_backbone_is_given_again(tmp_path):
    module = small()
    training = fit(tmp_path, module)
    training.save_checkpoint(tmp_path / "end.ckpt")
    assert "backbone" not in torch.load(tmp_path / "end.ckpt", weights_only=True)["hyper_parameters"]
    loaded = FixMatchModule.load_from_checkpoint(tmp_path / "end.ckpt", backbone=small_net(), weights_only=True)
    assert same_state(dict(loaded.state_dict()), dict(module.state_dict()))


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")  # the batches follow from the step
@pytest.mark.parametrize("stop", [4, 6], ids=["end", "middle"])
def test_a_resumed_run_is_the_same_to_the_bit(kind, stop, tmp_path):
    options = {"ema_decay": 0.7, "threshold": 0.5}

    def saving():
        return [ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)]

    whole = small(MODULES[kind], **options)
    fit(tmp_path, whole, StepBatches(), saving(), max_epochs=3)
    first = torch.load(tmp_path / "step=12.ckpt", weights_only=True)
    part = small(MODULES[kind], **options)
    for value in part.parameters():
        torch.nn.init.ones_(value)
    training = fit(tmp_path, part, StepBatches(), saving(), tmp_path / f"step={stop}.ckpt", max_epochs=3)
    assert training.global_step == 12
    assert same_state(dict(part.state_dict()), dict(whole.state_dict()))
    second = torch.load(tmp_path / "step=12-v1.ckpt", weights_only=True)
    for content in (first, second):
        content["callbacks"] = {key: value for key, value in content["callbacks"].items() if "EMA" in key}
        del content["loops"]  # a resumed epoch counts its batches in another way
    assert same_state(first, second)
    assert first["averaging_state"]["n_averaged"] == 12
    assert not same_state(first["state_dict"], first["current_model_state"])


def test_a_checkpoint_without_average_can_be_resumed(tmp_path):
    fit(tmp_path, small(ema_decay=None), max_epochs=1).save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.warns(UserWarning, match="not created with WeightAveraging"):
        fit(tmp_path, small(), ckpt_path=tmp_path / "plain.ckpt")


@pytest.mark.parametrize("kind", MODULES)
def test_stages_without_fit_and_with_a_sanity_check(kind, tmp_path):
    module = small(MODULES[kind])
    before = copy.deepcopy(module.state_dict())
    for stage in ("validate", "test", "predict"):
        getattr(trainer(tmp_path), stage)(module, datamodule=Batches())
    assert same_state(dict(before), dict(module.state_dict()))
    fit(tmp_path, module, num_sanity_val_steps=2, max_epochs=1)
    checked = {name: value.clone() for name, value in module.state_dict().items()}
    plain = small(MODULES[kind])
    fit(tmp_path, plain, max_epochs=1)
    assert same_state(checked, dict(plain.state_dict()))


class HalfImages(Batches):
    """What SAADataModule does under bf16-true: images in the precision of the module."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        def convert(value):
            return {key: convert(item) for key, item in value.items()} if isinstance(value, dict) else cast(value)

        def cast(value):
            return value.bfloat16() if value.is_floating_point() else value

        return convert(batch)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("kind", MODULES)
def test_half_precision(kind, precision, tmp_path):
    outputs = []

    class Outputs(Callback):
        def on_train_batch_end(self, trainer, pl_module, output, batch, batch_idx):
            outputs.append(output)

    data = HalfImages() if precision == "bf16-true" else Batches()
    module = small(MODULES[kind])
    reached = fit(tmp_path, module, data, [Outputs()], precision=precision, max_epochs=2).callback_metrics
    assert all(output["sample_loss"].dtype == torch.float32 for output in outputs)
    assert all(output["confidence"].dtype == torch.float32 for output in outputs)
    assert reached["train_loss"].isfinite()
    if precision == "bf16-mixed":  # logits come in bfloat16; their entropy is taken from there in float32
        assert any((output["sample_loss"] != output["sample_loss"].bfloat16().float()).any() for output in outputs)


def test_torchvision_backbone(tmp_path):
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=10)
    data = Batches(channels=3)
    module = FixMatchModule(net, n_classes=10)
    training = fit(tmp_path, module, data, max_steps=2, limit_val_batches=1)
    assert training.global_step == 2
    assert training.callback_metrics["train_loss"].isfinite()
    norm_layers = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    norms = {id(value) for layer in norm_layers for value in layer.parameters()}
    (optimizer,) = training.optimizers
    assert {id(value) for value in optimizer.param_groups[1]["params"]} == norms
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)


def test_accumulated_batches_and_unknown_labels(tmp_path):
    module = small(FlexMatchModule, n_unlabeled=N_UNLABELED)
    training = fit(tmp_path, module, Batches(known=False), accumulate_grad_batches=2)
    assert training.global_step == 4
    assert training.callback_metrics["train_pseudo_accuracy"].isnan()


class SameWeights(Callback):
    """Inside the processes: all ranks have the averaged weights of rank 0."""

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        mine = torch.cat([value.flatten() for value in pl_module.parameters()])
        assert torch.equal(trainer.strategy.broadcast(mine, src=0), mine)


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning")
@pytest.mark.parametrize("backbone", ["cnn", "wrn-10-2"])
def test_two_processes_have_one_average_and_no_complaint(backbone, tmp_path, capfd):
    torch.manual_seed(0)
    module = FixMatchModule(backbone, n_classes=N_CLASSES)
    before = module.backbone.classifier.weight.detach().clone()
    options = {"strategy": "ddp_fork", "devices": 2, "plugins": [LightningEnvironment()]}
    fit(tmp_path, module, Batches(channels=3), [SameWeights()], max_epochs=1, **options)
    assert "strides" not in capfd.readouterr().err  # DDP's warning of a layout that costs it copies
    assert not torch.equal(module.backbone.classifier.weight, before)
