"""The engines espeak and flite, and the library of espeakng-loader in place of the program."""

import ctypes.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.corpus import espeak_program
from lightning_adapt.lina_speech.corpus.engine import resampled, split_settings
from lightning_adapt.lina_speech.corpus.engines import make_engine
from lightning_adapt.lina_speech.corpus.espeak import ESPEAK_VOICES, EspeakEngine
from lightning_adapt.lina_speech.corpus.espeak_program import EspeakProgram, find_espeak
from lightning_adapt.lina_speech.corpus.flite import FliteEngine
from lightning_adapt.lina_speech.corpus.wave_files import pcm16, samples_of_wave, wave_bytes
from tests.lina_speech.voice_parts import pitch_of

needs_espeak = pytest.mark.skipif(find_espeak() is None, reason="espeak-ng is not installed")
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
LIBRARY = Path(espeak_program.__file__).with_name("espeak_library.py")
SYSTEM_DATA = Path("/usr/lib/x86_64-linux-gnu/espeak-ng-data")
needs_debian = pytest.mark.skipif(
    find_espeak() is None or not SYSTEM_DATA.is_dir(), reason="needs espeak-ng as Debian installs it on x86-64"
)


def test_the_voices_are_different_and_as_many_as_documented():
    assert len(ESPEAK_VOICES) == len(set(ESPEAK_VOICES)) == 110


@needs_espeak
def test_every_voice_exists():
    engine = EspeakEngine()
    for voice in ESPEAK_VOICES:
        engine.check_voice(voice)


@needs_espeak
def test_the_samples_are_those_of_the_program():
    engine = EspeakEngine()
    audio = engine.speak("seven three nine", "en-gb+f3,pitch=70,speed=150", 22050)
    content = find_espeak().run("-v", "gmw/en+f3", "-p", "70", "-s", "150", "--stdout", "seven three nine")
    reference = np.frombuffer(content[44:], np.int16) / 32768
    assert audio.dtype == torch.float32
    np.testing.assert_array_equal(audio.numpy(), reference.astype(np.float32))
    assert torch.equal(engine.speak("seven three nine", "en-gb+f3,pitch=70,speed=150", 22050), audio)
    assert 0.2 < float(audio.abs().max()) <= 1.0


@needs_espeak
@pytest.mark.parametrize("accent", sorted({voice.partition("+")[0] for voice in ESPEAK_VOICES}))
def test_variants_are_heard_in_every_accent(accent):
    # espeak-ng itself drops the variant of "en-gb+f3" without a word
    engine = EspeakEngine()
    plain, high = (engine.speak("we are all here", voice, 22050) for voice in (accent, f"{accent}+f3"))
    assert pitch_of(high, 22050) > 1.3 * pitch_of(plain, 22050)


@needs_espeak
def test_settings_are_heard():
    engine = EspeakEngine()
    low, high = (pitch_of(engine.speak("we are all here", f"en-us+m1,pitch={p}", 22050), 22050) for p in (20, 80))
    assert high > 1.3 * low
    slow, quick = (len(engine.speak("we are all here", f"en-us,speed={s}", 22050)) for s in (120, 240))
    assert slow > 1.5 * quick


@needs_espeak
def test_a_text_like_an_option_is_spoken():
    engine = EspeakEngine()
    assert len(engine.speak("--version", "en-us", 22050)) > 8000


@needs_espeak
def test_other_rates_are_resampled():
    pytest.importorskip("torchaudio", reason="resampling needs torchaudio")
    engine = EspeakEngine()
    native, changed = (engine.speak("seven", "en-us", rate) for rate in (22050, 16000))
    assert len(changed) == -(-len(native) * 16000 // 22050)


@needs_espeak
@pytest.mark.parametrize(
    ("voice", "text"),
    [
        ("en-gp", "Near ones are 'en-gb'"),
        ("en-gb+f33", r"Near ones are 'en-gb\+f3'"),
        ("en-gb,pitch=300", "with pitch from 0 to 99"),
        ("en-gb,pitch=high", "with pitch from 0 to 99"),
        ("en-gb,volume=3", "among 'pitch', 'speed'"),
        ("", "names of voices that espeak-ng has"),
    ],
)
def test_unknown_voices_are_refused_with_near_names(voice, text):
    with pytest.raises(ValueError, match=text):
        EspeakEngine().check_voice(voice)


@needs_espeak
def test_no_sound_is_an_error():
    with pytest.raises(RuntimeError, match="made no sound"):
        EspeakEngine().speak("", "en-us", 22050)
    with pytest.raises(RuntimeError, match="voice does not exist"):
        EspeakEngine().speak("a", "zz", 22050)


@needs_flite
def test_flite_speaks():
    engine = FliteEngine()
    audio = engine.speak("seven three", "slt", 16000)
    assert 12000 < len(audio) < 32000
    assert 150 < pitch_of(audio, 16000) < 250  # a woman
    assert torch.equal(audio, engine.speak("seven three", "slt", 16000))
    assert not torch.equal(audio[:8000], engine.speak("seven three", "awb", 16000)[:8000])
    with pytest.raises(ValueError, match="Near ones are 'slt'"):
        engine.check_voice("slit")


def test_missing_programs_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(espeak_program, "find_espeak", lambda: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"'espeak' needs espeak-ng.*apt install.*pip install espeakng-loader"
    ):
        make_engine("espeak")
    with pytest.raises(ModuleNotFoundError, match=r"'flite' needs flite.*apt install flite"):
        make_engine("flite")


@needs_debian
def test_the_library_gives_the_samples_of_the_program():
    name = ctypes.util.find_library("espeak-ng")
    program = find_espeak()
    library = EspeakProgram((sys.executable, "-I", "-S", str(LIBRARY), name, str(SYSTEM_DATA)), program.version)
    options = ("-v", "en-gb+f3", "-p", "30", "-s", "150", "--stdin", "--stdout")
    ours, theirs = (samples_of_wave(each.run(*options, text="seven three")) for each in (library, program))
    assert ours[1] == theirs[1] == 22050
    np.testing.assert_array_equal(ours[0], theirs[0])
    spoken = [each.run("-q", "--ipa", "-v", "en-us", text="seven\nthree\n").decode() for each in (library, program)]
    assert spoken[0] == spoken[1]
    assert library.variants() == program.variants()
    assert library.languages() == program.languages()
    assert program.version in library.run("--version").decode()
    with pytest.raises(RuntimeError, match="voice does not exist"):
        library.run("-v", "zz", "--stdout", text="a")


@needs_debian
def test_the_loader_package_is_found_without_the_program(monkeypatch, tmp_path):
    # laid out as the package espeakng-loader is, with the library and data of the system
    package = tmp_path / "espeakng_loader"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "libespeak-ng.so").symlink_to(SYSTEM_DATA.parent / ctypes.util.find_library("espeak-ng"))
    (package / "espeak-ng-data").symlink_to(SYSTEM_DATA)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    program = find_espeak.__wrapped__()
    assert program.command[0] == sys.executable
    assert str(package / "libespeak-ng.so") in program.command
    assert program.version[0].isdigit()
    samples, rate = samples_of_wave(program.run("-v", "en-us+m1", "--stdin", "--stdout", text="seven"))
    assert len(samples) > rate / 4


def test_a_program_that_cannot_start_is_passed_over(monkeypatch, tmp_path):
    broken = tmp_path / "espeak-ng"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    monkeypatch.setattr(espeak_program, "_library_command", lambda: None)
    assert find_espeak.__wrapped__() is None


def test_wave_bytes_come_back_and_false_lengths_are_not_believed():
    samples = np.array([0, 1, -1, 32767, -32768], np.int16)
    content = wave_bytes(samples, 16000)
    np.testing.assert_array_equal(samples_of_wave(content)[0], samples)
    assert samples_of_wave(content)[1] == 16000
    piped = content[:40] + b"\x00\xf0\xff\x7f" + content[44:]
    np.testing.assert_array_equal(samples_of_wave(piped)[0], samples)
    assert samples_of_wave(b"")[0].size == samples_of_wave(b"RIFFnonsense")[0].size == 0


def test_wave_bytes_are_read_by_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    samples = pcm16(torch.linspace(-1.2, 1.2, 100))
    assert (samples.min(), samples.max()) == (-32768, 32767)
    (tmp_path / "a.wav").write_bytes(wave_bytes(samples, 22050))
    read, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == 22050
    np.testing.assert_array_equal(read, samples)


def test_equal_rates_need_no_resampling():
    audio = resampled(np.array([16384, -32768], np.int16), 8000, 8000)
    assert audio.tolist() == [0.5, -1.0]


def test_settings_are_cut_off_a_name():
    assert split_settings("a+b, x=1 ,y=-2.5", {"x": (0, 2), "y": (-3, 0)}) == ("a+b", {"x": 1.0, "y": -2.5})


def test_a_program_that_does_not_end_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(espeak_program, "_TIMEOUT_S", 0.2)
    with pytest.raises(RuntimeError, match=r"espeak-ng did not end within 0.2 s"):
        espeak_program.EspeakProgram((sys.executable, "-c", "import time; time.sleep(9)"), "0").run()


@needs_flite
@pytest.mark.parametrize("text", ["one\0two", "-o /dev/null", "so\udcff"])
def test_flite_speaks_whatever_it_gets(text):
    assert len(FliteEngine().speak(text, "slt", 16000)) > 2000
