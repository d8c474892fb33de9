"""The figure over the slots shows the metric's own numbers, in the colours of the page it is drawn for."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex

from lightning_adapt._shared.report import write_page
from lightning_adapt._shared.report_parts import Picture
from lightning_adapt._shared.report_style import SCHEMES
from lightning_adapt.reloop2.figures import slots_figure
from lightning_adapt.reloop2.metrics import PrequentialMetrics
from tests.contracts.demo_parts import a_finding, a_section

PER_SLOT = {
    "auc": torch.tensor([0.6, math.nan, 0.7]),
    "logloss": torch.tensor([0.5, 0.6, 0.55]),
    "calibration": torch.tensor([1.0, 1.1, 0.9]),
    "base_auc": torch.tensor([0.6, 0.58, 0.5]),
    "base_logloss": torch.tensor([0.5, 0.7, 0.8]),
    "base_calibration": torch.tensor([1.0, 1.0, 1.0]),
}
TRAINED = {"auc": [0.6, 0.61, 0.62], "logloss": torch.tensor([0.5, 0.5, 0.5])}


def drawn(figure: Any) -> list[dict[str, list[float]]]:
    """Legend -> values, of each panel."""
    for axes in figure.axes:
        assert all(list(line.get_xdata()) == list(range(len(line.get_ydata()))) for line in axes.get_lines())
    return [{line.get_label(): list(line.get_ydata()) for line in axes.get_lines()} for axes in figure.axes]


def same(values: Any, expected: Any) -> bool:
    return list(values) == pytest.approx([float(value) for value in expected], nan_ok=True)


def test_each_panel_shows_its_metric_of_everything_compared():
    figure = slots_figure(PER_SLOT, others={"trained on": TRAINED}, name="memory", base_name="as it was")
    for metric, lines, axes in zip(("auc", "logloss"), drawn(figure), figure.axes, strict=True):
        assert set(lines) == {"memory", "as it was", "trained on"}
        assert same(lines["memory"], PER_SLOT[metric])
        assert same(lines["as it was"], PER_SLOT[f"base_{metric}"])
        assert same(lines["trained on"], TRAINED[metric])
        assert metric.lower() in axes.get_ylabel().lower()
        assert axes.get_xlabel() == "slot"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["memory", "as it was", "trained on"]


def test_the_method_stands_out_and_no_line_rests_on_its_colour():
    others = {f"other {number}": TRAINED for number in range(7)}
    lines = slots_figure(PER_SLOT, others=others).axes[0].get_lines()
    widths = {line.get_label(): line.get_linewidth() for line in lines}
    assert max(widths, key=widths.get) == "compensated"
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines) == 9


def test_the_metric_draws_itself():
    random = torch.Generator().manual_seed(0)
    prediction, base, chance = torch.rand(3, 300, generator=random)
    metrics = PrequentialMetrics(n_slots=5)
    metrics.update(prediction, (chance < prediction).long(), base=base)
    per_slot, (aucs, losses) = metrics.per_slot(), drawn(metrics.figure())
    assert same(aucs["compensated"], per_slot["auc"])
    assert same(aucs["base"], per_slot["base_auc"])
    assert same(losses["compensated"], per_slot["logloss"])
    assert same(losses["base"], per_slot["base_logloss"])
    metrics = PrequentialMetrics(n_slots=5)
    metrics.update(prediction, (chance < prediction).long())
    assert set(drawn(metrics.figure())[0]) == {"compensated"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_takes_the_colours_of_the_page(scheme):
    settings = SCHEMES[scheme]
    with mpl.rc_context(settings):
        figure = slots_figure(PER_SLOT, others={"trained on": TRAINED})
        cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert to_hex(figure.get_facecolor()) == settings["figure.facecolor"]
    for axes in figure.axes:
        assert to_hex(axes.get_facecolor()) == settings["axes.facecolor"]
        assert to_hex(axes.xaxis.label.get_color()) == settings["axes.labelcolor"]
        colours = {line.get_label(): line.get_color() for line in axes.get_lines()}
        with mpl.rc_context(settings):
            assert [to_hex(colours[name]) for name in ("compensated", "base")] == [cycle[0], cycle[4]]
    (legend,) = figure.legends
    assert {to_hex(text.get_color()) for text in legend.get_texts()} == {settings["text.color"]}


def test_it_goes_onto_the_page_and_opens_no_window(tmp_path):
    before = plt.get_fignums()
    picture = Picture("slots", "AUC and logloss over time", "two charts", lambda: slots_figure(PER_SLOT))
    write_page([a_section(a_finding(pictures=(picture,)), method="reloop2")], tmp_path)
    light, dark = (
        (tmp_path / f"reloop2-slots-{scheme}.svg").read_text(encoding="utf-8") for scheme in ("light", "dark")
    )
    assert SCHEMES["light"]["figure.facecolor"] in light
    assert SCHEMES["dark"]["figure.facecolor"] in dark
    assert plt.get_fignums() == before


def test_one_slot_can_be_seen():
    figure = slots_figure({"auc": [0.6], "logloss": [0.5]})
    assert [line.get_marker() for axes in figure.axes for line in axes.get_lines()] == ["o", "o"]


BAD: dict[str, Any] = {
    "no slot": (({"auc": torch.empty(0), "logloss": torch.empty(0)},), {}, "`per_slot of 'compensated'` must be one"),
    "scalar": (({"auc": torch.tensor(0.5), "logloss": [0.5]},), {}, r"one number per slot, but got 'auc \(\)'"),
    "missing": (({"auc": [0.5]},), {}, r"must be a mapping with \['auc', 'logloss'\].*Add \['logloss'\]"),
    "half a base": (({**TRAINED, "base_auc": [0.5] * 3},), {}, r"`per_slot of 'base'` must be a mapping"),
    "uneven": (({"auc": [0.5, 0.6], "logloss": [0.5]},), {}, "as many slots in each metric"),
    "other slots": ((PER_SLOT,), {"others": {"a": {"auc": [0.5], "logloss": [0.5]}}}, "`others` must be of as many"),
    "one name": ((PER_SLOT,), {"others": {"base": TRAINED}}, "`others` must be of legends that differ"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_refused(case):
    arguments, options, match = BAD[case]
    with pytest.raises(ValueError, match=match):
        slots_figure(*arguments, **options)


def test_a_stream_without_rows_cannot_be_drawn():
    metrics = PrequentialMetrics()
    metrics.update(torch.tensor([0.5]), torch.tensor([1]), slot=torch.tensor([-1]))
    with pytest.raises(ValueError, match="must be one number per slot"):
        metrics.figure()
