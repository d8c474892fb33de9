"""Which rows of a manifest a voice is tuned on, and which are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_adapt.lina_speech.commands.tune_rows import held_out_rows, rows_of_speaker
from tests.lina_speech.tune_parts import manifest


def made(path, *speakers, folder="a"):
    return Path(manifest(path, [(f"{folder}/{n}.wav", "one", name) for n, name in enumerate(speakers)]))


def names(rows):
    return [Path(row["audio"]).name for row in rows]


def test_the_only_speaker_needs_no_name():
    assert len(rows_of_speaker(made("a.csv", "", ""), None)) == 2
    assert len(rows_of_speaker(made("a.csv", "anna", "anna"), None)) == 2


def test_of_several_one_is_chosen_by_name():
    several = made("a.csv", "anna", "bob", "", "anna")
    assert names(rows_of_speaker(several, "anna")) == ["0.wav", "3.wav"]
    assert names(rows_of_speaker(several, "")) == ["2.wav"]
    with pytest.raises(ValueError, match=r"anna \(2 rows\), bob \(1 rows\), nobody named \(1 rows\)\. Pass --speaker"):
        rows_of_speaker(several, None)
    with pytest.raises(ValueError, match=r"--speaker 'Anna' is not in 'a\.csv', which has anna"):
        rows_of_speaker(several, "Anna")


def test_many_speakers_are_not_all_listed():
    with pytest.raises(ValueError, match="and 5 more"):
        rows_of_speaker(made("a.csv", *(f"s{n}" for n in range(25))), None)


def test_a_share_stays_one():
    rows = rows_of_speaker(made("a.csv", "", ""), None)
    assert held_out_rows(0.2, rows) == 0.2
    assert held_out_rows(0.0, rows[:1]) == 0.0
    with pytest.raises(ValueError, match="at least two recordings"):
        held_out_rows(0.2, rows[:1])


def test_of_a_manifest_those_of_the_speaker_and_of_nobody_are_held_out():
    anna = rows_of_speaker(made("a.csv", "anna", "anna"), None)
    val = made("v.csv", "anna", "bob", "", folder="v")
    assert names(held_out_rows(val, anna)) == ["0.wav", "2.wav"]
    nobody = rows_of_speaker(made("n.csv", "", "", folder="n"), None)
    assert names(held_out_rows(made("b.csv", "bob", folder="b"), nobody)) == ["0.wav"]
    with pytest.raises(ValueError, match=r"--val 'v\.csv' has several speakers"):
        held_out_rows(val, nobody)
    with pytest.raises(ValueError, match=r"--val 'b\.csv' has no recording of 'anna', but of bob \(1 rows\)"):
        held_out_rows(Path("b.csv"), anna)


def test_a_recording_is_either_tuned_on_or_held_out():
    rows = rows_of_speaker(made("a.csv", "", "", ""), None)
    Path("below").mkdir()
    manifest("below/v.csv", [("../a/1.wav", "one", ""), ("x.wav", "one", "")])
    with pytest.raises(ValueError, match="1 of them are in both"):
        held_out_rows(Path("below/v.csv"), rows)
