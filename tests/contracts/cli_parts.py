"""What the tests of the command line share: a stranger's module, quiet arguments, and how to read an error."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import yaml

from lightning_adapt import cli

FOREIGN = """
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, TensorDataset


class Net(LightningModule):
    def __init__(self, width: int = 4, rate: float = 0.1):
        super().__init__()
        if width < 1:
            raise ValueError("width is too small")
        self.layer = torch.nn.Linear(width, 1)
        self.width, self.rate = width, rate
        self.rows = 0

    def training_step(self, batch, batch_idx):
        self.rows += len(batch[0])
        return self.layer(batch[0]).square().mean()

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(40, self.width)), 4, shuffle=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)

    def on_train_end(self):
        with open("rows.txt", "w") as file:
            file.write(str(self.rows))


class NoModule:
    pass
"""
QUIET = [
    "--seed_everything=0",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=2",
]
NET = ["--model", "my_module.Net", *QUIET]
RS2 = ["--trainer.callbacks", "RS2Callback"]


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A stranger's module in the current directory, and no trace of it afterwards."""
    (tmp_path / "my_module.py").write_text(FOREIGN)
    (tmp_path / "broken_module.py").write_text("def x(:\n")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6.6 calls what jsonargparse renamed
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(Path.cwd()))])
    importlib.invalidate_caches()
    yield
    sys.modules.pop("my_module", None)


def write(name: str, content: object) -> str:
    Path(name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return name


def overlay(name: str = "rs2.yaml", **arguments: object) -> str:
    callback = {"class_path": "lightning_adapt.RS2Callback", "init_args": arguments}
    return write(name, {"trainer": {"callbacks+": [callback]}})


def last_line(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any(line.startswith("Traceback") for line in lines)
    return lines[-1]


def fails(args: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 2
    return last_line(capsys)
