"""DriftStream: the drift is where and as large as it says, and the base model's AUC is where the benchmarks need it."""

from __future__ import annotations

import functools
import itertools
import math
import time

import pytest
import torch
from lightning.pytorch import seed_everything
from torchmetrics.functional.classification import binary_auroc

from lightning_adapt.reloop2.data.drift_stream import DriftStream
from lightning_adapt.reloop2.models.ctr_module import CTRModule
from tests.foreign import trainer

SMALL = {"n_train": 4_000, "n_stream": 2_000, "n_users": 50, "n_items": 60, "n_categories": 6, "n_groups": 3}


def auc(stream: DriftStream, scores: torch.Tensor, start: int, end: int) -> float:
    return binary_auroc(scores[start:end], stream.table.columns["label"][start:end].long()).item()


def last_five_slots(stream: DriftStream, scores: torch.Tensor) -> float:
    edges = stream.slot_edges.tolist()
    slots = list(itertools.pairwise(edges))[-5:]
    return sum(auc(stream, scores, *slot) for slot in slots) / 5


@pytest.fixture(scope="module")
def base_of(tmp_path_factory):
    """What the benchmarks serve; both kinds of drift are alike before the stream."""

    @functools.cache
    def train(kind):
        seed_everything(0, verbose=False)
        model, stream = CTRModule(), DriftStream(kind, val_share=0.05)
        trainer(tmp_path_factory.mktemp(kind), max_epochs=2, limit_val_batches=0).fit(model, datamodule=stream)
        return model.eval()

    return lambda kind: train("none" if kind == "none" else "gradual")


@pytest.mark.parametrize("kind", ["gradual", "abrupt", "none"])
def test_a_base_model_is_where_the_benchmarks_need_it(kind, base_of):
    """Held-out AUC .69 to .72 before the drift; .56 to .64 in the last five slots after it, without drift no loss."""
    stream = DriftStream(kind, val_share=0.05)
    with torch.no_grad():
        scores = base_of(kind)(stream.table.rows(slice(0, None)))
    held_out = stream.table.part("val")
    before = auc(stream, scores, held_out.start, held_out.stop)
    after, oracle = last_five_slots(stream, scores), last_five_slots(stream, stream.true_probability)
    assert 0.69 <= before <= 0.72
    assert 0.72 <= oracle <= 0.75
    if kind == "none":
        assert after == pytest.approx(before, abs=0.008)
    else:
        assert 0.56 <= after <= 0.64


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_truth_is_as_hard_before_and_after(seed):
    """Whoever knows the truth sees no drift: it is the effects that turn, not their size."""
    stream = DriftStream("gradual", seed=seed)
    before = auc(stream, stream.true_probability, 0, stream.n_train)
    assert last_five_slots(stream, stream.true_probability) == pytest.approx(before, abs=0.015)
    labels = stream.table.columns["label"].double()
    assert labels.mean().item() == pytest.approx(0.24, abs=0.02)
    assert (labels - stream.true_probability).mean().abs() < 0.002  # clicks are drawn with that probability
    high = stream.true_probability > 0.4
    assert labels[high].mean().item() == pytest.approx(stream.true_probability[high].mean().item(), abs=0.005)


def cell_effects(stream: DriftStream, start: int, end: int) -> torch.Tensor:
    """Mean logit per group x category in a stretch of time, from the truth."""
    rows = stream.table.rows(slice(start, end))
    cell = rows["group"] * stream.table.field_sizes["category"] + rows["category"]
    logit = stream.true_probability[start:end].logit()
    size = stream.table.field_sizes["group"] * stream.table.field_sizes["category"]
    return torch.zeros(size, dtype=torch.float64).index_add_(0, cell, logit) / torch.bincount(cell, minlength=size)


@pytest.mark.parametrize(
    ("kind", "turned"), [("gradual", [0.05, 0.45, 0.55, 0.9]), ("abrupt", [0, 0, 1, 1]), ("none", [0, 0, 0, 0])]
)
def test_effects_turn_as_told(kind, turned):
    """Correlation of the cells' effects with those before the stream is the cosine of the angle."""
    stream = DriftStream(kind, n_train=100_000, n_stream=100_000, n_items=400, n_categories=10, n_groups=4, seed=5)
    old = cell_effects(stream, 0, 100_000)
    for share, start in zip(turned, (100_000, 140_000, 150_000, 185_000), strict=True):
        now = cell_effects(stream, start, start + 10_000)
        known = old.isfinite() & now.isfinite()
        correlation = torch.corrcoef(torch.stack([old[known], now[known]]))[0, 1].item()
        assert correlation == pytest.approx(math.cos(share * 0.9 * math.pi / 2), abs=0.12)


def test_new_items_come_with_the_stream_alone():
    stream = DriftStream("abrupt", **SMALL)
    items = stream.table.columns["item_id"]
    old = set(items[: stream.n_train].tolist())
    assert len(old) == 40
    assert len(set(items.tolist())) == 60
    share = 1 - stream.seen_in_training("item_id").double().mean().item()
    assert share == pytest.approx(1 / 3, abs=0.12)
    assert DriftStream("abrupt", new_items=0.0, **SMALL).seen_in_training("item_id").all()
    assert DriftStream("none", **SMALL).seen_in_training("item_id").all()


def test_the_seed_decides_everything():
    one, again, other = (DriftStream("gradual", seed=seed, **SMALL).table.columns for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["user_id"], other["user_id"])
    state = torch.get_rng_state()
    DriftStream("gradual", **SMALL).setup()
    assert torch.equal(torch.get_rng_state(), state)


def test_before_the_stream_kinds_are_alike():
    """So that one base model serves both kinds of drift."""
    one, two = (DriftStream(kind, **SMALL) for kind in ("gradual", "abrupt"))
    first = slice(0, one.n_train)
    for name, column in one.table.rows(first).items():
        assert torch.equal(column, two.table.rows(first)[name])


def test_it_is_made_fast():
    start = time.process_time()
    DriftStream().setup()
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"kind": "sudden"}, ValueError),
        ({"n_train": 0}, ValueError),
        ({"n_users": 2.5}, TypeError),
        ({"n_categories": 2}, ValueError),
        ({"new_items": 1.0}, ValueError),
        ({"new_items": "some"}, TypeError),
        ({"drift": 0}, ValueError),
        ({"seed": -1}, ValueError),
        ({"slots": 0}, ValueError),
    ],
)
def test_bad_arguments_are_refused(options, error):
    with pytest.raises(error, match=next(iter(options))):
        DriftStream(**options)
