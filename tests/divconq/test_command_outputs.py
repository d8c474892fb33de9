"""What `select` may write over: never an input or a folder, the rest only with --force, and all of it or nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from lightning_adapt import cli
from lightning_adapt.divconq.offline import file_outputs, file_selection
from lightning_adapt.divconq.offline.file_selection import select_file
from lightning_adapt.divconq.text.readers import open_rows
from tests.divconq.select_parts import N, rows, write_pool

pytest.importorskip("sklearn")


@pytest.fixture
def pool(tmp_path):
    return write_pool(tmp_path / "pool.jsonl", rows())


def contents() -> dict[str, bytes | None]:
    """Return every file and folder here with what is in it."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


def select(pool: Path | str, out: str = "chosen.jsonl", *more: str) -> int:
    return cli.main(["select", "--data", str(pool), "--budget", "9", "--out", out, *more])


def refused(capsys, *arguments) -> str:
    """Run a command that must end with code 2 and leave everything as it was; return its line."""
    before = contents()
    with pytest.raises(SystemExit) as stop:
        select(*arguments)
    assert stop.value.code == 2
    assert contents() == before
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))


# -- inputs and folders ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_no_output_may_be_an_input(force, capsys):
    Path("f").mkdir()
    write_pool(Path("f/a.indices.json"), rows())
    for out in ("f/a.json", "f/a.indices.json", "g/../f/a.json"):
        line = refused(capsys, "f/a.indices.json", out, *force)
        assert "another path than the input f/a.indices.json" in line
        assert "--force" not in line
    Path("b.json").symlink_to("f/a.indices.json")
    assert "another path than the input" in refused(capsys, "f/a.indices.json", "b.json", *force)


def test_no_output_may_be_the_embedders(pool, capsys):
    np.save("a.npy", np.ones((N, 2), np.float32))
    Path("a.npy").rename("a.html")
    Path("model").mkdir()
    Path("tfidf").mkdir()
    for embedder, out in (("a.html", "a.jsonl"), ("model", "model/a.jsonl")):
        line = refused(capsys, pool, out, "--force", "--embedder", embedder)
        assert f"another path than the input {embedder}" in line
    assert select(pool, "tfidf/a.jsonl", "--embedder", "TFIDF", "--no-report") == 0  # that is no folder's name


def test_nothing_goes_into_or_over_a_folder(pool, capsys, monkeypatch):
    folder = write_pool(Path("data/pool"), rows())
    assert "another path than the input data/pool" in refused(capsys, folder, "data/pool/chosen", "--force")
    assert "A folder is never replaced: data." in refused(capsys, folder, "data", "--force")
    Path("chosen.html").mkdir()
    monkeypatch.setattr(file_selection, "open_rows", lambda _: pytest.fail("the work began"))
    line = refused(capsys, pool, "chosen.jsonl", "--force")
    assert "A folder is never replaced: chosen.html. Move it away" in line
    assert "--force" not in line


# -- files that are there ----------------------------------------------------------------------------------------------
def test_files_that_are_there_stay_unless_force_is_given(pool, capsys):
    Path("chosen.html").write_text("mine")
    assert "chosen.html would be replaced. Pass `--force`" in refused(capsys, pool)
    assert select(pool, "chosen.jsonl", "--no-report") == 0
    assert Path("chosen.html").read_text() == "mine"
    assert select(pool, "chosen.jsonl", "--force") == 0
    assert Path("chosen.html").read_text() != "mine"


def test_a_folder_that_cannot_be_written_to(pool, capsys, monkeypatch):
    Path("file").write_text("")
    assert "folder that can be written to" in refused(capsys, pool, "file/x.jsonl")

    def refuse(**_):
        raise PermissionError("no")

    monkeypatch.setattr(file_outputs.tempfile, "TemporaryFile", refuse)
    assert "folder that can be written to" in refused(capsys, pool, "x.jsonl")


def test_an_error_while_writing_leaves_nothing(pool, capsys, monkeypatch):
    def full(rows, source, out):
        Path(out).write_text("half a row")
        raise OSError("No space left on device")

    monkeypatch.setattr(file_outputs, "write_rows", full)
    assert refused(capsys, pool, "x.jsonl", "--no-report") == "error: select: No space left on device"


@pytest.mark.parametrize("old", [[], ["chosen.html", "chosen.jsonl"]])
@pytest.mark.parametrize("name", ["chosen.html", "chosen.indices.json", "chosen.jsonl"])
def test_a_file_that_cannot_take_its_place_puts_all_back(name, old, pool, monkeypatch):
    for path in old:
        Path(path).write_text(f"old {path}")
    before, replace = contents(), Path.replace

    def refuse(path, target):
        if Path(target).name == name and ".unfinished-" in str(path) and "old" not in path.parts:
            raise PermissionError("busy")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    outputs = file_outputs.plan_outputs(pool, Path("chosen.jsonl"), report=True, force=True)
    with pytest.raises(PermissionError, match="busy"):
        file_outputs.write_outputs(outputs, open_rows(pool), np.arange(3), {"rows": [0, 1, 2]}, "new")
    assert contents() == before
    monkeypatch.setattr(Path, "replace", replace)
    file_outputs.write_outputs(outputs, open_rows(pool), np.arange(3), {"rows": [0, 1, 2]}, "new")
    assert set(contents()) == {"pool.jsonl", "chosen.html", "chosen.indices.json", "chosen.jsonl"}
    assert Path("chosen.html").read_text() == "new"


# -- vectors -----------------------------------------------------------------------------------------------------------
def test_vectors_of_the_user_leave_nothing_behind(pool):
    vectors = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    np.save("mine.npy", vectors)
    before = {*contents(), "a.jsonl", "a.indices.json"}
    assert select(pool, "a.jsonl", "--embedder", "mine.npy", "--cache-dir", "cache", "--no-report") == 0
    assert set(contents()) - {"cache"} == before
    assert not list(Path("cache").glob("*"))


def test_without_a_cache_nothing_is_outside_the_folder_of_the_outputs(pool, monkeypatch):
    assert select(pool, "a.jsonl", "--cache-dir", "cache", "--no-report", "--text", "prompt+response") == 0
    before = {*contents(), "b.jsonl", "b.indices.json"}
    monkeypatch.setattr(tempfile, "gettempdir", lambda: pytest.fail("the system's folder may be in memory"))
    monkeypatch.setattr(tempfile, "tempdir", "no/such/folder")
    assert select(pool, "b.jsonl", "--no-report", "--text", "prompt+response") == 0
    assert set(contents()) == before
    assert Path("a.indices.json").read_bytes() == Path("b.indices.json").read_bytes()


def test_an_error_after_the_vectors_leaves_nothing(pool, monkeypatch):
    before = contents()

    def stop(vectors, *_, **__):
        assert isinstance(vectors, np.memmap)
        raise KeyboardInterrupt

    monkeypatch.setattr(file_selection, "select_rows", stop)
    assert select(pool, "new/x.jsonl") == 130
    assert contents() == before


class Counting:
    """An embedder that counts the texts it is given."""

    name = "counting"

    def __init__(self, width: int = 3) -> None:
        self.seen, self.width = 0, width

    def fit(self, documents):
        pass

    def encode(self, texts):
        self.seen += len(texts)
        return np.full((len(texts), self.width + self.seen // 3000), np.float32(self.seen))

    def describe(self):
        return {"name": self.name}


def test_vectors_are_made_in_blocks_and_each_row_is_read_once(tmp_path):
    many = [{"prompt": f"p{row}", "response": "r"} for row in range(2500)]
    data, steps = write_pool(tmp_path / "many.jsonl", many), []
    embedder = Counting()
    chosen = select_file(
        data, 9, "out.jsonl", embedder=embedder, report=False, k=2, progress=lambda *step: steps.append(step)
    )
    assert embedder.seen == 2500
    assert [done for what, done, _ in steps if what == "embedding"] == [500, 1000, 1500, 2000, 2500]
    assert len(chosen.rows) == 9
    with pytest.raises(ValueError, match="length 4 after 3"):
        select_file(write_pool(data, many * 2), 9, "b.jsonl", embedder=Counting(), report=False, dedup="none")
