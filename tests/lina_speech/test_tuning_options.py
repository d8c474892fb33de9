"""What initial-state tuning can be asked for: every wrong argument names itself, what is allowed, and what to do."""

from __future__ import annotations

import pytest

from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from lightning_adapt.lina_speech.tuning.options import check_layers, check_rank_fits, chosen_shapes

SHAPES = {"gla.0": (2, 3, 5), "gla.1": (2, 3, 5), "position": (1, 2, 6)}


@pytest.mark.parametrize(
    ("layers", "positional", "expected"),
    [
        ("all", False, ["gla.0", "gla.1"]),
        ("all", True, ["gla.0", "gla.1", "position"]),
        ([0], False, ["gla.0"]),
        ([-1], False, ["gla.1"]),
        (["gla.1"], True, ["gla.1", "position"]),
        ([1, "gla.0"], False, ["gla.0", "gla.1"]),
    ],
)
def test_layers_are_chosen_by_number_and_name_in_order(layers, positional, expected):
    assert list(chosen_shapes(SHAPES, layers, positional_state=positional)) == expected


@pytest.mark.parametrize(
    ("layers", "positional", "match"),
    [
        ([2], False, "`layers` must be numbers from 0 to 1, or names among 'gla.0', 'gla.1', but got 2. Leave it out"),
        (["gla.7"], False, "but got 'gla.7'"),
        ([0, "gla.0"], False, "`layers` must be without a layer that comes twice"),
        (["position"], False, "`layers` must be .* but got 'position'. Pass positional_state=True"),
    ],
)
def test_layers_that_are_not_there(layers, positional, match):
    with pytest.raises(ValueError, match=match):
        chosen_shapes(SHAPES, layers, positional_state=positional)


def test_a_model_without_text_positions_has_no_state_of_them():
    with pytest.raises(ValueError, match="`positional_state` must be False for a model without 'position'"):
        chosen_shapes({"gla.0": (1, 1, 1)}, "all", positional_state=True)


def test_a_model_whose_layers_are_not_there_yet():
    match = (
        r"`module.initial_state_shapes\(\)` must be of at least one matrix, but got \{\} .*Build the layers in "
        "`__init__`: those that `configure_model` builds"
    )
    with pytest.raises(ValueError, match=match):
        chosen_shapes({}, "all", positional_state=False)


@pytest.mark.parametrize(
    ("shape", "largest"),
    [((2, 64, 128), 42), ((2, 16, 32), 10), ((2, 4, 8), 2), ((9, 8, 8), 3), ((1, 2, 2), 1), ((1, 1, 1), 1)],
)
def test_a_rank_must_be_worth_it(shape, largest):
    shapes = {"gla.0": (1, 200, 200), "gla.1": shape}
    for rank in (1, largest, "full"):
        check_rank_fits(rank, shapes)
    _, keys, values = shape
    assert largest == 1 or largest * (keys + values) < keys * values <= (largest + 1) * (keys + values)
    match = (
        rf"`rank` must be at most {largest} for the {keys} x {values} matrices of 'gla.1', but got {largest + 1}. "
        rf".* pass {largest}, or 'full'"
    )
    with pytest.raises(ValueError, match=match):
        check_rank_fits(largest + 1, shapes)


@pytest.mark.parametrize("layers", ["first", 3, None, [1.5], [True]])
def test_layers_of_the_wrong_type(layers):
    with pytest.raises(
        TypeError, match=r"`layers` must be 'all', or numbers and names of layers, but got .* Pass 'all'"
    ):
        check_layers(layers)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"rank": 0}, ValueError, "`rank` must be a whole number >= 1 or 'full', but got 0. Pass 1 as the authors"),
        ({"rank": "rank"}, ValueError, "`rank` must be"),
        ({"scale": -1.0}, ValueError, "`scale` must be a number > 0, but got -1.0. Pass 0.02"),
        ({"learning_rate": 0}, ValueError, "`learning_rate` must be a number > 0, but got 0. Pass 0.1"),
        ({"learning_rate": "fast"}, TypeError, "`learning_rate` must be a number > 0, but got 'fast'"),
        ({"layers": []}, ValueError, "`layers` must be .* at least one and none twice"),
        ({"positional_state": 1}, TypeError, "`positional_state` must be True or False, but got 1"),
        ({"patience": 0}, ValueError, "`patience` must be a whole number >= 1, but got 0. Pass 5, or None"),
        ({"patience": 2.5}, TypeError, "`patience` must be a whole number >= 1, but got 2.5"),
        ({"max_steps": -1}, ValueError, "`max_steps` must be a whole number >= 1, but got -1. Pass 60, or None"),
        ({"checkpoint": 3}, TypeError, "`checkpoint` must be a path or None, but got 3"),
        ({"out": " "}, ValueError, "`out` must be a path or None, but got ' '. Leave it out"),
        ({"consent": 1}, TypeError, "`consent` must be a text or None, but got 1. Write down"),
        ({"consent": ""}, ValueError, "`consent` must be a text that is not empty"),
        (
            {"speaker_key": None},
            TypeError,
            "`speaker_key` must be a key of a batch or a place in it, but got None. Pass 'spe",
        ),
        ({"speaker_key": True}, TypeError, "`speaker_key` must be .* but got True"),
        ({"speaker_key": " "}, ValueError, "`speaker_key` must be .* but got ' '"),
        ({"log_figure": "yes"}, TypeError, "`log_figure` must be True or False, but got 'yes'"),
        ({"seed": -1}, ValueError, "`seed` must be a whole number from 0"),
        ({"enabled": 0}, TypeError, "`enabled` must be True or False, but got 0. Pass False"),
        ({"voice": ""}, ValueError, "`voice` must be at least one name, none empty and none twice"),
        ({"voice": []}, ValueError, "`voice` must be at least one name"),
        ({"voice": ["a", "a"]}, ValueError, "`voice` must be .* none twice"),
        ({"voice": 7}, TypeError, r"`voice` must be a name or several names, but got 7. Pass 'anna', or"),
        ({"voice": ["a", 7]}, TypeError, "`voice` must be a name or several names"),
        ({"voice": ["a", "../b"], "out": "x"}, ValueError, "`voice` must be names that can be names of files in `out`"),
    ],
)
def test_wrong_arguments(options, error, match):
    with pytest.raises(error, match=match):
        InitialStateTuning(**options)


def test_any_name_will_do_where_it_is_no_name_of_a_file():
    assert InitialStateTuning("a/b", out="x.safetensors").options.voices == ("a/b",)
    assert InitialStateTuning(["a/b", "c"]).options.voices == ("a/b", "c")
