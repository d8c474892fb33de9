"""Who makes weak and strong views in the benchmark of their speed: ours on batches, the others image by image."""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from unittest import mock

import _harness as h
import _saa_pil as p
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from lightning_adapt.saa.augment.views import Views

METRIC = "microseconds an image"
OURS, PILLOW, TORCHVISION, KORNIA = "ours", "Pillow", "torchvision v2", "kornia"
BOTH, WEAK, STRONG = "weak + strong", "weak", "strong"
SAA, REGROUPED = "weak + strong, preset saa", "weak + strong, preset saa, all regrouped"
TWO_THREADS, TWO_PROCESSES = "ours on two threads", "Pillow in two processes"
SMALL, LARGE, GRAY = "32x32 RGB", "96x96 RGB", "28x28 gray"
# name -> images in a batch, height, width, channels; 448 is FixMatch's unlabelled batch
SHAPES = {SMALL: (448, 32, 32, 3), LARGE: (64, 96, 96, 3), GRAY: (448, 28, 28, 1)}
REPEATS = 4  # batches of ours in one measurement: one takes too short a time for the clock of a busy machine
N_OPS = 3
_STREAM = 1


class Row(NamedTuple):
    """One thing to measure.

    Attributes:
        who: Who makes the views.
        what: Which views.
        shape: Key of `SHAPES`.
    """

    who: str
    what: str
    shape: str

    def __str__(self) -> str:
        return f"{self.who}: {self.what}, {self.shape}"


# rows that are compared stand beside each other, so that a slow moment of the machine hits both
ROWS = {
    str(row): row
    for row in (
        Row(OURS, BOTH, SMALL),
        Row(PILLOW, BOTH, SMALL),
        Row(TORCHVISION, BOTH, SMALL),
        Row(KORNIA, STRONG, SMALL),
        Row(OURS, WEAK, SMALL),
        Row(PILLOW, WEAK, SMALL),
        Row(OURS, STRONG, SMALL),
        Row(PILLOW, STRONG, SMALL),
        Row(OURS, SAA, SMALL),
        Row(OURS, REGROUPED, SMALL),
        Row(OURS, BOTH, LARGE),
        Row(PILLOW, BOTH, LARGE),
        Row(OURS, BOTH, GRAY),
        Row(PILLOW, BOTH, GRAY),
        Row(TWO_THREADS, BOTH, SMALL),
        Row(TWO_PROCESSES, BOTH, SMALL),
    )
}


def measured_rows() -> list[str]:
    """Return the rows that can be measured here: kornia's only where it is installed, which nothing of ours needs."""
    return [name for name, row in ROWS.items() if row.who != KORNIA or importlib.util.find_spec("kornia")]


def pictures(shape: str, seed: int = 0) -> Tensor:
    """Return crops of scikit-learn's two photographs, shape (n, C, H, W), uint8."""
    n, height, width, channels = SHAPES[shape]
    photos, places = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")], np.random.default_rng(seed)
    crops = []
    for number in range(n):
        photo = photos[number % 2]
        top, left = places.integers(photo.shape[0] - height), places.integers(photo.shape[1] - width)
        crops.append(photo[top : top + height, left : left + width, :channels])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def pillow_images(images: Tensor) -> list[Image.Image]:
    """Return each image of a batch as Pillow holds it."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in pixels]


def statistics_of(channels: int) -> dict[str, list[float]]:
    """Return mean and standard deviation to normalise with."""
    return {"mean": [0.49, 0.48, 0.45][:channels], "std": [0.25, 0.24, 0.26][:channels]}


# -- the rivals --------------------------------------------------------------------------------------------------------
class _TorchvisionPipeline:
    """The same views by torchvision's transforms, image by image; its own pool and magnitudes, no Cutout."""

    def __init__(self, side: int, channels: int) -> None:
        from torchvision.transforms import v2

        moved = [v2.RandomHorizontalFlip(), v2.RandomCrop(side, side // 8, padding_mode="reflect")]
        stats = statistics_of(channels)
        last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(stats["mean"], stats["std"])]
        self._weak, self._strong = v2.Compose([*moved, *last]), v2.Compose([*moved, v2.RandAugment(N_OPS), *last])

    def weak(self, images: list[Image.Image]) -> Tensor:
        return torch.stack([self._weak(image) for image in images])

    def strong(self, images: list[Image.Image]) -> Tensor:
        return torch.stack([self._strong(image) for image in images])


def _kornia_strong(images: Tensor) -> Callable[[], Any]:
    from kornia.augmentation import auto

    augment = auto.RandAugment(n=N_OPS, m=10)
    return lambda: augment(images.float().div(255))


def _serve(connection: Connection, who: str, pixels: Any) -> None:
    """Make both views of a process's images whenever it is asked to, until it is told to stop."""
    torch.set_num_threads(2 if who == TWO_THREADS else 1)
    images = torch.from_numpy(pixels)
    stats = statistics_of(images.shape[1])
    if who == TWO_THREADS:
        work = _ours(Views("usb", **stats, n_ops=N_OPS), images, BOTH)
    else:
        work = _one_by_one(p.Pipeline(**stats, n_ops=N_OPS), pillow_images(images), BOTH)
    while connection.recv():
        work()
        connection.send(True)


class _Processes:
    """Processes that share a batch; the views stay there, so that no copying between processes is counted."""

    def __init__(self, who: str, images: Tensor) -> None:
        context = multiprocessing.get_context("spawn")
        self._members = []
        # a thread that has nothing to do sleeps; else it spins, and where another program wants the core both starve
        with mock.patch.dict(os.environ, {"OMP_WAIT_POLICY": "passive"}):
            for part in images.chunk(2 if who == TWO_PROCESSES else 1):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, who, part.numpy()), daemon=True)
                process.start()
                there.close()
                self._members.append((process, here))
        self.work()  # started and warm

    def work(self) -> None:
        for _, connection in self._members:
            connection.send(True)
        for _, connection in self._members:
            connection.recv()

    def close(self) -> None:
        for process, connection in self._members:
            connection.send(False)
            process.join()
            connection.close()


# -- measuring ---------------------------------------------------------------------------------------------------------
class Bench:
    """Makes the views of every row and takes the time.

    Args:
        build: What makes our views, `Views` or a stand-in with its arguments.
    """

    def __init__(self, build: Callable[..., Any] = Views) -> None:
        self._build = build
        self._images = {shape: pictures(shape) for shape in SHAPES}
        self._pillow = {shape: pillow_images(images) for shape, images in self._images.items()}
        self._processes: dict[str, _Processes] = {}
        self._warm: set[Row] = set()

    def close(self) -> None:
        """Stop the processes."""
        for processes in self._processes.values():
            processes.close()

    def measure(self, row: Row) -> h.Run:
        """Return the time of a row an image: processor time on one thread, by the clock on two."""
        work, images = self._work(row), len(self._images[row.shape])
        batches = REPEATS if row.who in (OURS, TWO_THREADS) else 1
        clock = time.perf_counter if row.who in (TWO_THREADS, TWO_PROCESSES) else lambda: h.spent("cpu")
        if row not in self._warm:  # the first call allocates and imports
            work()
            self._warm.add(row)
        started = clock()
        for _ in range(batches):
            work()
        return {METRIC: 1e6 * (clock() - started) / images / batches}

    def _work(self, row: Row) -> Callable[[], Any]:
        images, (_, height, _, channels) = self._images[row.shape], SHAPES[row.shape]
        stats = statistics_of(channels)
        if row.who == OURS:
            preset = "saa" if row.what in (SAA, REGROUPED) else "usb"
            return _ours(self._build(preset, **stats, n_ops=N_OPS), images, row.what)
        if row.who == KORNIA:
            return _kornia_strong(images)
        if row.who in (TWO_THREADS, TWO_PROCESSES):
            if row.who not in self._processes:
                self._processes[row.who] = _Processes(row.who, images)
            return self._processes[row.who].work
        torchvision = row.who == TORCHVISION
        rival = _TorchvisionPipeline(height, channels) if torchvision else p.Pipeline(**stats, n_ops=N_OPS)
        return _one_by_one(rival, self._pillow[row.shape], row.what)


def _one_by_one(rival: Any, images: list[Image.Image], what: str) -> Callable[[], Any]:
    """Return what makes views by a pipeline that takes single images."""
    return lambda: _views(what, lambda: rival.weak(images), lambda: rival.strong(images))


def _ours(views: Any, images: Tensor, what: str) -> Callable[[], Any]:
    """Return what makes views of ours, other ones at every call."""
    flagged = torch.ones(len(images), dtype=torch.bool) if what == REGROUPED else None
    firsts = itertools.count(0, len(images))

    def work() -> None:
        first = next(firsts)
        draws = torch.arange(first, first + len(images))
        _views(what, lambda: views.weak(images, draws, _STREAM), lambda: views.strong(images, draws, flagged))

    return work


def _views(what: str, weak: Callable[[], Any], strong: Callable[[], Any]) -> None:
    if what != STRONG:
        weak()
    if what != WEAK:
        strong()
