"""`lightning-adapt select`: every format and kind of file, the same bytes for the same seed, errors of one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from lightning_adapt import cli
from lightning_adapt._shared import kmeans
from lightning_adapt.divconq import selection
from lightning_adapt.divconq.offline import command, file_selection
from lightning_adapt.divconq.offline.file_result import FileSelection, Results
from lightning_adapt.divconq.text import formats
from tests.divconq.select_parts import FORMATS, N, read_pool, rows, write_pool

pytest.importorskip("sklearn")


@pytest.fixture
def pool(tmp_path):
    return write_pool(tmp_path / "pool.jsonl", rows(score=lambda row: row % 5))


def select(pool: Path, out: str = "chosen.jsonl", budget: str = "9", *more: str) -> int | None:
    return cli.main(["select", "--data", str(pool), "--budget", budget, "--out", out, *more])


def fails(capsys, *arguments: str) -> str:
    """Run a command that must end with code 2 and one line, and leave no file; return the line."""
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(SystemExit) as stop:
        select(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "Traceback" not in error
    assert sorted(Path.cwd().rglob("*")) == before
    return lines[0]


# -- what is written ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_its_own_rows_back(kind, ending, tmp_path, capsys):
    content = rows(kind)
    pool = write_pool(tmp_path / f"pool{ending}", content)
    assert select(pool, f"new/chosen{ending}", "9", "--no-report", "--k", "3") == 0
    record = json.loads(Path("new/chosen.indices.json").read_text())
    assert len(set(record["rows"])) == 9
    assert record["rows"] == sorted(record["rows"])
    assert read_pool(Path(f"new/chosen{ending}")) == [content[row] for row in record["rows"]]
    assert record["data"]["format"] == kind
    assert {path.name for path in Path("new").iterdir()} == {f"chosen{ending}", "chosen.indices.json"}


@pytest.mark.parametrize("name", ["pool.json", "pool.v1"])
def test_json_lists_and_folders_of_datasets(name, tmp_path):
    content = rows("messages")
    pool = write_pool(tmp_path / name, content) if name.endswith("json") else tmp_path / name
    if not pool.exists():
        from datasets import Dataset

        Dataset.from_list(content).save_to_disk(pool)
    out = name.replace("pool", "chosen")
    stem = "chosen" if name.endswith("json") else "chosen.v1"
    assert select(pool, out, "15%", "--method", "random", "--no-report") == 0
    record = json.loads(Path(f"{stem}.indices.json").read_text())
    got = json.loads(Path(out).read_text()) if name.endswith("json") else read_pool(Path(out).rename("folder"))
    assert got == [content[row] for row in record["rows"]]
    assert record["counts"] == {"rows": N, "empty_responses_left_out": 1, "copies_left_out": 1, "chosen": 9}


def test_lines_are_copied_byte_for_byte_and_copies_and_empty_responses_never_come(pool, capsys):
    assert select(pool, "chosen.jsonl", str(N - 2), "--k", "3") == 0
    lines = pool.read_bytes().splitlines(keepends=True)
    assert Path("chosen.jsonl").read_bytes() == b"".join(lines[:-2])
    lines = capsys.readouterr().out.splitlines()
    table = dict(re.split("  +", line) for line in lines[: lines.index(next(line for line in lines if "Note" in line))])
    assert table.pop("time").startswith("reading 0.")
    assert table.pop("peak memory").endswith(" MiB")
    assert table == {
        "rows": "60",
        "empty responses": "1",
        "copies": "1",
        "chosen": "58",
        "settings": "budget 58, method kmq, k 3, seed 42, dedup exact",
        "vectors": "tfidf, text prompt",
        "clusters": "3, 3 of them chosen from",
        "k-means by": table["k-means by"],
    }
    assert {line.find(value) for line, value in zip(lines, table.values(), strict=False)} == {17}  # one left edge
    assert "Note: No quality was given" in "\n".join(lines)
    assert "Note: 1 row has an empty response and was left out: pool.jsonl, line 60." in lines
    assert "Wrote chosen.html" in lines


def test_the_summary_of_a_large_pool_fits_on_80_columns():
    counts = {"rows": 1_000_000, "empty_responses_left_out": 12_345, "copies_left_out": 0, "chosen": 123_456}
    settings = "budget 123456, method km_closest, k auto, seed 42, dedup exact"
    clusters, words = torch.arange(1024), ("sentence-transformers/all-MiniLM-L6-v2, text prompt", 2048, "faiss 1.15.1")
    results = Results(torch.arange(9), clusters, counts, settings, *words, [])
    seconds = {"reading": 12.34, "embedding": 1107.9, "choosing": 144.0, "writing": 26.0}
    pairs = FileSelection(results, Path("a"), Path("b"), None, seconds, 1234.5).summary()
    assert ("time", "reading 12 s, embedding 1108 s, choosing 144 s, writing 26 s") in pairs
    assert max(len(what) for what, _ in pairs) + 2 + max(len(value) for _, value in pairs) <= 80


def test_the_same_seed_gives_the_same_bytes_in_another_folder_and_another_seed_does_not(pool):
    for seed, folder, more in (("1", "a", []), ("1", "b", []), ("2", "c", ["--no-report"])):
        assert select(pool, f"{folder}/chosen.jsonl", "9", "--seed", seed, *more) == 0
    first, second, other = ({path.name: path.read_bytes() for path in Path(folder).iterdir()} for folder in "abc")
    assert sorted(first) == ["chosen.html", "chosen.indices.json", "chosen.jsonl"]
    assert first == second
    assert first["chosen.jsonl"] != other["chosen.jsonl"]


def test_the_record_says_what_the_rows_came_from(pool):
    assert select(pool, "chosen.jsonl", "0.15", "--k", "3", "--quality", "score", "--tau", "0.01", "--no-report") == 0
    record = json.loads(Path("chosen.indices.json").read_text())
    assert record["settings"]["quality"] == "score"
    assert record["settings"]["budget"] == "0.15"
    assert record["k"] == 3
    assert record["embedder"]["name"] == "tfidf"
    assert record["versions"]["lightning_adapt"]
    assert len(record["clusters"]) == 9
    assert set(record["clusters"]) == {0, 1, 2}
    # a cluster is a topic, and at so low a temperature only rows with the highest score of a topic are drawn
    assert all(row % 5 == 4 for row in record["rows"])
    topics = {cluster: row % 3 for cluster, row in zip(record["clusters"], record["rows"], strict=True)}
    assert all(topics[cluster] == row % 3 for cluster, row in zip(record["clusters"], record["rows"], strict=True))
    assert "second" not in str(list(record))  # no times: they would differ every time


def test_the_fingerprint_is_that_of_the_conversations(tmp_path):
    prints = set()
    for kind, ending in (("alpaca", ".jsonl"), ("messages", ".parquet")):
        pool = write_pool(tmp_path / f"{kind}{ending}", rows(kind))
        assert select(pool, f"out-{kind}{ending}", "9", "--method", "random", "--no-report") == 0
        prints.add(json.loads(Path(f"out-{kind}.indices.json").read_text())["data"]["fingerprint"])
    assert len(prints) == 1


@pytest.mark.parametrize("method", [name for name in command.METHODS if name != "kmq"])
def test_every_method_gives_exactly_the_budget(method, pool):
    assert select(pool, "chosen.jsonl", "11", "--method", method, "--dedup", "near", "--no-report") == 0
    record = json.loads(Path("chosen.indices.json").read_text())
    assert len(set(record["rows"]) - {N - 1, N - 2}) == 11


def test_vectors_of_the_user(pool):
    vectors = np.eye(3, dtype=np.float32)[np.arange(N) % 3] + 0.01 * np.arange(N, dtype=np.float32)[:, None] / N
    np.save("vectors.npy", vectors)
    assert select(pool, "chosen.jsonl", "9", "--embedder", "vectors.npy", "--k", "3", "--no-report") == 0
    record = json.loads(Path("chosen.indices.json").read_text())
    assert sorted(row % 3 for row in record["rows"]) == [0] * 3 + [1] * 3 + [2] * 3
    assert record["embedder"]["shape"] == [N, 3]


def test_a_cache_folder_is_kept_and_used_again(pool, monkeypatch):
    from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder

    assert select(pool, "a.jsonl", "9", "--cache-dir", "cache", "--no-report") == 0
    assert list(Path("cache").iterdir())
    monkeypatch.setattr(TfidfEmbedder, "encode", lambda *_: pytest.fail("the cache was not used"))
    assert select(pool, "b.jsonl", "9", "--cache-dir", "cache", "--no-report") == 0
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()


# -- errors ------------------------------------------------------------------------------------------------------------
def test_bad_arguments(pool, capsys, tmp_path):
    assert "at most the 60 rows" in fails(capsys, pool, "x.jsonl", "61")
    line = fails(capsys, pool, "x.jsonl", "59")
    counts = "left out: 1 for an empty response, 1 for being a copy"
    assert f"at most 58, the rows left of 60 ({counts}), but got 59" in line
    assert "budget" in fails(capsys, pool, "x.jsonl", "many")
    for text in ("1e1", "10.0", "+10"):
        line = fails(capsys, pool, "x.jsonl", text)
        assert f"argument --budget: a number of rows is written in digits only (10), but got {text!r}" in line
    assert "`budget` must be" in fails(capsys, pool, "x.jsonl", "inf")
    assert "budget" in fails(capsys, pool, "x.jsonl", "120%")
    assert "a .jsonl file like the input" in fails(capsys, pool, "x.parquet")
    (tmp_path / "pool.txt").write_text("a row")
    assert "`data` must be a file ending in" in fails(capsys, str(tmp_path / "pool.txt"), "x.jsonl")
    assert "another path than the input" in fails(capsys, pool, str(pool))
    assert "argument --k: must be a whole number or 'auto'" in fails(capsys, pool, "x.jsonl", "9", "--k", "few")
    assert "`k` must be at most the 58 rows" in fails(capsys, pool, "x.jsonl", "9", "--k", "59")
    assert "no_such.jsonl" in fails(capsys, tmp_path / "no_such.jsonl")
    assert "--method" in fails(capsys, pool, "x.jsonl", "9", "--method", "best")
    line = fails(capsys, pool, "x.jsonl", "9", "--method", "random", "--quality", "score")
    assert "method='random'" in line
    line = fails(capsys, pool, "x.jsonl", "9", "--quality", "grade")
    assert "pool.jsonl, line 1: there is no column 'grade'. There are: instruction, input, output, score." in line
    assert "needs" not in line


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ('{"instruction": "a", "output": ', ["line 8", "expected one JSON object on each line"]),
        ("[1, 2]", ["line 8", "expected one JSON object on each line"]),
        ('{"question": "a", "reply": "b"}', ["line 8", "question, reply"]),
        ('{"instruction": 5, "output": "b", "score": 1}', ["line 8", "`instruction` must be a string, but got 5"]),
        ('{"instruction": "a", "output": "b", "score": "high"}', ["line 8", "finite number, but got 'high'"]),
        ('{"instruction": "a", "output": "b", "score": NaN}', ["line 8", "finite number, but got nan"]),
    ],
)
def test_bad_lines_are_named(broken, expected, pool, capsys):
    lines = pool.read_text().splitlines()
    lines[7] = broken
    pool.write_text("\n".join(lines))
    line = fails(capsys, pool, "x.jsonl", "9", "--quality", "score")
    assert line.startswith("error: select: pool.jsonl, line 8: ")
    for part in expected:
        assert part in line


def test_an_unknown_format_names_the_keys_found(tmp_path, capsys):
    pool = write_pool(tmp_path / "pool.jsonl", [{"text": "a", "label": 1}] * 5)
    line = fails(capsys, pool)
    assert "text, label" in line
    assert "alpaca" in line
    pool = write_pool(tmp_path / "pool.jsonl", rows("alpaca"))
    assert "instruction, input, output" in fails(capsys, pool, "x.jsonl", "9", "--format", "messages")


def test_bad_vectors(pool, capsys):
    vectors = np.ones((N, 4), dtype=np.float32)
    vectors[17, 2] = np.nan
    np.save("vectors.npy", vectors)
    assert "17" in fails(capsys, pool, "x.jsonl", "9", "--embedder", "vectors.npy")
    np.save("vectors.npy", vectors[:17])
    line = fails(capsys, pool, "x.jsonl", "9", "--embedder", "vectors.npy")
    assert "60 vectors, one per row, but got '17'" in line


def test_a_missing_extra_is_named_before_the_work(pool, capsys, monkeypatch):
    def missing(extra, feature, *packages):
        raise ModuleNotFoundError(f'{feature} needs x. Run: pip install "lightning-adapt[{extra}]"')

    monkeypatch.setattr(file_selection, "require", missing)
    monkeypatch.setattr(file_selection, "open_rows", lambda _: pytest.fail("the work began"))
    assert 'pip install "lightning-adapt[figures]"' in fails(capsys, pool)


def test_verbose_shows_the_traceback_and_ctrl_c_ends_quietly(pool, capsys, monkeypatch):
    with pytest.raises(ValueError, match="at most the 60 rows"):
        select(pool, "x.jsonl", "61", "--verbose")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(file_selection, "select_rows", stop)
    assert select(pool, "x.jsonl") == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not Path("x.jsonl").exists()


# -- the parser --------------------------------------------------------------------------------------------------------
def test_the_choices_are_those_of_the_functions():
    assert get_args(selection.Method) == command.METHODS
    assert get_args(selection.Quota) == command.QUOTAS
    assert get_args(selection.Dedup) == command.DEDUPS
    assert get_args(kmeans.Engine) == command.ENGINES
    assert ("auto", *get_args(formats.Format)) == command.FORMATS
    assert get_args(file_selection.Text) == command.TEXTS


def test_help_needs_neither_torch_nor_an_extra():
    code = (
        "import sys\nfrom lightning_adapt.cli import main\ntry:\n    main(['select', '--help'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'torch', 'sklearn', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 is one row, 1.0 is all" in " ".join(done.stdout.split())


def test_one_row_and_all_rows(pool):
    assert select(pool, "one.jsonl", "1", "--no-report") == 0
    assert len(Path("one.jsonl").read_text().splitlines()) == 1
    clean = write_pool(pool.with_name("clean.jsonl"), rows()[:-2])
    assert select(clean, "all.jsonl", "1.0", "--no-report") == 0
    assert Path("all.jsonl").read_bytes() == clean.read_bytes()


def test_numbers_of_numpy_are_written_as_numbers(pool, tmp_path):
    settings = {"k": np.int64(3), "tau": np.float32(1), "seed": np.int64(4)}
    file_selection.select_file(pool, np.int64(9), tmp_path / "a.jsonl", report=False, **settings)
    file_selection.select_file(pool, 9, tmp_path / "b.jsonl", report=False, k=3, tau=1.0, seed=4)
    one, two = (json.loads((tmp_path / f"{name}.indices.json").read_text()) for name in "ab")
    assert one["settings"] == two["settings"]
    assert one["rows"] == two["rows"]
