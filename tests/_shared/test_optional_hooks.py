"""Printing DataModules: what Lightning prints, and None where a loader only carries an error."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_adapt._shared.compat import RaisesWhenUsed
from lightning_adapt._shared.optional_hooks import OptionalHooks


class Endless(IterableDataset):
    def __iter__(self):
        yield 0


def loader(count):
    return DataLoader(TensorDataset(torch.zeros(count)))


class Data(OptionalHooks, LightningDataModule):
    def __init__(self, test):
        super().__init__()
        self.test = test

    def train_dataloader(self):
        return loader(7)

    def val_dataloader(self):
        return [loader(3), DataLoader(Endless())]

    def test_dataloader(self):
        return self.test

    def predict_dataloader(self):
        raise OSError("not there")


@pytest.mark.parametrize("test", [loader(2), None], ids=["a loader", "none"])
def test_it_is_what_lightning_prints(test):
    made = Data(test)
    if test is not None:
        assert str(made).splitlines() == LightningDataModule.__str__(made).splitlines()
    assert str(made).splitlines() == [
        "{Train dataloader: size=7}",
        "{Validation dataloader: 1. size=3 ; 2. size=NA}",
        f"{{Test dataloader: {'None' if test is None else 'size=2'}}}",
        "{Predict dataloader: None}",
    ]


def test_a_loader_that_carries_an_error_is_none():
    made = Data(RaisesWhenUsed(ValueError("later")))
    with pytest.raises(ValueError, match="later"):
        LightningDataModule.__str__(made)
    assert "{Test dataloader: None}" in str(made)
