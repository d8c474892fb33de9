"""Audio: files of several kinds, channels, rates, silence; every fault has a name."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.data.audio import AudioError, load_audio, read_audio, trim_silence
from lightning_adapt.lina_speech.data.code_cache import audio_key
from lightning_adapt.lina_speech.data.sources import Source
from tests.lina_speech.data_parts import RATE, tone, write_wav


def sine(seconds, rate, hertz=100.0, height=0.5):
    return (height * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("ending", "options", "error"),
    [("wav", {"subtype": "FLOAT"}, 0), ("wav", {}, 1e-4), ("flac", {}, 1e-4), ("ogg", {}, 0.05)],
)
def test_files_are_read(ending, options, error, tmp_path):
    audio = sine(0.5, 8000)
    loaded = load_audio(write_wav(tmp_path / f"a.{ending}", audio, 8000, **options), 8000)
    assert (loaded.shape, loaded.dtype) == ((4000,), torch.float32)
    assert np.abs(loaded.numpy() - audio).max() <= error


def test_channels_are_mixed_down(tmp_path):
    left, right = sine(0.2, 8000), sine(0.2, 8000, hertz=300)
    path = write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    expected = (left + right) / 2
    assert np.allclose(load_audio(path, 8000), expected, atol=1e-7)
    for given in (np.stack([left, right]), np.stack([left, right], axis=1)):
        assert np.allclose(load_audio(given, 8000, source_rate_hz=8000), expected, atol=1e-7)
    assert read_audio(path)[0].shape == (2, 1600)


def test_names_that_are_not_utf8_are_read(tmp_path):
    known = write_wav(tmp_path / "a.wav", sine(0.1, 8000), 8000)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    os.rename(known, odd)  # noqa: PTH104  # a Path writes such names, too, but less plainly
    assert load_audio(odd, 8000).shape == (800,)


@pytest.mark.parametrize("name", ["a\0.wav", "\ud83d.wav"])
def test_names_that_no_file_can_have_are_left_out(name):
    source = Source([{"audio": name, "text": "words"}], "data")
    assert source.identity == Source([{"audio": name, "text": "words"}], "data").identity
    with pytest.raises(AudioError, match="file not found"):
        load_audio(name, 8000)


@pytest.mark.parametrize(("before", "after"), [(16000, 8000), (8000, 22050), (44100, 16000)])
def test_resampling_keeps_pitch_and_height(before, after):
    made = load_audio(torch.from_numpy(sine(0.5, before)), after, source_rate_hz=before).numpy()
    expected = sine(0.5, after)
    inner = slice(after // 20, -after // 20)
    assert abs(len(made) - len(expected)) <= 1
    assert np.abs(made[: len(expected)][inner] - expected[: len(made)][inner]).max() < 5e-3


def test_whole_numbers_are_scaled_and_loud_samples_turned_down():
    audio = torch.tensor([0, 16384, -32767], dtype=torch.int16)
    assert load_audio(audio, 8000, source_rate_hz=8000).tolist() == pytest.approx([0, 16384 / 32767, -1])
    loud = torch.tensor([0.0, 1.0, -4.0], dtype=torch.float64)
    assert load_audio(loud, 8000, source_rate_hz=8000).tolist() == [0, 0.25, -1]


def test_faults_are_named(tmp_path):
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "empty.wav").touch()
    cut = (tmp_path / "cut.flac", write_wav(tmp_path / "whole.flac", tone(1.0)))
    cut[0].write_bytes((tmp_path / "whole.flac").read_bytes()[:30])
    nothing = write_wav(tmp_path / "nothing.wav", np.zeros(0))
    silent = write_wav(tmp_path / "silent.wav", np.zeros(1000))
    broken = sine(0.1, 8000)
    broken[3] = np.nan
    nan = write_wav(tmp_path / "nan.wav", broken, 8000, subtype="FLOAT")
    cases = {
        tmp_path / "away.wav": "file not found",
        tmp_path: "file not found",
        tmp_path / "text.wav": "cannot be read",
        tmp_path / "empty.wav": "cannot be read",
        cut[0]: "cannot be read",
        nothing: "empty",
        silent: "silent",
        nan: "not finite",
    }
    for path, reason in cases.items():
        with pytest.raises(AudioError) as found:
            load_audio(path, 8000)
        assert found.value.reason == reason, path
    for samples in ("", [["a"]], np.zeros((2, 2, 2)), torch.zeros(3, dtype=torch.bool), {"a": 1}):
        with pytest.raises(AudioError):
            load_audio(samples, 8000, source_rate_hz=8000)


def test_a_file_that_says_it_is_too_long_is_not_read(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(3.0))
    with pytest.raises(AudioError, match=r"too long: 3\.0 s"):
        read_audio(path, longest_seconds=2.9)
    assert read_audio(path, longest_seconds=3.0)[0].shape == (1, 3000)


@pytest.mark.parametrize("rate", [None, 0, 8000.5])
def test_samples_need_a_rate(rate):
    with pytest.raises((TypeError, ValueError), match="`sample_rate_hz` must be a whole number"):
        load_audio(torch.ones(5), 8000, source_rate_hz=rate)


def reference_ends(audio, rate, threshold_db, margin):
    """First and one after the last sample kept, by a loop over 10 ms."""
    step = round(rate / 100)
    energies = [sum(float(x) ** 2 for x in audio[at : at + step]) / step for at in range(0, len(audio), step)]
    loud = [i for i, energy in enumerate(energies) if 10 * np.log10(energy / max(energies) + 1e-30) >= -threshold_db]
    first, last = loud[0] * step - round(margin * rate), (loud[-1] + 1) * step + round(margin * rate)
    return max(0, first), min(len(audio), last)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("threshold", "margin"), [(40.0, 0.05), (20.0, 0.0), (60.0, 0.2)])
def test_trimming_equals_a_loop(seed, threshold, margin):
    random = np.random.default_rng(seed)
    rate = 1000
    heights = np.repeat(10.0 ** -random.uniform(0, 4, size=40), 37)
    audio = (heights * random.standard_normal(len(heights))).astype(np.float32)
    made = trim_silence(torch.from_numpy(audio), rate, threshold_db=threshold, margin_seconds=margin)
    first, last = reference_ends(audio, rate, threshold, margin)
    assert np.array_equal(made.numpy(), audio[first:last])


def test_trimming_of_little_or_nothing():
    assert trim_silence(torch.zeros(0), 1000).shape == (0,)
    assert trim_silence(torch.zeros(50), 1000).shape == (50,)
    assert trim_silence(torch.ones(3), 1000).shape == (3,)
    inside = torch.cat([torch.ones(100), torch.zeros(500), torch.ones(100)])
    assert trim_silence(inside, 1000).shape == (700,)
    with pytest.raises(ValueError, match="threshold_db"):
        trim_silence(torch.ones(3), 1000, threshold_db=0)


def test_arrays_that_pytorch_does_not_take_are_the_same_recording():
    plain = tone(0.5)
    fixed = plain.copy()
    fixed.flags.writeable = False
    expected = load_audio(plain, RATE, source_rate_hz=RATE)
    for odd in (fixed, plain.astype(">f4"), plain[::-1].copy()[::-1]):
        assert torch.equal(load_audio(odd, RATE, source_rate_hz=RATE), expected)
        assert audio_key(odd, RATE) == audio_key(plain, RATE)


def test_unsigned_bytes_have_their_silence_in_the_middle():
    wave = (128 + 100 * np.sin(np.arange(500) / 5)).round().astype(np.uint8)
    found = load_audio(wave, RATE, source_rate_hz=RATE)
    assert torch.allclose(found, torch.from_numpy((wave.astype(np.float32) - 128) / 128))


def test_a_rate_that_would_fill_the_memory_is_refused():
    with pytest.raises(AudioError, match="odd sample rate: 44101 Hz"):
        load_audio(tone(0.5), 22050, source_rate_hz=44101)
    assert len(load_audio(tone(0.5), 22050, source_rate_hz=22254)) > 0  # of old Macintosh recordings
