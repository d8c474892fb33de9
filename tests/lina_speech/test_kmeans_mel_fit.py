"""Fitting, files and fingerprints of the k-means codec."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lightning_adapt.lina_speech.codecs.codec_file import write_codec_file
from lightning_adapt.lina_speech.codecs.kmeans_fit import drawn_frames
from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.codecs.mel import MelFrames
from tests.lina_speech.codec_parts import HOP, RATE, small_codec, sound, sounds

FIXTURE = Path(__file__).parents[1] / "fixtures" / "KMeansMelCodec-v1.safetensors"


@pytest.fixture(scope="module")
def codec():
    return small_codec()


# -- fitting -----------------------------------------------------------------------------------------------------------
def test_a_fit_can_be_repeated_and_depends_on_the_seed(codec):
    assert small_codec().fingerprint == codec.fingerprint
    assert small_codec(seed=1).fingerprint != codec.fingerprint
    audios = iter(sounds())  # taken one at a time
    again = KMeansMelCodec.fit(audios, sample_rate_hz=RATE, n_mels=20, n_codebooks=2, codebook_size=8)
    assert again.fingerprint == codec.fingerprint


def test_centers_are_means_of_what_is_left_and_every_book_helps(codec):
    codec = small_codec(iterations=200)
    left = torch.cat([codec.mel.analyse(audio[None])[0] for audio in sounds()])
    codes = torch.cat([codec.encode(audio) for audio in sounds()], 1)
    spread = [left.square().sum()]
    for book, row in zip(codec.codebooks, codes, strict=True):
        for label in range(8):
            assert torch.allclose(left[row == label].mean(0), book[label], atol=1e-3)
        left = left - book[row]
        spread.append(left.square().sum())
    assert spread[1] < 0.2 * spread[0]
    assert spread[2] < 0.7 * spread[1]


def test_fewer_distinct_frames_than_centers_leave_copies_that_nobody_uses():
    codec = KMeansMelCodec.fit([torch.zeros(40 * HOP)], sample_rate_hz=RATE, codebook_size=4, n_mels=20)
    assert codec.codebooks.shape == (1, 4, 20)
    assert bool(codec.codebooks.isfinite().all())
    assert codec.encode(torch.zeros(20 * HOP)).unique().tolist() == [0]


def test_frames_are_drawn_alike_however_recordings_are_cut_off():
    mel = MelFrames(RATE, HOP, 20)
    audios = sounds(8)
    every = drawn_frames(audios, mel, 1000, 0)
    assert every.shape == (200, 20)
    assert torch.equal(every[:25], mel.analyse(audios[0][None])[0])
    few = drawn_frames(iter(audios), mel, 60, 0)  # the pool is thinned out on the way
    assert few.shape == (60, 20)
    places = [int((every == row).all(1).nonzero()[0]) for row in few]
    assert places == sorted(places)
    assert len(set(places)) == 60
    assert max(places) > 150
    assert min(places) < 50
    assert not torch.equal(few, drawn_frames(audios, mel, 60, 1))
    assert torch.equal(few, drawn_frames(audios, mel, 60, 0))


@pytest.mark.parametrize(
    ("audios", "changes", "error", "text"),
    [
        ([], {}, ValueError, "at least one recording"),
        ([sound(0.1)], {}, ValueError, r"`codebook_size` = 8 frames of audio, but got 5.*last 0\.1 s"),
        ([sound(), torch.zeros(0)], {}, ValueError, r"audios\[1\]"),
        ([sound(), torch.zeros(2, 4000)], {}, ValueError, r"audios\[1\].*stereo"),
        ([torch.full((4000,), torch.nan)], {}, ValueError, r"audios\[0\]"),
        ([torch.zeros(4000, dtype=torch.int16)], {}, TypeError, r"audios\[0\]"),
        ([sound()], {"codebook_size": 1}, ValueError, "codebook_size"),
        ([sound()], {"n_codebooks": 0}, ValueError, "n_codebooks"),
        ([sound()], {"n_codebooks": 1.5}, TypeError, "n_codebooks"),
        ([sound()], {"frame_rate_hz": 37.0}, ValueError, r"a divisor of sample_rate_hz = 8000"),
        ([sound()], {"frame_rate_hz": 0}, ValueError, "frame_rate_hz"),
        ([sound()], {"frame_rate_hz": 4000}, ValueError, "16 samples per frame"),
        ([sound()], {"sample_rate_hz": 8000.5}, TypeError, "sample_rate_hz"),
        ([sound()], {"max_frames": 4}, ValueError, "max_frames"),
    ],
)
def test_unfit_audio_and_settings(audios, changes, error, text):
    settings = {"sample_rate_hz": RATE, "codebook_size": 8, "n_mels": 20, **changes}
    with pytest.raises(error, match=text):
        KMeansMelCodec.fit(audios, **settings)


@pytest.mark.parametrize(
    ("books", "error"),
    [
        (None, TypeError),
        (torch.zeros(1, 2, 3, dtype=torch.int64), TypeError),
        (torch.zeros(2, 3), ValueError),
        (torch.zeros(0, 4, 20), ValueError),
        (torch.full((1, 2, 20), torch.inf), ValueError),
    ],
)
def test_unfit_codebooks(books, error):
    with pytest.raises(error, match="codebooks"):
        KMeansMelCodec(books, sample_rate_hz=RATE)


# -- fingerprints ------------------------------------------------------------------------------------------------------
def test_any_number_changes_the_fingerprint(codec):
    state = codec.to_state()
    seen = {codec.fingerprint}
    for place in [(0, 0, 0), (1, 7, 19), (0, 3, 11)]:
        books = state["codebooks"].clone()
        books[place] += 1e-6 * books[place].abs()
        seen.add(KMeansMelCodec.from_state({**state, "codebooks": books}).fingerprint)
    seen.add(KMeansMelCodec.from_state({**state, "sample_rate_hz": 16_000}).fingerprint)
    seen.add(KMeansMelCodec.from_state({**state, "frame_rate_hz": 100.0}).fingerprint)
    seen.add(KMeansMelCodec.from_state({**state, "codebooks": state["codebooks"].flip(0)}).fingerprint)
    assert len(seen) == 7


def test_copies_are_the_same_codec(codec):
    audio = sound(0.3)
    codes = codec.encode(audio)
    for again in (copy.deepcopy(codec), pickle.loads(pickle.dumps(codec)), codec.to("cpu")):
        assert again.fingerprint == codec.fingerprint
        assert torch.equal(again.encode(audio), codes)
        assert torch.equal(again.decode(codes), codec.decode(codes))
    assert codec.fingerprint.startswith("KMeansMelCodec-2x8-50hz-")
    assert codec.fingerprint in repr(codec)


# -- files -------------------------------------------------------------------------------------------------------------
def test_a_file_gives_the_same_codec_back(codec, tmp_path):
    path = tmp_path / "new" / "codec.safetensors"
    codec.save(path)
    again = KMeansMelCodec.load(path)
    assert again.fingerprint == codec.fingerprint
    assert (again.sample_rate_hz, again.frame_rate_hz, again.hop_length) == (RATE, 50.0, HOP)
    codes = again.encode(sound())
    assert torch.equal(again.decode(codes), codec.decode(codes))
    with safe_open(path, "pt") as file:  # anyone can read it
        assert json.loads(file.metadata()["body"])["version"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["codec.safetensors"]


def test_broken_files_are_refused(codec, tmp_path):
    path = tmp_path / "codec.safetensors"
    codec.save(path)
    content = path.read_bytes()
    for broken in (content[:-5], b"", b"no file of this kind", bytes([*content[:-1], content[-1] ^ 1])):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"codec\.safetensors is"):
            KMeansMelCodec.load(path)
    path.write_bytes(content.replace(b"8000", b"9000"))
    with pytest.raises(ValueError, match="checksum"):
        KMeansMelCodec.load(path)
    save_file({"codebooks": torch.zeros(1, 2, 3)}, path)
    with pytest.raises(ValueError, match="no codec file"):
        KMeansMelCodec.load(path)
    with pytest.raises(FileNotFoundError):
        KMeansMelCodec.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(("changes", "text"), [({"version": 9}, "version 9"), ({"class": "Other"}, "'Other'")])
def test_files_of_something_else_are_refused(codec, tmp_path, changes, text):
    write_codec_file(tmp_path / "codec.safetensors", {**codec.to_state(), **changes})
    with pytest.raises(ValueError, match=text):
        KMeansMelCodec.load(tmp_path / "codec.safetensors")


def test_version_1_keeps_sounding_the_same():
    codec = KMeansMelCodec.load(FIXTURE)
    assert codec.fingerprint == "KMeansMelCodec-2x4-50hz-18680bbe3f752efa"
    assert codec.codebooks.shape == (2, 4, 20)
