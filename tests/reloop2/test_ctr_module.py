"""CTRModule: what it learns, logs, saves and predicts; sizes from the DataModule; and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader

from lightning_adapt.reloop2.data.datamodule import PrequentialDataModule
from lightning_adapt.reloop2.models.ctr_module import CTRModule
from tests.foreign import trainer


def log(rows: int = 600, seed: int = 0) -> dict[str, torch.Tensor]:
    """Clicks that depend on user, on user x item and on a number."""
    random = torch.Generator().manual_seed(seed)
    user, item = (torch.randint(size, (rows,), generator=random) for size in (6, 4))
    age = torch.randn(rows, generator=random)
    logit = 1.5 * (2 * (user % 2) - 1) + 1.5 * (2 * ((user + item) % 2) - 1) + age
    click = torch.rand(rows, generator=random) < logit.sigmoid()
    return {"time": torch.arange(rows), "user": user, "item": item, "age": age, "click": click}


def data(**options) -> PrequentialDataModule:
    options = {"numeric": ["age"], "val_share": 0.1, "batch_size": 32, **options}
    return PrequentialDataModule(log(), time="time", label="click", **options)


def run(tmp_path, **options) -> Trainer:
    return trainer(tmp_path, **{"max_epochs": 6, **options})


@pytest.mark.parametrize("backbone", ["deepfm", "dcnv2"])
def test_it_learns_from_a_datamodule_that_tells_the_sizes(backbone, tmp_path):
    seed_everything(0, verbose=False)
    module, source = CTRModule(backbone=backbone, learning_rate=0.02), data()
    training = run(tmp_path)
    training.fit(module, datamodule=source)
    assert module.network.field_sizes == source.field_sizes
    assert module.network.numeric == ("age",)
    assert {"train_loss", "val_logloss", "val_auc"} <= set(training.callback_metrics)
    result = training.test(module, datamodule=source, verbose=False)[0]
    assert result["test_auc"] > 0.8
    assert result["test_logloss"] < 0.55 < math.log(2)
    # the same numbers by hand
    rows = source.table.rows(source.table.part("test"))
    logits = module.eval()(rows)
    assert result["test_logloss"] == pytest.approx(F.binary_cross_entropy_with_logits(logits, rows["label"]).item())
    difference = logits[rows["label"] == 1][:, None] - logits[rows["label"] == 0]
    auc = (difference > 0).double().mean() + 0.5 * (difference == 0).double().mean()
    assert result["test_auc"] == pytest.approx(auc.item(), abs=1e-6)
    predicted = torch.cat(training.predict(module, datamodule=source))
    torch.testing.assert_close(predicted, logits.sigmoid())


def test_a_checkpoint_needs_no_datamodule(tmp_path):
    module, source = CTRModule(backbone="dcnv2", cross_layers=2, hidden=(8,)), data()
    training = run(tmp_path, max_epochs=1)
    training.fit(module, datamodule=source)
    training.save_checkpoint(tmp_path / "model.ckpt")
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert content["hyper_parameters"]["field_sizes"] == source.field_sizes
    loaded = CTRModule.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    rows = source.table.rows(slice(0, 50))
    assert torch.equal(loaded.eval()(rows), module.eval()(rows))
    again = CTRModule(backbone="dcnv2", cross_layers=2, hidden=(8,))
    testing = run(tmp_path)
    testing.test(again, datamodule=data(), ckpt_path=tmp_path / "model.ckpt", weights_only=True, verbose=False)
    assert torch.equal(again.eval()(rows), module(rows))


def test_given_sizes_need_no_datamodule(tmp_path):
    source = data()
    module = CTRModule(source.field_sizes, numeric=("age",))
    loader = DataLoader(source.train_dataloader().dataset, batch_size=16, collate_fn=lambda rows: rows)
    run(tmp_path, max_epochs=1).fit(module, loader)
    assert module.hparams["field_sizes"] == source.field_sizes
    assert module.hparams["numeric"] == ["age"]


def test_same_weights_whether_sizes_are_given_or_found(tmp_path):
    source, weights = data(), []
    for sizes in (None, source.field_sizes):
        seed_everything(3, verbose=False)
        module = CTRModule(sizes, numeric=("age",))
        run(tmp_path, max_steps=1, max_epochs=-1, limit_val_batches=0).fit(module, datamodule=source)
        weights.append(module.network.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_embedding_decay_is_the_squared_norm_of_what_is_looked_up():
    source = data()
    rows = source.table.rows(slice(0, 32))
    losses = []
    for decay in (0.0, 0.3):
        seed_everything(0, verbose=False)
        module = CTRModule(source.field_sizes, numeric=("age",), embedding_decay=decay)
        for table in module.network.embeddings.values():
            torch.nn.init.constant_(table.weight, 0.5)
        torch.nn.init.zeros_(module.network.numeric_vectors["field_age"])
        module.log = lambda *_, **__: None
        losses.append(module.training_step(rows, 0))
    squared_norm = 2 * 17 * 0.5**2  # two id fields of 1 + 16 numbers
    assert (losses[1] - losses[0]).item() == pytest.approx(0.3 * squared_norm, rel=1e-5)
    losses[1].backward()
    assert module.network.embeddings["field_user"].weight.grad[0].abs().sum() == 0  # row 0 was not looked up


def test_another_label_key(tmp_path):
    source = data()
    rows = source.table.rows(slice(0, 8))
    rows["bought"] = rows.pop("label")
    module = CTRModule(source.field_sizes, numeric=("age",), label_key="bought")
    module.log = lambda *_, **__: None
    assert module.training_step(rows, 0).isfinite()
    wrong = CTRModule(source.field_sizes, numeric=("age",))
    with pytest.raises(ValueError, match="'label'"):
        wrong.training_step(rows, 0)


@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"precision": "bf16-mixed", "max_epochs": 1}])
def test_other_ways_to_run(options, tmp_path):
    training = run(tmp_path, **options, accumulate_grad_batches=2)
    module, source = CTRModule(batch_norm=True, dropout=0.1), data()
    training.fit(module, datamodule=source)
    training.validate(module, datamodule=source, verbose=False)
    assert training.callback_metrics["val_logloss"].isfinite()


@pytest.mark.parametrize("numeric", [["age"], []])
@pytest.mark.parametrize("backbone", ["deepfm", "dcnv2"])
def test_two_processes_reach_every_parameter(backbone, numeric, tmp_path):
    """DDP refuses a model with parameters that the loss does not reach."""
    source = data(numeric=numeric, fields=["user", "item"], train_share=0.48, val_share=0.08)  # even parts
    seed_everything(0, verbose=False)
    module = CTRModule(backbone=backbone, learning_rate=0.02)
    options = {"strategy": "ddp_fork", "devices": 2, "use_distributed_sampler": False}
    training = run(tmp_path, max_epochs=3, **options)
    training.fit(module, datamodule=source)
    assert training.callback_metrics["val_logloss"].isfinite()
    # the weights came back from the processes, to a module that had none
    again = training.validate(module, datamodule=source, verbose=False)[0]
    assert again["val_logloss"] == pytest.approx(training.callback_metrics["val_logloss"].item())
    assert module.hparams["numeric"] == numeric
    assert sum(weight.abs().max() for weight in module.network.embeddings.parameters()) > 0.02


def test_no_sizes_anywhere(tmp_path):
    loader = data().train_dataloader()
    with pytest.raises(MisconfigurationException, match="field_sizes"):
        run(tmp_path).fit(CTRModule(), loader)
    with pytest.raises(RuntimeError, match="field_sizes"):
        CTRModule()({"user": torch.tensor([1])})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"backbone": "wide"}, ValueError),
        ({"learning_rate": 0}, ValueError),
        ({"embedding_decay": -1.0}, ValueError),
        ({"embedding_decay": "0.1"}, TypeError),
        ({"hidden": (0,)}, ValueError),
        ({"dropout": 1.5}, ValueError),
        ({"embedding_dim": 0}, ValueError),
        ({"field_sizes": {"user": 0}}, ValueError),
        ({"field_sizes": ["user"]}, TypeError),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        CTRModule(**arguments)
