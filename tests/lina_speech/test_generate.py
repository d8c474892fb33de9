"""Decoding: batches against single streams, ends and limits, seeds, the best of several, and what a step costs."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt._shared.forward import evaluating
from lightning_adapt.lina_speech.inference.generate import CodeStreams, generate_codes
from lightning_adapt.lina_speech.inference.ranking import best_candidate
from lightning_adapt.lina_speech.inference.sampling import SamplingOptions, stream_key
from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.inference.voice_states import batch_of_voices
from lightning_adapt.lina_speech.model.delay import EOA, undelay_codes
from lightning_adapt.lina_speech.model.state import State
from tests.lina_speech.speech_parts import TEXTS, EndsSooner, Letters, lively, speaker

GREEDY = {"temperature": 0.0, "max_seconds": 0.4}
DRAWN = {"temperature": 1.0, "top_k": 6, "max_seconds": 0.4, "seed": 3}
LIVES = [(1, 5), (2, 1), (4, 6)]  # codebooks, seed of a model that ends its texts at different frames


def same(one, other):
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.audio, other.audio)
    assert one.stopped == other.stopped
    torch.testing.assert_close(one.alignment, other.alignment, atol=1e-4, rtol=1e-4)


def by_parallel_passes(model, text, limit):
    """Greedy codes with the parallel path alone, a pass over everything for each column; the end as training has it."""
    n_codebooks, ids = model.config.n_codebooks, torch.ones(1, 1, model.config.n_codebooks, dtype=torch.int64)
    row = torch.tensor([Letters().encode(text)])
    end, stopped = None, True
    while end is None or ids.shape[1] <= end + max(0, n_codebooks - 2):
        column = ids.shape[1]
        logits = model(row, torch.tensor([row.shape[1]]), ids).logits[0, -1].clone()
        logits[:, :2] = -torch.inf
        logits[1:, EOA] = -torch.inf
        if column == 1:
            logits[0, EOA] = -torch.inf
        if end is None and (logits[0].argmax() == EOA or column == limit + 1):
            end, stopped = column, bool(logits[0].argmax() == EOA)
        new = logits.argmax(-1)
        for book in range(n_codebooks):
            if column <= book:
                new[book] = 1
            elif end is not None and column - book >= end:
                new[book] = EOA
        ids = torch.cat([ids, new.view(1, 1, -1)], 1)
    filled = torch.cat([ids, torch.full((1, n_codebooks, n_codebooks), EOA)], 1)[0]
    return undelay_codes(filled), stopped


@pytest.mark.parametrize(("n_codebooks", "seed"), LIVES)
def test_greedy_codes_are_those_of_parallel_passes(n_codebooks, seed):
    ours = speaker(n_codebooks, seed=seed, end_bias=1.0)
    shown = Biased(lively(n_codebooks, seed=seed), 1.0)
    shown.model.eval()
    for text, speech in zip(TEXTS[:2], ours.speak(TEXTS[:2], **{**GREEDY, "max_seconds": 0.16}), strict=True):
        with torch.no_grad():
            codes, stopped = by_parallel_passes(shown, text, 8)
        assert torch.equal(speech.codes, codes)
        assert speech.stopped == stopped


class Biased(EndsSooner):
    """The constant of `EndsSooner` in the parallel path."""

    def __call__(self, *arguments):
        made = self.model(*arguments)
        logits = made.logits.clone()
        logits[..., EOA] += self.bias
        return made._replace(logits=logits)


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize(("n_codebooks", "seed"), LIVES)
def test_a_batch_says_what_each_text_says_alone(n_codebooks, seed, options):
    ours = speaker(n_codebooks, seed=seed, end_bias=1.0)
    together = ours.speak(TEXTS, **options)
    assert len({speech.codes.shape[1] for speech in together}) > 1
    for number, (text, speech) in enumerate(zip(TEXTS, together, strict=True)):
        alone = ours.speak([text], **{**options, "seed": options.get("seed", 0) + number})[0]
        same(speech, alone)
        assert speech.text == text
        assert speech.alignment.shape == (speech.codes.shape[1], len(text) + 2)
        torch.testing.assert_close(speech.alignment.sum(1), torch.ones(len(speech.alignment)))
        assert len(speech.audio) == 8 * speech.codes.shape[1]
    for speech, other in zip(together, ours.speak(TEXTS, **options, batch_size=3), strict=True):
        same(speech, other)


def test_seeds_change_what_is_drawn_and_nothing_else():
    ours = speaker(2)
    first, again, other = (ours.speak(TEXTS, **{**DRAWN, "seed": seed}) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        same(one, two)
    assert not all(torch.equal(one.codes, two.codes) for one, two in zip(first, other, strict=True))
    same(other[0], ours.speak([TEXTS[0]], **{**DRAWN, "seed": 4})[0])
    same(ours.speak(TEXTS, **{**DRAWN, "seed": [4, 3, 4, 4]})[0], other[0])
    greedy = [ours.speak(TEXTS, **GREEDY, seed=seed)[1] for seed in (0, 9)]
    same(*greedy)


class Counts:
    """How many streams each step computes."""

    def __init__(self, model):
        self.model, self.streams = model, []

    def step(self, inputs, *arguments, **options):
        self.streams.append(len(inputs))
        return self.model.step(inputs, *arguments, **options)

    def __getattr__(self, name):
        return getattr(self.model, name)


@pytest.mark.parametrize(("n_codebooks", "seed"), LIVES)
def test_streams_that_have_ended_cost_nothing(n_codebooks, seed):
    model = Counts(EndsSooner(lively(n_codebooks, seed=seed).eval(), 1.0))
    with torch.no_grad():
        ids = [Letters().encode(text) for text in TEXTS]
        lengths = torch.tensor([len(row) for row in ids])
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
        memory, state = model.encode_text(padded, lengths), model.initial_state(4)
        keys = [stream_key(3 + number) for number in range(4)]
        options = {"options": SamplingOptions(1.0, 6), "max_frames": 20, "keys": keys}
        spoken = generate_codes(model, memory, state=state, **options)
    # n frames take n columns of codebook 0 and one of its end, and the others come Q - 1 later
    columns = [made.codes.shape[1] + max(1, n_codebooks - 1) for made in spoken]
    assert len(set(columns)) > 1
    assert sum(model.streams) == sum(columns)
    assert model.streams == sorted(model.streams, reverse=True)


@pytest.mark.parametrize(("seconds", "frames"), [(0.001, 1), (0.1, 5), (0.119, 5)])
def test_the_limit_cuts_off(seconds, frames):
    for n_codebooks in (1, 3):
        spoken = speaker(n_codebooks, end_bias=-50.0).speak(TEXTS, max_seconds=seconds)
        assert [speech.codes.shape for speech in spoken] == [(n_codebooks, frames)] * 4
        assert not any(speech.stopped for speech in spoken)


def test_an_end_at_the_limit_is_an_end_and_the_first_frame_never_is():
    ours = speaker(1, end_bias=50.0)
    for limit in (0.02, 0.4):
        spoken = ours.speak(TEXTS, **{**GREEDY, "max_seconds": limit})
        assert [(speech.codes.shape[1], speech.stopped) for speech in spoken] == [(1, True)] * 4


# -- the best of several -----------------------------------------------------------------------------------------------
def test_the_best_of_several_is_that_of_separate_attempts():
    ours = speaker(2)
    best = ours.speak(TEXTS, **DRAWN, n_best=3)
    for number, text in enumerate(TEXTS):
        attempts = []
        for attempt in range(3):
            with evaluating(ours.model):
                ids = torch.tensor([Letters().encode(text)])
                memory = ours.model.encode_text(ids, torch.tensor([ids.shape[1]]))
                options = {
                    "options": SamplingOptions(1.0, 6),
                    "max_frames": 50,
                    "keys": [stream_key(3 + number, attempt)],
                }
                attempts += generate_codes(ours.model, memory, state=ours.model.initial_state(1), **options)
        kept = best_candidate([made.alignment for made in attempts], [made.stopped for made in attempts])
        assert torch.equal(best[number].codes, attempts[kept].codes)
        assert best[number].stopped == attempts[kept].stopped
    assert torch.equal(ours.speak(TEXTS[:1], **DRAWN)[0].codes, ours.speak(TEXTS[:1], **DRAWN, n_best=1)[0].codes)


# -- voices ------------------------------------------------------------------------------------------------------------
def voice(model, seed):
    random = torch.Generator().manual_seed(seed)
    return model.initial_state(1).map(lambda value: torch.randn(value.shape, generator=random) * 0.3)


def test_voices_are_mixed_in_a_batch():
    ours = speaker(2)
    one, two = voice(ours.model, 1), voice(ours.model, 2)
    mixed = ours.speak(TEXTS, [one, None, two, one], **GREEDY)
    for number, own in enumerate([one, None, two, one]):
        same(mixed[number], ours.speak([TEXTS[number]], own, **GREEDY)[0])
    shared = ours.speak(TEXTS, one, **GREEDY)
    assert torch.equal(shared[0].codes, mixed[0].codes)
    assert not torch.equal(shared[2].codes, mixed[2].codes)
    joined = ours.speak(TEXTS[:2], State.cat([one, two]), **GREEDY)
    same(joined[1], ours.speak([TEXTS[1]], two, **GREEDY)[0])
    same(ours.speak(TEXTS[:1], ours.model.initial_state(1), **GREEDY)[0], ours.speak(TEXTS[:1], **GREEDY)[0])


def test_without_a_voice_speech_starts_from_the_initial_state():
    ours = speaker(2)
    one, two = voice(ours.model, 1), voice(ours.model, 2)
    begun = Speaker(ours.model, ours.codec, ours.tokenizer, one)
    for number, spoken in enumerate(begun.speak(TEXTS, [None, two, None, None], **GREEDY)):
        same(spoken, ours.speak([TEXTS[number]], two if number == 1 else one, **GREEDY)[0])
    pieces = list(begun.stream(TEXTS[2], **GREEDY))
    assert torch.equal(torch.cat(pieces), begun.speak([TEXTS[2]], **GREEDY)[0].audio)
    spoken, plain = begun.speak(TEXTS, **GREEDY), ours.speak(TEXTS, **GREEDY)
    assert any(not torch.equal(first.alignment, other.alignment) for first, other in zip(spoken, plain, strict=True))
    with pytest.raises(ValueError, match=r"`initial_state\.gla\.0`"):
        Speaker(ours.model, ours.codec, ours.tokenizer, voice(lively(d_model=64), 1)).speak(TEXTS)


def test_a_voice_of_another_float_type_sounds_as_in_that_of_the_model():
    ours = speaker()
    rounded = voice(ours.model, 1).map(lambda value: value.bfloat16())
    exact = rounded.map(lambda value: value.float())
    assert batch_of_voices(ours.model, [rounded]).gla[0].dtype == torch.float32
    same(ours.speak(TEXTS[:1], rounded, **GREEDY)[0], ours.speak(TEXTS[:1], exact, **GREEDY)[0])


def test_wrong_voices_are_refused():
    ours = speaker()
    fits, other = voice(ours.model, 1), voice(lively(d_model=64), 1)
    for wrong, error, text in [
        ("a.safetensors", TypeError, "`voice` must be a Voice, a State"),
        ([fits], ValueError, "as many as texts"),
        (State.cat([fits] * 3), ValueError, "as many as texts"),
        (other, ValueError, "gla.0"),
        ([fits, other], ValueError, r"voice\[1\]"),
        ([State.cat([fits, fits]), None], ValueError, "one stream"),
    ]:
        with pytest.raises(error, match=text):
            ours.speak(TEXTS[:2], wrong)


# -- side effects and bad input ----------------------------------------------------------------------------------------
def test_nothing_is_left_behind():
    ours = speaker(dropout=0.5, text_dropout=0.5, attention_dropout=0.5)
    ours.model.train()
    ours.model.decoder.eval()
    flags, random = [part.training for part in ours.model.modules()], torch.get_rng_state()
    first, again = ours.speak(TEXTS, **DRAWN), ours.speak(TEXTS, **DRAWN)
    assert [part.training for part in ours.model.modules()] == flags
    assert torch.equal(random, torch.get_rng_state())
    assert torch.is_grad_enabled()
    for one, two in zip(first, again, strict=True):
        same(one, two)  # dropout is off
    told = []
    ours.speak(TEXTS, **DRAWN, n_best=2, batch_size=4, progress=told.append)
    assert told == sorted(told)
    assert told[-1] > 0


@pytest.mark.parametrize(
    ("texts", "options", "error", "text"),
    [
        ("one", {}, TypeError, "`texts` must be a list"),
        ([1], {}, TypeError, "`texts` must be a list"),
        (None, {}, TypeError, "`texts` must be a list"),
        (["a", ""], {}, ValueError, r"`texts\[1\]` must be a text with something to say"),
        (["  "], {}, ValueError, r"`texts\[0\]`"),
        (["a"], {"temperature": -1}, ValueError, "temperature"),
        (["a"], {"top_k": 0}, ValueError, "top_k"),
        (["a"], {"max_seconds": 0}, ValueError, "max_seconds"),
        (["a"], {"n_best": 0}, ValueError, "n_best"),
        (["a"], {"batch_size": 0}, ValueError, "batch_size"),
        (["a"], {"seed": 0.5}, TypeError, "seed"),
        (["a"], {"seed": [1, 2]}, TypeError, "seed"),
    ],
)
def test_bad_arguments_are_named(texts, options, error, text):
    with pytest.raises(error, match=text):
        speaker().speak(texts, **options)


def test_no_texts_no_speech():
    assert speaker().speak([]) == []


def test_texts_may_come_from_anywhere_and_are_not_lost():
    ours = speaker()
    assert [made.text for made in ours.speak((text for text in TEXTS), **GREEDY)] == TEXTS
    assert [made.text for made in ours.speak(tuple(TEXTS), **GREEDY)] == TEXTS


def test_a_broken_model_says_so():
    ours = speaker()
    with torch.no_grad():
        ours.model.head.fill_(torch.nan)
    with pytest.raises(ValueError, match="trained to NaN"):
        ours.speak(["a"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_speak(dtype):
    ours = speaker(2, seed=1)
    ours.model.to(dtype)
    spoken = ours.speak(TEXTS, **DRAWN)
    assert len({made.codes.shape[1] for made in spoken}) > 1  # some streams dropped out
    assert all(made.alignment.dtype == made.audio.dtype == torch.float32 for made in spoken)
    assert all(made.alignment.sum(1).sub(1).abs().max() < 0.02 for made in spoken)


def test_streams_check_their_number():
    model = lively()
    with torch.no_grad(), pytest.raises(ValueError, match="of 2 streams"):
        CodeStreams(model, None, model.initial_state(1), options=SamplingOptions(), max_frames=3, keys=[1, 2])
