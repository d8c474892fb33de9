"""The recipes in configs/saa: the command line takes them, and they are what they say; nothing is fetched."""

from __future__ import annotations

import math

import pytest
import torch
import yaml

from lightning_adapt import cli
from tests.contracts.test_configs import CONFIGS

torchvision = pytest.importorskip("torchvision")

SAA = CONFIGS / "saa"
COLOURS = {  # of bytes
    "cifar10": {"mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7)},
    "cifar100": {"mean": (129.3, 124.1, 112.4), "std": (68.2, 65.4, 70.4)},
}


@pytest.fixture(autouse=True)
def _quiet_jsonargparse(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6.6 calls what jsonargparse renamed


def _read(name):
    return yaml.safe_load((SAA / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "resnet"])
def test_the_command_line_takes_it_whole(name, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["fit", "--config", str(SAA / f"{name}.yaml"), "--print_config"])
    assert done.value.code in (0, None)
    printed, wanted = yaml.safe_load(capsys.readouterr().out), _read(name)
    for part in ("model", "data"):
        assert printed[part]["class_path"] == wanted[part]["class_path"]
        for key, value in wanted[part]["init_args"].items():
            held = printed[part]["init_args"][key]
            if isinstance(value, dict):  # an object: ours are its arguments, the defaults are printed beside them
                assert held["class_path"] == value["class_path"]
                assert value["init_args"].items() <= held["init_args"].items()
            else:
                assert held == value


@pytest.mark.parametrize(
    ("name", "backbone", "classes", "decay"), [("cifar10", "wrn-28-2", 10, 5e-4), ("cifar100", "wrn-28-8", 100, 1e-3)]
)
def test_the_recipe_is_the_papers(name, backbone, classes, decay):
    config = _read(name)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert config["trainer"]["max_epochs"] * data["steps_per_epoch"] == 2**20
    assert (data["batch_size"], data["mu"]) == (64, 7)
    assert (model["backbone"], model["n_classes"], model["weight_decay"]) == (backbone, classes, decay)
    assert (model["threshold"], model["learning_rate"], model["ema_decay"]) == (0.95, 0.03, 0.999)
    saa = config["trainer"]["callbacks"][0]["init_args"]
    assert saa["warmup"] == 402 * data["steps_per_epoch"]  # the authors' first selection
    for key, values in COLOURS[name].items():
        assert data[key] == pytest.approx([value / 255 for value in values], abs=6e-5)


class _Pictures(torch.utils.data.Dataset):
    """Stands in for a data set of torchvision: noisy blocks of one colour per class, as PIL images."""

    def __init__(self, root: str, split: str = "train", train: bool = True, download: bool = False):
        self.n = {"train": 30, "train+unlabeled": 60, "test": 20}[split] if train else 20

    def __len__(self):
        return self.n

    def __getitem__(self, row):
        from PIL import Image

        generator = torch.Generator().manual_seed(row)
        pixels = torch.randint(64, (32, 32, 3), generator=generator, dtype=torch.uint8)
        pixels[..., row % 3] += 19 * (row % 10)
        return Image.fromarray(pixels.numpy()), row % 10


def _shortened(name, folder, monkeypatch):
    """Return the file that makes a recipe short enough to run here."""
    for dataset in ("CIFAR10", "CIFAR100", "STL10"):
        monkeypatch.setattr(torchvision.datasets, dataset, _Pictures)
    small = {
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "check_val_every_n_epoch": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks+": [{"class_path": f"found_{name}.Found"}],
        },
        "model": {"init_args": {"n_classes": 10, **({} if name == "resnet" else {"backbone": "cnn"})}},
        "data": {
            "init_args": {
                "n_labels": 10,
                "batch_size": 2,
                "mu": 2,
                "steps_per_epoch": 2,
                "num_workers": 0,
                "pin_memory": False,
            }
        },
    }
    (folder / f"found_{name}.py").write_text(FOUND)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    return str(folder / "small.yaml")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "resnet"])
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
@pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval:UserWarning")
def test_the_recipe_trains_on_made_up_pictures_and_its_second_command_goes_on(name, monkeypatch, tmp_path):
    command = ["fit", "--config", str(SAA / f"{name}.yaml"), "--config", _shortened(name, tmp_path, monkeypatch)]
    assert cli.main(command) == 0
    found = yaml.safe_load((tmp_path / "found.yaml").read_text())
    assert (found["started_at"], found["steps"]) == (0, 2)
    assert found["backbone"] == ("ResNet" if name == "resnet" else "SmallCNN")
    assert math.isfinite(found["loss"])
    assert found["unlabeled"] == (60 if name == "resnet" else 30)
    again = (SAA / f"{name}.yaml").read_text().split("--ckpt_path ")[1].split()[0]
    assert cli.main([*command, "--trainer.max_epochs", "2", "--ckpt_path", again]) == 0
    found = yaml.safe_load((tmp_path / "found.yaml").read_text())
    assert (found["started_at"], found["steps"]) == (2, 4)
    assert found["batches"] == 4, "the callback goes on, too"


FOUND = """
from pathlib import Path

import yaml
from lightning.pytorch import Callback


class Found(Callback):
    def on_train_start(self, trainer, pl_module):
        self.started_at = trainer.global_step

    def on_train_end(self, trainer, pl_module):
        (saa,) = [one for one in trainer.callbacks if type(one).__name__ == "SampleAdaptiveAugmentation"]
        found = {
            "started_at": self.started_at,
            "steps": trainer.global_step,
            "batches": saa.selection.batches,
            "backbone": type(pl_module.backbone).__name__,
            "loss": float(trainer.callback_metrics["train_loss"]),
            "unlabeled": trainer.datamodule.n_unlabeled,
        }
        (Path(__file__).parent / "found.yaml").write_text(yaml.safe_dump(found))
"""
