"""Each operation against Pillow on real pictures, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.benchmarks import _saa_pil as pil
from lightning_adapt.saa.augment.operations import ALLOWED, OPS, RANGES
from lightning_adapt.saa.augment.rand_augment import BatchRandAugment
from tests.saa.parts_augment import SIZES, from_pil, pictures, to_pil

# what the ranges leave out and Pillow accepts
EDGES = {
    **dict.fromkeys(("Brightness", "Contrast", "Color", "Sharpness"), (0.0, 0.5, 1.0, 1.7)),
    **dict.fromkeys(("ShearX", "ShearY", "TranslateX", "TranslateY"), (-1.0, -0.5, 0.0, 0.5, 1.0)),
    "Posterize": (1, 4, 8),
    "Rotate": (-90.0, -45.0, 0.0, 30.0),
    "Solarize": (0.0, 1.0, 127.5, 255.0, 256.0),
}


def values_of(name, n):
    low, high = pil.LIMITS[name]
    values = np.random.default_rng(OPS.index(name)).uniform(low, high, n)
    edges = EDGES.get(name, ())
    values[: len(edges)] = edges
    return np.floor(values) if name == "Posterize" else values


def test_the_pool_is_that_of_the_reference():
    assert set(OPS) == set(pil.OPERATIONS)
    assert len(OPS) == 14
    assert {name: RANGES[name] for name in OPS} == {name: pil.LIMITS[name] for name in OPS}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPS)
def test_an_operation_gives_the_bytes_of_pillow(name, size):
    images = pictures(size)
    values = values_of(name, len(images))
    ours = BatchRandAugment().apply_op(images, name, torch.from_numpy(values) if name in ALLOWED else None)
    theirs = [
        from_pil(pil.OPERATIONS[name](to_pil(image), value))
        for image, value in zip(images, values.tolist(), strict=True)
    ]
    assert ours.dtype == torch.uint8
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=0)


def test_the_operations_change_the_pictures():
    images = pictures("rgb 32")
    for name in set(OPS) - {"Identity"}:
        values = torch.full((len(images),), {"Posterize": 4, "Solarize": 20, "Rotate": 20}.get(name, 0.3))
        ours = BatchRandAugment().apply_op(images, name, values if name in ALLOWED else None)
        changed = (ours != images).flatten(1).any(1).double().mean()
        assert changed > (0.2 if name == "AutoContrast" else 0.9), name  # some crops already use all of 0..255


@pytest.mark.parametrize("fill", [0, 7, 255])
@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Contrast", "Sharpness", "Color"])
def test_pictures_of_one_colour(name, fill):
    images = torch.full((2, 3, 9, 9), fill, dtype=torch.uint8)
    values = torch.tensor([0.05, 0.9], dtype=torch.float64)
    ours = BatchRandAugment().apply_op(images, name, values if name in ALLOWED else None)
    theirs = [from_pil(pil.OPERATIONS[name](to_pil(image), float(v))) for image, v in zip(images, values, strict=True)]
    assert torch.equal(ours, torch.stack(theirs))


def test_equalize_of_few_pixels_saturates_as_pillow_does():
    images = torch.arange(18 * 18, dtype=torch.int64).remainder(256).to(torch.uint8).view(1, 1, 18, 18)
    ours = BatchRandAugment().apply_op(images, "Equalize")
    assert torch.equal(ours[0], from_pil(pil.OPERATIONS["Equalize"](to_pil(images[0]), None)))


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
@pytest.mark.parametrize("shape", [(3, 8192), (8192, 3)])
def test_coordinates_of_the_largest_pictures_fit(name, shape):
    image = torch.arange(3 * 8192).remainder(251).to(torch.uint8).view(1, 1, *shape)
    for value in ALLOWED[name]:
        ours = BatchRandAugment().apply_op(image, name, torch.tensor([value]))
        assert torch.equal(ours[0], from_pil(pil.OPERATIONS[name](to_pil(image[0]), value)))


def test_gray_pictures_have_no_colour_to_lose():
    images = pictures("gray 28")
    assert torch.equal(BatchRandAugment().apply_op(images, "Color", torch.full((len(images),), 0.1)), images)


@pytest.mark.parametrize("size", ["rgb odd", "gray odd"])
def test_any_memory_layout_will_do(size):
    images = pictures(size)
    augment, draws = BatchRandAugment(), torch.arange(len(images))
    expected = augment(images, draws)
    wide = torch.zeros(*images.shape[:3], 2 * images.shape[3], dtype=torch.uint8)
    wide[..., ::2] = images
    for other in (images.contiguous(memory_format=torch.channels_last), wide[..., ::2]):
        assert torch.equal(augment(other, draws), expected)
        assert torch.equal(other, images)  # left alone


@pytest.mark.parametrize(
    ("name", "magnitude", "text"),
    [
        ("Blur", None, "`ops` must be names out of AutoContrast, .*but got"),
        ("Rotate", None, "`magnitude` must be a tensor for Rotate, but got None"),
        ("Identity", torch.zeros(24), "`magnitude` must be None for Identity"),
        ("Rotate", torch.full((24,), 91.0), "`magnitude` must be from -90 to 90 for Rotate, but got 91.0"),
        ("ShearX", torch.full((24,), float("nan")), "`magnitude` must be from -1 to 1 for ShearX, but got nan"),
        ("Posterize", torch.full((24,), 4.5), "`magnitude` must be whole and from 1 to 8 for Posterize, but got 4.5"),
        ("Posterize", torch.full((24,), 0), "but got 0"),
        ("Brightness", torch.ones(23), r"of shape \(24,\) on the CPU, but got"),
        ("Brightness", torch.ones(24, device="meta"), "on the CPU, but got"),
    ],
)
def test_a_wrong_value_is_refused(name, magnitude, text):
    with pytest.raises(ValueError, match=text):
        BatchRandAugment().apply_op(pictures("rgb 32"), name, magnitude)


def test_a_number_for_all_images_is_refused():
    with pytest.raises(TypeError, match=r"`magnitude` must be a tensor, but got 0\.5"):
        BatchRandAugment().apply_op(pictures("rgb 32"), "Brightness", 0.5)
