"""Files are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_adapt._shared.files import whole_file


def test_the_target_appears_at_the_end_readable_and_alone(tmp_path):
    target = tmp_path / "deep" / "page.html"
    with whole_file(target) as unfinished:
        unfinished.write_text("whole")
        assert unfinished.suffix == ".html"
        assert not target.exists()
    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(target.parent.iterdir()) == [target]


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
