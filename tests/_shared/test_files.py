"""Files are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightning_adapt._shared.files import existing_folder, obstacle_to, whole_file


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_target_appears_at_the_end_and_alone(tmp_path):
    target = tmp_path / "deep" / "page.html"
    with whole_file(target) as unfinished:
        unfinished.write_text("whole")
        assert unfinished.suffix == ".html"
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_says_who_may_read_a_new_file(tmp_path, mask, mode):
    with umask(mask), whole_file(tmp_path / "page.html") as unfinished:
        unfinished.write_text("whole")
        assert mode_of(unfinished) == mode
    assert mode_of(tmp_path / "page.html") == mode


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o440])
def test_a_file_that_is_replaced_keeps_who_may_read_it(tmp_path, mode):
    target = tmp_path / "journal.pt"
    target.write_text("old")
    target.chmod(mode)
    with umask(0o022), whole_file(target) as unfinished:
        assert not mode_of(unfinished) & ~(mode | 0o600), "nobody else may read what is being written"
        unfinished.write_text("new")
    assert (target.read_text(), mode_of(target)) == ("new", mode)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "page.html"
    target.write_text("old")

    def write_half() -> None:
        with whole_file(target) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_is_an_os_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError), whole_file(blocked / "page.html"):  # noqa: PT011 - which one depends on the system
        pass
    assert list(Path(tmp_path).iterdir()) == [blocked]


def test_what_is_in_the_way_of_files_is_found_and_nothing_is_made(tmp_path, monkeypatch):
    (tmp_path / "note").write_text("")
    (tmp_path / "taken").mkdir()
    assert existing_folder(tmp_path / "new" / "deep" / "a") == tmp_path
    assert obstacle_to([tmp_path / "new" / "a", tmp_path / "new" / "b"]) is None
    assert obstacle_to([tmp_path / "note" / "deep" / "a"]) == tmp_path / "note"
    assert obstacle_to([tmp_path / "a", tmp_path / "taken"]) == tmp_path / "taken"
    monkeypatch.chdir(tmp_path)
    assert obstacle_to([Path("note/a")]) == Path("note"), "as it was asked for"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert obstacle_to([tmp_path / "new" / "a"]) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note", "taken"]
