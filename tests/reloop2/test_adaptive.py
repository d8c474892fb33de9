"""AdaptiveErrorMemory: gains where there is something to gain, nothing from the future, bounded regret, its state."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt import AdaptiveErrorMemory, ErrorMemory
from lightning_adapt._shared.state import check_plain
from tests.reloop2.clicks import logloss, part, serve, stream

SMALL = {"n_buckets": 1024}


@pytest.fixture(scope="module")
def clicks():
    return stream()


def test_before_any_feedback_the_output_is_the_base_models_bit_by_bit(clicks):
    keys, _, base = clicks
    memory = AdaptiveErrorMemory(**SMALL)
    logit = torch.logit(base)
    assert torch.equal(memory.compensate(base, keys), base)
    assert torch.equal(memory.compensate(logit, keys, "logit"), logit)
    assert memory.compensate(base.half()[:, None], keys).dtype == torch.half


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_precision_stays_below_one(dtype, clicks):
    keys, labels, _ = clicks
    memory, sure = AdaptiveErrorMemory(["intercept"]), torch.full_like(labels, 0.9999)
    memory.write(keys, torch.ones_like(labels), sure)
    assert float(memory.compensate(sure.to(dtype), keys).max()) < 1


def test_it_learns_what_the_base_model_misses(clicks):
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(**SMALL)
    served = serve(memory, keys, labels, base)
    late = slice(1500, None)
    assert logloss(served[late], labels[late]) < logloss(base[late], labels[late]) - 0.08
    best = list(memory.blend_weights())
    assert "user" in best[:4]
    assert "group*category" in best[:4]
    assert best.index("intercept") > 3


def test_probability_and_logit_are_one_thing(clicks):
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(**SMALL)
    serve(memory, keys, labels, base)
    logits = memory.compensate(torch.logit(base), keys, "logit")
    assert torch.allclose(torch.sigmoid(logits), memory.compensate(base, keys), atol=1e-5)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_labels_of_a_batch_change_nothing_that_was_served_by_then(clicks, delay):
    keys, labels, base = clicks
    size, turn = 50, 20
    changed = labels.clone()
    changed[turn * size : (turn + 1) * size] = 1 - changed[turn * size : (turn + 1) * size]
    one, two = (serve(AdaptiveErrorMemory(**SMALL), keys, each, base, size, delay) for each in (labels, changed))
    known = (turn + 1 + delay) * size
    assert torch.equal(one[:known], two[:known])
    assert not torch.equal(one[known:], two[known:])


def test_nothing_is_gained_from_labels_without_meaning():
    keys, labels, base = stream(shuffled=True)
    served = serve(AdaptiveErrorMemory(**SMALL), keys, labels, torch.full_like(base, 0.3))
    constant = torch.full_like(base, float(labels.mean()))
    assert logloss(served[1000:], labels[1000:]) > logloss(constant[1000:], labels[1000:]) - 0.002


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_regret_against_the_best_single_expert_stays_below_its_bound(seed, delay):
    keys, labels, base = stream(seed=seed)
    memory = AdaptiveErrorMemory(**SMALL)
    served = serve(memory, keys, labels, base, delay=delay)
    assert memory.regret() <= memory.regret_bound() + 1e-6
    assert memory.regret() < 0.02 * logloss(served, labels) * len(labels)
    written = len(labels) - 50 * delay
    own = logloss(served[:written], labels[:written]) * written
    assert float(memory.combiner.mixture.served) == pytest.approx(own, rel=1e-5)


def test_with_a_perfect_base_model_little_is_lost():
    keys, _, base = stream(6000)
    draws = torch.Generator().manual_seed(5)
    labels = (torch.rand(6000, generator=draws) < base).float()
    served = serve(AdaptiveErrorMemory(**SMALL), keys, labels, base)
    assert logloss(served, labels) < 1.005 * logloss(base, labels)


# -- regression -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_regression_in_any_unit(unit):
    keys, _, _ = stream()
    draws = torch.Generator().manual_seed(3)
    effect = torch.randn(50, generator=draws)[keys["user"]]
    labels = unit * (effect + 0.3 * torch.randn(3000, generator=draws))
    base = torch.zeros(3000)
    memory = AdaptiveErrorMemory(task="regression", **SMALL)
    served, waiting = [], torch.arange(3000).split(50)
    for rows in waiting:
        served.append(memory.compensate(base[rows], part(keys, rows), "regression"))
        memory.write(part(keys, rows), labels[rows], base[rows])
    late = slice(1500, None)
    error = (torch.cat(served)[late] - labels[late]).square().mean() / labels[late].square().mean()
    assert float(error) < 0.35
    assert memory.regret() <= memory.regret_bound() + 1e-6


# -- what it is made of -----------------------------------------------------------------------------------------------
def test_named_experts_are_the_only_ones(clicks):
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(["user", "group*category", "intercept", "hidden"], **SMALL)
    memory.write(keys, labels, base)
    assert set(memory.blend_weights()) == {"user", "group*category", "intercept", "hidden"}
    assert set(AdaptiveErrorMemory(["user"], **SMALL).blend_weights()) == set()


def test_an_intercept_alone(clicks):
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(["intercept"])
    served = serve(memory, keys, torch.ones_like(labels), base)
    assert served[-1] > base[-1] + 0.1
    assert list(memory.blend_weights()) == ["intercept"]


@pytest.mark.parametrize("only", ["user", "hidden"])
def test_works_with_fields_alone_and_with_key_spaces_alone(clicks, only):
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(**SMALL)
    served = serve(memory, {only: keys[only]}, labels, base)
    assert bool(torch.isfinite(served).all())
    assert set(memory.blend_weights()) == {only, "intercept"}


def test_many_fields_find_their_crosses_and_late_feedback_of_an_old_cross_is_blanked():
    keys, labels, base = stream(9000)
    draws = torch.Generator().manual_seed(4)
    for number in range(6):
        keys[f"noise{number}"] = torch.randint(9, (9000,), generator=draws)
    memory = AdaptiveErrorMemory(max_crosses=3, **SMALL)
    first = slice(0, 50)
    early = memory.signals(part(keys, first), base[first])
    served = serve(memory, keys, labels, base)
    assert "group*category" in memory.blend_weights()
    assert logloss(served[6000:], labels[6000:]) < logloss(base[6000:], labels[6000:]) - 0.1
    slots = slice(memory.bank.n_effects - 3, memory.bank.n_effects)
    known = memory.signals(part(keys, first), base[first])[:, :-1]
    assert (known[:, slots] != 0).any()
    early[:, slots] = 9.0  # signals of other crosses, made before the search
    assert (memory.bank.valid(early[:, :-1])[:, slots] == 0).all()
    assert torch.equal(memory.bank.valid(known), known)


def test_knn_key_spaces(clicks):
    keys, labels, base = clicks
    spaces = {"hidden": keys["hidden"]}
    served = serve(AdaptiveErrorMemory(key_backend="knn"), spaces, labels, base)
    assert not torch.equal(served, serve(AdaptiveErrorMemory(), spaces, labels, base))


def test_the_parts_are_those_of_the_paper_where_they_should_be(clicks):
    """A key space alone, at a fixed lambda, is an ErrorMemory with gamma 0."""
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(["hidden"])
    alone = ErrorMemory(backend="sketch", half_life=10_000, lam=1.0)
    alone.calibrate(keys["hidden"][:500])
    memory.calibrate(part(keys, slice(0, 500)))
    alone.write(keys["hidden"], labels, base)
    memory.write(keys, labels, base)
    known = memory.signals(keys, base)
    assert torch.allclose(memory.bank.errors(known)[:, 0], alone.estimate(keys["hidden"], base), atol=1e-6)


# -- state ------------------------------------------------------------------------------------------------------------
def test_state_round_trips_bit_by_bit(clicks, tmp_path):
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(max_crosses=2, **SMALL)
    serve(memory, keys, labels, base)
    state = memory.state_dict()
    check_plain(dict(state))
    path = tmp_path / "state.pt"
    torch.save(state, path)
    again = AdaptiveErrorMemory(max_crosses=2, **SMALL)
    again.load_state_dict(torch.load(path, weights_only=True))
    memory.save(tmp_path / "memory.safetensors")
    loaded = AdaptiveErrorMemory.load(tmp_path / "memory.safetensors")
    more = stream(500, seed=7)
    expected = serve(memory, *more)
    for other in (again, loaded):
        assert torch.equal(serve(other, *more), expected)
        assert other.blend_weights() == memory.blend_weights()
        assert other.regret_bound() == memory.regret_bound()


def test_a_state_of_the_first_releases_keeps_loading(clicks):
    memory, again = (AdaptiveErrorMemory(["user", "hidden"], **SMALL) for _ in range(2))
    memory.write(*clicks)
    state = memory.state_dict()
    assert set(state["_extra_state"]["layout"].pop("seen")) == {"user", "group", "category"}
    again.load_state_dict(state)
    keys, _, base = clicks
    assert torch.equal(again.compensate(base, keys), memory.compensate(base, keys))


def test_an_empty_memory_round_trips(tmp_path):
    memory = AdaptiveErrorMemory(**SMALL)
    memory.save(tmp_path / "memory.safetensors")
    loaded = AdaptiveErrorMemory.load(tmp_path / "memory.safetensors")
    assert loaded.config() == memory.config()
    assert loaded.n_written == 0


def test_state_of_other_settings_is_refused(clicks):
    memory = AdaptiveErrorMemory(**SMALL)
    memory.write(*clicks)
    with pytest.raises(ValueError, match=r"`state_dict` must be of a memory with .*Build the memory with the settings"):
        AdaptiveErrorMemory(n_buckets=2048).load_state_dict(memory.state_dict())
    with pytest.raises(ValueError, match="version"):
        AdaptiveErrorMemory(**SMALL).load_state_dict({})
    with pytest.raises(ValueError, match="`state_dict` must be of an AdaptiveErrorMemory"):
        AdaptiveErrorMemory(**SMALL).load_state_dict(ErrorMemory().state_dict())
    memory.load_state_dict(AdaptiveErrorMemory(**SMALL).state_dict())  # one that has seen nothing yet
    assert memory.n_written == 0


def test_reset_begins_anew_and_keeps_the_whitening(clicks):
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(**SMALL)
    memory.calibrate(keys)
    first = serve(memory, keys, labels, base)
    memory.reset()
    assert memory.n_written == 0
    assert torch.equal(memory.compensate(base, keys), base)
    assert torch.equal(serve(memory, keys, labels, base), first)
    copy = memory.empty_copy()
    assert copy.n_written == 0
    assert torch.equal(serve(copy, keys, labels, base), first)


def test_shards_merge(clicks):
    keys, labels, base = clicks
    whole, left, right, late = (AdaptiveErrorMemory(**SMALL) for _ in range(4))
    for memory in (left, right):
        memory.calibrate(keys)
    serve(whole, keys, labels, base)
    even = keys["user"] % 2 == 0
    for memory, rows in ((left, even), (right, ~even)):
        serve(memory, part(keys, rows), labels[rows], base[rows])
    left.merge_(right)
    assert left.n_written == 3000
    more, truth, start = stream(2000, seed=3)
    merged, single = left.compensate(start, more), whole.compensate(start, more)
    assert logloss(merged, truth) < logloss(start, truth) - 0.06
    assert logloss(merged, truth) < logloss(single, truth) + 0.02
    late.merge_(left)
    assert torch.equal(late.compensate(start, more), merged)
    late.merge_(AdaptiveErrorMemory(**SMALL))  # an empty one changes nothing
    with pytest.raises(ValueError, match="`other` must be a memory with"):
        late.merge_(_written(AdaptiveErrorMemory(half_life=5.0, **SMALL), clicks))


def _written(memory, clicks):
    memory.write(*clicks)
    return memory


def test_memory_does_not_grow(clicks):
    memory = AdaptiveErrorMemory(**SMALL)
    memory.write(*clicks)
    size = memory.nbytes
    for seed in range(3):
        memory.write(*stream(2000, seed=seed))
    assert memory.nbytes == size


# -- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experts": "users"}, "`experts` must be 'auto' or a list of names"),
        ({"experts": []}, "`experts` must be 'auto' or a list of names"),
        ({"experts": [1]}, "`experts` must be 'auto' or a list of names"),
        ({"half_life": 0.5}, "`half_life` must be a number >= 1"),
        ({"prior_variance": 0}, "`prior_variance` must be a number > 0"),
        ({"n_buckets": 1000}, "`n_buckets` must be a power of two"),
        ({"max_crosses": -1}, "`max_crosses` must be a whole number >= 0"),
        ({"key_backend": "faiss"}, "`key_backend` must be one of 'sketch', 'knn'"),
        ({"task": "ranking"}, "`task` must be one of 'binary', 'regression'"),
        ({"eps": 0.7}, r"`eps` must be a number in \[1e-7, 0.5\)"),
        ({"eps": 1e-9}, r"`eps` must be a number in \[1e-7, 0.5\)"),
        ({"seed": "x"}, "`seed` must be a whole number"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        AdaptiveErrorMemory(**arguments)


def test_bad_rows_are_named_and_leave_the_memory_as_it_was(clicks):
    keys, labels, base = clicks
    memory = AdaptiveErrorMemory(**SMALL)
    memory.write(keys, labels, base)
    before = {name: value.clone() for name, value in memory.state_dict().items() if isinstance(value, torch.Tensor)}
    fewer = {name: value for name, value in keys.items() if name != "user"}
    wrong = [
        ((fewer, labels, base), ValueError, "`keys` must be a dict with 'user'"),
        ((keys["hidden"], labels, base), TypeError, "`keys` must be a dict"),
        ((keys, labels[:-1], base), ValueError, r"`labels` must be of shape \(3000,\)"),
        ((keys, labels * 2, base), ValueError, r"`labels` must be in \[0, 1\]"),
        ((keys, labels, base * torch.nan), ValueError, r"`base` must be in \[0, 1\]"),
        (
            ({**keys, "user": keys["user"][:-1]}, labels, base),
            ValueError,
            "`keys` must be a dict of tensors with 2999 rows",
        ),
        (({**keys, "user": keys["user"].float()}, labels, base), TypeError, "`keys` must be .*int64"),
    ]
    for arguments, error, message in wrong:
        with pytest.raises(error, match=message):
            memory.write(*arguments)
    after = memory.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_unknown_experts_are_named(clicks):
    keys, _, base = clicks
    for name in ("usr", "user*genre", "user*group*category", "hidden*user"):
        with pytest.raises(ValueError, match="`experts` must be names among"):
            AdaptiveErrorMemory([name]).signals(keys, base)
