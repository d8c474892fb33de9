"""Voices: what they say of themselves, the states they stand for, whom they are refused to, and their mixtures."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_adapt.lina_speech.inference.voice_states import batch_of_voices
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.lina_speech.made_voice_parts import CODEC, MODEL, same_tensors, shapes_of, some_voice, voice_for
from tests.lina_speech.model_parts import KINDS, biggest_gap, small_model
from tests.lina_speech.speech_parts import Steps

TENSORS = {"gla.0": torch.ones(1, 1, 1)}
ABOUT = {
    "training_seconds": 61.5,
    "held_out": {"untuned": 3.25, "tuned": 2.5},
    "consent": "Anna agreed on 1 May to be spoken for in tests; \u00fcberall.",
}


# -- what it is --------------------------------------------------------------------------------------------------------
def test_a_voice_tells_its_rank_and_size():
    assert [some_voice(rank).rank for rank in (1, 7, "full")] == [1, 7, "full"]
    assert some_voice(3).nbytes == 2 * 3 * 2 * (8 + 16) * 4
    assert some_voice("full").nbytes == 2 * 2 * 8 * 16 * 4
    assert "tensor" not in repr(some_voice())
    assert "voice 5" in repr(some_voice(seed=5))


WRONG = [
    ({"name": ""}, ValueError, "`name`"),
    ({"name": None}, TypeError, "`name`"),
    ({"model_fingerprint": " "}, ValueError, "`model_fingerprint`"),
    ({"codec_fingerprint": 3}, TypeError, "`codec_fingerprint`"),
    ({"kind": "cloned"}, ValueError, "`kind` must be one of 'tuned', 'prompt', 'mixed'"),
    ({"sample_rate_hz": 0}, ValueError, "`sample_rate_hz`"),
    ({"sample_rate_hz": 22050.0}, TypeError, "`sample_rate_hz`"),
    ({"training_seconds": -1.0}, ValueError, "`training_seconds`"),
    ({"training_seconds": float("nan")}, ValueError, "`training_seconds`"),
    ({"training_seconds": "60"}, TypeError, "`training_seconds`"),
    ({"held_out": (3.0, 2.0)}, ValueError, "`held_out`"),
    ({"held_out": {"untuned": 3.0}}, ValueError, "`held_out`"),
    ({"held_out": {"untuned": 3.0, "tuned": float("inf")}}, ValueError, "`held_out"),
    ({"consent": ""}, ValueError, "`consent`"),
    ({"consent": True}, TypeError, "`consent`"),
    ({"tensors": {}}, ValueError, "`tensors`"),
]


@pytest.mark.parametrize(("changed", "error", "text"), WRONG)
def test_wrong_arguments_are_named(changed, error, text):
    with pytest.raises(error, match=text):
        Voice(**{"name": "anna", "tensors": TENSORS, "model_fingerprint": MODEL, **changed})


@pytest.mark.parametrize("rank", [2, "full"])
def test_copies_hold_the_same(rank):
    voice = some_voice(rank, **ABOUT)
    for copied in (copy.deepcopy(voice), copy.copy(voice), pickle.loads(pickle.dumps(voice))):
        assert same_tensors(copied, voice)
        assert repr(copied) == repr(voice)
        assert copied.held_out == ABOUT["held_out"]


# -- states ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_the_state_holds_the_matrices_and_zeros(kind):
    model = small_model(**KINDS[kind])
    voice = voice_for(model)
    state = voice.state(model)
    assert state.batch_size == 1
    assert state.layout() == model.initial_state(1).layout()
    for name, tensor in state.tensors().items():
        wanted = voice.matrices()[name][None] if name.startswith("gla.") else torch.zeros_like(tensor)
        assert torch.equal(tensor, wanted)


def test_what_a_voice_leaves_out_starts_from_zeros():
    model = small_model(short_conv=True)
    whole = voice_for(model, rank="full", kind="prompt")
    parts = {"gla.1": whole.tensors["gla.1"], "conv.0": torch.ones(3, 128)}
    state = Voice("part", parts, whole.model_fingerprint, kind="prompt").state(model)
    assert torch.equal(state.gla[1][0], whole.tensors["gla.1"])
    assert state.conv[0].eq(1).all()
    assert not any(state.gla[layer].any() for layer in (0, 2))
    assert not any(tensor.any() for tensor in (state.position, *state.conv[1:]))


def test_states_have_the_float_type_of_the_model():
    model = small_model().double()
    assert voice_for(model).state(model).gla[0].dtype == torch.float64
    model = small_model().bfloat16()
    assert voice_for(model).state(model).gla[0].dtype == torch.float32


def test_another_model_is_refused_and_both_are_named():
    model, other = small_model(0), small_model(1)
    voice = voice_for(model, seed=4)
    theirs = voice_for(other).model_fingerprint
    with pytest.raises(
        ValueError, match=rf"'voice 4' was made with the model {voice.model_fingerprint}, but got the mo"
    ):
        voice.state(other)
    with pytest.raises(ValueError, match=rf"got the model {theirs}.*Load the model it was made with"):
        voice.state(other)
    state = voice.state(model)
    with pytest.raises(ValueError, match=r"another precision count as another model: call `voice\.state\(model\)`"):
        voice.state(copy.deepcopy(model).bfloat16())
    batch_of_voices(copy.deepcopy(model).bfloat16(), [state])
    nn.init.zeros_(model.head[0, 0])  # it has been trained since
    with pytest.raises(ValueError, match="was made with the model"):
        voice.state(model)


def test_another_codec_is_refused_where_both_are_known():
    model = small_model()
    voice = voice_for(model, Steps())
    voice.state(model, Steps())
    voice.state(model)
    voice_for(model).state(model, Steps(name="b"))
    with pytest.raises(ValueError, match="made with the codec Steps-1x12-a, but got the codec Steps-1x12-b"):
        voice.state(model, Steps(name="b"))


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"gla.0": torch.ones(2, 16, 8)}, r"voice 'x': gla\.0` must be of shape \(1, 2, 16, 32\)"),
        (
            {"gla.9": torch.ones(2, 16, 32)},
            r"gla\.9` must be a recurrence of the model.*gla\.0, gla\.1, gla\.2, position",
        ),
        ({"conv.0": torch.ones(3, 5)}, r"conv\.0"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(tensors, text):
    model = small_model()
    with pytest.raises(ValueError, match=text):
        Voice("x", tensors, voice_for(model).model_fingerprint, kind="prompt").state(model)


# -- mixtures ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rank", [2, "full"])
def test_weights_of_one_and_zero_give_the_voice_itself(rank):
    one, two = some_voice(rank, 0, **ABOUT), some_voice(rank, 1)
    for mixed, wanted in [
        (Voice.mix([one, two], [1, 0]), one),
        (Voice.mix([one, two], [0.0, 1.0]), two),
        (Voice.interpolate(one, two, 0.0), one),
        (Voice.interpolate(one, two, 1), two),
    ]:
        assert same_tensors(mixed, wanted)
        assert repr(mixed) == repr(wanted)
    assert Voice.mix([one], [1.0], name="x").name == "x"


@pytest.mark.parametrize("ranks", [(2, 1), (2, "full"), ("full", "full")])
def test_matrices_are_the_weighted_sum(ranks):
    model = small_model()
    voices = [voice_for(model, rank=rank, seed=seed) for seed, rank in enumerate(ranks)]
    mixed = Voice.mix(voices, [0.6, -1.1])
    one, two = (voice.state(model) for voice in voices)
    pairs = zip(one.gla, two.gla, strict=True)
    wanted = type(one)(tuple(0.6 * first - 1.1 * second for first, second in pairs), one.position, one.conv)
    assert biggest_gap(mixed.state(model), wanted) < 1e-5
    assert mixed.rank == ("full" if "full" in ranks else 3)
    assert (mixed.kind, mixed.name) == ("mixed", "0.6 voice 0 + -1.1 voice 1")
    half = Voice.interpolate(*voices, 0.25)
    assert biggest_gap(half.state(model), Voice.mix(voices, [0.75, 0.25]).state(model)) == 0


def test_one_voice_can_be_made_weaker_and_voices_of_weight_zero_count_for_nothing():
    one, two = some_voice(2, 0, training_seconds=10.0), some_voice(2, 1)
    weaker = Voice.mix([one, two], [0.5, 0.0])
    assert weaker.rank == 2
    assert weaker.training_seconds == 10.0
    torch.testing.assert_close(weaker.matrices()["gla.1"], 0.5 * one.matrices()["gla.1"])


def test_voices_of_prompts_are_mixed_with_their_convolutions():
    model = small_model(short_conv=True)
    tuned = voice_for(model)
    tensors = {name: tensor[0] + 1.0 for name, tensor in model.initial_state(1).tensors().items()}
    prompt = Voice("said", tensors, tuned.model_fingerprint, kind="prompt")
    mixed = Voice.mix([tuned, prompt], [0.5, 0.25])
    assert mixed.state(model).conv[3].eq(0.25).all()
    torch.testing.assert_close(mixed.matrices()["gla.0"], 0.5 * tuned.matrices()["gla.0"] + 0.25)
    assert Voice.mix([mixed, mixed], [1.0, 1.0]).kind == "mixed"


def test_what_is_known_of_a_mixture():
    one = some_voice(2, 0, training_seconds=10.0, consent="yes", codec_fingerprint=None, sample_rate_hz=None)
    two = some_voice(2, 1, training_seconds=20.0, held_out={"untuned": 2.0, "tuned": 1.0})
    mixed = Voice.mix([one, two], [0.5, 0.5])
    assert mixed.training_seconds == 30.0
    assert mixed.consent == "voice 0: yes; voice 1: not stated"
    assert (mixed.codec_fingerprint, mixed.sample_rate_hz) == (CODEC, 22_050)
    assert mixed.held_out is None
    assert Voice.mix([one, some_voice(2, 2)], [0.5, 0.5]).training_seconds is None
    assert Voice.mix([two, some_voice(2, 2)], [0.5, 0.5], name="both").consent is None


@pytest.mark.parametrize(
    ("others", "weights", "error", "text"),
    [
        ([some_voice(seed=1, model_fingerprint="f" * 32)], [1, 0], ValueError, f"model {'f' * 32}.*model {MODEL}"),
        ([some_voice(seed=1, codec_fingerprint="c")], [1, 1], ValueError, f"the codec c, but got the codec {CODEC}"),
        (["anna.safetensors"], [1, 1], TypeError, r"`voices\[1\]` must be a Voice.*Voice.load"),
        ([], [0.5, 0.5], ValueError, r"one per voice \(1\)"),
        ([some_voice(seed=1)], [0.5], ValueError, r"one per voice \(2\)"),
        ([some_voice(seed=1)], [0.5, float("nan")], ValueError, r"`weights\[1\]` must be a finite number"),
        ([some_voice(seed=1)], ["1", 0], TypeError, r"`weights\[0\]`"),
        ([some_voice(seed=1)], [True, 0], TypeError, r"`weights\[0\]`"),
        ([some_voice(seed=1)], [0, 0.0], ValueError, "other than 0 for some voice"),
        ([some_voice(seed=1)], [1e39, 1e39], ValueError, "finite"),
    ],
)
def test_mixtures_that_mean_nothing_are_refused(others, weights, error, text):
    with pytest.raises(error, match=text):
        Voice.mix([some_voice(2, 0), *others], weights)


def test_codecs_of_all_voices_are_compared_where_the_first_has_none():
    unknown = some_voice(2, 0, codec_fingerprint=None)
    with pytest.raises(ValueError, match="codec"):
        Voice.mix([unknown, some_voice(2, 1), some_voice(2, 2, codec_fingerprint="c")], [1, 1, 1])


def test_mixing_nothing_is_refused():
    with pytest.raises(ValueError, match="voice"):
        Voice.mix([], [])
    with pytest.raises(ValueError, match="voice"):
        Voice.mix([])


def test_without_weights_all_have_equal_shares():
    voices = [some_voice(2, seed) for seed in range(4)]
    mixed = Voice.mix(voices, name="all")
    assert mixed.name == "all"
    for name, matrix in mixed.matrices().items():
        torch.testing.assert_close(matrix, torch.stack([voice.matrices()[name] for voice in voices]).mean(0))
    assert Voice.mix(voices[:1]) is voices[0]


def test_shapes_of_a_model_are_those_of_its_recurrences():
    assert list(shapes_of(small_model(short_conv=True))) == ["gla.0", "gla.1", "gla.2"]
