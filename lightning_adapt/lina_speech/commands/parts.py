"""What the commands of speech share: arguments, checks before anything heavy is imported, the model from its file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_adapt._shared.commands import NEEDED, OPTIONAL, one_line
from lightning_adapt._shared.files import obstacle_to

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.module import LinaSpeechModule

__all__ = [
    "Ranges",
    "add_checkpoint_argument",
    "add_model_arguments",
    "check_file",
    "check_numbers",
    "check_writable",
    "load_module",
]

# option -> what its number may be, and the same in words
Ranges: TypeAlias = Mapping[str, tuple[Callable[[float], bool], str]]


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the model.

    Args:
        parser: The parser of the command.
    """
    about = "a checkpoint of LinaSpeechModule; it stays as it is"
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help=about, **NEEDED)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how a model is loaded, and --verbose.

    Args:
        parser: The parser of the command.
    """
    add = parser.add_argument
    codec = "a codec's file, or a name such as encodec:NAME, if the checkpoint has none or it moved"
    add("--codec", metavar="CODEC", help=codec, **OPTIONAL)
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or cuda:1; auto takes a GPU if there is one")
    add("--verbose", action="store_true", help="show errors with their traceback")


# -- checks before torch is imported -----------------------------------------------------------------------------------
def check_numbers(options: argparse.Namespace, ranges: Ranges) -> None:
    """Check the numbers that were given.

    Args:
        options: What the parser read.
        ranges: Which, and what they may be.

    Raises:
        ValueError: If one is out of range; names the option.
    """
    for name, (fits, allowed) in ranges.items():
        if name in options and not fits(getattr(options, name)):
            raise ValueError(f"--{name.replace('_', '-')} must be {allowed}, but got {getattr(options, name)}.")


def check_file(option: str, path: Path, remedy: str) -> None:
    """Check that a file is there.

    Args:
        option: The option that names it.
        path: The file.
        remedy: What to pass, a full sentence.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{option} {str(path)!r} is no file. {remedy}")


def check_writable(option: str, asked: Path, files: Iterable[Path]) -> None:
    """Check that files of one folder can be written, before any work is done for them.

    Args:
        option: The option that named them.
        asked: What it was given.
        files: The files, at least one.

    Raises:
        OSError: If their folder cannot be written to or made, or one of them is a folder.
    """
    files = list(files)
    obstacle = obstacle_to(files)
    if obstacle is not None:
        what = "a folder" if obstacle in files else "no folder that you may write to"
        raise OSError(f"{option} {str(asked)!r} cannot be written: {str(obstacle)!r} is {what}.")


# -- the model ---------------------------------------------------------------------------------------------------------
def load_module(options: argparse.Namespace, **arguments: Any) -> LinaSpeechModule:
    """Load the module of --checkpoint to the device of --device.

    Args:
        options: What the parser read: `checkpoint`, `device` and, if given, `codec`.
        arguments: Arguments of `LinaSpeechModule` that replace those of the checkpoint.

    Returns:
        The module.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no whole checkpoint of `LinaSpeechModule`, the codec is another one, or there is no
            such device.
    """
    path = options.checkpoint
    check_file("--checkpoint", path, "Pass one that a Trainer saved.")
    device = _device(options.device)
    codec: dict[str, Any] = {"codec": options.codec} if "codec" in options else {}
    _check_kind(path)
    from lightning_adapt.lina_speech.module import LinaSpeechModule

    given = {**codec, **arguments}
    try:
        module = LinaSpeechModule.load_from_checkpoint(path, map_location="cpu", weights_only=True, **given)
    except (AttributeError, EOFError, LookupError, RuntimeError) as error:  # parts are missing, or have other shapes
        raise ValueError(_no_checkpoint(path, one_line(error)[:160])) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"--checkpoint {str(path)!r}: {error}") from error
    return module.to(device)


def _check_kind(path: Path) -> None:
    """Refuse files of another kind in words that say what they are, before any weights are read."""
    from lightning_adapt._shared.tensor_file import format_of
    from lightning_adapt.lina_speech.saved_parts import PARTS_KEY, saved_content
    from lightning_adapt.lina_speech.voices.voice import FORMAT

    if format_of(path) == FORMAT:
        voice = "is a voice, no checkpoint. Pass it to `lightning-adapt speak` as --voice, and the checkpoint it was"
        raise ValueError(f"--checkpoint {str(path)!r} {voice} made with as --checkpoint.")
    content = saved_content(path)
    if content is None:
        raise ValueError(_no_checkpoint(path, "it is no file of torch.save, or holds more than values and tensors"))
    if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
        raise ValueError(_no_checkpoint(path, "it was not saved by a Trainer"))
    if PARTS_KEY not in content:
        raise ValueError(_no_checkpoint(path, "it is one of another module"))


def _no_checkpoint(path: Path, reason: str) -> str:
    return f"--checkpoint {str(path)!r} is no checkpoint of LinaSpeechModule, or not a whole one ({reason})."


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # no such name, no such device, a torch built without it
        raise ValueError(
            f"--device {name!r} cannot be used here. Pass cpu, or auto for a GPU if there is one."
        ) from error
    return device
