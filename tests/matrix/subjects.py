"""The rows of the matrix: each foreign module with its data, and what somebody who has it would pass to a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lightning_adapt import ErrorMemory
from tests.matrix import (
    modules_averaged,
    modules_bert,
    modules_clicks,
    modules_fixmatch,
    modules_gan,
    modules_gru,
    modules_lbfgs,
    modules_llama,
    modules_manual,
    modules_pytorch_lightning,
    modules_regression,
    modules_sampled,
    modules_simclr,
)
from tests.matrix.additions import ADDITIONS

__all__ = ["SUBJECTS", "Subject"]

N_ROWS, BATCH, EPOCHS = 40, 4, 3  # of every train set, in every module


@dataclass(frozen=True)
class Subject:
    """A module, its data, and how to watch it from outside.

    Attributes:
        title: Row of the table.
        module: Makes the module.
        data: Makes the keyword arguments of `fit`.
        marks: Batch -> one number for each row, by which it is known again. Shape (B,).
        known: Marks of the train set, in its order; None for a stream. Shape (N,).
        stream: Makes the keyword arguments of `test`; None: those that module and DataModule have.
        options: Method -> arguments that its card asks for with such a module.
        added: Method -> what a user adds: a class in place of the module's, or other loaders; see `additions`.
        loader: Which train loader, where there are several.
        callbacks: Makes callbacks that belong to the module.
        trainer: Arguments of its Trainer.
        package: The package of its Trainer.
    """

    title: str
    module: Callable[[], Any]
    data: Callable[[], dict[str, Any]]
    marks: Callable[[Any], Tensor]
    known: Callable[[], Tensor] | None = None
    stream: Callable[[], dict[str, Any]] | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    added: dict[str, Callable[[], Any]] = field(default_factory=dict)
    loader: str | None = None
    callbacks: Callable[[], list[Any]] = list
    trainer: dict[str, Any] = field(default_factory=dict)
    package: str = "lightning.pytorch"


def first_number(batch: Any) -> Tensor:
    """The first feature of a tuple's first part."""
    return batch[0].flatten(1)[:, 0]


def of_tokens(batch: dict[str, Tensor]) -> Tensor:
    return weighted(batch["input_ids"])


def weighted(tokens: Tensor) -> Tensor:
    """One number for a padded row of tokens, whatever the padding (0 or -1)."""
    places = torch.arange(1, tokens.shape[1] + 1, dtype=torch.float64)
    return (tokens.clamp(min=0).double() * places.sqrt()).sum(1).float()


def _llama_data() -> dict[str, Any]:
    return modules_llama.loaders(modules_llama.build_tokenizer())


def _llama_rows() -> Tensor:
    rows = modules_llama.tokenised(modules_llama.build_tokenizer(), modules_llama.instructions(N_ROWS))
    return torch.cat([weighted(torch.tensor([row["input_ids"]])) for row in rows])


def _bert_rows() -> Tensor:
    return torch.cat([weighted(row["input_ids"][None]) for row in modules_bert.tokenised(N_ROWS, seed=0)])


def _tunes() -> Tensor:
    return torch.cat([of_tune((tune[None], None)) for tune in modules_gru.melodies(N_ROWS, 81, 2)])


def of_tune(batch: Any) -> Tensor:
    return weighted(batch[0] + 1)


SUBJECTS = {
    "gan": Subject(
        "GAN: manual optimisation, two optimizers, raw loaders",
        modules_gan.GAN,
        lambda: {"train_dataloaders": modules_gan.train_loader(), "val_dataloaders": modules_gan.mixed_loader()},
        marks=first_number,
        known=lambda: modules_gan.genuine_rows().tensors[0][:, 0],
        stream=lambda: {"dataloaders": modules_gan.mixed_loader()},
    ),
    "manual": Subject(
        "Classes: manual accumulation, clipping and schedule; loaders in the module",
        modules_manual.StepsByHand,
        dict,
        marks=first_number,
        known=lambda: modules_manual.Blobs(N_ROWS, seed=21).points[:, 0],
        options={"rs2 loss": {"loss_key": "losses"}},
    ),
    "clicks": Subject(
        "Clicks: dict batches, DataModule, torchmetrics in every stage",
        modules_clicks.ClickModel,
        lambda: {"datamodule": modules_clicks.ClickData()},
        marks=lambda batch: batch["price"],
        known=lambda: modules_clicks.ClickLog(N_ROWS, seed=31).columns["price"],
        added=ADDITIONS["clicks"],
    ),
    "bert": Subject(
        "BERT of transformers: collate_fn that pads, warm-up per step",
        modules_bert.RudenessClassifier,
        lambda: {"datamodule": modules_bert.SentenceData()},
        marks=of_tokens,
        known=_bert_rows,
        added=ADDITIONS["bert"],
        trainer={"gradient_clip_val": 1.0},
    ),
    "llama": Subject(
        "Llama of transformers, rows of datasets: accumulated batches, cosine per step, raw loaders",
        modules_llama.LlamaTuning,
        _llama_data,
        marks=of_tokens,
        known=_llama_rows,
        stream=lambda: {"dataloaders": _llama_data()["val_dataloaders"]},
        options={"selection": {"embedder": None}},
        added=ADDITIONS["llama"],
        trainer={"accumulate_grad_batches": 2},
    ),
    "regression": Subject(
        "Regression: several validation and test loaders, ReduceLROnPlateau",
        modules_regression.HousePrices,
        dict,
        marks=first_number,
        known=lambda: modules_regression.houses(N_ROWS, 41).tensors[0][:, 0],
        options={"memory": {"memory": lambda: ErrorMemory(task="regression")}},
        added=ADDITIONS["regression"],
    ),
    "fixmatch": Subject(
        "FixMatch: two train loaders in a dict, own views and averages",
        modules_fixmatch.FixMatch,
        lambda: {"datamodule": modules_fixmatch.SemiSupervisedData()},
        marks=lambda batch: batch["ulb"]["idx_ulb"],
        known=lambda: torch.arange(N_ROWS),
        options={
            "rs2 loss": {"loss_key": "unsup_loss", "index_key": "idx_ulb"},
            "saa": {"loss_key": "unsup_loss", "index_key": "idx_ulb", "n_unlabeled": N_ROWS},
        },
        added=ADDITIONS["fixmatch"],
        loader="ulb",
    ),
    "simclr": Subject(
        "SimCLR: collate_fn of two views, loss over the batch, own `optimizer_step`",
        modules_simclr.SimCLR,
        lambda: {"datamodule": modules_simclr.ShapeData()},
        marks=lambda batch: batch[1],
        known=lambda: torch.arange(N_ROWS),
        added=ADDITIONS["simclr"],
    ),
    "gru": Subject(
        "GRU language model: packed sequences, tuple batches",
        modules_gru.MelodyModel,
        lambda: {"datamodule": modules_gru.MelodyData()},
        marks=of_tune,
        known=_tunes,
        added=ADDITIONS["gru"],
    ),
    "lbfgs": Subject(
        "Logistic regression by LBFGS: `training_step` runs several times a batch",
        modules_lbfgs.LogisticRegression,
        lambda: {"datamodule": modules_lbfgs.ApplicantData()},
        marks=first_number,
        known=lambda: modules_lbfgs.applicants(N_ROWS, 111).tensors[0][:, 0],
        added=ADDITIONS["lbfgs"],
    ),
    "averaged": Subject(
        "Two heads: `configure_model`, named tuples, OneCycleLR, EMAWeightAveraging",
        modules_averaged.TwoHeads,
        lambda: {
            "train_dataloaders": modules_averaged.loader(N_ROWS, 101, batch_size=BATCH, shuffle=True),
            "val_dataloaders": modules_averaged.loader(16, 102, batch_size=8),
        },
        marks=lambda batch: batch.features[:, 0],
        known=lambda: modules_averaged.Visits(N_ROWS, 101).x[:, 0],
        stream=lambda: {"dataloaders": modules_averaged.loader(32, 103, batch_size=8)},
        options={"memory": {"output_module": "heads.bought"}},
        added=ADDITIONS["averaged"],
        callbacks=lambda: [EMAWeightAveraging(decay=0.9)],
    ),
    "pytorch_lightning": Subject(
        "Module, DataModule and Trainer of `pytorch_lightning`",
        modules_pytorch_lightning.Readmission,
        lambda: {"datamodule": modules_pytorch_lightning.PatientData()},
        marks=first_number,
        known=lambda: modules_pytorch_lightning.patients(N_ROWS, 61).tensors[0][:, 0],
        added=ADDITIONS["pytorch_lightning"],
        package="pytorch_lightning",
    ),
    "stream": Subject(
        "IterableDataset: a stream",
        modules_sampled.FraudModel,
        lambda: {
            "train_dataloaders": modules_sampled.stream_loader(N_ROWS, 91),
            "val_dataloaders": modules_sampled.stream_loader(16, 92),
        },
        marks=first_number,
        stream=lambda: {"dataloaders": modules_sampled.stream_loader(32, 93)},
    ),
    "weighted": Subject(
        "WeightedRandomSampler against a rare class",
        modules_sampled.FraudModel,
        lambda: {
            "train_dataloaders": modules_sampled.weighted_loader(),
            "val_dataloaders": modules_sampled.plain_loader(16, 92),
        },
        marks=first_number,
        known=lambda: modules_sampled.transfers(N_ROWS, 91).tensors[0][:, 0],
        stream=lambda: {"dataloaders": modules_sampled.plain_loader(32, 93)},
        added=ADDITIONS["weighted"],
    ),
}
