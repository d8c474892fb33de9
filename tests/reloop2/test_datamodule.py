"""PrequentialDataModule: order, slots, batches, files, resume and two processes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_adapt import RS2Callback
from lightning_adapt.reloop2.data.tables import Split
from tests.foreign import trainer
from tests.reloop2.log_parts import N_ROWS, Recorder, data, flat, frame


def test_the_table_is_in_time_order_and_split_in_slots():
    module = data(train_share=0.5, val_share=0.1, slots=7)
    ordered = frame().sort_values("truth")
    rows = module.table.rows(slice(0, None))
    assert (module.n_train, module.n_val, module.n_test) == (43, 10, 54)
    assert rows["index"].tolist() == list(range(N_ROWS))
    assert rows["label"].tolist() == ordered["click"].tolist()
    users = pd.factorize(ordered["user"])[0] + 1
    assert rows["user"].tolist() == users.tolist()
    assert module.field_sizes == {"user": users.max() + 1, "item": ordered["item"].nunique() + 1}
    assert rows["item"].dtype == rows["slot"].dtype == torch.int64
    assert rows["price"].dtype == rows["label"].dtype == torch.float32
    known = ordered["price"][:43]
    np.testing.assert_allclose(rows["price"], (ordered["price"] - known.mean()) / known.std(ddof=0), atol=1e-5)
    assert rows["slot"][:53].unique().tolist() == [-1]
    edges = module.slot_edges.tolist()
    assert (edges[0], edges[-1], len(edges)) == (53, N_ROWS, 8)
    for slot, (start, end) in enumerate(itertools.pairwise(edges)):
        assert end - start in (7, 8)
        assert rows["slot"][start:end].tolist() == [slot] * (end - start)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_dicts_of_columns(workers):
    module = data(num_workers=workers, val_share=0.1)
    train = list(module.train_dataloader())
    assert sorted(torch.cat([batch["index"] for batch in train]).tolist()) == list(range(43))
    assert torch.cat([batch["index"] for batch in train]).tolist() != list(range(43))
    assert set(train[0]) == {"user", "item", "price", "label", "index", "slot"}
    for batch in (*train, *module.val_dataloader(), *module.test_dataloader(), *module.predict_dataloader()):
        expected = module.table.rows(batch["index"])
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    for loader, part in ((module.val_dataloader(), range(43, 53)), (module.test_dataloader(), range(53, N_ROWS))):
        assert torch.cat([batch["index"] for batch in loader]).tolist() == list(part)
        assert len(next(iter(loader))["index"]) == 10


def test_a_batch_may_be_changed_in_place():
    module = data()
    before = module.table.columns["price"].clone()
    for batch in (*module.train_dataloader(), *module.test_dataloader()):
        batch["price"].fill_(9.0)
    assert torch.equal(module.table.columns["price"], before)


def test_epochs_are_shuffled_anew_and_by_the_seed(tmp_path):
    orders = []
    for seed in (0, 0, 1):
        module = Recorder()
        trainer(tmp_path, max_epochs=2).fit(module, datamodule=data(seed=seed))
        orders.append(module.seen)
    assert orders[0] == orders[1] != orders[2]
    assert flat(orders[0][:7]) != flat(orders[0][7:])
    assert sorted(flat(orders[0][7:])) == list(range(53))


def test_new_ids_get_rows_or_share_one():
    table = pd.DataFrame({"when": range(8), "click": [0, 1] * 4, "user": list("aabbcadc")})
    options = {"fields": None, "numeric": (), "slots": 2}
    own, shared = data(table, **options), data(table, new_ids="shared", **options)
    assert own.table.columns["user"].tolist() == [1, 1, 2, 2, 3, 1, 4, 3]
    assert own.field_sizes == {"user": 5}
    assert shared.table.columns["user"].tolist() == [1, 1, 2, 2, 0, 1, 0, 0]
    assert shared.field_sizes == {"user": 3}
    assert shared.table.vocabulary == {"user": ["a", "b"]}
    for module in (own, shared):
        assert module.seen_in_training("user").tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match="one of"):
        own.seen_in_training("click")


@pytest.mark.parametrize("change", ["click", "user", "price"])
def test_nothing_in_the_past_depends_on_the_future(change):
    table = frame()
    changed = table.copy()
    late = changed["truth"] >= 80
    changed.loc[late, change] = {"click": 1, "user": "new", "price": 1e6}[change]
    for new_ids in ("rows", "shared"):
        one, two = (data(source, new_ids=new_ids).table.rows(slice(0, 80)) for source in (table, changed))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_missing_ids_are_never_seen():
    table = pd.DataFrame({"when": range(6), "click": [0, 1] * 3, "user": ["a", None, "b", None, "a", "c"]})
    module = data(table, fields=["user"], numeric=(), slots=1)
    assert module.table.columns["user"].tolist() == [1, 0, 2, 0, 1, 3]
    assert module.seen_in_training("user").tolist() == [False, True, False]


def test_shares_of_rows_are_not_rounded_down():
    for before in range(1, 400):
        split = Split.of(400, before / 400, 0.0)
        assert (split.n_train, split.n_test) == (before, 400 - before)


def test_ties_in_time_keep_the_tables_order_or_follow_sort_by():
    table = {"when": [1, 0, 1, 1], "click": [0, 1, 0, 1], "user": [7, 7, 5, 6]}
    options = {"fields": ["user"], "numeric": (), "slots": 1}
    plain = data(table, **options).table.columns["user"]
    assert plain.tolist() == [1, 1, 2, 3]
    sorted_ = data(table, **options, sort_by=["user"]).table
    assert [sorted_.vocabulary["user"][row - 1] for row in sorted_.columns["user"]] == [7, 5, 6, 7]


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.tsv", "log.csv.gz"])
def test_files_hold_what_the_frame_holds(name, tmp_path):
    table, path = frame(), tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table["when"] = (table["when"] - pd.Timestamp("2024-01-01")).dt.total_seconds()
        table.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    expected = data().table
    for source in (path, str(path)):
        read = data(source).table
        assert all(torch.equal(column, expected.columns[field]) for field, column in read.columns.items())


def test_mappings_of_lists_and_tensors():
    table = frame()
    columns = {
        "when": torch.tensor(table["truth"].tolist()),
        "user": table["user"].tolist(),
        "item": table["item"].to_numpy(),
        "price": table["price"],
        "click": torch.tensor(table["click"].tolist()),
    }
    expected = data().table
    read = data(columns).table
    assert all(torch.equal(column, expected.columns[field]) for field, column in read.columns.items())


def test_the_trainer_streams_in_time_order(tmp_path):
    module, source = Recorder(), data(val_share=0.1)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, datamodule=source)
    assert "val" in run.callback_metrics
    run.test(module, datamodule=source, verbose=False)
    assert flat(module.streamed) == list(range(53, N_ROWS))
    assert torch.cat(run.predict(module, datamodule=source)).tolist() == list(range(53, N_ROWS))


def test_no_validation_part_no_validation(tmp_path):
    module = Recorder()
    run = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=2)
    run.fit(module, datamodule=data())
    assert "val" not in run.callback_metrics


def test_one_row_alone_is_no_batch():
    table = frame(34)  # 17 training rows
    sizes = [len(batch["index"]) for batch in data(table).train_dataloader()]
    assert sizes == [8, 8]
    assert [len(batch["index"]) for batch in data(table, batch_size=1).train_dataloader()] == [1] * 17
    assert [len(batch["index"]) for batch in data(table, batch_size=5).train_dataloader()] == [5, 5, 5, 2]


# -- resume and processes ------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", ["end", "middle"])
@pytest.mark.parametrize("estimate", [False, True], ids=["", "estimated_stepping_batches"])
def test_resume_is_exact(estimate, stop, workers, tmp_path):
    save = ModelCheckpoint(tmp_path / "saved", "cut", every_n_train_steps=14 if stop == "end" else 10)
    whole = Recorder(estimate=estimate)
    trainer(tmp_path, [save], max_epochs=3).fit(whole, datamodule=data(num_workers=workers))
    resumed, path = Recorder(estimate=estimate), tmp_path / "saved" / "cut.ckpt"
    options = {"ckpt_path": path, "weights_only": True}
    run = trainer(tmp_path, max_epochs=3)
    run.fit(resumed, datamodule=data(num_workers=workers), **options)
    done = torch.load(path, weights_only=True)["global_step"]
    assert resumed.seen == whole.seen[done:]
    assert len(resumed.seen) > 0
    assert torch.equal(resumed.weight, whole.weight)
    with pytest.raises(MisconfigurationException, match="seed: saved 0, here 1"):
        trainer(tmp_path, max_epochs=4).fit(Recorder(), datamodule=data(seed=1), **options)


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")  # even parts: nothing is repeated
def test_two_processes_share_the_batches_in_time_order(tmp_path):
    options = {"strategy": "ddp_fork", "devices": 2, "max_epochs": 2}
    source = data(frame(112), batch_size=4, test_batch_size=5)  # 56 rows of training and 56 of the stream
    trainer(tmp_path, **options).fit(Recorder(str(tmp_path / "train")), datamodule=source)
    alone = Recorder()
    trainer(tmp_path, max_epochs=2).fit(alone, datamodule=data(frame(112), batch_size=8))
    ranks = [json.loads((tmp_path / f"train-{rank}.json").read_text()) for rank in (0, 1)]
    together = [[row for pair in zip(*pairs, strict=True) for row in pair] for pairs in zip(*ranks, strict=True)]
    assert together == alone.seen
    trainer(tmp_path, **options).test(Recorder(str(tmp_path / "test")), datamodule=source, verbose=False)
    ranks = [json.loads((tmp_path / f"test-{rank}.json").read_text()) for rank in (0, 1)]
    order = [row for pairs in zip(*ranks, strict=True) for pair in zip(*pairs, strict=True) for row in pair]
    assert order == list(range(56, 112))


def test_rs2_samples_its_training_rows(tmp_path):
    module = Recorder()
    trainer(tmp_path, [RS2Callback(0.5)], max_epochs=4).fit(module, datamodule=data())
    assert [len(batch) for batch in module.seen] == [8] * 12
    assert all(row < 53 for batch in module.seen for row in batch)
