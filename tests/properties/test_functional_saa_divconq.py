"""Properties of the pure functions of SAA and of Diversify and Conquer, over their input spaces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lightning_adapt import functional as f
from tests.properties.parts import SEEDS, SMALL, floats, given, vectors
from tests.reference import divconq as plain_divconq
from tests.reference import saa as plain_saa

ROWS = arrays.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 4)), elements=floats(-5, 5))


# -- saa ---------------------------------------------------------------------------------------------------------------
@given(
    st.lists(st.tuples(st.integers(0, 5), st.one_of(floats(0, 9), st.just(math.nan))), max_size=15), st.floats(0, 0.99)
)
def test_a_history_is_that_of_single_samples_in_any_order_of_a_step(step, decay):
    history, other = (torch.full((6,), math.nan, dtype=torch.float64) for _ in range(2))
    expected = plain_saa.Selection(6, decay)
    for _ in range(2):
        for rows, into in ((step, history), (step[::-1], other)):
            index = torch.tensor([row for row, _ in rows], dtype=torch.int64)
            f.update_history(into, index, torch.tensor([loss for _, loss in rows]), decay)
        expected.step([row for row, _ in step], [loss for _, loss in step])
    np.testing.assert_allclose(history, other, rtol=1e-12)
    np.testing.assert_allclose(history, [math.nan if one is None else one for one in expected.losses], rtol=1e-6)


@given(vectors(0, 9, least=2), st.integers(2, 64), st.sampled_from((0.25, 4.0)))
def test_otsu_cuts_between_the_ends_moves_with_the_scale_and_is_the_best_cut(values, n_bins, scale):
    cut = f.otsu_threshold(values, n_bins=n_bins)
    assert cut.dtype == torch.float64
    assert float(values.min()) <= float(cut) <= float(values.max())
    assert float(f.otsu_threshold(values * scale, n_bins=n_bins)) == pytest.approx(
        float(cut) * scale, rel=1e-6, abs=1e-9
    )
    assert float(f.otsu_threshold(values.flip(0), n_bins=n_bins)) == float(cut)
    if float(values.max() - values.min()) > 1e-3:  # NumPy's bins are rounded in their own way
        places = torch.unique(values.double().sub(values.min()).div(values.double().max() - values.min()).mul(n_bins))
        inner = places[(places > 0) & (places < n_bins)]
        assume(bool(((inner - inner.round()).abs() > 1e-6).all()))
        assert float(cut) == pytest.approx(plain_saa.otsu(values.double().numpy(), n_bins), rel=1e-9)


@given(st.lists(st.one_of(floats(0, 5), st.just(math.nan), st.just(2.0)), min_size=1, max_size=9), st.booleans())
def test_flags_follow_the_cut_and_stay_on_it(history, before):
    losses, flags = torch.tensor(history, dtype=torch.float64), torch.full((len(history),), before)
    new = f.naive_flags(losses, 2.0, flags)
    assert new.tolist() == [loss < 2 or (loss == 2 and before) for loss in history]
    assert torch.equal(f.naive_flags(losses, 2.0, new), new)


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from((2, 4)), st.sampled_from((torch.uint8, torch.float16)))
def test_regrouping_takes_each_pixel_from_one_view_and_keeps_dtype(height, width, pieces, dtype):
    first, second = torch.zeros(2, 1, height, width, dtype=dtype), torch.ones(2, 1, height, width, dtype=dtype)
    made = f.regroup(first, second, torch.tensor([0, 1]), pieces)
    assert made.dtype == dtype
    for row in (0, 1):
        np.testing.assert_array_equal(
            made[row], plain_saa.regroup(first[row].numpy(), second[row].numpy(), row, pieces)
        )
    swapped = f.regroup(second, first, torch.tensor([0, 1]), pieces)
    assert torch.equal(made.float() + swapped.float(), torch.ones(2, 1, height, width))


@given(arrays.arrays(np.float32, (3, 4), elements=floats(-30, 30)), floats(-20, 20))
def test_labels_and_losses_do_not_see_a_shift_of_all_logits(logits, shift):
    values = torch.tensor(logits)
    confidence, label = f.pseudo_labels(values)
    assert torch.equal(label, values.argmax(-1)) or bool((values.sort(-1).values.diff(dim=-1)[:, -1] < 1e-5).any())
    assert bool(((confidence >= 0.25 - 1e-6) & (confidence <= 1)).all())
    loss = f.consistency_loss(values.to(torch.float64), label)
    assert loss.dtype == torch.float32
    assert bool((loss >= 0).all())
    torch.testing.assert_close(loss, -confidence.log(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(f.consistency_loss(values + shift, label), loss, atol=1e-4, rtol=1e-4)
    mask = confidence > 0.5
    total = float(f.fixmatch_loss(loss, mask)) * len(loss)
    assert total == pytest.approx(float(loss[mask].sum()), abs=1e-5)
    assert float(f.fixmatch_loss(loss, mask.float())) == pytest.approx(total / len(loss), abs=1e-6)


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=30), st.floats(0, 1), st.booleans())
def test_flexmatch_thresholds_equal_those_of_single_samples(selected, threshold, warm):
    counts = torch.bincount(torch.tensor(selected) + 1, minlength=5)
    effect = f.class_effect(counts, warm=warm)
    assert bool(((effect >= 0) & (effect <= 1)).all())
    found = f.flexmatch_thresholds(effect, torch.arange(4), threshold)
    assert found.dtype == effect.dtype
    np.testing.assert_allclose(found, plain_saa.flexmatch_thresholds(selected, 4, threshold, warm), atol=1e-6)


# -- budgets and quotas ------------------------------------------------------------------------------------------------
@given(st.integers(1, 10**9), st.floats(0, 1, exclude_min=True), st.integers(1, 50))
def test_a_budget_means_the_same_however_it_is_written(n, share, rounds):
    written = {"share": share, "text": repr(share), "percent": f"{share * 100!r}%"}
    if share * n < 0.5:
        with pytest.raises(ValueError, match="`budget`"):
            f.resolve_budget(share, n)
    assume(share * n > 0.500001)  # between the two, rounding decides
    rows = {form: f.resolve_budget(budget, n) for form, budget in written.items()}
    assert rows["share"] == rows["text"]
    assert abs(rows["percent"] - rows["share"]) <= 1
    assert abs(rows["share"] - share * n) <= 0.5 + 1e-6
    assert f.resolve_budget(str(rows["share"]), n) == f.resolve_budget(rows["share"], n) == rows["share"]
    if rounds <= rows["share"]:
        sizes = f.round_sizes(rows["share"], rounds)
        assert (sum(sizes), len(sizes)) == (rows["share"], rounds)
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)


@given(st.lists(st.tuples(floats(0, 9), st.integers(0, 9)), min_size=1, max_size=8), st.data(), SEEDS)
def test_quotas_are_the_exact_shares_to_within_one_row(clusters, data, key):
    weights, available = [weight for weight, _ in clusters], [rows for _, rows in clusters]
    budget = data.draw(st.integers(0, sum(available)))
    quotas = f.cluster_quotas(budget, torch.tensor(weights), torch.tensor(available), key=key).tolist()
    assert sum(quotas) == budget
    assert all(0 <= quota <= rows for quota, rows in zip(quotas, available, strict=True))
    for quota, ideal in zip(quotas, plain_divconq.ideal_shares(budget, weights, available), strict=True):
        assert abs(quota - float(ideal)) <= 1 + 1e-6


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=30), SEEDS, st.data())
def test_draws_fill_each_quota_with_rows_of_the_cluster_whatever_the_others_do(labels, key, data):
    of, counts = torch.tensor(labels), [labels.count(cluster) for cluster in range(4)]
    quotas = torch.tensor([data.draw(st.integers(0, count)) for count in counts])
    rows = f.draw_rows(of, quotas, key=key)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert torch.bincount(of[rows], minlength=4).tolist() == quotas.tolist()
    alone = f.draw_rows(of, quotas * torch.tensor([1, 0, 0, 0]), key=key)
    assert torch.equal(alone, rows[of[rows] == 0])


@given(vectors(-4, 4), SEEDS, st.data())
def test_gumbel_draws_begin_with_those_of_fewer_and_know_no_common_factor(log_weights, seed, data):
    noise = torch.rand(len(log_weights), dtype=torch.float64, generator=torch.Generator().manual_seed(seed % 2**63))
    count = data.draw(st.integers(0, len(log_weights)))
    everything = f.gumbel_top_k(log_weights, len(log_weights), noise)
    assert sorted(everything.tolist()) == list(range(len(log_weights)))
    assert torch.equal(f.gumbel_top_k(log_weights, count, noise), everything[:count])
    assert torch.equal(f.gumbel_top_k(log_weights.double() + 64, count, noise), everything[:count])


# -- weights -----------------------------------------------------------------------------------------------------------
@given(st.lists(st.tuples(floats(0, 99), st.integers(-1, 2)), min_size=1, max_size=20), st.floats(0.1, 9))
def test_quality_weights_are_finite_ordered_inside_a_cluster_and_standardised(rows, tau):
    quality, labels = torch.tensor([q for q, _ in rows]), torch.tensor([label for _, label in rows])
    for mode in ("softmax", "power"):
        found = f.quality_log_weights(quality, labels, tau=tau, mode=mode)
        assert bool(torch.isfinite(found).all())
        better, same = quality[:, None] > quality, labels[:, None] == labels
        assert bool((found[:, None] >= found)[better & same].all())
    if float(quality.double().std(correction=0)) > 1e-3 or len(rows) == 1:
        expected = plain_divconq.row_weights(quality.double().tolist(), labels.tolist(), tau)
        np.testing.assert_allclose(f.quality_log_weights(quality, labels, tau=tau), expected, atol=1e-5, rtol=1e-5)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.one_of(floats(-9, 9), st.just(math.nan))), max_size=15), st.floats(0, 20)
)
def test_cluster_scores_lie_between_the_scores_and_equal_the_plain_ones(rows, shrink):
    clusters = torch.tensor([cluster for cluster, _ in rows], dtype=torch.int64)
    scores = torch.tensor([score for _, score in rows], dtype=torch.float64)
    found = f.shrunk_cluster_scores(clusters, scores, 4, shrink=shrink)
    expected = plain_divconq.cluster_scores(clusters.tolist(), scores.tolist(), 4, shrink)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(
    st.lists(st.tuples(floats(0.0625, 9), floats(-9, 9)), min_size=1, max_size=8), st.floats(0.2, 5), st.floats(0, 0.99)
)
def test_new_weights_add_up_and_dropped_clusters_stay_dropped(clusters, tau, drop_below):
    log_weights = torch.tensor([weight for weight, _ in clusters]).double().log_softmax(0)
    scores = torch.tensor([score for _, score in clusters], dtype=torch.float64)
    for update in ("exp", "ratio", "softmax"):
        new = f.reweight_clusters(log_weights, scores, update=update, tau=tau)
        assert float(new.exp().sum()) == pytest.approx(1)
        expected = plain_divconq.reweighted(log_weights.exp().tolist(), scores.tolist(), update, tau)
        spread = float(scores.std(correction=0)) if len(scores) > 1 else 1.0
        if spread > 1e-4 or spread == 0:  # a smaller one is rounding for us, and not for the plain one
            np.testing.assert_allclose(new.exp(), expected, rtol=1e-6, atol=1e-12)
        kept = f.drop_light_clusters(new, drop_below)
        assert float(kept.exp().sum()) == pytest.approx(1)
        assert 0 <= f.weight_entropy(kept) <= f.weight_entropy(torch.zeros(len(clusters)).log_softmax(0)) + 1e-9
        again = f.reweight_clusters(kept, scores, update=update, tau=tau)
        assert bool((again[kept == -math.inf] == -math.inf).all())


# -- vectors -----------------------------------------------------------------------------------------------------------
@given(ROWS, st.data())
def test_copies_are_rows_that_came_before(rows, data):
    doubled = np.concatenate([rows, rows[data.draw(st.integers(0, len(rows) - 1))][None]])
    flags = f.exact_duplicates(doubled).tolist()
    told = [tuple((row + 0.0).tolist()) for row in doubled]
    assert flags == [any(row) and row in told[:place] for place, row in enumerate(told)]
    assert f.exact_duplicates([repr(row).encode() for row in told]).tolist() == [
        row in told[:place] for place, row in enumerate(told)
    ]


@given(ROWS, st.sampled_from((0.5, 0.9)), st.sampled_from((0.25, 8.0)))
def test_near_copies_do_not_depend_on_lengths_and_are_those_of_the_plain_loop(rows, threshold, scale):
    assume(bool((np.abs(rows).max(1) > 1e-2).all()))
    found = f.near_duplicates(rows, threshold)
    assert torch.equal(found, f.near_duplicates(rows * np.float32(scale), threshold))
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if bool((np.abs(unit @ unit.T - threshold) > 1e-4).all()):  # nearer, rounding decides
        assert found.tolist() == plain_divconq.near_copies(rows, threshold)
    cells = torch.arange(len(rows))
    assert not f.near_duplicates(rows, threshold, labels=cells).any()


@given(arrays.arrays(np.int8, st.tuples(st.integers(1, 15), st.integers(1, 3))), st.data())
def test_the_farthest_rows_are_those_of_the_plain_loop(rows, data):
    count, first = (data.draw(st.integers(low, len(rows) - 1 + low)) for low in (1, 0))
    chosen = f.farthest_rows(rows.astype(np.float32), count, first=first).tolist()
    assert len(set(chosen)) == count
    assert chosen[0] == first
    gaps = {tuple(row) for row in rows.tolist()}
    picked = rows[chosen].astype(np.float64)
    expected = rows[plain_divconq.farthest(rows.astype(np.float64), count, first)].astype(np.float64)
    apart = lambda some: [min(((row - other) ** 2).sum() for other in some[:n]) for n, row in enumerate(some) if n]  # noqa: E731
    assert apart(picked) == pytest.approx(apart(expected)) or len(gaps) < count


@given(SMALL, st.integers(2, 4), SEEDS)
def test_a_silhouette_is_in_its_range_and_knows_no_names_of_clusters(n, k, seed):
    draw = torch.Generator().manual_seed(seed % 2**63)
    labels = torch.cat([torch.arange(k), torch.randint(k, (n,), generator=draw)])
    rows = torch.randn(len(labels), 3, generator=draw)
    value, renamed = f.silhouette(rows, [labels, (labels + 1) % k])
    assert -1 <= value <= 1
    assert value == pytest.approx(renamed, abs=1e-6)
    assert f.silhouette(rows * 4, [labels])[0] == pytest.approx(value, abs=1e-4)
    found = f.choose_k(rows, budget=n, engine="torch", sample=64)
    assert 1 <= found.k <= max(1, min(len(rows) // 8, n))
    assert all(-1 <= score <= 1 for score in found.scores.values())
