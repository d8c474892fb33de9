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
from lightning_adapt.lina_speech.inference.speech import Speech


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
    drawn = {f"lina_speech-{name}-{scheme}.svg" for name in ("loss", "alignment") for scheme in ("light", "dark")}
    heard = {f"lina_speech-{name}.wav" for name in ("speech", "codec", "recording")}
    assert {path.name for path in tmp_path.iterdir()} == {"index.html"} | drawn | heard
    recording, rate = samples_of_wave((tmp_path / "lina_speech-recording.wav").read_bytes())
    assert len(recording) > rate // 2
    assert np.abs(recording).max() > 1000
    decoded, _ = samples_of_wave((tmp_path / "lina_speech-codec.wav").read_bytes())
    assert 0 < len(decoded) <= len(recording) + rate // 10  # silence at its ends is cut off before the codec


def found(**over):
    losses = {"unigram": 4.0, "bigram": 2.5, "exchanged": 2.4, "ours": 2.0} | over
    speech = Speech(torch.zeros(100), 100, torch.zeros(1, 4, dtype=torch.int64), True, torch.ones(4, 3), "a")
    row = {"text": "b", "audio": torch.zeros(100)}
    return Found(losses, [(5, 4.0), (10, 2.0)], 12.4, 7, speech, row, torch.zeros(90), "formant", 50.0, list("abc"))


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({}, ["is 2.000, 0.500 below the 2.500", "it is 2.400: the text is worth 0.400", "7 of 8 new sentences"]),
        ({"ours": 2.8}, ["2.800, 0.300 above", "2.400: so far it does not read what it says"]),
    ],
)
def test_the_verdict_follows_the_rows(over, words):
    verdict = ours._verdict(ours.Task(4, 50, 96, 100, 1400, 8), found(**over))
    assert all(word in verdict for word in words)
    assert "12\N{NO-BREAK SPACE}s of one core" in verdict


def test_the_section_names_what_spoke():
    section = ours._section(ours.Task(4, 50, 96, 100, 1400, 8), found(), 1.0)
    assert "4 voices of a built-in formant synthesiser" in section.setting
    assert [audio.name for audio in section.audio] == ["speech", "codec", "recording"]
