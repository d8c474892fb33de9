"""Errors of the command line: one clear line on stderr, exit code 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_adapt import METHODS, cli
from lightning_adapt._cli_errors import one_line
from tests.contracts.cli_parts import FOREIGN, NET, QUIET, RS2, fails, foreign, last_line, overlay, write  # noqa: F401 - foreign is a fixture

pytestmark = [pytest.mark.usefixtures("foreign"), pytest.mark.filterwarnings("ignore:No seed found:UserWarning")]


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
    "model without a class": (["fit", "--model.lr=1", *NET], "'lr' is set before the class is named. Give the class"),
    "model argument": (["fit", *NET, "--model.nope=1"], "my_module.Net has no argument 'nope'. It takes: width, rate."),
    "model type": (["fit", *NET, "--model.width=a"], "--model.width: expected int, but got 'a'."),
    "model value": (["fit", *NET, "--model.width=0"], "my_module.Net: width is too small"),
    "ratio": (
        ["fit", *NET, *RS2, "--trainer.callbacks.ratio=2.0"],
        "RS2Callback: `ratio` must be a number in (0, 1], ",
    ),
    "mode": (
        ["fit", *NET, *RS2, "--trainer.callbacks.mode=a"],
        "expected without, independent, bootstrap or loss, but got",
    ),
    "argument": (["fit", *NET, *RS2, "--trainer.callbacks.ratios=1"], "Did you mean ratio?"),
    "union": (["fit", *NET, *RS2, "--trainer.callbacks.validate=1.5"], "expected pass, round or int, but got '1.5'."),
    "accelerator": (["fit", *NET, "--trainer.accelerator=foo"], "`accelerator='foo'`"),
    "limit": (["fit", *NET, "--trainer.limit_train_batches=1.5"], "1.5 for limit_train_batches"),
    "setup": (["fit", *NET, *RS2, "--trainer.overfit_batches=2"], "`overfit_batches` must be 0 beside RS2Callback"),
    "optimizer": (["fit", *NET, "--optimizer=SGD", "--optimizer.lr=foo"], "--optimizer.lr: expected float"),
    "no config": (["fit", *NET, "--config", "missing.yaml"], "File does not exist"),
    "no checkpoint": (["fit", *NET, "--ckpt_path=no.ckpt"], "--ckpt_path: there is no file 'no.ckpt'."),
    "bad checkpoint": (["fit", *NET, "--ckpt_path=my_module.py"], "cannot be read as a checkpoint"),
    "no method": (
        ["overlay", "nope"],
        f"overlay: there is no method 'nope'. There are: {', '.join(sorted([*METHODS, 'lina_speech_voice']))}.",
    ),
    "no overlay name": (["overlay"], "required: METHOD"),
    "demo method": (["demo", "--only", "nope"], "demo: there is no method 'nope'."),
    "no text": (
        ["speak", "--checkpoint", "a.ckpt", "--out", "a.wav"],
        "one of the arguments --text --text-file is req",
    ),
    "no manifest": (["tune-voice", "--checkpoint", "a.ckpt", "--out", "a.safetensors"], "required: --manifest"),
    "tuning rank": (["tune-voice", "--rank", "0"], "--rank: must be a whole number, 1 or more, or 'full', but got '0'"),
    "tuning steps": (["tune-voice", "--steps", "many"], "--steps: invalid int value: 'many'"),
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
        "`mode` of lightning_adapt.RS2Callback: expected without, independent, bootstrap or loss, but got 'foo'.",
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
