"""A text classifier around a BERT of transformers, as other people write one: nothing in here knows of lightning_adapt.

Rows of different lengths, a collator that pads, a warm-up schedule per step from `estimated_stepping_batches`.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

VOCABULARY = 30


def tokenised(n: int, seed: int) -> list[dict[str, Any]]:
    """Sentences of 4 to 9 tokens; rude where the token 7 or 8 is in them."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 10, (n,), generator=draw).tolist()
    sentences = [torch.randint(2, VOCABULARY, (length,), generator=draw) for length in lengths]
    for i, sentence in enumerate(sentences):
        if i % 2:
            sentence[i % len(sentence)] = 7 + i % 4 // 2
    return [{"input_ids": s, "labels": float(bool(((s == 7) | (s == 8)).any()))} for s in sentences]


def collate_fn(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    input_ids = pad_sequence([example["input_ids"] for example in examples], batch_first=True, padding_value=0)
    labels = torch.tensor([example["labels"] for example in examples])
    return {"input_ids": input_ids, "attention_mask": (input_ids != 0).long(), "labels": labels}


class SentenceData(LightningDataModule):
    def prepare_data(self) -> None:
        tokenised(1, seed=0)  # a download, usually

    def setup(self, stage: str | None = None) -> None:
        self.splits = {name: tokenised(n, seed) for seed, (name, n) in enumerate(SPLITS.items())}

    def _loader(self, split: str, **options: Any) -> DataLoader[Any]:
        return DataLoader(self.splits[split], collate_fn=collate_fn, **options)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train", batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val", batch_size=8)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test", batch_size=8)


SPLITS = {"train": 40, "val": 8, "test": 32}


class RudenessClassifier(LightningModule):
    def __init__(self, lr: float = 1e-3, warmup_ratio: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=16, num_labels=1, **sizes)
        self.model = BertForSequenceClassification(config)
        self.criterion = torch.nn.BCEWithLogitsLoss()

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.model(**inputs).logits.squeeze(-1)

    def _shared_step(self, batch: dict[str, Tensor], stage: str) -> Tensor:
        logits = self(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        loss = self.criterion(logits, batch["labels"])
        self.log(f"{stage}_loss", loss, prog_bar=True, batch_size=len(logits))
        return loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._shared_step(batch, "train")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._shared_step(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._shared_step(batch, "test")

    def configure_optimizers(self) -> Any:
        no_decay = ("bias", "LayerNorm.weight")
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for n, p in named if not n.endswith(no_decay)], "weight_decay": 0.01},
            {"params": [p for n, p in named if n.endswith(no_decay)], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = get_linear_schedule_with_warmup(optimizer, int(steps * self.hparams.warmup_ratio), steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]
