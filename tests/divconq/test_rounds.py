"""Iterative selection: exactly the budget over all rounds, and weights that follow the scores."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq.functional import reweight_clusters, shrunk_cluster_scores
from lightning_adapt.divconq.rounds import SelectionRounds
from lightning_adapt.divconq.selection import select_rows
from tests.divconq.clustered_parts import begun, scores_of


# -- exactly the budget ------------------------------------------------------------------------------------------------
@settings(max_examples=220, deadline=None)
@given(
    n=st.one_of(st.integers(1, 60), st.integers(1, 5000)),
    k=st.integers(1, 60),
    share=st.sampled_from([0.01, 0.3, 0.9, 1.0]),
    rounds=st.integers(1, 5),
    settings_=st.fixed_dictionaries(
        {
            "method": st.sampled_from(["kmq", "km_random"]),
            "update": st.sampled_from(["exp", "ratio", "softmax"]),
            "initial_weights": st.sampled_from(["uniform", "proportional"]),
            "quota": st.sampled_from(["equal", "proportional"]),
            "drop_below": st.sampled_from([0.0, 0.2, 0.99]),
            "shrink": st.sampled_from([0.0, 4.0]),
            "train_on": st.sampled_from(["new", "union"]),
            "seed": st.integers(0, 2**63),
        }
    ),
)
def test_every_case_gives_exactly_the_budget(n, k, share, rounds, settings_):
    own = generator(settings_["seed"], n)
    # squares crowd the low clusters: the last ones are single rows or empty
    labels = (torch.rand(n, generator=own).square() * k).long()
    keys = [row.to_bytes(4, "big") for row in torch.randint(0, 3 * n, (n,), generator=own).tolist()]
    usable = len(set(keys))
    budget = max(1, round(share * usable))
    rounds = min(rounds, budget)
    quality = 1e4 * (torch.rand(n, generator=own, dtype=torch.float64) - 0.5)
    quality = quality if settings_["method"] == "kmq" else None
    selection = begun(labels, k, budget, rounds=rounds, quality=quality, keys=keys, **settings_)
    seen: set[int] = set()
    while True:
        new = selection.new_rows.tolist()
        assert not seen & set(new)
        seen |= set(new)
        assert len(selection.rows.unique()) == len(selection.rows) == selection.sizes[selection.round]
        weights = selection.log_weights.exp()
        assert float(weights.sum()) == pytest.approx(1)
        assert not bool(torch.isnan(weights).any())
        if selection.done:
            break
        scores = 2e4 * (torch.rand(len(new), generator=own, dtype=torch.float64) - 0.5)
        scores[torch.rand(len(new), generator=own) < 0.2] = math.nan
        selection.advance(selection.new_rows, scores)
    assert len(seen) == budget
    assert len({keys[row] for row in seen}) == budget
    assert math.isfinite(selection.history[-1]["entropy"])


@pytest.mark.parametrize(("train_on", "sizes"), [("union", [35, 69, 103]), ("new", [35, 34, 34])])
def test_sizes_are_known_before_any_training(train_on, sizes):
    labels = torch.arange(1030) % 8
    selection = begun(labels, 8, "10%", rounds=3, train_on=train_on)
    assert selection.sizes == sizes
    parts = []
    for number, size in enumerate(sizes):
        assert (selection.round, selection.done, len(selection.rows)) == (number, number == 2, size)
        parts.append(selection.new_rows)
        if not selection.done:
            selection.advance(selection.rows, scores_of(selection.rows, selection))
    assert torch.equal(selection.union, torch.cat(parts).sort().values)
    assert torch.equal(selection.rows, selection.union if train_on == "union" else parts[-1])


# -- weights follow scores ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("update", ["exp", "ratio", "softmax"])
def test_clusters_that_score_badly_fade(update):
    labels = torch.arange(900) % 6
    selection = begun(labels, 6, 270, rounds=3, update=update)
    while not selection.done:
        selection.advance(selection.new_rows, scores_of(selection.new_rows, selection, good=3.0))
    weights = [sum(entry["weights"][1::2]) for entry in selection.history]
    assert weights[0] == pytest.approx(0.5)
    assert weights[1] < 0.25
    # "softmax" has no memory, the others multiply
    assert weights[2] < weights[1] / 2 if update != "softmax" else weights[2] < 0.25
    taken = [sum(entry["quotas"][1::2]) for entry in selection.history]
    assert taken[0] == 45
    assert taken[2] <= taken[1] < 24


def test_the_update_is_that_of_the_functions():
    labels = torch.arange(300) % 5
    selection = begun(labels, 5, 60, rounds=3, tau=2.0, shrink=1.0, update="exp")
    before, known = selection.log_weights, {}
    for _ in range(2):
        rows, scores = selection.new_rows, scores_of(selection.new_rows, selection)
        scores[::3] = math.nan
        known |= {row: score for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if score == score}
        selection.advance(rows, scores)
        of_cluster = shrunk_cluster_scores(labels[list(known)], torch.tensor(list(known.values())), 5, shrink=1.0)
        before = reweight_clusters(before, of_cluster, tau=2.0)
        torch.testing.assert_close(selection.log_weights, before, rtol=1e-6, atol=1e-6)
        entry = selection.history[-1]
        assert entry["cluster_scores"] == pytest.approx(of_cluster.tolist(), rel=1e-6)
        assert sum(entry["scored"]) == len(known)
        assert entry["weights"] == pytest.approx(before.exp().tolist(), rel=1e-5)
    assert int((~torch.isnan(selection.scores)).sum()) == len(known)


def test_without_any_score_weights_stay_and_the_rounds_go_on():
    selection = begun(torch.arange(100) % 4, 4, 30, rounds=2, drop_below=0.99)
    selection.advance(selection.new_rows, torch.full((15,), math.nan))
    assert selection.log_weights.exp().tolist() == pytest.approx([0.25] * 4)
    assert selection.history[-1]["cluster_scores"] is None
    assert selection.done


@pytest.mark.parametrize("update", ["exp", "ratio", "softmax"])
def test_old_scores_do_not_count_again_when_no_new_one_came(update):
    selection = begun(torch.arange(100) % 4, 4, 45, rounds=3, update=update)
    selection.advance(selection.new_rows, scores_of(selection.new_rows, selection))
    before = selection.log_weights.clone()
    selection.advance(selection.new_rows, torch.full((15,), math.nan))
    assert torch.equal(selection.log_weights, before)


def test_copies_do_not_count_in_the_quality_of_their_cluster():
    """Sixty copies of a bad row would lift all others by the same sd, and draws would hardly follow the quality."""
    labels, quality = torch.arange(40) % 2, torch.randn(40, generator=generator(6))
    more = torch.cat([labels, torch.zeros(60, dtype=torch.int64)])
    qualities = torch.cat([quality, torch.full((60,), -50.0)])
    keys = [bytes([row]) for row in [*range(40), *[0] * 60]]
    for seed in range(20):
        alone = begun(labels, 2, 12, quality=quality, keys=keys[:40], seed=seed)
        assert torch.equal(begun(more, 2, 12, quality=qualities, keys=keys, seed=seed).rows, alone.rows)


def test_dropped_clusters_give_rows_only_when_nothing_else_is_left():
    labels = torch.arange(100) % 2
    selection = begun(labels, 2, 90, rounds=3, drop_below=0.8)
    selection.advance(selection.rows, scores_of(selection.rows, selection, good=9.0))
    assert selection.log_weights.exp().tolist() == [1.0, 0.0]
    assert selection.history[-1]["quotas"] == [30, 0]
    selection.advance(selection.new_rows, torch.ones(30))
    assert selection.history[-1]["quotas"] == [5, 25]


def test_a_cluster_is_dropped_below_a_share_of_an_even_weight():
    scores = torch.arange(50.0).square()
    kept = {}
    for share in (0.0, 0.4, 0.6):
        selection = begun(torch.arange(500) % 50, 50, 100, rounds=2, shrink=0.0, drop_below=share)
        selection.advance(selection.new_rows, scores[selection.labels[selection.new_rows]].double())
        kept[share] = int((selection.log_weights > -math.inf).sum())
    z = (scores.double() - scores.mean()) / scores.double().std(correction=0)
    even = 50 * z.softmax(0)
    assert kept == {0.0: 50, 0.4: int((even >= 0.4).sum()), 0.6: int((even >= 0.6).sum())}
    assert 0 < kept[0.6] < kept[0.4] < 50


# -- the same as select_rows -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["random", "km_random", "km_closest", "k_center", "kmq"])
@pytest.mark.parametrize("quota", ["proportional", "equal"])
def test_one_round_is_select_rows(method, quota):
    vectors = torch.randn(150, 5, generator=generator(1))
    selection = SelectionRounds(30, method, k=6, quota=quota, seed=9)
    selection.begin(vectors)
    once = select_rows(vectors, 30, method, k=6, quota=quota, seed=9)
    assert torch.equal(selection.rows, once.rows)
    assert (selection.k, selection.engine, selection.sizes) == (once.k, once.engine, [30])
    assert selection.done
    with pytest.raises(RuntimeError, match="All 1 rounds are drawn"):
        selection.advance(selection.rows, torch.zeros(30))


def test_k_is_bounded_by_the_rows_of_a_round():
    vectors = torch.randn(800, 4, generator=generator(2))
    selection = SelectionRounds(60, rounds=3)
    selection.begin(vectors)
    assert sorted(selection.silhouettes) == [8, 16]
    assert selection.k in (8, 16)


def test_before_begin_there_is_nothing_but_an_empty_state():
    selection = SelectionRounds(10, rounds=2)
    assert (selection.round, selection.begun, selection.done) == (-1, False, False)
    for read in (lambda: selection.rows, lambda: selection.sizes, lambda: selection.new_rows):
        with pytest.raises(RuntimeError, match="Call `begin`"):
            read()
    other = SelectionRounds(10, rounds=2)
    other.load_state_dict(selection.state_dict())
    assert not other.begun


# -- bad input ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"method": "km_closest", "rounds": 2},
            "`method` must be 'kmq' or 'km_random' .* Use one of them, or rounds=1",
        ),
        ({"rounds": 11}, "`rounds` must be at most the budget of 10 rows, but got 11"),
        ({"rounds": 0}, "`rounds` must be a whole number >= 1"),
        ({"budget": "ten"}, "`budget` must be"),
        ({"budget": 0}, "`budget` must be"),
        ({"initial_weights": "even"}, "`initial_weights` must be one of"),
        ({"update": "add"}, "`update` must be one of"),
        ({"shrink": -1}, "`shrink` must be"),
        ({"drop_below": 1}, r"`drop_below` must be a number in \[0, 1\), but got 1"),
        ({"drop_below": -0.1}, "`drop_below` must be"),
        ({"tau": 1e-7}, "`tau` must be a number >= 1e-06"),
        ({"train_on": "all"}, "`train_on` must be one of"),
    ],
)
def test_arguments_are_checked_when_made(changed, words):
    arguments = {"budget": 10, "method": "kmq", **changed}
    with pytest.raises(ValueError, match=words):
        SelectionRounds(arguments.pop("budget"), **arguments)


def test_a_share_that_is_too_small_for_its_rounds_is_found_at_begin():
    selection = SelectionRounds("5%", rounds=3)
    with pytest.raises(ValueError, match="at most the budget of 2 rows, but got 3"):
        selection.begin(torch.randn(40, 2, generator=generator(0)))
    assert not selection.begun


def test_a_begin_that_fails_leaves_the_selection_as_it_was():
    selection = SelectionRounds(6, "km_random", k=3, engine="torch")
    selection.begin(torch.arange(9.0)[:, None])
    rows = selection.rows
    with pytest.raises(ValueError, match="`vectors` must be given"):
        selection.begin(None, n=20)
    assert (selection.n, selection.rows.tolist()) == (9, rows.tolist())


@pytest.mark.parametrize(
    ("rows", "scores", "words"),
    [
        ([-1], [0.0], "but got 'row -1'"),
        (None, [0.0], "`scores` must be one number per row"),
        ("twice", [0.0, 0.0], "twice"),
        ("first", [math.inf], "but got 'inf for row"),
        ("first", [-1e101], "but got '-1e[+]101 for row"),
    ],
)
def test_scores_are_checked(rows, scores, words):
    selection = begun(torch.arange(40) % 4, 4, 10, rounds=2)
    first = selection.rows[:1]
    given_rows = {"twice": first.repeat(2), "first": first}.get(rows) if isinstance(rows, str) else rows
    given_rows = selection.rows if given_rows is None else torch.as_tensor(given_rows)
    with pytest.raises(ValueError, match=words):
        selection.advance(given_rows, torch.tensor(scores, dtype=torch.float64))
    assert selection.round == 0
