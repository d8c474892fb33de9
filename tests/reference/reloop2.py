"""ReLoop2 in plain NumPy loops and float64, written from the paper's equations; slow on purpose, and never imported by
the package. Zhu et al., KDD 2023, arXiv 2306.08808.
"""

from __future__ import annotations

import math

import numpy as np

FADED = 2.0**-10  # a bucket that holds less than this share of a fresh sample is empty
NEWER = 1e-4  # what the newest neighbour is ahead of the oldest in the order of neighbours


def unit(vector: np.ndarray) -> np.ndarray:
    """A vector of length 1 in the same direction."""
    length = math.sqrt(sum(float(value) ** 2 for value in vector))
    return np.asarray(vector, dtype=np.float64) / length if length else np.zeros(len(vector))


def whiten(training: np.ndarray, keys: np.ndarray, max_dim: int) -> np.ndarray:
    """Centre, rotate to the directions of the largest variances, divide by their standard deviations, scale to 1."""
    rows = np.asarray(training, dtype=np.float64)
    mean = rows.mean(0)
    covariance = sum(np.outer(row - mean, row - mean) for row in rows) / len(rows)
    variances, directions = np.linalg.eigh(covariance)
    ridge = variances.mean() / len(rows)
    few = len(rows) <= len(mean)
    order = [i for i in np.argsort(-variances) if few or variances[i] > 1e-5 * variances.max()][:max_dim]
    scaled = [
        [(key - mean) @ directions[:, i] / math.sqrt(max(variances[i], 0.0) + ridge) for i in order]
        for key in np.asarray(keys, dtype=np.float64)
    ]
    return np.array([unit(np.array(row)) for row in scaled])


def simhash(key: np.ndarray, projections: np.ndarray, n_tables: int) -> list[int]:
    """Section 2.3: the bucket of a key in each of K arrays, L signs of random projections read as a binary number."""
    n_bits = projections.shape[1] // n_tables
    buckets = []
    for table in range(n_tables):
        bucket = 0
        for bit in range(n_bits):
            column = projections[:, table * n_bits + bit]
            if float(np.dot(np.float64(column), np.float64(key))) > 0:
                bucket += 2**bit
        buckets.append(bucket)
    return buckets


def sketch_read(
    samples: list[tuple[list[int], float, float]], buckets: list[int], half_life: float | None
) -> tuple[float, float, float]:
    """Eqs. 17 and 18 without any sketch: go through all samples, and count those that share a bucket.

    `samples` are (buckets, label, base), the oldest first; one followed by j others counts 2^(-j / half_life).
    """
    label_means, base_means, counts = [], [], []
    for table, bucket in enumerate(buckets):
        count = label_sum = base_sum = 0.0
        for followers, (theirs, label, base) in enumerate(reversed(samples)):
            if theirs[table] == bucket:
                weight = 1.0 if half_life is None else 2.0 ** (-followers / half_life)
                count += weight
                label_sum += weight * label
                base_sum += weight * base
        if count > FADED:
            label_means.append(label_sum / count)
            base_means.append(base_sum / count)
            counts.append(count)
    if not counts:
        return 0.0, 0.0, 0.0
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return mean(label_means), mean(base_means), sum(counts) / len(buckets)


def softmax_readout(similarity: list[float], labels: list[float], base: list[float], tau: float) -> tuple[float, float]:
    """Eqs. 11 and 12 for one query."""
    if not similarity:
        return 0.0, 0.0
    largest = max(similarity)
    powers = [math.exp((value - largest) / tau) for value in similarity]
    weights = [power / sum(powers) for power in powers]
    return (
        sum(weight * label for weight, label in zip(weights, labels, strict=True)),
        sum(weight * value for weight, value in zip(weights, base, strict=True)),
    )


def neighbours_read(
    samples: list[tuple[np.ndarray, float, float]], query: np.ndarray, k: int, tau: float
) -> tuple[float, float, float]:
    """Eqs. 10 to 12 by going through all samples, the oldest first; of equal ones the newest are neighbours."""
    found = []
    for age, (key, label, base) in enumerate(samples):
        similarity = float(np.dot(key, query))
        found.append((similarity + NEWER * age / len(samples), similarity, label, base))
    found = sorted(found, key=lambda entry: -entry[0])[:k]
    label, base = softmax_readout([f[1] for f in found], [f[2] for f in found], [f[3] for f in found], tau)
    return label, base, float(len(found))


def inverted_file_read(
    samples: list[tuple[np.ndarray, float, float]],
    centroids: np.ndarray,
    probes: int,
    query: np.ndarray,
    k: int,
    tau: float,
) -> tuple[float, float, float]:
    """The same among the samples only whose nearest centroid is one of the query's nearest."""
    nearest = lambda vector: np.argsort(-(centroids.astype(np.float64) @ vector))  # noqa: E731
    probed = set(nearest(query)[:probes].tolist())
    inside = [sample for sample in samples if int(nearest(sample[0])[0]) in probed]
    return neighbours_read(inside, query, k, tau)


def error_estimate(ybar: float, pbar: float, p_base: float, gamma: float) -> float:
    """Eq. 13."""
    return gamma * (ybar - p_base) + (1 - gamma) * (ybar - pbar)


def gated(error: float, support: float, n0: float) -> float:
    """The support gate n / (n + n0); nothing is estimated from nothing."""
    return error * support / (support + n0) if support > 0 else 0.0


def compensate(output: float, error: float, lam: float, kind: str, eps: float) -> float:
    """Eq. 9 for one output, a binary one kept in [eps, 1 - eps] or where it was if that is further out."""
    shift = lam * error
    if shift == 0:
        return output
    if kind == "regression":
        return output + shift
    probability = 1 / (1 + math.exp(-output)) if kind == "logit" else output
    lowest, highest = min(eps, probability), max(1 - eps, probability)
    moved = min(max(probability + shift, lowest), highest)
    if moved == probability:
        return output
    return math.log(moved) - math.log(1 - moved) if kind == "logit" else moved
