"""The Lina-Speech section of the demo, in its smallest form: its rows, its sounds, and a verdict that follows them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt._shared.report import write_page
from lightning_adapt.lina_speech import demo as ours
from lightning_adapt.lina_speech.corpus.wave_files import samples_of_wave
from lightning_adapt.lina_speech.demo_fit import Found
from lightning_adapt.lina_speech.demo_voice_table import voice_audio, voice_table, voice_verdict
from lightning_adapt.lina_speech.demo_voices import Cloned, VoiceTask
from lightning_adapt.lina_speech.inference.speech import Speech

TASK = ours.Task(4, 50, 96, 100, 1400, 8, VoiceTask(4, 20, 6, 12, 60, 300))


class Context:
    """Counts what the progress bar would show."""

    quick = True

    def __init__(self):
        self.total, self.steps, self.said = 0, 0, []

    def start(self, total):
        self.total = total

    def doing(self, what):
        self.said.append(what)

    def advance(self, steps=1):
        self.steps += steps


@pytest.fixture(scope="module")
def ran():
    context = Context()
    return ours.run(context), context


def test_rows_hold_the_method_its_control_and_its_baselines(ran):
    section, context = ran
    assert [row.kind for row in section.rows] == ["baseline", "baseline", "control", "ours"]
    losses, gains, choices = ([row.cells[column].value for row in section.rows] for column in range(3))
    assert all(1 < loss < 6 for loss in losses)
    assert gains == pytest.approx([loss - losses[1] for loss in losses])
    assert choices == pytest.approx([math.exp(loss) for loss in losses])
    assert losses[1] < losses[0]
    assert losses[3] < math.log(33)  # it has learnt something: 32 codes and the end
    assert context.steps == context.total > 0
    assert context.said


def test_the_page_has_its_figures_and_its_sounds(ran, tmp_path):
    section, _ = ran
    write_page([section], tmp_path)
    drawn = {
        f"lina_speech-{name}-{scheme}.svg" for name in ("loss", "alignment", "voice") for scheme in ("light", "dark")
    }
    names = ["speech", "codec", "recording", *(f"voice-{row}" for row in ("untuned", "prompt", "tuned", "original"))]
    heard = {f"lina_speech-{name}.wav" for name in names}
    assert {path.name for path in tmp_path.iterdir()} == {"index.html"} | drawn | heard
    recording, rate = samples_of_wave((tmp_path / "lina_speech-recording.wav").read_bytes())
    assert len(recording) > rate // 2
    assert np.abs(recording).max() > 1000
    decoded, _ = samples_of_wave((tmp_path / "lina_speech-codec.wav").read_bytes())
    assert 0 < len(decoded) <= len(recording) + rate // 10  # silence at its ends is cut off before the codec


def test_the_new_voice_has_its_table_beside_its_rivals(ran):
    section, _ = ran
    (table,) = section.more
    assert [row.kind for row in table.rows] == ["baseline", "baseline", "control", "ours"]
    losses, others, kept = ([row.cells[column].value for row in table.rows] for column in range(3))
    assert all(1 < loss < 6 for loss in losses)
    assert losses[3] <= losses[0] + 0.1  # the base is the first candidate on the utterances that choose
    assert others[0] == others[1] == others[3] == section.rows[3].cells[0].value  # nothing is forgotten
    assert others[2] != others[0]
    assert kept[0] == 0
    assert kept[1] > kept[3] > 0
    assert kept[2] > 4000  # 1.2 M numbers
    assert table.verdict == voice_verdict_of(table)
    assert {sound.name for sound in section.audio if "Synthetic" in sound.caption} == {
        *("speech", "voice-untuned", "voice-prompt", "voice-tuned")
    }


def voice_verdict_of(table):
    """The verdict again, from the cells of the table and from the two numbers that are in none."""
    rows = dict(zip(("untuned", "prompt", "finetuned", "tuned"), table.rows, strict=True))
    losses, others, kept = ({row: cells.cells[column].value for row, cells in rows.items()} for column in range(3))
    heard = float(table.setting.split("(")[1].split("\N{NO-BREAK SPACE}s")[0])
    seconds = float(table.verdict.split("\N{NO-BREAK SPACE}s")[0])
    nbytes = {row: round(1000 * value) for row, value in kept.items()}
    return voice_verdict(cloned(losses=losses, others=others, nbytes=nbytes, heard=heard, seconds=seconds))


def cloned(losses=None, others=None, **over):
    speech = Speech(torch.zeros(100), 100, torch.zeros(1, 4, dtype=torch.int64), True, torch.ones(4, 3), "a")
    values = {
        "losses": {"untuned": 3.0, "prompt": 2.9, "finetuned": 2.2, "tuned": 2.4} | (losses or {}),
        "others": {"untuned": 1.6, "prompt": 1.6, "finetuned": 1.9, "tuned": 1.6} | (others or {}),
        "nbytes": {"untuned": 0, "prompt": 286_720, "finetuned": 4_800_000, "tuned": 24_576},
        "seconds": 6.2,
        "heard": 35.7,
        "speaker": "formant:v03",
        "said": {"untuned": speech, "prompt": speech, "tuned": speech},
        "text": "a b",
        "decoded": torch.zeros(90),
        "figure": None,
    }
    return Cloned(**{**values, **over})


def found(**over):
    losses = {"unigram": 4.0, "bigram": 2.5, "exchanged": 2.4, "ours": 2.0} | over
    speech = Speech(torch.zeros(100), 100, torch.zeros(1, 4, dtype=torch.int64), True, torch.ones(4, 3), "a")
    row = {"text": "b", "audio": torch.zeros(100)}
    return Found(
        losses, [(5, 4.0), (10, 2.0)], 12.4, 7, speech, row, torch.zeros(90), "formant", 50.0, list("abc"), cloned()
    )


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({}, ["is 2.000, 0.500 below the 2.500", "it is 2.400: the text is worth 0.400", "7 of 8 new sentences"]),
        ({"ours": 2.8}, ["2.800, 0.300 above", "2.400: so far it does not read what it says"]),
    ],
)
def test_the_verdict_follows_the_rows(over, words):
    verdict = ours._verdict(TASK, found(**over))
    assert all(word in verdict for word in words)
    assert "12\N{NO-BREAK SPACE}s of one core" in verdict


def test_the_section_names_what_spoke():
    section = ours._section(TASK, found(), 1.0)
    assert "4 voices of a built-in formant synthesiser" in section.setting
    assert [audio.name for audio in section.audio][:3] == ["speech", "codec", "recording"]


@pytest.mark.parametrize(
    ("losses", "others", "words"),
    [
        (
            {},
            {},
            [
                "make a voice of 25_kB that lowers the loss from 3.000 to 2.400 (20_%)",
                "0.500 better than a prompt and 0.200 worse than fine-tuning all weights",
                "which costs the other voices 0.300 and keeps 4.8_MB",
                "the other voices stay at 1.600",
            ],
        ),
        (
            {"tuned": 3.1, "prompt": 3.0, "finetuned": 3.1},
            {"finetuned": 1.5, "tuned": 1.7},
            [
                "does not help: the loss is 3.000 before and 3.100 after",
                "0.100 worse than a prompt and level with fine-tuning all weights",
                "which does not cost the other voices (-0.100)",
                "the other voices go to 1.700",
            ],
        ),
    ],
)
def test_the_verdict_of_the_voice_follows_its_rows(losses, others, words):
    verdict = voice_verdict(cloned(losses, others)).replace("\N{NO-BREAK SPACE}", "_")
    for word in words:
        assert word in verdict
    assert verdict.startswith("6_s of one core and 36_s of speech")


def test_the_new_voice_is_described_and_its_sounds_are_said_to_be_synthetic():
    table = voice_table(TASK.voice, cloned())
    assert "The next voice of a built-in formant synthesiser: 20 utterances" in table.setting
    said = voice_audio(cloned())
    assert [sound.name for sound in said] == [f"voice-{row}" for row in ("untuned", "prompt", "tuned", "original")]
    assert ["Synthetic" in sound.caption for sound in said] == [True, True, True, False]
    assert all("a b" in sound.caption for sound in said)
