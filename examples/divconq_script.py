"""Diversify and Conquer on a module that was not written for it: one more callback chooses what to train on.

python examples/divconq_script.py
"""

import logging
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from lightning_adapt import DiversitySelectionCallback
from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.text.planted import planted_instructions


class ChatModel(LightningModule):
    """Fine-tuning as one writes it. The callback uses `tokenizer` to read the rows, and `model.generate`."""

    def __init__(self, model: torch.nn.Module, tokenizer: object) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def training_step(self, batch: dict) -> torch.Tensor:
        return self.model(**batch).loss

    def validation_step(self, batch: dict) -> None:
        self.log("val_loss", self.model(**batch).loss, batch_size=len(batch["labels"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=1e-3)


def tokenized(rows: list[dict], tokenizer: object) -> list[dict]:
    options = {"return_dict": True, "return_assistant_tokens_mask": True, "truncation": True, "max_length": 96}
    encoded = [tokenizer.apply_chat_template(row["messages"], **options) for row in rows]
    labels = [
        [token if mine else -100 for token, mine in zip(row["input_ids"], row["assistant_masks"], strict=True)]
        for row in encoded
    ]
    return [{"input_ids": row["input_ids"], "labels": label} for row, label in zip(encoded, labels, strict=True)]


def collate(rows: list[dict]) -> dict:
    def padded(key: str, value: int) -> torch.Tensor:
        return pad_sequence([torch.tensor(row[key]) for row in rows], batch_first=True, padding_value=value)

    batch = {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100)}
    return {**batch, "attention_mask": (batch["input_ids"] != 0).long()}


def run(name: str, selection: DiversitySelectionCallback, pool: list[dict], held_out: list[dict]) -> None:
    torch.manual_seed(0)
    texts = [message["content"] for row in held_out for message in row["messages"]]
    model, tokenizer = tiny_language_model(texts)  # yours: AutoModelForCausalLM.from_pretrained(...)
    module = ChatModel(model.train(), tokenizer)
    train = DataLoader(tokenized(pool, tokenizer), 8, shuffle=True, collate_fn=collate)
    val = DataLoader(tokenized(held_out, tokenizer), 64, collate_fn=collate)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=8, accelerator="cpu", callbacks=[selection], enable_model_summary=False, **quiet)
    trainer.fit(module, train, val)
    chosen = selection.selection.rows.tolist()
    garbage = sum(pool[row]["garbage"] for row in chosen) / len(chosen)
    print(f"{name:24} held-out loss {trainer.callback_metrics['val_loss']:.3f}   garbage in it {100 * garbage:.0f} %")


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    pool = planted_instructions(300, 450, garbage_topics=9, seed=0)  # three rows in five are worth nothing
    held_out = planted_instructions(100, 0, seed=1)
    run("200 random rows", DiversitySelectionCallback(200, "random"), pool, held_out)
    run("200 in three rounds", DiversitySelectionCallback(200, rounds=3, k=24), pool, held_out)


if __name__ == "__main__":
    main()
