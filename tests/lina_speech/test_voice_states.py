"""Voices that speak: as their states do, mixed in a batch, as a stream, and at the cost of speech without a voice."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_adapt._shared import fingerprint
from lightning_adapt.lina_speech.inference.generate import CodeStreams
from lightning_adapt.lina_speech.inference.sampling import SamplingOptions
from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.inference.voice_states import batch_of_voices, voice_per_text
from lightning_adapt.lina_speech.model.state import State
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.lina_speech.made_voice_parts import voice_for
from tests.lina_speech.model_parts import KINDS, batch, small_model
from tests.lina_speech.speech_parts import TEXTS, Letters, Steps, lively, module, speaker
from tests.lina_speech.test_generate import GREEDY, same


@pytest.fixture
def ours():
    return speaker(2)


def voices_for(ours, count=3):
    return [voice_for(ours.model, ours.codec, rank, seed) for seed, rank in enumerate((1, 3, "full")[:count])]


# -- a batch and alone -------------------------------------------------------------------------------------------------
def test_mixed_voices_say_in_a_batch_what_each_says_alone(ours):
    one, two, full = voices_for(ours)
    mixed = Voice.mix([one, two], [0.5, 0.5])
    given = [one, None, full, mixed]
    together = ours.speak(TEXTS, given, **GREEDY)
    for number, voice in enumerate(given):
        same(together[number], ours.speak([TEXTS[number]], voice, **GREEDY)[0])
    states = ours.speak(TEXTS, [None if voice is None else voice.state(ours.model) for voice in given], **GREEDY)
    for speech, other in zip(together, states, strict=True):
        same(speech, other)
    both = ours.speak(TEXTS[:2], [one, two.state(ours.model)], **GREEDY)  # voices and states in one list
    same(both[1], ours.speak(TEXTS[:2], [None, two], **GREEDY)[1])
    assert not torch.equal(together[0].alignment, ours.speak(TEXTS[:1], **GREEDY)[0].alignment)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_mixed_voices_are_those_of_separate_runs(kind):
    model = small_model(**KINDS[kind])
    given = [voice_for(model, rank=2, seed=1), None, voice_for(model, rank="full", seed=2)]
    text, text_lengths, inputs, lengths = batch(model.config.n_codebooks)
    state = batch_of_voices(model, voice_per_text(model, given, 3))
    plain = model(text, text_lengths, inputs, lengths).logits
    together = model(text, text_lengths, inputs, lengths, state=state).logits
    for row, voice in enumerate(given):
        real = (text[row : row + 1, : text_lengths[row]], text_lengths[row : row + 1], inputs[row : row + 1])
        own = None if voice is None else voice.state(model)
        alone = model(*real, lengths[row : row + 1], state=own).logits
        torch.testing.assert_close(together[row, : lengths[row]], alone[0, : lengths[row]], atol=1e-5, rtol=0)
        changed = (together[row] - plain[row])[: lengths[row]].abs().max()
        assert changed > 0.01 if voice else changed < 1e-5


def test_one_voice_for_all_texts_becomes_a_state_once(ours, monkeypatch):
    one, made = voices_for(ours, 1)[0], []
    original = Voice.state
    monkeypatch.setattr(Voice, "state", lambda self, *rest: made.append(self) or original(self, *rest))
    spoken = ours.speak(TEXTS, one, **GREEDY)
    assert made == [one]
    same(spoken[2], ours.speak([TEXTS[2]], one, **GREEDY)[0])
    assert ours.speak([], one) == []


def test_the_model_is_hashed_once_for_all_calls(ours, monkeypatch):
    one, calls, original = voices_for(ours, 1)[0], [], fingerprint.weights_fingerprint
    monkeypatch.setattr(fingerprint, "weights_fingerprint", lambda model: calls.append(1) or original(model))
    for _ in range(3):
        ours.speak(TEXTS[:1], one, **GREEDY)
        list(ours.stream(TEXTS[0], one, **GREEDY))
    assert len(calls) == 1


def test_streams_give_the_audio_of_the_whole(ours):
    for voice in voices_for(ours):
        whole = ours.speak([TEXTS[1]], voice, **GREEDY)[0].audio
        assert torch.equal(torch.cat(list(ours.stream(TEXTS[1], voice, **GREEDY, chunk_frames=3))), whole)


def test_a_module_speaks_in_voices():
    made = module(codec=Steps(), tokenizer=Letters(), max_seconds=0.3)
    voice = voice_for(made.model, made.codec, 4)
    spoken = made.generate(["one", "two"], [voice, None], temperature=0.0)
    same(spoken[0], made.generate(["one"], voice.state(made.model), temperature=0.0)[0])
    same(spoken[1], made.generate(["two"], temperature=0.0)[0])
    assert torch.equal(torch.cat(list(made.stream("one", voice, temperature=0.0))), spoken[0].audio)
    made.initial_state = voice_for(made.model, seed=9).state(made.model)  # a voice goes before the module's own
    same(made.generate(["one"], voice, temperature=0.0)[0], spoken[0])


def test_gradients_of_a_state_of_a_voice_are_not_asked_for(ours):
    state = voices_for(ours, 1)[0].state(ours.model)
    assert not any(tensor.requires_grad for tensor in state.tensors().values())


# -- what is refused ---------------------------------------------------------------------------------------------------
def test_voices_of_other_models_and_codecs_are_refused(ours):
    other = voice_for(lively(2, seed=1), ours.codec, seed=7)
    elsewhere = voice_for(ours.model, Steps(2, name="b"), seed=8)
    fits = voices_for(ours, 1)[0]
    for wrong, text in [(other, "'voice 7' was made with the model"), (elsewhere, "'voice 8' was made with the codec")]:
        for given in (wrong, [fits, wrong]):
            with pytest.raises(ValueError, match=text):
                ours.speak(TEXTS[:2], given)
        with pytest.raises(ValueError, match=text):
            ours.stream(TEXTS[0], wrong)
    Speaker(ours.model, None, ours.tokenizer)  # a speaker without a codec compares models alone
    assert voice_per_text(ours.model, elsewhere, 1)[0].batch_size == 1
    for wrong in ([fits], ["a.safetensors", fits], "a.safetensors"):
        with pytest.raises((TypeError, ValueError), match="`voice` must be"):
            ours.speak(TEXTS[:2], wrong)


# -- cost --------------------------------------------------------------------------------------------------------------
class Operations(TorchDispatchMode):
    """Notes what runs, with the sizes it runs on."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append((str(function), [tuple(value.shape) for value in args if isinstance(value, torch.Tensor)]))
        return function(*args, **(kwargs or {}))


class Looks:
    """Notes the tensors that each step reads and the operations it runs."""

    def __init__(self, model):
        self.model, self.states, self.operations = model, [], []

    def step(self, inputs, memory, state, **options):
        self.states.append({name: (tuple(t.shape), t.dtype, t.stride()) for name, t in state.tensors().items()})
        with Operations() as seen:
            made = self.model.step(inputs, memory, state, **options)
        self.operations.append(seen.names)
        return made

    def __getattr__(self, name):
        return getattr(self.model, name)


def test_a_step_with_a_voice_is_a_step_without(ours):
    model = ours.model.eval()
    memory = model.encode_text(torch.tensor([Letters().encode("one")] * 2), torch.tensor([5, 5]))
    looked = []
    for voice in (None, *voices_for(ours)):
        seen = Looks(model)
        state = batch_of_voices(model, voice_per_text(model, voice, 2))
        with torch.inference_mode():
            options = {"options": SamplingOptions(), "max_frames": 4, "keys": [1, 2]}
            CodeStreams(seen, memory, state, **options).advance(3)
        assert len(seen.states) >= 2  # a stream may end by itself
        assert min(map(len, seen.operations)) > 50
        looked.append((seen.states, seen.operations))
    for states, operations in looked[1:]:
        both = min(len(states), len(looked[0][0]))
        assert states[:both] == looked[0][0][:both]
        assert operations[:both] == looked[0][1][:both]


def test_states_of_many_streams_are_given_row_by_row(ours):
    states = [voice.state(ours.model) for voice in voices_for(ours)]
    rows = voice_per_text(ours.model, State.cat(states), 3)
    assert all(torch.equal(row.gla[0], state.gla[0]) for row, state in zip(rows, states, strict=True))
