"""IncrementalTraining: predict first, learn when labels arrive, leave no trace; the same as a plain loop says."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as lightning_pytorch
import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_adapt._shared.state import check_plain
from lightning_adapt.reloop2.incremental import IncrementalTraining
from tests.foreign import trainer

ROWS, BATCH = 60, 10


def rows(n: int = ROWS, flipped: bool = False) -> TensorDataset:
    random = torch.Generator().manual_seed(3)
    features = torch.randn(n, 4, generator=random)
    label = (features.sum(1) > 0).float()
    return TensorDataset(features, 1 - label if flipped else label)


def loader(batch_size: int = BATCH, **options) -> DataLoader:
    return DataLoader(rows(**options), batch_size)


def make(base: type) -> type:
    class Module(base):
        """A small net; notes the probabilities that it gives in the test, and the mode of its parts in training."""

        def __init__(self, record: str | None = None, norm: bool = False, dropout: float = 0.0):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))
            self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
            self.record, self.given, self.modes = record, [], []

        def forward(self, features):
            return self.net(self.norm(features))[:, 0]

        def training_step(self, batch, batch_idx):
            self.modes.append((self.training, self.net[2].training, self.norm.training))
            loss = F.binary_cross_entropy_with_logits(self(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True, prog_bar=True)
            self.log_dict({"train_loss_again": loss})
            return {"loss": loss}

        def test_step(self, batch, batch_idx):
            self.given.append(self(batch[0]).sigmoid())
            self.log("test_loss", F.binary_cross_entropy(self.given[-1], batch[1]), sync_dist=True)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

        def on_test_end(self):
            if self.record:
                given = [batch.tolist() for batch in self.given]
                Path(f"{self.record}-{self.global_rank}.json").write_text(json.dumps(given))

    return Module


Module = make(lightning_pytorch.LightningModule)


def run(tmp_path, module, callback, data=None, **options):
    test = trainer(tmp_path, [callback], **options)
    test.test(module, loader() if data is None else data, verbose=False)
    return test


def by_hand(
    module: nn.Module, learning_rate: float, *, kind=torch.optim.Adam, delay: int = 0, every: int = 1
) -> list[torch.Tensor]:
    """The same protocol as a loop: predict, wait, step."""
    optimizer, given, waiting, arrived = kind(module.parameters(), lr=learning_rate), [], [], []
    for features, label in loader():
        with torch.no_grad():
            given.append(module.eval()(features).sigmoid())
        waiting.append((features, label))
        if len(waiting) > delay:
            arrived.append(waiting.pop(0))
        if len(arrived) == every:
            module.train()
            losses = [F.binary_cross_entropy_with_logits(module(x), y) for x, y in arrived]
            optimizer.zero_grad()
            (sum(losses) / every).backward()
            optimizer.step()
            arrived = []
    return given


@pytest.mark.parametrize(
    "options",
    [{}, {"delay": 2}, {"update_every_n_batches": 2}, {"delay": 1, "update_every_n_batches": 2, "optimizer": "sgd"}],
)
@pytest.mark.parametrize("inference_mode", [True, False])
def test_it_is_the_plain_loop(options, inference_mode, tmp_path):
    rate = 0.5 if "optimizer" in options else 0.01
    module, callback = Module(), IncrementalTraining(rate, **options)
    run(tmp_path, module, callback, inference_mode=inference_mode)
    kind = torch.optim.SGD if options.get("optimizer") == "sgd" else torch.optim.Adam
    every = options.get("update_every_n_batches", 1)
    expected = by_hand(Module(), rate, kind=kind, delay=options.get("delay", 0), every=every)
    for here, there in zip(module.given, expected, strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=1e-6)
    assert callback.updates == (ROWS // BATCH - options.get("delay", 0)) // every
    base = [Module().eval()(features).sigmoid() for features, _ in loader()]
    assert not torch.allclose(module.given[-1], base[-1], atol=1e-4)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_labels_change_only_what_is_predicted_after_their_arrival(delay, tmp_path):
    """Labels of batch t are all turned around: outputs up to t + delay are bit-identical, the next is not."""
    given = {}
    for changed in (None, 1):
        features, label = rows().tensors
        label = label.clone()
        if changed is not None:
            label[changed * BATCH : (changed + 1) * BATCH] = 1 - label[changed * BATCH : (changed + 1) * BATCH]
        module = Module()
        data = DataLoader(TensorDataset(features, label), BATCH)
        run(tmp_path, module, IncrementalTraining(0.01, delay=delay), data)
        given[changed] = module.given
    equal = [torch.equal(one, two) for one, two in zip(given[None], given[1], strict=True)]
    assert equal == [True] * (2 + delay) + [False] * (ROWS // BATCH - 2 - delay)


@pytest.mark.parametrize("restore", [True, False])
def test_weights_and_buffers_come_back(restore, tmp_path):
    module = Module(norm=True)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run(tmp_path, module, IncrementalTraining(0.01, restore_weights=restore))
    same = {name: torch.equal(value, before[name]) for name, value in module.state_dict().items()}
    assert all(same.values()) is restore
    if not restore:
        assert not any(same.values())
    assert not any(value.is_inference() for value in module.state_dict().values())
    trainer(tmp_path, max_epochs=1).fit(module, loader())  # and can be trained on


def test_weights_come_back_after_an_error(tmp_path):
    class Fails(Module):
        def test_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("boom")

    module = Fails()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    callback = IncrementalTraining(0.1)
    with pytest.raises(RuntimeError, match="boom"):
        run(tmp_path, module, callback)
    assert callback.updates == 3
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("frozen", [False, True])
def test_updates_run_in_training_mode_and_flags_come_back(frozen, tmp_path):
    module = Module(norm=True, dropout=0.5)
    if frozen:
        module.norm.eval()
    run(tmp_path, module, IncrementalTraining(0.01))
    assert module.modes == [(True, True, not frozen)] * 6
    assert (module.training, module.net[2].training, module.norm.training) == (True, True, not frozen)
    module.eval()
    module.modes.clear()
    run(tmp_path, module, IncrementalTraining(0.01))
    assert module.modes == [(True, True, True)] * 6  # no flag tells what would be frozen in training
    assert not module.training


def test_a_model_frozen_in_eval_mode_predicts_in_eval_mode(tmp_path):
    module = Module(dropout=0.5)
    seen = []
    module.net[2].register_forward_hook(lambda part, *_: seen.append(part.training))
    run(tmp_path, module, IncrementalTraining(0.01))
    assert seen == [False, True] * 6


def test_logs_of_the_training_step_are_left_out(tmp_path):
    module = Module()
    test = run(tmp_path, module, IncrementalTraining(0.01))
    assert set(test.callback_metrics) == {"test_loss"}
    assert "log" not in vars(module)
    own = vars(module)["log_dict"] = lambda *_: None  # what the user put there stays there
    run(tmp_path, module, IncrementalTraining(0.01))
    assert vars(module)["log_dict"] is own


def test_it_follows_a_drift(tmp_path):
    """A model trained on one world meets the opposite one."""
    module = Module()
    trainer(tmp_path, max_epochs=30).fit(module, loader())
    losses = {}
    for name, callback in (("on", IncrementalTraining(0.05)), ("off", IncrementalTraining(0.05, enabled=False))):
        test = run(tmp_path, module, callback, DataLoader(rows(400, flipped=True), BATCH))
        losses[name] = test.callback_metrics["test_loss"].item()
    assert losses["on"] < 0.7 * losses["off"]


def test_switched_off_it_does_nothing(tmp_path):
    modules = [Module(), Module()]
    run(tmp_path, modules[0], IncrementalTraining(0.1, enabled=False))
    trainer(tmp_path).test(modules[1], loader(), verbose=False)
    assert all(torch.equal(one, two) for one, two in zip(modules[0].given, modules[1].given, strict=True))


def test_a_loss_of_ones_own(tmp_path):
    def loss(module, batch):
        return F.mse_loss(module(batch[0]).sigmoid(), batch[1])

    class Manual(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    module = Manual()
    run(tmp_path, module, IncrementalTraining(0.01, loss_fn=loss))
    assert not torch.allclose(module.given[-1], Module().eval()(rows().tensors[0][-BATCH:]).sigmoid(), atol=1e-4)
    assert module.modes == []
    with pytest.raises(MisconfigurationException, match="loss_fn"):
        run(tmp_path, Manual(), IncrementalTraining(0.01))


@pytest.mark.parametrize("signature", ["batch", "star", "none"])
def test_training_steps_of_other_shapes(signature, tmp_path):
    class Other(Module):
        if signature == "batch":

            def training_step(self, batch):
                return F.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

        elif signature == "star":

            def training_step(self, *args):
                return super().training_step(*args)

        else:

            def training_step(self, batch, batch_idx):
                return None

    module, expected = Other(), by_hand(Module(), 0.01)
    run(tmp_path, module, IncrementalTraining(0.01))
    moved = not torch.allclose(module.given[-1], Module().eval()(rows().tensors[0][-BATCH:]).sigmoid(), atol=1e-4)
    assert moved == (signature != "none")
    if moved:
        torch.testing.assert_close(module.given[-1], expected[-1], rtol=0, atol=1e-6)


def test_a_trainer_and_module_of_pytorch_lightning(tmp_path):
    module = make(pytorch_lightning.LightningModule)()
    run(tmp_path, module, IncrementalTraining(0.01), trainer_class=pytorch_lightning.Trainer)
    expected = by_hand(Module(), 0.01)
    torch.testing.assert_close(module.given[-1], expected[-1], rtol=0, atol=1e-6)


def test_bf16_and_limits(tmp_path):
    module, callback = Module(), IncrementalTraining(0.01)
    run(tmp_path, module, callback, precision="bf16-mixed", limit_test_batches=4)
    assert callback.updates == 4
    assert module.given[-1].isfinite().all()
    run(tmp_path, Module(), callback, fast_dev_run=True)
    assert callback.updates == 1


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
@pytest.mark.parametrize("restore", [True, False])
def test_two_processes_learn_what_one_learns_from_their_joint_batches(restore, tmp_path):
    options = {"strategy": "ddp_fork", "devices": 2}
    callback = IncrementalTraining(0.01, delay=1, restore_weights=restore)
    run(tmp_path, Module(str(tmp_path / "rank")), callback, loader(BATCH // 2), **options)
    alone = Module()
    run(tmp_path, alone, IncrementalTraining(0.01, delay=1))
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for expected, one, two in zip(alone.given, *ranks, strict=True):
        joint = torch.tensor([one, two]).T.flatten()
        torch.testing.assert_close(joint, expected, rtol=0, atol=1e-6)


class Uneven(DataLoader):
    """Another number of batches on each rank; its sampler is its own business."""

    def __len__(self):
        return 2 + torch.distributed.get_rank()


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
def test_ranks_with_unequal_batches_are_refused(tmp_path):
    data = Uneven(rows(), 5)
    options = {"strategy": "ddp_fork", "devices": 2, "use_distributed_sampler": False}
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match=r"test batches.*\[2.0, 3.0\]"):
        run(tmp_path, Module(), IncrementalTraining(0.01), data, **options)


def test_nothing_to_train(tmp_path):
    module = Module().requires_grad_(requires_grad=False)
    with pytest.raises(MisconfigurationException, match="trainable parameters"):
        run(tmp_path, module, IncrementalTraining(0.01))


@pytest.mark.parametrize(("name", "words"), [("FSDPStrategy", "strategy"), ("DeepSpeedStrategy", "strategy")])
def test_sharded_weights_are_refused(name, words, tmp_path):
    test = trainer(tmp_path)
    vars(test)["_accelerator_connector"].strategy = type(name, (), {})()
    with pytest.raises(MisconfigurationException, match=words):
        IncrementalTraining().setup(test, Module(), "test")


def test_state_is_plain_and_two_rates_have_two_keys(tmp_path):
    callback = IncrementalTraining(0.01)
    run(tmp_path, Module(), callback)
    state = callback.state_dict()
    check_plain(state)
    assert state == {"version": 1, "updates": 6}
    other = IncrementalTraining(0.02)
    assert other.state_key != callback.state_key
    other.load_state_dict(state)
    assert other.updates == 6
    with pytest.raises(ValueError, match="version"):
        other.load_state_dict({"version": 2, "updates": 0})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"learning_rate": 0}, ValueError),
        ({"learning_rate": "fast"}, TypeError),
        ({"optimizer": "lion"}, ValueError),
        ({"delay": -1}, ValueError),
        ({"update_every_n_batches": 0}, ValueError),
        ({"loss_fn": "mse"}, TypeError),
        ({"restore_weights": 1}, TypeError),
        ({"enabled": "no"}, TypeError),
    ],
)
def test_bad_arguments_are_refused(options, error):
    with pytest.raises(error, match=next(iter(options))):
        IncrementalTraining(**options)
