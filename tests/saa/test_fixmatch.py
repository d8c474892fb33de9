"""FixMatchModule: one step against a derivation in float64, its optimizer and schedule, what it logs and refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from torch import nn

from lightning_adapt.saa.models.fixmatch import FixMatchModule
from lightning_adapt.saa.models.optimization import parameter_groups
from tests.saa.parts_models import N_CLASSES, Batches, alone, fit, images, small_net, training_batch


def small(**options) -> FixMatchModule:
    torch.manual_seed(0)
    return FixMatchModule(small_net(), **{"n_classes": N_CLASSES, "channels": 1, "learning_rate": 0.1, **options})


def derive(weights: list[torch.Tensor], batch, tau: float, lam: float) -> dict[str, torch.Tensor]:
    """FixMatch by the equations, for `small_net` written out, in float64."""
    conv, gain, shift, linear, bias = weights
    parts = [batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["strong"]]
    features = F.conv2d(torch.cat(parts).double(), conv, padding=1)
    mean = features.mean((0, 2, 3), keepdim=True)
    variance = ((features - mean) ** 2).mean((0, 2, 3), keepdim=True)
    features = (features - mean) / torch.sqrt(variance + 1e-5) * gain.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    features = features * (features > 0)
    rows = len(features)
    pooled = features.reshape(rows, -1, 2, 4, 2, 4).mean((3, 5)).reshape(rows, -1)
    logits = pooled @ linear.T + bias
    log_p = logits - torch.log(torch.exp(logits).sum(1, keepdim=True))
    n, m = len(parts[0]), len(parts[1])
    target = batch["labeled"]["label"]
    labeled_loss = -sum(log_p[row, target[row]] for row in range(n)) / n
    sample_loss, passed, confidence = [], [], []
    for row in range(m):
        p = torch.exp(log_p[n + row]).tolist()
        best = max(p)
        sample_loss.append(-log_p[n + m + row, p.index(best)])
        passed.append(best >= tau)
        confidence.append(best)
    unlabeled_loss = sum((value for value, use in zip(sample_loss, passed, strict=True) if use), torch.zeros(())) / m
    return {
        "loss": labeled_loss + lam * unlabeled_loss,
        "labeled": labeled_loss,
        "unlabeled": unlabeled_loss,
        "sample_loss": torch.stack(sample_loss),
        "confidence": torch.tensor(confidence),
        "passed": torch.tensor(passed),
    }


@pytest.mark.parametrize("lam", [1.0, 0.4])
@pytest.mark.parametrize("tau", [0.0, 0.48, 0.99])
def test_a_step_is_that_of_the_equations(tau, lam):
    module, batch = small(threshold=tau, unlabeled_weight=lam), training_batch(1)
    logged = alone(module)
    sizes = []
    module.backbone.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    weights = [value.detach().double().requires_grad_() for value in module.backbone.parameters()]
    truth = derive(weights, batch, tau, lam)
    if tau == 0.48:
        assert 0 < truth["passed"].sum() < 10  # the mask decides something
    returned = module.training_step(batch, 0)
    assert sizes == [4 + 10 + 10]  # one forward of everything
    assert set(returned) == {"loss", "sample_loss", "index", "confidence"}
    torch.testing.assert_close(returned["loss"].double(), truth["loss"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(returned["sample_loss"].double(), truth["sample_loss"].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(returned["confidence"], truth["confidence"].float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(returned["index"], batch["unlabeled"]["index"])
    assert not any(value.requires_grad for key, value in returned.items() if key != "loss")
    returned["loss"].backward()
    expected = torch.autograd.grad(truth["loss"], weights)
    for parameter, gradient in zip(module.backbone.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=1e-4, atol=1e-6)
    assert logged["train_loss_labeled"].item() == pytest.approx(truth["labeled"].item(), rel=1e-5)
    assert logged["train_loss_unlabeled"].item() == pytest.approx(truth["unlabeled"].item(), rel=1e-5)
    assert logged["train_mask_rate"].item() == pytest.approx(truth["passed"].double().mean().item())


@pytest.mark.parametrize("known", ["all", "some", "none", "missing"])
def test_accuracy_of_the_pseudo_labels_used(known):
    module, batch = small(threshold=0.48), training_batch(1)
    logged = alone(module)
    with torch.no_grad():  # in train mode, as in the step
        views = (batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["strong"])
        logits = module(torch.cat(views))
    confidence, label = logits[4:14].softmax(1).max(1)
    truth = batch["unlabeled"]["label"] = torch.cat([label[:6], (label[6:] + 1) % N_CLASSES])
    if known == "some":
        truth[::2] = -1
    elif known == "none":
        truth[:] = -1
    elif known == "missing":
        del batch["unlabeled"]["label"]
    module.training_step(batch, 0)
    used = [row for row in range(10) if confidence[row] >= 0.48 and truth[row] >= 0]
    got = logged["train_pseudo_accuracy"].item()
    if known in ("none", "missing"):
        assert math.isnan(got)
    else:
        assert len(used) > 1
        assert got == pytest.approx(sum(label[row].item() == truth[row].item() for row in used) / len(used))


class Rates(Callback):
    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"max_epochs": 2}, 8), ({"max_epochs": 3, "accumulate_grad_batches": 2}, 6), ({"max_steps": 5}, 5)],
)
def test_schedule(options, steps, tmp_path):
    seen = Rates()
    fit(tmp_path, small(), callbacks=[seen], **{"max_epochs": -1, **options})
    expected = [0.1 * math.cos(7 * math.pi * step / (16 * steps)) for step in range(steps)]
    assert seen.rates == pytest.approx(expected)


def test_constant_schedule_needs_no_end_but_the_cosine_does(tmp_path):
    seen = Rates()
    fit(tmp_path, small(schedule="constant"), callbacks=[seen], max_steps=3)
    assert seen.rates == [0.1] * 3
    with pytest.raises(MisconfigurationException, match="`max_steps` must be known for schedule='cosine-7/16'"):
        fit(tmp_path, small(), max_epochs=-1)


def test_norms_do_not_decay_whatever_their_names():
    net = nn.ModuleDict(
        {
            "conv": nn.Conv2d(1, 4, 3),
            "first": nn.BatchNorm2d(4),
            "bn_by_name_only": nn.Linear(4, 4),
            "group": nn.GroupNorm(2, 4),
            "layer": nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)),
        }
    )
    net["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    decays, does_not = parameter_groups(net, 0.3)
    names = {id(value): name for name, value in net.named_parameters()}
    assert [names[id(value)] for value in does_not["params"]] == [
        f"{layer}.{kind}" for layer in ("first", "group", "layer.0") for kind in ("weight", "bias")
    ]
    assert [names[id(value)] for value in decays["params"]] == [
        f"{layer}.{kind}" for layer in ("conv", "bn_by_name_only", "layer.1") for kind in ("weight", "bias")
    ]
    assert (decays["weight_decay"], does_not["weight_decay"]) == (0.3, 0.0)
    assert len(parameter_groups(nn.Linear(2, 2), 0.1)) == 1


def test_the_optimizer_steps_as_nesterov_does_by_hand(tmp_path):
    module = small(schedule="constant", ema_decay=None, weight_decay=0.02)
    weights = [value.detach().double().requires_grad_() for value in module.backbone.parameters()]
    velocity = [torch.zeros_like(value) for value in weights]
    decay = [0.02, 0, 0, 0.02, 0.02]  # conv, BatchNorm's two, linear and its bias
    data = Batches()
    for step, batch in zip(range(3), data.train_dataloader(), strict=False):
        gradients = torch.autograd.grad(derive(weights, batch[0], 0.95, 1.0)["loss"], weights)
        with torch.no_grad():
            for place, (value, gradient) in enumerate(zip(weights, gradients, strict=True)):
                gradient = gradient + decay[place] * value
                velocity[place] = gradient if step == 0 else 0.9 * velocity[place] + gradient
                value -= 0.1 * (gradient + 0.9 * velocity[place])
    fit(tmp_path, module, max_steps=3, limit_val_batches=0)
    for ours, theirs in zip(module.backbone.parameters(), weights, strict=True):
        torch.testing.assert_close(ours.detach().double(), theirs.detach(), rtol=1e-4, atol=1e-6)


def test_it_learns_and_evaluates(tmp_path):
    module = small(ema_decay=0.9, learning_rate=0.05, threshold=0.6)
    losses = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(trainer.callback_metrics["train_loss"].item())

    training = fit(tmp_path, module, max_epochs=15, callbacks=[Losses()])
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    names = ("loss", "loss_labeled", "loss_unlabeled", "mask_rate", "pseudo_accuracy")
    assert {*(f"train_{name}" for name in names), "val_loss", "val_accuracy"} <= set(training.callback_metrics)
    result = training.test(module, datamodule=Batches(), verbose=False)[0]
    image, label = images(20, 5)
    logits = module.eval()(image)
    assert result["test_loss"] == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-5)
    assert result["test_accuracy"] == pytest.approx((logits.argmax(1) == label).double().mean().item())
    assert result["test_accuracy"] > 0.8
    predicted = torch.cat(training.predict(module, datamodule=Batches()))
    assert torch.equal(predicted, logits.argmax(1))


def without(part: str, key: str | None = None):
    batch = training_batch()
    if key is None:
        del batch[part]
    else:
        del batch[part][key]
    return batch


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (without("labeled"), r"`batch\['labeled'\]` must be a dict of tensors, but got \"only \['unlabeled'\]"),
        (without("unlabeled"), r"`batch\['unlabeled'\]`.*SAADataModule"),
        (without("labeled", "label"), r"`batch\['labeled'\]\['label'\]` must be a tensor.*only \['image', 'index'\]"),
        (without("unlabeled", "strong"), r"`batch\['unlabeled'\]\['strong'\]`"),
        (without("unlabeled", "index"), r"`batch\['unlabeled'\]\['index'\]`"),
        ([torch.zeros(2)], r"`batch\['labeled'\]`"),
        ({"labeled": torch.zeros(2)}, r"`batch\['labeled'\]` must be a dict"),
    ],
)
def test_a_missing_part_is_named(batch, text):
    with pytest.raises(MisconfigurationException, match=text):
        small().training_step(batch, 0)


def test_a_missing_part_of_an_evaluation_batch_is_named():
    with pytest.raises(MisconfigurationException, match=r"`batch\['label'\]` must be a tensor"):
        small().validation_step({"image": torch.zeros(2, 1, 8, 8)}, 0)
    with pytest.raises(MisconfigurationException, match=r"`batch\['image'\]` must be a tensor"):
        small().predict_step([torch.zeros(2, 1, 8, 8)], 0)


def test_a_backbone_with_other_classes_is_named():
    module = FixMatchModule(small_net(n_classes=4), n_classes=N_CLASSES)
    with pytest.raises(MisconfigurationException, match=r"`backbone` must be .* \(24, 3\), but got \(24, 4\)"):
        module.training_step(training_batch(), 0)
    with pytest.raises(MisconfigurationException, match="`backbone`"):
        FixMatchModule(nn.Flatten(), n_classes=N_CLASSES)(torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(("attribute", "value"), [("n_classes", 5), ("channels", 3)])
def test_the_datamodule_must_agree(attribute, value, tmp_path):
    data = Batches()
    setattr(data, attribute, value)
    module = FixMatchModule("cnn", n_classes=N_CLASSES, channels=1)
    with pytest.raises(MisconfigurationException, match=f"`{attribute}` must be that of the DataModule, {value}"):
        fit(tmp_path, module, data)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"backbone": "vgg"}, ValueError),
        ({"backbone": 3}, TypeError),
        ({"n_classes": 1}, ValueError),
        ({"channels": "1"}, TypeError),
        ({"threshold": 1.2}, ValueError),
        ({"unlabeled_weight": -1}, ValueError),
        ({"learning_rate": 0}, ValueError),
        ({"momentum": 1.0}, ValueError),
        ({"weight_decay": -0.1}, ValueError),
        ({"ema_decay": 0}, ValueError),
        ({"ema_decay": 1.0}, ValueError),
        ({"schedule": "linear"}, ValueError),
    ],
)
def test_arguments_are_checked(options, error):
    with pytest.raises(error, match=f"`{next(iter(options))}`"):
        FixMatchModule(**{"backbone": "cnn", **options})
