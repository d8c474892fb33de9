"""What the Lina-Speech section of the demo does with a voice that its model never heard: tuning, and its rivals."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.held_out import BestWeights, LossCurve, held_out_loss
from lightning_adapt.lina_speech.inference.speech import Speech
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from lightning_adapt.lina_speech.voices.voice import Voice

__all__ = ["Cloned", "VoiceTask", "clone"]

_RANK = 4
_PROMPTS = 3  # recordings that the prompt is chosen from
_TUNING_RATE = 1.0  # ten times the authors', for so few steps
_RATE = 3e-4  # of fine-tuning: 1e-3 was a little worse on the new voice, and far worse on the others
_LONGEST = 6.0  # seconds of a generated utterance


class VoiceTask(NamedTuple):
    """Sizes of the part about a new voice.

    Args:
        first: Number of the voice: how many voices of the engine come before it.
        train: Utterances to learn from.
        choose: Others, that decide which step or prompt is kept.
        test: Others, that the losses are measured on.
        steps: Optimizer steps, of tuning as of fine-tuning.
        frames: Frames of a batch.
    """

    first: int
    train: int
    choose: int
    test: int
    steps: int
    frames: int


class Cloned(NamedTuple):
    """What was measured.

    Args:
        losses: Loss on unheard sentences of the new voice by row: "untuned", "prompt", "finetuned", "tuned"; nats per
            target.
        others: Loss on held-out sentences of the voices that the model was trained on, by row.
        nbytes: What has to be kept for the voice, by row.
        seconds: Processor time of tuning.
        heard: Seconds of speech that it learnt from.
        speaker: Name of the new voice.
        said: One unheard sentence by row: "untuned", "prompt", "tuned".
        text: That sentence.
        decoded: Its recording after the codec. Shape (S,).
        figure: Draws held-out losses while tuning, and what was learnt.
    """

    losses: dict[str, float]
    others: dict[str, float]
    nbytes: dict[str, int]
    seconds: float
    heard: float
    speaker: str
    said: dict[str, Speech]
    text: str
    decoded: Tensor
    figure: Callable[[], Any]


def clone(
    task: VoiceTask, module: LinaSpeechModule, others: list[Any], folder: Path, advance: Callable[[], None]
) -> Cloned:
    """Give a trained model a voice that it never heard: by its initial state, by a prompt, and by all of its weights.

    Args:
        task: Sizes.
        module: The trained model; it stays as it is.
        others: Held-out batches of the voices that it was trained on.
        folder: Where codes are kept.
        advance: Called after every step.

    Returns:
        What was measured.
    """
    corpus = SynthesisedVoices(1, task.train + task.choose + task.test, first_voice=task.first)
    data = _prepare(task, list(corpus), module, folder)
    choose, test = list(data.val_dataloader()), list(data.test_dataloader())
    before = held_out_loss(module, others)
    tuning, seconds = _tune(task, module, data, advance)
    voice = tuning.tuned
    prompt = _prompt(module, corpus, choose)
    losses = {"untuned": held_out_loss(module, test), "prompt": _loss_in(prompt, module, test)}
    losses["tuned"] = _loss_in(voice, module, test)
    after = held_out_loss(module, others)
    changed = _fine_tune(task, module, data, advance)
    losses["finetuned"] = held_out_loss(changed, test)
    row: Any = data.test_set[0]  # type: ignore[index]  # `_prepare` gave it
    text = row["text"]
    # equal random numbers; without the least probable codes, among which is an early end
    drawn: dict[str, Any] = {"seed": [0] * 3, "top_p": 0.9, "max_seconds": _LONGEST}
    spoken = module.speaker().speak([text] * 3, [None, prompt, voice], **drawn)
    weights = sum(value.numel() * value.element_size() for value in module.model.state_dict().values())
    return Cloned(
        losses=losses,
        others={"untuned": before, "prompt": after, "tuned": after, "finetuned": held_out_loss(changed, others)},
        nbytes={"untuned": 0, "prompt": prompt.nbytes, "tuned": voice.nbytes, "finetuned": weights},
        seconds=seconds,
        heard=sum(len(row["audio"]) / row["sample_rate_hz"] for row in corpus[: task.train]),
        speaker=corpus.speakers[0],
        said=dict(zip(("untuned", "prompt", "tuned"), spoken, strict=True)),
        text=text,
        decoded=module.codec.decode(torch.as_tensor(row["codes"])),
        figure=tuning.figure,
    )


def _prepare(task: VoiceTask, rows: list[Any], module: LinaSpeechModule, folder: Path) -> TextSpeechDataModule:
    parts: dict[str, Any] = {
        "val": rows[task.train : task.train + task.choose],
        "test": rows[task.train + task.choose :],
        "codec": module.codec,
        "tokenizer": module.tokenizer,
    }
    options: dict[str, Any] = {"tokens_per_batch": task.frames, "join_probability": 0.0, "progress": False}
    data = TextSpeechDataModule(rows[: task.train], **parts, **options, cache_dir=folder)
    data.prepare_data()
    data.setup()
    return data


def _trainer(task: VoiceTask, callbacks: list[Callback], advance: Callable[[], None], **options: Any) -> Trainer:
    limits: dict[str, Any] = {"max_steps": task.steps, "max_epochs": -1, "num_sanity_val_steps": 0}
    checks = {"val_check_interval": max(1, task.steps // 5), "check_val_every_n_epoch": None}
    return quiet_trainer([*callbacks, LossCurve(task.steps, advance)], **limits, **checks, **options)


def _tune(
    task: VoiceTask, module: LinaSpeechModule, data: TextSpeechDataModule, advance: Callable[[], None]
) -> tuple[InitialStateTuning, float]:
    consent = "a synthesiser's voice, nobody's"
    tuning = InitialStateTuning("new voice", rank=_RANK, learning_rate=_TUNING_RATE, patience=None, consent=consent)
    began = time.process_time()
    _trainer(task, [tuning], advance).fit(module, datamodule=data)
    return tuning, time.process_time() - began


def _prompt(module: LinaSpeechModule, corpus: SynthesisedVoices, choose: list[Any]) -> Voice:
    """Return the best of some prompts, as the best step of the others is taken."""
    voices = [
        module.voice_from_prompt(row["audio"], row["text"], sample_rate_hz=row["sample_rate_hz"])
        for row in corpus[:_PROMPTS]
    ]
    return min(voices, key=lambda voice: _loss_in(voice, module, choose))


def _loss_in(voice: Voice, module: LinaSpeechModule, batches: list[Any]) -> float:
    module.initial_state = voice.state(module.model, module.codec)
    try:
        return held_out_loss(module, batches)
    finally:
        module.initial_state = None


def _fine_tune(
    task: VoiceTask, module: LinaSpeechModule, data: TextSpeechDataModule, advance: Callable[[], None]
) -> LinaSpeechModule:
    """Return a copy that trained all of its weights on the same batches, the best of as many validations."""
    rates: dict[str, Any] = {"learning_rate": _RATE, "warmup_steps": task.steps // 8, "n_audio_samples": 0}
    with torch.random.fork_rng(devices=[]):
        changed = LinaSpeechModule("tiny", codebook_size=module.config.codebook_size, **rates)
        changed.load_state_dict(module.state_dict())
        best = BestWeights(held_out_loss(module, list(data.val_dataloader())))
        _trainer(task, [best], advance, gradient_clip_val=1.0).fit(changed, datamodule=data)
    return changed
