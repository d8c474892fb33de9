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
from lightning_adapt._cli_errors import one_line
from lightning_adapt._shared import doctor

pytestmark = [
    pytest.mark.filterwarnings("ignore:No seed found:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
]

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


@pytest.fixture(autouse=True)
def _foreign(tmp_path, monkeypatch):
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


# -- help -------------------------------------------------------------------------------------------------------------
def test_help_lists_every_command_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert [line[0] for line in lines] == ["fit", "validate", "test", "predict", "demo", "overlay", "doctor"]
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
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
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


# -- errors -----------------------------------------------------------------------------------------------------------
BAD = {
    "unknown command": (["fi"], "invalid choice: 'fi'"),
    "no model": (["fit", *QUIET], "required: fit.model"),
    "unknown short name": (["fit", "--model", "Nope"], "--model: no class is called 'Nope'"),
    "near short name": (["fit", *NET, "--trainer.callbacks=RS2Calback"], "Did you mean RS2Callback?"),
    "no such module": (["fit", "--model", "no_module.Net"], "No module named 'no_module'"),
    "no such class": (["fit", "--model", "my_module.Nope"], "has no attribute 'Nope'"),
    "no module class": (["fit", "--model", "my_module.NoModule"], "subclass of LightningModule"),
    "syntax error": (["fit", "--model", "broken_module.Net"], "invalid syntax (broken_module.py, line 1)"),
    "type": (["fit", *NET, "--trainer.max_epochs=foo"], "--trainer.max_epochs: expected int or null, but got 'foo'."),
    "option": (["fit", *NET, "--trainer.max_epoch=1"], "Did you mean trainer.max_epochs"),
    "model argument": (["fit", *NET, "--model.nope=1"], "my_module.Net has no argument 'nope'. It takes: width, rate."),
    "model type": (["fit", *NET, "--model.width=a"], "--model.width: expected int, but got 'a'."),
    "model value": (["fit", *NET, "--model.width=0"], "my_module.Net: width is too small"),
    "ratio": (
        ["fit", *NET, *RS2, "--trainer.callbacks.ratio=2.0"],
        "RS2Callback: `ratio` must be a number in (0, 1], ",
    ),
    "mode": (["fit", *NET, *RS2, "--trainer.callbacks.mode=a"], "expected without, independent or bootstrap, but got"),
    "argument": (["fit", *NET, *RS2, "--trainer.callbacks.ratios=1"], "Did you mean ratio?"),
    "union": (["fit", *NET, *RS2, "--trainer.callbacks.validate=1.5"], "expected pass, round or int, but got '1.5'."),
    "accelerator": (["fit", *NET, "--trainer.accelerator=foo"], "`accelerator='foo'`"),
    "limit": (["fit", *NET, "--trainer.limit_train_batches=1.5"], "1.5 for limit_train_batches"),
    "setup": (["fit", *NET, *RS2, "--trainer.overfit_batches=2"], "`overfit_batches` must be 0 beside RS2Callback"),
    "optimizer": (["fit", *NET, "--optimizer=SGD", "--optimizer.lr=foo"], "--optimizer.lr: expected float"),
    "no config": (["fit", *NET, "--config", "missing.yaml"], "File does not exist"),
    "no checkpoint": (["fit", *NET, "--ckpt_path=no.ckpt"], "--ckpt_path: there is no file 'no.ckpt'."),
    "bad checkpoint": (["fit", *NET, "--ckpt_path=my_module.py"], "cannot be read as a checkpoint"),
    "no method": (["overlay", "nope"], "overlay: there is no method 'nope'. There are: rs2"),
    "no overlay name": (["overlay"], "required: METHOD"),
    "demo method": (["demo", "--only", "nope"], "demo: there is no method 'nope'."),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_command_line_ends_in_one_line(case, capsys):
    args, expected = BAD[case]
    line = fails(args, capsys)
    assert line.startswith("error: ")
    assert expected in line


BAD_YAML = {
    "broken": ("trainer:\n  max_epochs: [1\n", "'bad.yaml' is no valid YAML"),
    "text": ("just text\n", "must hold `key: value` lines"),
    "key": ("trainr:\n  max_epochs: 1\n", "Did you mean trainer.max_epochs"),
    "value": ("trainer:\n  max_epochs: one\n", "trainer.max_epochs: expected int or null, but got 'one'."),
    "callback": (
        "trainer:\n  callbacks:\n  - class_path: lightning_adapt.RS2Callback\n    init_args: {ratio: 2}\n",
        "lightning_adapt.RS2Callback: `ratio` must be",
    ),
    "argument": (
        "trainer:\n  callbacks:\n    class_path: lightning_adapt.RS2Callback\n    init_args: {mode: foo}\n",
        "`mode` of lightning_adapt.RS2Callback: expected without, independent or bootstrap, but got 'foo'.",
    ),
    "class": (
        "trainer:\n  callbacks:\n  - class_path: lightning_adapt.RS3Callback\n",
        "has no attribute 'RS3Callback'",
    ),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_bad_config_ends_in_one_line(case, capsys):
    content, expected = BAD_YAML[case]
    bad = write("bad.yaml", content)
    if case in ("key", "value"):  # the file must not be overruled by QUIET
        assert expected in fails(["fit", "--model", "my_module.Net", "--config", bad], capsys)
    else:
        assert expected in fails(["fit", *NET, "--config", bad], capsys)


def test_verbose_shows_everything_and_the_line_last(capsys):
    for args in (["--verbose", "fit", *NET], ["fit", "--verbose", *NET]):
        with pytest.raises(SystemExit) as stop:
            cli.main([*args, "--model.width=0"])
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert "Traceback" in error
        assert error.strip().splitlines()[-1] == "error: my_module.Net: width is too small"


def test_an_error_inside_training_keeps_its_traceback():
    Path("my_module.py").write_text(FOREIGN.replace("self.rows += len(batch[0])", "raise ValueError('inside')"))
    with pytest.raises(ValueError, match="inside"):
        cli.main(["fit", *NET])


def test_text_of_no_known_form_is_only_joined():
    def none(_: str) -> list[str]:
        return []

    assert one_line("first\n  second", [], none, none) == "first second"
    assert len(one_line("x " * 1000, [], none, none)) <= 500


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
@pytest.mark.parametrize("method", sorted(cli._overlays()))
def test_overlay_prints_the_file(method, capsys):
    assert cli.main(["overlay", method]) == 0
    printed = capsys.readouterr().out
    assert printed == (Path(lightning_adapt.__file__).parents[1] / "configs" / method / "overlay.yaml").read_text()
    assert all("callbacks+" in section for section in yaml.safe_load(printed).values())


def test_every_method_has_an_overlay():
    assert set(cli._overlays()) == set(lightning_adapt.METHODS)


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
