"""The Lina-Speech section of the demo, in its smallest form: its rows, its sounds, and a verdict that follows them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt._shared.quiet import quiet_lightning
from lightning_adapt._shared.report import write_page
from lightning_adapt.lina_speech import demo as ours
from lightning_adapt.lina_speech.corpus.wave_files import samples_of_wave
from lightning_adapt.lina_speech.demo_fit import Found
from lightning_adapt.lina_speech.demo_voice_table import voice_finding
from lightning_adapt.lina_speech.demo_voices import Cloned, VoiceTask
from lightning_adapt.lina_speech.inference.speech import Speech
from tests.contracts.demo_parts import CountingContext

TASK = ours.Task(4, 50, 96, 100, 1400, 8, VoiceTask(4, 20, 6, 12, 60, 300))


@pytest.fixture(scope="module")
def ran():
    context = CountingContext()
    with quiet_lightning():
        return ours.run(context), context


def test_rows_hold_the_method_its_control_and_its_baselines(ran):
    section, context = ran
    rows = section.findings[0].rows
    assert [row.kind for row in rows] == ["baseline", "baseline", "control", "ours"]
    losses, gains, choices = ([row.cells[column].value for row in rows] for column in range(3))
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
    base, table = section.findings
    assert [row.kind for row in table.rows] == ["baseline", "baseline", "control", "ours"]
    losses, others, kept = ([row.cells[column].value for row in table.rows] for column in range(3))
    assert all(1 < loss < 6 for loss in losses)
    assert losses[3] <= losses[0] + 0.1  # the base is the first candidate on the utterances that choose
    assert others[0] == others[1] == others[3] == base.rows[3].cells[0].value  # nothing is forgotten
    assert others[2] != others[0]
    assert kept[0] == 0
    assert kept[1] > kept[3] > 0
    assert kept[2] > 4000  # 1.2 M numbers
    assert {sound.name for sound in section.audio if "Synthetic" in sound.caption} == {
        *("speech", "voice-untuned", "voice-prompt", "voice-tuned")
    }
    text = table.gained + table.not_gained
    assert all(f"{losses[row]:.3f}" in text for row in (0, 3))
    assert f"{losses[2]:.3f}" in table.score.but
    assert f"{kept[3]:.0f}\N{NO-BREAK SPACE}kB" in text


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
    ("over", "words", "result"),
    [
        ({}, ["is 2.000, 0.500_nats below the 2.500", "is 2.400: the text is worth 0.400", "7 of 8 new sen"], "better"),
        ({"ours": 2.8}, ["Nothing yet: after", "2.800, 0.300_nats above", "2.400: so far it does not read"], "worse"),
    ],
)
def test_words_follow_the_rows(over, words, result):
    finding = ours._finding(TASK, found(**over))
    text = f"{finding.gained} {finding.not_gained}".replace("\N{NO-BREAK SPACE}", "_")
    for word in [*words, "12_s of one core"]:
        assert word in text
    assert finding.score.result == result


def test_the_section_names_what_spoke():
    finding = ours._finding(TASK, found())
    assert "4 voices of a built-in formant synthesiser" in finding.setting
    assert [audio.name for audio in finding.audio] == ["speech", "codec", "recording"]


def test_reading_is_a_line_from_corner_to_corner():
    assert ours._reading(torch.eye(9)) == pytest.approx(1)
    assert ours._reading(torch.eye(9).flip(1)) == pytest.approx(-1)
    assert ours._reading(torch.ones(9, 4)) == 0


@pytest.mark.parametrize(
    ("losses", "others", "words", "result"),
    [
        (
            {},
            {},
            [
                "make a voice of 25_kB that lowers the loss from 3.000 to 2.400 (20_%)",
                "0.500_nats better than a prompt",
                "It is 0.200_nats worse than fine-tuning all weights",
                "which costs the other voices 0.300_nats and keeps 4.8_MB",
                "the other voices stay at 1.600",
            ],
            "better",
        ),
        (
            {"tuned": 3.1, "prompt": 3.0, "finetuned": 3.1},
            {"finetuned": 1.5, "tuned": 1.7},
            [
                "does not help: the loss is 3.000 before and 3.100 after",
                "0.100_nats worse than a prompt",
                "level with fine-tuning all weights",
                "which does not cost the other voices (-0.100_nats)",
                "the other voices go to 1.700",
            ],
            "worse",
        ),
    ],
)
def test_words_of_the_voice_follow_its_rows(losses, others, words, result):
    finding = voice_finding(TASK.voice, cloned(losses, others))
    text = f"{finding.gained} {finding.not_gained}".replace("\N{NO-BREAK SPACE}", "_")
    for word in words:
        assert word in text
    assert text.startswith("6_s of one core and 36_s of speech")
    assert finding.score.result == result


def test_the_new_voice_is_described_and_its_sounds_are_said_to_be_synthetic():
    finding = voice_finding(TASK.voice, cloned())
    assert "The next voice of a built-in formant synthesiser: 20 utterances" in finding.setting
    said = finding.audio
    assert [sound.name for sound in said] == [f"voice-{row}" for row in ("untuned", "prompt", "tuned", "original")]
    assert ["Synthetic" in sound.caption for sound in said] == [True, True, True, False]
    assert all("a b" in sound.caption for sound in said)
