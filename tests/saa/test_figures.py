"""The figures of SAA show the history's own numbers, also while there are none."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest
import torch

from lightning_adapt.saa.figures import VIEWS, selection_figure, views_figure
from lightning_adapt.saa.history import LossHistory


def _history(losses, threshold="otsu"):
    history = LossHistory(len(losses), threshold=threshold)
    history.record(torch.arange(len(losses)), torch.tensor(losses))
    return history


def _texts(axes):
    return [text.get_text() for text in axes.texts]


def test_bars_hold_every_sample_and_the_line_is_the_cut():
    history = _history([0.0] * 30 + [0.4] * 10 + [2.5] * 5 + [3.0] * 15)
    assert history.select()
    left, right = selection_figure(history, [[10.0, 1.5, 0.25], [20.0, history.threshold, 2 / 3]]).axes[:2]
    naive, others = left.containers
    assert sum(bar.get_height() for bar in naive) == 40
    assert sum(bar.get_height() for bar in others) == 20
    (cut,) = (line for line in left.get_lines() if line.get_linestyle() == "--")
    assert list(cut.get_xdata()) == [history.threshold, history.threshold]
    assert left.get_yscale() == "log"
    assert left.get_title() == "67% are naive"
    (share,) = right.get_lines()
    assert list(share.get_xdata()) == [10, 20]
    assert list(share.get_ydata()) == pytest.approx([0.25, 2 / 3])


def test_the_cut_is_drawn_over_the_batches_on_an_axis_of_its_own():
    figure = selection_figure(_history([0.1, 2.0]), [[10.0, 1.5, 0.25], [20.0, 0.5, 0.5]])
    (cut,) = figure.axes[2].get_lines()
    assert list(cut.get_ydata()) == [1.5, 0.5]
    assert "nats" in figure.axes[2].get_ylabel()


def test_before_the_first_selection_there_is_no_cut_and_no_curve():
    figure = selection_figure(_history([0.1, 0.2, 3.0]), [])
    left, right = figure.axes
    assert not left.get_lines()
    assert _texts(right) == ["no selection yet"]
    figure.canvas.draw()


@pytest.mark.parametrize("losses", [[math.nan] * 4, [math.inf, math.nan]])
def test_without_a_finite_loss_it_says_so(losses):
    figure = selection_figure(_history(losses), [])
    assert _texts(figure.axes[0]) == ["no loss recorded yet"]
    figure.canvas.draw()


def test_samples_that_were_not_visited_are_left_out():
    history = LossHistory(10)
    history.record(torch.tensor([2, 5]), torch.tensor([0.5, 0.5]))
    left = selection_figure(history, []).axes[0]
    assert sum(bar.get_height() for container in left.containers for bar in container) == 2


@pytest.mark.parametrize("losses", [[0.0, 0.0], [0.7, 0.7]])
def test_equal_losses_are_drawn(losses):
    figure = selection_figure(_history(losses), [])
    figure.canvas.draw()
    assert sum(bar.get_height() for container in figure.axes[0].containers for bar in container) == 2


def test_one_huge_loss_does_not_squeeze_the_others_into_one_bar():
    history = _history([0.001 * row for row in range(999)] + [1e6])
    left = selection_figure(history, []).axes[0]
    heights = [sum(container[bar].get_height() for container in left.containers) for bar in range(60)]
    assert sum(heights) == 1000
    assert sum(height > 0 for height in heights) > 15
    assert "above" in left.get_xlabel()


class _Data:
    def __init__(self, channels):
        self.channels, self.asked = channels, None

    def example_views(self, index):
        self.asked = index
        size = (len(index), self.channels, 6, 4)
        return {name: torch.full(size, place / 4) for place, name in enumerate(VIEWS)}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_grid_holds_the_views_of_naive_images(channels):
    data, flags = _Data(channels), torch.zeros(100, dtype=torch.bool)
    flags[20:90] = True
    figure = views_figure(data, flags)
    assert flags[data.asked].all()
    assert len(data.asked.unique()) == len(data.asked) == 5
    grid = [figure.axes[row * 4 : row * 4 + 4] for row in range(5)]
    assert [axes.get_title() for axes in grid[0]] == list(VIEWS)
    for row, images in zip(data.asked.tolist(), grid, strict=True):
        assert images[0].get_ylabel() == f"row {row}, naive"
        shown = [axes.get_images()[0].get_array() for axes in images]
        assert {picture.shape for picture in shown} == {(6, 4) if channels == 1 else (6, 4, 3)}
        assert [float(picture.max()) for picture in shown] == [0, 0.25, 0.5, 0.75]
    figure.canvas.draw()


@pytest.mark.parametrize(("naive", "n", "shown"), [([], 8, 5), ([3], 8, 5), ([1], 2, 2), ([0], 1, 1)])
def test_with_few_naive_images_others_fill_up(naive, n, shown):
    data, flags = _Data(1), torch.zeros(n, dtype=torch.bool)
    flags[naive] = True
    labels = [axes.get_ylabel() for axes in views_figure(data, flags).axes[::4]]
    assert len(labels) == len(data.asked.unique()) == shown
    assert [label for label in labels if "naive" in label] == [f"row {row}, naive" for row in naive]


def test_without_a_sample_it_says_so():
    with pytest.raises(ValueError, match="`flags` must be of shape"):
        views_figure(_Data(1), torch.zeros(0, dtype=torch.bool))


def test_no_window_is_opened():
    before = plt.get_fignums()
    selection_figure(_history([0.1, 2.0]), []).canvas.draw()
    views_figure(_Data(3), torch.ones(2, dtype=torch.bool)).canvas.draw()
    assert plt.get_fignums() == before
