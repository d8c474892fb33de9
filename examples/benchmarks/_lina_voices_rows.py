"""The rows of a seed: every person by every method, judged alike; data and ranks for one; what a token costs."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import _harness as h
import _lina_training as t
import _lina_voices_data as d
import _lina_voices_judges as judges
import _lina_voices_rivals as r
import torch
from torch import Tensor

from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices
from lightning_adapt.lina_speech.inference.generate import CodeStreams
from lightning_adapt.lina_speech.inference.sampling import SamplingOptions

UNTUNED, PROMPT, PROMPTS, STORED = "untuned", "prompt continued", "three prompts continued", "prompt kept as a voice"
RANK_1, RANK_4, FULL_RANK = "states, rank 1", "states, rank 4", "states, full rank"
LORA, FINE_TUNED, THREE = "LoRA", "full fine-tuning", "three utterances, states of rank 4"
METHODS = (UNTUNED, PROMPT, PROMPTS, STORED, RANK_1, RANK_4, FULL_RANK, LORA, FINE_TUNED, THREE)
BY_DATA = (RANK_4, FINE_TUNED)
ONLY_RECORDED = (RANK_1, FULL_RANK)  # points of the curve over ranks
TOKEN, SIXTY = "cost of a token", "60 steps"
RANKS = {RANK_1: 1, RANK_4: 4, FULL_RANK: "full"}
COLUMNS = 60  # codes of a stretch of which the time is taken


def row_of(person: str, method: str, minutes: float | None = None) -> str:
    """Return the name of a row."""
    return f"{person}: {method}" + ("" if minutes is None else f", {minutes:g} min")


def rank_row(rank: int) -> str:
    """Return the method of a further rank."""
    return f"states, rank {rank}"


class Bench:
    """Makes the rows; the base and the people of the latest seed are kept, their files until `with` ends.

    Args:
        setting: What is trained and tuned.
        recorded: Rows of the recorded voice; None leaves her out.
        methods: What is measured of each of the people.
    """

    def __init__(self, setting: d.Setting, recorded: t.Rows | None, methods: Sequence[str] = METHODS) -> None:
        self.setting, self.recorded = setting, recorded
        self.people = (*setting.unseen, *(() if recorded is None else (d.RECORDED,)))
        self._rows: dict[str, Callable[[int], h.Run]] = {}
        for name in self.people:
            for method in methods:
                if method in ONLY_RECORDED and name != d.RECORDED:
                    continue
                self._rows[row_of(name, method)] = partial(self._row, name, method)
        if recorded is not None:
            self._curves()
            self._rows[SIXTY] = self._sixty
        self._rows[TOKEN] = self._token
        self._folder = tempfile.TemporaryDirectory()
        self._seed: int | None = None
        self._known: dict[str, d.Person] = {}
        self._judged: dict[str, Tensor | float] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def _curves(self) -> None:
        for rank in self.setting.ranks:
            row = row_of(d.RECORDED, rank_row(rank))
            self._rows[row] = partial(self._loss, rank_row(rank), None)
        for minutes in self.setting.minutes:
            for method in BY_DATA:
                self._rows[row_of(d.RECORDED, method, minutes)] = partial(self._loss, method, minutes)

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of all rows."""
        return tuple(self._rows)

    def measure(self, row: str, seed: int) -> h.Run:
        """Return one row of a seed."""
        if seed != self._seed:
            self._known.clear()
            self._judged.clear()
            folder = Path(self._folder.name) / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            self._base, self._seed = d.trained_base(self.setting, seed, folder), seed
        return self._rows[row](seed)

    def person(self, name: str, seed: int) -> d.Person:
        """Return one of the people."""
        if name not in self._known:
            self._known[name] = d.person(self.setting, self._base, name, seed, self.recorded)
        return self._known[name]

    # -- rows -----------------------------------------------------------------------------------------------------
    def _row(self, name: str, method: str, seed: int) -> h.Run:
        person = self.person(name, seed)
        if method in (PROMPT, PROMPTS):
            return self._continued(person, 1 if method == PROMPT else 3, seed)
        if method == THREE:
            return self._three(person, seed)
        made = self._made(method, person, person.data, seed)
        run = self._losses(made, person) | made.cost | self._heard(made, person, seed)
        run["heard"] = sum(person.data.train_set.seconds.tolist()) / 60
        run["others"] = d.cross_entropy(made.module, self._base.others) / self._base.loss
        return run

    def _made(self, method: str, person: d.Person, data: Any, seed: int) -> r.Speaks:
        base, setting = self._base, self.setting
        if method == UNTUNED:
            return r.Speaks(base.module, None, {})
        if method == STORED:
            return r.prompt_state(base, person, seed % len(person.rows))
        steps = {"steps": setting.steps, "every": setting.every}
        rate = setting.rates.get(method, setting.rates[RANK_4])  # further ranks learn as fast as rank 4
        if method == FINE_TUNED:
            return r.fine_tuned(base, data, rate, **steps)
        if method == LORA:
            return r.with_lora(base, data, rate, seed=seed, **steps)
        rank = RANKS.get(method) or int(method.rsplit(" ", 1)[1])
        return r.tuned(base, data, rank, seed, learning_rate=rate, **steps)

    def _losses(self, made: r.Speaks, person: d.Person) -> h.Run:
        module = made.module
        state = None if made.voice is None else made.voice.state(module.model, module.codec)
        loss = d.cross_entropy(module, person.batches, state)
        return {"loss": loss, "ratio": loss / self._untuned(person)}

    def _untuned(self, person: d.Person) -> float:
        key = f"untuned {person.name}"
        if key not in self._judged:
            self._judged[key] = d.cross_entropy(self._base.module, person.batches)
        return float(self._judged[key])

    def _loss(self, method: str, minutes: float | None, seed: int) -> h.Run:
        """Return the loss alone, for a rank or an amount of data."""
        person = self.person(d.RECORDED, seed)
        known, data = person.data.train_set, person.data
        seconds = dict(zip(known.ids, known.seconds.tolist(), strict=True))
        if minutes is not None:
            rows = d.first_minutes(person.rows, [seconds[row["id"]] for row in person.rows], minutes)
            data = d.data_of(self.setting, self._base, rows, person.stop, seed)
            data.setup()
        heard = sum(data.train_set.seconds.tolist()) / 60
        made = self._made(method, person, data, seed)
        return {**self._losses(made, person), **made.cost, "minutes": heard}

    def _three(self, person: d.Person, seed: int) -> h.Run:
        rows, stop = person.rows[:2], person.rows[2:3]
        data = d.data_of(self.setting, self._base, rows, stop, seed)
        how = {"every": 5, "patience": 5}  # at the authors' learning rate, as `tune-voice` for less than a minute
        made = r.tuned(self._base, data, 4, seed, self.setting.steps, **how)
        return self._losses(made, person) | made.cost

    def _continued(self, person: d.Person, length: int, seed: int) -> h.Run:
        base = self._base
        loss = r.continued_loss(base, person, length, seed)
        run = {"loss": loss, "ratio": loss / self._untuned(person)}
        if length > 1:
            return run
        said = []
        for number, text in enumerate(self.sentences(seed)):
            prompts = r.prompts_of(person, number, length, seed)
            said.append(r.continue_prompt(base.module, prompts, text, seconds=most_seconds(text), seed=seed + number))
        return run | self._judge(person, [audio for audio, _ in said], [stopped for _, stopped in said], seed)

    # -- judges ---------------------------------------------------------------------------------------------------
    def sentences(self, seed: int) -> list[str]:
        """Return what all say: sentences of words, then as many of digits, which nobody was trained on."""
        options: dict[str, Any] = {"engine": t.ENGINE, "seed": seed + 2}
        corpora = (SynthesisedVoices(1, self.setting.spoken, digits=digits, **options) for digits in (False, True))
        return [text for corpus in corpora for text in corpus.texts]

    def _heard(self, made: r.Speaks, person: d.Person, seed: int) -> h.Run:
        texts = self.sentences(seed)
        longest = max(map(most_seconds, texts))
        said = made.module.generate(texts, voice=made.voice, max_seconds=longest, seed=seed)
        run = self._judge(person, [one.audio for one in said], [one.stopped for one in said], seed)
        if made.voice is None and made.module is self._base.module:
            run |= self._recordings(person)
        return run

    def _judge(self, person: d.Person, audios: list[Tensor], stopped: list[bool], seed: int) -> h.Run:
        rate, n_words = self._base.module.codec.sample_rate_hz, self.setting.spoken
        near = judges.mean_voice(audios, rate) @ self._target(person)
        digits = judges.digit_accuracy(self.sentences(seed)[n_words:], audios[n_words:], rate)
        return {"SECS": float(near), "digits": digits, "stopped": sum(stopped) / len(stopped)}

    def _target(self, person: d.Person) -> Tensor:
        key = f"voice {person.name}"
        if key not in self._judged:
            self._judged[key] = judges.mean_voice(person.shown, self._base.module.codec.sample_rate_hz)
        return torch.as_tensor(self._judged[key])

    def _recordings(self, person: d.Person) -> h.Run:
        """Return how alike other recordings are, and how well the digits in them are understood."""
        rate = self._base.module.codec.sample_rate_hz
        found = {"SECS of recordings": float(judges.mean_voice(person.again, rate) @ self._target(person))}
        known = person.data.test_set
        spoken = [n for n in range(len(known)) if known.ids[n].endswith("-digits")]
        if spoken:
            texts, audios = [known.texts[n] for n in spoken], [person.shown[n] for n in spoken]
            found["digits of recordings"] = judges.digit_accuracy(texts, audios, rate)
        return found

    # -- time -----------------------------------------------------------------------------------------------------
    def _sixty(self, seed: int) -> h.Run:
        person = self.person(self.people[-1], seed)
        made = r.tuned(self._base, person.data, 4, seed, 60)
        return {**self._losses(made, person), **made.cost}

    def _token(self, seed: int) -> h.Run:
        """Take the time of a code with a voice and without, in turns."""
        person, model = self.person(self.people[0], seed), self._base.module.model
        voice = r.tuned(self._base, person.data, 4, seed, 2).voice
        if voice is None:
            raise RuntimeError("Tuning gave no voice.")
        voice.state(model)  # the model's fingerprint is known from here on
        began = h.spent("cpu")
        starts = {"with": voice.state(model), "without": model.initial_state(1)}
        start = 1e3 * (h.spent("cpu") - began)
        ids = torch.tensor(self._base.module.speaker().encode(self.sentences(seed)[:1]))
        times: dict[str, list[float]] = {name: [] for name in starts}
        for repeat in range(self.setting.repeats + 1):
            for name in list(starts)[:: 1 if repeat % 2 else -1]:
                times[name].append(_milliseconds(model, ids, starts[name]))
        ratios = [one / other for one, other in zip(times["with"][1:], times["without"][1:], strict=True)]
        medians = {f"{name}, ms": statistics.median(values[1:]) for name, values in times.items()}
        return {"ratio": statistics.median(ratios), "ratios": ratios, "start, ms": start, **medians}


def _milliseconds(model: Any, ids: Tensor, start: Any) -> float:
    """Return the time of a code of one stream; one that ends is begun anew, and the first step of each is set-up."""
    columns, attempt, took = 0, 0, 0.0
    with torch.inference_mode():
        memory = model.encode_text(ids, torch.tensor([ids.shape[1]]))
        while columns < COLUMNS:
            options: dict[str, Any] = {"options": SamplingOptions(), "max_frames": COLUMNS, "keys": [attempt]}
            streams = CodeStreams(model, memory, start, keep_alignment=False, **options)
            streams.advance(1)
            began = h.spent("cpu")
            streams.advance(COLUMNS - columns)
            took += h.spent("cpu") - began
            columns, attempt = columns + streams.column - 1, attempt + 1
    return 1e3 * took / columns


def most_seconds(text: str) -> float:
    """Return the longest time to say a text in, in seconds."""
    return 2.0 + 0.2 * len(text)
