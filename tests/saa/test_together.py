"""Module, data, selection and averaged weights in one run: what is resumed ends as the run that was never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment

from lightning_adapt import FlexMatchModule
from tests.foreign import trainer
from tests.foreign_images import ForeignFixMatch
from tests.saa.entries import data, selection
from tests.saa.test_datamodule import own_transforms

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")

N_EPOCHS = 8  # of 4 steps; in the first 3 no sample comes twice, so that none is flagged when it comes
STEPS = {"middle": 18, "end": 20, "validation": 24}


def checkpoints(folder: Path) -> list[Callback]:
    saves: dict[str, dict[str, Any]] = {
        "middle": {"every_n_train_steps": 18},
        "end": {"every_n_epochs": 5, "save_on_train_epoch_end": True},
        "validation": {"every_n_epochs": 6, "save_on_train_epoch_end": False},
    }
    return [ModelCheckpoint(folder, name + "-{step}", save_top_k=-1, **when) for name, when in saves.items()]


class Ends(Callback):
    """Writes down what there is when training ends, of each rank, and all that a checkpoint holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        if trainer.current_epoch + 1 < trainer.max_epochs:  # later, the module has its averaged weights
            return
        (saa,) = [one for one in trainer.callbacks if type(one).__name__ == "SampleAdaptiveAugmentation"]
        trainer.save_checkpoint(f"{self.path}.ckpt")  # with the averaged weights and the others
        learning = pl_module.learning.state_dict() if isinstance(pl_module, FlexMatchModule) else None
        found = {"weights": pl_module.state_dict(), "saa": saa.state_dict(), "learning": learning}
        torch.save({**found, "shares": pl_module.shares}, f"{self.path}-rank{trainer.global_rank}.pt")


class Shares:
    """Notes how many views of each step are regrouped."""

    def training_step(self, batch, batch_idx):
        self.shares = [*getattr(self, "shares", []), int(batch["unlabeled"]["regrouped"].sum())]
        return super().training_step(batch, batch_idx)


class OurModule(Shares, FlexMatchModule):
    pass


class OtherModule(Shares, ForeignFixMatch):
    pass


def ours(seed: int) -> tuple[Any, Any, list[Callback]]:
    torch.manual_seed(seed)
    module = OurModule("cnn", n_classes=2, channels=1, threshold=0.6, ema_decay=0.9)
    return module, data(), [selection()]


def others(seed: int) -> tuple[Any, Any, list[Callback]]:
    """A module and transforms of somebody's; the transforms run in workers, and so do the flags."""
    module = OtherModule()
    if seed:
        for value in module.parameters():
            torch.nn.init.ones_(value)
    return module, own_transforms(2), [selection(), EMAWeightAveraging(decay=0.9)]


def train(build, folder: Path, name: str, *, seed: int = 0, ckpt: Path | None = None, ranks: int = 1) -> None:
    module, made, callbacks = build(seed)
    callbacks += [Ends(folder / name), *([] if ckpt else checkpoints(folder))]
    options = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]} if ranks > 1 else {}
    plain = True if ckpt else None
    running = trainer(folder, callbacks, max_epochs=N_EPOCHS, **options)
    running.fit(module, datamodule=made, ckpt_path=ckpt, weights_only=plain)


def saved(folder: Path, stop: str) -> Path:
    """The checkpoint of a stop, which is where it should be."""
    path = folder / f"{stop}-step={STEPS[stop]}.ckpt"
    epoch = {"middle": 4, "end": 4, "validation": 5}[stop]
    content = torch.load(path, weights_only=True)
    assert (content["global_step"], content["epoch"]) == (STEPS[stop], epoch)
    return path


def bits(state: Any) -> Any:
    """A nested state as something that is equal only if all bits are, NaN among them."""
    if isinstance(state, torch.Tensor):
        return str(state.dtype), tuple(state.shape), state.numpy().tobytes()
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [bits(value) for value in state]
    return repr(state)


def at_end(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"{name}-rank{rank}.pt", weights_only=True)
    return found


def checkpoint_at_end(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / f"{name}.ckpt", weights_only=True)
    del content["loops"]  # a resumed epoch counts its batches in another way
    content["callbacks"] = {key: value for key, value in content["callbacks"].items() if "ModelCheckpoint" not in key}
    return content


def check(folder: Path, name: str, done: int, ranks: int = 1) -> None:
    """Compare a resumed run with the whole one."""
    for rank in range(ranks):
        whole, resumed = at_end(folder, "whole", rank), at_end(folder, name, rank)
        assert resumed.pop("shares") == whole.pop("shares")[done:]
        assert set(resumed) == {"weights", "saa", "learning"}
        for part, value in resumed.items():
            assert bits(value) == bits(whole[part]), (part, rank)
    whole, resumed = checkpoint_at_end(folder, "whole"), checkpoint_at_end(folder, name)
    assert list(resumed) == list(whole)
    for part, value in resumed.items():
        assert bits(value) == bits(whole[part]), part


def check_work(folder: Path) -> None:
    """See that there was something to get wrong: flags, averages, and thresholds where they are ours."""
    found, content = at_end(folder, "whole"), checkpoint_at_end(folder, "whole")
    assert len(found["saa"]["curve"]) == N_EPOCHS
    assert found["shares"][:4] == [0] * 4
    assert all(any(found["shares"][first : first + 4]) for first in range(16, 4 * N_EPOCHS, 4))
    assert bits(content["state_dict"]) != bits(content["current_model_state"])
    if found["learning"] is not None:
        assert set(found["learning"]["labels"].tolist()) >= {0, 1}
        assert bits(content["lightning_adapt_class_learning"]) == bits(found["learning"])


@pytest.mark.parametrize("build", [ours, others], ids=["ours", "others"])
def test_a_resumed_run_is_the_same_to_the_bit(build, tmp_path):
    train(build, tmp_path, "whole")
    check_work(tmp_path)
    for stop, done in STEPS.items():
        train(build, tmp_path, f"from {stop}", seed=1, ckpt=saved(tmp_path, stop))
        check(tmp_path, f"from {stop}", done)


@pytest.mark.parametrize(
    ("build", "stop"), [(ours, "validation"), (others, "middle")], ids=["ours-validation", "others-middle"]
)
def test_so_it_is_in_two_processes(build, stop, tmp_path):
    train(build, tmp_path, "whole", ranks=2)
    check_work(tmp_path)
    train(build, tmp_path, "resumed", seed=1, ckpt=saved(tmp_path, stop), ranks=2)
    check(tmp_path, "resumed", STEPS[stop], ranks=2)
    flags = [at_end(tmp_path, "resumed", rank)["saa"]["history"]["flags"] for rank in range(2)]
    assert torch.equal(*flags)
