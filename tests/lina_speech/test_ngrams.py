"""The counters that the language model must beat: against loops over dictionaries, and on codes they know by heart."""

import math
from collections import Counter

import pytest
import torch

from lightning_adapt.lina_speech import ngrams as ngrams

N_CODES = 7


def codes(n, seed, low=0, high=N_CODES):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (n,), generator=generator).tolist()
    return [torch.randint(low, high, (length,), generator=generator) for length in lengths]


def by_loops(train, val, weight):
    """The same written with dictionaries: (unigram loss, loss of the mixture)."""
    single, pair, contexts = Counter(), Counter(), Counter()
    for row in train:
        words = [*row.tolist(), "end"]
        single.update(words)
        for before, after in zip(["begin", *words], words, strict=False):
            pair[before, after] += 1
            contexts[before] += 1
    total = sum(single.values()) + N_CODES + 1
    losses = [], []
    for row in val:
        words = [*row.tolist(), "end"]
        for before, after in zip(["begin", *words], words, strict=False):
            p = (single[after] + 1) / total
            losses[0].append(-math.log(p))
            if contexts[before]:
                p = weight * pair[before, after] / contexts[before] + (1 - weight) * p
            losses[1].append(-math.log(p))
    return tuple(sum(part) / len(part) for part in losses)


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_are_those_of_loops(weight, seed):
    train, val = codes(20, seed, high=N_CODES - 1), codes(9, seed + 10)  # one code of validation never came before
    expected = by_loops(train, val, weight)
    assert ngrams.unigram_loss(train, val, N_CODES) == pytest.approx(expected[0], abs=1e-12)
    found = ngrams.bigram_loss(train, val, N_CODES, [weight])
    assert found == (pytest.approx(expected[1], abs=1e-12), weight)


def test_probabilities_add_up_and_leave_nothing_out():
    probabilities = ngrams.unigram(codes(5, 0), N_CODES)
    assert probabilities.shape == (N_CODES + 1,)
    assert probabilities.sum() == pytest.approx(1)
    assert (probabilities > 0).all()


def test_the_best_weight_is_taken():
    train, val = codes(30, 2), codes(9, 3)
    found = ngrams.bigram_loss(train, val, N_CODES)
    assert found.loss == min(ngrams.bigram_loss(train, val, N_CODES, [weight]).loss for weight in ngrams.WEIGHTS)


def test_a_bigram_knows_what_always_follows_and_a_unigram_does_not():
    steps = [torch.arange(length) % N_CODES for length in (5, 6, 7, 5, 6, 7, 5, 6, 7)]
    assert ngrams.bigram_loss(steps, steps, N_CODES).loss < 0.5 < ngrams.unigram_loss(steps, steps, N_CODES)
    noise = codes(300, 4), codes(100, 5)
    gain = ngrams.unigram_loss(*noise, N_CODES) - ngrams.bigram_loss(*noise, N_CODES).loss
    assert gain < 0.1  # all there is to know: no utterance is empty, and the lengths are even


def test_uniform_codes_cost_the_logarithm_of_their_number():
    flat = [torch.arange(N_CODES)] * 50
    assert ngrams.unigram_loss(flat, flat, N_CODES) == pytest.approx(math.log(N_CODES + 1))
