"""A disk that is full, and a folder that cannot be written to: what was there stays, and nothing half-written comes."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from examples.resume_after_kill import last_good_checkpoint
from lightning_adapt._shared.files import whole_file
from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.training.round_files import write_round
from lightning_adapt.lina_speech.data.code_cache import CodeCache
from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from lightning_adapt.reloop2.serving.journal import Journal, JournalError
from tests.divconq.rounds_parts import fit, selection
from tests.faults.cases import CASES
from tests.foreign import ForeignModule, trainer
from tests.registry import REGISTRY
from tests.reloop2.predictor_parts import predictor, rows

SAVED = sorted(name for name, entry in REGISTRY.items() if entry.file is not None)
LIMIT = 64  # bytes of a file


def with_a_full_disk(work: Callable[[], Any], limit: int = LIMIT) -> Any:
    """Do some work in a process that can write no file beyond so many bytes; returns what it returned or raised."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error is what a full disk gives, too
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            outcome: Any = work()
        except Exception as error:
            outcome = ([kind.__name__ for kind in type(error).__mro__], str(error))
        os.write(sending, pickle.dumps(outcome))
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    return pickle.loads(content)


def _save(name: str, path: Path) -> Callable[[], None]:
    made = REGISTRY[name].make()
    return lambda: made.save(path)


def _code_cache(folder: Path) -> Callable[[], None]:
    def work() -> None:
        cache = CodeCache(folder, {"codec": "a"})
        cache.put("key", torch.zeros(1, 400, dtype=torch.int64), 1.0)
        cache.flush()

    return work


def _round_files(folder: Path) -> Callable[[], None]:
    table = {name: torch.arange(40).double() for name in ("q", "S", "w")} | {
        name: torch.arange(40) for name in ("index", "cluster")
    }
    return lambda: write_round(folder, {"round": 0}, {**table, "row_hash": ["a"] * 40})


@pytest.mark.parametrize("name", SAVED)
def test_a_file_that_does_not_fit_leaves_the_old_one(name, tmp_path):
    path = tmp_path / f"file{REGISTRY[name].file[0]}"
    save = _save(name, path)
    save()
    before = path.read_bytes()
    kinds, text = with_a_full_disk(save)
    assert "OSError" in kinds, text
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", [_code_cache, _round_files])
def test_a_folder_on_a_full_disk_stays_without_half_a_file(writer, tmp_path):
    kinds, text = with_a_full_disk(writer(tmp_path / "out"))
    assert "OSError" in kinds, text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("moment", ["write_bytes", "replace"])
def test_no_space_left_is_told_as_it_came(moment, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, moment, full)
    with pytest.raises(OSError, match="No space left"), whole_file(path) as unfinished:
        unfinished.write_bytes(b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


# -- inside a run ------------------------------------------------------------------------------------------------------
def test_a_checkpoint_that_does_not_fit_ends_the_run_and_the_last_good_one_goes_on(tmp_path):
    case, saved = CASES["RS2Callback"], tmp_path / "saved"

    def run(epochs: int) -> Any:
        made, module = case.build(tmp_path, 8), ForeignModule()
        saves = ModelCheckpoint(saved, "{epoch}", save_on_train_epoch_end=True)
        found = last_good_checkpoint(saved)
        runner = trainer(tmp_path, [*made.callbacks, saves], max_epochs=epochs)
        runner.fit(module, **made.data, ckpt_path=found, weights_only=None if found is None else True)
        return module

    run(2)
    (before,) = saved.iterdir()
    kinds, text = with_a_full_disk(lambda: run(4), limit=1000)
    assert "OSError" in kinds, text
    assert last_good_checkpoint(saved) == before
    assert list(saved.iterdir()) == [before]
    resumed, whole = run(4), ForeignModule()
    made = case.build(tmp_path, 8)
    trainer(tmp_path, made.callbacks).fit(whole, **made.data)
    assert resumed.seen == whole.seen[8:]
    assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values()))


def test_a_voice_that_does_not_fit_is_said_to_be_kept_elsewhere(tmp_path):
    made = CASES["InitialStateTuning"].build(tmp_path, 8)

    def run() -> list[str]:
        with pytest.raises(OSError, match=r"Nothing is lost: it is in `callback\.voices`"):
            trainer(tmp_path, made.callbacks, max_epochs=1).fit(made.module(), **made.data)
        return list(made.callbacks[0].voices)

    assert with_a_full_disk(run) == ["ada"]
    assert list(tmp_path.iterdir()) == []


def test_round_files_that_do_not_fit_end_the_run_with_what_the_system_says(tmp_path):
    callback = selection(rounds=2, out_dir=tmp_path / "rounds")
    kinds, text = with_a_full_disk(lambda: fit(tmp_path, [callback]))
    assert "OSError" in kinds, text
    assert "File too large" in text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_journal_that_does_not_fit_acknowledges_nothing_and_goes_on_from_there(tmp_path):
    path = tmp_path / "journal.sqlite"
    with predictor("knn", journal=path) as one:
        one.predict(rows(4), range(4))

    def feed() -> None:
        with predictor("knn", journal=path) as again:
            again.feedback(range(4), [1.0, 0.0, 1.0, 0.0])

    kinds, text = with_a_full_disk(feed)
    assert "JournalError" in kinds, text
    with predictor("knn", journal=path) as again:
        assert (again.n_pending, again.memory.n_written) == (4, 0)
        assert sorted(again.feedback(range(4), [1.0, 0.0, 1.0, 0.0]).accepted) == [0, 1, 2, 3]


# -- where a folder should be there is a file --------------------------------------------------------------------------
def _tuning(place: Path) -> None:
    made = CASES["InitialStateTuning"].build(place, 8)
    trainer(Path.cwd(), made.callbacks, max_epochs=1).fit(made.module(), **made.data)


def _speech(place: Path) -> None:
    made = CASES["LinaSpeechModule, TextSpeechDataModule"].build(place, 8)
    trainer(Path.cwd(), made.callbacks, max_epochs=1).fit(made.module(), **made.data)


PLACES: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "InitialStateTuning(out)": (_tuning, OSError, "`out` must be a file for one voice"),
    "TextSpeechDataModule(cache_dir)": (_speech, OSError, "cache_dir"),
    "DiversitySelectionCallback(out_dir)": (
        lambda place: DiversitySelectionCallback(8, "random", out_dir=place),
        ValueError,
        "`out_dir` must be a folder.* There is a file of that name",
    ),
    "DiversitySelectionCallback(cache_dir)": (
        lambda place: DiversitySelectionCallback(8, cache_dir=place),
        ValueError,
        "`cache_dir` must be a folder.* There is a file of that name",
    ),
    "Journal": (
        lambda place: Journal(place / "journal").open({}),
        (OSError, JournalError),
        "File exists|cannot be opened",
    ),
    "save": (lambda place: REGISTRY["ErrorMemory"].make().save(place / "a.safetensors"), OSError, "exists|directory"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_file_where_a_folder_should_be_is_named_and_left_alone(name, tmp_path):
    use, kind, text = PLACES[name]
    place = tmp_path / "place"
    place.write_text("mine")
    with pytest.raises(kind, match=text):
        use(place)
    assert place.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_folders_that_are_missing_are_made(tmp_path):
    fit(tmp_path, [selection(out_dir=tmp_path / "a" / "b")], max_epochs=1)
    assert (tmp_path / "a" / "b" / "round-0.json").is_file()
    InitialStateTuning("ada", out=tmp_path / "c" / "ada.safetensors")
    REGISTRY["ErrorMemory"].make().save(tmp_path / "d" / "e.safetensors")
    assert (tmp_path / "d" / "e.safetensors").is_file()
