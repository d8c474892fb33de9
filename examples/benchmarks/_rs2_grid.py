"""The cells of rs2_time_to_accuracy: data set, network and ratio, and the options that choose one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_adapt._shared.datasets import fashion_mnist
from lightning_adapt._shared.demo_training import CountedRows
from lightning_adapt._shared.imports import require

DEFAULT, CIFAR10 = "cnn-r0.1", "cifar10-resnet-r0.1"


@dataclass(frozen=True)
class Cell:
    """One place of the grid.

    Attributes:
        net: "cnn" or "resnet".
        ratio: Share of the data per round.
        targets: Test accuracies in per cent to give the seconds for.
        full: Whether the full run is a row; it is the same for every ratio.
        data: "fashion-mnist" or "cifar10".
    """

    net: str
    ratio: float
    targets: tuple[int, ...]
    full: bool = False
    data: str = "fashion-mnist"


GRID: dict[str, Cell] = {
    DEFAULT: Cell("cnn", 0.1, (80, 85, 88, 89, 90), full=True),
    "cnn-r0.01": Cell("cnn", 0.01, (70, 75, 80)),
    "cnn-r0.05": Cell("cnn", 0.05, (80, 85, 88)),
    "cnn-r0.3": Cell("cnn", 0.3, (85, 88, 90, 91)),
    "resnet-r0.1": Cell("resnet", 0.1, (80, 85, 88, 90), full=True),
    CIFAR10: Cell("resnet", 0.1, (40, 50, 60, 70), full=True, data="cifar10"),
}


def grid_parser() -> argparse.ArgumentParser:
    """Return the parser of the options that choose a cell; a parent of the benchmark's own."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--grid", choices=list(GRID), default=DEFAULT, help="data, network and ratio")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", default=Path("data"), help=f"folder of CIFAR-10, for {CIFAR10}"
    )
    parser.add_argument("--download", action="store_true", help="let torchvision fetch CIFAR-10 into --data")
    return parser


def read_cell(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read `grid`, `data` and `download` only; the benchmark's parser looks at the rest."""
    return grid_parser().parse_known_args(argv)[0]


def load(split: str) -> CountedRows:
    """Return a split of Fashion-MNIST, standardised with the mean and sd of its training pixels."""
    images, targets = fashion_mnist(split).tensors
    return CountedRows((images - 0.286) / 0.353, targets)


def load_cifar10(split: str, folder: Path, *, download: bool = False) -> CountedRows:
    """Return a split of CIFAR-10, standardised per channel with the mean and sd of its training pixels.

    Args:
        split: "train" or "test".
        folder: Where torchvision keeps, or shall put, `cifar-10-batches-py`.
        download: Fetch the files if they are not there.

    Returns:
        Images of shape (N, 3, 32, 32) and their classes; no augmentation.

    Raises:
        ModuleNotFoundError: If torchvision is missing; names the extra.
        FileNotFoundError: If the files are missing or damaged.
    """
    require("vision", f"--grid {CIFAR10}", "torchvision")
    from torchvision import datasets

    try:
        data = datasets.CIFAR10(str(folder), train=split == "train", download=download)
    except RuntimeError as missing:
        raise FileNotFoundError(
            f"--data must be a folder with an undamaged cifar-10-batches-py, but {folder} has none. Give its parent "
            "folder, or add --download."
        ) from missing
    mean, sd = torch.tensor([0.491, 0.482, 0.447]), torch.tensor([0.247, 0.243, 0.262])
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).float().div_(255)
    images.sub_(mean[:, None, None]).div_(sd[:, None, None])
    return CountedRows(images.contiguous(), torch.tensor(data.targets))
