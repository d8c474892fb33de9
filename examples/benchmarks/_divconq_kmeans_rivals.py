"""The clusterings that `divconq_kmeans.py` compares: the same vectors, start and number of iterations."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import _fresh_process as process
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_adapt._shared.hashing import generator
from lightning_adapt._shared.kmeans import kmeans, nearest_centers

TOPICS, SPREAD = 400, 3.0  # more topics than clusters, and much noise: Lloyd's iterations do not end by themselves


class Size(NamedTuple):
    """How much is clustered."""

    n: int
    d: int
    k: int
    iterations: int


class Found(NamedTuple):
    """What every clustering returns: the product is the labels as well as the centers."""

    centers: Tensor  # (k, D) float32
    labels: Tensor  # (N,) int64
    iterations: int
    engine: str


def vectors_of(size: Size) -> Tensor:
    """Return (n, d) unit vectors, float32: noisy topics, equal at every call."""
    numbers = generator(0, size.n, size.d)
    topics = torch.randn(TOPICS, size.d, generator=numbers)
    vectors = torch.randn(size.n, size.d, generator=numbers).mul_(SPREAD)
    for part in vectors.split(4096):
        part += topics[torch.randint(TOPICS, (len(part),), generator=numbers)]
        part /= part.norm(dim=1, keepdim=True)
    return vectors


def start_of(vectors: Tensor, k: int, seed: int) -> Tensor:
    """Return k of the vectors, drawn by the seed."""
    return vectors[torch.randperm(len(vectors), generator=generator(seed, 1))[:k]].clone()


def _ours(vectors: Tensor, start: Tensor, iterations: int, engine: Any, device: str | None = None) -> Found:
    found = kmeans(vectors, len(start), engine=engine, iterations=iterations, init=start, device=device)
    return Found(found.centers, found.labels, found.iterations, found.engine)


def torch_engine(vectors: Tensor, start: Tensor, iterations: int) -> Found:
    return _ours(vectors, start, iterations, "torch")


def torch_on_cuda(vectors: Tensor, start: Tensor, iterations: int) -> Found:
    """From vectors on the CPU, so that the way to the device counts."""
    return _ours(vectors, start, iterations, "torch", "cuda")


def faiss_engine(vectors: Tensor, start: Tensor, iterations: int) -> Found:
    return _ours(vectors, start, iterations, "faiss")


def faiss_alone(vectors: Tensor, start: Tensor, iterations: int) -> Found:
    """What a user of faiss writes who wants every row to count: train, then search."""
    import faiss

    clustering = faiss.Kmeans(
        vectors.shape[1], len(start), niter=iterations, max_points_per_centroid=len(vectors), min_points_per_centroid=1
    )
    clustering.train(vectors.numpy(), init_centroids=start.numpy())
    _, labels = clustering.index.search(vectors.numpy(), 1)
    centers = torch.from_numpy(clustering.centroids.reshape(start.shape).copy())
    return Found(centers, torch.from_numpy(labels[:, 0].copy()), iterations, f"faiss {faiss.__version__}")


def scikit_learn(vectors: Tensor, start: Tensor, iterations: int) -> Found:
    import sklearn
    from sklearn.cluster import KMeans

    fitted = KMeans(len(start), init=start.numpy(), n_init=1, max_iter=iterations, tol=0).fit(vectors.numpy())
    labels = torch.from_numpy(fitted.labels_.astype(np.int64))
    centers = torch.from_numpy(fitted.cluster_centers_)
    return Found(centers, labels, fitted.n_iter_, f"scikit-learn {sklearn.__version__}")


TORCH, CUDA, FAISS = "ours, torch", "ours, torch on cuda", "ours, faiss"
FAISS_ALONE, SKLEARN = "faiss alone", "scikit-learn KMeans"
RUNS: dict[str, Callable[[Tensor, Tensor, int], Found]] = {
    TORCH: torch_engine,
    CUDA: torch_on_cuda,
    FAISS: faiss_engine,
    FAISS_ALONE: faiss_alone,
    SKLEARN: scikit_learn,
}


def inertia(vectors: Tensor, found: Found) -> float:
    """Return the sum of squared distances to the nearest center, in float64; raise if a label is not of the nearest."""
    total, worse = 0.0, 0
    _, nearest = nearest_centers(vectors, found.centers)
    parts = zip(vectors.split(8192), found.labels.split(8192), nearest.split(8192), strict=True)
    for rows, labels, best in parts:
        apart: npt.NDArray[np.float64] = (rows.double() - found.centers.double()[labels]).square().sum(1).numpy()
        worse += int((apart > best.double().numpy() * (1 + 1e-5) + 1e-6).sum())
        total += float(apart.sum())
    if worse:
        raise RuntimeError(f"{worse} rows of {found.engine} are not in the cluster of their nearest center.")
    return total


def limit_threads(threads: int) -> AbstractContextManager[Any]:
    """Give every pool of threads in this process the same size: those of torch, faiss, NumPy and scikit-learn."""
    import faiss
    from threadpoolctl import threadpool_limits

    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    return threadpool_limits(threads)


def _memory(method: str, size: Size, threads: int) -> dict[str, float]:
    small = vectors_of(Size(3000, 16, 8, 1))
    vectors = vectors_of(size)
    start = start_of(vectors, size.k, 0)
    with limit_threads(threads):
        RUNS[method](small, start_of(small, 8, 0), 1)  # imports and thread pools cost what they cost

        def work() -> dict[str, float]:
            RUNS[method](vectors, start, size.iterations)
            return {}

        measured = process.with_peak(work)
    share = measured["MiB"] * 2**20 / (vectors.numel() * 4)
    return {**measured, "share": share}


def memory_apart(method: str, size: Size, threads: int) -> dict[str, float]:
    """Return seconds, MiB above what was there before, and that as a share of the vectors, from a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        return processes.submit(_memory, method, size, threads).result()
