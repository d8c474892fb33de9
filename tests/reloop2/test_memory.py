"""ErrorMemory as its users see it: what it leaves alone, what it corrects, and in which surroundings it works."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from lightning_adapt.reloop2.memory import ErrorMemory
from tests.reference import reloop2 as reference
from tests.reloop2.memory_parts import BACKENDS, rows, same, small

KINDS = {"binary": ("probability", "logit"), "regression": ("regression",)}


def outputs(n: int, kind: str) -> torch.Tensor:
    draws = torch.Generator().manual_seed(7)
    return torch.rand(n, generator=draws) if kind == "probability" else 3 * torch.randn(n, generator=draws)


def filled(backend: str, **changed):
    memory = small(backend, **changed)
    memory.calibrate(rows(200, seed=5)[0])
    memory.write(*rows(120))
    return memory


# -- exactness --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("task", "kind"), [(task, kind) for task, kinds in KINDS.items() for kind in kinds])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_an_empty_memory_and_lambda_zero_change_no_bit(backend, task, kind, dtype):
    output, keys = outputs(30, kind).to(dtype), rows(30, seed=2)[0]
    empty, idle = small(backend, task=task), filled(backend, task=task, lam=0.0)
    for memory in (empty, idle, empty.empty_copy()):
        result = memory.compensate(output, keys, kind)
        assert torch.equal(result, output)
        assert result.dtype == dtype
    busy = filled(backend, task=task)
    assert not torch.equal(busy.compensate(output, keys, kind), output)
    busy.reset()
    assert torch.equal(busy.compensate(output, keys, kind), output)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lam", [0.1, 0.4, 0.9])
def test_gamma_one_is_an_ensemble_with_the_neighbours_label(backend, lam):
    memory, keys, p = (
        filled(backend, gamma=1.0, support_n0=0.0, lam=lam),
        rows(40, seed=2)[0],
        outputs(40, "probability"),
    )
    label, _, support = memory.read(keys)
    assert (support > 0).all()
    assert (memory.compensate(p, keys) - ((1 - lam) * p + lam * label)).abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gamma", [0.0, 0.7])
@pytest.mark.parametrize("n0", [0.0, 3.0])
@pytest.mark.parametrize("kind", ["probability", "logit"])
def test_a_correction_equals_the_reference(backend, gamma, n0, kind):
    memory, keys = filled(backend, gamma=gamma, support_n0=n0, lam=0.6), rows(40, seed=2)[0]
    output = outputs(40, kind)
    base = output.sigmoid() if kind == "logit" else output
    expected = []
    for row, reading in enumerate(zip(*(part.tolist() for part in memory.read(keys)), strict=True)):
        error = reference.error_estimate(reading[0], reading[1], base[row].item(), gamma)
        error = reference.gated(error, reading[2], n0)
        expected.append(reference.compensate(output[row].item(), error, 0.6, kind, 1e-6))
    np.testing.assert_allclose(memory.compensate(output, keys, kind).numpy(), expected, atol=2e-5)


def test_whitened_neighbours_equal_the_reference():
    memory = small("knn", max_dim=4)
    training, data, queries = rows(200, seed=5)[0], rows(70), rows(20, seed=2)[0]
    memory.calibrate(training[:90])
    memory.calibrate(training[90:])
    memory.write(*data)
    whitened = reference.whiten(training.numpy(), torch.cat((data[0], queries)).numpy(), 4)
    samples = list(zip(whitened[20:70], data[1][20:].tolist(), data[2][20:].tolist(), strict=True))
    expected = [reference.neighbours_read(samples, query, 5, 0.1) for query in whitened[70:]]
    np.testing.assert_allclose(torch.stack(memory.read(queries), 1).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_signals_made_before_a_write_correct_after_it(backend):
    memory, keys, p = filled(backend), rows(10, seed=2)[0], outputs(10, "probability")
    served = memory.compensate(p, keys)
    signals = memory.signals(keys, p)
    assert signals.shape == (10, 1)
    memory.write(*rows(60, seed=3), signals=torch.zeros(60, 1))
    assert torch.equal(memory.correct(p, signals), served)
    assert not torch.equal(memory.compensate(p, keys), served)


@pytest.mark.parametrize("backend", BACKENDS)
def test_how_it_is_written_does_not_depend_on_the_batches(backend):
    whole, parts = (small(backend, whiten=False, capacity=200) for _ in range(2))
    data, keys = rows(130), rows(20, seed=2)[0]
    whole.write(*data)
    for part in zip(*(torch.split(values, 9) for values in data), strict=True):
        parts.write(*part)
    for mine, its in zip(whole.read(keys), parts.read(keys), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n0", [0.0, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_a_key_without_support_is_served_the_base_prediction(n0, gamma):
    memory = small("sketch", whiten=False, support_n0=n0, gamma=gamma, n_bits=16)
    key, p = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]), torch.tensor([0.25, 0.25])
    memory.write(key[:1], torch.tensor([1.0]), torch.tensor([0.5]))
    served = memory.compensate(p, key)
    assert served[0] > 0.25
    assert served[1] == 0.25
    assert memory.estimate(key, p)[1] == 0


def test_without_feedback_the_sketch_lets_go():
    """As other keys are written, the support of what is not seen again fades, and the base prediction returns."""
    memory = small("sketch", half_life=5.0, n_bits=12, whiten=False)
    key, p = torch.tensor([[1.0, 0, 0]]), torch.tensor([0.5])
    memory.write(key, torch.tensor([1.0]), p)
    corrections = []
    for _ in range(12):
        corrections.append(memory.compensate(p, key).item() - 0.5)
        memory.write(-key.expand(5, -1), torch.zeros(5), torch.zeros(5))
    assert all(later < before for before, later in pairwise(corrections) if before > 0)
    assert corrections[-1] == 0


# -- surroundings -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
def test_inference_mode_autocast_and_gradients_make_no_difference(backend):
    data, keys, p = rows(60), rows(20, seed=2)[0], outputs(20, "probability")
    plain, elsewhere = small(backend), small(backend)
    plain.calibrate(data[0])
    plain.write(*data)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        elsewhere.calibrate(data[0].clone())  # an inference tensor
        elsewhere.write(*(values[:30].clone() for values in data))
    elsewhere.write(*(values[30:] for values in data))
    with torch.inference_mode():
        inside = elsewhere.compensate(p, keys)
        elsewhere.state_dict()
    wanting = keys.clone().requires_grad_()
    outside = elsewhere.compensate(p, wanting)
    assert torch.equal(inside, outside)
    assert not outside.requires_grad
    torch.testing.assert_close(outside, plain.compensate(p, keys), atol=1e-5, rtol=0)
    elsewhere.reset()
    elsewhere.write(*data)
    assert same(elsewhere.read(keys), plain.read(keys))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_computed_in_float32(backend, dtype):
    memory, (keys, labels, base) = small(backend, whiten=False), rows(60)
    memory.write(keys.to(dtype), labels.to(dtype), base.to(dtype))
    output = outputs(20, "logit").to(dtype)
    result = memory.compensate(output, keys[:20].to(dtype), "logit")
    assert result.dtype == dtype
    exact = small(backend, whiten=False)
    exact.write(keys.to(dtype).float(), labels, base.to(dtype).float())
    expected = exact.compensate(output.float(), keys[:20].to(dtype).float(), "logit")
    if dtype == torch.float64:
        torch.testing.assert_close(result.float(), expected)
    else:
        assert torch.equal(result, expected.to(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_columns_and_whole_labels_are_taken(backend):
    memory, (keys, labels, base) = small(backend, whiten=False), rows(60)
    memory.write(keys, labels.long(), base)
    other = small(backend, whiten=False)
    other.write(keys, labels.bool(), base)
    p = outputs(60, "probability")
    column = memory.compensate(p.unsqueeze(1), keys)
    assert column.shape == (60, 1)
    assert torch.equal(column[:, 0], other.compensate(p, keys))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_read_or_write_is_fine(backend):
    memory, none = filled(backend), torch.empty(0)
    written = memory.n_written
    memory.write(torch.empty(0, 8), none, none)
    assert memory.n_written == written
    assert [len(part) for part in memory.read(torch.empty(0, 8))] == [0, 0, 0]
    assert memory.compensate(none, torch.empty(0, 8)).shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_and_pickles_are_memories_of_their_own(backend):
    memory, keys = filled(backend), rows(20, seed=2)[0]
    before = memory.read(keys)
    for twin in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert same(twin.read(keys), before)
        twin.write(*rows(60, seed=3))
        assert not same(twin.read(keys), before)
    assert same(memory.read(keys), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_memory_in_half_precision_is_refused(backend):
    memory = filled(backend).half()
    with pytest.raises(TypeError, match=r"`memory` must be kept in float32, but got torch.float16.*memory.float\(\)"):
        memory.read(rows(3)[0])


# -- whitening and resets ---------------------------------------------------------------------------------------------
def test_the_first_keys_written_calibrate_when_nobody_else_does():
    memory, data = small("knn"), rows(60)
    keys = rows(5, seed=2)[0]
    assert not memory.is_calibrated
    memory.read(keys)
    assert not memory.is_calibrated
    memory.write(*data)
    assert memory.is_calibrated
    told = small("knn")
    told.calibrate(data[0])
    told.write(*data)
    assert same(memory.read(keys), told.read(keys))


def test_few_rows_to_calibrate_with_are_warned_about():
    with pytest.warns(UserWarning, match=r"8 features are whitened by the statistics of the first 3 rows.*calibrate"):
        small("knn").write(*rows(3))
    small("knn", whiten=False).write(*rows(3))
    small("knn").write(*rows(8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_a_reset_it_is_a_new_memory_with_the_old_whitening_until_it_is_calibrated(backend):
    memory, fresh, keys = filled(backend), small(backend), rows(20, seed=2)[0]
    memory.reset()
    assert memory.n_written == 0
    memory.write(*rows(60, seed=3))
    fresh.calibrate(rows(200, seed=5)[0])
    fresh.write(*rows(60, seed=3))
    assert same(memory.read(keys), fresh.read(keys))
    memory.reset()
    memory.calibrate(rows(300, seed=7)[0])
    memory.reset()
    fresh = small(backend)
    for either in (memory, fresh):
        either.calibrate(rows(300, seed=6)[0])
        either.write(*rows(60, seed=4))
    assert same(memory.read(keys), fresh.read(keys))


@pytest.mark.parametrize("backend", BACKENDS)
def test_shards_merge_into_the_memory_of_all(backend):
    whole, first = small(backend, half_life=None), small(backend, half_life=None)
    for memory in (whole, first):
        memory.calibrate(rows(200, seed=5)[0])
    second, data, keys = first.empty_copy(), rows(45), rows(20, seed=2)[0]
    whole.write(*data)
    first.write(*(values[:20] for values in data))
    second.write(*(values[20:] for values in data))
    assert first.merge_(second) is first
    assert first.n_written == 45
    for mine, its in zip(first.read(keys), whole.read(keys), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-5, rtol=0)
    blank = small(backend, half_life=None)
    blank.merge_(first.empty_copy())
    assert not blank.n_written
    blank.merge_(first)  # takes over the whitening, too
    torch.testing.assert_close(torch.stack(blank.read(keys)), torch.stack(first.read(keys)))


# -- presets and sizes ------------------------------------------------------------------------------------------------
def test_the_presets_of_the_paper():
    memory = ErrorMemory.paper()
    assert memory.settings.backend == "sketch"
    assert (memory.settings.k, memory.settings.n_tables, memory.settings.n_bits, memory.settings.lam) == (
        70,
        70,
        16,
        0.4,
    )
    assert (memory.settings.gamma, memory.settings.support_n0, memory.settings.half_life) == (1, 0, None)
    assert memory.nbytes == 2**16 * 70 * 12
    keys, labels, base = rows(200)
    memory.write(keys, labels, base)
    p = torch.rand(200)
    assert (memory.compensate(p, keys) - (0.6 * p + 0.4 * memory.read(keys).label)).abs().max() < 1e-6
    amazon = ErrorMemory.paper(8, tuned_on="amazon", backend="knn", lam=0.5)
    assert (amazon.dim, amazon.settings.k, amazon.settings.lam, amazon.settings.backend) == (8, 180, 0.5, "knn")
    with pytest.raises(ValueError, match=r"`tuned_on` must be one of 'microvideo', 'amazon', but got 'kuai'"):
        ErrorMemory.paper(tuned_on="kuai")


def test_sizes_are_told():
    sketch = ErrorMemory(64, backend="sketch")
    assert sketch.nbytes == 2**12 * 64 * 12
    keys, labels, base = rows(1000, 64)
    sketch.write(keys, labels, base)
    assert sketch.nbytes == 2**12 * 64 * 12
    assert sketch.fixed_nbytes == 64 * 64 * 12 * 4 + (64 + 64 * 64) * 4
    neighbours = ErrorMemory(64, capacity=500)
    neighbours.write(keys, labels, base)
    assert neighbours.nbytes == 500 * (64 * 4 + 8)
    near = filled("faiss")
    assert near.nbytes >= 50 * (8 * 4 + 8)


def test_signals_with_encoded_keys_spare_work_and_change_nothing():
    draws = torch.Generator().manual_seed(0)
    keys, chance = torch.randn(90, 6, generator=draws), torch.rand(90, generator=draws)
    labels = chance.round()
    for backend in ("knn", "sketch", "faiss"):
        plain, spared = (ErrorMemory(backend=backend, k=5, n_bits=4, n_tables=8) for _ in range(2))
        for part in torch.arange(90).split(30):
            one = plain.signals(keys[part], chance[part])
            two = spared.signals(keys[part], chance[part], units=True)
            assert torch.equal(one[:, 0], two[:, 0])
            assert two.shape[1] == (7 if spared.n_written else 1)
            assert torch.equal(plain.correct(chance[part], one), spared.correct(chance[part], two))
            plain.write(keys[part], labels[part], chance[part], one)
            spared.write(keys[part], labels[part], chance[part], two)
        assert torch.equal(plain.estimate(keys, chance), spared.estimate(keys, chance))
        for memory, signals in ((plain, None), (spared, two[:1].expand(90, -1))):  # not trusted after a reset
            memory.reset()
            memory.write(keys, labels, chance, signals)
        assert torch.equal(plain.estimate(keys, chance), spared.estimate(keys, chance))
