"""The benchmark of the codec says no when it should, holds recordings out, and needs no data for its quick run."""

import json

import pytest
import torch

QUICK = ["--quick", "--check"]


@pytest.fixture
def bench(script_of):
    return script_of("lina_codec")


@pytest.fixture
def small(bench, monkeypatch):
    """A quick run on a few recordings, with mel statistics in place of Resemblyzer, which takes seconds to load."""
    audios = bench.SynthesisedVoices(2, 5, engine="formant", words=(2, 3), sample_rate_hz=bench.RATE)
    found = [row["audio"] for row in audios]
    monkeypatch.setattr(bench, "recordings", lambda folder: (found[:5], found[5]))
    monkeypatch.setattr(bench, "QUICK", bench.Setting({bench.FOUR: (2, 16), bench.ONE: (1, 16)}, every=2, most=2))
    frames = bench.KMeansMelCodec(torch.zeros(1, 2, 40), sample_rate_hz=bench.RATE).mel

    def voice(audio):
        log_mel = frames.analyse(audio[None])[0]
        return torch.nn.functional.normalize(log_mel.mean(0) - log_mel.mean(), dim=0)

    monkeypatch.setattr(bench, "voice_of", voice)
    bounds = dict.fromkeys(bench.THRESHOLDS["quick"], 1e3) | {bench.FOUR: 0.95, "blocks": -0.1}
    monkeypatch.setattr(bench, "THRESHOLDS", {"quick": bounds})
    return found


def test_check_passes_with_our_codec_and_fails_with_one_that_mumbles(bench, small, monkeypatch, capsys):
    assert bench.main(QUICK) == 0
    decode = bench.KMeansMelCodec.decode

    def mumbling(codec, codes):
        return decode(codec, torch.zeros_like(codes))

    monkeypatch.setattr(bench.KMeansMelCodec, "decode", mumbling)
    assert bench.main(QUICK) == 1
    assert "FAILS  (quick) 4x256: SECS to the original >= 0.95" in capsys.readouterr().out


GOOD = {"SECS": 0.85, "fit": 5.0, "encode": 0.01, "decode": 0.1, "first audio": 20.0}


@pytest.mark.parametrize(
    ("row", "changed", "code"),
    [
        ("4x256", {}, 0),
        ("4x256", {"SECS": 0.79}, 1),
        ("4x256", {"fit": 61.0}, 1),
        ("1x512", {"encode": 0.06}, 1),
        ("4x256", {"decode": 0.5}, 1),
        ("1x512", {"first audio": 151.0}, 1),
        ("4x256, Griffin-Lim over the whole", {"SECS": 0.89}, 1),
        ("another voice", {"SECS": 0.81}, 1),
        ("another voice", None, 1),  # not measured is not passed
        ("1x512", None, 1),
    ],
)
def test_the_claims_of_the_full_run(bench, row, changed, code):
    options = bench.h.Options(False, True, None, (0,), "cpu", 1)
    study = bench.h.Study("recorded", "SECS", {}, options)
    runs = {name: dict(GOOD) for name in bench.ROWS} | {bench.OTHER: {"SECS": 0.5}}
    if changed is None:
        del runs[row]
    else:
        runs[row] |= changed
    for name, run in runs.items():
        study.add(name, 0, run)
    assert bench.h.verdict(bench.check(study, options), options) == code


def test_held_out_recordings_are_not_fitted_on(bench, small):
    found = bench.Bench(bench.QUICK, None, "cpu")
    assert [id(audio) for audio in found.held_out] == [id(small[place]) for place in (0, 2)]
    assert [id(audio) for audio in found.fitted_on] == [id(small[place]) for place in (1, 3)]
    one, seconds = found.codec(bench.ONE, 0)
    assert (one.n_codebooks, one.codebook_size) == (1, 16)
    assert seconds > 0
    assert found.codec(bench.ONE, 0)[0] is one
    assert found.codec(bench.ONE, 1)[0].fingerprint != one.fingerprint


def test_uncoded_frames_go_through_the_same_synthesis(bench, small):
    codec = bench.Bench(bench.QUICK, None, "cpu").codec(bench.ONE, 0)[0]
    codes = codec.encode(small[0])
    assert torch.equal(bench.in_blocks(codec, codec.log_mel(codes)), codec.decode(codes))


def test_without_recordings_the_full_run_says_where_it_looked(bench, tmp_path, capsys):
    assert bench.main(["--check", "--data", str(tmp_path)]) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "Not run: There are no recordings in" in shown
    assert "LIGHTNING_ADAPT_TEST_DATA" in shown


def test_a_result_file_and_a_figure_are_written_and_continued(bench, small, tmp_path, capsys):
    out = tmp_path / "lina_codec.json"
    assert bench.main([*QUICK, "--out", str(out)]) == 0
    assert bench.main([*QUICK, "--seeds", "2", "--out", str(out)]) == 0
    saved = json.loads(out.read_text())
    assert {row["method"]: row["n"] for row in saved["rows"]} == dict.fromkeys(bench.ROWS, 2)
    assert saved["settings"]["samples"] == [len(small[place]) for place in (0, 2, 1, 3)]
    assert out.with_suffix(".png").stat().st_size > 0
    small[0] = small[0][:-1]
    assert bench.main([*QUICK, "--out", str(out)]) == 2
