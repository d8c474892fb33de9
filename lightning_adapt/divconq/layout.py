"""Places for a map of a pool: a sample of its rows, near ones beside each other (t-SNE, or main directions)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_adapt._shared.imports import EXTRAS

__all__ = ["SHOWN", "plane"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Rows = Tensor | IntArray

SHOWN = 1500  # rows on a map; more hide each other, and t-SNE would need more than some seconds
_NEIGHBOURS = 30.0  # the most rows that t-SNE looks at around each: its perplexity
_DIRECTIONS = 50  # main directions that t-SNE is given, as its authors advise
_FEWEST = 12  # rows; below, t-SNE has no neighbourhood to keep
_STEPS = 500
_TRIFLE = 1e-3  # of the largest coordinate


def plane(vectors: FloatArray, *, labels: Rows | None = None, selected: Rows | None = None) -> FloatArray:
    """Lay rows out in a plane so that those with similar vectors are close together.

    At most 1,500 rows are placed: at least one of each cluster (of the 750 first), up to 500 of `selected`, and others,
    evenly over the pool. The layout is t-SNE on the 50 main directions; below 12 rows, without scikit-learn or when all
    vectors are equal it is the two main directions. Copies of a row are put beside each other, to be seen. Fixed random
    numbers and one thread: equal vectors give equal places.

    Args:
        vectors: Finite. Shape (n, D), dtype float32; a memory map is read at the placed rows only.
        labels: Cluster of each row, or None. Shape (n,), dtype int64, at least 0.
        selected: Rows that should be seen more than others. Shape (b,), dtype int64.

    Returns:
        Coordinates without unit, NaN for rows that were not placed. Shape (n, 2), dtype float32.

    Example:
        >>> places = plane(np.eye(4, dtype=np.float32))
        >>> places.shape
        (4, 2)
    """
    rows = _sample(len(vectors), _array(labels), _array(selected))
    found = np.full((len(vectors), 2), np.nan, dtype=np.float32)
    some = np.asarray(vectors[rows], dtype=np.float64)
    if not len(some):
        return found
    if EXTRAS["llm"]["scikit-learn"]:
        from sklearn.manifold import TSNE  # before the limit, which sees only libraries that are loaded
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        with threadpool_limits(1):  # sums of several threads would differ from run to run
            found[rows] = _places(some, TSNE)
    else:
        found[rows] = _main_directions(some, 2)
    return found


def _array(rows: Rows | None) -> IntArray | None:
    return None if rows is None else np.asarray(rows)


def _sample(n: int, labels: IntArray | None, selected: IntArray | None) -> IntArray:
    taken = np.zeros(n, dtype=bool)
    wanted = np.zeros(0, dtype=np.int64) if selected is None else selected
    if labels is not None and n > SHOWN:
        # a selected row of each cluster where there is one
        order = np.concatenate([wanted, np.arange(n)])
        firsts = order[np.unique(labels[order], return_index=True)[1]]
        taken[firsts[: SHOWN // 2]] = True
    taken[_spread(wanted, SHOWN // 3)] = True
    others = np.flatnonzero(~taken)
    taken[_spread(others, SHOWN - int(taken.sum()))] = True
    return np.flatnonzero(taken)


def _spread(rows: IntArray, count: int) -> IntArray:
    """Return at most `count` of the rows, evenly spread: no chance is needed for a picture."""
    count = min(len(rows), count)
    return rows[np.arange(count) * len(rows) // max(count, 1)]


def _places(vectors: npt.NDArray[np.float64], tsne: Any) -> FloatArray:
    """Return t-SNE of vectors, or their two main directions where it makes no sense."""
    main = _main_directions(vectors, _DIRECTIONS)
    spread = float(np.abs(main).max())
    if len(main) < _FEWEST or spread <= 1e-6 * float(np.abs(vectors).max()):
        return np.ascontiguousarray(main[:, :2])
    steps = "max_iter" if "max_iter" in tsne().get_params() else "n_iter"  # its name before scikit-learn 1.5
    perplexity = max(3.0, min(_NEIGHBOURS, len(main) ** 0.5))
    settings: dict[str, Any] = {
        steps: _STEPS,
        "perplexity": perplexity,
        "init": "pca",
        "learning_rate": "auto",
        "random_state": 0,
    }
    settings["angle"] = 0.7  # a little faster than its default of 0.5, and as good to the eye
    # equal vectors would stay at one place for ever; apart by a trifle, they push each other away
    trifle = _TRIFLE * np.random.default_rng(0).standard_normal(main.shape, dtype=np.float32)
    return np.asarray(tsne(**settings).fit_transform(main / spread + trifle), dtype=np.float32)


def _main_directions(vectors: npt.NDArray[np.float64], count: int) -> FloatArray:
    """Project vectors on their main directions; at least two columns, zeros where there is no direction."""
    centred = vectors - vectors.mean(axis=0)
    n, dimensions = centred.shape
    if dimensions <= n:
        _, directions = np.linalg.eigh(centred.T @ centred)
        found = centred @ directions[:, ::-1][:, :count]
    else:  # the same from the inner products of the rows, a smaller matrix
        values, vectors_of = np.linalg.eigh(centred @ centred.T)
        found = (vectors_of * np.sqrt(np.maximum(values, 0.0)))[:, ::-1][:, :count]
    # a direction may point either way: the farthest row is on the positive side
    found *= np.where(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])] < 0, -1.0, 1.0)
    return np.pad(found, ((0, 0), (0, max(0, 2 - found.shape[1])))).astype(np.float32)
