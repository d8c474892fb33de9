"""The Lina-Speech section of the demo: a tiny model learns to speak, and then takes on a voice that it never heard."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

from lightning_adapt._shared.demo_training import one_thread
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report import Audio, Cell, Column, Kind, Picture, Row, Section
from lightning_adapt.lina_speech.demo_fit import Found, Task, fit
from lightning_adapt.lina_speech.demo_voice_table import engine_name, voice_audio, voice_picture, voice_table, wav
from lightning_adapt.lina_speech.demo_voices import VoiceTask
from lightning_adapt.lina_speech.figures import alignment_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_adapt.demo import DemoContext

__all__ = ["run"]

_NBSP = "\N{NO-BREAK SPACE}"
_COLUMNS = (
    Column("held-out loss", "nats a code", 3),
    Column("against the bigram", "nats", 3),
    Column("codes it wavers between", "", 1),
)
_QUICK = Task(2, 20, 32, 25, 500, 2, VoiceTask(2, 6, 2, 2, 4, 300))
_WHOLE = Task(3, 100, 64, 130, 450, 8, VoiceTask(3, 20, 6, 12, 40, 300))
_ROWS: dict[str, tuple[str, Kind]] = {
    "unigram": ("how often each code comes", "baseline"),
    "bigram": ("what follows each code", "baseline"),
    "exchanged": ("ours, reading the wrong sentences", "control"),
    "ours": ("Lina-Speech, tiny", "ours"),
}
_USAGE = (
    (
        "In a script",
        "from lightning_adapt import LinaSpeechModule, TextSpeechDataModule\n\n"
        'data = TextSpeechDataModule("LJSpeech-1.1/metadata.csv")  # or jsonl, CSV, rows of yours\n'
        'module = LinaSpeechModule("tiny")\n'
        "L.Trainer(max_steps=2_000, gradient_clip_val=1.0).fit(module, data)\n"
        '(speech,) = module.generate(["Good morning."])\n'
        'speech.save("morning.wav")',
    ),
    (
        "On the command line, with your own YAML",
        "lightning-adapt overlay lina_speech > lina_speech.yaml\n"
        "lightning-adapt fit --config mine.yaml --config lina_speech.yaml --data.data metadata.csv",
    ),
    (
        "From a checkpoint to a sound file",
        'lightning-adapt speak --checkpoint last.ckpt --text "Good morning." --out morning.wav',
    ),
    (
        "A voice from minutes of recordings, with the weights as they are",
        "lightning-adapt tune-voice --checkpoint last.ckpt --manifest anna.csv --out anna.safetensors\n"
        "lightning-adapt speak --checkpoint last.ckpt --voice anna.safetensors "
        '--text "Good morning." --out anna.wav',
    ),
)


def run(context: DemoContext) -> Section:
    """Train the model, measure it beside its baselines and its control, and return what was found and heard.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    require("figures", "The Lina-Speech demo", "matplotlib")
    require("speech", "The Lina-Speech demo", "torchaudio", "safetensors")
    began = time.perf_counter()
    task = _QUICK if context.quick else _WHOLE
    context.start(total=task.all_steps)
    with one_thread():
        found = fit(task, context.advance, context.doing)
    context.doing("Lina-Speech")
    return _section(task, found, time.perf_counter() - began)


def _section(task: Task, found: Found, seconds: float) -> Section:
    engine = engine_name(found.engine)
    return Section(
        method="lina_speech",
        title="Lina-Speech: text-to-speech with a memory of fixed size",
        problem="You have recordings and their texts, and want a model that speaks, small enough to train yourself, "
        "and able to take on a further voice.",
        setting=f"{task.voices} voices of {engine}, {task.utterances} sentences of 3 to 6 words each, a tenth held "
        f"out; one codebook of {task.codes} codes at 50 Hz, fitted on the training sentences; 1.3 M parameters, "
        f"{task.steps} steps of up to {task.frames} frames. One seed.",
        table_caption="Predicting the next code",
        columns=_COLUMNS,
        rows=tuple(Row(name, kind, _cells(found.losses, row)) for row, (name, kind) in _ROWS.items()),
        verdict=_verdict(task, found),
        usage=_USAGE,
        seconds=seconds,
        pictures=(*_pictures(found), voice_picture(found.cloned)),
        audio=(*_audio(found), *voice_audio(found.cloned)),
        more=(voice_table(task.voice, found.cloned),),
    )


def _cells(losses: dict[str, float], row: str) -> tuple[Cell, ...]:
    return Cell(losses[row]), Cell(losses[row] - losses["bigram"]), Cell(math.exp(losses[row]))


def _verdict(task: Task, found: Found) -> str:
    """Word the result from the numbers of the table, whichever way they fell out."""
    losses = found.losses
    text = (
        f"After {found.seconds:.0f} s of one core its loss is {losses['ours']:.3f}, {_against(losses, 'bigram')} the "
        f"{losses['bigram']:.3f} of the best mixture of bigram and unigram. With the sentences exchanged among the "
        f"recordings it is {losses['exchanged']:.3f}: {_reads(losses)}. {found.stopped} of {task.spoken} new sentences "
        "ended by themselves. The codec sets the limit of what you hear, so the recording is there after it, too."
    )
    return text.replace(" s of one core", f"{_NBSP}s of one core")


def _against(losses: dict[str, float], other: str) -> str:
    gain = losses["ours"] - losses[other]
    return f"{abs(gain):.3f} {'below' if gain < 0 else 'above'}"


def _reads(losses: dict[str, float]) -> str:
    if losses["exchanged"] > losses["ours"]:  # seconds of training; minutes give words their order (lina_train)
        return f"the text is worth {losses['exchanged'] - losses['ours']:.3f}, little as yet: expect babble, not words"
    return "so far it does not read what it says"


# -- what is seen and heard --------------------------------------------------------------------------------------------
def _pictures(found: Found) -> tuple[Picture, ...]:
    losses = found.losses
    return (
        Picture(
            "loss",
            "Training loss, and the held-out losses of the table as lines.",
            f"A line that falls from {found.curve[0][1]:.1f} to {found.curve[-1][1]:.1f} nats over "
            f"{found.curve[-1][0]} steps, beside the bigram at {losses['bigram']:.1f} and the unigram at "
            f"{losses['unigram']:.1f}.",
            partial(_loss_figure, found),
        ),
        Picture(
            "alignment",
            f"Where in the text each frame looked while it said {found.speech.text!r}; reading would be one line.",
            f"A map of {found.speech.alignment.shape[0]} frames by {found.speech.alignment.shape[1]} characters; "
            "a model that reads has a line from one corner to the other.",
            partial(_alignment_figure, found),
        ),
    )


def _loss_figure(found: Found) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    steps, values = zip(*found.curve, strict=True)
    axes.plot(steps, values, label="ours, training")
    for number, (row, (name, _)) in enumerate(_ROWS.items()):
        axes.axhline(found.losses[row], color=f"C{number + 1}", linestyle="--", linewidth=1, label=name)
    axes.set(xlabel="step", ylabel="loss, nats a code")
    axes.legend(frameon=False, fontsize="small")
    return figure


def _alignment_figure(found: Found) -> Figure:
    speech = found.speech
    return alignment_figure(speech.alignment, found.labels, frame_rate_hz=found.frame_rate_hz)


def _audio(found: Found) -> tuple[Audio, ...]:
    rate, text = found.speech.sample_rate_hz, found.original["text"]
    return (
        Audio("speech", f"Synthetic, from its training: {found.speech.text}", wav(found.speech.audio, rate)),
        Audio("codec", f"A held-out recording after the codec: {text}", wav(found.decoded, rate)),
        Audio("recording", f"The recording: {text}", wav(found.original["audio"], rate)),
    )
