"""The registry entries of Diversify and Conquer: the smallest way to use each public name."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.embed.embedders import PrecomputedEmbedder
from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder
from lightning_adapt.divconq.embed.transformer import TransformerEmbedder
from lightning_adapt.divconq.models.instruction_data import InstructionDataModule
from lightning_adapt.divconq.models.instruction_module import InstructionTuningModule
from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.offline.file_selection import select_file
from lightning_adapt.divconq.scoring.digits import DigitTokenQuality
from lightning_adapt.divconq.scoring.examples import Examples
from lightning_adapt.divconq.scoring.judges import JudgeScorer, RewardScorer
from lightning_adapt.divconq.scoring.likelihood import PerplexityScorer
from lightning_adapt.divconq.scoring.quality import RewardQuality
from lightning_adapt.divconq.scoring.scorers import EmbeddingRelevanceScorer
from lightning_adapt.divconq.selection import select_rows
from lightning_adapt.divconq.text.conversation import Turn
from lightning_adapt.divconq.text.planted import planted_instructions
from lightning_adapt.divconq.text.rows import texts_of
from lightning_adapt.divconq.training.round_files import read_round, write_round
from tests.divconq.instruction_parts import pairs, tiny
from tests.foreign import loader, numbered_rows
from tests.foreign_clicks import noted
from tests.foreign_text import ForeignTexts
from tests.registry_parts import Entry, Setup

ANSWERS = [("What is red?", "A rose is red."), ("What is round?", "A ball."), ("What is cold?", "Snow is cold, too.")]


# -- the callback: rows of numbers, with a vector each -----------------------------------------------------------------
def selection(**options: Any) -> DiversitySelectionCallback:
    vectors = numbered_rows().tensors[0]
    return DiversitySelectionCallback(32, **{"k": 4, "embedder": vectors, "engine": "torch", **options})


def chosen(workers: int = 0, batch_size: int = 8, **options: Any) -> Setup:
    return Setup({"train_dataloaders": loader(workers, batch_size)}, [selection(**options)])


# -- data and module ---------------------------------------------------------------------------------------------------
@cache
def saved_model() -> str:
    """Folder of a tiny model with its tokenizer, to be loaded by its name as users do."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-model-"))
    for part in tiny():
        part.save_pretrained(folder)
    return str(folder)


def instructions(workers: int = 0, batch_size: int = 8) -> InstructionDataModule:
    """32 rows in each epoch, 16 to validate on."""
    options: dict[str, Any] = {"batch_size": batch_size, "eval_batch_size": 8, "num_workers": workers}
    return InstructionDataModule(pairs(32), tiny()[1], val=pairs(16, start=50), test=pairs(16, start=70), **options)


def trained(module: Callable[..., Any]) -> Callable[[int, int], Setup]:
    def build(workers: int = 0, batch_size: int = 8) -> Setup:
        made = instructions(workers, batch_size)
        return Setup({"datamodule": made}, [], module, {"datamodule": made})

    return build


def tuning() -> InstructionTuningModule:
    lora = {"r": 4, "lora_dropout": 0.0}
    return InstructionTuningModule(saved_model(), lora=lora, learning_rate=1e-2, warmup_ratio=0.0, schedule="constant")


# -- objects -----------------------------------------------------------------------------------------------------------
def examples() -> Examples:
    conversations = [(Turn("user", prompt), Turn("assistant", response)) for prompt, response in ANSWERS]
    prompts, responses = (list(part) for part in zip(*ANSWERS, strict=True))
    return Examples(torch.arange(3), prompts, responses, conversations, ["A rose.", "Red snow.", "No."])


def words(prompt: str, response: str) -> float:
    """A judge that can be pickled."""
    return float(len(set(prompt.lower().split()) & set(response.lower().split())))


def encoded(embedder: Any) -> torch.Tensor:
    texts = [text for answer in ANSWERS for text in answer]
    embedder.fit(texts)
    return torch.from_numpy(embedder.encode(texts).copy())


def fitted() -> TfidfEmbedder:
    embedder = TfidfEmbedder(8)
    embedder.fit([text for answer in ANSWERS for text in answer])
    return embedder


def scored(scorer: Any) -> torch.Tensor:
    model, tokenizer = tiny()
    module = torch.nn.Module()
    module.model, module.tokenizer = model, tokenizer
    return scorer(examples(), module)


def perplexity() -> PerplexityScorer:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PerplexityScorer raises the weight", category=UserWarning)
        return PerplexityScorer()


def text_model() -> TransformerEmbedder:
    model, tokenizer = tiny()
    return TransformerEmbedder(model.model, tokenizer=tokenizer, max_length=8)


def reward_model() -> tuple[Any, Any]:
    from transformers import LlamaForSequenceClassification

    model, tokenizer = tiny()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.config.num_labels = 1
        rates = LlamaForSequenceClassification(model.config)
    return rates.eval(), tokenizer


def reward() -> RewardScorer:
    return RewardScorer(*reward_model())


def reward_quality() -> RewardQuality:
    return RewardQuality(*reward_model())


def digits() -> DigitTokenQuality:
    return DigitTokenQuality(*tiny())


def rated(quality: Any) -> torch.Tensor:
    rows = [{"prompt": prompt, "response": response} for prompt, response in ANSWERS]
    return quality(texts_of(rows), rows)


def given(embedder: Any) -> torch.Tensor:
    return torch.from_numpy(embedder.vectors.copy())


def planted(make: Any) -> torch.Tensor:
    return torch.tensor([[row["garbage"], len(row["messages"][1]["content"])] for row in make(20, 10, seed=3)])


def read(reader: Any) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as folder:
        table = {name: list(range(3)) for name in ("index", "cluster", "q", "S", "w")}
        summary: dict[str, Any] = dict.fromkeys(("n", "k", "seed", "round", "entropy"), 0)
        summary |= {"versions": {}, "settings": {}, "engine": "", "fingerprint": "", "rows": [0, 1, 2]}
        write_round(folder, summary, {**table, "row_hash": ["a", "b", "c"]})
        return torch.tensor(reader(folder, 0).table["index"])


def from_file(select: Any) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool.jsonl"
        pool.write_text("".join(json.dumps(row) + "\n" for row in planted_instructions(60, 20, seed=3)))
        return torch.as_tensor(select(pool, 8, Path(folder) / "chosen.jsonl", k=4, report=False).rows)


def rows(select: Any) -> torch.Tensor:
    return select(numbered_rows().tensors[0], 20, k=4, seed=3).rows


ENTRIES: dict[str, Entry] = {
    "DiversitySelectionCallback": Entry(
        kind="order",
        build=chosen,
        resume="exact",
        disabled={"enabled=False": lambda: chosen(enabled=False)},
        state=selection,
    ),
    "InstructionDataModule": Entry(kind="data", build=trained(ForeignTexts), resume="exact", state=instructions),
    "InstructionTuningModule": Entry(kind="module", build=trained(noted(tuning)), resume="exact"),
    "EmbeddingRelevanceScorer": Entry(kind="object", make=lambda: EmbeddingRelevanceScorer(fitted()), use=scored),
    "JudgeScorer": Entry(kind="object", make=lambda: JudgeScorer(words), use=scored),
    "PerplexityScorer": Entry(kind="object", make=perplexity, use=scored),
    "RewardScorer": Entry(kind="object", make=reward, use=scored),
    "TfidfEmbedder": Entry(kind="object", make=lambda: TfidfEmbedder(8), use=encoded),
    "TransformerEmbedder": Entry(kind="object", make=text_model, use=encoded),
    "PrecomputedEmbedder": Entry(
        kind="object", make=lambda: PrecomputedEmbedder(numbered_rows().tensors[0]), use=given
    ),
    "DigitTokenQuality": Entry(kind="object", make=digits, use=rated),
    "RewardQuality": Entry(kind="object", make=reward_quality, use=rated),
    "planted_instructions": Entry(kind="object", make=lambda: planted_instructions, use=planted),
    "read_round": Entry(kind="object", make=lambda: read_round, use=read),
    "select_file": Entry(kind="object", make=lambda: select_file, use=from_file),
    "select_rows": Entry(kind="object", make=lambda: select_rows, use=rows),
    "tiny_language_model": Entry(
        kind="object",
        make=lambda: tiny_language_model,
        use=lambda make: make([text for answer in ANSWERS for text in answer], vocab_size=300)[
            0
        ].lm_head.weight.detach(),
    ),
}
