"""The pure parts: which reading reached what, how counters grow, what the table and the figure show."""

from __future__ import annotations

import json
import math

import matplotlib.pyplot as plt
import pytest
import torch
from rich.console import Console

from lightning_adapt.rs2 import stopwatch
from lightning_adapt.rs2.reached import Point, first_reached, plain_number, reached_table
from lightning_adapt.rs2.stopwatch import Stopwatch, growth
from lightning_adapt.rs2.time_figure import time_figure
from tests.rs2.timed import FakeClock

CURVE = [
    Point(10, 2.0, 0.5, 1.0, math.nan, 0),
    Point(20, 4.0, 1.0, 1.0, 0.75, 1),
    Point(30, 6.0, 1.5, 1.25, 0.5, 2),
    Point(40, 8.0, 2.0, 1.25, 0.875, 3),
]


def test_the_first_reading_that_is_good_enough_counts():
    found = first_reached(CURVE, [0.5, 0.75, 0.8, 0.9], "max")
    second = {"train": 4.0, "evaluation": 1.0, "selection": 1.0, "total": 6.0, "step": 20, "epoch": 1}
    assert found[0.5] == found[0.75] == second
    assert found[0.8]["step"] == 40
    assert found[0.9] is None
    json.dumps(found)


def test_smaller_is_better():
    found = first_reached(CURVE, [0.75, 0.5, 0.1], "min")
    assert [cost and cost["epoch"] for cost in found.values()] == [1, 2, None]


@pytest.mark.parametrize("number", [0.9, 0.1, 1 / 3, 99.95, 1e-12, 3e38, 0.0, -2.5])
def test_a_float32_is_read_as_it_prints(number):
    read = plain_number(torch.tensor(number))
    assert torch.tensor(read) == torch.tensor(number)
    assert len(repr(read)) <= len(repr(torch.tensor(number).item()))
    assert plain_number(torch.tensor(number, dtype=torch.float64)) == number


def test_nine_of_ten_is_point_nine():
    assert torch.tensor(0.9).item() < 0.9 == plain_number((torch.arange(10) < 9).float().mean())


def test_nan_and_infinity_stay_what_they_are():
    assert math.isnan(plain_number(torch.tensor(math.nan)))
    assert plain_number(torch.tensor([-math.inf])) == -math.inf


@pytest.mark.parametrize(
    ("before", "now", "grown"),
    [
        ({}, {"a": 2.0, "b": 1.0}, 3.0),
        ({"a": 2.0}, {"a": 5.0}, 3.0),
        ({"a": 5.0, "b": 1.0}, {"a": 2.0, "b": 1.0}, 2.0),  # a began again
        ({"a": 5.0}, {}, 0.0),
    ],
)
def test_growth_of_counters(before, now, grown):
    assert growth(before, now) == grown


class Reporter:
    state_key = "reporter"
    selection_seconds = 0.0


def test_what_was_reported_leaves_the_kind_in_which_it_passed(monkeypatch):
    clock, reporter = FakeClock(), Reporter()
    monkeypatch.setattr(stopwatch, "perf_counter", clock)
    watch = Stopwatch(1.0)
    reporter.selection_seconds = 2.0
    watch.start([reporter], torch.device("cpu"))
    clock.now += 8
    watch.read()
    reporter.selection_seconds += 6.0  # began before the last reading
    clock.now += 1
    assert watch.read() == {"train": 3.0, "evaluation": 0.0, "selection": 9.0}
    watch.switch("evaluation")
    clock.now += 2
    reporter.selection_seconds += 5.0  # more than has passed here: the rest passed elsewhere
    assert watch.read() == {"train": 3.0, "evaluation": 0.0, "selection": 14.0}
    watch.stop()
    clock.now += 100
    reporter.selection_seconds += 5.0
    assert watch.read() == {"train": 3.0, "evaluation": 0.0, "selection": 14.0}


def test_the_device_is_waited_for_where_the_kind_changes_and_nowhere_else(monkeypatch):
    """Work that was queued belongs to the kind that queued it; a fake device, so that it runs anywhere."""
    clock, device, waits = FakeClock(), torch.device("cuda", 0), []

    def wait(where):
        waits.append(where)
        clock.now += 4

    monkeypatch.setattr(stopwatch, "perf_counter", clock)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "synchronize", wait)
    watch = Stopwatch()
    watch.start([], device)
    before = len(waits)
    watch.read()
    assert len(waits) == before
    start = watch.read()["train"]
    watch.switch("evaluation")
    watch.switch("train")
    assert waits[before:] == [device, device]
    assert watch.seconds == {"train": start + 4, "evaluation": 4, "selection": 0}
    watch.stop()  # also after an error of the device
    assert len(waits) == before + 2


def test_the_table_says_never():
    console = Console(width=120)
    with console.capture() as capture:
        console.print(reached_table(first_reached(CURVE, [0.8, 0.9], "max"), "acc", "max"))
    lines = [line.replace("│", " ").split() for line in capture.get().splitlines()]
    assert ["0.8", "11.25", "8.00", "2.00", "1.25", "40", "3"] in lines
    assert ["0.9", "never"] in lines
    assert ["seconds", "until", "acc", ">=", "target"] in lines


def test_the_figure_shows_curve_targets_and_split():
    before = plt.get_fignums()
    figure = time_figure(CURVE, [0.8, 0.9], "acc")
    figure.canvas.draw()
    assert plt.get_fignums() == before
    left, right = figure.axes
    curve, *lines = left.get_lines()
    assert list(curve.get_xdata()) == [3.5, 6.0, 8.75, 11.25]
    assert [line.get_label() for line in lines if not line.get_label().startswith("_")] == [
        "0.8: 11.25 s",
        "0.9: never",
    ]
    marked = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines if line.get_marker() == "o"]
    assert marked == [(11.25, 0.8)]
    widths = {container.get_label(): [bar.get_width() for bar in container] for container in right.containers}
    assert widths == {"train": [8, 0, 8], "evaluation": [2, 0, 2], "selection": [1.25, 0, 1.25]}
    assert [text.get_text().strip() for text in right.texts] == ["never"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["0.8", "0.9", "whole run"]


def test_a_figure_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`curve` must be at least one reading"):
        time_figure([], [0.5], "acc")
