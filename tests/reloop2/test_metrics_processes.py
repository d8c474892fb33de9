"""PrequentialMetrics under a Trainer: two processes find what one finds, also with unequal shares."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from torch.utils.data import DataLoader, TensorDataset

from lightning_adapt.reloop2.metrics import PrequentialMetrics
from tests.reloop2.metric_parts import Rows, filled, plain, rows
from tests.rs2.parts import Module, small_trainer

# Lightning's advice against several processes in `test`, which is what is tested
pytestmark = pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning")

ALL = ("base", "slot", "group")


class Measures(Module):
    """Compares inside the hook, so that a failure in any process fails the test."""

    def __init__(self, names: tuple[str, ...], expected: PrequentialMetrics) -> None:
        super().__init__()
        self.names = names
        self.metrics = PrequentialMetrics(n_slots=expected.n_slots)
        self.expected = plain(expected.compute()), plain(expected.per_slot())
        self.rows_of_this_process = 0

    def test_step(self, batch: Any, batch_idx: int) -> None:
        columns = dict(zip(("prediction", "target", "base", "slot", "group", "index"), batch, strict=True))
        self.metrics.update(**{name: columns[name] for name in ("prediction", "target", *self.names)})
        self.rows_of_this_process += len(batch[0])

    def on_test_epoch_end(self) -> None:
        for _ in range(2):  # the rows of this process alone are there again afterwards
            assert plain(self.metrics.per_slot()) == self.expected[1]
            assert plain(self.metrics.compute()) == self.expected[0]
        if self.trainer.world_size > 1:
            self.metrics.sync()
            assert plain(self.metrics.per_slot()) == self.expected[1]
            self.metrics.unsync()
        assert sum(map(len, self.metrics.prediction)) == self.rows_of_this_process
        self.log("auc", self.metrics.compute()["auc"], sync_dist=True)  # comes back from the process of rank 0


def stream(columns: Rows, batch: int) -> DataLoader:
    return DataLoader(TensorDataset(*columns.values()), batch)


@pytest.mark.parametrize("names", [(), ("base",), ("slot", "group"), ("index", "base"), ALL], ids=",".join)
def test_two_processes_find_what_one_finds(names):
    columns = rows(64)  # no row is repeated to make the shares even
    module = Measures(names, filled(columns, *names, n_slots=4))
    found = small_trainer(strategy="ddp_fork", devices=2).test(module, stream(columns, 8), verbose=False)
    assert found[0]["auc"] == module.expected[0]["auc"]


def test_the_row_that_fills_the_last_batch_is_counted_once():
    columns = rows(63)
    names = ("index", "base", "group")
    module = Measures(names, filled(columns, *names, n_slots=4))
    found = small_trainer(strategy="ddp_fork", devices=2).test(module, stream(columns, 8), verbose=False)
    assert found[0]["auc"] == module.expected[0]["auc"]
    twice = Measures(("base", "group"), filled(columns, *names, n_slots=4))
    with pytest.raises(Exception, match="AssertionError"):  # without the index it is counted twice
        small_trainer(strategy="ddp_fork", devices=2).test(twice, stream(columns, 8), verbose=False)


def test_a_process_without_rows_takes_part():
    columns = rows(40)
    expected = plain(filled(columns, *ALL).compute())

    class OnlyFirst(Module):
        def on_test_epoch_end(self) -> None:
            metrics = filled(columns, *ALL) if self.global_rank == 0 else PrequentialMetrics()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torchmetrics': compute before update
                assert plain(metrics.compute()) == expected
            if self.global_rank == 1:  # what was gathered is gone again: it can go on with other columns
                metrics.update(columns["prediction"], columns["target"])

        def test_step(self, batch: Any, batch_idx: int) -> None:
            pass

    small_trainer(strategy="ddp_fork", devices=2).test(OnlyFirst(), stream(columns, 8), verbose=False)


def test_processes_that_disagree_on_the_columns_are_told():
    columns = rows(40)

    class Disagrees(Module):
        def on_test_epoch_end(self) -> None:
            metrics = filled(columns, *(("base",) if self.global_rank else ()))
            with pytest.raises(ValueError, match=r"`base` must be given for all 80 rows, but got 40\. Pass it in all"):
                metrics.compute()

        def test_step(self, batch: Any, batch_idx: int) -> None:
            pass

    small_trainer(strategy="ddp_fork", devices=2).test(Disagrees(), stream(columns, 8), verbose=False)


def test_in_one_process_under_a_trainer_and_twice():
    columns = rows()
    module = Measures(ALL, filled(columns, *ALL, n_slots=4))
    runner = small_trainer()
    for _ in range(2):
        module.metrics.reset()
        module.rows_of_this_process = 0
        found = runner.test(module, stream(columns, 32), verbose=False)
        assert found[0]["auc"] == module.expected[0]["auc"]
