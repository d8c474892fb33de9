"""InitialStates: matrices and gradients against loops, rows of voices, start, values, and checkpoints left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_adapt.lina_speech.tuning.initial_states import InitialStates
from lightning_adapt.lina_speech.voices.factors import matrices_of

SHAPES = {"gla.0": (2, 3, 5), "gla.1": (2, 4, 4), "position": (1, 2, 6)}


def made(**options) -> InitialStates:
    """States away from their start, in float64."""
    states = InitialStates(SHAPES, **options).double()
    numbers = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in states.parameters():
            value.copy_(torch.randn(value.shape, generator=numbers, dtype=torch.float64))
    return states


def by_loops(u: torch.Tensor, w: torch.Tensor, scale: float) -> torch.Tensor:
    """scale * sum_r u_r w_r^T, number by number; u (H, R, K), w (H, R, V)."""
    heads, rank, keys = u.shape
    rows = []
    for head in range(heads):
        for key in range(keys):
            for value in range(w.shape[-1]):
                rows.append(scale * sum(u[head, r, key] * w[head, r, value] for r in range(rank)))
    return torch.stack(rows).view(heads, keys, -1)


@pytest.mark.parametrize("rank", [1, 3, 7])
@pytest.mark.parametrize("scale", [0.02, 1.5])
def test_matrices_and_gradients_are_those_of_loops(rank, scale):
    states = made(rank=rank, scale=scale, n_voices=2)
    rows = torch.tensor([1, 0, 1])
    parts = {name: value.detach().clone().requires_grad_() for name, value in states.named_parameters()}
    weights = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, expected = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for place, (name, matrices) in enumerate(states.matrices(rows).items()):
        assert matrices.shape == (3, *SHAPES[name])
        for row, voice in enumerate(rows.tolist()):
            loop = by_loops(parts[f"u_{place}"][voice], parts[f"w_{place}"][voice], scale)
            assert torch.allclose(matrices[row], loop, rtol=1e-12, atol=1e-14)
            found = found + weights[row] * matrices[row].pow(3).sum()
            expected = expected + weights[row] * loop.pow(3).sum()
    found.backward()
    expected.backward()
    for name, value in states.named_parameters():
        assert torch.allclose(value.grad, parts[name].grad, rtol=1e-10, atol=1e-14), name
        assert value.grad.abs().sum() > 0


@pytest.mark.parametrize("rank", [1, 2, "full"])
def test_a_voice_gets_no_gradient_of_another(rank):
    states = made(rank=rank, n_voices=3)
    matrices = states.matrices(torch.tensor([2, 0, 2]))
    (matrices["gla.0"][0].sum() + matrices["gla.0"][1].sum() * float("inf")).backward()
    for name, value in states.named_parameters():
        if name.endswith("_0"):
            assert value.grad[2].abs().sum() > 0
            assert torch.equal(value.grad[1], torch.zeros_like(value.grad[1])), "nobody's"
            assert torch.isfinite(value.grad[2]).all(), "what went wrong in one voice stays there"
            assert not torch.isfinite(value.grad[0]).any()


def test_full_rank_starts_as_zeros_and_low_rank_almost():
    assert all(not matrix.any() for matrix in InitialStates(SHAPES, rank="full").matrices().values())
    wide = InitialStates({"a": (4, 100, 200)}, rank=10)
    u, w = wide.get_parameter("u_0"), wide.get_parameter("w_0")
    assert u.std().item() == pytest.approx(1.0, rel=0.05)
    assert w.std().item() == pytest.approx(0.02, rel=0.05)
    expected = 0.02 * 0.02 * 10**0.5  # scale, size of w, and the sum over the rank
    assert wide.matrices()["a"].std().item() == pytest.approx(expected, rel=0.1)


def test_voices_start_alike_by_the_seed_and_no_global_random_number_is_drawn():
    before = torch.get_rng_state()
    alone, company = InitialStates(SHAPES, rank=2, seed=5), InitialStates(SHAPES, rank=2, seed=5, n_voices=3)
    assert torch.equal(torch.get_rng_state(), before)
    for name in SHAPES:
        matrix = alone.matrices()[name]
        assert matrix.any()
        assert torch.equal(company.matrices(torch.arange(3))[name], matrix.expand(3, -1, -1, -1))
        assert not torch.equal(InitialStates(SHAPES, rank=2, seed=6).matrices()[name], matrix)
    assert not torch.equal(alone.get_parameter("u_0")[0, :, :, :2], alone.get_parameter("u_1")[0, :, :, :2])


@pytest.mark.parametrize("rank", [1, 3, "full"])
def test_tensors_of_a_voice_multiply_out_to_its_matrices(rank):
    states = made(rank=rank, n_voices=2, scale=0.3)
    for number in (0, 1):
        tensors = states.voice_tensors(number)
        for name, matrix in states.matrices(torch.tensor([number])).items():
            if rank == "full":
                again = tensors[name]
            else:
                assert tensors[f"{name}.u"].shape == (rank, SHAPES[name][0], SHAPES[name][1])
                again = torch.einsum("rhk,rhv->hkv", tensors[f"{name}.u"], tensors[f"{name}.w"])
            assert torch.allclose(again.double(), matrix[0], rtol=1e-5, atol=1e-6)
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    assert all(value.is_contiguous() and not value.requires_grad for value in tensors.values())


@pytest.mark.parametrize("rank", [1, 3, 16, "full"])
def test_a_voice_is_bit_for_bit_what_was_tuned_whatever_precision_is_allowed(rank):
    states = InitialStates({"gla.0": (2, 48, 96)}, rank=rank, n_voices=2, scale=0.3)
    numbers, before = torch.Generator().manual_seed(3), torch.get_float32_matmul_precision()
    with torch.no_grad():
        for value in states.parameters():
            value.copy_(torch.randn(value.shape, generator=numbers))
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            used = states.matrices(torch.tensor([1, 0]))["gla.0"]
    finally:
        torch.set_float32_matmul_precision(before)
    for row, number in enumerate((1, 0)):
        assert torch.equal(matrices_of(states.voice_tensors(number))["gla.0"], used[row])


def test_the_state_dict_of_the_module_around_does_not_know_them():
    module = nn.Sequential(nn.Linear(2, 2), InitialStates(SHAPES))
    assert set(module.state_dict()) == {"0.weight", "0.bias"}
    before = module[1].values()
    module.load_state_dict(nn.Sequential(nn.Linear(2, 2)).state_dict())  # strict
    assert all(torch.equal(value, before[name]) for name, value in module[1].values().items())
    assert len(list(module.parameters())) == 2 + 6


@pytest.mark.parametrize("rank", [2, "full"])
def test_values_come_back_for_all_voices_and_for_one(rank):
    states, other = made(rank=rank, n_voices=2), InitialStates(SHAPES, rank=rank, n_voices=2).double()
    start, rows = other.matrices(torch.arange(2)), torch.arange(2)
    other.load_values(states.values(1), 1)
    for name, matrix in other.matrices(rows).items():
        assert torch.equal(matrix[1], states.matrices(rows)[name][1])
        assert torch.equal(matrix[0], start[name][0])
    other.load_values(states.values())
    assert torch.equal(other.norms(), states.norms())
    other.clear(0)
    assert [bool(row.any()) for row in other.norms()] == [False, True]
    with pytest.raises(ValueError, match=r"`states` must be of shapes .* begin anew"):
        InitialStates(SHAPES, rank=5).load_values(states.values())


def test_values_are_copies():
    states = InitialStates(SHAPES)
    values = states.values()
    states.clear(0)
    assert all(value.any() for value in values.values())


@pytest.mark.parametrize("rank", [2, "full"])
def test_matrices_are_float32_under_autocast_and_of_half_parameters(rank):
    states = InitialStates(SHAPES, rank=rank)
    exact = states.matrices()["gla.0"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(states.matrices()["gla.0"], exact)
    assert states.bfloat16().matrices()["gla.0"].dtype == torch.float32


@pytest.mark.parametrize("rank", [1, 2, "full"])
def test_gradients_lie_in_memory_as_their_parameters_do(rank):
    states = InitialStates(SHAPES, rank=rank)
    sum(matrix.transpose(-1, -2).flatten(1).cumsum(1).sum() for matrix in states.matrices().values()).backward()
    assert all(value.grad.stride() == value.stride() for value in states.parameters())


def test_norms_are_those_of_the_matrices():
    states = made(rank=2, n_voices=2)
    matrices = states.matrices(torch.arange(2))
    expected = torch.stack([matrix.pow(2).sum((1, 2, 3)).sqrt() for matrix in matrices.values()], 1)
    assert torch.allclose(states.norms().double(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rank": 0}, "`rank` must be a whole number >= 1 or 'full', but got 0. Pass 1"),
        ({"rank": True}, "`rank` must be"),
        ({"rank": "half"}, "`rank` must be .* but got 'half'"),
        ({"n_voices": 0}, "`n_voices` must be a whole number >= 1, but got 0"),
        ({"scale": 0.0}, "`scale` must be a number > 0, but got 0.0. Pass 0.02"),
        ({"shapes": {}}, r"`shapes` must be at least one name -> \(H, K, V\)"),
        ({"shapes": {"a": (2, 3)}}, "`shapes` must be .* Return one"),
        ({"shapes": {"a": (2, 0, 3)}}, "`shapes` must be"),
    ],
)
def test_errors_say_what_to_do(options, match):
    with pytest.raises(ValueError, match=match):
        InitialStates(**{"shapes": SHAPES, **options})


def test_several_voices_need_rows():
    with pytest.raises(ValueError, match="`rows` must be given where there are 2 voices, but got None"):
        InitialStates(SHAPES, n_voices=2).matrices()
