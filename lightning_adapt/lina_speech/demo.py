"""The Lina-Speech section of the demo: a tiny model learns to speak, and then takes on a voice that it never heard."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adapt._shared.demo_frame import Arm, Context, nbsp, one_thread, table_rows
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report_parts import Audio, Cell, Column, Finding, Picture, Score, Section, Usage
from lightning_adapt.lina_speech.demo_fit import Found, Task, fit
from lightning_adapt.lina_speech.demo_voice_table import engine_name, voice_finding, wav
from lightning_adapt.lina_speech.demo_voices import VoiceTask
from lightning_adapt.lina_speech.figures import alignment_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["USAGE", "run"]

_COLUMNS = (
    Column("held-out loss", "nats a code", 3, "lower"),
    Column("against the bigram", "nats", 3, "lower"),
    Column("codes it wavers between", "", 1, "lower"),
)
_QUICK = Task(2, 20, 32, 25, 500, 2, VoiceTask(2, 6, 2, 2, 4, 300))
_WHOLE = Task(3, 100, 64, 100, 450, 8, VoiceTask(3, 20, 6, 12, 40, 300))
_ARMS = {
    "unigram": Arm("how often each code comes", "baseline"),
    "bigram": Arm("what follows each code", "baseline"),
    "exchanged": Arm("ours, reading the wrong sentences", "control"),
    "ours": Arm("Lina-Speech, tiny", "ours"),
}
USAGE = Usage(
    command="""lightning-adapt overlay lina_speech > lina_speech.yaml
lightning-adapt fit --config mine.yaml \\
  --config lina_speech.yaml --data.data metadata.csv
# then a voice from minutes of recordings:
lightning-adapt tune-voice --checkpoint last.ckpt \\
  --manifest anna.csv --out anna.safetensors
lightning-adapt speak --checkpoint last.ckpt \\
  --voice anna.safetensors \\
  --text "Good morning." --out anna.wav""",
    python="""from lightning_adapt import (
    InitialStateTuning, LinaSpeechModule,
    TextSpeechDataModule,
)

data = TextSpeechDataModule("LJSpeech-1.1/metadata.csv")
module = LinaSpeechModule("tiny")
L.Trainer(max_steps=2_000).fit(module, data)
(speech,) = module.generate(["Good morning."])
# then a voice, with the weights as they are:
tuning = InitialStateTuning("anna")
L.Trainer(callbacks=[tuning]).fit(module, annas_data)""",
    yaml="""model:
  class_path: lightning_adapt.LinaSpeechModule
  init_args:
    preset: tiny
data:
  class_path: lightning_adapt.TextSpeechDataModule
  init_args:
    data: metadata.csv""",
)


def run(context: Context) -> Section:
    """Train the model, measure it beside its baselines and its control, and return what was found and heard.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    require("speech", "The Lina-Speech demo", "torchaudio", "safetensors")
    task = _QUICK if context.quick else _WHOLE
    context.start(task.all_steps)
    with one_thread():
        found = fit(task, context.advance, context.doing)
    return Section(
        method="lina_speech",
        title="Lina-Speech: text-to-speech with a memory of fixed size",
        problem="You have recordings and their texts, and want a model that speaks, small enough to train yourself, "
        "and able to take on a further voice.",
        findings=(_finding(task, found), voice_finding(task.voice, found.cloned)),
        usage=USAGE,
    )


def _finding(task: Task, found: Found) -> Finding:
    return Finding(
        caption="Predicting the next code",
        columns=_COLUMNS,
        rows=table_rows(_ARMS, lambda row: _cells(found.losses, row)),
        setting=f"{task.voices} voices of {engine_name(found.engine)}, {task.utterances} sentences of 3 to 6 words "
        f"each, a tenth held out; one codebook of {task.codes} codes at 50 Hz, fitted on the training sentences; 1.3 M "
        f"parameters, {task.steps} steps of up to {task.frames} frames. One seed.",
        gained=nbsp(_gained(found)),
        not_gained=nbsp(_not_gained(task, found)),
        score=_score(found.losses),
        pictures=_pictures(found),
        audio=_audio(found),
    )


def _cells(losses: dict[str, float], row: str) -> tuple[Cell, ...]:
    return Cell(losses[row]), Cell(losses[row] - losses["bigram"]), Cell(math.exp(losses[row]))


# -- words, from the numbers of the table, whichever way they fell out ------------------------------------------------
def _gained(found: Found) -> str:
    losses = found.losses
    gain = losses["ours"] - losses["bigram"]
    side = "below" if gain < 0 else "above"
    return (
        f"{'After' if gain < 0 else 'Nothing yet: after'} {found.seconds:.0f} s of one core the loss is "
        f"{losses['ours']:.3f}, {abs(gain):.3f} nats {side} the {losses['bigram']:.3f} of the best mixture of bigram "
        "and unigram."
    )


def _not_gained(task: Task, found: Found) -> str:
    losses = found.losses
    return (
        f"Words: with the sentences exchanged among the recordings the loss is {losses['exchanged']:.3f}: "
        f"{_reads(losses)}. {found.stopped} of {task.spoken} new sentences ended by themselves. The codec sets the "
        "limit of what you hear, so the recording is there after it, too."
    )


def _reads(losses: dict[str, float]) -> str:
    worth = losses["exchanged"] - losses["ours"]
    if worth > 0:  # seconds of training; minutes give words their order (lina_train)
        return f"the text is worth {worth:.3f}, little as yet: expect babble"
    return "so far it does not read what it says"


def _score(losses: dict[str, float]) -> Score:
    gain = losses["ours"] - losses["bigram"]
    return Score(
        measure="held-out loss, nats a code",
        baseline="the best bigram",
        without=f"{losses['bigram']:.3f}",
        ours=f"{losses['ours']:.3f}",
        change=f"{gain:+.3f}, one seed",
        result="better" if gain < 0 else "worse",
        but=_reads(losses),
    )


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
            f"A map of {found.speech.alignment.shape[0]} frames by {found.speech.alignment.shape[1]} characters. The "
            f"place that a frame looks at most has a correlation of {_reading(found.speech.alignment):.2f} with time; "
            "reading would be a line from corner to corner, 1.",
            partial(_alignment_figure, found),
        ),
    )


def _reading(alignment: Tensor) -> float:
    """Return the correlation of time with the character that is looked at most; 0 where it is always the same."""
    places = alignment.argmax(1).float()
    both = torch.stack([torch.arange(len(places), device=places.device).float(), places])
    return float(torch.corrcoef(both)[0, 1].nan_to_num())


def _loss_figure(found: Found) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    steps, values = zip(*found.curve, strict=True)
    axes.plot(steps, values, label="ours, training")
    for number, (row, (name, _)) in enumerate(_ARMS.items()):
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
