"""Overlays stacked on a stranger's module by their own LightningCLI and by our command: the run that Python gives."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.cli import LightningCLI

from lightning_adapt import (
    DiversitySelectionCallback,
    ErrorMemoryCallback,
    RS2Callback,
    SampleAdaptiveAugmentation,
    cli,
)

MODULE = """
import json

import torch
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import DataLoader


class Writes(Callback):
    def on_train_start(self, trainer, pl_module):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append([trainer.current_epoch, batch["index"].tolist()])

    def on_train_end(self, trainer, pl_module):
        weights = [value.flatten().tolist() for value in pl_module.state_dict().values()]
        with open("run.json", "w") as file:
            json.dump({"seen": self.seen, "weights": weights}, file)


class TheirNet(LightningModule):
    def __init__(self, width: int = 3):
        super().__init__()
        self.layer = torch.nn.Linear(width, 1)
        self.width = width

    def training_step(self, batch, batch_idx):
        (saa,) = [one for one in self.trainer.callbacks if hasattr(one, "flagged")]
        x = torch.where(saa.flagged(batch["index"])[:, None], 1.1 * batch["x"], batch["x"])
        losses = self.layer(x).square().flatten()
        return {"loss": losses.mean(), "sample_loss": losses.detach(), "index": batch["index"]}

    def train_dataloader(self):
        numbers = torch.randn(96, self.width, generator=torch.Generator().manual_seed(0))
        words = ["sum", "town", "tree"]
        rows = [
            {"x": numbers[row], "index": row, "prompt": f"{words[row % 3]} {row}", "response": words[row % 3]}
            for row in range(96)
        ]
        return DataLoader(rows, 4, shuffle=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""
TRAINER = {"max_epochs": 4, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
TRAINER |= {"enable_progress_bar": False, "enable_model_summary": False}
SETTINGS = {  # what a user writes over the defaults of an overlay
    "divconq": {"budget: 5%": "budget: 48", "k: auto": "k: 3", "engine: auto": "engine: torch"},
    "rs2": {"ratio: 0.1": "ratio: 0.5", "mode: without": "mode: loss", "warm_rounds: 0.25": "warm_rounds: 1"},
    "saa": {
        "threshold: otsu ": "threshold: quantile:0.5 ",
        "warmup: 0.1": "warmup: 0",
        "coverage: 0.95": "coverage: 0.2",
    },
    "reloop2": {},
}


@pytest.fixture(autouse=True)
def _their_code(tmp_path, monkeypatch):
    (tmp_path / "their_stack.py").write_text(MODULE)
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6.6 calls what jsonargparse renamed
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("their_stack", None)


def overlays(capsys, order) -> list[str]:
    """Overlays as `lightning-adapt overlay` prints them, edited; as arguments of a command."""
    found = []
    for method in order:
        assert cli.main(["overlay", method]) == 0
        text = capsys.readouterr().out
        for default, mine in SETTINGS[method].items():
            assert text.count(default) == 1, default
            text = text.replace(default, mine)
        Path(f"{method}.yaml").write_text(text)
        found += ["--config", f"{method}.yaml"]
    return found


def mine() -> list[str]:
    callbacks = [{"class_path": "their_stack.Writes"}]
    Path("mine.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "trainer": {**TRAINER, "callbacks": callbacks}}))
    return ["--config", "mine.yaml"]


def written():
    content = json.loads(Path("run.json").read_text())
    Path("run.json").unlink()
    return content


def in_python():
    theirs = importlib.import_module("their_stack")
    seed_everything(0, verbose=False)
    callbacks = [
        theirs.Writes(),
        DiversitySelectionCallback(48, k=3, engine="torch"),
        RS2Callback(0.5, mode="loss", warm_rounds=1),
        SampleAdaptiveAugmentation(threshold="quantile:0.5", warmup=0, min_coverage=0.2),
        ErrorMemoryCallback(),
    ]
    Trainer(**TRAINER, callbacks=callbacks).fit(theirs.TheirNet())
    return written()


def test_four_overlays_give_the_run_that_python_gives(monkeypatch, capsys):
    expected = in_python()
    stacked = overlays(capsys, SETTINGS)
    assert cli.main(["fit", "--model=their_stack.TheirNet", *mine(), *stacked]) == 0
    assert written() == expected
    monkeypatch.setattr(sys, "argv", ["main.py", "fit", *mine(), *stacked])
    LightningCLI(importlib.import_module("their_stack").TheirNet, save_config_callback=None)
    assert written() == expected
    other = overlays(capsys, ["saa", "reloop2", "divconq", "rs2"])
    monkeypatch.setattr(sys, "argv", ["main.py", "fit", *mine(), *other])
    LightningCLI(importlib.import_module("their_stack").TheirNet, save_config_callback=None)
    assert written() == expected, "the order of overlays"


def test_the_one_order_that_cannot_be_ends_in_a_line_that_says_so(capsys):
    stacked = overlays(capsys, ["saa", "rs2", "divconq"])
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "--model=their_stack.TheirNet", *mine(), *stacked])
    assert stop.value.code == 2
    assert "list DiversitySelectionCallback before RS2Callback" in capsys.readouterr().err.strip().splitlines()[-1]


def test_rs2_stacks_on_the_demo_of_speech(capsys):
    """Half of the planned batches in each round: the batches, and so the weights, of ordinary training."""
    demo = Path(cli.__file__).parents[1] / "configs/lina_speech/demo.yaml"
    callback = ["--trainer.callbacks+=their_stack.Writes", "--trainer.max_steps=4"]
    callback += ["--trainer.enable_progress_bar=false"]
    assert cli.main(["fit", "--config", str(demo), *callback]) == 0
    expected = written()
    assert cli.main(["fit", "--config", str(demo), *speech_rounds(capsys), *callback]) == 0
    found = written()
    assert [rows for _, rows in found["seen"]] == [rows for _, rows in expected["seen"]]
    assert max(epoch for epoch, _ in found["seen"]) > max(epoch for epoch, _ in expected["seen"])
    assert found["weights"] == expected["weights"]


def speech_rounds(capsys) -> list[str]:
    assert cli.main(["overlay", "rs2"]) == 0
    Path("rs2.yaml").write_text(capsys.readouterr().out.replace("ratio: 0.1", "ratio: 0.5"))
    return ["--config", "rs2.yaml"]
