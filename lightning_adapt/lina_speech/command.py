"""`lightning-adapt speak`: its arguments, its progress bar, its errors of one line and its summary."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.inference.speech import Speech
    from lightning_adapt.lina_speech.model.state import State
    from lightning_adapt.lina_speech.module import LinaSpeechModule

__all__ = ["HELP", "add_arguments", "run"]

# torch and all that is heavy is imported in `run`: the parser of every other command passes through here
HELP = "Speak texts with a trained Lina-Speech model, into sound files."
SOUNDS = (".wav", ".flac", ".ogg")
STOPPED = 130  # the exit code of a command that Ctrl-C ended
# what numbers may be; looked at before torch is imported and the model loaded
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda value: 0 <= value < math.inf, "a number >= 0"),
    "top_k": (lambda value: value >= 0, "a whole number, 1 or more, or 0 for all codes"),
    "top_p": (lambda value: 0 < value <= 1, "a number above 0 and up to 1"),
    "n_best": (lambda value: value >= 1, "a whole number, 1 or more"),
    "max_seconds": (lambda value: 0 < value < math.inf, "a number above 0"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Args:
        parser: The parser of the command.
    """
    add = parser.add_argument
    needed: dict[str, Any] = {"required": True, "default": argparse.SUPPRESS}  # help shows no default then
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    add("--checkpoint", type=Path, metavar="FILE", help="a checkpoint of LinaSpeechModule", **needed)
    source = parser.add_mutually_exclusive_group(required=True)
    say = "what to say; may be repeated"
    source.add_argument("--text", action="append", metavar="TEXT", help=say, **given)
    lines = "a file with a text per line; empty lines are left out"
    source.add_argument("--text-file", type=Path, metavar="FILE", help=lines, **given)
    out = "sound file, replaced if it is there (several texts: NAME-1.wav, NAME-2.wav ...), or a folder for 1.wav ..."
    add("--out", type=Path, metavar="FILE", help=out, **needed)
    add("--voice", type=Path, metavar="FILE", help="a voice, saved with State.save", **given)
    add("--temperature", type=float, default=1.0, help="smaller is more monotonous; 0 takes the most probable code")
    add("--top-k", type=int, default=100, metavar="K", help="draw among the K most probable codes; 0 for all")
    add("--top-p", type=float, default=1.0, metavar="P", help="draw among the fewest codes of this probability")
    add("--n-best", type=int, default=1, metavar="N", help="attempts per text, of which the best is kept")
    add(
        "--max-seconds",
        type=float,
        metavar="S",
        help="longest audio per text; else what the model was made for",
        **given,
    )
    add("--seed", type=int, default=0, help="the same seed gives the same audio")
    codec = "a codec's file, or a name such as encodec:NAME, if the checkpoint has none or it moved"
    add("--codec", metavar="CODEC", help=codec, **given)
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or cuda:1; auto takes a GPU if there is one")
    add("--verbose", action="store_true", help="show errors with their traceback")


def run(options: argparse.Namespace, fail: Callable[[str], NoReturn]) -> int:
    """Run the command.

    Args:
        options: What the parser of `add_arguments` read.
        fail: Ends the program with a message of one line.

    Returns:
        0 after success, 130 after Ctrl-C.
    """
    written: list[Path] = []
    try:
        _check_numbers(options)
        texts = _texts(options)
        files = _files(options.out, len(texts))  # before the model is loaded: a mistake shows at once
        voice = _voice(options)
        module = _load(options)
        with _bar() as progress:
            started = time.perf_counter()
            spoken = _speak(module, texts, voice, options, progress)
            seconds = time.perf_counter() - started
        for speech, file in zip(spoken, files, strict=True):
            written.append(speech.save(file))
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as problem:
        if options.verbose:
            raise
        fail(f"speak: {' '.join(str(problem).split())}")
    except KeyboardInterrupt:
        sys.stderr.write(f"speak: stopped, {', '.join(map(str, written)) or 'nothing'} was written.\n")
        return STOPPED
    _print_summary(spoken, files, seconds)
    return 0


def _check_numbers(options: argparse.Namespace) -> None:
    for name, (fits, allowed) in RANGES.items():
        if name in options and not fits(getattr(options, name)):
            raise ValueError(f"--{name.replace('_', '-')} must be {allowed}, but got {getattr(options, name)}.")


# -- what to say, and where it goes ------------------------------------------------------------------------------------
def _texts(options: argparse.Namespace) -> list[str]:
    if "text" in options:
        texts = list(options.text)
    else:
        texts = [line.strip() for line in _lines(options.text_file)]
        texts = [line for line in texts if line]
        if not texts:
            raise ValueError(f"--text-file {options.text_file} has no text in it. Write a text on each line.")
    for text in texts:
        if not text.strip():
            raise ValueError(f"--text must have something to say, but got {text!r}.")
    return texts


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise FileNotFoundError(f"--text-file {str(file)!r} is no file.")
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--text-file {str(file)!r} is no text in UTF-8: {error}.") from error


def _files(out: Path, n_texts: int) -> list[Path]:
    """Return the file of each text, after a look at whether they can be written."""
    folder = out.is_dir() or not out.suffix
    if not folder and out.suffix.lower() not in SOUNDS:
        raise ValueError(f"--out must be a folder or end in {', '.join(SOUNDS)}, but got {str(out)!r}.")
    width = len(str(n_texts))
    numbers = [str(number).zfill(width) for number in range(1, n_texts + 1)]
    if folder:
        files = [out / f"{number}.wav" for number in numbers]
    elif n_texts == 1:
        files = [out]
    else:
        files = [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in numbers]
    above = files[0].parent
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise OSError(f"--out {str(out)!r} cannot be written: {str(above)!r} is no folder that you may write to.")
    taken = [file for file in files if file.is_dir()]
    if taken:
        raise OSError(f"--out {str(out)!r} cannot be written: {str(taken[0])!r} is a folder.")
    return files


# -- the model ---------------------------------------------------------------------------------------------------------
def _load(options: argparse.Namespace) -> LinaSpeechModule:
    path = options.checkpoint
    if not path.is_file():
        raise FileNotFoundError(f"--checkpoint {str(path)!r} is no file. Pass one that a Trainer saved.")
    device = _device(options.device)
    codec: dict[str, Any] = {"codec": options.codec} if "codec" in options else {}
    import pickle

    from lightning_adapt.lina_speech.module import LinaSpeechModule

    try:
        module = LinaSpeechModule.load_from_checkpoint(path, map_location="cpu", weights_only=True, **codec)
    except (KeyError, AttributeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        what = f"--checkpoint {str(path)!r} is no checkpoint of LinaSpeechModule, or not a whole one"
        reason = " ".join(str(error).split())[:160]
        if isinstance(error, pickle.UnpicklingError):  # torch advises in a page of text to load it unsafely
            reason = "it is no file of torch.save, or holds more than plain values and tensors"
        raise ValueError(f"{what} ({reason}).") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"--checkpoint {str(path)!r}: {error}") from error
    return module.to(device)


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


def _voice(options: argparse.Namespace) -> State | None:
    if "voice" not in options:
        return None
    from lightning_adapt.lina_speech.model.state import State

    return State.load(options.voice)


def _speak(
    module: LinaSpeechModule,
    texts: list[str],
    voice: State | None,
    options: argparse.Namespace,
    progress: Callable[[float], None],
) -> list[Speech]:
    drawn: dict[str, Any] = {name: getattr(options, name) for name in ("temperature", "top_p", "n_best", "seed")}
    drawn |= {"max_seconds": options.max_seconds} if "max_seconds" in options else {}
    return module.generate(texts, voice, top_k=options.top_k or None, progress=progress, **drawn)


# -- what is seen ------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _bar() -> Iterator[Callable[[float], None]]:
    """Give a function that shows the seconds of audio so far; it goes to the error stream."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("speaking", total=None)
        yield lambda seconds: progress.update(bar, description=f"speaking: {seconds:.1f} s of audio")


def _print_summary(spoken: list[Speech], files: list[Path], seconds: float) -> None:
    """Print the files, which of them were cut off, and how fast it went."""
    from rich.console import Console

    audio = sum(speech.seconds for speech in spoken)
    lines = [
        f"Wrote {file} ({speech.seconds:.2f} s{'' if speech.stopped else ', cut off at the limit'})"
        for speech, file in zip(spoken, files, strict=True)
    ]
    factor = f"real-time factor {seconds / audio:.2f} (below 1: faster than it plays)"
    lines.append(f"{audio:.2f} s of audio in {seconds:.2f} s, {factor}")
    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
