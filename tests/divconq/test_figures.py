"""The pictures of a run: what is drawn against the numbers given, and a map that keeps neighbours together."""

from __future__ import annotations

import os

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_info, threadpool_limits

from lightning_adapt.divconq import layout
from lightning_adapt.divconq.figures import map_figure, plane, weights_figure
from lightning_adapt.divconq.map_places import dodge, place_labels, stack_labels


def cloud(n: int = 300, dimensions: int = 7) -> np.ndarray:
    scales = np.array([5.0, 3.0, *[0.3] * (dimensions - 2)])
    return (np.random.default_rng(0).normal(size=(n, dimensions)) * scales + 4).astype(np.float32)


def blobs(n: int = 120, k: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return tight clusters at very different distances, which two main directions cannot show, and their numbers."""
    labels = np.arange(n) % k
    middles = np.eye(k, 20) * 3.0 ** np.arange(k)[:, None]
    return (middles[labels] + np.random.default_rng(1).normal(0, 0.02, (n, 20))).astype(np.float32), labels


# -- places ------------------------------------------------------------------------------------------------------------
def test_the_map_keeps_the_rows_of_a_cluster_together():
    vectors, labels = blobs()
    found = plane(vectors)
    assert found.dtype == np.float32
    distances = np.linalg.norm(found[:, None] - found[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).mean() > 0.98


def test_places_do_not_depend_on_the_number_of_threads():
    vectors = np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32)
    found = []
    for threads in (1, 2, 2):
        with threadpool_limits(threads):
            found.append(plane(vectors).tobytes())
            assert {pool["num_threads"] for pool in threadpool_info()} == {threads}  # given back
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dimensions", [7, 400])  # fewer and more than rows
def test_few_rows_lie_on_their_main_components(dimensions):
    vectors = cloud(11, dimensions)
    expected = PCA(2, svd_solver="full").fit_transform(vectors.astype(np.float64))
    found = plane(vectors)
    for axis in (0, 1):  # a direction may point either way
        assert min(np.abs(found[:, axis] - sign * expected[:, axis]).max() for sign in (1, -1)) < 1e-4


@pytest.mark.parametrize(
    "vectors", [np.ones((5, 1), np.float32), np.zeros((4, 3), np.float32), np.full((40, 3), 0.1, np.float32)]
)
def test_vectors_without_two_directions(vectors):
    found = plane(vectors)
    assert found.shape == (len(vectors), 2)
    assert np.abs(found).max() < 1e-6
    assert plane(vectors[:0]).shape == (0, 2)


def test_without_scikit_learn_the_main_directions_remain(monkeypatch):
    monkeypatch.setitem(layout.EXTRAS["llm"], "scikit-learn", False)
    expected = PCA(2, svd_solver="full").fit_transform(cloud().astype(np.float64))
    np.testing.assert_allclose(np.abs(plane(cloud())), np.abs(expected), atol=1e-3)


def test_a_sample_of_a_large_pool_has_every_cluster_and_more_of_the_selection(monkeypatch):
    monkeypatch.setattr(layout, "SHOWN", 30)
    labels = np.repeat([0, 1, 2], [970, 20, 10])
    selected = torch.arange(100, 200)
    found = plane(cloud(1000), labels=torch.from_numpy(labels), selected=selected)
    shown = np.flatnonzero(np.isfinite(found).all(1))
    assert len(shown) == 30
    assert set(labels[shown]) == {0, 1, 2}
    assert 10 <= np.isin(shown, selected).sum() <= 14
    assert shown.min() < 100
    assert shown.max() > 900


def test_copies_of_a_row_are_drawn_beside_each_other():
    points = np.concatenate([np.zeros((6, 2)), [[50.0, 0.0]]])
    moved = dodge(points, 4.0)
    gaps = np.linalg.norm(moved[:, None] - moved[None], axis=-1)[~np.eye(7, dtype=bool)]
    assert gaps.min() > 3.5
    assert moved[6].tolist() == [50, 0]
    assert np.abs(moved[:6]).max() < 12


def test_labels_cover_no_point_and_no_other_label():
    points = np.random.default_rng(0).uniform(40, 160, (60, 2))
    sizes = [(40.0, 10.0)] * 5
    found = place_labels(points, [points[part::5] for part in range(5)], sizes, (200.0, 200.0))
    for place, middle in enumerate(found):
        assert middle is not None
        assert not (np.abs(points - middle) < (20, 5)).all(1).any()
        assert all(abs(middle[0] - x) >= 40 or abs(middle[1] - y) >= 10 for x, y in found[:place])
    assert place_labels(points, [points], [(300.0, 10.0)], (200.0, 200.0)) == [None]


def test_labels_on_a_line_are_moved_apart_and_keep_their_order():
    assert stack_labels([5.0, 0.0, 9.0], 2.0).tolist() == [5, 0, 9]
    assert stack_labels([1.0, 1.0, 1.0, 8.0], 2.0).tolist() == [-1, 1, 3, 8]


# -- weights -----------------------------------------------------------------------------------------------------------
def test_weights_of_every_cluster_are_drawn_and_the_extremes_named():
    weights = torch.softmax(torch.linspace(0, 3, 12), 0)
    figure = weights_figure([torch.full((12,), 1 / 12), weights], [f"topic ${cluster}" for cluster in range(12)])
    (axes,) = figure.axes
    assert len(axes.lines) == 12
    names = {text.get_text(): text for text in axes.texts}
    assert sorted(names) == sorted(f"{cluster}: topic ${cluster}" for cluster in (0, 1, 2, 3, 8, 9, 10, 11))
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["11: topic $11"].get_ydata() == pytest.approx([1 / 12, float(weights[11])])
    assert axes.get_yscale() == "log"
    gained = int((weights > 1 / 12).sum())
    assert axes.get_title() == f"12 clusters: {gained} gained (solid), {12 - gained} lost (dashed)"
    assert [drawn[name].get_linestyle() for name in ("11: topic $11", "0: topic $0")] == ["-", "--"]
    assert names["11: topic $11"].get_color() != names["0: topic $0"].get_color()
    heights = sorted(text.xyann[1] for text in axes.texts)
    assert np.diff(heights).min() > 0.07
    figure.canvas.print_figure(os.devnull, format="png")  # a lone $ is no formula


def test_a_dropped_cluster_can_be_drawn_on_a_logarithmic_axis():
    figure = weights_figure([[0.5, 0.5], [1.0, 0.0]])
    assert all((line.get_ydata() > 0).all() for line in figure.axes[0].lines)


def test_no_weights_are_refused():
    with pytest.raises(ValueError, match="at least one round"):
        weights_figure([])


# -- map ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("labels", [None, torch.arange(300) % 5])
def test_the_map_shows_pool_and_selection(labels):
    figure = map_figure(plane(cloud()), labels, torch.tensor([1, 2, 250]))
    pool, chosen = figure.axes[0].collections
    assert len(pool.get_offsets()) == 297
    assert len(chosen.get_offsets()) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["not selected (297)", "selected (3)"]
    assert not figure.axes[0].axison
    assert len(np.unique(chosen.get_facecolors(), axis=0)) == (1 if labels is None else 3)


def test_the_map_says_how_much_of_a_large_pool_is_shown(monkeypatch):
    monkeypatch.setattr(layout, "SHOWN", 60)
    selected = torch.arange(0, 300, 3)
    figure = map_figure(plane(cloud(), selected=selected), None, selected)
    pool, chosen = (len(part.get_offsets()) for part in figure.axes[0].collections)
    assert pool + chosen == 60
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == [f"not selected ({pool} of 200 shown)", f"selected ({chosen} of 100 shown)"]


@pytest.mark.parametrize(("ground", "ink"), [("white", "black"), ("#101010", "#fafafa")])
def test_the_map_follows_the_colour_scheme(ground, ink):
    vectors, labels = blobs()
    with mpl.rc_context({"axes.facecolor": ground, "text.color": ink}):
        figure = map_figure(plane(vectors), labels, np.arange(12), [f"topic {k} \u4e2d" for k in range(6)])
    pool, chosen = figure.axes[0].collections
    assert chosen.get_edgecolors().tolist() == [list(to_rgba(ink))]
    away = [np.abs(part.get_facecolors() - to_rgba(ground)).sum(1).mean() for part in (pool, chosen)]
    assert away[0] < 0.6 * away[1]  # pale on either ground
    assert {text.get_text() for text in figure.axes[0].texts} == {f"topic {k}" for k in range(6)}
    assert {text.get_color() for text in figure.axes[0].texts} == {ink}


def test_no_row_is_a_map_too():
    figure = map_figure(np.zeros((0, 2), np.float32), None, torch.zeros(0, dtype=torch.int64))
    assert all(len(part.get_offsets()) == 0 for part in figure.axes[0].collections)
