"""The benchmark of voices: its claims can fail, its judges judge, and states that are not trained are noticed."""

import json

import pytest
import torch

pytest.importorskip("resemblyzer")
pytest.importorskip("pocketsphinx")
pytest.importorskip("peft")

PERSON = "formant:v07"


@pytest.fixture
def script(script_of):
    return script_of("lina_voices")


@pytest.fixture
def rows(script, script_of):
    return script_of("_lina_voices_rows")


@pytest.fixture
def small(script, script_of, rows, monkeypatch):
    """Two voices of the built-in engine, one unseen, and a few steps."""
    training, data = script_of("_lina_training"), script_of("_lina_voices_data")
    fit = training.Fit(steps=40, learning_rate=8e-3, warmup=4, tokens=300, join=0.3)
    sizes = {"train": 6, "stop": 2, "held": 4, "steps": 12, "every": 3, "batch": 3, "tokens": 200, "spoken": 1}
    base = {"voices": 2, "utterances": 8, "codes": 12, "base": fit, "unseen": (PERSON,), "repeats": 1}
    setting = data.Setting(**base, **sizes, rates=script.RATES)
    monkeypatch.setattr(training, "ENGINE", "formant")
    monkeypatch.setattr(rows, "COLUMNS", 10)
    monkeypatch.setattr(rows, "most_seconds", lambda text: 0.6)
    monkeypatch.setattr(script, "QUICK", setting)
    monkeypatch.setattr(script, "QUICK_METHODS", rows.METHODS)
    return setting


# -- claims ------------------------------------------------------------------------------------------------------------
GOOD = {
    "untuned": {"loss": 4.0, "ratio": 1.0, "SECS": 0.6, "others": 1.0},
    "prompt continued": {"loss": 3.9, "ratio": 0.98},
    "three prompts continued": {"loss": 3.95, "ratio": 0.99, "SECS": 0.61},
    "prompt kept as a voice": {"loss": 4.1, "ratio": 1.02, "SECS": 0.6, "others": 1.0},
    "states, rank 1": {"loss": 3.4, "ratio": 0.85, "SECS": 0.66, "others": 1.0, "unchanged": 1.0},
    "states, rank 4": {"loss": 3.2, "ratio": 0.8, "SECS": 0.7, "others": 1.0, "unchanged": 1.0},
    "states, full rank": {"loss": 3.1, "ratio": 0.78, "SECS": 0.7, "others": 1.0, "unchanged": 1.0},
    "LoRA": {"loss": 3.2, "ratio": 0.8, "SECS": 0.7, "others": 1.2},
    "full fine-tuning": {"loss": 3.0, "ratio": 0.75, "SECS": 0.7, "others": 1.4},
    "three utterances, states of rank 4": {"loss": 3.9, "ratio": 0.98},
}
PEOPLE = ("flite:slt", "LJ Speech")


def study(script, changed):
    options = script.h.Options(False, True, None, (0,), "cpu", 1)
    made = script.h.Study("lina_voices", "ratio", {}, options)
    for person in PEOPLE:
        for method, run in GOOD.items():
            row = f"{person}: {method}"
            made.add(row, 0, {**run, **changed.get(row, {})})
    for row, run in (("60 steps", {"ratio": 0.9, "seconds": 20.0}), ("cost of a token", {"ratio": 1.01})):
        made.add(row, 0, {**run, **changed.get(row, {})})
    return made


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, []),
        ({"flite:slt: states, rank 4": {"ratio": 0.98}}, ["flite:slt, states, rank 4: CE over untuned <= 0.97"]),
        ({f"{person}: states, rank 4": {"ratio": 0.91} for person in PEOPLE}, ["mean of all people", "<= 0.9"]),
        ({"LJ Speech: states, rank 4": {"ratio": 0.92}}, ["LJ Speech, states, rank 4: CE over untuned <= 0.9"]),
        ({"flite:slt: prompt continued": {"loss": 3.19}}, ["flite:slt, states, rank 4: CE minus that after a prompt"]),
        ({f"{person}: states, rank 4": {"SECS": 0.62} for person in PEOPLE}, ["SECS minus untuned, mean"]),
        ({"LJ Speech: states, rank 4": {"SECS": 0.59}}, ["LJ Speech, states, rank 4: SECS"]),
        ({"flite:slt: states, rank 1": {"unchanged": 0.0}}, ["left the weights as they were"]),
        ({"flite:slt: states, rank 1": {"others": 1.001}}, ["change of the CE of other voices"]),
        ({f"{person}: full fine-tuning": {"others": 0.9} for person in PEOPLE}, ["full fine-tuning"]),
        ({"flite:slt: three utterances, states of rank 4": {"ratio": 1.03}}, ["three utterances"]),
        ({"60 steps": {"seconds": 31.0}}, ["60 steps"]),
        ({"cost of a token": {"ratio": 1.06}}, ["time of a token"]),
    ],
)
def test_the_claims_hold_up_to_their_bounds(script, changed, failing):
    claims = script.check(study(script, changed), PEOPLE, script.THRESHOLDS["full"])
    failed = [claim.text for claim in claims if not claim.holds]
    assert len(failed) == len(failing)
    assert all(word in text for word, text in zip(failing, failed, strict=True))


def test_missing_rows_are_no_claims_that_hold(script):
    options = script.h.Options(False, True, None, (0,), "cpu", 1)
    empty = script.h.Study("lina_voices", "ratio", {}, options)
    claims = script.check(empty, PEOPLE, script.THRESHOLDS["full"])
    assert len(claims) == 14
    assert not any(claim.holds for claim in claims)


# -- the whole ---------------------------------------------------------------------------------------------------------
def run(script, tmp_path):
    out = tmp_path / "voices.json"
    code = script.main(["--quick", "--check", "--out", str(out)])
    found = {row["method"]: row["runs"][0] for row in json.loads(out.read_text())["rows"]}
    return code, {row.removeprefix(f"{PERSON}: "): run for row, run in found.items()}


def test_every_method_is_measured_and_states_leave_the_weights_alone(
    script, rows, small, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(rows, "ONLY_RECORDED", ())
    _, found = run(script, tmp_path)
    assert set(found) == {*rows.METHODS, rows.TOKEN}
    for method in (rows.RANK_1, rows.RANK_4, rows.FULL_RANK):
        assert found[method]["unchanged"] == 1.0
        assert found[method]["others"] == 1.0
    assert min(found[method]["ratio"] for method in (rows.RANK_1, rows.RANK_4, rows.FULL_RANK)) < 0.99
    assert found[rows.FINE_TUNED]["others"] != 1.0
    assert found[rows.FINE_TUNED]["parameters"] > 10 * found[rows.LORA]["parameters"] > found[rows.RANK_1]["parameters"]
    assert -1.0 <= found[rows.UNTUNED]["SECS of recordings"] <= 1.0
    assert (tmp_path / "voices.png").is_file()
    assert "FAILS  (quick) states: " not in capsys.readouterr().out


def test_quick_fails_when_the_states_are_not_trained(script, script_of, rows, small, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(script_of("_lina_voices_rivals").TUNING, "learning_rate", 1e-12)
    monkeypatch.setattr(script, "QUICK_METHODS", (rows.UNTUNED, rows.RANK_4))
    code, found = run(script, tmp_path)
    assert code == 1
    assert found[rows.RANK_4]["ratio"] == pytest.approx(1.0, abs=1e-3)
    printed = capsys.readouterr().out
    assert f"FAILS  (quick) {PERSON}, states, rank 4: CE over untuned <= 0.99" in printed


# -- parts -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [("ott", "ot", 1), ("ott", "tto", 2), ("", "o", 1), ("nn", "nn", 0), ("abc", "xyz", 3), ("kitten", "sitting", 3)],
)
def test_edits_are_counted(script_of, first, second, wanted):
    assert script_of("_lina_voices_judges").edits(list(first), list(second)) == wanted


def test_digits_are_heard_in_speech_and_not_in_noise(script_of):
    judges = script_of("_lina_voices_judges")
    corpus = script_of("_lina_training").SynthesisedVoices(1, 3, engine="formant", digits=True, sample_rate_hz=22050)
    texts, audios = [row["text"] for row in corpus], [row["audio"] for row in corpus]
    noise = [0.1 * torch.randn(22050, generator=torch.Generator().manual_seed(0)) for _ in texts]
    assert judges.digit_accuracy(texts, audios, 22050) > judges.digit_accuracy(texts, noise, 22050)


def test_a_voice_is_nearer_to_itself_than_to_another(script_of):
    judges = script_of("_lina_voices_judges")
    corpus = script_of("_lina_training").SynthesisedVoices(2, 2, engine="formant", words=(5, 6))
    first, again, other, _ = (judges.voice_of(row["audio"], row["sample_rate_hz"]) for row in corpus)
    assert float(first.norm()) == pytest.approx(1.0, abs=1e-4)
    assert float(first @ again) > float(first @ other)


def test_the_first_minutes_of_rows(script_of):
    first = script_of("_lina_voices_data").first_minutes
    rows = [{"id": number} for number in range(5)]
    assert len(first(rows, [20.0] * 5, 1.0)) == 3
    assert len(first(rows, [20.0] * 5, 0.1)) == 1
    assert len(first(rows, [20.0] * 5, 9.0)) == 5
