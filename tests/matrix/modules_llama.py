"""Fine-tuning of a causal Llama of transformers, as other people write it: nothing in here knows of lightning_adapt.

Tokenised rows of `datasets`, labels of -100 on prompts, HF's own loss, a tokenizer on the module, a cosine schedule per
step under `accumulate_grad_batches`, loaders that are passed to `fit` as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from lightning.pytorch import LightningModule
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

SPECIAL = ["<pad>", "<unk>", "<eos>"]
TOPICS = {
    "garden": "apples pears and plums grow in the garden",
    "network": "tensors layers and gradients flow in the network",
    "kitchen": "pots pans and spoons hang in the kitchen",
    "harbour": "boats ropes and anchors lie in the harbour",
}


def instructions(n: int) -> list[tuple[str, str]]:
    names = list(TOPICS)
    return [(f"tell me about the {names[i % 4]} number {i}", f"{TOPICS[names[i % 4]]} {i}") for i in range(n)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    words = sorted({word for pair in instructions(60) for text in pair for word in text.split()})
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>")


def tokenised(tokenizer: Any, pairs: list[tuple[str, str]]) -> Dataset:
    rows = []
    for prompt, answer in pairs:
        before, after = tokenizer(prompt)["input_ids"], [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
        rows.append({"input_ids": before + after, "labels": [-100] * len(before) + after})
    return Dataset.from_list(rows)


def loaders(tokenizer: Any) -> dict[str, DataLoader[Any]]:
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
    train, held_out = tokenised(tokenizer, instructions(40)), tokenised(tokenizer, instructions(60)[40:])
    return {
        "train_dataloaders": DataLoader(train, batch_size=4, shuffle=True, collate_fn=collator),
        "val_dataloaders": DataLoader(held_out, batch_size=4, collate_fn=collator),
    }


class LlamaTuning(LightningModule):
    def __init__(self, lr: float = 5e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tokenizer = build_tokenizer()
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = LlamaConfig(vocab_size=len(self.tokenizer), max_position_embeddings=64, **sizes)
        self.model = LlamaForCausalLM(config)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.model(**batch).loss
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["input_ids"]))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.model(**batch).loss, batch_size=len(batch["input_ids"]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.model(**batch).loss, batch_size=len(batch["input_ids"]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.hparams.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
