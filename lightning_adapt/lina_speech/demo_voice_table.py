"""The part of the Lina-Speech section about a new voice: its table, what it says, its figure and what is heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lightning_adapt._shared.demo_frame import Arm, nbsp, table_rows
from lightning_adapt._shared.report_parts import Audio, Cell, Column, Finding, Picture, Score
from lightning_adapt.lina_speech.corpus.wave_files import pcm16, wave_bytes

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.demo_voices import Cloned, VoiceTask

__all__ = ["engine_name", "voice_finding", "wav"]

_COLUMNS = (
    Column("loss, the new voice", "nats a code", 3, "lower"),
    Column("loss, the voices it knew", "nats a code", 3, "lower"),
    Column("kept for the voice", "kB", 1, "lower"),
)
_ARMS = {
    "untuned": Arm("the model as it is", "baseline"),
    "prompt": Arm("after one recording (prompt)", "baseline"),
    "finetuned": Arm("all weights fine-tuned", "control"),
    "tuned": Arm("initial state tuned, rank 4", "ours"),
}
_ENGINES = {"espeak": "espeak-ng", "formant": "a built-in formant synthesiser"}


def engine_name(engine: str) -> str:
    """Return the name of a speech synthesiser for people."""
    return _ENGINES.get(engine, engine)


def voice_finding(task: VoiceTask, cloned: Cloned) -> Finding:
    """Return what was found with the new voice.

    Args:
        task: Sizes.
        cloned: What was measured.

    Returns:
        The table with its words, its figure and its sounds.
    """
    engine = engine_name(cloned.speaker.partition(":")[0])
    return Finding(
        caption="A voice that the model never heard",
        columns=_COLUMNS,
        rows=table_rows(_ARMS, lambda row: _cells(cloned, row)),
        setting=f"The next voice of {engine}: {task.train} utterances ({cloned.heard:.0f} s of speech) to learn from, "
        f"{task.choose} that decide which step or prompt is kept, {task.test} that the loss is measured on; "
        f"{task.steps} steps, for fine-tuning at the better of two learning rates. One seed.",
        gained=nbsp(_gained(cloned)),
        not_gained=nbsp(_not_gained(cloned)),
        score=_score(cloned),
        pictures=(_picture(cloned),),
        audio=_audio(cloned),
    )


def _cells(cloned: Cloned, row: str) -> tuple[Cell, ...]:
    return Cell(cloned.losses[row]), Cell(cloned.others[row]), Cell(cloned.nbytes[row] / 1000)


# -- words, from the numbers of the table, whichever way they fell out ------------------------------------------------
def _gained(cloned: Cloned) -> str:
    others = cloned.others
    same = others["tuned"] == others["untuned"]
    return (
        f"{cloned.seconds:.0f} s of one core and {cloned.heard:.0f} s of speech make a voice of "
        f"{cloned.nbytes['tuned'] / 1000:.0f} kB that {_changes(cloned.losses)}, {_beside(cloned.losses, 'prompt')} a "
        f"prompt; the weights are untouched, and the other voices {'stay at' if same else 'go to'} "
        f"{others['tuned']:.3f}."
    )


def _not_gained(cloned: Cloned) -> str:
    forgot = cloned.others["finetuned"] - cloned.others["untuned"]
    cost = (
        f"costs the other voices {forgot:.3f} nats"
        if forgot > 0
        else f"does not cost the other voices ({forgot:+.3f} nats)"
    )
    return (
        f"It is {_beside(cloned.losses, 'finetuned')} fine-tuning all weights, which {cost} and keeps "
        f"{cloned.nbytes['finetuned'] / 1e6:.1f} MB. A model this small sounds rough in any voice; listen for the "
        "timbre."
    )


def _changes(losses: dict[str, float]) -> str:
    before, after = losses["untuned"], losses["tuned"]
    if after < before:
        return f"lowers the loss from {before:.3f} to {after:.3f} ({100 * (1 - after / before):.0f} %)"
    return f"does not help: the loss is {before:.3f} before and {after:.3f} after"


def _beside(losses: dict[str, float], rival: str) -> str:
    gain = losses["tuned"] - losses[rival]
    if abs(gain) < 0.0005:  # what the table does not show
        return "level with"
    return f"{abs(gain):.3f} nats {'better' if gain < 0 else 'worse'} than"


def _score(cloned: Cloned) -> Score:
    losses = cloned.losses
    gain = losses["tuned"] - losses["untuned"]
    return Score(
        measure="a new voice: loss, nats a code",
        baseline="the model as it is",
        without=f"{losses['untuned']:.3f}",
        ours=f"{losses['tuned']:.3f}",
        change=f"{gain:+.3f}, one seed",
        result="better" if gain < 0 else "worse",
        but=f"fine-tuning all weights reaches {losses['finetuned']:.3f}",
    )


# -- what is seen and heard -------------------------------------------------------------------------------------------
def _picture(cloned: Cloned) -> Picture:
    before, after = cloned.losses["untuned"], cloned.losses["tuned"]
    return Picture(
        "voice",
        "The new voice: loss on the utterances that choose the step while the state is tuned, beside the untuned model "
        "(dashed); and how large the state became in each layer.",
        f"A curve of the loss over the steps beside a dashed line, and sizes of the states of all layers. On unheard "
        f"sentences the loss is {before:.2f} before and {after:.2f} after.",
        cloned.figure,
    )


def _audio(cloned: Cloned) -> tuple[Audio, ...]:
    captions = {
        "untuned": "by the model as it is",
        "prompt": "after a prompt",
        "tuned": "in the tuned voice",
    }
    engine = engine_name(cloned.speaker.partition(":")[0])
    return (
        *(
            Audio(f"voice-{row}", f"Synthetic, {words}: {cloned.text}", wav(said.audio, said.sample_rate_hz))
            for (row, words), said in zip(captions.items(), cloned.said.values(), strict=True)
        ),
        Audio(
            "voice-original",
            f"The new voice itself ({engine}) after the codec, the aim of the three above: {cloned.text}",
            wav(cloned.decoded, cloned.said["tuned"].sample_rate_hz),
        ),
    )


def wav(audio: Tensor, sample_rate_hz: int) -> bytes:
    """Return the content of a WAV file; `audio` of shape (S,)."""
    return wave_bytes(pcm16(audio), sample_rate_hz)
