"""The command `lightning-adapt`: runs of the Trainer, the demo, data selection, speech, overlays, the installation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import lightning_adapt
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.lazy import attach
from lightning_adapt.divconq.offline import command as select
from lightning_adapt.lina_speech.commands import speak, tune_voice

if TYPE_CHECKING:
    from lightning_adapt._cli_lightning import AdaptCLI as AdaptCLI

# Lightning and jsonargparse are imported at first use: `overlay` and `doctor` must work without them
__getattr__, __dir__, _ = attach(__name__, {"AdaptCLI": "lightning_adapt._cli_lightning"})
__all__ = ["AdaptCLI", "main"]

RUNS = {
    "fit": "Train a model, with validation (Trainer.fit).",
    "validate": "One pass over the validation data (Trainer.validate).",
    "test": "One pass over the test data (Trainer.test).",
    "predict": "Predictions for the prediction data (Trainer.predict).",
}
OWN = ("demo", "select", "speak", "tune-voice", "overlay", "doctor")
WITH_FILES = {"select": select, "speak": speak, "tune-voice": tune_voice}  # modules with HELP, add_arguments and run
PROGRAM = "lightning-adapt"


def main(args: Sequence[str] | None = None) -> int | None:
    """Run the command line.

    Args:
        args: What follows the program's name; None: taken from `sys.argv`.

    Returns:
        Exit code: 0 after success, 2 without a command.

    Raises:
        SystemExit: With code 2 after a bad argument, 0 after `--help` and `--version`.

    Example:
        >>> main(["overlay", "rs2"])  # doctest: +ELLIPSIS
        # RS2: ...
        0
    """
    argv = list(sys.argv[1:] if args is None else args)
    parser = _parser()
    command = next((token for token in argv if token in RUNS or token in OWN), None)
    if command in RUNS and argv[0] not in ("-h", "--help", "-V", "--version"):
        return _run_trainer(parser, argv, str(command))
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(argv)
    if options.command == "overlay":
        return _overlay(parser, options.method)
    if options.command == "doctor":
        from lightning_adapt._shared.doctor import report

        report()
        return 0
    if options.command in WITH_FILES:
        code: int = WITH_FILES[options.command].run(options, parser.error)
        return code
    return _demo(parser, options)


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def _parser() -> _Parser:
    parser = _Parser(PROGRAM, description=lightning_adapt.__doc__, allow_abbrev=False)
    parser.add_argument("-V", "--version", action="version", version=f"{PROGRAM} {lightning_adapt.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shown = argparse.ArgumentDefaultsHelpFormatter
    for name, text in RUNS.items():  # listed here, parsed by AdaptCLI
        commands.add_parser(name, help=text)
    text = "Each method beside its baseline, on small data."
    demo = commands.add_parser("demo", help=text, description=text, formatter_class=shown)
    demo.add_argument("--only", metavar="METHOD", help=f"run one method: {', '.join(lightning_adapt.METHODS)}")
    demo.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("lightning_adapt_demo"), help="folder to write to"
    )
    demo.add_argument("--verbose", action="store_true", help="show errors with their traceback")
    for name, module in WITH_FILES.items():
        own = commands.add_parser(name, help=module.HELP, description=module.HELP, formatter_class=shown)
        module.add_arguments(own)
    text = "Print the YAML that adds a method to your own config."
    overlay = commands.add_parser("overlay", help=text, description=text, formatter_class=shown)
    overlay.add_argument("method", metavar="METHOD", help=f"one of: {', '.join(_overlays())}")
    text = "Versions, extras and what of them is usable on this machine."
    commands.add_parser("doctor", help=text, description=f"{text} It imports every optional package: some seconds.")
    return parser


# -- the Trainer ------------------------------------------------------------------------------------------------------
def _run_trainer(parser: _Parser, argv: list[str], command: str) -> int:
    try:
        require("cli", f"`{PROGRAM} {command}`")
        import jsonargparse  # noqa: F401  # installed is not the same as importable
    except ImportError as missing:
        text = str(missing)
        if "lightning-adapt[cli]" not in text:
            text = f'`{PROGRAM} {command}` needs jsonargparse ({text}). Run: pip install "lightning-adapt[cli]"'
        parser.error(text)
    from lightning_adapt._cli_lightning import AdaptCLI

    here = str(Path.cwd())
    if here not in sys.path:  # `--model my_module.Net`, as with `python main.py`; a console script leaves it out
        sys.path.insert(0, here)
    # without a logger every run writes its config to the same place, perhaps beside the user's own config.yaml: under a
    # name of its own, where the last one counts
    saved = {"overwrite": True, "config_filename": "lightning_adapt_config.yaml"}
    AdaptCLI(args=argv, parser_kwargs={"prog": PROGRAM}, save_config_kwargs=saved)
    return 0


# -- our own commands -------------------------------------------------------------------------------------------------
def _overlays() -> dict[str, Path]:
    """Return the overlays of all methods: from the wheel, or from the repository in an editable installation."""
    package = Path(lightning_adapt.__file__).parent
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    files = sorted(folder.glob("*/overlay*.yaml"))  # overlay_voice.yaml of lina_speech: lina_speech_voice
    return {file.parent.name + file.stem.removeprefix("overlay"): file for file in files}


def _overlay(parser: _Parser, method: str) -> int:
    files = _overlays()
    if method not in files:
        parser.error(f"overlay: there is no method {method!r}. There are: {', '.join(files)}.")
    sys.stdout.write(files[method].read_text(encoding="utf-8"))
    return 0


def _demo(parser: _Parser, options: argparse.Namespace) -> int:
    if options.only is not None and options.only not in lightning_adapt.METHODS:
        parser.error(f"demo: there is no method {options.only!r}. There are: {', '.join(lightning_adapt.METHODS)}.")
    try:
        from lightning_adapt.demo import run

        return run(options.only, options.out)
    except (ModuleNotFoundError, OSError) as problem:  # an extra, or the folder to write to
        if options.verbose:
            raise
        parser.error(f"demo: {problem}")


if __name__ == "__main__":
    sys.exit(main())
