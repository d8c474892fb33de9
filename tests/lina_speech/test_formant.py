"""The built-in formant synthesiser."""

import itertools

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.corpus.formant import FormantEngine, formant_voice
from lightning_adapt.lina_speech.corpus.formant_phones import PHONES, phones_of
from lightning_adapt.lina_speech.corpus.formant_sound import FormantVoice, sound_of
from lightning_adapt.lina_speech.corpus.words import DIGIT_WORDS, default_words
from tests.lina_speech.voice_parts import pitch_of, spectrum_of

RATE = 22050
SHOWN = FormantVoice(pitch=90, breath=0.0, tilt=0.0)  # a low, clear voice shows its formants well


def middle(name, voice=SHOWN, rate=RATE, copies=4):
    """Return a phone held for long, without its edges."""
    sound = sound_of([name] * copies, voice, rate)
    return sound[len(sound) // 4 : -len(sound) // 4]


def band(sound, rate, low, high):
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    hertz = np.fft.rfftfreq(len(sound), 1 / rate)
    return float(power[(hertz >= low) & (hertz < high)].sum() / power.sum())


@pytest.mark.parametrize("pitch", [85.0, 120.0, 180.0, 250.0])
def test_the_pitch_is_the_voice_s(pitch):
    sound = sound_of(phones_of("we are all young"), FormantVoice(pitch=pitch), RATE)
    assert pitch_of(sound, RATE) == pytest.approx(pitch, rel=0.06)


@pytest.mark.parametrize("name", ["iy", "eh", "ae", "aa", "uw", "er"])
@pytest.mark.parametrize("scale", [1.0, 1.15])
def test_the_formants_lie_where_they_are_asked(name, scale):
    # linear prediction, an independent estimate of the resonances: poles of the best predictor of the sound
    rate = 11025
    sound = middle(name, FormantVoice(pitch=85, scale=scale, breath=0.0, tilt=0.0), rate)
    sound = np.append(sound[0], sound[1:] - 0.9 * sound[:-1]) * np.hanning(len(sound))
    order = 12
    correlation = np.correlate(sound, sound, "full")[len(sound) - 1 :][: order + 1]
    table = correlation[np.abs(np.subtract.outer(np.arange(order), np.arange(order)))]
    poles = np.roots(np.append(1.0, -np.linalg.solve(table, correlation[1:])))
    poles = poles[(poles.imag > 0) & (np.abs(poles) > 0.85)]
    found = np.angle(poles) * rate / (2 * np.pi)
    for asked in PHONES[name].formants[:3]:
        assert np.abs(found - asked * scale).min() < max(70, 0.08 * asked)


def test_consonants_are_noise_or_murmur_where_they_should_be():
    assert band(middle("s"), RATE, 4500, 7000) > 0.7
    assert band(middle("sh"), RATE, 2000, 3600) > 0.6
    assert band(middle("m"), RATE, 0, 500) > 0.8
    assert band(middle("z"), RATE, 0, 500) > 0.05  # voiced: both
    assert band(middle("z"), RATE, 4500, 7000) > 0.2
    assert np.abs(sound_of(["aa", "t-", "t-", "t-", "aa"], SHOWN, RATE)).min() == 0


def voiced(sound, rate=RATE):
    """Return how alike two neighbouring stretches of 30 ms are at best, 60 to 400 times a second, in [-1, 1]."""
    size, middle_ = round(0.03 * rate), len(sound) // 2
    first = sound[middle_ : middle_ + size]
    lags = range(rate // 400, rate // 60)
    return max(float(np.corrcoef(first, sound[middle_ + lag : middle_ + lag + size])[0, 1]) for lag in lags)


def test_voiced_and_unvoiced_sounds_differ():
    assert min(voiced(middle(name)) for name in ("aa", "iy", "m", "l")) > 0.95
    assert max(voiced(middle(name)) for name in ("s", "sh", "f", "h")) < 0.6


def test_phones_sound_different():
    vowels = [name for name, phone in PHONES.items() if phone.vowel]
    spectra = {name: spectrum_of(middle(name), RATE) for name in [*vowels, "s", "sh", "f", "m", "n", "l"]}
    for first, second in itertools.combinations(spectra, 2):
        assert np.abs(spectra[first] - spectra[second]).mean() > 0.07, (first, second)


def test_voices_sound_different():
    engine = FormantEngine()
    assert len(engine.voices) == len({formant_voice(name) for name in engine.voices}) == 100
    voices = [formant_voice(name) for name in engine.voices[:20]]
    for first, second in itertools.combinations(voices, 2):
        pitch = abs(np.log(first.pitch / second.pitch)) / 0.05
        others = abs(first.scale - second.scale) / 0.02 + abs(first.speed - second.speed) / 0.05
        assert pitch + others + abs(first.tilt - second.tilt) / 0.1 > 1.5
    assert min(voice.pitch for voice in voices) < 100
    assert max(voice.pitch for voice in voices) > 220


def test_speed_and_breath_are_heard():
    phones = phones_of("we are all young")
    normal, fast = (len(sound_of(phones, FormantVoice(speed=speed), RATE)) / RATE for speed in (1.0, 2.0))
    assert 1.6 < (normal - 0.12) / (fast - 0.12) < 2.4
    # noise lies between the harmonics, and makes the periods less alike
    clear, breathy = (voiced(middle("aa", FormantVoice(breath=breath))) for breath in (0.0, 1.0))
    assert clear > breathy + 0.02


def test_the_sound_is_the_same_every_time_and_safe():
    engine = FormantEngine()
    audio = engine.speak("seven three", "v04", RATE)
    assert audio.dtype == torch.float32
    assert torch.equal(audio, FormantEngine().speak("seven three", "v04", RATE))
    assert float(audio.abs().max()) == pytest.approx(0.7)
    assert torch.isfinite(audio).all()
    state = torch.get_rng_state()
    engine.speak("nine", "v05", RATE)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
def test_every_rate_gives_the_same_length_and_pitch(rate):
    audio = FormantEngine().speak("we are all", "v02", rate)
    reference = FormantEngine().speak("we are all", "v02", RATE)
    assert len(audio) / rate == pytest.approx(len(reference) / RATE, rel=0.01)
    assert pitch_of(audio, rate) == pytest.approx(pitch_of(reference, RATE), rel=0.06)


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("ship", "sh ih p- p+"),
        ("cheese", "t- sh iy s"),
        ("name", "n eh iy m"),
        ("table", "t- t+ ae b- b+ l"),
        ("knife", "n aa iy f"),
        ("queen", "k- w iy n"),
        ("yes", "y eh s"),
        ("happy", "h ae p- p+ iy"),
        ("orange", "ao r ae n d- zh"),
        ("night", "n aa iy t- t+"),
        ("catch", "k- k+ ae t- sh"),
        ("2", "t- t+ uw"),
        ("Café", "k- k+ eh iy f"),
        ("it's", "ih t- t+ s"),
        ("a, b", "ah # b- b+"),
    ],
)
def test_spelling_rules(word, phones):
    assert phones_of(word) == phones.split()


def test_every_word_of_the_corpus_has_sounds_of_its_own():
    spoken = {word: tuple(phones_of(word)) for word in (*default_words(), *DIGIT_WORDS)}
    assert all(set(phones) <= set(PHONES) for phones in spoken.values())
    assert all(any(PHONES[name].vowel for name in phones) for phones in spoken.values())
    same = [pair for pair in itertools.combinations(spoken, 2) if spoken[pair[0]] == spoken[pair[1]]]
    assert len(same) < 12  # see and sea, four and for


def test_nothing_to_say_is_an_error():
    for text in ("", "...", "日本"):
        with pytest.raises(ValueError, match="nothing to say"):
            phones_of(text)


@pytest.mark.parametrize(
    ("voice", "text"),
    [("v100", "Near ones are 'v10'"), ("x", "names of voices"), ("v01,pitch=5", "with pitch from 50 to 500")],
)
def test_unknown_voices_are_refused_with_near_names(voice, text):
    with pytest.raises(ValueError, match=text):
        FormantEngine().check_voice(voice)


def test_settings_replace_the_voice_s():
    voice = formant_voice("v01,pitch=200,scale=1.2,speed=0.9,breath=0.5,tilt=0.1")
    assert voice == FormantVoice(200.0, 1.2, 0.9, 0.5, 0.1)
