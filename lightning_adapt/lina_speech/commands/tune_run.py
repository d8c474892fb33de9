"""The work of `lightning-adapt tune-voice`: a model, recordings and a Trainer in, a voice and what it took out."""

from __future__ import annotations

import argparse
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_adapt._shared.quiet import quiet_lightning
from lightning_adapt.lina_speech.commands.parts import load_module
from lightning_adapt.lina_speech.commands.recordings import look_at
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.data.left_out import Report
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from lightning_adapt.lina_speech.voices.voice import Voice

__all__ = ["Steps", "Tuned", "tune"]

BATCH_SIZE = 4  # utterances per step; the authors take 2 and add up the gradients of 4 such batches
MOST_STEPS_BETWEEN_VALIDATIONS = 10
LITTLE_SECONDS = 60.0
FAST, SLOW = 1.0, 0.1  # learning rates for some hundred steps: slow for full matrices and where there is little speech

# takes the step, the held-out loss and that without tuning, which are None until they were measured
Steps = Callable[[int, float | None, float | None], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Tuned:
    """A voice and what it took.

    Attributes:
        voice: The voice.
        callback: What tuned it.
        train: Utterances tuned on and their seconds.
        held_out: Utterances held out and their seconds.
        report: What was left out.
        mixed: Recordings that were mixed down to one channel.
        steps: Optimizer steps that were made.
        improving: Whether the last measurement of the held-out loss was the best.
        seconds: Time that tuning took, validations included.
    """

    voice: Voice
    callback: InitialStateTuning
    train: tuple[int, float]
    held_out: tuple[int, float]
    report: Report
    mixed: int
    steps: int
    improving: bool
    seconds: float


def tune(
    options: argparse.Namespace,
    rows: list[Row],
    val: float | list[Row],
    bar: Callable[[], Any],
    warn: Callable[[str], None],
) -> Tuned:
    """Tune a voice.

    Args:
        options: What the parser of the command read.
        rows: Rows of the manifest to tune on.
        val: The share of them to hold out, or rows.
        bar: Makes a context that shows progress and gives a `Steps`.
        warn: Is told what the user should know before it takes long.

    Returns:
        The voice; no file is written.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed, also where Lightning catches it.
        ValueError: If model or recordings cannot be used.
    """
    with quiet_lightning():
        warnings.filterwarnings("ignore", message="Nothing that was tuned was better")  # the summary says it
        module = _module(options)
        data = _data(options, module, rows, val)
        sets = [chosen for chosen in (data.train_set, data.val_set) if chosen is not None]
        heard = look_at(_paths(rows, val, sets), module.codec.sample_rate_hz)
        _warn(module, sets, heard.warnings(module.codec.sample_rate_hz), warn)
        little = float(data.train_set.seconds.sum()) < LITTLE_SECONDS
        callback = _callback(options, held_out=bool(val), rate=SLOW if little or options.rank == "full" else FAST)
        started = time.perf_counter()
        with bar() as show:
            shown = _Shown(show)
            steps = _fit(options, module, data, [callback, shown])
        seconds = time.perf_counter() - started
    measures = [(len(chosen), float(chosen.seconds.sum())) for chosen in sets]
    return Tuned(
        callback.tuned,
        callback,
        train=measures[0],
        held_out=measures[1] if len(measures) > 1 else (0, 0.0),
        report=data.report,
        mixed=heard.mixed,
        steps=steps,
        improving=shown.improving,
        seconds=seconds,
    )


# -- what it is made of ------------------------------------------------------------------------------------------------
def _module(options: argparse.Namespace) -> LinaSpeechModule:
    silent = {"n_audio_samples": 0, "log_figure": False, "compile_model": False}  # not worth it for so few steps
    module = load_module(options, **silent)
    if module.codec is None:
        raise ValueError(
            f"--checkpoint {str(options.checkpoint)!r} holds no codec. Pass the one it was trained with as --codec."
        )
    if module.tokenizer is None:
        raise ValueError(
            f"--checkpoint {str(options.checkpoint)!r} holds no tokenizer. Train with one of this package."
        )
    return module


def _data(
    options: argparse.Namespace, module: LinaSpeechModule, rows: list[Row], val: float | list[Row]
) -> TextSpeechDataModule:
    limits = {"tokens_per_batch": options.tokens_per_batch, "max_batch_size": BATCH_SIZE, "join_probability": 0.0}
    parts = {"codec": module.codec, "tokenizer": module.tokenizer}
    data = TextSpeechDataModule(rows, val=val, **limits, **parts, seed=options.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TextSpeechDataModule: .* left out")  # listed at the end
        try:
            data.prepare_data()
            report = data.report
            if isinstance(val, float) and val and report.rows - len(report.left_out) < 2:
                raise ValueError(
                    f"--manifest has one usable recording of {report.rows} ({report.summary()}), and --val {val} "
                    "needs two. Record more, or pass --val 0 to hold none out."
                )
            data.setup("fit")
        except ValueError as error:
            raise ValueError(_in_options(str(error), options)) from error
    return data


def _in_options(text: str, options: argparse.Namespace) -> str:
    """Return an error text of the DataModule as one of the command's options."""
    for argument, option, given in (("data", "--manifest", options.manifest), ("val", "--val", options.val)):
        text = text.replace(f"`{argument}`", f"{option} {str(given)!r}")
    return text


def _paths(rows: list[Row], val: float | list[Row], sets: list[Any]) -> list[str]:
    parts = [(rows, sets)] if isinstance(val, float) else [(rows, sets[:1]), (val, sets[1:])]
    found = []
    for known, chosen in parts:  # ids are those of one manifest
        used = {name for one in chosen for name in one.ids}
        found += [row["audio"] for row in known if row["id"] in used]
    return found


def _warn(module: LinaSpeechModule, sets: list[Any], found: list[str], warn: Callable[[str], None]) -> None:
    """Say what may be wrong with recordings and texts, each thing once."""
    for text in found:
        warn(text)
    count, seconds = len(sets[0]), float(sets[0].seconds.sum())
    if seconds < LITTLE_SECONDS:
        utterances = f"{seconds:.1f} s of speech in {count} utterance{'' if count == 1 else 's'}"
        warn(f"there is little to learn from: {utterances}. A minute or more is better.")
    texts = [text for chosen in sets for text in chosen.texts]
    joined = getattr(module.tokenizer, "encode_joined", None)  # all at once, so that unknown characters are one warning
    module.tokenizer.encode(" ".join(texts)) if joined is None else joined(texts)


def _callback(options: argparse.Namespace, *, held_out: bool, rate: float) -> InitialStateTuning:
    return InitialStateTuning(
        options.name,
        rank=options.rank,
        learning_rate=getattr(options, "learning_rate", rate),
        patience=options.patience if held_out and options.patience else None,
        max_steps=options.steps,
        consent=getattr(options, "consent", None),
        seed=options.seed,
    )


# -- the run -----------------------------------------------------------------------------------------------------------
def _fit(
    options: argparse.Namespace, module: LinaSpeechModule, data: TextSpeechDataModule, callbacks: list[Callback]
) -> int:
    """Run the Trainer and return the number of steps it made."""
    every = max(1, min(MOST_STEPS_BETWEEN_VALIDATIONS, options.steps // 10))
    validation: dict[str, Any] = (
        {} if data.val_set is None else {"val_check_interval": every, "check_val_every_n_epoch": None}
    )
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet: dict[str, Any] = {**dict.fromkeys(names, False), "num_sanity_val_steps": 0}
    trainer = Trainer(
        max_steps=options.steps, max_epochs=-1, callbacks=callbacks, **_place(module), **validation, **quiet
    )
    with _interruptible(trainer):
        try:
            trainer.fit(module, datamodule=data)
        except MisconfigurationException as error:
            raise ValueError(str(error)) from error
    return trainer.global_step


def _place(module: LinaSpeechModule) -> dict[str, Any]:
    device = module.device
    if device.type == "cpu":
        return {"accelerator": "cpu", "devices": 1}
    accelerator = "gpu" if device.type == "cuda" else device.type
    return {"accelerator": accelerator, "devices": [device.index or 0]}


@contextmanager
def _interruptible(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C end the run as a KeyboardInterrupt: Lightning makes an exit of it, and ignores any further one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


class _Shown(Callback):
    """Tells a `Steps` after each step and each validation, and remembers whether the last loss was the best."""

    def __init__(self, show: Steps) -> None:
        self.show = show
        self.improving = False
        self._best = math.inf

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        self._tell(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss, untuned = self._tell(trainer)
        if loss is not None and untuned is not None:
            before = min(self._best, untuned)
            self.improving, self._best = loss < before, min(loss, before)

    def _tell(self, trainer: Trainer) -> tuple[float | None, float | None]:
        found = [trainer.callback_metrics.get(f"lina/held_out_{name}") for name in ("loss", "untuned")]
        loss, untuned = (None if value is None else float(value) for value in found)
        self.show(trainer.global_step, loss, untuned)
        return loss, untuned
