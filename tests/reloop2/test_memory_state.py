"""States and files of memories: the same outputs bit for bit, and one clear error for everything that is not one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from lightning_adapt._shared.state import check_plain
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.memory_file import read_memory_extra, read_memory_file, write_memory_file
from lightning_adapt.reloop2.stores import ann
from tests.reloop2.memory_parts import BACKENDS, rows, same, small

FIXTURES = Path(__file__).parents[1] / "fixtures"
STAGES = ["new", "calibrated", "half full", "wrapped around", "reset"]


@pytest.fixture(autouse=True)
def _early(monkeypatch):
    monkeypatch.setattr(ann, "FIRST_BUILD", 32)


def at(stage: str, backend: str) -> ErrorMemory:
    memory = small(backend)
    if stage != "new":
        memory.calibrate(rows(100, seed=5)[0])
    if stage not in ("new", "calibrated"):
        memory.write(*rows(35))
    if stage in ("wrapped around", "reset"):
        memory.write(*rows(740, seed=1))  # beyond 16 half-lives
    if stage == "reset":
        memory.reset()
    return memory


def go_on(memory: ErrorMemory) -> list[torch.Tensor]:
    """Everything that a memory does from now on."""
    keys, _, base = rows(30, seed=9)
    done = [*memory.read(keys), memory.compensate(base, keys)]
    if not memory.n_written:
        memory.calibrate(rows(50, seed=6)[0])
    for seed in range(3):
        memory.write(*rows(21, seed=seed))
        done += [*memory.read(keys), memory.compensate(base, keys)]
    return done


def by_state(memory: ErrorMemory) -> ErrorMemory:
    torch.save(memory.state_dict(), "memory.pt")
    twin = small(memory.settings.backend)
    twin.load_state_dict(torch.load("memory.pt", weights_only=True))
    return twin


def by_state_into_a_full_one(memory: ErrorMemory) -> ErrorMemory:
    twin = small(memory.settings.backend)
    twin.write(*rows(64, 5))
    with torch.inference_mode():
        twin.load_state_dict(memory.state_dict())
    return twin


def inside_a_module(memory: ErrorMemory) -> ErrorMemory:
    first, second = (torch.nn.ModuleDict({"memory": part}) for part in (memory, small(memory.settings.backend)))
    second.load_state_dict(first.state_dict())
    return second["memory"]


def by_file(memory: ErrorMemory) -> ErrorMemory:
    memory.save("folder/memory.safetensors")
    return ErrorMemory.load("folder/memory.safetensors")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("way", [by_state, by_state_into_a_full_one, inside_a_module, by_file])
def test_a_restored_memory_goes_on_as_the_first_would_have(backend, stage, way):
    memory = at(stage, backend)
    twin = way(memory)
    assert twin.n_written == memory.n_written
    assert twin.dim == memory.dim
    assert twin.is_calibrated == memory.is_calibrated
    assert same(go_on(twin), go_on(memory))
    assert twin.nbytes == memory.nbytes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_restored_memory_may_be_written_to_first(backend, stage):
    memory = at(stage, backend)
    twin = by_state(memory)
    for part in (memory, twin):
        part.write(*rows(21, seed=4))
        part.write(*rows(1, seed=6))
    assert same(go_on(twin), go_on(memory))


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_are_plain_and_files_keep_the_settings(backend):
    memory = small(backend, lam=0.7, gamma=0.25, eps=1e-4, tau=0.3, task="regression", seed=5)
    memory.write(*rows(40))
    check_plain(dict(memory.state_dict()))
    memory.save("memory.safetensors", extra={"weights": "abc"})
    assert ErrorMemory.load("memory.safetensors").config() == memory.config()
    assert read_memory_extra("memory.safetensors") == {"weights": "abc"}
    assert [path.name for path in Path().iterdir()] == ["memory.safetensors"]


def test_how_it_is_read_may_differ_from_the_state():
    memory, other = at("half full", "knn"), small("knn", lam=0.9, gamma=1.0, k=3, tau=0.5, support_n0=0.0, eps=1e-3)
    other.load_state_dict(memory.state_dict())
    assert other.n_written == 35
    assert other.settings.lam == 0.9


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"n_bits": 6}, "n_bits=5, here 6"),
        ({"seed": 3}, "seed=0, here 3"),
        ({"backend": "knn"}, "backend='sketch', here 'knn'"),
        ({"whiten": False, "half_life": None}, "half_life=40.0, here None; whiten=True, here False"),
        ({"capacity": 51, "task": "regression"}, "capacity=50, here 51; task='binary', here 'regression'"),
    ],
)
def test_a_state_of_other_settings_is_refused_before_anything_is_loaded(changed, text):
    other = small(**{"backend": "sketch", **changed})
    other.write(*rows(20))
    before = {name: value for name, value in other.state_dict().items() if isinstance(value, torch.Tensor)}
    before = {name: value.clone() for name, value in before.items()}
    with pytest.raises(ValueError, match=f"The saved ErrorMemory has {text}. Build this memory with the same settings"):
        other.load_state_dict(at("wrapped around", "sketch").state_dict())
    assert all(torch.equal(other.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda state: state.pop("_extra_state"), "ErrorMemory has no valid `version`"),
        (lambda state: state["_extra_state"].update(version=9), "version 9, but this release reads up to 1"),
        (lambda state: state["_extra_state"].pop("settings"), "backend=None, here 'faiss'"),
        (lambda state: state["store._extra_state"].update(version=9), "AnnStore has version 9"),
        (lambda state: state["store._extra_state"].update(n_written=-1), "no valid n_written"),
        (lambda state: state["store._extra_state"].pop("built_at"), "no valid built_at"),
        (lambda state: state["store._extra_state"].update(n_written="9"), "no valid n_written"),
        (lambda state: state.update({"store.labels": torch.zeros(3)}), "cannot hold 50 samples"),
        (lambda state: state.update({"store.lists": torch.zeros(3).long()}), "files 3 rows"),
        (lambda state: state["store.lists"].fill_(99), "in 7 lists"),
        (lambda state: state["key_space._extra_state"].update(dim=-3), "`dim` must be a whole number >= 1"),
        (lambda state: state["key_space.whitening._extra_state"].update(version=None), "Whitening has no valid"),
    ],
)
def test_a_damaged_state_is_refused(damage, text):
    state = at("wrapped around", "faiss").state_dict()
    small("faiss").load_state_dict(state)
    damage(state)
    with pytest.raises(ValueError, match=text):
        small("faiss").load_state_dict(state)


def test_a_sketch_of_another_shape_is_refused():
    state = at("half full", "sketch").state_dict()
    state["store.cells"] = torch.zeros(7, 2**4, 3)
    with pytest.raises(ValueError, match=r"cells of shape \(7, 16, 3\) instead of \(7, 32, 3\)"):
        small("sketch").load_state_dict(state)


# -- files ------------------------------------------------------------------------------------------------------------
@pytest.fixture(params=BACKENDS)
def saved(request, tmp_path) -> Path:
    path = tmp_path / "memory.safetensors"
    at("wrapped around", request.param).save(path)
    return path


def head_of(content: bytes) -> tuple[int, dict]:
    (length,) = struct.unpack("<Q", content[:8])
    return 8 + length, json.loads(content[8 : 8 + length])


def with_head(content: bytes, change) -> bytes:
    end, head = head_of(content)
    change(head)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + content[end:]


def test_a_truncated_file_is_refused_wherever_it_ends(saved):
    content = saved.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 4, len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(
            ValueError, match=r"is no memory file( \(or is cut off\)\. Pass a|, or is damaged.*Save the memory again)"
        ):
            ErrorMemory.load(saved)


def test_a_file_with_any_byte_changed_is_refused(saved):
    content = saved.read_bytes()
    end, _ = head_of(content)
    for place in [*range(0, end, 97), *range(end, len(content), len(content) // 40), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 0x11
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"memory\.safetensors"):
            ErrorMemory.load(saved)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda head: head.pop("__metadata__"), "was not written by lightning_adapt"),
        (lambda head: head["__metadata__"].update(format="pt"), "was not written by lightning_adapt"),
        (lambda head: head["__metadata__"].pop("sha256"), "does not have the checksum"),
        (lambda head: head["__metadata__"].pop("body"), "does not have the checksum"),
        (lambda head: head["__metadata__"].update(body="{}"), "does not have the checksum"),
    ],
)
def test_a_file_of_something_else_is_refused(saved, change, text):
    saved.write_bytes(with_head(saved.read_bytes(), change))
    with pytest.raises(ValueError, match=text):
        ErrorMemory.load(saved)


def test_other_formats_and_no_file_are_told_apart(tmp_path):
    torch.save({"cells": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"is no memory file \(or is cut off\)"):
        ErrorMemory.load(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError):
        ErrorMemory.load(tmp_path / "none.safetensors")
    with pytest.raises(IsADirectoryError):
        ErrorMemory.load(tmp_path)


def test_a_file_that_fits_its_checksum_but_no_memory_is_refused(tmp_path):
    memory, path = at("half full", "sketch"), tmp_path / "memory.safetensors"
    config, state = memory.config(), memory.state_dict()
    for name, (changed_config, changed_state, text) in {
        "an unknown setting": ({**config, "colour": 1}, state, "unexpected keyword argument 'colour'"),
        "a setting out of range": ({**config, "lam": 7.0}, state, "`lam` must be a number in"),
        "another setting": ({**config, "n_bits": 6}, state, "n_bits=5, here 6"),
        "a tensor too many": (config, {**state, "more": torch.zeros(1)}, "more"),
        "a tensor too few": (
            config,
            {key: value for key, value in state.items() if key != "store.cells"},
            "store.cells",
        ),
    }.items():
        write_memory_file(path, "ErrorMemory", changed_config, changed_state)
        with pytest.raises(ValueError, match=text) as found:
            ErrorMemory.load(path)
        assert "does not hold a usable ErrorMemory" in str(found.value), name
    write_memory_file(path, "OtherMemory", config, state)
    with pytest.raises(ValueError, match="holds 'OtherMemory', not 'ErrorMemory'"):
        ErrorMemory.load(path)


def test_files_of_a_newer_release_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("lightning_adapt.reloop2.memory_file.FILE_VERSION", 2)
    at("half full", "knn").save(tmp_path / "memory.safetensors")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"has version 2, but this release reads up to 1\. Upgrade"):
        ErrorMemory.load(tmp_path / "memory.safetensors")


def test_a_save_that_fails_leaves_the_old_file(monkeypatch, saved):
    before = saved.read_bytes()
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        at("half full", "knn").save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["memory.safetensors"]


def test_what_is_not_plain_is_not_written(tmp_path):
    with pytest.raises(TypeError, match=r"`state.extra.path` must be plain"):
        at("new", "knn").save(tmp_path / "memory.safetensors", extra={"path": tmp_path})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", BACKENDS)
def test_version_1_keeps_loading(backend):
    path = FIXTURES / f"ErrorMemory-{backend}-v1.safetensors"
    memory = ErrorMemory.load(path)
    keys, _, base = rows(30, seed=9)
    _, state = read_memory_file(path, "ErrorMemory")
    assert memory.n_written == state["store._extra_state"]["n_written"] == 60
    torch.testing.assert_close(memory.compensate(base, keys), torch.tensor(read_memory_extra(path)["outputs"]))
