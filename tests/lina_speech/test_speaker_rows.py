"""Which voice a row belongs to: numbers, names, speakers of the data, and rows of nobody."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.lina_speech.tuning.speaker_rows import SpeakerRows

SPEAKERS = ("ada", "bo", "cy")


def test_one_voice_has_all_rows_whatever_the_batch():
    assert SpeakerRows(["me"], "speaker", SPEAKERS).rows(object()) is None


def test_numbers_are_places_among_the_speakers_of_the_data():
    rows = SpeakerRows(["cy", "ada"], "speaker", SPEAKERS).rows({"speaker": torch.tensor([0, 2, 0])})
    assert rows.tolist() == [1, 0, 1]
    assert rows.dtype == torch.int64


def test_without_speakers_numbers_are_places_among_the_voices():
    assert SpeakerRows(["cy", "ada"], "who", None).rows({"who": torch.tensor([0, 1])}).tolist() == [0, 1]
    assert SpeakerRows(["cy", "ada"], "who", None).rows({"who": [1, 0]}).tolist() == [1, 0]


def test_names_are_taken_as_they_are():
    assert SpeakerRows(["cy", "ada"], "speaker", SPEAKERS).rows({"speaker": ["ada", "cy"]}).tolist() == [1, 0]


@pytest.mark.parametrize(("speaker", "shown"), [(1, "'bo'"), (-1, "-1"), (3, "3")])
def test_rows_of_other_speakers_are_refused(speaker, shown):
    rows = SpeakerRows(["cy", "ada"], "speaker", SPEAKERS)
    match = rf"`batch\['speaker'\]` must be one of the tuned voices, 'cy', 'ada', but got {shown}. Leave other speakers"
    with pytest.raises(ValueError, match=match):
        rows.rows({"speaker": torch.tensor([0, speaker])})


@pytest.mark.parametrize(
    ("batch", "shown"),
    [(torch.zeros(3), "Tensor"), ({"who": torch.tensor([0])}, "dict with who"), ([torch.zeros(9), 2], "list of Ten")],
)
def test_a_batch_that_names_no_speakers(batch, shown):
    match = f"`batch` must be a dict with the key 'speaker' for several voices, but got '{shown}"
    with pytest.raises(TypeError, match=match) as told:
        SpeakerRows(["cy", "ada"], "speaker", None).rows(batch)
    assert "tensor(" not in str(told.value)


@pytest.mark.parametrize("batch", [(torch.zeros(2, 3), torch.tensor([2, 0])), [torch.zeros(2, 3), ["cy", "ada"]]])
@pytest.mark.parametrize("place", [1, -1])
def test_speakers_have_a_place_in_a_tuple(batch, place):
    assert SpeakerRows(["cy", "ada"], place, SPEAKERS).rows(batch).tolist() == [0, 1]


def test_numbers_may_be_keys_of_a_dict_and_elements_tensors():
    speakers = [torch.tensor(2), torch.tensor(0)]
    assert SpeakerRows(["cy", "ada"], 7, SPEAKERS).rows({7: speakers}).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("key", "batch", "match"),
    [
        (
            2,
            (torch.zeros(2), [0, 1]),
            "`batch` must be a tuple, a list or a dict with speakers at 2 .* 'tuple of Tensor",
        ),
        (0, (torch.zeros(2), [0, 1]), r"`batch\[0\]` must be numbers or names of speakers, but got 'float'. Name the"),
        (1, (torch.zeros(2), "cy"), r"`batch\[1\]` must be one speaker a row, but got 'str'. Have the data give"),
        ("speaker", {"speaker": 1}, r"`batch\['speaker'\]` must be one speaker a row, but got 'int'"),
    ],
)
def test_what_names_no_speaker_a_row(key, batch, match):
    with pytest.raises(TypeError, match=match) as told:
        SpeakerRows(["cy", "ada"], key, SPEAKERS).rows(batch)
    assert "tensor(" not in str(told.value)


# -- one voice ---------------------------------------------------------------------------------------------------------
BATCH = {"speaker": torch.tensor([0, 1])}


def test_one_voice_of_several_speakers_is_told_once():
    rows = SpeakerRows(["me"], "speaker", SPEAKERS)
    assert "InitialStateTuning('me') learns one voice from 3 speakers, a blend" in rows.blend(BATCH)
    assert rows.blend(BATCH) is None


@pytest.mark.parametrize("key", ["speaker", 1])
def test_it_is_refused_under_the_name_of_one_of_them(key):
    batch = BATCH if key == "speaker" else (torch.zeros(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"where the data has 3, but got 'bo'. .* Pass the rows of 'bo' alone"):
        SpeakerRows(["bo"], key, SPEAKERS).blend(batch)


@pytest.mark.parametrize(
    ("voices", "speakers", "batch"),
    [
        (["bo"], ("bo",), BATCH),
        (["me"], ("bo",), BATCH),
        (["me"], None, BATCH),
        (["bo", "cy"], SPEAKERS, BATCH),
        (["bo"], SPEAKERS, {"letters": torch.zeros(2)}),
        (["bo"], SPEAKERS, torch.zeros(2)),
    ],
)
def test_all_else_is_no_blend(voices, speakers, batch):
    assert SpeakerRows(voices, "speaker", speakers).blend(batch) is None


def test_voices_that_are_learnt_must_be_speakers_of_the_data():
    rows = SpeakerRows(["ada", "dora"], "speaker", SPEAKERS)
    with pytest.raises(ValueError, match=r"`voice` must be names among the speakers of the data, 'ada', 'bo', 'cy'"):
        rows.check_all_there()
    assert rows.rows({"speaker": ["dora", "ada"]}).tolist() == [1, 0], "evaluation may be on fewer, or on others"
    SpeakerRows(["dora"], "speaker", SPEAKERS).check_all_there()  # the only one may have any name
