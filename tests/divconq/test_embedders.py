"""Embedders: what an argument stands for, and vectors that are there already."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lightning_adapt.divconq.embed.embedders import (
    Embedder,
    PrecomputedEmbedder,
    as_embedder,
    check_vectors,
    unit_rows,
)
from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder

VECTORS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


class Own:
    name = "own"

    def fit(self, documents):
        pass

    def encode(self, texts):
        return np.ones((len(texts), 2), dtype=np.float32)

    def describe(self):
        return {}


def test_what_an_argument_stands_for(tmp_path):
    assert isinstance(as_embedder(None), TfidfEmbedder)
    own = Own()
    assert as_embedder(own) is own
    assert isinstance(as_embedder(PrecomputedEmbedder(VECTORS)), Embedder)
    np.save(tmp_path / "v.npy", VECTORS)
    for value in (
        VECTORS,
        VECTORS.astype(np.float64),
        torch.from_numpy(VECTORS),
        tmp_path / "v.npy",
        str(tmp_path / "v.npy"),
    ):
        embedder = as_embedder(value)
        assert isinstance(embedder, PrecomputedEmbedder)
        assert embedder.vectors.dtype == np.float32
        np.testing.assert_array_equal(embedder.vectors, VECTORS)
    for value in (3, Own, object(), [1.0]):
        with pytest.raises(TypeError, match="`embedder` must be"):
            as_embedder(value)


def test_a_float32_file_stays_on_disk_and_half_precision_is_widened(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    assert isinstance(PrecomputedEmbedder(tmp_path / "v.npy").vectors, np.memmap)
    half = torch.from_numpy(VECTORS).bfloat16()
    np.testing.assert_array_equal(PrecomputedEmbedder(half).vectors, half.float().numpy())


def test_safetensors_with_one_tensor(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({"x": torch.from_numpy(VECTORS)}, tmp_path / "v.safetensors")
    np.testing.assert_array_equal(PrecomputedEmbedder(tmp_path / "v.safetensors").vectors, VECTORS)
    save_file({"x": torch.zeros(1, 1), "y": torch.zeros(1, 1)}, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match="holds 2"):
        PrecomputedEmbedder(tmp_path / "v.safetensors")
    (tmp_path / "v.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no readable"):
        PrecomputedEmbedder(tmp_path / "v.safetensors")


def test_bad_vectors_are_refused(tmp_path):
    for value in (VECTORS[0], VECTORS.astype(np.int64), VECTORS[:0], VECTORS[:, :0]):
        with pytest.raises(ValueError, match=r"shape \(N, D\)"):
            PrecomputedEmbedder(value)
    broken = VECTORS.copy()
    broken[2, 1], broken[4, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 rows with NaN or infinite numbers: 2, 4"):
        PrecomputedEmbedder(broken)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        PrecomputedEmbedder(tmp_path / "nowhere.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"no readable \.npy"):
        PrecomputedEmbedder(tmp_path / "objects.npy")  # a pickle is never loaded


def test_precomputed_vectors_embed_no_new_texts_and_are_described_by_their_numbers():
    embedder = PrecomputedEmbedder(VECTORS)
    with pytest.raises(ValueError, match="cannot embed new texts"):
        embedder.encode(["a"])
    other = VECTORS.copy()
    other[0, 0] += 1
    assert embedder.describe() == PrecomputedEmbedder(VECTORS.copy()).describe()
    assert embedder.describe() != PrecomputedEmbedder(other).describe()
    json.dumps(embedder.describe())


def test_rows_get_length_one_and_zeros_stay():
    vectors = np.array([[3, 4], [0, 0], [1e-20, 0], [1e19, 1e19]], dtype=np.float32)
    expected = np.array([[0.6, 0.8], [0, 0], [1, 0], [0.5**0.5, 0.5**0.5]], dtype=np.float32)
    np.testing.assert_allclose(unit_rows(vectors), expected, rtol=1e-6)


def test_rows_are_named_across_blocks(monkeypatch):
    monkeypatch.setattr("lightning_adapt.divconq.embed.embedders._BLOCK_BYTES", 1)
    vectors = np.zeros((9, 2), dtype=np.float32)
    check_vectors(vectors, "embedder")
    vectors[3:] = np.nan
    with pytest.raises(ValueError, match=r"6 rows .*: 103, 104, 105, 106, 107, \.\.\."):
        check_vectors(vectors, "embedder", 100)
