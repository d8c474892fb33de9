"""BatchRandAugment: what is drawn, what an image depends on, state and refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.stats import chi2_contingency, chisquare

from lightning_adapt.saa.augment.operations import OPS, RANGES
from lightning_adapt.saa.augment.rand_augment import BatchRandAugment
from tests.saa.parts_augment import SIZES, augmented, from_pil, pictures

MANY = torch.arange(6000)


# -- the whole pipeline ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_ops", [1, 3, 6])
@pytest.mark.parametrize("size", SIZES)
def test_operations_and_cutout_give_the_bytes_of_pillow(size, n_ops):
    images, augment = pictures(size), BatchRandAugment(n_ops, seed=5)
    draws = torch.arange(len(images)) * 7 + 3
    ours = augment(images, draws, stream=3)
    theirs = [from_pil(augmented(augment, image, int(draw), 3)) for image, draw in zip(images, draws, strict=True)]
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=0)


def test_cutout_alone_erases_the_card_s_square():
    images = torch.full((4000, 3, 20, 24), 9, dtype=torch.uint8)
    augment = BatchRandAugment(0)
    erased = augment(images, torch.arange(4000))
    box = (erased != 9).any(1)
    assert torch.equal(erased.permute(1, 0, 2, 3)[:, box].unique(dim=1), torch.tensor([[125], [123], [114]]).byte())
    square = augment.drawn(torch.arange(4000)).square
    sides = square[:, 0] * 12
    lefts = np.floor(np.maximum(0, square[:, 1] * 24 - sides / 2))
    widths = box.any(1).sum(1).numpy()
    assert (widths == np.minimum(24 - lefts, np.floor(sides) + 1)).all()
    assert abs(box.any(1).int().argmax(1).numpy() - lefts).max() == 0
    assert 5.5 < widths.mean() < 6.5  # sides are uniform up to half of the width
    assert not torch.equal(erased[0], images[0])
    assert torch.equal(BatchRandAugment(0, cutout=0)(images, torch.arange(4000)), images)


def test_gray_pictures_are_filled_with_the_brightness_of_the_colour():
    filled = BatchRandAugment(0, fill=(255, 0, 0))(torch.zeros(50, 1, 16, 16, dtype=torch.uint8), torch.arange(50))
    assert filled.unique().tolist() == [0, 76]


def test_the_pool_can_be_cut_down():
    images, draws = pictures("rgb 32"), torch.arange(24)
    assert torch.equal(BatchRandAugment(5, ops=["Identity"], cutout=0)(images, draws), images)
    drawn = BatchRandAugment(ops=("Rotate", "Rotate", "Solarize")).drawn(MANY)
    names = np.array(OPS)[drawn.codes.ravel()]
    assert set(names) == {"Rotate", "Solarize"}
    assert 0.64 < (names == "Rotate").mean() < 0.69


# -- what is drawn -----------------------------------------------------------------------------------------------------
def test_operations_are_uniform_in_every_layer_and_together():
    codes = BatchRandAugment().drawn(MANY).codes
    assert codes.shape == (3, len(MANY))
    for layer in (*codes, codes.ravel()):
        assert chisquare(np.bincount(layer, minlength=14)).pvalue > 0.01


@pytest.mark.parametrize("name", [name for name in OPS if RANGES[name] != (0.0, 0.0)])
def test_values_fill_their_range_evenly(name):
    drawn = BatchRandAugment(ops=[name]).drawn(MANY)
    (low, high), values = RANGES[name], drawn.values.ravel()
    assert values.min() >= low
    assert values.max() < high
    if name == "Posterize":
        values = values + 0.5
    counts = np.histogram(values, bins=8 if name != "Posterize" else 4, range=(low, high))[0]
    assert chisquare(counts).pvalue > 0.01


def dependence(first, second):
    table = np.zeros((14, 14))
    np.add.at(table, (first, second), 1)
    return chi2_contingency(table).pvalue


def test_images_layers_streams_and_seeds_are_independent():
    augment = BatchRandAugment()
    drawn, again = augment.drawn(MANY), augment.drawn(MANY, stream=3)
    other = BatchRandAugment(seed=1).drawn(MANY)
    pairs = {
        "neighbours": (drawn.codes[0, :-1], drawn.codes[0, 1:]),
        "layers": (drawn.codes[0], drawn.codes[1]),
        "streams": (drawn.codes[0], again.codes[0]),
        "seeds": (drawn.codes[0], other.codes[0]),
    }
    for name, pair in pairs.items():
        assert dependence(*pair) > 0.01, name
    numbers = np.vstack([drawn.square.T, again.square.T, other.square.T, np.roll(drawn.square.T, 1, axis=1)])
    correlations = np.corrcoef(numbers) - np.eye(len(numbers))
    assert abs(correlations).max() < 4 / np.sqrt(len(MANY))


def test_ranks_are_independent_where_their_draws_differ():
    augment, images = BatchRandAugment(), pictures("rgb 32")[:1].expand(64, -1, -1, -1)
    even, odd = augment(images, torch.arange(0, 128, 2)), augment(images, torch.arange(1, 128, 2))
    assert not any(torch.equal(a, b) for a, b in zip(even, odd, strict=True))
    first, second = augment.drawn(MANY * 2), augment.drawn(MANY * 2 + 1)
    assert dependence(first.codes[0], second.codes[0]) > 0.01
    assert abs(np.corrcoef(first.values[0] / 1.0, second.values[0])[0, 1]) < 4 / np.sqrt(len(MANY))


# -- what an image depends on ------------------------------------------------------------------------------------------
def test_an_image_depends_on_seed_stream_and_draw_alone():
    images, draws = pictures("rgb odd"), torch.arange(24) + 100
    views = BatchRandAugment(seed=3)(images, draws)
    assert torch.equal(BatchRandAugment(seed=3)(images, draws), views)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(BatchRandAugment(seed=3)(images[order], draws[order]), views[order])
    assert torch.equal(BatchRandAugment(seed=3)(images[5:6], draws[5:6]), views[5:6])
    for other in (
        BatchRandAugment(seed=4)(images, draws),
        BatchRandAugment(seed=3)(images, draws, stream=3),
        BatchRandAugment(seed=3)(images, draws + 24),
    ):
        assert not torch.equal(other, views)


def test_global_random_numbers_are_left_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    BatchRandAugment()(pictures("rgb 32"))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_no_pixel_is_read_on_the_host():
    # a tensor on this device has no values: whatever asks for one raises
    for channels in (1, 3):
        images = torch.empty(200, channels, 32, 32, dtype=torch.uint8, device="meta")
        out = BatchRandAugment().to("meta")(images, torch.arange(200))
        assert out.device.type == "meta"
        assert out.shape == images.shape


def test_an_empty_batch_stays_empty():
    assert BatchRandAugment()(torch.empty(0, 3, 8, 8, dtype=torch.uint8)).shape == (0, 3, 8, 8)


# -- without draw numbers ----------------------------------------------------------------------------------------------
def test_without_draws_it_counts_and_the_count_is_saved():
    images = pictures("rgb 32")
    augment = BatchRandAugment()
    first = augment(images)
    saved = copy.deepcopy(augment.state_dict())
    second = augment(images)
    assert torch.equal(first, augment(images, torch.arange(24)))
    assert torch.equal(second, augment(images, torch.arange(24, 48)))
    resumed = BatchRandAugment()
    resumed.load_state_dict(saved)
    assert torch.equal(resumed(images), second)
    assert list(saved) == ["_extra_state"]
    assert saved["_extra_state"] == {"version": 1, "seen": 24}
    with pytest.raises(ValueError, match="has version 2, but this release reads up to 1"):
        resumed.set_extra_state({"version": 2, "seen": 0})


def test_without_draws_ranks_share_the_numbers(monkeypatch):
    images = pictures("rgb 32")
    together = BatchRandAugment()
    expected = [together(images) for _ in range(2)]
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        alone = BatchRandAugment()
        for whole in expected:
            assert torch.equal(alone(images[rank::2]), whole[rank::2])
        assert alone.get_extra_state()["seen"] == 48


# -- refusals ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("images", "error", "text"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), TypeError, "`images` must be a uint8 tensor"),
        (torch.zeros(2, 3, 8, 8), TypeError, "`images` must be of dtype uint8, but got torch.float32"),
        (torch.zeros(2, 8, 8, 3).byte(), ValueError, r"must be of shape \(B, 1, H, W\) or \(B, 3, H, W\)"),
        (torch.zeros(3, 8, 8).byte(), ValueError, r"but got \(3, 8, 8\)"),
        (torch.zeros(2, 3, 0, 8).byte(), ValueError, "must be of 1 to 8192 pixels a side"),
        (torch.zeros(1, 1, 1, 8193).byte(), ValueError, "must be of 1 to 8192 pixels a side"),
    ],
)
def test_what_is_no_raw_batch_is_refused(images, error, text):
    with pytest.raises(error, match=text):
        BatchRandAugment()(images)


@pytest.mark.parametrize(
    ("draws", "error", "text"),
    [
        ([0] * 24, TypeError, r"`draws` must be an int64 tensor of shape \(24,\) on the CPU"),
        (torch.zeros(24), TypeError, "but got torch.float32"),
        (torch.zeros(23).long(), ValueError, r"but got \(23,\)"),
        (torch.zeros(24, device="meta").long(), ValueError, "but got device.*Keep it on the CPU"),
        (torch.arange(24) - 1, ValueError, "`draws` must be numbers >= 0, but got -1"),
    ],
)
def test_wrong_draws_are_refused(draws, error, text):
    with pytest.raises(error, match=text):
        BatchRandAugment()(pictures("rgb 32"), draws)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n_ops": -1}, ValueError, "`n_ops` must be a whole number >= 0, but got -1"),
        ({"n_ops": 1.5}, TypeError, "`n_ops`"),
        ({"ops": ()}, ValueError, "`ops` must be names out of"),
        ({"ops": ("Rotate", "Blur")}, ValueError, "but got .*Blur"),
        ({"cutout": 1.5}, ValueError, r"`cutout` must be a number in \[0, 1\], but got 1.5"),
        ({"fill": (1, 2)}, ValueError, "`fill` must be three whole numbers"),
        ({"fill": (1, 2, 256)}, ValueError, "`fill` must be a whole number from 0 to 255, but got 256"),
        ({"fill": "red"}, ValueError, "`fill` must be three whole numbers"),
        ({"seed": -1}, ValueError, "`seed`"),
    ],
)
def test_wrong_arguments_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        BatchRandAugment(**options)


def test_a_wrong_stream_is_refused():
    with pytest.raises(ValueError, match="`stream` must be a whole number >= 0, but got -1"):
        BatchRandAugment()(pictures("rgb 32"), torch.arange(24), stream=-1)
