"""InstructionDataModule: instruction data from a file, a list or a data set, with labels on the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from typing_extensions import override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import check_flag, check_held_out, check_integer, problem
from lightning_adapt._shared.hashing import generator
from lightning_adapt._shared.optional_hooks import OptionalHooks
from lightning_adapt._shared.resumable_data import ResumableData
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt.divconq.models.instruction_rows import InstructionDataset, PadRight, WholeRounds
from lightning_adapt.divconq.models.labels import ChatEncoder, with_template
from lightning_adapt.divconq.text.pretrained import load_pretrained
from lightning_adapt.divconq.text.readers import open_rows

__all__ = ["InstructionDataModule"]

_SPLIT = 0x5B117  # stream of random numbers for the split, apart from the order of the epochs


class InstructionDataModule(OptionalHooks, ResumableData, LightningDataModule):
    """Instruction data for fine-tuning: conversations in any usual format, tokenised once, loss on the answers only.

    Formats, found by the keys of the first row: alpaca (`instruction`, `input`, `output`), sharegpt (`conversations`),
    messages (`role`, `content`), prompt with response. Every conversation goes through the chat template once; labels
    are on the assistant's tokens with the end of each turn. Rows that would teach nothing (empty responses; no answer
    within `max_length`) are left out before anything is selected, and counted in `dropped`.

    Batches are {"input_ids", "labels", "attention_mask"} of shape (B, T) and "index" of shape (B,), padded on the
    right. The order of an epoch follows from (`seed`, epoch) alone: a run resumes exactly, also inside an epoch, and a
    checkpoint is refused when the data, the template or the global batch size differ. Every process tokenises the
    data for itself. `predict` goes through the validation rows, or the training rows if there are none. For
    `lightning.pytorch` only.

    Args:
        data: A .jsonl, .json or .parquet file, a folder saved by `datasets`, a list of rows, or a `datasets.Dataset`.
        tokenizer: A tokenizer of `transformers`, or the name or folder of one.
        val: Rows to validate on: a share of `data` in (0, 1), a file, or rows; 0 or None for none.
        test: Rows to test on: a file or rows; None for none.
        chat_template: "plain" (headings, for a model without chat tokens), "chatml" (for one that has its tokens), a
            Jinja template, or None for the tokenizer's own.
        max_length: Longest row in tokens; what is beyond is cut off.
        batch_size: Rows per step of one process.
        eval_batch_size: Rows per evaluation batch; None for `batch_size`.
        num_workers: Worker processes; tokenisation is done before, so that 0 is fast, too.
        pin_memory: As in `DataLoader`.
        seed: Seed of the order and of the split.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; in `setup`, if a row cannot be read, there is no chat template, or
            no row is left.
        MisconfigurationException: On resume, if the saved position belongs to other data.
    """

    def __init__(
        self,
        data: Any,
        tokenizer: Any,
        *,
        val: Any = 0.0,
        test: Any = None,
        chat_template: str | None = None,
        max_length: int = 2048,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self._data, self._val, self._test = data, check_held_out("val", val, "file"), test
        self._named_tokenizer, self._chat_template = tokenizer, chat_template
        self.max_length = check_integer("max_length", max_length, "Pass 2048.", minimum=2)
        self.batch_size = check_integer("batch_size", batch_size, "Pass 8.", minimum=1)
        evaluated = batch_size if eval_batch_size is None else eval_batch_size
        self.eval_batch_size = check_integer("eval_batch_size", evaluated, "Pass 8.", minimum=1)
        self.num_workers = check_integer("num_workers", num_workers, "Pass 0 for none.")
        self.pin_memory = check_flag("pin_memory", pin_memory, "Pass True on a CUDA machine.")
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**62)
        self._encoder: ChatEncoder | None = None
        self._sets: dict[str, InstructionDataset] = {}
        if self._val is None and type(self).val_dataloader is InstructionDataModule.val_dataloader:
            self.hide_hook("val_dataloader")
        if self._test is None and type(self).test_dataloader is InstructionDataModule.test_dataloader:
            self.hide_hook("test_dataloader")

    # -- the data -------------------------------------------------------------------------------------------------
    @property
    def encoder(self) -> ChatEncoder:
        """What makes token rows; `encoder.route` says how the answers were found."""
        if self._encoder is None:
            tokenizer = _load_tokenizer(self._named_tokenizer)
            options: dict[str, Any] = {"chat_template": self._chat_template, "max_length": self.max_length}
            template = ChatEncoder(tokenizer, **options).template
            # one that knows the template, for whoever generates later; the user's own stays as it is
            self._encoder = ChatEncoder(with_template(tokenizer, template), max_length=self.max_length)
        return self._encoder

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, with the chat template that is used."""
        return self.encoder.tokenizer

    @override
    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit") or (stage == "predict" and self._val is None):
            _ = self.train_set
        if stage != "test":
            _ = self.val_set
        if stage in (None, "test"):
            _ = self.test_set

    @property
    def train_set(self) -> InstructionDataset:
        """The rows to train on; these and the others are read and tokenised at their first use."""
        if "data" not in self._sets:
            self._sets["data"] = self._tokenised("data", self._pool, self._parts[0])
        return self._sets["data"]

    @property
    def val_set(self) -> InstructionDataset | None:
        """The rows to validate on; None if there are none."""
        if "val" not in self._sets and self._val is not None:
            shared = isinstance(self._val, float)
            rows, part = (self._pool, self._parts[1]) if shared else (_open(self._val, "val"), None)
            self._sets["val"] = self._tokenised("val", rows, part)
        return self._sets.get("val")

    @property
    def test_set(self) -> InstructionDataset | None:
        """The rows to test on; None if there are none."""
        if "test" not in self._sets and self._test is not None:
            self._sets["test"] = self._tokenised("test", _open(self._test, "test"))
        return self._sets.get("test")

    @property
    def dropped(self) -> dict[str, int]:
        """How many training rows were left out, by reason."""
        return self.train_set.dropped

    @cached_property
    def _pool(self) -> Any:
        return _open(self._data, "data")

    @cached_property
    def _parts(self) -> tuple[list[int] | None, list[int] | None]:
        """Rows of the pool to train and to validate on; None for all, or for none of these."""
        if not isinstance(self._val, float):
            return None, None
        count = len(self._pool)
        order = torch.randperm(count, generator=generator(self.seed, _SPLIT)).numpy()
        n_val = round(self._val * count)
        if not 0 < n_val < count:
            remedy = f"Of {count} rows, {n_val} would be validated on."
            raise ValueError(problem("val", "a share that leaves rows on both sides", self._val, remedy))
        return sorted(order[n_val:].tolist()), sorted(order[:n_val].tolist())

    def _tokenised(self, name: str, source: Any, rows: Sequence[int] | None = None) -> InstructionDataset:
        dataset = InstructionDataset(source, self.encoder, rows)
        reasons = [f"{count} {reason}" for reason, count in dataset.dropped.items() if count]
        if not len(dataset):
            remedy = f"Left out: {', '.join(reasons)} (max_length={self.max_length} tokens)."
            raise ValueError(problem(name, "at least one row that can be trained on", 0, remedy))
        if reasons:
            total = sum(dataset.dropped.values())
            rank_zero_warn(
                f"InstructionDataModule: {total} of {total + len(dataset)} rows of `{name}` are left out because they "
                f"would teach nothing: {', '.join(reasons)} (max_length={self.max_length} tokens)."
            )
        return dataset

    # -- loaders --------------------------------------------------------------------------------------------------
    @override
    def train_dataloader(self) -> Any:
        misfit = self.misfit()
        if misfit is not None:
            return misfit
        rows = self.train_set
        sampler = RowSampler(torch.arange(len(rows)), seed=self.seed)
        options = {**self._loader_options(), "batch_size": self.batch_size, "position": self.position}
        return ResumableLoader(rows, sampler=sampler, **options)

    def _loader_options(self) -> dict[str, Any]:
        pad = self.tokenizer.pad_token_id
        shared = {"collate_fn": PadRight(0 if pad is None else int(pad)), "pin_memory": self.pin_memory}
        return {**shared, "num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}

    @override
    def val_dataloader(self) -> Any:
        return self._eval_loader("val", self.val_set)

    @override
    def test_dataloader(self) -> Any:
        return self._eval_loader("test", self.test_set)

    def _eval_loader(self, name: str, dataset: InstructionDataset | None) -> Any:
        if dataset is None:
            remedy = f"Pass a file or rows as `{name}`."
            return compat.RaisesWhenUsed(MisconfigurationException(problem(name, "given", None, remedy)))
        ranks, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        rows = WholeRounds(dataset, ranks)
        # our own, because Lightning warns of repeated rows where it puts one in
        sampler: Any = DistributedSampler(rows, ranks, rank, shuffle=False) if ranks > 1 else None
        return DataLoader(rows, batch_size=self.eval_batch_size, sampler=sampler, **self._loader_options())

    @override
    def predict_dataloader(self) -> Any:
        rows = self.train_set if self.val_set is None else self.val_set
        return DataLoader(rows, batch_size=self.eval_batch_size, **self._loader_options())

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def _fingerprint(self) -> dict[str, Any]:
        template = hashlib.blake2b(self.encoder.template.encode(), digest_size=8).hexdigest()
        return {
            "rows": len(self.train_set),
            "conversations": self.train_set.digest,
            "chat template": template,
            "max_length": self.max_length,
            "seed": self.seed,
            "global batch": self.batch_size * (1 if self.trainer is None else self.trainer.world_size),
        }


def _open(source: Any, argument: str) -> Any:
    if isinstance(source, (str, Path)):
        return open_rows(source, argument)
    if hasattr(source, "__len__") and not len(source):
        raise ValueError(problem(argument, "at least one row long", source, "Pass rows, or leave it out."))
    return source


def _load_tokenizer(tokenizer: Any) -> Any:
    if not isinstance(tokenizer, (str, Path)):
        if not callable(getattr(tokenizer, "apply_chat_template", None)):
            remedy = "Pass AutoTokenizer.from_pretrained(...), or the name of a model."
            raise TypeError(problem("tokenizer", "a tokenizer of transformers, or a name", tokenizer, remedy))
        return tokenizer
    return load_pretrained("AutoTokenizer", tokenizer, "tokenizer")
