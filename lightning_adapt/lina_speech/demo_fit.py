"""What the Lina-Speech section of the demo trains: the tiny model on a synthesised corpus, beside counters."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.demo_voices import Cloned, VoiceTask, clone
from lightning_adapt.lina_speech.held_out import LossCurve, counted_losses, held_out_loss, with_exchanged_texts
from lightning_adapt.lina_speech.module import LinaSpeechModule

__all__ = ["SENTENCE", "Found", "Task", "fit", "prepare"]

SENTENCE = "the small river goes home"
_SILENT: dict[str, Any] = {"n_audio_samples": 0}
_EVERY = 5  # steps that a point of the curve is the mean of
_LONGEST = 6.0  # seconds of a generated utterance
_SINGLE = {"join_probability": 0.0}  # joins were tried: a worse base in these few steps, and no better prompts


class Task(NamedTuple):
    """Sizes of the section.

    Args:
        voices: Synthesised voices.
        utterances: Of each voice; a tenth is held out.
        codes: Codes of the codec.
        steps: Optimizer steps.
        frames: Frames of a batch.
        spoken: Held-out sentences to generate.
        voice: Sizes of the part about a new voice.
    """

    voices: int
    utterances: int
    codes: int
    steps: int
    frames: int
    spoken: int
    voice: VoiceTask

    @property
    def all_steps(self) -> int:
        """Steps of all trainings together."""
        return self.steps + 2 * self.voice.steps


class Found(NamedTuple):
    """What was measured.

    Args:
        losses: Held-out loss by row: "unigram", "bigram", "exchanged", "ours"; nats per target.
        curve: Pairs (step, mean training loss of the steps since the last pair).
        seconds: Processor time of training.
        stopped: How many of the generated sentences ended by themselves.
        speech: One generated utterance.
        original: A held-out row of the corpus.
        decoded: Its sound after the codec. Shape (S,).
        engine: What spoke the corpus.
        frame_rate_hz: Frames per second.
        labels: The tokens that the generated utterance was made from, as text.
        cloned: What was measured with a new voice.
    """

    losses: dict[str, float]
    curve: list[tuple[int, float]]
    seconds: float
    stopped: int
    speech: Any
    original: dict[str, Any]
    decoded: Tensor
    engine: str
    frame_rate_hz: float
    labels: list[str]
    cloned: Cloned


def prepare(task: Task, folder: Path) -> TextSpeechDataModule:
    """Let the voices speak, fit the codec, and encode the sentences.

    Args:
        task: Sizes.
        folder: Where codes are kept.

    Returns:
        The data, ready to train on.
    """
    corpus = SynthesisedVoices(task.voices, task.utterances)
    sizes: dict[str, Any] = {"codebook_size": task.codes, "tokens_per_batch": task.frames, **_SINGLE}
    data = TextSpeechDataModule(corpus, val=0.1, cache_dir=folder, progress=False, **sizes)
    data.prepare_data()
    data.setup("fit")
    return data


def fit(task: Task, advance: Callable[[], None] = lambda: None, doing: Callable[[str], None] = lambda _: None) -> Found:
    """Train the tiny model, measure it beside counters and beside itself with wrong texts, and let it speak.

    Args:
        task: Sizes.
        advance: Called after every step.
        doing: Called with a few words when something else begins.

    Returns:
        What was measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        doing("voices and codec")
        data = prepare(task, Path(folder))
        doing("the tiny model")
        module, curve, seconds = _train(task, data, advance)
        batches = list(data.val_dataloader())
        unigram, bigram = counted_losses(data)
        losses = {"unigram": unigram, "bigram": bigram.loss, "ours": held_out_loss(module, batches)}
        losses["exchanged"] = held_out_loss(module, list(with_exchanged_texts(batches)))
        doing("a new voice")
        cloned = clone(task.voice, module, batches, Path(folder), advance)
        doing("listening")
        sentences = [SENTENCE, *SynthesisedVoices(1, task.spoken - 1, seed=1).texts]
        said = module.generate(sentences, max_seconds=_LONGEST)
        original = dict(_held_out(data)[0])
        corpus = SynthesisedVoices(task.voices, task.utterances)
        original["audio"] = corpus[_row_of(corpus, original)]["audio"]
        decoded = data.codec.decode(torch.as_tensor(original["codes"]))
        engine = corpus.speakers[0].partition(":")[0]
    stopped = sum(one.stopped for one in said)
    labels = ["start", *SENTENCE, "end"]  # the tokens of characters
    rate = data.codec.frame_rate_hz
    return Found(losses, curve.points, seconds, stopped, said[0], original, decoded, engine, rate, labels, cloned)


def _held_out(data: TextSpeechDataModule) -> Any:
    return data.val_set  # there is one: `prepare` holds a tenth out


def _row_of(corpus: SynthesisedVoices, row: dict[str, Any]) -> int:
    return corpus.texts.index(row["text"])


def _train(
    task: Task, data: TextSpeechDataModule, advance: Callable[[], None]
) -> tuple[LinaSpeechModule, LossCurve, float]:
    curve = LossCurve(_EVERY, advance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        warmup = max(1, task.steps // 8)
        module = LinaSpeechModule("tiny", codebook_size=task.codes, learning_rate=3e-3, warmup_steps=warmup, **_SILENT)
        limits: dict[str, Any] = {"max_steps": task.steps, "max_epochs": -1, "limit_val_batches": 0}
        trainer = quiet_trainer([curve], gradient_clip_val=1.0, **limits)
        began = time.process_time()
        trainer.fit(module, datamodule=data)
    return module, curve, time.process_time() - began
