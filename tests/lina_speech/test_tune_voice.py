"""`lightning-adapt tune-voice`: a voice from recordings that `speak` takes, and errors of one line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from lightning_adapt import cli
from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.lina_speech.commands import tune_run
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.contracts.cli_parts import fails
from tests.lina_speech import tune_parts as parts
from tests.lina_speech.speech_parts import fit, module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return parts.trained(tmp_path_factory.mktemp("made") / "base.ckpt")


def model_of(checkpoint):
    return weights_fingerprint(LinaSpeechModule.load_from_checkpoint(checkpoint, weights_only=True).model)


def test_from_recordings_to_speech_in_the_voice(checkpoint, capsys):
    before = Path(checkpoint).read_bytes()
    assert parts.tune(checkpoint, parts.recorded(10), "--steps", 20, "--figure", "new/curve.png") == 0
    told = capsys.readouterr()
    voice = Voice.load("me.safetensors")
    assert (voice.name, voice.rank, voice.kind, voice.consent) == ("me", 4, "tuned", "yes")
    assert (voice.model_fingerprint, voice.codec_fingerprint) == (model_of(checkpoint), parts.codec().fingerprint)
    assert voice.held_out["tuned"] < 0.9 * voice.held_out["untuned"]
    assert Path(checkpoint).read_bytes() == before
    assert Path("new/curve.png").read_bytes()[1:4] == b"PNG"
    size = Path("me.safetensors").stat().st_size
    losses = [f"{voice.held_out[name]:.3f}" for name in ("untuned", "tuned")]
    assert f"Wrote me.safetensors ({size:,} bytes): the voice 'me', rank 4\nWrote new/curve.png\n" in told.out
    assert f"Held-out loss: {losses[0]} untuned -> {losses[1]} tuned (nats per code)" in told.out
    assert "20 of up to 20 steps in" in told.out
    assert "in 8 utterances; held out: " in told.out
    assert "in 2 utterances\n" in told.out
    assert "consent" not in told.err
    assert f"untuned {losses[0]}" in told.err
    used = told.out.split("Use it: lightning-adapt ")[1].strip()
    assert used == f'speak --checkpoint {checkpoint} --voice me.safetensors --text "Good morning." --out morning.wav'
    speak = ["speak", "--checkpoint", checkpoint, "--text", "one two", "--temperature", "0"]
    assert cli.main([*speak, "--voice", "me.safetensors", "--out", "tuned.wav"]) == 0
    assert cli.main([*speak, "--out", "base.wav"]) == 0
    tuned, base = (soundfile.read(f"{name}.wav")[0] for name in ("tuned", "base"))
    assert len(tuned) != len(base) or abs(tuned - base).max() > 0.01


def test_there_is_no_figure_without_a_fit():
    with pytest.raises(RuntimeError, match="nothing to draw"):
        InitialStateTuning("me").figure()


def test_a_figure_that_cannot_be_made_does_not_hide_the_voice(checkpoint, monkeypatch, capsys):
    def fail(self):
        raise OSError("disk full")

    monkeypatch.setattr(InitialStateTuning, "figure", fail)
    with pytest.raises(SystemExit) as stop:
        parts.tune(checkpoint, parts.recorded(2), "--steps", 1, "--figure", "a.png")
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: tune-voice: disk full (me.safetensors was written)"
    assert Voice.load("me.safetensors").name == "me"


def test_the_same_seed_gives_the_same_voice(checkpoint):
    rows = parts.recorded(4)
    for name in ("a", "b"):
        assert parts.tune(checkpoint, rows, "--steps", 4, "--name", "x", out=f"{name}.safetensors") == 0
    one, two = (Voice.load(f"{name}.safetensors") for name in "ab")
    assert one.name == two.name == "x"
    assert all(torch.equal(value, two.tensors[name]) for name, value in one.tensors.items())
    assert parts.tune(checkpoint, rows, "--steps", 4, "--seed", 1, out="c.safetensors") == 0
    other = Voice.load("c.safetensors")
    assert not all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())


def test_the_options_reach_the_tuning(checkpoint, monkeypatch):
    seen = {}

    def tuning(voice, **options):
        seen.update(options, voice=voice)
        raise ValueError("seen")

    monkeypatch.setattr(tune_run, "InitialStateTuning", tuning)
    flags = ["--rank", "full", "--steps", "7", "--learning-rate", "0.5", "--patience", "2", "--seed", "3"]
    rows = parts.recorded(3)
    with pytest.raises(SystemExit):
        parts.tune(checkpoint, rows, *flags, "--name", "anna")
    same = {"rank": "full", "max_steps": 7, "learning_rate": 0.5, "seed": 3, "consent": "yes", "voice": "anna"}
    assert seen == {**same, "patience": 2}
    for more in (("--patience", "0"), ("--val", "0")):
        with pytest.raises(SystemExit):
            parts.tune(checkpoint, rows, *flags, "--name", "anna", *more)
        assert seen == {**same, "patience": None}
    for rank, little, rate in (("4", 60.0, 0.1), ("4", 0.1, 1.0), ("full", 0.1, 0.1)):  # unless it is given
        monkeypatch.setattr(tune_run, "LITTLE_SECONDS", little)
        with pytest.raises(SystemExit):
            parts.tune(checkpoint, rows, "--rank", rank)
        assert seen["learning_rate"] == rate


def test_nothing_held_out_keeps_the_last_step(checkpoint, capsys):
    assert parts.tune(checkpoint, parts.recorded(2), "--steps", 2, "--val", 0, "--rank", 1) == 0
    out = capsys.readouterr().out
    assert "Held-out loss: not measured; the voice is that of the last step" in out
    assert "held out: none" in out
    voice = Voice.load("me.safetensors")
    assert voice.held_out is None
    assert voice.rank == 1
    assert any(float(value.abs().max()) > 0 for value in voice.matrices().values())


def test_held_out_recordings_may_be_a_manifest(checkpoint, capsys):
    rows = [*parts.recorded(3, name="anna"), *parts.recorded(2, name="bob", folder="b")]
    val = parts.manifest("val.csv", [*parts.recorded(2, name="anna", folder="v"), *rows[-1:]])
    assert parts.tune(checkpoint, rows, "--steps", 1, "--speaker", "anna", "--val", val) == 0
    out = capsys.readouterr().out
    assert "in 3 utterances; held out: " in out
    assert "in 2 utterances\n" in out


def test_without_consent_there_is_a_reminder(checkpoint, capsys):
    arguments = ["--checkpoint", checkpoint, "--manifest", parts.manifest("me.csv", parts.recorded(2))]
    assert cli.main(["tune-voice", *arguments, "--out", "me.safetensors", "--steps", "1"]) == 0
    assert "tune-voice: no --consent was given: tune the voices of people who agreed only" in capsys.readouterr().err
    assert Voice.load("me.safetensors").consent is None


def test_mistakes_are_one_line_and_write_nothing(checkpoint, capsys):
    Path("broken.ckpt").write_bytes(b"nothing")
    Path("a_file").write_text("")
    Path("folder.safetensors").mkdir()
    several = parts.manifest(
        "several.csv", [*parts.recorded(2, name="anna"), ("b.wav", "b", "bob"), ("c.wav", "c", "")]
    )
    one = parts.manifest("one.csv", parts.recorded(1))
    two = parts.manifest("two.csv", parts.recorded(2))
    gone = parts.manifest("gone.csv", [("x.wav", "x", ""), ("y.wav", "y", "")])
    fit(module()).save_checkpoint("bare.ckpt")
    before = sorted(Path.cwd().rglob("*"))
    files = {"--checkpoint": checkpoint, "--manifest": two, "--out": "a.safetensors"}
    cases = [
        ({"--checkpoint": "nowhere.ckpt"}, "--checkpoint 'nowhere.ckpt' is no file."),
        ({"--checkpoint": "broken.ckpt"}, "--checkpoint 'broken.ckpt' is no checkpoint of LinaSpeechModule"),
        ({"--checkpoint": "wavs/0.wav"}, "'wavs/0.wav' is no checkpoint of LinaSpeechModule"),
        ({"--checkpoint": "bare.ckpt"}, "holds no codec. Pass the one it was trained with as --codec."),
        ({"--manifest": "nowhere.csv"}, "--manifest 'nowhere.csv' is not there."),
        ({"--manifest": "a_file"}, "at least one row long"),
        ({"--manifest": several}, "has several speakers, and a voice is that of one: anna (2 rows), bob (1 rows), "),
        (
            {"--manifest": several, "--speaker": "eve"},
            "--speaker 'eve' is not in 'several.csv', which has anna (2 rows)",
        ),
        ({"--manifest": one}, "--val 0.2 needs at least two recordings, but there is one."),
        ({"--manifest": gone}, "None of the 2 recordings of --manifest 'gone.csv' can be used (2 file not found). The"),
        ({"--val": two}, "--val must have other recordings than --manifest, but 2 of them are in both, such as"),
        ({"--val": "nowhere.csv"}, "--val 'nowhere.csv' is not there."),
        ({"--val": several}, "--val 'several.csv' has several speakers"),
        ({"--val": "1"}, "--val: must be a share in [0, 1) such as 0.1 or 10%, or a manifest, but got '1'"),
        ({"--val": "110%"}, "or a manifest, but got '110%'"),
        ({"--val": "ten%"}, "--val 'ten%' is not there."),
        ({"--out": "a.wav"}, "--out must end in .safetensors, but got 'a.wav'."),
        ({"--out": "a_file/a.safetensors"}, "'a_file' is no folder that you may write to"),
        ({"--out": "folder.safetensors"}, "'folder.safetensors' is a folder"),
        ({"--figure": "a.txt"}, "--figure must end in .png, .svg, .pdf"),
        ({"--name": " "}, "--name must have something in it"),
        ({"--rank": "0"}, "argument --rank: must be a whole number, 1 or more, or 'full', but got '0'"),
        ({"--rank": "half"}, "argument --rank: "),
        ({"--steps": "0"}, "--steps must be a whole number, 1 or more, but got 0."),
        ({"--learning-rate": "nan"}, "--learning-rate must be a number above 0, but got nan."),
        ({"--patience": "-1"}, "--patience must be"),
        ({"--tokens-per-batch": "0"}, "--tokens-per-batch must be"),
        ({"--seed": "-1"}, "--seed must be"),
        ({"--device": "quantum"}, "--device 'quantum' cannot be used here"),
    ]
    for changes, expected in cases:
        given = [part for pair in {**files, **changes}.items() for part in pair]
        line = fails(["tune-voice", *given, "--consent", "yes"], capsys)
        assert line.startswith("error: ")
        assert expected in line, line
    assert sorted(Path.cwd().rglob("*")) == before


def test_mistakes_show_before_torch_is_imported(checkpoint):
    """Of numbers, paths, and manifests; so does the parser itself."""
    manifest = parts.manifest("two.csv", parts.recorded(2))
    files = {"--checkpoint": checkpoint, "--manifest": manifest, "--out": "a.safetensors"}
    cases = [{"--steps": "0"}, {"--out": "a.wav"}, {"--speaker": "eve"}, {"--val": "nowhere.csv"}, {"--help": ""}]
    code = "import sys\nfrom lightning_adapt import cli\n"
    for changes in cases:
        given = [part for pair in {**files, **changes}.items() for part in pair if part]
        code += f"try:\n    cli.main({['tune-voice', *given]!r})\nexcept SystemExit:\n    pass\n"
    code += "assert not {'torch', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_verbose_shows_where_an_error_came_from(checkpoint):
    with pytest.raises(FileNotFoundError):
        parts.tune("nowhere.ckpt", parts.recorded(2), "--verbose")


@pytest.mark.parametrize("there", [False, True])
def test_ctrl_c_writes_nothing(checkpoint, monkeypatch, capsys, there):
    steps = []

    def stop_at_the_third(self, *arguments):
        steps.append(arguments)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    if there:
        Path("me.safetensors").write_text("another voice")
    rows, step, handler = parts.recorded(4), LinaSpeechModule.training_step, signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(LinaSpeechModule, "training_step", stop_at_the_third)
    assert parts.tune(checkpoint, rows, "--steps", 20) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "tune-voice: stopped, nothing was written."
    assert Path("me.safetensors").exists() == there
    if there:
        assert Path("me.safetensors").read_text() == "another voice"
    assert not list(Path().glob(".unfinished*"))
    assert signal.getsignal(signal.SIGINT) is handler  # the next Ctrl-C counts, too


def test_voices_of_others_and_damaged_ones_are_refused(checkpoint, capsys):
    other = parts.trained("other.ckpt", steps=1)
    assert parts.tune(checkpoint, parts.recorded(2), "--steps", 1) == 0
    speak = ["speak", "--text", "one", "--out", "a.wav", "--voice"]
    line = fails([*speak, "me.safetensors", "--checkpoint", other], capsys)
    assert f"was made with the model {model_of(checkpoint)}, but got the model {model_of(other)}" in line
    content = bytearray(Path("me.safetensors").read_bytes())
    content[-1] ^= 1
    Path("tampered.safetensors").write_bytes(content)
    Path("cut.safetensors").write_bytes(content[:-100])
    for name, text in [
        ("tampered", "is damaged"),
        ("cut", "--voice: cut.safetensors is no voice file, or is damaged"),
        ("none", "is no file"),
    ]:
        assert text in fails([*speak, f"{name}.safetensors", "--checkpoint", checkpoint], capsys)
    assert not Path("a.wav").exists()
