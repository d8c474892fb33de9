"""The frame of the demos: rows in turn on equal seeds, paired differences, and the threads of the caller."""

from __future__ import annotations

from statistics import mean

import pytest
import torch

from lightning_adapt._shared.demo_frame import Arm, Gap, compare, nbsp, one_thread, over_seeds, table_rows
from lightning_adapt._shared.report_parts import Cell
from tests.contracts.demo_parts import CountingContext

ARMS = {"old": Arm("without", "baseline"), "new": Arm("with it", "ours"), "dear": Arm("all of it", "baseline")}


def test_rows_take_turns_on_each_seed_and_share_what_was_prepared():
    order, context = [], CountingContext()

    def fit(start, arm, seed):
        order.append((arm, seed))
        return f"{start} {arm}"

    options = {"prepare": lambda seed: f"start {seed}", "preparing": "a start", "once": ["dear"]}
    found = compare(context, ARMS, (3, 4), fit, **options)
    assert order == [("old", 3), ("new", 3), ("dear", 3), ("old", 4), ("new", 4)]
    assert found == {
        "old": ["start 3 old", "start 4 old"],
        "new": ["start 3 new", "start 4 new"],
        "dear": ["start 3 dear"],
    }
    assert context.said[:2] == ["a start, seed 3", "without, seed 3"]


def test_one_thread_inside_and_those_of_the_caller_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        inside = []

        def fail():
            with one_thread():
                inside.append(torch.get_num_threads())
                raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            fail()
        assert inside == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_interval_is_that_of_students_t():
    from scipy import stats

    gains = (0.4, 1.9, 1.2, 0.3, 2.0)
    for n in range(2, 6):
        expected = stats.t.interval(0.95, n - 1, mean(gains[:n]), stats.sem(gains[:n]))
        assert Gap(gains[:n]).interval == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("ours", "result", "lower"),
    [([2.0, 2.1, 2.2], "better", "worse"), ([1.0, 1.2, 1.1], "level", "level"), ([0.0, 0.1, 0.2], "worse", "better")],
)
def test_a_difference_is_called_by_its_interval_and_direction(ours, result, lower):
    other = [1.0, 1.1, 1.2]
    assert Gap.between(ours, other).result == result
    assert Gap.between(ours, other, 3, "", True).result == lower
    words = {"better": "better than it (", "level": "not clearly different from it (", "worse": "worse than it ("}
    assert Gap.between(ours, other).against("it").startswith(words[result])


def test_a_difference_is_written_with_sign_unit_and_interval():
    assert str(Gap((1.0, 1.0, 1.0), 1, "points")) == "+1.0 points, 95 % interval +1.0 to +1.0"
    assert str(Gap((-0.25, -0.25), 3)) == "-0.250, 95 % interval -0.250 to -0.250"


def test_cells_rows_and_units():
    assert over_seeds([1.0, 3.0]) == Cell(2.0, pytest.approx(2**0.5))
    assert over_seeds([4.0]) == Cell(4.0, None)
    rows = table_rows(ARMS, lambda arm: (Cell(len(arm)),))
    assert [(row.name, row.kind, row.cells[0].value) for row in rows] == [
        *(("without", "baseline", 3), ("with it", "ours", 3), ("all of it", "baseline", 4))
    ]
    assert nbsp("3 % of 4 s of 5 nats") == "3_% of 4_s of 5_nats".replace("_", "\N{NO-BREAK SPACE}")
