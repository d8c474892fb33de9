"""A model of many synthesised voices, and people it has not heard: their texts, and how the codec makes them sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _lina_training as t
import torch
from torch import Tensor

from lightning_adapt._shared.forward import evaluating
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.model.delay import delay_codes
from lightning_adapt.lina_speech.model.state import State
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.speech_metrics import counted_targets, target_losses

RECORDED = "LJ Speech"  # the one person who is not synthesised
STOPPING, TESTED = 2, 4  # recordings of her to choose the best step by, and to measure on
OTHERS = 5  # sentences of words of each voice of the base, and as many of digits, that forgetting is measured on


class Setting(NamedTuple):
    """What is trained and tuned.

    Attributes:
        voices: Synthesised voices of the base.
        utterances: Of each of them, of words, and as many of digits.
        codes: Codes of the codec.
        base: Training of the base.
        unseen: Names of synthesised voices that the base does not know.
        train: Utterances of each of them to tune on; half of all these are digits.
        stop: Further ones to choose the best step by.
        held: Further ones to measure on.
        steps: Optimizer steps of every method.
        every: Steps between two looks at the further ones.
        batch: Utterances of a batch.
        tokens: Most frames of a batch, padding included.
        rates: Highest learning rate of each method.
        spoken: Sentences of words that are generated, and as many of digits.
        ranks: Further ranks, for the recorded voice.
        minutes: Further amounts of data, for the recorded voice.
        repeats: Of the measurement of speed.
    """

    voices: int
    utterances: int
    codes: int
    base: t.Fit
    unseen: tuple[str, ...]
    train: int
    stop: int
    held: int
    steps: int
    every: int
    batch: int
    tokens: int
    rates: dict[str, float]
    spoken: int
    ranks: tuple[int, ...] = ()
    minutes: tuple[float, ...] = ()
    repeats: int = 31

    def described(self) -> dict[str, Any]:
        """Return plain values for the result file."""
        return {**self._asdict(), "base": self.base._asdict()}


class Base(NamedTuple):
    """A trained model, its checkpoint, and utterances of its own voices that it was not trained on."""

    module: LinaSpeechModule
    path: Path
    others: list[dict[str, Tensor]]
    loss: float


class Person(NamedTuple):
    """Somebody whom the base has not heard.

    Attributes:
        name: Who.
        rows: What there is to tune on, as rows.
        stop: What the best step is chosen by.
        held: What is measured on.
        data: All of these as codes: the parts train, validation and test.
        shown: Recordings to compare with, through the codec: those of `held`.
        again: Other recordings through the codec: how alike recordings of one person are.
    """

    name: str
    rows: t.Rows
    stop: t.Rows
    held: t.Rows
    data: TextSpeechDataModule
    shown: list[Tensor]
    again: list[Tensor]

    @property
    def batches(self) -> list[dict[str, Tensor]]:
        """What is measured on."""
        return list(self.data.test_dataloader())


# -- the base ----------------------------------------------------------------------------------------------------------
def mixed_corpus(n_each: int, seed: int, **options: Any) -> tuple[t.Rows, t.Rows]:
    """Return sentences of words and of digits, of the same voices."""
    words = list(SynthesisedVoices(n_utterances=n_each, engine=t.ENGINE, seed=seed, **options))
    digits = SynthesisedVoices(n_utterances=n_each, engine=t.ENGINE, seed=seed, digits=True, **options)
    return words, [{**row, "id": f"{row['id']}-digits"} for row in digits]


def trained_base(setting: Setting, seed: int, folder: Path) -> Base:
    """Train a base and write its checkpoint."""
    words, digits = mixed_corpus(setting.utterances, seed, n_voices=setting.voices)
    data = t.data_of([*words, *digits], setting.base, folder, seed, codebook_size=setting.codes)
    trained = t.train(t.fresh_module(setting, setting.base, seed), data, setting.base)
    path = folder / "base.ckpt"
    trained.trainer.save_checkpoint(path)
    return base_of(setting, seed, path)


def base_of(setting: Setting, seed: int, path: Path) -> Base:
    """Return a trained base, with other sentences of its own voices than it was trained on."""
    module = loaded(path)
    words, digits = mixed_corpus(OTHERS, seed + 1, n_voices=setting.voices)
    base = Base(module, path, [], 1.0)
    data = data_of(setting, base, words[:1], [*words, *digits], seed)
    data.setup()
    others = list(data.val_dataloader())
    return Base(module, path, others, cross_entropy(module, others))


def loaded(path: Path, **options: Any) -> LinaSpeechModule:
    """Return the model of a checkpoint; it says nothing by itself in validations."""
    module = LinaSpeechModule.load_from_checkpoint(path, n_audio_samples=0, weights_only=True, **options)
    return module.eval()


# -- a person ----------------------------------------------------------------------------------------------------------
def person(setting: Setting, base: Base, name: str, seed: int, recorded: t.Rows | None) -> Person:
    """Return somebody the base has not heard, with other texts than the base was trained on."""
    rows, stop, held = _recorded(recorded or []) if name == RECORDED else _synthesised(setting, name, seed)
    data = data_of(setting, base, rows, stop, seed, test=held)
    data.setup()
    shown, again = (decoded(base, part) for part in (data.test_set, data.train_set))
    return Person(name, rows, stop, held, data, shown, again[: len(shown)])


def _synthesised(setting: Setting, name: str, seed: int) -> tuple[t.Rows, t.Rows, t.Rows]:
    total = setting.train + setting.stop + setting.held
    words, digits = mixed_corpus(total // 2, seed + 1, voices=[name])
    rows = [row for pair in zip(words, digits, strict=True) for row in pair]
    ends = (setting.train, setting.train + setting.stop)
    return rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] :]


def _recorded(rows: t.Rows) -> tuple[t.Rows, t.Rows, t.Rows]:
    known, held = t.recorded(rows, TESTED)
    return known[STOPPING:], known[:STOPPING], held


def data_of(setting: Setting, base: Base, rows: t.Rows, stop: t.Rows, seed: int, **more: Any) -> TextSpeechDataModule:
    """Return data in batches as all methods get them: the same ones in the same order for the same rows and seed."""
    codec, tokenizer = base.module.codec, base.module.tokenizer
    fit = t.Fit(setting.steps, 0.0, 0, setting.tokens, 0.0, setting.batch)
    data = t.data_of(rows, fit, base.path.parent, seed, val=stop, codec=codec, tokenizer=tokenizer, **more)
    data.prepare_data()
    return data


def first_minutes(rows: t.Rows, lengths: Sequence[float], minutes: float) -> t.Rows:
    """Return the first rows until they have so many minutes, at least one."""
    chosen, seconds = [], 0.0
    for row, length in zip(rows, lengths, strict=True):
        if chosen and seconds + length > 60 * minutes + 1.0:
            break
        chosen.append(row)
        seconds += length
    return chosen


def decoded(base: Base, rows: Any) -> list[Tensor]:
    """Return recordings as they sound through the codec."""
    with torch.no_grad():
        return [base.module.codec.decode(rows[number]["codes"]) for number in range(len(rows))]


# -- loss --------------------------------------------------------------------------------------------------------------
def cross_entropy(module: LinaSpeechModule, batches: Iterable[dict[str, Tensor]], state: State | None = None) -> float:
    """Return the mean loss over all targets in nats, from a state of one stream or from zeros."""
    total = count = 0.0
    for batch in batches:
        losses, counted = column_losses(module, batch, state)
        total, count = total + float(losses.double().sum()), count + float(counted.sum())
    return total / count


def column_losses(module: LinaSpeechModule, batch: dict[str, Tensor], state: State | None) -> tuple[Tensor, Tensor]:
    """Return the loss of every target of a batch, and which ones count. Shape (B, T, Q) both."""
    ids = delay_codes(batch["codes"], batch["code_lengths"])
    lengths = batch["code_lengths"] + module.config.n_codebooks
    with evaluating(module):
        logits = module(batch["text"], batch["text_lengths"], ids[:, :-1], lengths, state)
    return target_losses(logits, ids[:, 1:]), counted_targets(ids[:, 1:])
