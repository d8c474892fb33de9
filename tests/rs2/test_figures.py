"""The figures show the sampler's own numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from lightning_adapt import RS2Sampler
from lightning_adapt.rs2 import figures
from lightning_adapt.rs2.figures import coverage_figure, loss_figure
from tests.reference import rs2 as reference


@pytest.mark.parametrize("mode", ["without", "independent", "bootstrap"])
@pytest.mark.parametrize("rounds", [1, 13])
def test_the_curves_are_the_coverage_and_the_bars_the_visits(mode, rounds):
    sampler = RS2Sampler(100, 0.1, mode=mode)
    left, right = coverage_figure(sampler, rounds).axes
    for line in left.get_lines():
        expected = [reference.coverage(done, 100, 10, line.get_label()) for done in range(rounds + 1)]
        assert list(line.get_ydata()) == pytest.approx(expected)
    assert {line.get_label() for line in left.get_lines()} == {"without", "independent", "bootstrap"}
    widths = {line.get_label(): line.get_linewidth() for line in left.get_lines()}
    assert max(widths, key=widths.get) == mode

    counts = reference.visits([sampler.epoch_rows(t).tolist() for t in range(rounds)], 100)
    bars = [bar.get_height() for bar in right.patches]
    assert bars == pytest.approx([counts.count(times) / 100 for times in range(max(counts) + 1)])
    assert mode in right.get_title()


def test_it_opens_no_window_and_draws():
    before = plt.get_fignums()
    coverage_figure(RS2Sampler(10, 0.5), 3).canvas.draw()
    assert plt.get_fignums() == before


def test_visits_of_very_long_runs_are_counted_over_the_first_rounds(monkeypatch):
    monkeypatch.setattr(figures, "_COUNTED_SAMPLES", 30)
    left, right = coverage_figure(RS2Sampler(100, 0.1), 20).axes
    assert len(left.get_lines()[0].get_ydata()) == 21
    assert "after 3 rounds" in right.get_xlabel()


def test_a_sampler_over_chosen_rows_is_drawn():
    from lightning_adapt._shared.row_sampler import RowSampler

    _, right = coverage_figure(RS2Sampler(RowSampler([1000, 7, 9, 11]), 0.5), 2).axes
    assert [bar.get_height() for bar in right.patches] == [0, 1]


@pytest.mark.parametrize("rounds", [0, -1, 1.5])
def test_rounds_are_checked(rounds):
    with pytest.raises((TypeError, ValueError), match="`rounds` must be a whole number >= 1"):
        coverage_figure(RS2Sampler(10, 0.5), rounds)


def test_the_loss_figure_shows_the_losses_their_cut_and_the_visits():
    sampler = RS2Sampler(100, 0.5, mode="loss", warm_rounds=2, loss_cap=0.5)
    rows = torch.tensor(list(sampler))
    sampler.record(rows, torch.arange(1.0, 51.0))
    left, right = loss_figure(sampler).axes
    assert sum(bar.get_height() for bar in left.patches) == 50
    assert left.get_lines()[0].get_xdata()[0] == pytest.approx(25.5)
    capped = np.minimum(np.arange(1.0, 51.0), 25.5)
    assert right.get_lines()[0].get_ydata() == pytest.approx(capped / capped.mean())


def test_figures_refuse_the_mode_they_cannot_draw():
    guided = RS2Sampler(10, 0.5, mode="loss", warm_rounds=1)
    with pytest.raises(ValueError, match=r"`sampler` must be of a mode whose rounds can be drawn again.*loss_figure"):
        coverage_figure(guided, 1)
    for empty in (guided, RS2Sampler(10, 0.5)):
        with pytest.raises(ValueError, match=r"`sampler` must be of mode 'loss' with losses"):
            loss_figure(empty)
