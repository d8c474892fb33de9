"""Files of voices: bit for bit what was saved, small, readable by others, and refused when anything was changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lightning_adapt._shared.tensor_file import write_tensor_file
from lightning_adapt.lina_speech.codecs.codec import as_codec
from lightning_adapt.lina_speech.voices.voice import FORMAT, Voice
from tests.lina_speech.made_voice_parts import CODEC, MODEL, random_tensors, same_tensors, some_voice
from tests.lina_speech.test_module_checkpoints import codec
from tests.lina_speech.test_voice import ABOUT

BODY = {"version": 1, "rank": 2, "name": "anna", "model_fingerprint": MODEL}


def prompt_voice():
    tensors = {**some_voice("full").tensors, "conv.0": torch.ones(3, 5)}
    return Voice("said", tensors, MODEL, kind="prompt")


@pytest.mark.parametrize(
    "voice", [some_voice(1, **ABOUT), some_voice("full"), prompt_voice()], ids=["tuned", "full", "prompt"]
)
def test_what_is_loaded_is_what_was_saved(voice, tmp_path):
    voice.save(tmp_path / "voices" / "voice.safetensors")
    loaded = Voice.load(str(tmp_path / "voices" / "voice.safetensors"))
    assert same_tensors(loaded, voice)
    assert repr(loaded) == repr(voice)


def test_a_voice_of_rank_1_is_small(tmp_path):
    """d_model 1024, 12 layers, 4 heads, K = 256, V = 512: the bound is 0.15 MiB."""
    shapes = {f"gla.{layer}": (4, 256, 512) for layer in range(12)}
    about = {"codec_fingerprint": CODEC, "sample_rate_hz": 24_000, **ABOUT}
    Voice("anna", random_tensors(shapes, 1), MODEL, **about).save(tmp_path / "voice.safetensors")
    size = (tmp_path / "voice.safetensors").stat().st_size
    assert 12 * 4 * (256 + 512) * 4 < size <= 0.15 * 2**20


def test_others_read_it_with_safetensors_alone(tmp_path):
    voice = some_voice(2, **ABOUT)
    path = tmp_path / "voice.safetensors"
    voice.save(path)
    assert all(torch.equal(tensor, voice.tensors[name]) for name, tensor in load_file(path).items())
    script = (
        "import json, sys, safetensors.numpy as st; from safetensors import safe_open;"
        "f = safe_open(sys.argv[1], 'np'); body = json.loads(f.metadata()['body']);"
        "print(body['name'], body['rank'], body['model_fingerprint'], st.load_file(sys.argv[1])['gla.0.u'].shape);"
        "assert 'lightning_adapt' not in sys.modules and 'torch' not in sys.modules"
    )
    made = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, cwd=tmp_path)
    assert made.stdout.strip() == f"voice 0 2 {MODEL} (2, 2, 8)", made.stderr


def test_the_files_of_release_1_say_what_they_said():
    folder = Path(__file__).parents[1] / "fixtures"
    tuned, prompt = (Voice.load(folder / f"{name}-v1.safetensors") for name in ("Voice", "Voice-prompt"))
    assert (tuned.name, tuned.rank, tuned.training_seconds, tuned.kind) == ("voice 0", 2, 61.5, "tuned")
    assert (tuned.model_fingerprint, tuned.codec_fingerprint, tuned.sample_rate_hz) == (MODEL, CODEC, 22_050)
    assert tuned.held_out == {"untuned": 3.25, "tuned": 2.5}
    assert tuned.consent == "Anna agreed on 1 May to be spoken for in tests."
    assert (prompt.kind, prompt.rank, prompt.consent) == ("prompt", "full", None)
    assert sorted(prompt.tensors) == ["conv.0", "gla.0", "gla.1"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "voice.safetensors"
    some_voice().save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            some_voice(seed=1).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# -- what is refused ---------------------------------------------------------------------------------------------------
@pytest.fixture
def path(tmp_path):
    file = tmp_path / "voice.safetensors"
    some_voice(2, **ABOUT).save(file)
    return file


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nobody"):
        Voice.load(tmp_path / "nobody.safetensors")
    with pytest.raises(OSError, match="directory"):
        Voice.load(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_files_are_refused(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"voice\.safetensors is no voice file( \(or is cut off\)|, or is damaged)"):
        Voice.load(path)


def test_a_byte_of_the_tensors_is_noticed(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its content does not have the checksum"):
        Voice.load(path)


@pytest.mark.parametrize(("old", "new"), [(b"agreed", b"denied"), (MODEL.encode(), b"f" * 32), (b"61.5", b"99.5")])
def test_changed_metadata_is_noticed(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match="is damaged: its content does not have the checksum"):
        Voice.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"gla.0": torch.ones(1, 1, 1)}, path)
    with pytest.raises(ValueError, match=r"is no voice file of lightning_adapt\. Pass a file that save"):
        Voice.load(path)
    codec().save(path)
    with pytest.raises(ValueError, match="is no voice file of lightning_adapt"):
        Voice.load(path)
    some_voice().save(path)
    with pytest.raises((ValueError, TypeError, OSError)):
        as_codec(path)
    for content in (
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"audio,text\na.wav,one\n",
        b"PK\x03\x04" + bytes(50),
        b"\x09" + bytes(30),
    ):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"is no voice file \(or is cut off\)\. Pass a file that save\(\) of a voice"
        ):
            Voice.load(path)


UNKNOWN = {
    "newer version": ({"version": 2}, "version 2, but this release reads up to 1"),
    "no version": ({"version": None}, "no valid `version`"),
    "unknown kind": ({"kind": "cloned"}, "holds no voice that this release knows.*`kind`"),
    "unknown rank": ({"rank": 3}, "says it is a voice of rank 3, but its tensors have rank 2"),
    "rank of another type": ({"rank": "2"}, "rank '2'"),
    "unknown word": ({"mood": "gay"}, "holds no voice that this release knows.*mood"),
    "name of another type": ({"name": 3}, "`name`"),
    "NaN": ({"training_seconds": float("nan")}, "`training_seconds`"),
}


def written(path, tensors=None, **changes):
    write_tensor_file(path, FORMAT, some_voice().tensors if tensors is None else tensors, {**BODY, **changes})
    return path


def test_the_files_of_the_tests_below_are_read_when_nothing_is_wrong(tmp_path):
    assert Voice.load(written(tmp_path / "x.safetensors")).name == "anna"


@pytest.mark.parametrize(("changes", "text"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_this_release_does_not_know_is_refused(changes, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        Voice.load(written(tmp_path / "x.safetensors", **changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"gla.0.w": torch.ones(3, 2, 16)}, "same rank and the same heads"),
        ({"gla.0.w": torch.ones(2, 3, 16)}, "same rank and the same heads"),
        ({"gla.0.w": torch.full((2, 2, 16), torch.nan)}, "finite"),
        ({"gla.0.w": torch.ones(2, 2, 16, dtype=torch.int32)}, "a tensor of floats"),
        ({"gla.0": torch.ones(2, 8, 16)}, "absent where"),
        ({"gla.7.u": torch.ones(2, 2, 8)}, "beside its other factor"),
        ({"conv.0": torch.ones(3, 5)}, "absent in a tuned voice"),
    ],
)
def test_tensors_that_make_no_voice_are_refused(changes, text, tmp_path):
    with pytest.raises(ValueError, match=f"holds no voice that this release knows.*{text}"):
        Voice.load(written(tmp_path / "x.safetensors", {**some_voice().tensors, **changes}))


@pytest.mark.parametrize("body", [[], "voice", None, {}])
def test_bodies_of_another_form_are_refused(body, tmp_path):
    written(tmp_path / "x.safetensors")
    write_tensor_file(tmp_path / "x.safetensors", FORMAT, some_voice().tensors, body)
    with pytest.raises(ValueError, match=r"version|its body is no object"):
        Voice.load(tmp_path / "x.safetensors")


def test_no_damage_gives_another_error_or_another_voice(path):
    """Bytes changed, cut out, put in, and files cut: mostly in the header, where the parsers are."""
    content, draw = path.read_bytes(), torch.Generator().manual_seed(0)
    voice, header = Voice.load(path), int.from_bytes(content[:8], "little") + 8

    def number(end):
        return int(torch.randint(end, (1,), generator=draw))

    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["body"])["rank"] == 2
    errors = 0
    for trial in range(600):
        place, damaged = number(header if trial % 4 else len(content)), bytearray(content)
        how = trial % 5
        if how == 0:
            damaged[place] ^= 1 << number(8)
        elif how == 1:
            damaged[place : place + 1 + number(4)] = bytes(number(256) for _ in range(1 + number(4)))
        elif how == 2:
            del damaged[place : place + 1 + number(20)]
        elif how == 3:
            damaged[place:place] = bytes(number(256) for _ in range(1 + number(20)))
        else:
            del damaged[place:]
        path.write_bytes(damaged)
        try:
            loaded = Voice.load(path)
        except (ValueError, OSError):
            errors += 1
        else:  # a byte for the same byte, or white space
            assert repr(loaded) == repr(voice)
            assert same_tensors(loaded, voice)
    assert errors > 500
