"""Round files: what is written comes back; what is broken says what is wrong with it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from lightning_adapt.divconq.training.round_files import COLUMNS, read_round, write_round


def summary(number: int = 0, **changes):
    keys = {"versions": {}, "settings": {"budget": "5%"}, "n": 9, "k": 2, "engine": "torch 2", "seed": 1}
    keys |= {"fingerprint": {"n": 9, "data": "ab"}, "entropy": 0.123456789, "weights": [0.5, math.nan]}
    return {"round": number, "rows": torch.tensor([2, 5]), **keys, **changes}


def table():
    return {
        "index": torch.tensor([2, 5, 7]),
        "row_hash": ["aa", None, "cc"],
        "cluster": [0, 1, None],
        "q": torch.tensor([1.0, 2.0000000001, math.nan], dtype=torch.float64),
        "S": [None, 0.1, -1.0],
        "w": [0.5, 1 / 3, 0.0],
    }


def test_what_is_written_comes_back_rounded(tmp_path):
    write_round(tmp_path / "new folder", summary(), table())
    found = read_round(tmp_path / "new folder", 0)
    assert found.summary["rows"] == [2, 5]
    assert found.summary["entropy"] == 0.123457
    assert found.summary["weights"] == [0.5, None]
    assert found.table["index"] == [2, 5, 7]
    assert found.table["row_hash"] == ["aa", None, "cc"]
    assert found.table["q"] == [1.0, 2.0, None]
    assert found.table["w"] == [0.5, 0.333333, 0.0]
    assert list(found.table) == list(COLUMNS)


def test_numbers_that_differ_in_their_last_digits_give_the_same_bytes(tmp_path):
    write_round(tmp_path / "one", summary(entropy=1.0 + 1e-12), table())
    write_round(tmp_path / "two", summary(entropy=1.0), table())
    for name in ("round-0.json", "round-0.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_error_while_writing_leaves_what_was_there(tmp_path):
    write_round(tmp_path, summary(), table())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write_round(tmp_path, summary(entropy=object()), table())
    with pytest.raises(KeyError):
        write_round(tmp_path, summary(), {"index": [1]})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_missing_round_names_what_is_there(tmp_path):
    write_round(tmp_path, summary(), table())
    with pytest.raises(FileNotFoundError, match=r"round-3\.json.*round-0\.json"):
        read_round(tmp_path, 3)
    (tmp_path / "round-0.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"round-0\.parquet"):
        read_round(tmp_path, 0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: text[: len(text) // 2], "no whole JSON file"),
        (lambda text: "", "no whole JSON file"),
        (lambda text: "[]", "no round file: it has no everything"),
        (lambda text: json.dumps({"format": 1, "round": 0}), "it has no versions, settings"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "format 2, but this release reads 1"),
        (lambda text: text.replace("  5\n", "  6\n"), r"round-0\.parquet without row 6"),
    ],
)
def test_broken_json(change, match, tmp_path):
    write_round(tmp_path, summary(), table())
    path = tmp_path / "round-0.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=match):
        read_round(tmp_path, 0)


def test_broken_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    write_round(tmp_path, summary(), table())
    path = tmp_path / "round-0.parquet"
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"PAR1 and nothing else"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="no whole parquet file"):
            read_round(tmp_path, 0)
    pyarrow.parquet.write_table(pyarrow.table({"index": [2, 5]}), path)
    with pytest.raises(ValueError, match="it has no column row_hash, cluster, q, S, w"):
        read_round(tmp_path, 0)


def test_bytes_that_are_no_text(tmp_path):
    write_round(tmp_path, summary(), table())
    (tmp_path / "round-0.json").write_bytes(b"\xff\xfe\x00 no text")
    with pytest.raises(ValueError, match="no whole JSON file"):
        read_round(tmp_path, 0)


def test_a_missing_package_names_the_extra(monkeypatch):
    from lightning_adapt._shared import imports
    from lightning_adapt.divconq.training import round_files

    monkeypatch.setattr(round_files, "find_spec", lambda name: None)
    missing = imports.RequirementCache("no-such-package-of-ours")
    monkeypatch.setitem(imports.EXTRAS["llm"], "datasets", missing)
    with pytest.raises(ModuleNotFoundError, match=r"out_dir.*lightning-adapt\[llm\]"):
        round_files.require_parquet("DiversitySelectionCallback(out_dir=...)")


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    write_round(tmp_path, summary(settings={"budget": np.int64(103), "tau": np.float32(0.5)}), table())
    assert read_round(tmp_path, 0).summary["settings"] == {"budget": 103, "tau": 0.5}
