"""The README can be acted on: every block of code in it runs as printed, with smaller numbers, on foreign parts."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

import lightning_adapt
from lightning_adapt import cli
from tests.contracts import support
from tests.contracts.cli_parts import FOREIGN
from tests.contracts.test_configs import MAIN, MODULE, TRAINER
from tests.divconq.entries import tuning
from tests.divconq.instruction_parts import pairs, tiny
from tests.foreign import ForeignData, ForeignModule, loader
from tests.foreign_clicks import ForeignClicks, click_stream
from tests.foreign_images import images
from tests.lina_speech import tune_parts

README = (support.ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
DATA = """
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader


class Images(LightningDataModule):
    def train_dataloader(self):
        import torch

        return DataLoader(torch.utils.data.TensorDataset(torch.ones(200, 4)), 4, shuffle=True)
"""
SMALLER = {  # what is changed in a block before it runs; all of it must be there
    "RS2Callback": {"max_epochs=200": "max_epochs=2"},
    "ErrorMemoryCallback": {},
    "SAADataModule": {
        "max_epochs=100": "max_epochs=1, limit_train_batches=4",
        '"wrn-28-2"': '"cnn", n_classes=2, channels=1',
    },
    "DiversitySelectionCallback": {"max_epochs=5": "max_epochs=3"},
    "TextSpeechDataModule": {
        '"60m"': '"tiny", codebook_size=24, max_seconds=0.3, n_audio_samples=0',
        '"LJSpeech-1.1/metadata.csv"': '"LJSpeech-1.1/metadata.csv", codebook_size=24, progress=False',
        "max_steps=100_000": "max_steps=2",
    },
    "InitialStateTuning": {"max_steps=200": "max_steps=2", "val_check_interval=10": "val_check_interval=1"},
    "rs2_loader": {"range(200)": "range(2)"},
}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def python_of(name: str) -> str:
    """The one block of Python that imports a name, made smaller."""
    (block,) = [text for kind, text in BLOCKS if kind == "python" and re.search(rf"import .*\b{name}\b", text)]
    for text, smaller in SMALLER[name].items():
        assert block.count(text) == 1, f"{name}: {text}"
        block = block.replace(text, smaller)
    return block


def run(name: str, **theirs: Any) -> dict[str, Any]:
    """Run a block with `L` and what the reader is said to have; returns the names it leaves."""
    quiet = partial(Trainer, accelerator="cpu", num_sanity_val_steps=0, **QUIET)
    names = {"L": SimpleNamespace(Trainer=quiet), **theirs}
    exec(python_of(name), names)
    return names


def bash(text: str) -> list[int]:
    """Run lines of `lightning-adapt ...` and `python main.py ...` in this process."""
    codes = []
    for line in text.strip().splitlines():
        command, _, target = line.partition(" > ")
        program, *arguments = shlex.split(command)
        with pytest.MonkeyPatch.context() as patch, Path(target or "out.txt").open("w") as file:
            patch.setattr(sys, "stdout", file)
            if program == "lightning-adapt":
                codes.append(cli.main(arguments))
            else:
                assert (program, arguments[0]) == ("python", "main.py"), line
                patch.setattr(sys, "argv", arguments)
                runpy.run_path("main.py", run_name="__main__")
                codes.append(0)
    return codes


def bash_with(text: str) -> str:
    """The one block of commands that has a text in it."""
    (block,) = [block for kind, block in BLOCKS if kind == "bash" and text in block]
    return block


def test_every_block_is_run_here_or_in_ci():
    python = [text for kind, text in BLOCKS if kind == "python"]
    assert len(python) == len(SMALLER)
    for name in SMALLER:
        assert python_of(name)
    commands = [text for kind, text in BLOCKS if kind == "bash"]
    here = ("select --data", "speak --checkpoint last.ckpt --text", "tune-voice", "overlay rs2", "my_module.Net")
    in_ci = [text for text in commands if text.startswith("pip install")]
    assert {bash_with(text) for text in here} | set(in_ci) == set(commands)
    assert all(text.strip() in (support.ROOT / ".ci/run").read_text() for text in in_ci)


@pytest.mark.parametrize("name", list(SMALLER)[:5])
def test_a_recipe_is_three_lines(name):
    (block,) = [text for kind, text in BLOCKS if kind == "python" and re.search(rf"import .*\b{name}\b", text)]
    lines = [line for line in block.splitlines() if line and not line.startswith(("for ", "    "))]
    assert len(lines) == 3


# -- recipes -----------------------------------------------------------------------------------------------------------
def test_rs2_takes_a_tenth():
    model = ForeignModule()
    run("RS2Callback", model=model, data=ForeignData())
    assert {len([rows for epoch, rows in model.seen if epoch == number]) for number in (0, 1)} == {1}  # of 14 batches


def test_the_memory_learns_while_it_is_tested():
    left = run("ErrorMemoryCallback", clicks=ForeignClicks(), stream=click_stream(n=64))
    (callback,) = [one for one in left["trainer"].callbacks if isinstance(one, lightning_adapt.ErrorMemoryCallback)]
    assert int(callback.memory.n_written) == 64


def test_few_labels():
    left = run("SAADataModule", images=images(80), val_images=images(16))
    assert left["trainer"].global_step > 0
    assert "val_accuracy" in " ".join(left["trainer"].callback_metrics)


def test_selection_chooses_five_percent():
    chats = lightning_adapt.InstructionDataModule(pairs(240), tiny()[1], batch_size=4)
    left = run("DiversitySelectionCallback", chat_model=tuning(), chats=chats)
    (callback,) = [
        one for one in left["trainer"].callbacks if isinstance(one, lightning_adapt.DiversitySelectionCallback)
    ]
    assert len(callback.selection.rows) == 12


@pytest.fixture
def base() -> Any:
    """The module of the recipe, trained by it for two steps; its checkpoint is last.ckpt."""
    rows = tune_parts.recorded(10, folder="LJSpeech-1.1/wavs")
    lines = [f"{Path(path).stem}|{text}|{text}\n" for path, text, _ in rows]
    Path("LJSpeech-1.1/metadata.csv").write_text("".join(lines))
    speaker = run("TextSpeechDataModule")["speaker"]
    speaker.trainer.save_checkpoint("last.ckpt")
    return speaker


@pytest.mark.filterwarnings("ignore::UserWarning")  # on how little the recordings and the steps are
def test_speech_a_voice_and_their_commands(base):
    tune_parts.manifest("anna.csv", tune_parts.recorded(10, folder="anna"))
    left = run("InitialStateTuning", speaker=base, TextSpeechDataModule=lightning_adapt.TextSpeechDataModule)
    assert left["tuning"].tuned.rank == 4
    assert Path("anna.safetensors").exists()
    assert bash(bash_with("speak --checkpoint last.ckpt --text")) == [0]
    assert Path("morning.wav").stat().st_size > 44
    Path("anna.safetensors").unlink()
    tune, speak = bash_with("tune-voice").strip().splitlines()
    assert bash(f"{tune} --steps 2\n{speak}") == [0, 0]


# -- the rest ----------------------------------------------------------------------------------------------------------
def test_plain_pytorch():
    left = run("rs2_loader", loader=loader())
    assert len(left["batch"][0]) > 0
    assert left["loader"].sampler.epoch == 1


def test_select_on_a_file():
    rows = [f'{{"prompt": "what is {number}", "response": "it is {number * 7}"}}\n' for number in range(60)]
    Path("pool.jsonl").write_text("".join(rows))
    assert bash(bash_with("select --data")) == [0]
    assert len(Path("chosen.jsonl").read_text().splitlines()) == 3


@pytest.mark.filterwarnings("ignore:No seed found:UserWarning")
def test_yaml_and_the_command_line(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6.6 calls what jsonargparse renamed
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("their_module.py").write_text(MODULE)
    Path("main.py").write_text(MAIN)
    Path("my_module.py").write_text(FOREIGN)
    Path("my_data.py").write_text(DATA)
    Path("mine.yaml").write_text(yaml.safe_dump({"trainer": TRAINER}))
    try:
        assert bash(bash_with("overlay rs2")) == [0, 0]
        assert yaml.safe_load(Path("run.json").read_text())["steps"] == 2 * 20  # a tenth of 200 batches
        quiet = " ".join(f"--trainer.{name}={str(value).lower()}" for name, value in TRAINER.items())
        assert bash(f"{bash_with('my_module.Net').strip()} {quiet}") == [0]
        assert Path("rows.txt").read_text() == "40"  # two epochs of a tenth of 200 rows
    finally:
        for name in ("their_module", "my_module", "my_data"):
            sys.modules.pop(name, None)


def test_tables_name_every_method_and_every_public_name():
    for method in lightning_adapt.METHODS:
        assert f"](lightning_adapt/{method}/README.md)" in README
    ships = README[README.index("## What is in the package") :]
    missing = [name for name in lightning_adapt.__all__ if f"`{name}`" not in ships]
    assert not missing


def test_the_support_table_is_that_of_the_cards():
    assert support.between(README, "support") == support.rendered(), "python -m tests.contracts.support writes it"


def test_a_card_without_an_answer_would_be_noticed():
    with pytest.raises(AssertionError, match="0 rows of its support table start with 'MPS'"):
        support.short("rs2", 0, "MPS")
    with pytest.raises(AssertionError, match="0 pairs of the markers"):
        support.between(README.replace("<!-- matrix: end -->", ""), "matrix")


def test_the_other_tables_have_their_places():
    assert [support.between(README, name) is not None for name in ("compose", "matrix")] == [True, True]
