"""One k-means for all methods: faiss, plain torch or scikit-learn behind one function, alike in start and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_choice, check_integer, problem
from lightning_adapt._shared.imports import EXTRAS, require
from lightning_adapt._shared.kmeans_init import start_rows
from lightning_adapt._shared.kmeans_rows import Rows, Vectors, exact_float32
from lightning_adapt._shared.kmeans_torch import assign, lloyd

Engine = Literal["auto", "faiss", "torch", "sklearn"]
ENGINES: tuple[Engine, ...] = ("auto", "faiss", "torch", "sklearn")

_REFILLS = 10  # attempts to fill clusters that are empty when an engine has ended
_SKLEARN_BATCH = 4096
_SEED_MASK = 2**31 - 1  # faiss takes a signed 32-bit seed


@dataclass(frozen=True)
class KMeansResult:
    """What `kmeans` found.

    Attributes:
        centers: Shape (K, D), dtype float32, on the CPU. K <= k: a cluster that no row can fill is left out.
        labels: Nearest center of every row. Shape (N,), dtype int64, on the CPU; every label below K occurs.
        inertia: Sum of the squared distances of the rows to their centers, summed in float64.
        iterations: Iterations done (passes over the data for "sklearn").
        engine: What ran, with its version, such as "faiss 1.15.1" or "torch 2.11.0 cpu".
    """

    centers: Tensor
    labels: Tensor
    inertia: float
    iterations: int
    engine: str


class _Run(NamedTuple):
    centers: Tensor  # (k, D) float32, on the device of the rows
    iterations: int


def kmeans(
    vectors: Vectors | Rows,
    k: int,
    *,
    engine: Engine = "auto",
    iterations: int = 25,
    repeats: int = 1,
    seed: int = 0,
    init: Tensor | None = None,
    device: str | torch.device | None = None,
) -> KMeansResult:
    """Partition vectors into k clusters of small squared distance to their mean.

    All rows take part, whatever their number (faiss by itself would cluster a sample of 256 k rows). Every engine
    starts from the same rows and ends with the same assignment in true float32. The same arguments give the same
    result with the same version of the engine on the same kind of machine; across versions, keep the labels.

    Args:
        vectors: Shape (N, D), any float dtype; a tensor, an array, a `numpy.memmap`, or `Rows` of one. Not changed.
            Clustered as float32. Of a part of `Rows`, "faiss" and "sklearn" make one copy, "torch" none.
        k: Clusters wanted, from 1 to N.
        engine: "faiss" (CPU), "torch" (CPU or CUDA), "sklearn" (MiniBatchKMeans, CPU, fewer operations and a
            somewhat higher inertia), or "auto": faiss on the CPU where it is installed, else torch.
        iterations: Most iterations; "torch" stops as soon as nothing changes.
        repeats: Attempts from different starts; the one of least inertia is returned.
        seed: Any whole number; decides where the clusters start.
        init: Centers to start from, shape (k, D), in place of drawn ones; `repeats` has no effect then.
        device: Where "torch" works; None for the device of `vectors`.

    Returns:
        The clusters.

    Raises:
        ModuleNotFoundError: If the engine asked for is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, a row holds NaN or inf (the text names how many and the first),
            or the vectors are too long for their squares.

    Example:
        >>> found = kmeans(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), 2, engine="torch")
        >>> sorted(found.centers.flatten().tolist()), found.inertia
        ([0.5, 10.5], 1.0)
    """
    remedy = "Pass a positive whole number."
    iterations = check_integer("iterations", iterations, remedy, minimum=1)
    repeats = check_integer("repeats", repeats, remedy, minimum=1)
    rows = Rows(vectors, device)
    k = _checked_k(k, rows.n)
    chosen = _chosen_engine(engine, rows.device)
    rows.check_finite()
    given = None if init is None else _checked_init(init, rows, k)
    found: list[KMeansResult] = []
    for repeat in range(repeats if given is None else 1):
        start = rows.take(start_rows(rows, k, seed, repeat)) if given is None else given
        with exact_float32(rows.device):
            run = _ENGINES[chosen](rows, start, iterations, int(seed) & _SEED_MASK)
            found.append(_ended(rows, run, _name(chosen, rows.device)))
    return min(found, key=lambda result: result.inertia)


def nearest_centers(
    vectors: Vectors | Rows, centers: Tensor, *, device: str | torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return the nearest center of every vector, block by block.

    Args:
        vectors: Shape (N, D), any float dtype; a tensor, an array, a `numpy.memmap`, or `Rows` of one.
        centers: Shape (K, D), any float dtype.
        device: Where to work; None for the device of `vectors`.

    Returns:
        Labels, shape (N,), dtype int64 (the first of several equally near centers), and squared distances, shape
        (N,), dtype float32; both on the CPU.

    Raises:
        TypeError: If the vectors are no floats.
        ValueError: If shapes do not fit, or a number is NaN or inf.
    """
    rows = Rows(vectors, device)
    rows.check_finite()
    there = _checked_init(centers, rows, None, name="centers")
    with exact_float32(rows.device):
        labels, distances = assign(rows, there)
    return labels.cpu(), distances.cpu()


def _checked_k(k: int, n: int) -> int:
    remedy = "Ask for fewer clusters, or give more vectors."
    return check_integer("k", k, remedy, minimum=1, maximum=n)


def _checked_init(init: Any, rows: Rows, k: int | None, name: str = "init") -> Tensor:
    centers = Rows(init, rows.device, name=name)
    wanted = (centers.n if k is None else k, rows.d)
    if (centers.n, centers.d) != wanted:
        remedy = "Give one center per cluster, with as many numbers as a vector has."
        raise ValueError(problem(name, f"of shape {wanted}", (centers.n, centers.d), remedy))
    centers.check_finite()
    return torch.cat([block.clone() for _, block in centers.blocks()])


def _chosen_engine(engine: str, device: torch.device) -> str:
    check_choice("engine", engine, ENGINES, 'Leave it at "auto" for the fastest that is installed.')
    if engine == "auto":
        return "faiss" if device.type == "cpu" and EXTRAS["llm"]["faiss-cpu"] else "torch"
    if engine != "torch" and device.type != "cpu":
        remedy = f'Use engine="torch", or device="cpu": {engine} works on the CPU only.'
        raise ValueError(problem("engine", f"'torch' or 'auto' on {device}", engine, remedy))
    if engine == "faiss":
        require("llm", 'engine="faiss"', "faiss-cpu")
    if engine == "sklearn":
        require("llm", 'engine="sklearn"', "scikit-learn")
    return engine


def _name(engine: str, device: torch.device) -> str:
    if engine == "faiss":
        return f"faiss {version('faiss-cpu')}"
    if engine == "sklearn":
        return f"scikit-learn {version('scikit-learn')} MiniBatchKMeans"
    return f"torch {torch.__version__.split('+')[0]} {device.type}"


def _ended(rows: Rows, run: _Run, engine: str) -> KMeansResult:
    """Assign every row, fill clusters that the engine left empty, and drop those that stay so."""
    centers = run.centers
    labels, distances = assign(rows, centers)
    counts = torch.bincount(labels, minlength=len(centers))
    for _ in range(_REFILLS):
        if bool(counts.all()) or not bool(distances.any()):
            break
        centers, _ = lloyd(rows, centers, 1)
        labels, distances = assign(rows, centers)
        counts = torch.bincount(labels, minlength=len(centers))
    inertia = float(distances.sum(dtype=torch.float64))
    used = counts > 0
    places = torch.cumsum(used, 0) - 1
    return KMeansResult(centers[used].cpu(), places[labels].cpu(), inertia, run.iterations, engine)


def _torch(rows: Rows, start: Tensor, iterations: int, seed: int) -> _Run:  # noqa: ARG001 - one shape for all
    return _Run(*lloyd(rows, start, iterations))


def _faiss(rows: Rows, start: Tensor, iterations: int, seed: int) -> _Run:
    import faiss

    # no sample and no word about few rows per center; that every number is finite has been checked
    wanted: dict[str, Any] = {"max_points_per_centroid": rows.n, "min_points_per_centroid": 1}
    wanted |= {"niter": iterations, "seed": seed, "check_input_data_for_NaNs": False}
    clustering = faiss.Kmeans(rows.d, len(start), **wanted)
    clustering.train(rows.whole(), init_centroids=start.numpy())
    found: Any = clustering.centroids
    return _Run(torch.from_numpy(found.reshape(start.shape).copy()), iterations)


def _sklearn(rows: Rows, start: Tensor, iterations: int, seed: int) -> _Run:
    from sklearn.cluster import MiniBatchKMeans

    settings: dict[str, Any] = {"n_init": 1, "compute_labels": False, "batch_size": _SKLEARN_BATCH}
    settings |= {"max_iter": max(2, iterations), "random_state": seed}  # it fails after a single step
    fitted = MiniBatchKMeans(len(start), init=start.numpy(), **settings).fit(rows.whole())
    return _Run(torch.from_numpy(fitted.cluster_centers_), fitted.n_iter_)


_ENGINES: dict[str, Callable[[Rows, Tensor, int, int], _Run]] = {"torch": _torch, "faiss": _faiss, "sklearn": _sklearn}
