"""Real images without a download: scikit-learn's digits, and Fashion-MNIST where the machine has it."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_adapt._shared.checks import check_choice
from lightning_adapt._shared.imports import require

FASHION_MNIST_VARIABLE = "LIGHTNING_ADAPT_FASHION_MNIST"
# Debian's package dataset-fashion-mnist, then where torchvision.datasets.FashionMNIST(root="data") puts its files
_FASHION_MNIST_PLACES = ("/usr/share/datasets/fashion-mnist", "data/FashionMNIST/raw")
_LARGEST_IDX = 60_000 * 28 * 28
_FASHION_MNIST_SPLITS = {"train": "train", "test": "t10k"}


def digits(test_share: float = 0.2, seed: int = 0) -> tuple[TensorDataset, TensorDataset]:
    """Return scikit-learn's 1,797 hand-written digits as (train, test), split at random with classes in proportion.

    Args:
        test_share: Share of the images in the test set, in (0, 1).
        seed: Seed of the split.

    Returns:
        Two data sets of (image, class): images of shape (1, 8, 8), float32 in [0, 1]; classes int64.

    Raises:
        ModuleNotFoundError: If scikit-learn is missing; names the extra.
    """
    require("vision", "The digits data set", "scikit-learn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(
        np.arange(len(labels)), test_size=test_share, random_state=seed, stratify=bunch.target
    )
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])


def digits_train(test_share: float = 0.2, seed: int = 0) -> TensorDataset:
    """Return the train set of `digits`; a YAML file can name it where a data set is asked for.

    Args:
        test_share: As in `digits`.
        seed: As in `digits`.

    Returns:
        A data set of (image, class).

    Raises:
        ModuleNotFoundError: If scikit-learn is missing; names the extra.
    """
    return digits(test_share, seed)[0]


def digits_test(test_share: float = 0.2, seed: int = 0) -> TensorDataset:
    """Return the test set of `digits`; a YAML file can name it where a data set is asked for.

    Args:
        test_share: As in `digits`.
        seed: As in `digits`.

    Returns:
        A data set of (image, class).

    Raises:
        ModuleNotFoundError: If scikit-learn is missing; names the extra.
    """
    return digits(test_share, seed)[1]


def find_fashion_mnist() -> Path | None:
    """Return the folder with the four Fashion-MNIST idx files, or None.

    Looks at the environment variable `LIGHTNING_ADAPT_FASHION_MNIST`, then where Debian's package
    `dataset-fashion-mnist` and torchvision put them.
    """
    places = [os.environ.get(FASHION_MNIST_VARIABLE), *_FASHION_MNIST_PLACES]
    for place in places:
        if place and (Path(place) / "train-images-idx3-ubyte.gz").is_file():
            return Path(place)
    return None


def fashion_mnist(split: str, folder: str | os.PathLike[str] | None = None) -> TensorDataset:
    """Return Fashion-MNIST (60,000 train, 10,000 test images) from its idx files.

    Args:
        split: "train" or "test".
        folder: Folder of the four `.gz` files; None: `find_fashion_mnist`.

    Returns:
        A data set of (image, class): images of shape (1, 28, 28), float32 in [0, 1]; classes int64.

    Raises:
        FileNotFoundError: If the files are not there; says how to get them.
        ValueError: If `split` is unknown or a file is not what its header says.
    """
    check_choice("split", split, tuple(_FASHION_MNIST_SPLITS), "Pass 'train'.")
    place = Path(folder) if folder is not None else find_fashion_mnist()
    if place is None or not (place / f"{_FASHION_MNIST_SPLITS[split]}-images-idx3-ubyte.gz").is_file():
        raise FileNotFoundError(
            "Fashion-MNIST is not on this machine. On Debian: apt-get install dataset-fashion-mnist. Elsewhere: "
            'torchvision.datasets.FashionMNIST("data", download=True), or set '
            f"{FASHION_MNIST_VARIABLE} to the folder of its four .gz files."
        )
    prefix = _FASHION_MNIST_SPLITS[split]
    images = _read_idx(place / f"{prefix}-images-idx3-ubyte.gz").float().div(255)[:, None]
    return TensorDataset(images, _read_idx(place / f"{prefix}-labels-idx1-ubyte.gz").long())


def _read_idx(path: Path) -> Tensor:
    try:
        with gzip.open(path) as file:
            head = file.read(4)
            shape = np.frombuffer(file.read(4 * head[3]), dtype=">u4").tolist()
            size = math.prod(shape)
            content = file.read(min(size, _LARGEST_IDX) + 1)  # a small file may unfold to any size
    except (gzip.BadGzipFile, EOFError, IndexError, ValueError, zlib.error) as error:
        raise ValueError(f"`{path.name}` is no idx file packed by gzip: {error}. Fetch it again.") from error
    if head[2] != 8 or len(content) != size:
        raise ValueError(f"`{path.name}` is no idx file of bytes with {shape} values. Fetch it again.")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(shape).copy())
