"""States: values that are joined, split, moved, completed and checked, layer by layer."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.lina_speech.model.state import State, completed_state, state_layout
from tests.lina_speech.model_parts import KINDS, biggest_gap, small_config, small_model


def random_state(batch_size=3, kind="blind conv Q4", seed=0):
    draw = torch.Generator().manual_seed(seed)
    zeros = small_model(**KINDS[kind]).initial_state(batch_size)
    return zeros.map(lambda tensor: torch.randn(tensor.shape, generator=draw))


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_a_model_has_its_shapes(kind):
    config = small_config(**KINDS[kind])
    state = small_model(**KINDS[kind]).initial_state(2)
    heads, keys, values = config.n_heads, config.key_width, config.value_width
    assert [tuple(matrix.shape) for matrix in state.gla] == [(2, heads, keys // heads, values // heads)] * 3
    assert (state.position is not None) == (config.cross_attention == "blind")
    blocks = 3 + (config.cross_attention == "blind")
    assert len(state.conv) == (blocks if config.short_conv else 0)
    assert all(tuple(part.shape) == (2, 3, 2 * keys + values) for part in state.conv[:3])
    assert state.batch_size == 2
    assert state.nbytes == 4 * sum(tensor.numel() for tensor in state.tensors().values())
    assert {tensor.dtype for tensor in state.tensors().values()} == {torch.float32}
    assert not any(tensor.any() for tensor in state.tensors().values())


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_and_back(kind):
    state = random_state(kind=kind)
    again = State.from_tensors(state.tensors())
    assert biggest_gap(state, again) == 0
    assert state.layout() == state_layout(small_config(**KINDS[kind]))


def test_splitting_and_joining_give_the_state_back():
    state = random_state()
    rows = state.split()
    assert [row.batch_size for row in rows] == [1, 1, 1]
    assert biggest_gap(State.cat(rows), state) == 0
    assert biggest_gap(State.cat([rows[2], state]).select([1, 2, 3]), state) == 0


def test_streams_are_selected_by_number_and_by_flag():
    state = random_state()
    picked = state.select([2, 0])
    assert torch.equal(picked.gla[1], state.gla[1][[2, 0]])
    assert torch.equal(picked.conv[-1], state.conv[-1][[2, 0]])
    assert biggest_gap(state.select(torch.tensor([True, False, True])), state.select([0, 2])) == 0
    assert state.select([]).batch_size == 0


def test_one_stream_becomes_many_and_gradients_add_up():
    state = random_state(1)
    matrix = state.gla[0].clone().requires_grad_()
    many = State((matrix, *state.gla[1:]), state.position, state.conv).expand(4)
    assert many.batch_size == 4
    many.gla[0].sum().backward()
    assert matrix.grad.eq(4).all()
    assert many.expand(4).batch_size == 4


def test_many_streams_do_not_become_others():
    with pytest.raises(ValueError, match=r"`batch_size` must be 3, as the state has, but got 2"):
        random_state().expand(2)


def test_a_state_moves_with_all_its_parts():
    assert {tensor.device.type for tensor in random_state().to("meta").tensors().values()} == {"meta"}


def test_joining_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one state"):
        State.cat([])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("plain conv tied Q4", r"`states\[1\]\.gla\.0` must be of shape \(B, 2, 16, 32\), but got '\(B, 2, 8, 16\)'"),
        ("blind", r"`states\[1\]\.conv\.0` must be of shape \(B, 3, 128\), but got 'nothing'"),
    ],
)
def test_states_of_other_models_are_named_by_layer(kind, text):
    with pytest.raises(ValueError, match=text):
        State.cat([random_state(1), random_state(1, kind)])


def test_a_state_with_too_much_is_refused():
    with pytest.raises(ValueError, match=r"`state\.position` must be absent"):
        random_state(kind="blind").check(state_layout(small_config(cross_attention="plain")))
    with pytest.raises(ValueError, match=r"`state\.gla\.3` must be of shape"):
        random_state(kind="plain").check(state_layout(small_config(cross_attention="plain", n_decoder_layers=2)))


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"position": torch.zeros(1, 1, 1, 1)},
        {"gla.0": torch.zeros(1, 1, 1, 1), "gla.2": torch.zeros(1, 1, 1, 1)},
        {"gla.0": torch.zeros(1, 1, 1, 1), "voice": torch.zeros(1, 1, 1, 1)},
        {"gla.0": torch.zeros(1, 1, 1, 1), "gla.1": torch.zeros(2, 1, 1, 1)},
    ],
)
def test_tensors_that_make_no_state_are_refused(tensors):
    with pytest.raises(ValueError, match="tensors"):
        State.from_tensors(tensors)


# -- completed ---------------------------------------------------------------------------------------------------------
def test_what_is_left_out_of_a_state_is_zero_and_gradients_reach_the_rest():
    zeros = small_model(**KINDS["blind conv Q4"]).initial_state(1)
    matrix = torch.randn(2, 2, 16, 32, dtype=torch.float64, requires_grad=True)
    state = completed_state({"gla.1": matrix, "conv.2": torch.ones(1, 3, 128)}, zeros, "states")
    assert state.batch_size == 2
    assert state.layout() == zeros.layout()
    assert {tensor.dtype for tensor in state.tensors().values()} == {torch.float32}
    assert torch.equal(state.gla[1], matrix.float())
    assert state.conv[2].eq(1).all()
    rest = [tensor for name, tensor in state.tensors().items() if name not in ("gla.1", "conv.2")]
    assert not any(tensor.any() for tensor in rest)
    state.gla[1].sum().backward()
    assert matrix.grad.eq(1).all()
    assert completed_state({}, zeros, "states").batch_size == 1


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"gla.9": torch.ones(1, 2, 16, 32)}, r"`states: gla\.9` must be a recurrence.*Its names are gla\.0, gla\.1"),
        ({"gla.0": torch.ones(2, 16, 32)}, r"`states: gla\.0` must be of shape \(2, 2, 16, 32\), or with 1 row"),
        ({"gla.0": torch.ones(3, 2, 16, 32), "gla.1": torch.ones(2, 2, 16, 32)}, r"`states: gla\.1`.*\(3, 2, 16, 32\)"),
        ({"gla.0": torch.ones(())}, r"`states: gla\.0`"),
        ({"conv.0": torch.ones(1, 3, 128)}, r"`states: conv\.0` must be a recurrence of the model"),
    ],
)
def test_tensors_that_complete_no_state_are_refused(tensors, text):
    with pytest.raises(ValueError, match=text):
        completed_state(tensors, small_model().initial_state(1), "states")
