"""Trains the tiny preset on synthesised voices and on a recorded one, and measures it beside counters and controls."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _harness as h
import torch
from lightning.pytorch import Trainer

from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.held_out import LossCurve, counted_losses, held_out_loss, with_exchanged_texts
from lightning_adapt.lina_speech.module import LinaSpeechModule

OURS, SHUFFLED, UNTRAINED = "Lina-Speech, tiny", "the same, texts exchanged (control)", "untrained (control)"
UNIGRAM, BIGRAM = "unigram of the codes", "bigram of the codes"
REAL, REAL_BEFORE = "recorded speech: trained on", "recorded speech: before"
REAL_UNIGRAM, REAL_BIGRAM = "recorded speech: unigram", "recorded speech: bigram"
SYNTHETIC_ROWS = (OURS, SHUFFLED, UNTRAINED, UNIGRAM, BIGRAM)
REAL_ROWS = (REAL, REAL_BEFORE, REAL_UNIGRAM, REAL_BIGRAM)

ENGINE: Any = "espeak"  # a test puts the built-in one here
Rows = Sequence[Mapping[str, Any]]


class Fit(NamedTuple):
    """How to train.

    Attributes:
        steps: Optimizer steps.
        learning_rate: At the end of the warm-up.
        warmup: Steps of the warm-up.
        tokens: Frames of a batch, padding included.
        join: Share of the utterances that are joined to others of their speaker.
        batch: Most utterances of a batch.
    """

    steps: int
    learning_rate: float
    warmup: int
    tokens: int
    join: float
    batch: int = 64


class Setting(NamedTuple):
    """What is trained on what.

    Attributes:
        voices: Synthesised voices.
        utterances: Of each voice.
        codes: Codes of the codec.
        fit: Training on the synthesised voices.
        real: Training on the recorded voice, from there on.
        spoken: Held-out sentences to generate.
        seconds: Longest generated utterance.
    """

    voices: int
    utterances: int
    codes: int
    fit: Fit
    real: Fit
    spoken: int
    seconds: float = 8.0

    def described(self) -> dict[str, Any]:
        """Return plain values for the result file."""
        return {**self._asdict(), "fit": self.fit._asdict(), "real": self.real._asdict()}


class Trained(NamedTuple):
    """A model, what it was trained on, and how that went."""

    module: LinaSpeechModule
    data: TextSpeechDataModule
    trainer: Trainer
    curve: list[tuple[int, float]]
    wall: float
    cpu: float


class Outcome(NamedTuple):
    """All rows of a seed, and speech of its models by name."""

    runs: dict[str, h.Run]
    speech: dict[str, Any]


# -- data --------------------------------------------------------------------------------------------------------------
def synthesised(setting: Setting, seed: int) -> SynthesisedVoices:
    """Return the corpus of a seed: the same voices, other sentences."""
    return SynthesisedVoices(setting.voices, setting.utterances, engine=ENGINE, seed=seed)


def held_out_sentences(setting: Setting, seed: int) -> list[str]:
    """Return sentences that were not trained on: corpora of neighbouring seeds share none."""
    return list(SynthesisedVoices(1, setting.spoken, engine=ENGINE, seed=seed + 1).texts)


def recorded(rows: Rows, n_val: int = 4) -> tuple[Rows, Rows]:
    """Return training and validation rows of the recorded voice: every eighth one is held out."""
    held = set(range(len(rows) // n_val - 1, len(rows), len(rows) // n_val))
    return [row for i, row in enumerate(rows) if i not in held], [rows[i] for i in sorted(held)]


def data_of(rows: Rows, fit: Fit, folder: Path, seed: int, **options: Any) -> TextSpeechDataModule:
    """Return a DataModule that keeps its codes in a folder."""
    sizes = {"tokens_per_batch": fit.tokens, "max_batch_size": fit.batch, "join_probability": fit.join}
    more = {"cache_dir": folder, "seed": seed, "progress": False}
    return TextSpeechDataModule(rows, **{**sizes, **more, **options})


# -- training ----------------------------------------------------------------------------------------------------------
def train(module: LinaSpeechModule, data: TextSpeechDataModule, fit: Fit) -> Trained:
    """Train, and take the time of the fit alone; codec and codes are made before."""
    data.prepare_data()
    curve = LossCurve(every=20)
    trainer = quiet_trainer(
        [curve],
        max_steps=fit.steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.fit(module, datamodule=data)
    return Trained(module, data, trainer, curve.points, time.perf_counter() - wall, time.process_time() - cpu)


def counted(data: TextSpeechDataModule) -> tuple[h.Run, h.Run]:
    """Return the rows of the unigram and of the bigram of the training codes."""
    single, pair = counted_losses(data)
    return {"loss": single}, {"loss": pair.loss, "weight": pair.weight}


def fresh_module(setting: Any, fit: Fit, steps_seed: int) -> LinaSpeechModule:
    """Return an untrained model of the preset, for the `codes` of a setting."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(steps_seed)
        return LinaSpeechModule(
            "tiny", codebook_size=setting.codes, learning_rate=fit.learning_rate, warmup_steps=fit.warmup
        )


class Bench:
    """Trains once per seed, whatever rows are asked for.

    Args:
        setting: What is trained.
        real: Rows of the recorded voice; None leaves its rows out.
        make: Makes the untrained model; a test puts a control here.
    """

    def __init__(
        self, setting: Setting, real: Rows | None, make: Callable[[Setting, Fit, int], Any] = fresh_module
    ) -> None:
        self.setting, self.real, self.make = setting, real, make
        self._found: dict[int, Outcome] = {}

    def outcome(self, seed: int) -> Outcome:
        """Return everything about a seed."""
        if seed not in self._found:
            with tempfile.TemporaryDirectory() as folder:
                self._found[seed] = self._run(seed, Path(folder))
        return self._found[seed]

    def has(self, seed: int) -> bool:
        """Say whether a seed was trained in this process."""
        return seed in self._found

    def measure(self, row: str, seed: int) -> h.Run:
        """Return one row of a seed."""
        return self.outcome(seed).runs[row]

    def _run(self, seed: int, folder: Path) -> Outcome:
        setting = self.setting
        data = data_of(synthesised(setting, seed), setting.fit, folder, seed, codebook_size=setting.codes)
        began = time.perf_counter()
        data.prepare_data()
        prepared = time.perf_counter() - began
        trained = train(self.make(setting, setting.fit, seed), data, setting.fit)
        runs = self._synthetic_rows(trained, seed)
        runs[OURS]["prepare seconds"] = prepared
        module = trained.module
        said = module.generate(held_out_sentences(setting, seed), max_seconds=setting.seconds, seed=seed)
        runs[OURS]["stopped"] = sum(one.stopped for one in said) / len(said)
        runs[OURS]["spoken seconds"] = sum(one.seconds for one in said) / len(said)
        speech = {"espeak": said[0]}
        if self.real is not None:
            path = folder / "espeak.ckpt"
            trained.trainer.save_checkpoint(path)
            real_runs, speech["ljspeech"] = self._real_rows(path, folder, seed)
            runs |= real_runs
        return Outcome(runs, speech)

    def _synthetic_rows(self, trained: Trained, seed: int) -> dict[str, h.Run]:
        data, module = trained.data, trained.module
        batches = list(data.val_dataloader())
        single, pair = counted(data)
        fresh = fresh_module(self.setting, self.setting.fit, seed)
        times = {"wall": trained.wall, "cpu": trained.cpu, "curve": trained.curve}
        return {
            OURS: {"loss": held_out_loss(module, batches), **times},
            SHUFFLED: {"loss": held_out_loss(module, list(with_exchanged_texts(batches)))},
            UNTRAINED: {"loss": held_out_loss(fresh, batches)},
            UNIGRAM: single,
            BIGRAM: pair,
        }

    def _real_rows(self, checkpoint: Path, folder: Path, seed: int) -> tuple[dict[str, h.Run], Any]:
        fit = self.setting.real
        train_rows, val_rows = recorded(self.real or [])
        module = LinaSpeechModule.load_from_checkpoint(
            checkpoint, learning_rate=fit.learning_rate, warmup_steps=fit.warmup, weights_only=True
        )
        known = {"codec": module.codec, "tokenizer": module.tokenizer}
        data = data_of(train_rows, fit, folder, seed, val=val_rows, **known)
        data.prepare_data()
        data.setup("fit")
        before = held_out_loss(module, list(data.val_dataloader()))
        trained = train(module, data, fit)
        single, pair = counted(data)
        loss = held_out_loss(module, list(data.val_dataloader()))
        (speech,) = module.generate([val_rows[0]["text"]], max_seconds=12.0, seed=seed)
        ours = {"loss": loss, "wall": trained.wall, "cpu": trained.cpu, "curve": trained.curve}
        ours["stopped"] = float(speech.stopped)
        return {REAL: ours, REAL_BEFORE: {"loss": before}, REAL_UNIGRAM: single, REAL_BIGRAM: pair}, speech
