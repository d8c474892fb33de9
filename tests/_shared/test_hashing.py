"""splitmix64 against its published outputs, and keys that depend on the order of their parts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_adapt._shared.hashing import derive_key, generator, mix, mix_array, uniform
from tests.reference.rs2 import key_of, splitmix_finaliser

STEP = 0x9E3779B97F4A7C15
SMALL = range(9)


def test_mix_gives_the_published_stream_of_splitmix64():
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix((1234567 + number * STEP) % 2**64) for number in range(3)] == expected


@given(st.integers(0, 2**64 - 1))
def test_mix_equals_the_reference(value):
    assert mix(value) == splitmix_finaliser(value)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.integers(0, 2**64 - 1))
def test_mix_array_adds_the_key_and_leaves_its_input_alone(values, key):
    array = np.array(values, dtype=np.uint64)
    assert mix_array(array, key).tolist() == [mix((value + key) % 2**64) for value in values]
    assert array.tolist() == values


@pytest.mark.parametrize("parts", [(), (0,), (1, 2), (2**63 - 1, 0, 7)])
def test_derive_key_equals_the_reference(parts):
    assert derive_key(42, *parts) == key_of(42, *parts)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_keys_of_small_numbers_are_all_different(length):
    keys = [derive_key(*numbers) for numbers in itertools.product(SMALL, repeat=length)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


def test_keys_of_equal_numbers_are_different():
    assert len({derive_key(number, number) for number in range(100)}) == 100


def test_generators_are_their_own_and_differ_by_every_part():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    draws = {
        tuple(torch.randint(2**31, (4,), generator=generator(*numbers)).tolist())
        for numbers in itertools.product(SMALL, SMALL)
    }
    assert len(draws) == 81
    assert torch.equal(torch.get_rng_state(), before)
    assert generator(5, 6).initial_seed() == generator(5, 6).initial_seed() == derive_key(5, 6) >> 1


def test_uniform_numbers_depend_on_position_and_key_alone():
    positions = torch.arange(20_000).reshape(2, -1)
    numbers = uniform(positions, 7)
    assert numbers.shape == positions.shape
    assert numbers.dtype == torch.float64
    assert torch.equal(uniform(positions.flip(1), 7), numbers.flip(1))
    assert not torch.equal(uniform(positions, 8), numbers)
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 0.001
