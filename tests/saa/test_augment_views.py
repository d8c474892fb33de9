"""Views: both presets against a loop in Pillow, flags, geometry and refusals."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from examples.benchmarks import _saa_pil as pil
from lightning_adapt.saa.augment.rand_augment import BatchRandAugment
from lightning_adapt.saa.augment.views import Views
from tests.saa.parts_augment import augmented, from_pil, moved, pictures, to_pil

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
SOME = ["rgb 32", "rgb odd", "gray 28", "gray odd", "rgb tiny"]


def made(channels, preset="saa", **options):
    return Views(preset, mean=MEAN[:channels], std=STD[:channels], **options)


def same(ours, theirs, channels):
    expected = [pil.normalized(image, MEAN[:channels], STD[:channels]) for image in theirs]
    torch.testing.assert_close(ours, torch.stack([torch.from_numpy(each) for each in expected]), rtol=0, atol=2e-6)


def halves(first, second, pieces):
    """Both ways to regroup two pictures."""
    first, second = from_pil(first), from_pil(second)
    top, left = first.shape[1] // 2, first.shape[2] // 2
    ways = [first.clone(), first.clone()]
    if pieces == 2:
        ways[0][:, :, :left], ways[1][:, :top] = second[:, :, :left], second[:, :top]
    else:
        ways[0][:, :top, :left], ways[0][:, top:, left:] = second[:, :top, :left], second[:, top:, left:]
        ways[1][:, :top, left:], ways[1][:, top:, :left] = second[:, :top, left:], second[:, top:, :left]
    return [to_pil(way) for way in ways]


# -- against Pillow ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", SOME)
def test_plain_views_are_normalised(size):
    images = pictures(size)
    same(made(images.shape[1]).plain(images), map(to_pil, images), images.shape[1])


@pytest.mark.parametrize("preset", ["saa", "usb"])
@pytest.mark.parametrize("size", SOME)
def test_weak_views(size, preset):
    images = pictures(size)
    views, draws = made(images.shape[1], preset, seed=2), torch.arange(24) * 5
    for stream in (0, 1):
        theirs = [
            moved(to_pil(image), int(draw), stream, 2, 0.125, preset == "usb")
            for image, draw in zip(images, draws, strict=True)
        ]
        same(views.weak(images, draws, stream), theirs, images.shape[1])


@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("preset", ["saa", "usb"])
@pytest.mark.parametrize("size", SOME)
def test_strong_views(size, preset, pieces):
    images = pictures(size)
    channels = images.shape[1]
    views, draws = made(channels, preset, seed=2, pieces=pieces, padding=0.25), torch.arange(24) + 50
    flagged = torch.arange(24) % 3 == 0
    ours = views.strong(images, draws, flagged)
    for row, (image, draw) in enumerate(zip(images, draws.tolist(), strict=True)):

        def geometry(image, draw=draw):
            return moved(image, draw, 4, 2, 0.25, preset == "usb")

        source = from_pil(geometry(to_pil(image))) if preset == "usb" else image
        ways = [augmented(views.augment, source, draw, 2)]
        if flagged[row]:
            ways = halves(ways[0], augmented(views.augment, source, draw, 3), pieces)
        if preset == "saa":
            ways = [geometry(way) for way in ways]
        expected = torch.stack([torch.from_numpy(pil.normalized(way, MEAN[:channels], STD[:channels])) for way in ways])
        assert (expected - ours[row]).abs().flatten(1).amax(1).min() < 2e-6


# -- flags -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["saa", "usb"])
def test_flags_of_others_change_nothing(preset):
    images, draws, views = pictures("rgb odd"), torch.arange(24), made(3, preset)
    flagged = torch.arange(24) % 2 == 0
    without, none, some = (views.strong(images, draws, flags) for flags in (None, torch.zeros(24).bool(), flagged))
    assert torch.equal(without, none)
    assert torch.equal(without[~flagged], some[~flagged])
    differ = (without != some).flatten(1).any(1)
    assert differ[flagged].double().mean() > 0.9
    assert torch.equal(views.strong(images, draws, torch.ones(24).bool())[flagged], some[flagged])


def test_orientations_are_drawn_evenly():
    # each view is of one brightness, so that the pasted half shows
    images = torch.full((1, 1, 8, 8), 200, dtype=torch.uint8).expand(4000, -1, -1, -1)
    views = made(1, padding=0, flip=False)
    views.augment = BatchRandAugment(1, ops=["Brightness"], cutout=0)
    regrouped = views.strong(images, torch.arange(4000), torch.ones(4000).bool())
    corners = regrouped[:, 0, [0, 0, 7], [0, 7, 0]]
    left = (corners[:, 0] == corners[:, 2]) & (corners[:, 0] != corners[:, 1])
    top = (corners[:, 0] == corners[:, 1]) & (corners[:, 0] != corners[:, 2])
    assert int((left | top).sum()) > 3900  # the others drew one brightness twice
    assert abs(float(left.sum() / (left | top).sum()) - 0.5) < 0.03


# -- geometry ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["saa", "usb"])
def test_flips_and_crops_are_even_and_independent(preset):
    image = torch.arange(1, 241, dtype=torch.uint8).view(1, 1, 16, 15)  # every pixel has its own value
    n, pads = 6000, (2, 1)
    views = Views(preset, mean=[0.0], std=[1 / 255])
    ours = views.weak(image.expand(n, -1, -1, -1), torch.arange(n), 1).round().to(torch.uint8)
    ways = [
        from_pil(pil.flip_crop(to_pil(image[0]), bool(flip), top, left, pads, preset == "usb"))
        for flip in (0, 1)
        for top in range(5)
        for left in range(3)
    ]
    match = (ours[:, None] == torch.stack(ways)[None]).flatten(2).all(2)
    assert bool((match.sum(1) == 1).all())
    counts = match.sum(0).view(2, 5, 3)
    assert chisquare(counts.flatten()).pvalue > 0.01
    assert abs(float(counts[1].sum()) / n - 0.5) < 0.02


def test_weak_and_strong_views_move_independently():
    image = torch.arange(1, 241, dtype=torch.uint8).view(1, 1, 16, 15).expand(3000, -1, -1, -1)
    views = Views(mean=[0.0], std=[1 / 255], n_ops=0, cutout=0)
    draws = torch.arange(3000)
    seen = [views.weak(image, draws, 0), views.weak(image, draws, 1), views.strong(image, draws)]
    for first in range(3):
        for second in range(first):
            alike = (seen[first] == seen[second]).flatten(1).all(1).double().mean()
            assert abs(float(alike) - 1 / 30) < 0.015


def test_flip_and_padding_can_be_switched_off():
    images, views = pictures("rgb 32"), made(3, flip=False, padding=0.0)
    assert torch.equal(views.weak(images, torch.arange(24), 1), views.plain(images))


def test_borders_are_black_or_mirrored():
    white = torch.full((400, 1, 16, 16), 255, dtype=torch.uint8)
    draws = torch.arange(400)
    assert Views(mean=[0.5], std=[0.5]).weak(white, draws, 1).unique().tolist() == [-1.0, 1.0]
    assert Views("usb", mean=[0.5], std=[0.5]).weak(white, draws, 1).unique().tolist() == [1.0]


def test_no_pixel_is_read_on_the_host():
    images = torch.empty(200, 3, 32, 32, dtype=torch.uint8, device="meta")
    for preset in ("saa", "usb"):
        views = made(3, preset).to("meta")
        seen = (
            views.strong(images, torch.arange(200), torch.arange(200) % 2 == 0),
            views.weak(images, torch.arange(200), 1),
        )
        assert all(view.device.type == "meta" and view.shape == images.shape for view in seen)


def test_views_carry_no_state_but_the_count():
    assert list(made(3).state_dict()) == ["augment._extra_state"]


# -- refusals ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"preset": "rac"}, ValueError, "`preset` must be one of 'saa', 'usb', but got 'rac'"),
        ({"mean": [0.5, 0.5]}, ValueError, "`mean` must be 1 or 3 finite numbers"),
        ({"mean": [0.5]}, ValueError, "`std` must be 1 numbers > 0"),
        ({"std": [0.5, 0.0, 0.5]}, ValueError, "`std` must be 3 numbers > 0"),
        ({"padding": 0.6}, ValueError, r"`padding` must be a number in \[0, 0.5\], but got 0.6"),
        ({"padding": "4"}, TypeError, "`padding`"),
        ({"pieces": 3}, ValueError, "`pieces` must be 2 or 4, but got 3"),
        ({"flip": 1}, TypeError, "`flip` must be True or False, but got 1"),
        ({"n_ops": -1}, ValueError, "`n_ops`"),
        ({"seed": -1}, ValueError, "`seed`"),
    ],
)
def test_wrong_arguments_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        Views(**{"mean": MEAN, "std": STD, **options})


@pytest.mark.parametrize(
    ("images", "draws", "flagged", "error", "text"),
    [
        (torch.zeros(2, 3, 8, 8), torch.arange(2), None, TypeError, "`images` must be of dtype uint8"),
        (torch.zeros(2, 1, 8, 8).byte(), torch.arange(2), None, ValueError, "`images` must be of 3 channels"),
        (torch.zeros(2, 3, 8, 8).byte(), torch.arange(3), None, ValueError, "`draws` must be"),
        (torch.zeros(2, 3, 8, 8).byte(), -torch.arange(2), None, ValueError, "`draws` must be numbers >= 0"),
        (torch.zeros(2, 3, 8, 8).byte(), torch.arange(2), torch.arange(2), TypeError, "`flagged` must be a bool"),
        (torch.zeros(2, 3, 8, 8).byte(), torch.arange(2), torch.ones(3).bool(), ValueError, "`flagged` must be"),
    ],
)
def test_wrong_batches_are_refused(images, draws, flagged, error, text):
    with pytest.raises(error, match=text):
        made(3).strong(images, draws, flagged)
