"""`lightning-adapt speak`: sound files for texts, the same for the same seed, errors of one line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lightning_adapt.lina_speech.commands import speak as command
from lightning_adapt.lina_speech.inference.speech import Speech
from lightning_adapt.lina_speech.module import LinaSpeechModule
from tests.lina_speech.made_voice_parts import some_voice, voice_for
from tests.lina_speech.speech_parts import fit, module
from tests.lina_speech.test_module_checkpoints import codec


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    made = module(codec=codec(), tokenizer="characters", text_vocab_size=256, max_seconds=0.3)
    path = tmp_path_factory.mktemp("made") / "made.ckpt"
    fit(made).save_checkpoint(path)
    return path


class Failed(Exception):
    pass


def fail(message):
    raise Failed(message)


def speak(checkpoint, *arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = ["--checkpoint", str(checkpoint), *map(str, arguments)]
    return command.run(parser.parse_args(given), fail)


def test_one_text_one_file(checkpoint, capsys):
    assert speak(checkpoint, "--text", "one two", "--out", "new/a.wav", "--seed", "3") == 0
    samples, rate = soundfile.read("new/a.wav")
    spoken = LinaSpeechModule.load_from_checkpoint(checkpoint, weights_only=True).generate(["one two"], seed=3)[0]
    assert rate == 22050
    np.testing.assert_allclose(samples, spoken.audio.numpy(), atol=2 / 2**15)
    told = capsys.readouterr()
    assert "Wrote new/a.wav" in told.out
    assert "real-time factor" in told.out
    assert "s of audio" in told.err
    assert [path.name for path in Path("new").iterdir()] == ["a.wav"]
    first = Path("new/a.wav").read_bytes()
    assert speak(checkpoint, "--text", "one two", "--out", "new/a.wav", "--seed", "3") == 0
    assert Path("new/a.wav").read_bytes() == first
    assert speak(checkpoint, "--text", "one two", "--out", "new/a.wav", "--seed", "4", "--temperature", "3") == 0
    assert Path("new/a.wav").read_bytes() != first


@pytest.mark.filterwarnings("default:The tokenizer does not know:UserWarning")
def test_warnings_are_lines_of_the_command(checkpoint, capsys):
    assert speak(checkpoint, "--text", "\u0434\u0430", "--out", "a.wav", "--max-seconds", "0.1") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "(U+0434)" in line]
    assert len(lines) == 1
    assert lines[0].startswith("speak: The tokenizer does not know ")


def test_several_texts_and_files_of_texts(checkpoint):
    short = ("--max-seconds", "0.1")
    assert speak(checkpoint, "--text", "one", "--text", "two", "--out", "a.flac", *short) == 0
    assert sorted(path.name for path in Path().glob("*.flac")) == ["a-1.flac", "a-2.flac"]
    Path("lines.txt").write_text("\ufeff" + "\n\n".join(["one two"] * 10) + "\n", encoding="utf-8")
    assert speak(checkpoint, "--text-file", "lines.txt", "--out", "folder", *short) == 0
    assert sorted(path.name for path in Path("folder").iterdir()) == [f"{number:02d}.wav" for number in range(1, 11)]


def test_the_options_reach_the_model(checkpoint, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        LinaSpeechModule,
        "generate",
        lambda self, texts, voice, **options: seen.update(options, voice=voice.name) or 1 / 0,
    )
    voice_for(LinaSpeechModule.load_from_checkpoint(checkpoint, weights_only=True).model).save("v.safetensors")
    arguments = {"temperature": "0.5", "top-k": "0", "top-p": "0.9", "n-best": "2", "seed": "7", "max-seconds": "2"}
    flags = [part for name, value in arguments.items() for part in (f"--{name}", value)]
    with pytest.raises(ZeroDivisionError):
        speak(checkpoint, "--text", "a", "--out", "a.wav", *flags, "--voice", "v.safetensors")
    seen.pop("progress")
    expected = {"temperature": 0.5, "top_k": None, "top_p": 0.9, "n_best": 2, "seed": 7, "max_seconds": 2.0}
    assert seen == {**expected, "voice": "voice 0"}


def test_a_voice_is_heard(checkpoint):
    made = LinaSpeechModule.load_from_checkpoint(checkpoint, weights_only=True)
    voice = voice_for(made.model, made.codec)
    voice.save("voice.safetensors")
    greedy = ("--text", "one two", "--temperature", "0")
    assert speak(checkpoint, *greedy, "--out", "a.wav", "--voice", "voice.safetensors") == 0
    spoken = made.generate(["one two"], voice, temperature=0.0)[0]
    np.testing.assert_allclose(soundfile.read("a.wav")[0], spoken.audio.numpy(), atol=2 / 2**15)


def test_mistakes_are_one_line_and_write_nothing(checkpoint):
    torch.save({"state_dict": {}}, "other.ckpt")
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0"}, "another.ckpt")
    torch.save({"a": torch.ones(2)}, "weights.pt")
    soundfile.write("sound.wav", np.zeros(2000), 16_000)
    Path("rows.csv").write_text("audio,text\na.wav,one\n")
    Path("cut.ckpt").write_bytes(checkpoint.read_bytes()[:-100])
    Path("broken.ckpt").write_bytes(b"nothing")
    Path("empty.txt").write_text("\n \n")
    Path("a_file").write_text("")
    Path("latin.txt").write_bytes("\u00e4".encode("latin-1"))
    Path("folder.wav").mkdir()
    codec().save("codec.safetensors")
    some_voice().save("other.safetensors")
    before = sorted(Path.cwd().rglob("*"))
    out, text = ("--out", "a.wav"), ("--text", "one")
    cases = [
        (("nowhere.ckpt", *text, *out), "'nowhere.ckpt' is no file"),
        (
            ("other.ckpt", *text, *out),
            "'other.ckpt' is no checkpoint of LinaSpeechModule, or not a whole one (it was not",
        ),
        (("weights.pt", *text, *out), "(it was not saved by a Trainer)"),
        (("another.ckpt", *text, *out), "(it is one of another module)"),
        (("sound.wav", *text, *out), "'sound.wav' is no checkpoint of LinaSpeechModule, or not a whole one (it is no"),
        (("cut.ckpt", *text, *out), "'cut.ckpt' is no checkpoint of LinaSpeechModule, or not a whole one"),
        (("rows.csv", *text, *out), "'rows.csv' is no checkpoint of LinaSpeechModule"),
        (("codec.safetensors", *text, *out), "'codec.safetensors' is no checkpoint of LinaSpeechModule"),
        (
            ("other.safetensors", *text, *out),
            "--checkpoint 'other.safetensors' is a voice, no checkpoint. Pass it to `lightning-adapt speak` as --voice",
        ),
        (
            (checkpoint, *text, *out, "--voice", checkpoint),
            "is a checkpoint, no voice. Pass it as --checkpoint, and the voice as --voice.",
        ),
        ((checkpoint, *text, *out, "--voice", "sound.wav"), "--voice: sound.wav is no voice file (or is cut off)."),
        ((checkpoint, *text, *out, "--voice", "rows.csv"), "--voice: rows.csv is no voice file (or is cut off)."),
        (("broken.ckpt", *text, *out), "'broken.ckpt' is no checkpoint of LinaSpeechModule"),
        (("a_file", *text, *out), "'a_file' is no checkpoint of LinaSpeechModule"),
        ((checkpoint, "--text", " ", *out), "something to say"),
        ((checkpoint, "--text-file", "empty.txt", *out), "has no text in it"),
        ((checkpoint, "--text-file", "nowhere.txt", *out), "--text-file 'nowhere.txt' is no file."),
        ((checkpoint, "--text-file", "latin.txt", *out), "--text-file 'latin.txt' is no text in UTF-8"),
        ((checkpoint, *text, "--out", "a.mp4"), "--out must be a folder or end in .wav"),
        ((checkpoint, *text, "--out", "a_file/a.wav"), "no folder that you may write to"),
        (("nowhere.ckpt", *text, *out, "--temperature", "-1"), "--temperature must be a number >= 0, but got -1.0."),
        (("nowhere.ckpt", *text, *out, "--temperature", "nan"), "--temperature"),
        (("nowhere.ckpt", *text, *out, "--top-k", "-1"), "--top-k must be a whole number, 1 or more, or 0 for all"),
        (("nowhere.ckpt", *text, *out, "--top-p", "0"), "--top-p"),
        (("nowhere.ckpt", *text, *out, "--n-best", "0"), "--n-best"),
        (("nowhere.ckpt", *text, *out, "--max-seconds", "inf"), "--max-seconds"),
        (
            (checkpoint, *text, *out, "--voice", "nowhere.safetensors"),
            "--voice 'nowhere.safetensors' is no file. Make one by",
        ),
        ((checkpoint, *text, *out, "--voice", "a_file"), "a_file is no voice file (or is cut off)"),
        ((checkpoint, *text, *out, "--voice", "codec.safetensors"), "is no voice file of lightning_adapt"),
        ((checkpoint, *text, *out, "--voice", "other.safetensors"), "was made with the model 0123456789abcdef"),
        ((checkpoint, *text, *out, "--codec", "nowhere.safetensors"), "'encodec:'"),
        (
            (checkpoint, *text, *out, "--codec", "base.ckpt"),
            "`codec`: there is no file 'base.ckpt'; put the path of your",
        ),
        ((checkpoint, *text, *out, "--device", "quantum"), "--device 'quantum' cannot be used here"),
        ((checkpoint, *text, *out, "--device", "meta"), "--device 'meta' cannot be used here"),
    ]
    for arguments, expected in cases:
        with pytest.raises(Failed) as told:
            speak(*arguments)
        message = str(told.value)
        assert message.startswith("speak: ")
        assert expected in message, message
        assert "\n" not in message
        assert "weights_only" not in message
    assert sorted(Path.cwd().rglob("*")) == before


def speech(seconds, text, *, stopped=True):
    return Speech(torch.zeros(round(seconds * 1000)), 1000, torch.zeros(1, 1), stopped, torch.zeros(1, 1), text)


@pytest.mark.parametrize(
    ("spoken", "told"),
    [
        (
            [speech(0.19, "a")],
            "speak: a.wav (0.19 s for 1 characters) ended at once: try --n-best 3 or another --seed.",
        ),
        ([speech(0.3, "a" * 16)], "a.wav (0.30 s for 16 characters) ended"),
        ([speech(0.21, "a")], ""),
        ([speech(0.33, "a" * 16)], ""),
        ([speech(0.1, "a", stopped=False)], ""),  # cut off at the limit, as the summary says
    ],
)
def test_a_text_that_ended_at_once_is_told_in_a_line(spoken, told, checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(LinaSpeechModule, "generate", lambda *arguments, **options: spoken)
    assert speak(checkpoint, "--text", "one", "--out", "a.wav") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("speak: ")]
    assert len(lines) == bool(told)
    assert told in "".join(lines)


def test_many_texts_that_ended_at_once_are_one_line(checkpoint, monkeypatch, capsys):
    spoken = [speech(0.1, "a"), speech(1.0, "a"), *[speech(0.1, "a")] * 3]
    monkeypatch.setattr(LinaSpeechModule, "generate", lambda *arguments, **options: spoken)
    texts = [part for _ in spoken for part in ("--text", "a")]
    assert speak(checkpoint, *texts, "--out", "a.wav", "--n-best", "4") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("speak: ")]
    assert "a-1.wav" in line
    assert "a-2.wav" not in line
    assert line.endswith(
        "a-4.wav (0.10 s for 1 characters) and 1 more ended at once: try --n-best 8 or another --seed."
    )


def test_another_codec_is_refused(checkpoint):
    codec(1).save("other.safetensors")
    with pytest.raises(Failed, match=f"must be that of the checkpoint, {codec().fingerprint}, but got"):
        speak(checkpoint, "--text", "one", "--out", "a.wav", "--codec", "other.safetensors")


def test_ctrl_c_leaves_no_file(checkpoint, monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(LinaSpeechModule, "generate", stop)
    assert speak(checkpoint, "--text", "one", "--out", "a.wav") == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_ctrl_c_while_files_are_written_names_those_that_are_there(checkpoint, monkeypatch, capsys):
    save = Speech.save

    def stop_at_the_second(self, path):
        if "2" in str(path):
            raise KeyboardInterrupt
        return save(self, path)

    monkeypatch.setattr(Speech, "save", stop_at_the_second)
    arguments = ("--text", "one", "--text", "two", "--out", "a.wav", "--max-seconds", "0.1")
    assert speak(checkpoint, *arguments) == 130
    assert "stopped, a-1.wav was written" in capsys.readouterr().err


def test_the_parser_costs_no_torch():
    code = "import sys\nfrom lightning_adapt.lina_speech.commands import speak, tune_voice\n"
    code += "assert not {'torch', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
