"""What `tune-voice` does with recordings that are few, silent, noisy, narrow, stereo, empty, or in other letters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_adapt.lina_speech.voices.voice import Voice
from tests.contracts.cli_parts import fails
from tests.lina_speech import tune_parts as parts

STEPS = ("--steps", "6")
NOISE = 0.2 * np.random.default_rng(0).standard_normal(parts.RATE).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return parts.trained(tmp_path_factory.mktemp("made") / "base.ckpt")


def held_out():
    """The losses of the voice, which never ends worse than it began."""
    voice = Voice.load("me.safetensors")
    assert voice.held_out["tuned"] <= voice.held_out["untuned"]
    return voice.held_out


def is_silent(voice):
    return all(not bool(value.any()) for value in voice.matrices().values())


def lines_about(text, err):
    return [line for line in err.splitlines() if text in line]


def test_three_utterances_make_a_voice_that_is_no_worse_than_the_base(checkpoint, capsys):
    assert parts.tune(checkpoint, parts.recorded(3), "--steps", "40") == 0
    told = capsys.readouterr()
    assert len(lines_about("there is little to learn from: ", told.err)) == 1
    assert "in 2 utterances; held out: " in told.out
    assert "in 1 utterance\n" in told.out
    held_out()


def test_three_utterances_of_the_base_s_own_speaker_are_never_overfitted(checkpoint, capsys):
    """Tuned hard on another speaker, but measured on the one that the base knows: zeros are the best state there is."""
    val = parts.manifest("val.csv", parts.recorded(3, speaker=0.0, folder="own"))
    rows = parts.recorded(3, speaker=1.0)
    assert parts.tune(checkpoint, rows, "--steps", "40", "--learning-rate", "10", "--patience", "3", "--val", val) == 0
    told = capsys.readouterr()
    losses = held_out()
    assert losses["tuned"] == losses["untuned"]
    assert is_silent(Voice.load("me.safetensors"))
    assert "Tuning did not help: no step was better on what was held out. The voice is the model's own" in told.out
    assert "Tuning: 12 of up to 40 steps" in told.out  # three measurements, one each four steps
    assert not lines_about("Nothing that was tuned", told.err)  # said once


def test_a_broken_recording_is_left_out_though_a_held_out_one_has_its_name(checkpoint, capsys):
    """Ids are stems of file names, so that both manifests may have a 001."""
    Path("held").mkdir()
    val = parts.manifest("val.csv", parts.recorded(2, folder="held"))
    broken = Path(parts.recorded(3)[0][0])
    rows = parts.recorded(3)
    broken.write_bytes(b"RIFF, and no more")
    assert parts.tune(checkpoint, rows, *STEPS, "--val", val) == 0
    told = capsys.readouterr()
    assert "Left out: 1 of 5 recordings (1 " in told.out


def test_silent_recordings_are_left_out_and_listed(checkpoint, capsys):
    quiet = [(parts.write(f"{n}.wav", np.full(8000, n, np.int16)), "nothing", "") for n in (0, 2, 3)]
    assert parts.tune(checkpoint, [*parts.recorded(3), *quiet], *STEPS) == 0
    out = capsys.readouterr().out
    assert "Left out: 3 of 6 recordings (3 silent)\n  me.csv, line 5: silent (peak 0.0e+00)\n" in out
    assert "  me.csv, line 7: silent (peak 9.2e-05)\n" in out  # the limit is 1e-4, -80 dB of full scale
    Path("me.safetensors").unlink()
    files = ["--checkpoint", checkpoint, "--manifest", parts.manifest("q.csv", quiet), "--out", "me.safetensors"]
    line = fails(["tune-voice", *files], capsys)
    assert (
        "None of the 3 recordings of --manifest 'q.csv' can be used (3 silent). The first one, q.csv, line 2: silent"
        in line
    )
    files[3] = parts.manifest("q.csv", [*parts.recorded(1), *quiet])
    line = fails(["tune-voice", *files], capsys)
    assert "--manifest has one usable recording of 4 (3 silent), and --val 0.2 needs two." in line
    assert not Path("me.safetensors").exists()


def test_noise_is_no_silence_but_is_warned_of_and_never_beats_held_out_speech(checkpoint, capsys):
    noise = [(parts.write(f"noise/{n}.wav", NOISE * (0.5 + 0.1 * n)), "one two", "") for n in range(3)]
    val = parts.manifest("val.csv", parts.recorded(3, speaker=0.0, folder="own"))
    assert parts.tune(checkpoint, noise, "--steps", "20", "--val", val) == 0
    told = capsys.readouterr()
    (line,) = lines_about("hardly change in loudness", told.err)
    assert line.startswith(
        "tune-voice: 3 of 6 recordings hardly change in loudness, as noise does and speech does not ("
    )
    assert "noise/0.wav" in line
    assert "Left out" not in told.out
    held_out()


def test_where_all_is_noise_noise_is_learnt_and_the_warning_is_what_protects(checkpoint, capsys):
    noise = [(parts.write(f"noise/{n}.wav", NOISE * (0.5 + 0.1 * n)), "one two", "") for n in range(4)]
    assert parts.tune(checkpoint, noise, "--steps", "20") == 0
    assert "4 of 4 recordings hardly change in loudness" in capsys.readouterr().err
    losses = held_out()
    assert losses["tuned"] < losses["untuned"]


def test_8_khz_is_resampled_with_one_warning(checkpoint, capsys):
    rows = parts.recorded(4)
    for path, text, _ in rows[:2]:
        sound = parts.said(text, 1.0)
        parts.write(path, sound[::2], rate=8000)
    for again in ("first", "from the cache"):
        assert parts.tune(checkpoint, rows, *STEPS) == 0
        (line,) = lines_about("kHz", capsys.readouterr().err)
        expected = "2 of 4 recordings are sampled at 8,000 Hz, below the codec's 16,000 Hz: nothing above 4 kHz"
        assert expected in line, again
    held_out()


def test_stereo_is_mixed_down(checkpoint, capsys):
    rows = parts.recorded(3)
    assert parts.tune(checkpoint, rows, *STEPS) == 0
    mono = Voice.load("me.safetensors")
    assert "Mixed down" not in capsys.readouterr().out
    for number, (_, text, _) in enumerate(rows):
        sound = parts.said(text, 1.0)
        parts.write(f"wavs/{number}.wav", np.stack([sound + 0.1 * number, sound - 0.1 * number], axis=1))
    for _ in range(2):  # encoded, and from the cache
        assert parts.tune(checkpoint, rows, *STEPS) == 0
        assert "Mixed down to one channel: 3 recordings" in capsys.readouterr().out
    assert Voice.load("me.safetensors").training_seconds == pytest.approx(mono.training_seconds)
    assert held_out()["untuned"] == pytest.approx(mono.held_out["untuned"], rel=0.02)  # 16 bits are rounded


def test_empty_files_are_left_out_and_listed(checkpoint, capsys):
    Path("nothing.wav").write_bytes(b"")
    rows = [*parts.recorded(3), ("nothing.wav", "one", ""), (parts.write("zero.wav", np.zeros(0)), "two", "")]
    assert parts.tune(checkpoint, rows, *STEPS) == 0
    out = capsys.readouterr().out
    assert "Left out: 2 of 5 recordings (1 cannot be read, 1 empty)\n" in out
    assert "  me.csv, line 5: cannot be read (" in out
    assert "  me.csv, line 6: empty (no samples)\n" in out
    held_out()


def test_many_that_are_left_out_are_listed_in_a_file(checkpoint, capsys):
    rows = [*parts.recorded(3), *((f"gone{n}.wav", "one", "") for n in range(14))]
    assert parts.tune(checkpoint, rows, *STEPS) == 0
    lines = capsys.readouterr().out.splitlines()
    (last,) = [line for line in lines if line.startswith("  and 4 more, all listed in ")]
    assert len(json.loads(Path(last.removeprefix("  and 4 more, all listed in ")).read_text())["left_out"]) == 14


@pytest.mark.filterwarnings("default:The tokenizer does not know:UserWarning")
def test_an_alphabet_that_the_tokenizer_does_not_know_is_one_warning(checkpoint, capsys):
    rows = [
        (path, text, "")
        for (path, _, _), text in zip(parts.recorded(4), ["привет", "да", "ещё", "да нет"], strict=True)
    ]
    assert parts.tune(checkpoint, rows, *STEPS) == 0
    (line,) = lines_about("The tokenizer does not know", capsys.readouterr().err)
    assert line.startswith("tune-voice: The tokenizer does not know ")
    assert all(f"(U+{ord(letter):04X})" in line for letter in "приветдащён")
    assert "each becomes UNK" in line
    held_out()
