"""The choice among attempts: coverage and steps back by a loop, and the order of the two rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.inference.ranking import alignment_score, backward_share, best_candidate, text_coverage


def reading(places, n_tokens=6, width=0.8):
    """Attention that looks at given places of the text, one per frame."""
    distance = torch.tensor(places)[:, None].double() - torch.arange(n_tokens)
    return torch.softmax(-((distance / width) ** 2), 1).float()


def by_loop(alignment):
    n_frames, n_tokens = alignment.shape
    covered = sum(min(1.0, sum(alignment[n, m] for n in range(n_frames))) for m in range(n_tokens)) / n_tokens
    places = [sum(m * alignment[n, m] for m in range(n_tokens)) for n in range(n_frames)]
    back = sum(max(0.0, places[n - 1] - places[n]) for n in range(1, n_frames)) / (n_tokens - 1)
    return covered, back


@pytest.mark.parametrize("seed", range(4))
def test_the_equations(seed):
    random = np.random.default_rng(seed)
    alignment = random.dirichlet(np.full(5, 0.3), size=4 + seed)
    covered, back = by_loop(alignment)
    weights = torch.from_numpy(alignment)
    assert text_coverage(weights) == pytest.approx(covered, abs=1e-12)
    assert backward_share(weights) == pytest.approx(back, abs=1e-12)
    assert alignment_score(weights) == pytest.approx(covered - back, abs=1e-12)


def test_reading_through_beats_skipping_and_repeating():
    through = reading([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5])
    skipping = reading([0, 0.5, 1, 5, 5, 5, 5, 5, 5, 5, 5])
    repeating = reading([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5])
    stuck = reading([0] * 11)
    scores = [alignment_score(one) for one in (through, skipping, repeating, stuck)]
    assert max(scores) == scores[0]
    for place in range(1, 4):
        attempts = [skipping, repeating, stuck][:place]
        assert best_candidate([*attempts, through], [True] * (place + 1)) == place


def test_what_stopped_comes_before_what_was_cut_off():
    through, stuck = reading([0, 1, 2, 3, 4, 5]), reading([0, 0, 0])
    assert best_candidate([through, stuck], [False, True]) == 1
    assert best_candidate([through, stuck], [False, False]) == 0
    assert best_candidate([stuck, stuck, stuck], [True] * 3) == 0  # the first of equals


def test_the_smallest_alignments():
    assert text_coverage(torch.zeros(0, 4)) == 0
    assert backward_share(torch.zeros(0, 4)) == 0
    assert backward_share(torch.ones(5, 1)) == 0
    assert alignment_score(torch.ones(1, 1)) == 1
