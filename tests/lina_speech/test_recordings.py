"""What is said of recordings before a voice is tuned on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.commands.recordings import Recordings, look_at, loudness_range_db
from tests.lina_speech.tune_parts import RATE, said, write


@pytest.mark.parametrize("loudness", [0.001, 0.5])
@pytest.mark.parametrize("ratio_db", [6.0, 20.0])
def test_the_range_is_that_of_two_loudnesses(loudness, ratio_db):
    tone = loudness * torch.sin(2 * torch.pi * 500 * torch.arange(RATE) / RATE)
    quiet = tone / 10 ** (ratio_db / 20)
    assert loudness_range_db(torch.cat([tone, quiet]), RATE) == pytest.approx(ratio_db, abs=0.01)


def test_silence_and_next_to_nothing_have_no_range():
    assert loudness_range_db(torch.zeros(RATE), RATE) == 0.0
    assert loudness_range_db(torch.ones(5), RATE) == 0.0


def test_speech_is_told_from_noise_and_hum():
    speech = torch.from_numpy(said("seven one"))
    draw = torch.Generator().manual_seed(0)
    white = torch.randn(3 * RATE, generator=draw)
    pink = torch.fft.irfft(torch.fft.rfft(white) / torch.arange(1, len(white) // 2 + 2).sqrt())
    hum = torch.sin(2 * torch.pi * 100 * torch.arange(RATE) / RATE)
    for noise in (white, pink, hum):
        assert loudness_range_db(noise, RATE) < 8.0
    assert loudness_range_db(speech, RATE) > 20.0
    noisy = speech + white[: len(speech)] * speech.square().mean().sqrt() / math.sqrt(10)
    assert loudness_range_db(noisy, RATE) > 8.0


def test_what_is_said_of_them():
    speech = said("seven one")
    paths = [
        write("a.wav", speech),
        write("b.wav", np.stack([speech, speech], 1)),
        write("c.wav", speech[::2], RATE // 2),
    ]
    paths.append(write("d.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE)))
    found = look_at(paths, RATE)
    assert found == Recordings(4, (8000,), 1, ("d.wav",))
    narrow, even = found.warnings(RATE)
    assert narrow.startswith(
        "1 of 4 recordings are sampled at 8,000 Hz, below the codec's 16,000 Hz: nothing above 4 kHz"
    )
    assert even.startswith("1 of 4 recordings hardly change in loudness")
    assert "(d.wav)" in even
    assert look_at(paths[:2], RATE).warnings(RATE) == []
    two = Recordings(9, (11_025, 8000, 8000), 0, tuple("abcd")).warnings(24_000)
    assert "3 of 9 recordings are sampled at 8,000 and 11,025 Hz" in two[0]
    assert "(a, b, c ...)" in two[1]
