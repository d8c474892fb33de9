"""Parquet files and data sets of `datasets`: the same rows, chosen ones with columns and types kept."""

from __future__ import annotations

import pickle

import pytest

from lightning_adapt.divconq.text.readers import open_rows, write_rows

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")

ROWS = [
    {"messages": [{"role": "user", "content": f"q{row}"}, {"role": "assistant", "content": f"a{row}"}], "n": row}
    for row in range(700)
]


@pytest.fixture
def parquet_file(tmp_path):
    path = tmp_path / "pool.parquet"
    table = pyarrow.Table.from_pylist(ROWS).cast(
        pyarrow.Table.from_pylist(ROWS).schema.set(1, pyarrow.field("n", pyarrow.int16()))
    )
    parquet.write_table(table, path, row_group_size=300)
    return path


@pytest.fixture(autouse=True)
def _no_progress_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_parquet_rows_in_any_order(parquet_file):
    rows = open_rows(parquet_file)
    assert (rows.kind, rows.format, len(rows)) == ("parquet", "messages", 700)
    assert list(rows) == ROWS
    for row in (699, 0, 300, 299, 5, 6, 7, 299, 300, 301):
        assert rows[row] == ROWS[row]
    assert pickle.loads(pickle.dumps(rows))[650] == ROWS[650]
    assert rows.place(12) == "pool.parquet, row 12"


def test_chosen_parquet_rows_keep_order_and_types(parquet_file, tmp_path):
    chosen = [650, 3, 299, 300, 4]
    write_rows(chosen, open_rows(parquet_file), tmp_path / "chosen.parquet")
    table = parquet.read_table(tmp_path / "chosen.parquet")
    assert table.to_pylist() == [ROWS[row] for row in chosen]
    assert table.schema.equals(parquet.read_table(parquet_file).schema)
    with pytest.raises(ValueError, match=r"'\.parquet'"):
        write_rows(chosen, open_rows(parquet_file), tmp_path / "chosen.jsonl")


def test_one_row_group_is_held_at_a_time(parquet_file):
    rows = open_rows(parquet_file)
    before = pyarrow.total_allocated_bytes()
    for row in range(700):
        rows[row]
    assert pyarrow.total_allocated_bytes() - before < parquet.read_table(parquet_file).nbytes


def test_a_folder_and_a_data_set_of_datasets(tmp_path):
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.with_format("numpy").save_to_disk(tmp_path / "pool")
    for source in (tmp_path / "pool", dataset, dataset.with_format("torch")):
        rows = open_rows(source)
        assert (rows.kind, rows.format, len(rows)) == ("datasets", "messages", 700)
        assert rows[3:] == ROWS[3:]
        assert (rows[5], rows[699], rows[0]) == (ROWS[5], ROWS[699], ROWS[0])
    write_rows([9, 2], open_rows(tmp_path / "pool"), tmp_path / "chosen")
    assert datasets.load_from_disk(str(tmp_path / "chosen")).to_list() == [ROWS[9], ROWS[2]]
    with pytest.raises(FileExistsError, match="new folder"):
        write_rows([1], open_rows(tmp_path / "pool"), tmp_path / "chosen")
    assert {file.name for file in tmp_path.iterdir()} == {"pool", "chosen"}


def test_a_folder_of_splits_and_a_damaged_one(tmp_path):
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS[:3])})
    splits.save_to_disk(tmp_path / "pool")
    with pytest.raises(ValueError, match=r"one split.*pool/train"):
        open_rows(tmp_path / "pool")
    assert len(open_rows(tmp_path / "pool" / "train")) == 3
    with pytest.raises(TypeError, match="one split"):
        open_rows(splits)
    (tmp_path / "pool" / "train" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        open_rows(tmp_path / "pool" / "train")


def test_rows_of_another_kind_are_named(tmp_path):
    parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet, row 0: .*text"):
        open_rows(tmp_path / "a.parquet").conversation(0)
    parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], "string")}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="at least one row"):
        open_rows(tmp_path / "b.parquet")
