"""The codec of the data module when none is given: fitted to the training recordings alone, kept, found again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.data import fitting
from lightning_adapt.lina_speech.data.audio import trim_silence
from lightning_adapt.lina_speech.data.code_cache import audio_key
from tests.lina_speech.data_parts import data, tone

RATE = fitting.FIT_SAMPLE_RATE_HZ


def sounds(count):
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        audio = torch.from_numpy(tone(0.5, number * 40, RATE)) * 0.5 + 0.1 * torch.from_numpy(
            random.standard_normal(RATE // 2).astype(np.float32)
        )
        made.append({"audio": audio, "sample_rate_hz": RATE, "text": "some words", "id": f"s{number:02d}"})
    return made


def fitted(source, **options):
    return data(source, codec=None, codebook_size=8, n_codebooks=2, **{"val": 0.25, **options})


@pytest.fixture
def fits(monkeypatch):
    """The recordings that each fit gets."""
    seen = []
    original = KMeansMelCodec.fit

    def watched(audios, **options):
        seen.append([audio.clone() for audio in audios])
        return original(audios, **options)

    monkeypatch.setattr(KMeansMelCodec, "fit", watched)
    return seen


def test_it_is_fitted_to_the_training_recordings_alone(fits):
    source = sounds(12)
    made = fitted(source)
    made.setup("fit")
    assert made.codec.fingerprint.startswith("KMeansMelCodec-2x8-50hz-")
    (audios,) = fits
    by_id = {row["id"]: trim_silence(row["audio"], RATE) for row in source}
    used = {name for name, audio in by_id.items() if any(torch.equal(audio, one) for one in audios)}
    assert used == set(made.train_set.ids)
    assert len(audios) == 9
    assert torch.equal(made.train_set[0]["codes"], made.codec.encode(by_id[made.train_set.ids[0]]))


def test_it_is_found_again_and_fitted_anew_after_a_change(fits):
    source = sounds(12)
    first = fitted(source)
    first.setup("fit")
    for same in (fitted(source), fitted(source[::-1]), fitted([{**row, "text": "else"} for row in source])):
        same.setup("fit")
        assert same.codec.fingerprint == first.codec.fingerprint
    assert len(fits) == 1
    (path,) = Path("cache").glob("codec-*.safetensors")
    from_file = data(source, codec=str(path), val=0.25)
    from_file.setup("fit")
    assert from_file.train_set.digest == first.train_set.digest
    changed = [{"seed": 1}, {"trim_silence_db": 10.0}, {"codebook_size": 9}, {"val": 0.5}]
    prints = {
        data(source, codec=None, **{"codebook_size": 8, "val": 0.25, **change}).codec.fingerprint for change in changed
    }
    assert len(prints) == 4
    path.write_bytes(path.read_bytes()[:-5])
    count = len(fits)
    assert fitted(source).codec.fingerprint == first.codec.fingerprint
    assert len(fits) == count + 1


def test_it_takes_no_more_audio_than_it_needs(fits, monkeypatch):
    monkeypatch.setattr(fitting, "FIT_SECONDS", 2.0)
    assert fitted(sounds(20)).codec
    assert len(fits[0]) == 4


def test_broken_recordings_are_passed_over(fits):
    source = sounds(12)
    for row in source[::2]:
        row["audio"] = torch.zeros(RATE)
    made = fitted(source, val=0.5)
    with pytest.warns(UserWarning, match="6 of 12 recordings of `data` are left out: 6 silent"):
        made.setup("fit")
    by_id = {row["id"]: trim_silence(row["audio"], RATE) for row in source}
    validated = [by_id[name] for name in made.val_set.ids]
    assert not any(torch.equal(audio, one) for audio in validated for one in fits[0])
    with pytest.raises(
        ValueError,
        match=r"None of the 6 recordings of `data` can be used to fit a codec\. The first one, .*: silent: peak",
    ):
        fitted(source[::2]).setup("fit")


def test_bars_tell_what_takes_so_long(capsys):
    fitted(sounds(8), progress=True).setup("fit")
    shown = capsys.readouterr().err
    assert all(title in shown for title in ("Reading seconds of audio for", "Fitting the codec", "Encoding `data`"))


def test_without_a_place_for_it_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="`cache_dir` must be a folder that can be written to"):
        fitted(sounds(8), cache=tmp_path / "file" / "cache").setup("fit")


def test_recordings_without_words_do_not_push_validation_into_the_fit(fits):
    source = sounds(12)
    for row in source[::2]:
        row["text"] = "..."
    made = fitted(source, val=0.5)
    with pytest.warns(UserWarning, match="6 of 12 recordings of `data` are left out: 6 no text"):
        made.setup("fit")
    by_id = {row["id"]: trim_silence(row["audio"], RATE) for row in source}
    used = {name for name, audio in by_id.items() if any(torch.equal(audio, one) for one in fits[0])}
    assert used == set(made.train_set.ids)


def test_two_runs_that_fit_at_the_same_time_have_one_codec(monkeypatch):
    original = KMeansMelCodec.fit
    first = []

    def slow(audios, **options):
        codec = original(audios, **options)
        if not first:  # another run, of other rounding, is done before this one
            first.append(KMeansMelCodec(codec.codebooks + 1e-3))
            first[0].save(Path("cache") / f"codec-{folder_key(audios, options)}.safetensors")
        return codec

    def folder_key(audios, options):
        digest = hashlib.blake2b(json.dumps([fitting.VERSION, arguments(options)]).encode(), digest_size=16)
        for audio in audios:
            digest.update(audio_key(audio, RATE).encode())
        return digest.hexdigest()

    def arguments(options):
        return {name: options[name] for name in ("n_codebooks", "codebook_size", "seed")}

    monkeypatch.setattr(KMeansMelCodec, "fit", slow)
    made = fitted(sounds(8))
    assert made.codec.fingerprint == first[0].fingerprint == fitted(sounds(8)).codec.fingerprint
