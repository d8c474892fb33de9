"""The command line: help, errors of one line, overlays, a foreign module, resume, and life without the extra."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

import lightning_adapt
from lightning_adapt import cli
from lightning_adapt._shared import doctor
from tests.contracts.cli_parts import FOREIGN, NET, QUIET, RS2, fails, foreign, last_line, overlay, write  # noqa: F401 - foreign is a fixture

pytestmark = [pytest.mark.usefixtures("foreign"), pytest.mark.filterwarnings("ignore:No seed found:UserWarning")]


# -- help -------------------------------------------------------------------------------------------------------------
def test_help_lists_every_command_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    own = ["demo", "select", "speak", "tune-voice", "overlay", "doctor"]
    assert [line[0] for line in lines] == ["fit", "validate", "test", "predict", *own]
    assert all(line[1].endswith(".") for line in lines)


@pytest.mark.parametrize("command", [*cli.RUNS, *cli.OWN])
def test_each_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"{command}" in out
    assert "--help" in out
    if command in cli.RUNS:
        assert "--verbose" in out
        assert "default: " in out


def test_version_and_no_arguments(capsys):
    for flag in ("--version", "-V"):
        with pytest.raises(SystemExit) as stop:
            cli.main([flag])
        assert stop.value.code == 0
        assert capsys.readouterr().out == f"lightning-adapt {lightning_adapt.__version__}\n"
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def test_print_config_shows_the_callback_and_can_be_read_again(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", *NET, *RS2, "--trainer.callbacks.ratio=0.25", "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    callback = yaml.safe_load(printed)["trainer"]["callbacks"]
    assert "RS2Callback" in str(callback)
    assert "0.25" in str(callback)
    assert cli.main(["fit", "--config", write("printed.yaml", printed)]) == 0
    assert Path("rows.txt").read_text() == "16"  # 40 rows, 4 to a batch: 8 a round, 2 rounds


# -- runs -------------------------------------------------------------------------------------------------------------
def test_fit_of_a_foreign_module_with_a_short_name():
    assert cli.main(["fit", *NET, *RS2, "--trainer.callbacks.ratio=0.5"]) == 0
    assert Path("rows.txt").read_text() == "40"
    assert cli.main(["fit", *NET]) == 0  # a second run in the same folder
    assert Path("rows.txt").read_text() == "80"


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
def test_resume_from_a_checkpoint_with_our_state():
    """A run continued through `--ckpt_path` ends with the weights of the run that was never interrupted."""
    pytest.importorskip("sklearn")
    common = [
        "fit",
        "--model=lightning_adapt._shared.demo_parts.ImageClassifier",
        "--data=lightning_adapt._shared.demo_parts.ImageDataModule",
        "--config",
        overlay(ratio=0.1, validate=1),
        *[option for option in QUIET if "checkpointing" not in option and "max_epochs" not in option],
        "--trainer.max_epochs=4",
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.save_top_k=-1",
    ]
    assert cli.main([*common, "--trainer.default_root_dir=first"]) == 0
    saved = {path.name.partition("-")[0]: path for path in Path("first").rglob("*.ckpt")}
    assert sorted(saved) == [f"epoch={epoch}" for epoch in range(4)]
    middle, end = (torch.load(saved[f"epoch={epoch}"], weights_only=True) for epoch in (1, 3))
    assert any("RS2Callback" in key for key in middle["callbacks"])
    assert cli.main([*common, "--trainer.default_root_dir=second", f"--ckpt_path={saved['epoch=1']}"]) == 0
    (resumed,) = (torch.load(path, weights_only=True) for path in Path("second").rglob("epoch=3*.ckpt"))
    assert resumed["global_step"] == end["global_step"] == 2 * middle["global_step"]
    assert all(torch.equal(value, end["state_dict"][name]) for name, value in resumed["state_dict"].items())


def test_adapt_cli_in_a_users_own_main(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    from lightning_adapt.cli import AdaptCLI

    assert AdaptCLI is cli.AdaptCLI
    sys.path.insert(0, str(Path.cwd()))
    net = importlib.import_module("my_module").Net
    built = AdaptCLI(net, args=[*QUIET, "--model.width=2", *RS2], run=False, save_config_callback=None)
    assert built.model.width == 2
    assert isinstance(built.trainer.callbacks[0], lightning_adapt.RS2Callback)
    built = AdaptCLI(net, args={"model": {"width": 3}, "seed_everything": 0}, run=False, save_config_callback=None)
    assert built.model.width == 3


def test_the_console_script_finds_modules_in_the_current_directory():
    script = Path(sys.executable).with_name("lightning-adapt")
    done = subprocess.run([script, "fit", *NET, "--model.width=0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == "error: my_module.Net: width is too small"
    assert "Traceback" not in done.stderr


# -- overlays ---------------------------------------------------------------------------------------------------------
OVERLAYS = {method: f"{method}/overlay.yaml" for method in lightning_adapt.METHODS}
OVERLAYS["lina_speech_voice"] = "lina_speech/overlay_voice.yaml"


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_prints_the_file(name, capsys):
    assert cli.main(["overlay", name]) == 0
    printed = capsys.readouterr().out
    assert printed == (Path(lightning_adapt.__file__).parents[1] / "configs" / OVERLAYS[name]).read_text()
    for section in yaml.safe_load(printed).values():  # a callback of ours for a Trainer, or a module, or data
        assert "callbacks+" in section or section["class_path"].startswith("lightning_adapt.")


def test_every_method_has_an_overlay():
    assert set(cli._overlays()) == set(OVERLAYS)


def test_overlays_inside_an_installed_package_come_first(tmp_path, monkeypatch):
    package = tmp_path / "site" / "lightning_adapt"
    (package / "configs" / "x").mkdir(parents=True)
    (package / "configs" / "x" / "overlay.yaml").write_text("a: 1\n")
    (package.parent / "configs" / "stranger").mkdir(parents=True)
    (package.parent / "configs" / "stranger" / "overlay.yaml").write_text("b: 1\n")
    monkeypatch.setattr(lightning_adapt, "__file__", str(package / "__init__.py"))
    assert list(cli._overlays()) == ["x"]


THEIRS = {
    "class_path": "lightning.pytorch.callbacks.GradientAccumulationScheduler",
    "init_args": {"scheduling": {0: 1}},
}


def test_a_later_callbacks_list_is_reported():
    files = ["--config", overlay(), "--config", write("mine.yaml", {"trainer": {"callbacks": [THEIRS]}})]
    with pytest.warns(UserWarning, match=r"`callbacks:` in mine.yaml replaced RS2Callback from rs2.yaml.*Put rs2.yaml"):
        assert cli.main(["fit", *NET, *files]) == 0
    assert Path("rows.txt").read_text() == "80"


def test_null_and_the_command_line_are_reported_too():
    null = write("mine.yaml", {"trainer": {"callbacks": None}})
    with pytest.warns(UserWarning, match="mine.yaml replaced RS2Callback"):
        cli.main(["fit", *NET, "--config", overlay(), "--config", null])
    with pytest.warns(UserWarning, match=r"on the command line replaced RS2Callback from rs2.yaml.*callbacks\+="):
        cli.main(["fit", *NET, f"--config={overlay()}", "--trainer.callbacks", "LambdaCallback"])


def test_the_right_order_is_not_reported():
    mine = write("mine.yaml", {"trainer": {"callbacks": [THEIRS]}})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cli.main(["fit", *NET, "--config", mine, "--config", overlay()])
        more = "--trainer.callbacks+=lightning.pytorch.callbacks.RichProgressBar"
        cli.main(["fit", *NET[:2], *[option for option in QUIET if "progress" not in option], "-c", overlay(), more])
    assert not [each for each in caught if "replaced" in str(each.message)]


# -- installation -----------------------------------------------------------------------------------------------------
def test_without_the_extra_only_the_trainer_commands_are_lost():
    code = (
        "import sys\nsys.modules['jsonargparse'] = None\nfrom lightning_adapt.cli import main\n"
        "assert main(['overlay', 'rs2']) == 0\nassert 'lightning' not in sys.modules and 'torch' not in sys.modules\n"
        "assert main(['doctor']) == 0\nmain(['fit'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: `lightning-adapt fit` needs jsonargparse")
    assert line.endswith('Run: pip install "lightning-adapt[cli]"')
    row = next(line for line in done.stdout.splitlines() if "jsonargparse" in line)
    assert "no" in row.split()
    assert "torchaudio" in done.stdout


def test_an_old_jsonargparse_is_named_too(monkeypatch, capsys):
    from lightning_adapt._shared.imports import EXTRAS, RequirementCache

    monkeypatch.setitem(EXTRAS, "cli", {"jsonargparse": RequirementCache("jsonargparse>=999")})
    assert fails(["fit"], capsys).endswith('Run: pip install "lightning-adapt[cli]"')


def test_doctor_says_why_a_package_is_not_usable(monkeypatch):
    from lightning_adapt._shared.imports import EXTRAS, RequirementCache

    for name, error in (("brokenlib", "OSError('libcudart.so.13: no such [file]')"), ("wrongtorch", "RuntimeError()")):
        Path(f"{name}.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.setattr(doctor, "installed", lambda package: None if package == "absent" else "1.0")
    for extra in list(EXTRAS):
        monkeypatch.delitem(EXTRAS, extra)
    for name, module in (("a", "brokenlib"), ("b", "wrongtorch"), ("c", "absent"), ("d", "yaml")):
        monkeypatch.setitem(EXTRAS, name, {module: RequirementCache(module=module)})
    monkeypatch.setitem(EXTRAS, "e", {"rich": RequirementCache("rich>=999")})
    console = Console(record=True, width=200)
    doctor.report(console)
    text = console.export_text()
    for expected in ("no: libcudart.so.13: no such [file]", "no: RuntimeError", "no: not installed", "no: too old"):
        assert expected in text
    assert "CUDA available" in text
    assert f"lightning_adapt │ {'1.0'}" in text.replace("  ", " ")


def test_demo_reports_a_missing_package_in_one_line(monkeypatch, capsys):
    demo = pytest.importorskip("lightning_adapt.demo")

    def run(only: str | None, out: Path) -> int:
        assert (only, out) == ("rs2", Path("there"))
        raise ModuleNotFoundError('needs x. Run: pip install "lightning-adapt[vision]"')

    monkeypatch.setattr(demo, "run", run)
    line = fails(["demo", "--only", "rs2", "--out", "there"], capsys)
    assert line == 'error: demo: needs x. Run: pip install "lightning-adapt[vision]"'
    with pytest.raises(ModuleNotFoundError):
        cli.main(["demo", "--only", "rs2", "--out", "there", "--verbose"])
    monkeypatch.setattr(demo, "run", lambda only, out: 0)
    assert cli.main(["demo"]) == 0
