"""Every config that ships: the demos run as they are, the overlays stack on a stranger's own CLI and YAML."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

import lightning_adapt
from lightning_adapt import cli

pytestmark = [
    pytest.mark.filterwarnings("ignore:No seed found:UserWarning"),
    # the foreign module has no views that could be regrouped
    pytest.mark.filterwarnings("ignore:SampleAdaptiveAugmentation flags samples, but nothing asks:UserWarning"),
]

CONFIGS = Path(lightning_adapt.__file__).parents[1] / "configs"
DEMOS = sorted(CONFIGS.glob("*/demo.yaml"))
OVERLAYS = sorted(CONFIGS.glob("*/overlay.yaml"))
# those that add callbacks to any run; what brings a module and data instead is tested with its method
STACKED = [path for path in OVERLAYS if "callbacks+:" in path.read_text()]

MODULE = """
import json

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader


class TheirNet(LightningModule):
    def __init__(self, width: int = 4):
        super().__init__()
        self.layer = torch.nn.Linear(width, 1)
        self.width, self.steps = width, 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        losses = self.layer(batch["x"]).square().flatten()
        return {"loss": losses.mean(), "sample_loss": losses.detach(), "index": batch["index"]}

    def train_dataloader(self):
        x, words = torch.ones(self.width), ["sum", "town", "tree"]
        rows = [
            {"x": x, "index": row, "prompt": f"{words[row % 3]} {row}", "response": words[row % 3]}
            for row in range(800)
        ]
        return DataLoader(rows, 4, shuffle=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def on_train_end(self):
        with open("run.json", "w") as file:
            names = [type(callback).__name__ for callback in self.trainer.callbacks]
            json.dump({"steps": self.steps, "callbacks": names}, file)
"""
MAIN = """
from lightning.pytorch.cli import LightningCLI
from their_module import TheirNet

if __name__ == "__main__":
    LightningCLI(TheirNet)
"""
TRAINER = {
    "max_epochs": 2,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
THEIR_CALLBACK = {
    "class_path": "lightning.pytorch.callbacks.GradientAccumulationScheduler",
    "init_args": {"scheduling": {0: 1}},
}
THEIRS = {
    "none": {},
    "null": {"callbacks": None},
    "one": {"callbacks": THEIR_CALLBACK},
    "list": {"callbacks": [THEIR_CALLBACK]},
}


@pytest.fixture(autouse=True)
def _quiet_jsonargparse(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6.6 calls what jsonargparse renamed


@pytest.fixture
def _their_code(tmp_path, monkeypatch):
    (tmp_path / "their_module.py").write_text(MODULE)
    (tmp_path / "main.py").write_text(MAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("their_module", None)


def their_config(callbacks: dict[str, object]) -> str:
    config = {"seed_everything": 0, "trainer": {**TRAINER, **callbacks}, "model": {"width": 3}}
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    return "mine.yaml"


def shipped_callbacks(path: Path) -> set[str]:
    callbacks = yaml.safe_load(path.read_text())["trainer"]["callbacks+"]
    return {callback["class_path"].rsplit(".", 1)[-1] for callback in callbacks}


@pytest.mark.parametrize("path", DEMOS, ids=lambda path: path.parent.name)
def test_each_demo_runs_and_leaves_nothing_behind(path):
    pytest.importorskip("sklearn")
    assert cli.main(["fit", "--config", str(path), "--trainer.enable_progress_bar=false"]) == 0
    root = yaml.safe_load(path.read_text())["trainer"]["default_root_dir"]
    assert [file.as_posix() for file in Path().rglob("*") if file.is_file()] == [f"{root}/lightning_adapt_config.yaml"]


@pytest.mark.parametrize("path", STACKED, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("theirs", THEIRS)
@pytest.mark.usefixtures("_their_code")
def test_each_overlay_stacks_on_a_foreign_cli(path, theirs, monkeypatch):
    net = importlib.import_module("their_module").TheirNet
    monkeypatch.setattr(
        sys, "argv", ["main.py", "fit", "--config", their_config(THEIRS[theirs]), "--config", str(path)]
    )
    LightningCLI(net, save_config_callback=None)
    names = json.loads(Path("run.json").read_text())["callbacks"]
    assert shipped_callbacks(path) <= set(names)
    assert ("GradientAccumulationScheduler" in names) == (theirs in ("one", "list"))


@pytest.mark.parametrize("path", STACKED, ids=lambda path: path.parent.name)
@pytest.mark.usefixtures("_their_code")
def test_each_overlay_stacks_on_our_command(path):
    mine = their_config({"callbacks": [THEIR_CALLBACK]})
    assert cli.main(["fit", "--model=their_module.TheirNet", "--config", mine, "--config", str(path)]) == 0
    assert shipped_callbacks(path) | {"GradientAccumulationScheduler"} <= set(
        json.loads(Path("run.json").read_text())["callbacks"]
    )


@pytest.mark.usefixtures("_their_code")
def test_all_overlays_through_a_real_main():
    """In a process of its own: nothing has imported lightning_adapt when the overlay is read."""
    stack = [part for path in STACKED for part in ("--config", str(path))]
    command = [sys.executable, "main.py", "fit", "--config", their_config({"callbacks": [THEIR_CALLBACK]}), *stack]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = json.loads(Path("run.json").read_text())["callbacks"]
    assert {"GradientAccumulationScheduler"}.union(*map(shipped_callbacks, STACKED)) <= set(names)


@pytest.mark.parametrize("path", STACKED, ids=lambda path: path.parent.name)
def test_each_overlay_holds_the_defaults(path):
    """Stacking an overlay as printed is the same as the callback without arguments."""
    for callback in yaml.safe_load(path.read_text())["trainer"]["callbacks+"]:
        cls = getattr(lightning_adapt, callback["class_path"].rsplit(".", 1)[-1])
        defaults = {name: value.default for name, value in inspect.signature(cls).parameters.items()}
        required = {name for name, value in defaults.items() if value is inspect.Parameter.empty}
        assert required <= set(callback["init_args"])
        defaults |= {name: callback["init_args"][name] for name in required}
        # YAML knows no tuples
        defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
        assert callback["init_args"] == defaults
