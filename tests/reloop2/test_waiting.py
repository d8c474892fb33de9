"""Rows that wait for their labels: what becomes of their ids, which make way, and that each label meets its own row."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor, FeedbackResult
from tests.reloop2.predictor_parts import Clicks, predictor, rows


def test_what_becomes_of_ids():
    clock = [0.0]
    one = predictor("knn", timeout_s=10, clock=lambda: clock[0])
    one.predict(rows(3), ["a", "b", 7])
    clock[0] = 9.0
    one.predict(rows(2), ["c", "7"])
    answer = one.feedback(["a", "zzz", "a"], [1, 1, 0])
    assert answer == FeedbackResult(accepted=["a"], unknown=["zzz"], duplicate=["a"])
    clock[0] = 10.5
    answer = one.feedback(["b", "a", "c", 7, "7"], [1, 1, 0, 0, 1])
    assert answer == FeedbackResult(accepted=["c", "7"], expired=["b", 7], duplicate=["a"])
    assert one.n_pending == 0
    assert one.memory.n_written == 3


def test_a_clock_that_is_set_back_ends_no_wait_and_begins_none():
    clock = [100.0]
    one = predictor("knn", timeout_s=10, clock=lambda: clock[0])
    one.predict(rows(1), ["a"])
    clock[0] = 0.0
    one.predict(rows(1), ["b"])
    clock[0] = 109.0
    assert one.feedback(["a", "b"], [1, 1]).accepted == ["a", "b"]


def test_the_oldest_make_way():
    one = predictor("knn", max_pending=5)
    one.predict(rows(4), ["a", "b", "c", "d"])
    one.predict(rows(3), ["e", "a", "f"])  # "a" waits anew, and is now younger than "b"
    assert one.n_pending == 5
    assert one.feedback(["b", "a", "c", "d"], [1, 1, 1, 1]) == FeedbackResult(["a", "c", "d"], [], ["b"], [])
    for number in range(5):
        one.predict(rows(1), [number])
    assert one.feedback(["b"], [1]).unknown == ["b"]  # what became of it is forgotten
    assert one.feedback(["d"], [1]).duplicate == ["d"]
    with pytest.raises(ValueError, match="at most 5"):
        one.predict(rows(6), range(6))


def test_an_id_that_is_predicted_again_takes_its_label_for_the_newer_row():
    one, only_newer = predictor("knn"), predictor("knn")
    one.predict(rows(2), ["a", "b"])
    for each in (one, only_newer):
        each.predict(rows(1, seed=5), ["a"])
        each.feedback(["a"], [1])
        assert each.feedback(["a"], [1]).duplicate == ["a"]
    batch = rows(5, seed=6)
    assert torch.equal(one.predict(batch, range(5)), only_newer.predict(batch, range(5)))
    one.predict(rows(1), ["a"])
    assert one.feedback(["a"], [0]).accepted == ["a"]  # a new row by an old name


def test_many_rows_in_any_order_stay_with_their_ids():
    """Places are used again and again; each label must meet the key of its own row."""
    draws = torch.Generator().manual_seed(0)
    one = ErrorMemoryPredictor(Clicks(), ErrorMemory(k=1, lam=1.0, whiten=False, support_n0=0.0), max_pending=80)
    waiting = {}
    for turn in range(60):
        batch = rows(5, seed=turn)
        waiting |= {
            (name := 5 * turn + row): {key: value[row : row + 1] for key, value in batch.items()} for row in range(5)
        }
        one.predict(batch, range(5 * turn, 5 * turn + 5))
        chosen = [list(waiting)[int(place)] for place in torch.randperm(len(waiting), generator=draws)[:4]]
        one.feedback(chosen, torch.zeros(4))
        for name in chosen:
            del waiting[name]
    one.memory.reset()
    name, row = next(iter(waiting.items()))
    one.feedback([name], [1.0])
    base = torch.sigmoid(one.module.eval()(row)).detach()
    assert one.predict(row, ["again"]).item() == pytest.approx(1.0, abs=1e-5) != base.item()
