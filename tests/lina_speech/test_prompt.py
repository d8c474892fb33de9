"""Voices from a prompt: the state that single steps reach, recordings of every kind, and what cannot be one."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import soundfile
import torch

from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.lina_speech.data.audio import trim_silence
from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.voices.prompt import voice_from_prompt
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.lina_speech.codec_parts import RATE, small_codec, sound
from tests.lina_speech.made_voice_parts import same_tensors, voice_for
from tests.lina_speech.speech_parts import Letters, lively, module
from tests.lina_speech.test_generate import GREEDY, same


@cache
def codec_of(n_codebooks):
    return small_codec(n_codebooks, 8)


def talker(n_codebooks=2, **options):
    model = lively(n_codebooks, codebook_size=8, **options)
    return Speaker(model, codec_of(n_codebooks), Letters())


# -- what is kept ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_codebooks", [1, 2, 4])
@pytest.mark.parametrize(
    "kind", [{}, {"cross_attention": "plain"}, {"short_conv": False}], ids=["blind", "plain", "bare"]
)
def test_the_state_is_that_after_begin_and_every_frame_of_the_first_codebook(n_codebooks, kind):
    ours, audio = talker(n_codebooks, **kind), sound(0.5)
    voice = voice_from_prompt(ours, audio, "hm hm", sample_rate_hz=RATE, trim_silence_db=None)
    codes = ours.codec.encode(audio)
    ids, model = torch.tensor([Letters().encode("hm hm")]), ours.model.eval()
    with torch.no_grad():
        memory, state = model.encode_text(ids, torch.tensor([ids.shape[1]])), model.initial_state(1)
        for column in range(codes.shape[1] + 1):
            frames = [column - 1 - book for book in range(n_codebooks)]
            step = [1 if frame < 0 else 3 + int(codes[book, frame]) for book, frame in enumerate(frames)]
            state = model.step(torch.tensor([step]), memory, state).state
    kept = voice.tensors
    blocks = range(2)
    assert set(kept) == {
        f"{part}.{i}" for part in (("gla", "conv") if model.config.short_conv else ("gla",)) for i in blocks
    }
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, state.tensors()[name][0], atol=1e-5, rtol=1e-4)
    start = voice.state(model)
    assert start.position is None or not start.position.any()
    assert all(not tensor.any() for tensor in start.conv[2:])


def test_what_a_voice_from_a_prompt_says_of_itself(tmp_path):
    ours = talker()
    silence = torch.zeros(RATE)
    audio = torch.cat([silence, sound(0.5), silence])
    voice = voice_from_prompt(ours, audio, "hm", sample_rate_hz=RATE, name="anna", consent="she agreed")
    assert (voice.name, voice.consent, voice.kind, voice.rank) == ("anna", "she agreed", "prompt", "full")
    assert voice.model_fingerprint == weights_fingerprint(ours.model)
    assert (voice.codec_fingerprint, voice.sample_rate_hz) == (ours.codec.fingerprint, RATE)
    assert voice.training_seconds == pytest.approx(0.6, abs=0.03)  # silence is cut to 50 ms at each end
    voice.save(tmp_path / "anna.safetensors")
    assert same_tensors(Voice.load(tmp_path / "anna.safetensors"), voice)
    trimmed = voice_from_prompt(ours, trim_silence(audio, RATE), "hm", sample_rate_hz=RATE, trim_silence_db=None)
    assert same_tensors(trimmed, voice)


def test_it_speaks_streams_and_is_mixed():
    ours = talker(end_bias=0.0)
    prompt = voice_from_prompt(ours, sound(0.5), "hm", sample_rate_hz=RATE)
    spoken = ours.speak(["one", "two"], [prompt, None], **GREEDY)
    same(spoken[0], ours.speak(["one"], prompt.state(ours.model), **GREEDY)[0])
    assert not torch.equal(spoken[0].alignment, ours.speak(["one"], **GREEDY)[0].alignment)
    assert torch.equal(torch.cat(list(ours.stream("one", prompt, **GREEDY))), spoken[0].audio)
    half = Voice.interpolate(voice_for(ours.model, ours.codec), prompt, 0.5)
    torch.testing.assert_close(half.tensors["conv.0"], 0.5 * prompt.tensors["conv.0"])
    ours.speak(["one"], half, **GREEDY)


def test_modes_and_random_numbers_stay_and_dropout_is_off():
    ours = talker(dropout=0.5)
    ours.model.train()
    random = torch.get_rng_state()
    one, two = (voice_from_prompt(ours, sound(0.5), "hm", sample_rate_hz=RATE) for _ in range(2))
    assert same_tensors(one, two)
    assert ours.model.training
    assert torch.equal(random, torch.get_rng_state())


def test_a_module_makes_them_and_starts_from_its_own_state():
    made = module(2, codec=codec_of(2), tokenizer=Letters(), codebook_size=8)
    plain = made.voice_from_prompt(sound(0.5), "hm", sample_rate_hz=RATE, name="anna", max_seconds=1.0)
    assert (plain.name, plain.training_seconds) == ("anna", 0.5)
    made.generate(["one"], plain, max_seconds=0.2)
    made.initial_state = made.model.initial_state(1).map(lambda value: value + 0.5)
    assert not same_tensors(made.voice_from_prompt(sound(0.5), "hm", sample_rate_hz=RATE), plain)
    with pytest.raises(ValueError, match="`codec` must be given"):
        module(2, tokenizer=Letters()).voice_from_prompt(sound(0.5), "hm", sample_rate_hz=RATE)


# -- recordings --------------------------------------------------------------------------------------------------------
def test_files_rates_and_channels(tmp_path):
    ours, audio = talker(), sound(0.5)
    soundfile.write(tmp_path / "a.wav", audio.numpy(), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", np.stack([audio.numpy()] * 2, 1), RATE, subtype="FLOAT")
    wanted = voice_from_prompt(ours, audio, "hm", sample_rate_hz=RATE)
    for source, rate in [
        (tmp_path / "a.wav", None),
        (str(tmp_path / "stereo.wav"), None),
        (audio.numpy(), RATE),
        (torch.stack([audio, audio]), RATE),
        (audio.double(), RATE),
    ]:
        assert same_tensors(voice_from_prompt(ours, source, "hm", sample_rate_hz=rate), wanted)
    from torchaudio.functional import resample

    for rate in (16_000, 22_050):
        other = voice_from_prompt(ours, resample(audio, RATE, rate), "hm", sample_rate_hz=rate)
        assert other.training_seconds == pytest.approx(0.5, abs=0.01)


NO_PROMPT = {
    "empty": (torch.zeros(0), ValueError, "`audio` must be a recording that can be used, but got 'samples: empty"),
    "silent": (torch.zeros(RATE), ValueError, "samples: silent"),
    "too long": (sound(1.2), ValueError, r"samples: too long: 1\.2 s, longer than max_seconds=1\.0"),
    "too short": (sound(0.05), ValueError, "samples: too short"),
    "not finite": (torch.full((RATE,), torch.nan), ValueError, "samples: not finite"),
    "three dimensions": (torch.zeros(2, 2, 9), ValueError, "samples: cannot be read"),
    "nothing": (None, ValueError, "samples: cannot be read"),
    "no file": ("nobody.wav", FileNotFoundError, "`audio` must be a file that is there, but got 'nobody.wav'"),
    "a folder": (".", (OSError, ValueError), "`audio` must be"),
}


@pytest.mark.parametrize(("audio", "error", "text"), NO_PROMPT.values(), ids=NO_PROMPT)
def test_recordings_that_are_no_prompt_are_named(audio, error, text):
    with pytest.raises(error, match=text):
        voice_from_prompt(talker(), audio, "hm", sample_rate_hz=RATE, max_seconds=1.0)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(ValueError, match=r"a\.wav: cannot be read"):
        voice_from_prompt(talker(), tmp_path / "a.wav", "hm")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"text": ""}, ValueError, "a text with something to say"),
        ({"text": " \n"}, ValueError, "a text with something to say"),
        ({"text": ["hm"]}, TypeError, "`text` must be a string"),
        ({"sample_rate_hz": None}, ValueError, "`sample_rate_hz` must be given beside samples"),
        ({"sample_rate_hz": None, "text": " ", "audio": None}, ValueError, "Pass the rate they were recorded at"),
        ({"max_seconds": 0}, ValueError, "`max_seconds`"),
        ({"name": ""}, ValueError, "`name`"),
        ({"consent": ""}, ValueError, "`consent`"),
    ],
)
def test_wrong_arguments_are_named(options, error, text):
    given = {"audio": sound(0.5), "text": "hm", "sample_rate_hz": RATE, **options}
    with pytest.raises(error, match=text):
        voice_from_prompt(talker(), given.pop("audio"), given.pop("text"), **given)
