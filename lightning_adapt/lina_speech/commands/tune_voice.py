"""`lightning-adapt tune-voice`: its arguments, its progress bar, its errors of one line and its summary."""

from __future__ import annotations

import argparse
import contextlib
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lightning_adapt._shared.checks import read_number
from lightning_adapt._shared.commands import NEEDED, OPTIONAL, print_lines, run_command, say
from lightning_adapt._shared.imports import require
from lightning_adapt.lina_speech.commands.parts import (
    Ranges,
    add_checkpoint_argument,
    add_model_arguments,
    check_file,
    check_numbers,
    check_writable,
)
from lightning_adapt.lina_speech.commands.tune_rows import held_out_rows, rows_of_speaker

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.commands.tune_run import Steps, Tuned

__all__ = ["HELP", "add_arguments", "run"]

# torch and all that is heavy is imported in `run`: the parser of every other command passes through here
HELP = "Learn a voice from recordings for a Lina-Speech model."
FIGURES = (".png", ".svg", ".pdf")
RANGES: Ranges = {
    "steps": (lambda value: value >= 1, "a whole number, 1 or more"),
    "learning_rate": (lambda value: 0 < value < math.inf, "a number above 0"),
    "patience": (lambda value: value >= 0, "a whole number, 1 or more, or 0 to go on to the last step"),
    "tokens_per_batch": (lambda value: value >= 1, "a whole number, 1 or more"),
    "seed": (lambda value: 0 <= value <= 2**62, "a whole number >= 0"),
}
_LISTED = 10  # recordings that were left out; more are in the file
CONSENT = (
    "no --consent was given: tune the voices of people who agreed only, and say of synthetic speech that it is one."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Args:
        parser: The parser of the command.
    """
    add = parser.add_argument
    add_checkpoint_argument(parser)
    manifest = "recordings of the speaker with their texts: CSV, jsonl, LJSpeech's metadata.csv or LibriTTS's folders"
    add("--manifest", type=Path, metavar="FILE", help=manifest, **NEEDED)
    add("--out", type=Path, metavar="FILE", help="voice file (.safetensors), replaced if it is there", **NEEDED)
    add(
        "--speaker",
        metavar="NAME",
        help="only rows of this speaker; needed if the manifest names several",
        **OPTIONAL,
    )
    add("--name", metavar="NAME", help="name of the voice; else that of the file", **OPTIONAL)
    add("--consent", metavar="TEXT", help="who agreed to this voice, and to what; kept in the file", **OPTIONAL)
    ranks = "size of the voice: matrices of this rank, or 'full' ones, which take far more speech and disk"
    add("--rank", type=_rank, default=4, metavar="R", help=ranks)
    add("--steps", type=int, default=200, metavar="N", help="most steps, of up to 4 utterances each")
    rate = "of Adam; else 1.0, or 0.1 for full matrices and for less than a minute of speech (the authors take 0.1)"
    add("--learning-rate", type=float, metavar="LR", help=rate, **OPTIONAL)
    checks = "stop after so many measurements of the held-out loss (one each 10 steps) without a better one; 0: never"
    add("--patience", type=int, default=5, metavar="N", help=checks)
    held_out = "utterances to hold out: a share (0.1 or 10%%), at least one, or a manifest; 0: none, and no early stop"
    add("--val", type=_share_or_file, default=0.2, metavar="SHARE", help=held_out)
    tokens = "most codec frames of a step, padding included"
    add("--tokens-per-batch", type=int, default=4000, metavar="N", help=tokens)
    add("--seed", type=int, default=0, help="of the first state, the held-out share and the order")
    figure = f"picture of the held-out loss over the steps ({', '.join(FIGURES)})"
    add("--figure", type=Path, metavar="FILE", help=figure, **OPTIONAL)
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
        rows, val = _checked(options)
        from lightning_adapt.lina_speech.commands.tune_run import tune

        tuned = tune(options, rows, val, lambda: _bar(options.steps), _say)
        tuned.voice.save(options.out)
        written.append(options.out)
        if "figure" in options:
            written.append(_save_figure(tuned, options.figure))
        print_lines(_summary(tuned, options, written))

    return run_command("tune-voice", options, fail, work)


def _say(text: str) -> None:
    say("tune-voice", text)


# -- what the user passed ----------------------------------------------------------------------------------------------
def _rank(text: str) -> int | str:
    try:
        rank = text if text == "full" else int(text)
    except ValueError:
        rank = 0
    if rank != "full" and int(rank) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, or 'full', but got {text!r}")
    return rank


def _share_or_file(text: str) -> float | Path:
    try:
        share = float(read_number(text))
    except ValueError:
        return Path(text)
    if not 0 <= share < 1:
        allowed = "a share in [0, 1) such as 0.1 or 10%, or a manifest"
        raise argparse.ArgumentTypeError(f"must be {allowed}, but got {text!r}")
    return share


def _checked(options: argparse.Namespace) -> tuple[list[dict[str, Any]], Any]:
    """Return the rows to tune on and what is held out; mistakes show before a model is loaded."""
    check_numbers(options, RANGES)
    check_file("--checkpoint", options.checkpoint, "Pass one that a Trainer saved.")
    _check_target("--out", options.out, (".safetensors",))
    if "figure" in options:
        _check_target("--figure", options.figure, FIGURES)
        require("figures", "--figure", "matplotlib")
    options.name = getattr(options, "name", options.out.stem)
    for name in ("name", "consent"):
        if name in options and not getattr(options, name).strip():
            raise ValueError(f"--{name} must have something in it, but got {getattr(options, name)!r}.")
    rows = rows_of_speaker(options.manifest, getattr(options, "speaker", None))
    val = held_out_rows(options.val, rows)
    if "consent" not in options:
        _say(CONSENT)
    return rows, val


def _check_target(option: str, path: Path, endings: tuple[str, ...]) -> None:
    if path.suffix.lower() not in endings:
        raise ValueError(f"{option} must end in {', '.join(endings)}, but got {str(path)!r}.")
    check_writable(option, path, [path])


# -- what is seen ------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _bar(steps: int) -> Iterator[Steps]:
    """Give a function that shows the step and the held-out losses; it goes to the error stream."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("tuning"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=steps)

        def show(step: int, loss: float | None, untuned: float | None) -> None:
            held_out = "" if loss is None or untuned is None else f"held-out loss {loss:.3f}, untuned {untuned:.3f}"
            progress.update(bar, completed=step, description=held_out)

        yield show


def _save_figure(tuned: Tuned, path: Path) -> Path:
    from lightning_adapt._shared.figures import save_figure

    return save_figure(tuned.callback.figure(), path)


def _summary(tuned: Tuned, options: argparse.Namespace, written: list[Path]) -> list[str]:
    """Return what was written, what it was made of, how it went, and how it is used."""
    voice = tuned.voice
    lines = [f"Wrote {options.out} ({options.out.stat().st_size:,} bytes): the voice {voice.name!r}, rank {voice.rank}"]
    lines += [f"Wrote {path}" for path in written[1:]]
    lines.append(f"Speech: {_measure(tuned.train)}; held out: {_measure(tuned.held_out)}")
    if tuned.mixed:
        lines.append(f"Mixed down to one channel: {tuned.mixed} recordings")
    lines += _left_out(tuned)
    lines.append(f"Tuning: {tuned.steps} of up to {options.steps} steps in {tuned.seconds:.1f} s")
    lines += _losses(tuned)
    files = f"--checkpoint {shlex.quote(str(options.checkpoint))} --voice {shlex.quote(str(options.out))}"
    lines.append(f'Use it: lightning-adapt speak {files} --text "Good morning." --out morning.wav')
    return lines


def _measure(part: tuple[int, float]) -> str:
    return f"{part[1]:.1f} s in {part[0]} utterance{'' if part[0] == 1 else 's'}" if part[0] else "none"


def _left_out(tuned: Tuned) -> list[str]:
    report = tuned.report
    if not report.left_out:
        return []
    lines = [f"Left out: {len(report.left_out)} of {report.rows} recordings ({report.summary()})"]
    lines += [f"  {entry.place}: {entry.reason} ({entry.detail or entry.id})" for entry in report.left_out[:_LISTED]]
    if len(report.left_out) > _LISTED:
        lines.append(f"  and {len(report.left_out) - _LISTED} more, all listed in {report.path}")
    return lines


def _losses(tuned: Tuned) -> list[str]:
    found = tuned.voice.held_out
    if found is None:
        return ["Held-out loss: not measured; the voice is that of the last step"]
    untuned, best = found["untuned"], found["tuned"]
    lines = [f"Held-out loss: {untuned:.3f} untuned -> {best:.3f} tuned (nats per code)"]
    if best >= untuned:
        lines.append(
            "Tuning did not help: no step was better on what was held out. The voice is the model's own, unchanged. "
            "Record more, or try a lower learning rate or rank."
        )
    elif tuned.improving:
        lines.append("It was still getting better at the last step: more --steps or a higher --learning-rate may help.")
    return lines
