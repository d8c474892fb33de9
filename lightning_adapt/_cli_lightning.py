"""AdaptCLI: Lightning's command line with one-line errors and a warning for overlays that a later config undoes."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch.demos.boring_classes  # noqa: F401  # so that `--model BoringModel` works, as in Lightning's own CLI
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

import lightning_adapt
from lightning_adapt._cli_errors import one_line
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.loaders import LoaderConflictError
from lightning_adapt._shared.sampling import StateMismatchError

__all__ = ["AdaptArgumentParser", "AdaptCLI"]

_BASES = {"model": LightningModule, "data": LightningDataModule, "trainer.callbacks": Callback}
_BAD_VALUE = (ValueError, TypeError, MisconfigurationException, ModuleNotFoundError, FileNotFoundError)
_NO_FILE = re.compile(r"(best|last|hpc|registry(:.*)?)$")  # what Lightning takes for `ckpt_path` besides a file


class AdaptArgumentParser(LightningArgumentParser):
    """Lightning's parser, with errors of one line and exit code 2."""

    typed: Sequence[str] = ()  # the command line, filled in by AdaptCLI
    verbose: bool = False

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a program embeds the parser and catches the exception itself
            super().error(message, ex)
        refused = getattr(ex, "subcommand_parser", self)
        line = one_line(message, self.typed, _classes, lambda path: _arguments(path, refused))
        if self.verbose:
            if ex is not None:
                traceback.print_exception(ex)
            sys.stderr.write(f"{message}\n")
        self.exit(2, f"error: {line}\n")
        raise SystemExit(2)  # unreachable; `exit` is not typed as final everywhere


class AdaptCLI(LightningCLI):
    """Lightning's command line, for your own `main.py` or behind `lightning-adapt`.

    Takes the arguments of `lightning.pytorch.cli.LightningCLI`; without classes, model and data are named on the
    command line. In addition: our classes go by their short names; a bad value ends in one line and exit code 2, and
    `--verbose` shows the full text; a later `callbacks:` that undoes an overlay is reported.

    Args:
        args: Positional arguments of LightningCLI.
        kwargs: Keyword arguments of LightningCLI.

    Raises:
        ModuleNotFoundError: If the extra `cli` is missing.

    Example:
        >>> from lightning_adapt.cli import AdaptCLI
        >>> sorted(AdaptCLI.subcommands())
        ['fit', 'predict', 'test', 'validate']
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require("cli", "AdaptCLI")
        for name in lightning_adapt.__all__:  # jsonargparse finds short names among the classes already imported
            getattr(lightning_adapt, name)
        kwargs.setdefault("parser_class", AdaptArgumentParser)
        super().__init__(*args, **kwargs)

    @override
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("epilog", "--verbose anywhere on the line shows errors in full, with their traceback.")
        parser = super().init_parser(**kwargs)
        parser.allow_abbrev = False  # `--trainer.max_epoch` is a mistake to report, not a short form to guess
        return parser

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        if args is not None and not isinstance(args, (list, tuple)):
            super().parse_arguments(parser, args)
            return
        typed = list(sys.argv[1:] if args is None else args)
        for each in (parser, *getattr(self, "_subcommand_parsers", {}).values()):
            each.typed, each.verbose = typed, "--verbose" in typed
        plain = [token for token in typed if token != "--verbose"]  # noqa: S105
        files = _config_files(plain)
        contents = [(file, _read_config(file, parser)) for file in files]
        try:
            self.config = parser.parse_args(plain)
        except (*_BAD_VALUE, AttributeError, SyntaxError) as problem:  # raised by the user's module, or a parser gap
            parser.error(str(problem), problem)
        _warn_replaced_callbacks(contents, self.config)

    @override
    def _parse_ckpt_path(self) -> None:
        command = self.config.get("subcommand")
        path = self.config[command].get("ckpt_path") if command else None
        if path and not _NO_FILE.match(str(path)) and "://" not in str(path) and not Path(path).exists():
            self.parser.error(f"--ckpt_path: there is no file {str(path)!r}.")
        try:
            super()._parse_ckpt_path()
        except Exception as problem:  # what is no checkpoint makes torch.load raise nearly anything
            self.parser.error(f"--ckpt_path: {str(path)!r} cannot be read as a checkpoint: {problem}", problem)

    @override
    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except _BAD_VALUE as problem:
            self.parser.error(str(problem), problem)

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except (
            MisconfigurationException,
            LoaderConflictError,
            StateMismatchError,
        ) as problem:  # a trainer, a loader or a callback that do not go together
            self.parser.error(str(problem), problem)


def _classes(key: str) -> list[str]:
    """Return the short names that a key takes, those of this package first."""
    base = next((base for name, base in _BASES.items() if key.endswith(name)), None)
    found: dict[str, bool] = {}
    todo: list[type] = [] if base is None else base.__subclasses__()
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if not any(part.startswith("_") for part in f"{cls.__module__}.{cls.__name__}".split(".")):
            found[cls.__name__] = cls.__module__.startswith("lightning_adapt.")
    return sorted(found, key=lambda name: (not found[name], name))


def _arguments(path: str, parser: Any) -> list[str]:
    """Return the arguments of a class; without a path the options of a parser."""
    if path:
        module, _, name = path.rpartition(".")
        return [key for key in inspect.signature(getattr(sys.modules[module], name)).parameters if key != "self"]
    flags = {flag[2:] for flag in getattr(parser, "_option_string_actions", {}) if flag.startswith("--")}
    return sorted(flag for flag in flags if not flag.endswith((".help", "+")) and flag != "help")


# -- config files -----------------------------------------------------------------------------------------------------
def _config_files(args: Sequence[str]) -> list[str]:
    """Return the config files of a command line, in order."""
    files = []
    for token, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = token.partition("=")
        if name in ("--config", "-c"):
            files.append(value if equals else following)
    return [file for file in files if Path(file).is_file()]


def _read_config(file: str, parser: LightningArgumentParser) -> Any:
    """Read a config ahead of the parser, whose errors about YAML do not say which file."""
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as problem:
        place = f" in line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
        parser.error(f"--config: {file!r} is no valid YAML: {problem.problem}{place}.")
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        parser.error(f"--config: {file!r} is no text in YAML: {problem}")
    if content is not None and not isinstance(content, dict):
        parser.error(f"--config: {file!r} must hold `key: value` lines, but holds {str(content)[:60]!r}.")
    return content


def _warn_replaced_callbacks(contents: list[tuple[str, Any]], config: Any) -> None:
    """Say so when a later `callbacks:` replaced callbacks of ours from an earlier config."""
    command = config.get("subcommand")
    trainer = (config[command] if command else config).get("trainer")
    left = _class_names(trainer.get("callbacks") if trainer else None)
    origin: dict[str, str] = {}
    culprit: dict[str, str] = {}
    for file, content in contents:
        section = _trainer_section(content, command)
        if "callbacks" in section:
            culprit.update({name: file for name in origin if name not in culprit})
        for key in ("callbacks", "callbacks+"):
            for name in _class_names(section.get(key)):
                if name in lightning_adapt.__all__:
                    origin[name] = file
                    culprit.pop(name, None)
    for name, file in origin.items():
        if name not in left:
            by, instead = "`--trainer.callbacks` on the command line", "`--trainer.callbacks+=`"
            if name in culprit:
                by, instead = f"`callbacks:` in {culprit[name]}", "`callbacks+:` there"
            rank_zero_warn(
                f"{by} replaced {name} from {file}, which therefore does nothing in this run. "
                f"Put {file} last, or write {instead}.",
                category=UserWarning,
            )


def _trainer_section(content: Any, command: str | None) -> dict[str, Any]:
    for holder in (content, content.get(command) if isinstance(content, dict) else None):
        if isinstance(holder, dict) and isinstance(holder.get("trainer"), dict):
            section: dict[str, Any] = holder["trainer"]
            return section
    return {}


def _class_names(callbacks: Any) -> list[str]:
    """Return the short class names in a `callbacks` value: one, a list, or none."""
    many = callbacks if isinstance(callbacks, list) else [callbacks]
    paths = [each if isinstance(each, str) else getattr(each, "get", lambda _: None)("class_path") for each in many]
    return [str(path).rsplit(".", 1)[-1] for path in paths if path]
