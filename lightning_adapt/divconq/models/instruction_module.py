"""InstructionTuningModule: fine-tunes a causal language model on answers, with LoRA or whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric
from typing_extensions import override

from lightning_adapt._shared.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_not_negative,
    check_number,
    check_positive,
    problem,
)
from lightning_adapt._shared.decay_groups import decay_groups
from lightning_adapt._shared.state import to_plain
from lightning_adapt.divconq.models.adapters import (
    add_lora,
    frozen_fingerprint,
    keep_trained,
    load_model,
    lora_options,
    recompute_activations,
    restore_trained,
)
from lightning_adapt.divconq.models.token_loss import batch_loss, response_losses
from lightning_adapt.divconq.models.tuning_optimizer import SCHEDULES, warmed_up
from lightning_adapt.divconq.scoring.generate import generate_with_model
from lightning_adapt.divconq.text.conversation import Conversation
from lightning_adapt.divconq.text.pretrained import load_pretrained

__all__ = ["InstructionTuningModule"]

_BATCHES = 'Train with InstructionDataModule, or with batches that have "input_ids", "labels" and "attention_mask".'


class InstructionTuningModule(LightningModule):
    """Fine-tunes any causal language model of `transformers` on the answers of conversations.

    The loss is the mean negative log-likelihood per supervised token of the batch of one process; as anywhere in
    Lightning, batches of a gradient accumulation and of other processes count equally, whatever their tokens. A step
    returns {"loss", "sample_loss" (mean per answer, shape (B,)), "index"}. Logs `train_loss`, and `val_loss` and
    `val_perplexity` (`test_loss`, `test_perplexity`) with equal weight for every supervised token of the whole set, on
    all processes.

    With LoRA, a checkpoint holds the adapters alone (and the optimizer's state for them), with a fingerprint of the
    frozen weights and LoRA's rank and alpha: it is refused for others. `save_adapter` writes a folder that plain peft
    loads. A model that was passed as an object is not in the checkpoint's hyperparameters: pass it again to
    `InstructionTuningModule.load_from_checkpoint(path, model=...)`. Resumed at the end of an epoch, and with
    `InstructionDataModule` inside one, a run goes on exactly, LoRA's dropout excepted, which follows torch's global
    random state.

    AdamW; norms and biases do not decay. The learning rate rises from 0 in the warm-up, then follows `schedule` to the
    end of the run. Sharded strategies (FSDP, DeepSpeed) are untested. For `lightning.pytorch` only.

    Args:
        model: A causal language model of `transformers`, or the name or folder of one. LoRA is added to it in place.
        lora: True for LoRA as in the authors' scripts (r 64, alpha 16, dropout 0.1, all linear layers but the head), a
            dict of `peft.LoraConfig` arguments to change some, False or None to tune all weights.
        tokenizer: For generation; a tokenizer or the name of one. None: the DataModule's, else the model's by its name.
        learning_rate: Highest learning rate.
        warmup_ratio: Share of the run in which it rises, in [0, 1).
        schedule: "linear" or "cosine" to zero, or "constant".
        weight_decay: Of the matrices, >= 0.
        gradient_checkpointing: Compute activations again in the backward pass: less memory, about a third more time.
        max_new_tokens: Longest generated answer in tokens.
        generation_batch_size: Conversations per batch of a generation.
        dtype: Of a model loaded by name. None: float32 to tune all weights, as saved ("auto") under frozen ones.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; on loading, if the checkpoint belongs to another base model or
            another `lora`.
        MisconfigurationException: If the schedule needs the length of the run and it has none, or the tokenizer has
            more tokens than the model.
    """

    def __init__(
        self,
        model: Any,
        *,
        lora: bool | dict[str, Any] | None = True,
        tokenizer: Any = None,
        learning_rate: float = 2e-5,
        warmup_ratio: float = 0.03,
        schedule: Literal["linear", "cosine", "constant"] = "linear",
        weight_decay: float = 0.0,
        gradient_checkpointing: bool = False,
        max_new_tokens: int = 64,
        generation_batch_size: int = 8,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None,
    ) -> None:
        super().__init__()
        options = lora_options(lora)
        self.learning_rate = check_positive("learning_rate", learning_rate, "Pass 2e-5.")
        self.warmup_ratio = check_number("warmup_ratio", warmup_ratio, "[0, 1)", "Pass 0.03, or 0 for none.")
        self.schedule = check_choice("schedule", schedule, SCHEDULES, "Pass 'linear'.")
        self.weight_decay = check_not_negative("weight_decay", weight_decay, "Pass 0 for none.")
        self.gradient_checkpointing = check_flag("gradient_checkpointing", gradient_checkpointing, "Pass True.")
        self.max_new_tokens = check_integer("max_new_tokens", max_new_tokens, "Pass 64.", minimum=1)
        size = check_integer("generation_batch_size", generation_batch_size, "Pass 8.", minimum=1)
        self.generation_batch_size = size
        objects = {"model": model, "tokenizer": tokenizer}
        self.save_hyperparameters(ignore=[name for name, value in objects.items() if not _is_name(value)])
        for name in ("learning_rate", "warmup_ratio", "weight_decay"):  # plain, to load with weights_only=True
            self.hparams[name] = getattr(self, name)
        self.hparams["lora"] = to_plain(lora)
        self.hparams.update({name: str(value) for name, value in objects.items() if isinstance(value, Path)})
        self._named = {name: str(value) for name, value in objects.items() if _is_name(value) and value is not None}
        self._own_tokenizer = None if _is_name(tokenizer) else tokenizer
        self.model = load_model(model, dtype or ("float32" if options is None else "auto"))
        self._prepare(options)
        self._eval_loss = MeanMetric().set_dtype(torch.float64)

    def _prepare(self, options: dict[str, Any] | None) -> None:
        if self.gradient_checkpointing:
            recompute_activations(self.model)
        if options is not None:
            self.model = add_lora(self.model, options)
        self.model.train()  # `from_pretrained` leaves it in eval mode, and a Trainer keeps the modes that it finds

    # -- the tokenizer --------------------------------------------------------------------------------------------
    @property
    def tokenizer(self) -> Any:
        """The tokenizer for generation: the one given, else the DataModule's, else the model's; None without any."""
        own = self._own_tokenizer
        if own is not None and own.chat_template:
            return own
        trainer = self._attached()
        shared = None if trainer is None else getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if shared is not None or own is not None:
            return shared if shared is not None else own
        name = self._named.get("tokenizer", self._named.get("model"))
        if name is not None:
            self._own_tokenizer = load_pretrained("AutoTokenizer", name, "tokenizer")
        return self._own_tokenizer

    def _attached(self) -> Any:
        try:
            return self.trainer
        except RuntimeError:  # what Lightning says without a Trainer
            return None

    # -- steps ----------------------------------------------------------------------------------------------------
    @override
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the scores of the next token.

        Args:
            input_ids: Token ids, padded on the right. Shape (B, T), dtype int64.
            attention_mask: 1 for tokens, 0 for padding. Shape (B, T).

        Returns:
            Logits. Shape (B, T, V).
        """
        # a cache is of no use in one pass, and cannot be had beside gradient checkpointing
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        return logits

    @override
    def on_fit_start(self) -> None:
        tokenizer, embeddings = self.tokenizer, self.model.get_input_embeddings()
        if tokenizer is not None and len(tokenizer) > embeddings.num_embeddings:
            remedy = "Call model.resize_token_embeddings(len(tokenizer)), or pass the model's own tokenizer."
            allowed = f"one of at most {embeddings.num_embeddings} tokens, which the model knows"
            raise MisconfigurationException(problem("tokenizer", allowed, len(tokenizer), remedy))

    def _losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, Mapping) or not {"input_ids", "labels"} <= set(batch):
            found = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise MisconfigurationException(problem("batch", "a dict with token ids and labels", found, _BATCHES))
        logits = self(batch["input_ids"], batch.get("attention_mask"))
        return response_losses(logits, batch["labels"])

    @override
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        sums, tokens = self._losses(batch)
        loss, each = batch_loss(sums, tokens)
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(each))
        known = {"index": batch["index"]} if "index" in batch else {}
        return {"loss": loss, "sample_loss": each, **known}

    @override
    def on_validation_epoch_start(self) -> None:
        self._eval_loss.reset()

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        sums, tokens = self._losses(batch)
        self._eval_loss.update((sums / tokens.clamp(min=1)).double(), tokens.double())

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_eval("val")

    @override
    def on_test_epoch_start(self) -> None:
        self._eval_loss.reset()

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    @override
    def on_test_epoch_end(self) -> None:
        self._log_eval("test")

    def _log_eval(self, name: str) -> None:
        loss = self._eval_loss.compute().float()  # over all processes
        # equal on all processes already; `sync_dist` says so to Lightning
        self.log_dict({f"{name}_loss": loss, f"{name}_perplexity": loss.exp()}, prog_bar=True, sync_dist=True)

    # -- generation -----------------------------------------------------------------------------------------------
    def generate_responses(self, conversations: Sequence[Conversation], **options: Any) -> list[str]:
        """Answer the last user turn of every conversation, in eval mode; modes and random state are kept.

        Args:
            conversations: What to answer; the last assistant turn is left out of the prompt.
            options: Further arguments of `generate_with_model`, such as `max_new_tokens`.

        Returns:
            One answer per conversation.

        Raises:
            ValueError: If there is no tokenizer, or it has no chat template.
        """
        if self.tokenizer is None:
            remedy = "Pass tokenizer=... to InstructionTuningModule, or run it with InstructionDataModule."
            raise ValueError(problem("tokenizer", "given, in order to generate", None, remedy))
        defaults = {"max_new_tokens": self.max_new_tokens, "batch_size": self.generation_batch_size}
        options = {**defaults, "trainer": self._attached(), **options}
        return generate_with_model(self.model, self.tokenizer, conversations, **options)

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[str]:
        loaders: Any = self.trainer.predict_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, (list, tuple)) else loaders
        dataset: Any = getattr(loader, "dataset", None)
        if not callable(getattr(dataset, "conversation", None)) or "index" not in batch:
            remedy = "Predict with InstructionDataModule, or call generate_responses(conversations) yourself."
            raise MisconfigurationException(problem("batch", "of a data set that knows conversations", dataset, remedy))
        return self.generate_responses([dataset.conversation(row) for row in batch["index"].tolist()])

    # -- optimizer ------------------------------------------------------------------------------------------------
    @override
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(decay_groups(self, self.weight_decay), lr=self.learning_rate)
        factor = warmed_up(self._total_steps, warmup=self.warmup_ratio, schedule=self.schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _total_steps(self) -> float:
        steps = float(self.trainer.estimated_stepping_batches)
        if math.isinf(steps):
            remedy = "Give the Trainer max_epochs or max_steps, or pass schedule='constant' and warmup_ratio=0."
            raise MisconfigurationException(
                problem("schedule", "'constant' in a run without end", self.schedule, remedy)
            )
        return steps

    # -- checkpoints ----------------------------------------------------------------------------------------------
    @cached_property
    def base_fingerprint(self) -> str:
        """Hash of the frozen weights; "" if all are trained."""
        return frozen_fingerprint(self.model)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        keep_trained(checkpoint, self, self.base_fingerprint)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        restore_trained(checkpoint, self, self.base_fingerprint)

    def save_adapter(self, folder: str | Path) -> None:
        """Write the adapters for plain peft, or the whole model without LoRA, and the tokenizer if there is one.

        Args:
            folder: Where to; made if it is not there. Only the first process writes.
        """
        if self.global_rank == 0:
            self.model.save_pretrained(str(folder))
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(str(folder))


def _is_name(value: Any) -> bool:
    return value is None or isinstance(value, (str, Path))
