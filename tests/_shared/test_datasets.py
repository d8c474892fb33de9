"""The data sets: real digits, and idx files as Fashion-MNIST ships them."""

from __future__ import annotations

import gzip
import struct

import pytest
import torch

from lightning_adapt._shared import datasets
from lightning_adapt._shared.datasets import digits, digits_test, digits_train, fashion_mnist, find_fashion_mnist


def write_idx(path, values, kind=8):
    header = struct.pack(">BBBB", 0, 0, kind, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + bytes(values.flatten().tolist())))


@pytest.fixture
def folder(tmp_path):
    for prefix, n in (("train", 6), ("t10k", 4)):
        images = torch.arange(n * 28 * 28).reshape(n, 28, 28) % 256
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", torch.arange(n) % 10)
    return tmp_path


def test_digits_are_split_in_proportion_and_without_overlap():
    train, test = digits()
    images, labels = train.tensors
    assert len(train) + len(test) == 1797
    assert len(test) == 360
    assert images.shape[1:] == (1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.min() == 0
    assert images.max() == 1
    shares = [torch.bincount(part.tensors[1], minlength=10) / len(part) for part in (train, test)]
    assert (shares[0] - shares[1]).abs().max() < 0.01
    known = {image.numpy().tobytes() for image in images}
    repeated = sum(image.numpy().tobytes() in known for image in test.tensors[0])
    assert repeated <= len(test) - len({image.numpy().tobytes() for image in test.tensors[0]}) + 1


def test_digits_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = digits(seed=3)[0].tensors[1]
    torch.manual_seed(2)
    assert torch.equal(one, digits(seed=3)[0].tensors[1])
    assert not torch.equal(one, digits(seed=4)[0].tensors[1])
    assert len(digits(test_share=0.5)[1]) == 899


def test_each_part_of_the_digits_can_be_had_alone():
    parts, alone = digits(0.3, seed=2), (digits_train(0.3, seed=2), digits_test(0.3, seed=2))
    for part, one in zip(parts, alone, strict=True):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.tensors, part.tensors, strict=True))


@pytest.mark.parametrize(("split", "n"), [("train", 6), ("test", 4)])
def test_idx_files_are_read(folder, split, n):
    images, labels = fashion_mnist(split, folder).tensors
    assert images.shape == (n, 1, 28, 28)
    assert torch.equal(images.flatten() * 255, (torch.arange(n * 784) % 256).float())
    assert labels.tolist() == list(range(n))
    assert labels.dtype == torch.int64


def test_the_folder_is_found_by_variable_and_by_place(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_FASHION_MNIST_PLACES", ("/nonexistent", "data/FashionMNIST/raw"))
    monkeypatch.delenv(datasets.FASHION_MNIST_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_fashion_mnist() is None
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist") as caught:
        fashion_mnist("train")
    assert datasets.FASHION_MNIST_VARIABLE in str(caught.value)
    monkeypatch.setenv(datasets.FASHION_MNIST_VARIABLE, str(folder))
    assert find_fashion_mnist() == folder
    assert len(fashion_mnist("train")) == 6


def test_bad_requests_are_explained(folder, tmp_path):
    with pytest.raises(ValueError, match=r"`split` must be one of 'train', 'test', but got 'val'. Pass"):
        fashion_mnist("val", folder)
    with pytest.raises(FileNotFoundError, match="not on this machine"):
        fashion_mnist("train", tmp_path / "elsewhere")


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-5], lambda raw: raw[:2] + b"\x0d" + raw[3:]])
def test_a_spoilt_file_is_refused(folder, spoil):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(spoil(gzip.decompress(path.read_bytes()))))
    with pytest.raises(ValueError, match=r"`train-images-idx3-ubyte.gz` is no idx file .* Fetch it again"):
        fashion_mnist("train", folder)


def test_a_lost_file_is_called_lost(folder):
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte"):
        fashion_mnist("train", folder)
