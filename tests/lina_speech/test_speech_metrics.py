"""Metrics of validation: loss, accuracy and ends by a loop in float64, however the targets are batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.model.delay import BOA, EOA, PAD, delay_codes
from lightning_adapt.lina_speech.speech_metrics import SpeechMetrics, counted_targets, target_losses


def examples(n_codebooks, seed=0):
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 7, (3, n_codebooks, 6), generator=random)
    targets = delay_codes(codes, torch.tensor([6, 2, 4]))[:, 1:]
    logits = torch.randn(*targets.shape, 10, generator=random)
    logits[0, 6, 0, EOA] = 9.0  # the first end is found
    logits[1, 0, 0, EOA] = 9.0  # and one that is none
    return logits, targets


def by_loop(logits, targets):
    n_codebooks = targets.shape[2]
    losses, hits, counts = ([[] for _ in range(n_codebooks)] for _ in range(3))
    ends, false = [], []
    for row in range(len(targets)):
        over = False
        for step in range(targets.shape[1]):
            for book in range(n_codebooks):
                target = int(targets[row, step, book])
                scores = logits[row, step, book].double().numpy()
                if target not in (PAD, BOA):
                    losses[book].append(np.log(np.exp(scores).sum()) - scores[target])
                    hits[book].append(scores.argmax() == target)
                    counts[book].append(1)
                if book == 0 and target not in (PAD, BOA, EOA):
                    false.append(scores.argmax() == EOA)
                if book == 0 and target == EOA and not over:
                    ends.append(scores.argmax() == EOA)
                    over = True
    found = {"loss": np.mean(np.concatenate(losses)), "ends_found": np.mean(ends), "false_ends": np.mean(false)}
    for book in range(n_codebooks):
        found |= {f"loss_q{book}": np.mean(losses[book]), f"accuracy_q{book}": np.mean(hits[book])}
    return found


@pytest.mark.parametrize("n_codebooks", [1, 3])
def test_metrics_are_those_of_a_loop(n_codebooks):
    logits, targets = examples(n_codebooks)
    metrics = SpeechMetrics(n_codebooks)
    metrics.update(logits, targets)
    found, expected = metrics.compute(), by_loop(logits, targets)
    assert set(found) == set(expected)
    assert 0 < expected["ends_found"] < 1
    assert expected["false_ends"] > 0
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-6), name


def test_batches_do_not_count():
    logits, targets = examples(2)
    whole, parts = SpeechMetrics(2), SpeechMetrics(2)
    whole.update(logits, targets)
    for row in (slice(0, 1), slice(1, 3)):
        parts.update(logits[row], targets[row], target_losses(logits[row], targets[row]))
    for name, value in whole.compute().items():
        torch.testing.assert_close(parts.compute()[name], value)


def test_padding_and_begins_cost_nothing():
    logits, targets = examples(3)
    losses = target_losses(logits.bfloat16(), targets)
    assert losses.dtype == torch.float32
    assert (losses[~counted_targets(targets)] == 0).all()
    assert (losses[counted_targets(targets)] > 0).all()
    assert counted_targets(torch.tensor([PAD, BOA, EOA, 3])).tolist() == [False, False, True, True]


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric SpeechMetrics was called before:UserWarning")
def test_nothing_at_all_is_no_number():
    assert SpeechMetrics(1).compute()["loss"].isnan()
