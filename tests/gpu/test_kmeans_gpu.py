"""k-means on a CUDA device: as on the CPU, twice the same, in true float32, within bounded memory."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt._shared import kmeans_rows
from lightning_adapt._shared.kmeans import kmeans, nearest_centers

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def topics(n=20_000, d=64, k=32, spread=0.3, device="cpu"):
    numbers = torch.Generator(device).manual_seed(0)
    vectors = torch.randn(k, d, generator=numbers, device=device)[torch.arange(n, device=device) % k]
    for part in vectors.split(2**16):
        part += spread * torch.randn(part.shape, generator=numbers, device=device)
    return vectors


@pytest.mark.parametrize("there", [True, False])
def test_labels_are_those_of_the_cpu(there):
    vectors, start = topics(), topics()[:32]
    here = kmeans(vectors, 32, engine="torch", init=start)
    found = kmeans(vectors.cuda() if there else vectors, 32, init=start, device=None if there else "cuda")
    assert found.engine == f"torch {torch.__version__.split('+')[0]} cuda"
    assert found.labels.device.type == found.centers.device.type == "cpu"
    assert torch.equal(found.labels, here.labels)
    torch.testing.assert_close(found.centers, here.centers, rtol=1e-5, atol=1e-5)
    assert found.inertia == pytest.approx(here.inertia, rel=1e-6)
    drawn = kmeans(vectors, 32, device="cuda", seed=4), kmeans(vectors, 32, engine="torch", seed=4)
    assert torch.equal(drawn[0].labels, drawn[1].labels)


@pytest.mark.parametrize("copies", [0, 15_000])
def test_two_runs_are_equal_bit_for_bit(copies):
    vectors = topics(spread=3.0).cuda()
    vectors[:copies] = vectors[0].clone()
    first, again = (kmeans(vectors, 100, seed=1) for _ in range(2))
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.centers, again.centers)
    assert first.inertia == again.inertia


def test_vectors_that_do_not_fit_are_read_block_by_block(monkeypatch):
    vectors = topics(spread=3.0)
    whole = kmeans(vectors, 50, device="cuda")
    monkeypatch.setattr(kmeans_rows, "_SHARE_OF_FREE_MEMORY", 0)
    apart = kmeans(vectors.numpy(), 50, device="cuda")
    assert torch.equal(whole.labels, apart.labels)
    assert torch.equal(whole.centers, apart.centers)


def test_the_assignment_is_true_float32_whatever_the_user_allows():
    """Centers that TF32, with its 10 bits, cannot tell apart."""
    vectors = topics(n=4096, d=256, k=1, spread=1.0).cuda()
    centers = vectors[:1] + 1e-3 * torch.randn(64, 256, generator=torch.Generator().manual_seed(1)).cuda()
    wide = (vectors.double() @ centers.double().t()).mul_(-2).add_(centers.double().square().sum(1))
    two = wide.topk(2, dim=1, largest=False)
    sure = (two.values[:, 1] - two.values[:, 0] > 1e-4).cpu()
    try:
        torch.set_float32_matmul_precision("medium")
        labels, _ = nearest_centers(vectors, centers)
        with torch.autocast("cuda"):
            again, _ = nearest_centers(vectors, centers)
        narrow = (vectors @ centers.t()).mul_(-2).add_(centers.square().sum(1)).argmin(1).cpu()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    right = two.indices[:, 0].cpu()
    assert int(sure.sum()) > 1000
    assert torch.equal(labels[sure], right[sure])
    assert torch.equal(labels, again)
    if torch.cuda.get_device_capability()[0] >= 8:  # the device has TF32, so that the test can fail
        assert not torch.equal(narrow[sure], right[sure])


def test_the_other_engines_say_that_they_stay_on_the_cpu():
    with pytest.raises(ValueError, match="faiss works on the CPU only"):
        kmeans(topics(100).cuda(), 3, engine="faiss")


def test_a_million_rows_stay_within_bounded_memory():
    vectors = topics(1_000_000, 384, 2000, spread=2.0, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = kmeans(vectors, 1024, iterations=5)
    peak = torch.cuda.max_memory_allocated() - before
    assert len(found.centers) == 1024
    assert found.labels.shape == (1_000_000,)
    assert peak <= 1.3 * vectors.numel() * 4
