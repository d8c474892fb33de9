"""Streams: joined pieces are the whole audio, sample for sample; the first piece comes early; nothing stays behind."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.inference.speaker import Speaker
from tests.lina_speech.speech_parts import TEXTS, Letters, lively, speaker

GREEDY = {"temperature": 0.0, "max_seconds": 0.4}
DRAWN = {"temperature": 1.0, "top_k": 6, "max_seconds": 0.4, "seed": 3}


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize(("n_codebooks", "seed", "bias"), [(1, 4, 1.0), (1, 4, -50.0), (2, 1, 0.0), (4, 5, 1.0)])
def test_joined_pieces_are_the_whole(n_codebooks, seed, bias, options):
    ours = speaker(n_codebooks, seed=seed, end_bias=bias)
    for text in TEXTS[:2]:
        whole = ours.speak([text], **options)[0]
        for chunk_frames in (1, 7):
            pieces = list(ours.stream(text, chunk_frames=chunk_frames, **options))
            assert torch.equal(torch.cat(pieces), whole.audio)
            assert all(piece.ndim == 1 and len(piece) for piece in pieces)
            assert len(pieces) >= whole.codes.shape[1] // chunk_frames


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_with_the_codec_of_this_package(options):
    noise = [torch.rand(4410, generator=torch.Generator().manual_seed(seed)) - 0.5 for seed in range(3)]
    codec = KMeansMelCodec.fit(noise, n_codebooks=2, codebook_size=12)
    ours = Speaker(lively(2, end_bias=-50.0), codec, Letters())
    options = {**options, "max_seconds": 0.6}
    whole = ours.speak([TEXTS[1]], **options)[0]
    pieces = list(ours.stream(TEXTS[1], chunk_frames=10, **options))
    assert len(pieces) > 1
    assert torch.equal(torch.cat(pieces), whole.audio)
    assert len(whole.audio) == whole.codes.shape[1] * 441
    assert whole.sample_rate_hz == 22050


def test_the_first_piece_comes_before_the_end_and_costs_no_more_than_its_frames():
    ours = speaker(2, end_bias=-50.0)
    steps = []
    step = ours.model.step
    ours.model = Watched(ours.model, steps, step)
    pieces = ours.stream(TEXTS[0], chunk_frames=5, temperature=0.0, max_seconds=2.0)
    assert steps == []  # nothing before the first piece is asked for
    next(pieces)
    assert len(steps) == 5 + 1  # one more column for the second codebook
    next(pieces)
    assert len(steps) == 10 + 1


class Watched:
    def __init__(self, model, steps, step):
        self.model, self.steps, self.one = model, steps, step

    def step(self, *arguments, **options):
        self.steps.append(1)
        return self.one(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self.model, name)


def test_no_attention_is_kept_while_streaming(monkeypatch):
    ours, asked = speaker(), []
    step = ours.model.step

    def watched(*arguments, **options):
        asked.append(options["output_attention"])
        return step(*arguments, **options)

    monkeypatch.setattr(ours.model, "step", watched)
    list(ours.stream("a text", max_seconds=0.2))
    assert asked
    assert not any(asked)


def test_between_two_pieces_the_model_trains():
    ours = speaker(2, seed=1, dropout=0.5)
    ours.model.train()
    whole = torch.cat(list(ours.stream(TEXTS[0], **DRAWN)))
    random = torch.get_rng_state()
    pieces = []
    for piece in ours.stream(TEXTS[0], chunk_frames=3, **DRAWN):
        pieces.append(piece)
        assert ours.model.training
        assert ours.model.decoder[0].training
        assert torch.is_grad_enabled()
        assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(torch.cat(pieces), whole)


def test_a_voice_streams_too():
    ours = speaker(2, seed=1, end_bias=-50.0)
    random = torch.Generator().manual_seed(1)
    voice = ours.model.initial_state(1).map(lambda value: torch.randn(value.shape, generator=random) * 0.3)
    pieces = torch.cat(list(ours.stream(TEXTS[0], voice, chunk_frames=3, **GREEDY)))
    assert torch.equal(pieces, ours.speak([TEXTS[0]], voice, **GREEDY)[0].audio)
    assert not torch.equal(pieces, torch.cat(list(ours.stream(TEXTS[0], **GREEDY))))


@pytest.mark.parametrize(
    ("text", "options", "error", "name"),
    [
        (["a"], {}, TypeError, "`text` must be a string"),
        ("", {}, ValueError, "something to say"),
        ("a", {"chunk_frames": 0}, ValueError, "chunk_frames"),
        ("a", {"temperature": -1}, ValueError, "temperature"),
        ("a", {"max_seconds": -1}, ValueError, "max_seconds"),
        ("a", {"voice": 3}, TypeError, "voice"),
        ("a", {"seed": "x"}, TypeError, "seed"),
    ],
)
def test_mistakes_show_at_the_call_and_not_at_the_first_piece(text, options, error, name):
    with pytest.raises(error, match=name):
        speaker().stream(text, **options)
