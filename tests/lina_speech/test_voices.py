"""The synthesised corpus."""

import hashlib
import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech import SynthesisedVoices
from lightning_adapt.lina_speech.corpus import engines
from lightning_adapt.lina_speech.corpus.espeak_program import find_espeak
from lightning_adapt.lina_speech.corpus.words import DIGIT_WORDS
from tests.lina_speech.voice_parts import spectrum_of

needs_espeak = pytest.mark.skipif(find_espeak() is None, reason="espeak-ng is not installed")
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
ENGINES = ["formant", pytest.param("espeak", marks=needs_espeak), pytest.param("flite", marks=needs_flite)]


def small(engine="formant", n_voices=2, n_utterances=3, **options):
    rate = 16000 if engine == "flite" else 22050  # each engine's own: no resampling
    return SynthesisedVoices(n_voices, n_utterances, engine=engine, words=(1, 2), sample_rate_hz=rate, **options)


def sound(corpus):
    return hashlib.sha256(b"".join(row["audio"].numpy().tobytes() for row in corpus)).hexdigest()


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_arguments_give_equal_samples(engine):
    corpus, again = small(engine), small(engine)
    assert len(corpus) == 6
    assert (corpus.texts, corpus.speakers, corpus.fingerprint) == (again.texts, again.speakers, again.fingerprint)
    backwards = [again[place] for place in reversed(range(6))][::-1]  # another order of reading
    assert sound(corpus) == sound(backwards) == sound(corpus)
    for row in corpus:
        assert row["audio"].dtype == torch.float32
        assert row["audio"].ndim == 1
        assert row["audio"].abs().max() <= 1
        assert 0.2 < len(row["audio"]) / row["sample_rate_hz"] < 4
        assert row["speaker"].startswith(f"{engine}:")


def test_rows_are_voice_after_voice_with_names_of_their_own():
    corpus = small()
    assert [row["speaker"] for row in corpus] == [corpus.speakers[0]] * 3 + [corpus.speakers[1]] * 3
    assert tuple(row["text"] for row in corpus) == corpus.texts
    assert len({row["id"] for row in corpus}) == 6
    assert corpus[0]["id"] == "formant-v00-0000"
    assert [row["id"] for row in corpus[4:]] == [corpus[4]["id"], corpus[-1]["id"]]
    with pytest.raises(IndexError):
        corpus[6]


def test_texts_do_not_depend_on_the_other_voices():
    corpus = SynthesisedVoices(3, 20, engine="formant")
    unseen = SynthesisedVoices(1, 20, engine="formant", first_voice=2)
    assert unseen.speakers == corpus.speakers[2:]
    assert unseen.texts == corpus.texts[40:]
    assert not set(corpus.texts[:20]) & set(corpus.texts[20:])


def test_another_seed_gives_held_out_texts():
    corpus, other = (SynthesisedVoices(4, 100, engine="formant", digits=True, seed=seed) for seed in (0, 1))
    assert not set(corpus.texts) & set(other.texts)
    assert corpus.fingerprint != other.fingerprint


def test_digits_are_words():
    corpus = SynthesisedVoices(1, 30, engine="formant", digits=True)
    assert {word for text in corpus.texts for word in text.split()} == set(DIGIT_WORDS)
    assert {len(text.split()) for text in corpus.texts} == {3, 4, 5, 6}


def test_own_words_are_said():
    assert set(small(vocabulary=["only"]).texts) == {"only", "only only"}
    with pytest.raises(ValueError, match="`vocabulary` must be left out with digits=True"):
        small(vocabulary=["only"], digits=True)


@pytest.mark.parametrize("engine", ENGINES[:2])
def test_the_first_voices_sound_different(engine):
    corpus = SynthesisedVoices(8, 1, engine=engine, vocabulary=["hello young man"], words=(1, 1))
    spectra = [spectrum_of(row["audio"], 22050) for row in corpus]
    nearest = min(np.abs(a - b).mean() for i, a in enumerate(spectra) for b in spectra[:i])
    assert nearest > 0.08


def test_names_of_voices_may_mix_engines_and_settings():
    corpus = SynthesisedVoices(None, 1, engine="formant", voices=["v03,pitch=200", "formant:v04"], first_voice=0)
    assert corpus.speakers == ("formant:v03,pitch=200", "formant:v04")
    assert SynthesisedVoices(1, 1, voices=["formant:v03", "formant:v04"], first_voice=1).speakers == ("formant:v04",)


@needs_espeak
@needs_flite
def test_voices_of_programs_may_be_mixed():
    pytest.importorskip("torchaudio", reason="flite's rate differs")
    corpus = SynthesisedVoices(n_utterances=1, words=(1, 1), voices=["flite:slt", "en-gb+f3", "formant:v00"])
    assert corpus.speakers == ("flite:slt", "espeak:en-gb+f3", "formant:v00")
    assert all(row["sample_rate_hz"] == 22050 and len(row["audio"]) > 4000 for row in corpus)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"engine": "espek"}, ValueError, "`engine` must be one of 'auto', 'espeak'"),
        ({"n_voices": 101}, ValueError, "`n_voices` must be at most 100, but got 101. Voices of formant: 100"),
        ({"first_voice": 99}, ValueError, "`n_voices` must be at most 1, but got 2"),
        ({"first_voice": 100}, ValueError, "at most 0"),
        ({"n_voices": 0}, ValueError, "`n_voices` must be a whole number >= 1"),
        ({"n_utterances": 0}, ValueError, "`n_utterances`"),
        ({"seed": 0.5}, TypeError, "`seed`"),
        ({"voices": "v01"}, TypeError, "`voices` must be a list of names"),
        ({"voices": ["v01", "formant:v01"]}, ValueError, "different names"),
        ({"voices": ["v01"], "n_voices": 2}, ValueError, "`n_voices` must be at most 1"),
        ({"voices": ["v01", "v1"]}, ValueError, "Near ones are 'v"),
        ({"voices": ["festival:kal", "v01"]}, ValueError, "`engine` must be one of"),
        ({"voices": []}, ValueError, "at most 0"),
    ],
)
def test_wrong_arguments_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        small(**options)
    with pytest.raises(ValueError, match="`sample_rate_hz` must be a whole number from 8000"):
        SynthesisedVoices(1, 1, engine="formant", sample_rate_hz=100)


def test_auto_takes_formant_where_there_is_no_espeak(monkeypatch):
    monkeypatch.setattr(engines, "find_espeak", lambda: None)
    assert SynthesisedVoices(1, 1).speakers == ("formant:v00",)


@needs_espeak
def test_auto_takes_espeak_where_there_is_one():
    assert SynthesisedVoices(1, 1).speakers[0].startswith("espeak:")


def test_workers_get_the_corpus_without_its_sound():
    corpus = small()
    before = len(pickle.dumps(corpus))
    digest = sound(corpus)
    content = pickle.dumps(corpus)
    assert len(content) == before < 20_000
    assert sound(pickle.loads(content)) == digest


def test_sound_is_made_once(monkeypatch, tmp_path):
    for cache_dir in (None, tmp_path):
        corpus = small(cache_dir=cache_dir)
        digest = sound(corpus)
        engine = corpus._engines["formant"]
        with monkeypatch.context() as patch:
            patch.setattr(type(engine), "speak", lambda *arguments: pytest.fail("made again"))
            assert sound(corpus) == digest
            if cache_dir:
                assert sound(small(cache_dir=cache_dir)) == digest
                assert len(list(tmp_path.glob("*.wav"))) == 6


def test_a_broken_file_in_the_cache_is_made_again(tmp_path):
    digest = sound(small(cache_dir=tmp_path))
    for file in tmp_path.iterdir():
        file.write_bytes(b"broken")
    assert sound(small(cache_dir=tmp_path)) == digest
    assert sound(small()) == digest


def test_written_files_hold_the_same_sound(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    corpus = small()
    manifest = corpus.write(tmp_path / "corpus")
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == list(corpus.texts)
    for row, made in zip(rows, corpus, strict=True):
        assert (row["speaker"], row["id"]) == (made["speaker"], made["id"])
        read, rate = soundfile.read(manifest.parent / row["audio"], dtype="float32")
        assert rate == made["sample_rate_hz"]
        np.testing.assert_array_equal(read, made["audio"].numpy())


def test_the_manifest_is_read_by_the_data_module_s_reader(tmp_path):
    from lightning_adapt.lina_speech.data.manifest import read_manifest

    corpus = small()
    rows = read_manifest(corpus.write(tmp_path))
    assert [(row["text"], row["speaker"], row["id"]) for row in rows] == [
        (row["text"], row["speaker"], row["id"]) for row in corpus
    ]


def test_it_says_what_it_is():
    assert repr(small()) == "SynthesisedVoices(2 voices, 6 utterances)"
