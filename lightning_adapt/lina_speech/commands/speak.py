"""`lightning-adapt speak`: its arguments, its progress bar, its errors of one line and its summary."""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lightning_adapt._shared.commands import NEEDED, OPTIONAL, print_lines, run_command, say
from lightning_adapt.lina_speech.commands.parts import (
    Ranges,
    add_checkpoint_argument,
    add_model_arguments,
    check_file,
    check_numbers,
    check_writable,
    load_module,
)

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.inference.speech import Speech
    from lightning_adapt.lina_speech.module import LinaSpeechModule
    from lightning_adapt.lina_speech.voices.voice import Voice

__all__ = ["HELP", "add_arguments", "run"]

# torch and all that is heavy is imported in `run`: the parser of every other command passes through here
HELP = "Speak texts with a trained Lina-Speech model to sound files."
SOUNDS = (".wav", ".flac", ".ogg")
SHORT_SECONDS, SHORT_SECONDS_PER_CHARACTER = 0.2, 0.02  # nobody says anything, or a text, in less
RANGES: Ranges = {
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
    add_checkpoint_argument(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    say = "what to say; may be repeated"
    source.add_argument("--text", action="append", metavar="TEXT", help=say, **OPTIONAL)
    lines = "a file with a text per line; empty lines are left out"
    source.add_argument("--text-file", type=Path, metavar="FILE", help=lines, **OPTIONAL)
    out = "sound file, replaced if it is there (several texts: NAME-1.wav, NAME-2.wav ...), or a folder for 1.wav ..."
    add("--out", type=Path, metavar="FILE", help=out, **NEEDED)
    voice = "a voice of this checkpoint, as `lightning-adapt tune-voice` or Voice.save writes it"
    add("--voice", type=Path, metavar="FILE", help=voice, **OPTIONAL)
    add("--temperature", type=float, default=1.0, help="smaller is more monotonous; 0 takes the most probable code")
    add("--top-k", type=int, default=100, metavar="K", help="draw among the K most probable codes; 0 for all")
    add("--top-p", type=float, default=1.0, metavar="P", help="draw among the fewest codes of this probability")
    add("--n-best", type=int, default=1, metavar="N", help="attempts per text, of which the best is kept")
    add(
        "--max-seconds",
        type=float,
        metavar="S",
        help="longest audio per text; else what the model was made for",
        **OPTIONAL,
    )
    add("--seed", type=int, default=0, help="the same seed gives the same audio")
    add_model_arguments(parser)


def run(options: argparse.Namespace, fail: Callable[[str], NoReturn]) -> int:
    """Run the command.

    Args:
        options: What the parser of `add_arguments` read.
        fail: Ends the program with a message of one line.

    Returns:
        0 after success, 130 after Ctrl-C.
    """

    def work(written: list[Path]) -> None:
        check_numbers(options, RANGES)
        texts = _texts(options)
        files = _files(options.out, len(texts))  # before the model is loaded: a mistake shows at once
        voice = _voice(options)
        module = load_module(options)
        with _bar() as progress:
            started = time.perf_counter()
            spoken = _speak(module, texts, voice, options, progress)
            seconds = time.perf_counter() - started
        for speech, file in zip(spoken, files, strict=True):
            written.append(speech.save(file))
        _print_summary(spoken, files, seconds)
        _warn_of_short(spoken, files, options.n_best)

    return run_command("speak", options, fail, work)


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
    check_file("--text-file", file, "Pass a file with a text on each line.")
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
    check_writable("--out", out, files)
    return files


# -- the voice ---------------------------------------------------------------------------------------------------------
def _voice(options: argparse.Namespace) -> Voice | None:
    if "voice" not in options:
        return None
    check_file("--voice", options.voice, "Make one by `lightning-adapt tune-voice`.")
    from lightning_adapt.lina_speech.saved_parts import saved_content
    from lightning_adapt.lina_speech.voices.voice import Voice

    if saved_content(options.voice) is not None:
        checkpoint = "is a checkpoint, no voice. Pass it as --checkpoint, and the voice as --voice."
        raise ValueError(f"--voice {str(options.voice)!r} {checkpoint}")
    try:
        return Voice.load(options.voice)
    except ValueError as error:
        raise ValueError(f"--voice: {error}") from error


def _speak(
    module: LinaSpeechModule,
    texts: list[str],
    voice: Voice | None,
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
    audio = sum(speech.seconds for speech in spoken)
    lines = [
        f"Wrote {file} ({speech.seconds:.2f} s{'' if speech.stopped else ', cut off at the limit'})"
        for speech, file in zip(spoken, files, strict=True)
    ]
    factor = f"real-time factor {seconds / audio:.2f} (below 1: faster than it plays)"
    lines.append(f"{audio:.2f} s of audio in {seconds:.2f} s, {factor}")
    print_lines(lines)


def _warn_of_short(spoken: list[Speech], files: list[Path], n_best: int) -> None:
    """Say which texts ended by themselves before they can have been said."""
    short = [
        f"{file} ({speech.seconds:.2f} s for {len(speech.text)} characters)"
        for speech, file in zip(spoken, files, strict=True)
        if speech.stopped and speech.seconds < max(SHORT_SECONDS, SHORT_SECONDS_PER_CHARACTER * len(speech.text))
    ]
    if short:
        shown = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
        say("speak", f"{shown} ended at once: try --n-best {max(3, 2 * n_best)} or another --seed.")
