"""The part of the Lina-Speech section about a new voice: its table, what it says, its figure and what is heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lightning_adapt._shared.report import Audio, Cell, Column, Kind, Picture, Row, Table
from lightning_adapt.lina_speech.corpus.wave_files import pcm16, wave_bytes

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.demo_voices import Cloned, VoiceTask

__all__ = ["engine_name", "voice_audio", "voice_picture", "voice_table", "wav"]

_NBSP = "\N{NO-BREAK SPACE}"
_COLUMNS = (
    Column("loss, the new voice", "nats a code", 3),
    Column("loss, the voices it knew", "nats a code", 3),
    Column("kept for the voice", "kB", 1),
)
_ROWS: dict[str, tuple[str, Kind]] = {
    "untuned": ("the model as it is", "baseline"),
    "prompt": ("after one recording (prompt)", "baseline"),
    "finetuned": ("all weights fine-tuned", "control"),
    "tuned": ("initial state tuned, rank 4", "ours"),
}
_ENGINES = {"espeak": "espeak-ng", "formant": "a built-in formant synthesiser"}


def engine_name(engine: str) -> str:
    """Return the name of a speech synthesiser for people."""
    return _ENGINES.get(engine, engine)


def voice_table(task: VoiceTask, cloned: Cloned) -> Table:
    """Return the table of the new voice.

    Args:
        task: Sizes.
        cloned: What was measured.

    Returns:
        The table with its words.
    """
    return Table(
        caption="A voice that the model never heard",
        columns=_COLUMNS,
        rows=tuple(Row(name, kind, _cells(cloned, row)) for row, (name, kind) in _ROWS.items()),
        setting=f"The next voice of {engine_name(cloned.speaker.partition(':')[0])}: {task.train} utterances "
        f"({cloned.heard:.0f}{_NBSP}s) to learn from, {task.choose} that decide which step or prompt is kept, "
        f"{task.test} that the loss is measured on; {task.steps} steps, for fine-tuning at the better of two learning "
        "rates. One seed.",
        verdict=voice_verdict(cloned),
    )


def _cells(cloned: Cloned, row: str) -> tuple[Cell, ...]:
    return Cell(cloned.losses[row]), Cell(cloned.others[row]), Cell(cloned.nbytes[row] / 1000)


def voice_verdict(cloned: Cloned) -> str:
    """Word the result from the numbers of the table, whichever way they fell out."""
    losses, others = cloned.losses, cloned.others
    forgot = others["finetuned"] - others["untuned"]
    cost = f"costs the other voices {forgot:.3f}" if forgot > 0 else f"does not cost the other voices ({forgot:+.3f})"
    same = others["tuned"] == others["untuned"]
    return (
        f"{cloned.seconds:.0f}{_NBSP}s of one core and {cloned.heard:.0f}{_NBSP}s of speech make a voice of "
        f"{cloned.nbytes['tuned'] / 1000:.0f}{_NBSP}kB that {_changes(losses)}. It is {_beside(losses, 'prompt')} a "
        f"prompt and {_beside(losses, 'finetuned')} fine-tuning all weights, which {cost} and keeps "
        f"{cloned.nbytes['finetuned'] / 1e6:.1f}{_NBSP}MB. With the tuned voice the weights are untouched: the other "
        f"voices {'stay at' if same else 'go to'} {others['tuned']:.3f}. "
        "A model this small sounds rough in any voice; listen for the timbre."
    )


def _changes(losses: dict[str, float]) -> str:
    before, after = losses["untuned"], losses["tuned"]
    if after < before:
        return f"lowers the loss from {before:.3f} to {after:.3f} ({100 * (1 - after / before):.0f}{_NBSP}%)"
    return f"does not help: the loss is {before:.3f} before and {after:.3f} after"


def _beside(losses: dict[str, float], rival: str) -> str:
    gain = losses["tuned"] - losses[rival]
    if abs(gain) < 0.0005:  # what the table does not show
        return "level with"
    return f"{abs(gain):.3f} {'better' if gain < 0 else 'worse'} than"


def voice_picture(cloned: Cloned) -> Picture:
    """Return the figure of the tuning.

    Args:
        cloned: What was measured.

    Returns:
        The figure.
    """
    before, after = cloned.losses["untuned"], cloned.losses["tuned"]
    return Picture(
        "voice",
        "The new voice: loss on the utterances that choose the step while the state is tuned, beside the untuned model "
        "(dashed); and how large the state became in each layer.",
        f"A curve of the loss over the steps beside a dashed line, and sizes of the states of all layers. On unheard "
        f"sentences the loss is {before:.2f} before and {after:.2f} after.",
        cloned.figure,
    )


def voice_audio(cloned: Cloned) -> tuple[Audio, ...]:
    """Return one sentence in the ways to compare.

    Args:
        cloned: What was measured.

    Returns:
        Untuned, after a prompt, tuned, and the voice itself through the same codec.
    """
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
