"""Residual effects against a dictionary that does the same one level at a time."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.reloop2.experts.effects import ResidualEffects, bucket_of, cross_of
from tests.reference import reloop2_adaptive as reference


def batches(n_batches=6, size=40, n_groups=3, levels=7, seed=0):
    draws = torch.Generator().manual_seed(seed)
    for _ in range(n_batches):
        rows = torch.randint(levels, (size, n_groups), generator=draws)
        yield rows, torch.randn(size, generator=draws), torch.randint(2, (size,), generator=draws).float()


@pytest.mark.parametrize("half_life", [25.0, 1e9])
@pytest.mark.parametrize("binary", [True, False])
def test_equals_the_reference(half_life, binary):
    ours, theirs = ResidualEffects(3, 8, 0.3, half_life), reference.Effects(3, 0.3, half_life)
    scales = [1.0, float("nan"), 0.4]  # the second group is left out
    for rows, offset, labels in batches():
        ours.write(rows, offset, torch.tensor(scales), labels, binary=binary)
        theirs.write(rows.tolist(), offset.tolist(), scales, labels.tolist(), binary)
        assert torch.allclose(ours.read(rows).double(), torch.tensor(theirs.read(rows.tolist())), atol=1e-5)
    assert (ours.read(rows)[:, 1] == 0).all()
    assert (ours.read(rows)[:, 0] != 0).any()


def test_rescaling_changes_nothing():
    """A half-life of 2 rows makes the write weight grow by 2^20 per batch: it is taken back every second one."""
    ours, theirs = ResidualEffects(3, 8, 0.3, 2.0), reference.Effects(3, 0.3, 2.0)
    for rows, offset, labels in batches(9):
        ours.write(rows, offset, torch.ones(3), labels)
        theirs.write(rows.tolist(), offset.tolist(), [1.0] * 3, labels.tolist())
    assert float(ours.weight) <= 2.0**40
    assert torch.isfinite(ours.evidence).all()
    assert torch.allclose(ours.read(rows).double(), torch.tensor(theirs.read(rows.tolist())), atol=1e-4)


def test_an_effect_goes_where_its_level_is():
    effects, rows = ResidualEffects(1, 4, 0.5, 1e9), torch.tensor([[0]] * 50 + [[1]] * 50)
    labels = torch.tensor([1.0] * 50 + [0.0] * 50)
    for _ in range(20):
        effects.write(rows, torch.zeros(100), torch.ones(1), labels)
    up, down, unseen = effects.read(torch.tensor([[0], [1], [2]]))[:, 0]
    assert up > 2
    assert down < -2
    assert unseen == 0


def test_the_half_life_decides_how_fast_it_follows():
    after = {}
    for half_life in (50.0, 1e9):
        effects, rows = ResidualEffects(1, 4, 0.5, half_life), torch.zeros(50, 1, dtype=torch.long)
        for label in (1.0, 0.0):
            for _ in range(20):
                effects.write(rows, torch.zeros(50), torch.ones(1), torch.full((50,), label))
        after[half_life] = float(effects.read(rows)[0])
    assert after[50.0] < after[1e9] - 0.5


def test_shards_that_saw_other_levels_merge_to_what_one_would_have_learnt():
    whole, left, right = (ResidualEffects(1, 8, 0.3, 1e9) for _ in range(3))
    for rows, offset, labels in batches(n_groups=1, levels=8):
        low = rows[:, 0] < 4
        whole.write(rows, offset, torch.ones(1), labels)
        left.write(rows[low], offset[low], torch.ones(1), labels[low])
        right.write(rows[~low], offset[~low], torch.ones(1), labels[~low])
    left.merge_(right)
    every = torch.arange(8)[:, None]
    assert torch.allclose(left.read(every), whole.read(every), atol=1e-6)
    assert torch.allclose(left.evidence, whole.evidence, rtol=1e-4)


def test_two_shards_of_the_same_level_count_the_prior_once():
    one, two = ResidualEffects(1, 2, 0.1, 1e9), ResidualEffects(1, 2, 0.1, 1e9)
    rows = torch.zeros(100, 1, dtype=torch.long)
    for effects in (one, two):
        effects.write(rows, torch.zeros(100), torch.ones(1), torch.ones(100))
    alone = float(one.read(rows)[0])
    one.merge_(two)
    assert float(one.read(rows)[0]) > alone


def test_a_huge_batch_does_not_overshoot():
    """One Newton step of 20,000 rows from a base of 0.1 % would be one of hundreds of logits."""
    effects, labels = ResidualEffects(1, 4, 0.1, 1e9), (torch.arange(20_000) % 2).float()
    rows, offset = torch.zeros(20_000, 1, dtype=torch.long), torch.full((20_000,), -7.0)
    effects.write(rows, offset, torch.ones(1), labels)
    assert abs(float(effects.read(rows[:1])) - 7) < 1.5


def test_cleared_groups_and_reset_begin_anew():
    effects = ResidualEffects(3, 8, 0.3, 100.0)
    for rows, offset, labels in batches():
        effects.write(rows, offset, torch.ones(3), labels)
    kept = effects.read(rows)[:, 2].clone()
    effects.clear(torch.tensor([True, True, False]))
    assert (effects.read(rows)[:, :2] == 0).all()
    assert torch.equal(effects.read(rows)[:, 2], kept)
    effects.reset()
    assert (effects.mean == 0).all()
    assert (effects.evidence == 0).all()
    assert float(effects.weight) == 1


def test_small_ids_have_a_bucket_of_their_own_and_large_ones_spread():
    ids = torch.arange(1024)
    assert torch.equal(bucket_of(ids, 1024), ids)
    large = bucket_of(torch.arange(10**12, 10**12 + 4096), 1024)
    assert int(large.min()) >= 0
    assert int(large.max()) < 1024
    assert len(large.unique()) > 950  # 4096 balls leave 2 % of 1024 bins empty
    assert int(bucket_of(torch.tensor([-1, -(2**63), 2**63 - 1]), 1024).min()) >= 0


def test_crosses_spread_and_depend_on_the_order():
    first, second = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    rows = cross_of(first.reshape(-1), second.reshape(-1), 65_536)
    assert len(rows.unique()) > 3900  # 4096 pairs: 125 collisions expected in 65536 buckets
    assert (cross_of(first, second, 65_536) != cross_of(second, first, 65_536)).float().mean() > 0.9


def test_writes_in_inference_mode_and_outside():
    effects = ResidualEffects(3, 8, 0.3, 100.0)
    rows, offset, labels = next(batches())
    with torch.inference_mode():
        effects.write(rows, offset, torch.ones(3), labels)
    before = effects.read(rows).clone()
    effects.write(rows, offset, torch.ones(3), labels)
    assert not torch.equal(effects.read(rows), before)
