"""The code that the demo's page offers for copying: commands, Python and YAML that the package accepts."""

from __future__ import annotations

import ast
import importlib
import inspect
import shlex

import pytest
import yaml

import lightning_adapt
from lightning_adapt import cli


def usage(method):
    return importlib.import_module(f"lightning_adapt.{method}.demo").USAGE


def named(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("method", lightning_adapt.METHODS)
def test_python_imports_and_calls_what_is_there(method):
    tree = ast.parse(usage(method).python)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported <= set(lightning_adapt.__all__)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert {call.func.id for call in calls} == imported
    for call in calls:
        signature = inspect.signature(getattr(lightning_adapt, call.func.id))
        signature.bind(*call.args, **{str(keyword.arg): keyword.value for keyword in call.keywords})


@pytest.mark.parametrize("method", lightning_adapt.METHODS)
def test_yaml_names_classes_and_arguments_that_are_there(method):
    config = yaml.safe_load(usage(method).yaml)
    parts = config["trainer"]["callbacks+"] if "trainer" in config else list(config.values())
    for part in parts:
        inspect.signature(named(part["class_path"])).bind(**part["init_args"])


@pytest.mark.parametrize("method", lightning_adapt.METHODS)
def test_commands_and_their_options_are_there(method, capsys):
    lines = usage(method).command.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert any(command[:3] == ["lightning-adapt", "overlay", method] for command in commands)
    for program, *words in commands:
        if words[0] in cli.OWN and words[0] != "overlay":
            with pytest.raises(SystemExit):
                cli.main([words[0], "--help"])
            options = capsys.readouterr().out
            assert all(word in options for word in words if word.startswith("--")), words
        else:
            assert (program, words[0]) in {
                ("lightning-adapt", "overlay"),
                ("lightning-adapt", "fit"),
                ("python", "main.py"),
            }


@pytest.mark.parametrize("method", lightning_adapt.METHODS)
def test_code_fits_its_column_on_the_page(method):
    code = usage(method)
    for text, most in ((code.command, 55), (code.python, 56), (code.yaml, 58)):
        assert max(map(len, text.splitlines())) <= most
