"""The pure parts against loops, scikit-image and float64, gradients included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from lightning_adapt.saa.functional import (
    class_effect,
    consistency_loss,
    fixmatch_loss,
    flexmatch_thresholds,
    naive_flags,
    otsu_threshold,
    pseudo_labels,
    regroup,
    update_history,
)
from tests.reference import saa as reference

NAN = float("nan")


def losses_like_training(n: int, seed: int = 0) -> np.ndarray:
    """Most near zero, the rest a tail: what unlabelled losses look like."""
    random = np.random.default_rng(seed)
    easy = random.random(n) < 0.7
    return np.where(easy, random.lognormal(-4, 1.5, n), random.gamma(2, 1.5, n))


def same_cut(values: np.ndarray, one: float, other: float) -> bool:
    """Within one bin; or with no value in between: all cuts inside such a gap are equally good, rounding decides."""
    width = (values.max() - values.min()) / 256
    low, high = min(one, other), max(one, other)
    return high - low <= width + 1e-12 or not ((values > low + width) & (values < high - width)).any()


# -- Otsu --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("logarithm", [False, True], ids=["raw", "log"])
@pytest.mark.parametrize("n", [10, 37, 500, 5_000, 50_000, 600_000])
def test_otsu_is_within_one_bin_of_scikit_image(n, logarithm):
    values = losses_like_training(n, seed=n)
    values = np.log10(values) if logarithm else values
    ours, theirs = float(otsu_threshold(torch.from_numpy(values))), threshold_otsu(values)
    assert same_cut(values, ours, theirs)


@pytest.mark.parametrize("n", [10, 30, 200, 1_000])
def test_otsu_equals_a_loop_over_all_cuts_and_scikit_image_for_many_seeds(n):
    for seed in range(25):
        values = losses_like_training(n, seed)
        ours = float(otsu_threshold(torch.from_numpy(values)))
        assert same_cut(values, ours, reference.otsu(values))
        assert same_cut(values, ours, threshold_otsu(values))


def test_another_cut_would_be_noticed():
    values = losses_like_training(1_000)
    cut = float(otsu_threshold(torch.from_numpy(values)))
    assert not same_cut(values, cut, cut + 2.5 * (values.max() - values.min()) / 256)


def test_otsu_leaves_out_what_is_not_finite_and_returns_a_constant_as_it_is():
    values = torch.from_numpy(losses_like_training(1_000))
    dirty = torch.cat([values, torch.tensor([NAN, float("inf"), -float("inf")], dtype=torch.float64)])
    assert torch.equal(otsu_threshold(dirty), otsu_threshold(values))
    assert float(otsu_threshold(torch.full((7,), 1.25))) == 1.25
    assert float(otsu_threshold(torch.tensor([2.0]))) == 2.0
    with pytest.raises(ValueError, match="`values` must be numbers of which at least one is finite"):
        otsu_threshold(torch.tensor([NAN]))
    with pytest.raises(ValueError, match="`n_bins`"):
        otsu_threshold(values, n_bins=1)
    with pytest.raises(ValueError, match="`clip_quantile`"):
        otsu_threshold(values, clip_quantile=1.5)


def test_a_few_huge_losses_move_the_cut_only_without_clipping():
    values = torch.from_numpy(losses_like_training(50_000))
    diverged = torch.cat([values, torch.full((10,), 200.0, dtype=torch.float64)])
    clean = float(otsu_threshold(values, clip_quantile=0.995))
    assert float(otsu_threshold(diverged)) > 5 * clean
    assert float(otsu_threshold(diverged, clip_quantile=0.995)) == pytest.approx(clean, rel=0.05)


# -- history and flags -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("decay", [0.0, 0.001, 0.5, 0.9])
def test_history_equals_a_loop_over_samples(decay):
    random = np.random.default_rng(1)
    n, history = 30, torch.full((30,), NAN, dtype=torch.float64)
    loop = reference.Selection(n, decay)
    for _ in range(40):
        index, losses = random.integers(0, 25, 16), random.gamma(1, 2, 16).astype(np.float32)
        losses[random.random(16) < 0.1] = random.choice([np.nan, np.inf])
        loop.step(index.tolist(), losses.tolist())
        update_history(history, torch.from_numpy(index), torch.from_numpy(losses), decay)
    expected = torch.tensor([NAN if loss is None else loss for loss in loop.losses], dtype=torch.float64)
    assert torch.isnan(history[25:]).all()
    torch.testing.assert_close(history, expected, rtol=0, atol=1e-6, equal_nan=True)


def test_the_order_inside_a_step_does_not_matter():
    index, losses = torch.tensor([3, 1, 3, 3]), torch.tensor([1.0, 2.0, 4.0, 7.0])
    results = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        history = torch.full((5,), NAN, dtype=torch.float64)
        update_history(history, index[order], losses[order], 0.001)
        results.append(history)
    assert results[0][3] == 4.0
    torch.testing.assert_close(results[0], results[1], equal_nan=True)


def test_flags_follow_the_cut_and_stay_on_it():
    history = torch.tensor([0.1, 2.0, 1.0, 1.0, NAN, NAN])
    before = torch.tensor([False, True, True, False, True, False])
    assert naive_flags(history, 1.0, before).tolist() == [True, False, True, False, False, False]
    cut = otsu_threshold(history)
    assert torch.equal(naive_flags(history, cut, before), naive_flags(history, float(cut), before))


# -- regrouping --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (7, 5), (6, 9), (1, 1), (2, 3)])
def test_constant_colours_give_exact_pieces(size, pieces, dtype):
    first, second = torch.full((4, 3, *size), 10, dtype=dtype), torch.full((4, 3, *size), 200, dtype=dtype)
    orientation = torch.tensor([0, 1, 0, 1])
    composed = regroup(first, second, orientation, pieces)
    assert composed.dtype == dtype
    for image, which in zip(composed, orientation.tolist(), strict=True):
        expected = reference.regroup(first[0].numpy(), second[0].numpy(), which, pieces)
        assert np.array_equal(image.numpy(), expected)
    half = {2: [size[0] * (size[1] // 2), (size[0] // 2) * size[1]]}.get(pieces)
    if half is not None:
        assert [(image[0] == 200).sum().item() for image in composed[:2]] == half


def test_pieces_keep_their_place_in_the_picture():
    first, second = torch.rand(2, 6, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    for pieces in (2, 4):
        composed = regroup(first, second, torch.arange(6) % 2, pieces)
        assert ((composed == first) | (composed == second)).all()
        for place in range(6):
            expected = reference.regroup(first[place].numpy(), second[place].numpy(), place % 2, pieces)
            assert np.array_equal(composed[place].numpy(), expected)


def test_regroup_refuses_what_does_not_fit():
    image = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="`second` must be of the shape"):
        regroup(image, image[:1], torch.zeros(2))
    with pytest.raises(ValueError, match="`second` must be of the shape"):
        regroup(image, image, torch.zeros(3))
    with pytest.raises(ValueError, match="`pieces` must be 2 or 4, but got 3"):
        regroup(image, image, torch.zeros(2), 3)


# -- losses ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_losses_equal_numpy_and_their_gradients_float64(dtype):
    random = torch.Generator().manual_seed(0)
    weak, strong = 4 * torch.randn(2, 9, 5, generator=random)
    strong = strong.to(dtype).requires_grad_()
    confidence, label = pseudo_labels(weak)
    losses = consistency_loss(strong, label)
    loss = fixmatch_loss(losses, confidence >= 0.9)
    loss.backward()

    probability = np.exp(reference.log_softmax(weak.double().numpy()))
    passed = probability.max(-1) >= 0.9
    assert 0 < passed.sum() < 9
    logits = strong.detach().double().numpy()
    each = -reference.log_softmax(logits)[np.arange(9), probability.argmax(-1)]
    np.testing.assert_allclose(confidence.numpy(), probability.max(-1), rtol=1e-6)
    np.testing.assert_allclose(losses.detach().numpy(), each, rtol=1e-5)
    assert losses.dtype == torch.float32
    assert loss.item() == pytest.approx((passed * each).sum() / 9, rel=1e-5)
    onehot = np.eye(5)[probability.argmax(-1)]
    gradient = passed[:, None] * (np.exp(reference.log_softmax(logits)) - onehot) / 9
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
    np.testing.assert_allclose(strong.grad.double().numpy(), gradient, atol=tolerance)


def test_the_loss_is_in_single_precision_under_autocast_and_nothing_flows_into_pseudo_labels():
    weak = torch.randn(6, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        confidence, label = pseudo_labels(weak)
        assert consistency_loss(weak.bfloat16(), label).dtype == torch.float32
    assert confidence.dtype == torch.float32
    assert not confidence.requires_grad


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("selected", [[-1] * 12, [0] * 5 + [1] * 2 + [-1] * 20, [0, 0, 2, 2, 2, 1, -1], [0, 1, 2] * 4])
def test_flexmatch_thresholds_equal_a_count_over_all_samples(selected, warm):
    counts = torch.bincount(torch.tensor(selected) + 1, minlength=4)
    effect = class_effect(counts, warm=warm)
    thresholds = flexmatch_thresholds(effect, torch.arange(3), 0.95)
    assert thresholds.tolist() == pytest.approx(reference.flexmatch_thresholds(selected, 3, 0.95, warm))
