"""Pure parts of RS2: random-access permutations and what a round draws.

Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning, Okanovic et al., ICLR 2024, arXiv 2305.18424.
Every function here depends on its arguments alone: the sample at position p of round t needs no state.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_choice, check_fraction, check_integer, problem
from lightning_adapt._shared.hashing import UInt64Array, derive_key, generator, mix_array, uniform
from lightning_adapt._shared.tensor_checks import check_tensor
from lightning_adapt.rs2.visits import loss_weights, most_owed

__all__ = [
    "PERMUTATION_VERSION",
    "bootstrap_rows",
    "expected_coverage",
    "loss_weights",
    "most_owed",
    "permute",
    "round_size",
    "stratified_order",
    "weighted_order",
]

Method = Literal["auto", "randperm", "feistel"]

PERMUTATION_VERSION = 1  # raise it when an order changes: checkpoints of the old order then refuse to continue
RANDPERM_LIMIT = 2**24  # above it, a stored permutation costs more memory (128 MiB) than it saves time
_FEISTEL_ROUNDS = 8
_BLOCK = 16_384  # numbers hashed at once: their 128 KiB and the temporaries stay in a core's cache


def permute(index: Tensor, n: int, seed: int, cycle: int = 0, *, method: Method = "auto") -> Tensor:
    """Return where a pseudo-random permutation of 0..n-1 sends some indices, without building it when n is large.

    Ours, not the paper's: it makes position p of the endless sample stream a pure function of (seed, p). Up to 2^24
    rows it reads `torch.randperm`; above, it walks an 8-round Feistel network over ceil(log2 n) bits until it lands
    below n (at most 2 steps on average), in O(1) memory.

    Args:
        index: Positions to look up, 0 <= index < n. Any shape, dtype int64.
        n: Size of the permuted set, >= 1.
        seed: Seed of the run, >= 0.
        cycle: Which of the seed's permutations, >= 0.
        method: "auto" as above; "randperm" or "feistel" to force one (they give different orders).

    Returns:
        The images, same shape as `index`, dtype int64, on the CPU.

    Raises:
        ValueError: If an index is outside 0..n-1, or another argument is out of range.

    Example:
        >>> sorted(permute(torch.arange(5), 5, seed=0).tolist())
        [0, 1, 2, 3, 4]
    """
    check_tensor("index", index, "whole")
    check_integer("n", n, "Pass the number of rows.", minimum=1, maximum=2**62)
    check_integer("seed", seed, "Pass any whole number >= 0.")
    check_integer("cycle", cycle, "Pass any whole number >= 0.")
    check_choice("method", method, ("auto", "randperm", "feistel"), "Leave it at 'auto'.")
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= n):
        received = f"{int(index.min())}..{int(index.max())}"
        raise ValueError(problem("index", f"from 0 to n - 1 = {n - 1}", received, "Take positions modulo n first."))
    if method == "randperm" or (method == "auto" and n <= RANDPERM_LIMIT):
        return _randperm(n, seed, cycle)[index]
    return _feistel(index, n, derive_key(seed, cycle))


def _randperm(n: int, seed: int, cycle: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, cycle))


def _feistel(index: Tensor, n: int, key: int) -> Tensor:
    bits = max(2, (n - 1).bit_length())
    keys = [derive_key(key, number) for number in range(_FEISTEL_ROUNDS)]
    walked = _feistel_pass(index.reshape(-1).numpy().astype(np.uint64), bits, keys)
    # cycle walking: the network permutes 0..2^bits-1; following it from inside 0..n-1 until it is back inside permutes
    # 0..n-1
    outside = np.flatnonzero(walked >= np.uint64(n))
    while outside.size:
        walked[outside] = _feistel_pass(walked[outside], bits, keys)
        outside = outside[walked[outside] >= np.uint64(n)]
    return torch.from_numpy(walked.view(np.int64)).reshape(index.shape)  # the same bits: all are below n < 2^63


def _feistel_pass(values: UInt64Array, bits: int, keys: list[int]) -> UInt64Array:
    images = np.empty_like(values)
    for first in range(0, len(values), _BLOCK):
        block = slice(first, first + _BLOCK)
        images[block] = _feistel_block(values[block], bits, keys)
    return images


def _feistel_block(values: UInt64Array, bits: int, keys: list[int]) -> UInt64Array:
    low_bits = np.uint64(bits - bits // 2)
    low_mask = np.uint64(2 ** int(low_bits) - 1)
    high_mask = np.uint64(2 ** (bits // 2) - 1)
    high, low = values >> low_bits, values & low_mask
    for number, key in enumerate(keys):  # halves may differ by a bit, so they take turns instead of swapping
        if number % 2:
            low = low ^ (mix_array(high, key) & low_mask)
        else:
            high = high ^ (mix_array(low, key) & high_mask)
    return (high << low_bits) | low


def round_size(n: int, ratio: float, multiple: int = 1) -> int:
    """Return the samples of one round, k = round(r N), rounded down to a multiple.

    The paper keeps k = round(r N); rounding down to whole global batches is ours: the stream then loses nothing to
    dropped or short batches.

    Args:
        n: Number of rows, N.
        ratio: Share of the data a round draws, in (0, 1]; the paper's r.
        multiple: Samples of one global batch, or 1.

    Returns:
        The round size K, a positive multiple of `multiple`.

    Raises:
        ValueError: If not even one global batch fits; the message gives the smallest legal ratio.

    Example:
        >>> round_size(60_000, 0.1, multiple=128)
        5888
    """
    check_integer("n", n, "Pass the number of rows.", minimum=1)
    check_integer("multiple", multiple, "Pass the samples of a global batch, or 1.", minimum=1)
    check_fraction("ratio", ratio, "Pass 0.1 to train on a tenth of the data per round.")
    size = round(ratio * n) // multiple * multiple
    if size < 1:
        allowed = f"large enough that a round of the {n} rows fills one global batch of {multiple} samples"
        if multiple > n:
            raise ValueError(problem("ratio", allowed, ratio, f"Use a global batch of at most {n} samples."))
        smallest = -(-multiple * 10**6 // n) / 10**6  # rounded up in whole numbers: floats would add a millionth
        raise ValueError(problem("ratio", allowed, ratio, f"Use ratio >= {smallest:g} or smaller batches."))
    return size


def expected_coverage(rounds: int, n: int, k: int, mode: str = "without") -> float:
    """Return the expected share of distinct rows seen after some rounds.

    min(1, T K / N) without replacement, 1 - (1 - K/N)^T with a fresh subset per round, 1 - (1 - 1/N)^(T K) with
    replacement inside the round as well.

    Args:
        rounds: Rounds done, T.
        n: Number of rows, N.
        k: Samples per round, K.
        mode: "without", "independent" or "bootstrap".

    Returns:
        A share in [0, 1].

    Raises:
        TypeError: If a number is no whole number.
        ValueError: If `mode` is unknown, or a number is out of range.

    Example:
        >>> expected_coverage(10, 1000, 100), round(expected_coverage(10, 1000, 100, "independent"), 3)
        (1.0, 0.651)
    """
    check_choice("mode", mode, ("without", "independent", "bootstrap"), "See RS2Sampler for what they do.")
    check_integer("rounds", rounds, "Pass the rounds that are done.")
    check_integer("n", n, "Pass the number of rows.", minimum=1)
    check_integer("k", k, "Pass the samples of a round.", maximum=None if mode == "bootstrap" else n)
    if mode == "without":
        return min(1.0, rounds * k / n)
    if mode == "independent":
        return float(1 - (1 - k / n) ** rounds)
    return float(1 - (1 - 1 / n) ** (rounds * k))


def bootstrap_rows(position: Tensor, n: int, seed: int, round_index: int) -> Tensor:
    """Return rows drawn uniformly with replacement, each a pure function of its position.

    Ours (the official code never repeats a row inside a round): a control for what repeats inside a round cost.

    Args:
        position: Positions in the round, dtype int64, any shape.
        n: Number of rows, N < 2^53.
        seed: Seed of the run.
        round_index: The round, t.

    Returns:
        Rows in 0..n-1, same shape, dtype int64.

    Example:
        >>> import torch
        >>> bootstrap_rows(torch.arange(5), n=3, seed=0, round_index=0)
        tensor([0, 0, 1, 2, 0])
    """
    check_tensor("position", position, "whole")
    check_integer("n", n, "Pass the number of rows.", minimum=1, maximum=2**53)
    check_integer("seed", seed, "Pass any whole number >= 0.")
    check_integer("round_index", round_index, "Pass any whole number >= 0.")
    return (uniform(position, derive_key(seed, round_index)) * n).long()


def stratified_order(targets: Tensor, seed: int, cycle: int) -> Tensor:
    """Return a random order of all rows in which every window holds each class in proportion.

    Ours: the official code stratifies only the variant with replacement, by round(r n_c), which starves every class
    with n_c < 1/(2r). Here the i-th of the n_c rows of a class (in random order) gets the key (i + u_c) / n_c, with
    offsets u_c spread evenly over the classes, and the rows are sorted by key. A window of K rows then holds
    K n_c / N rows of a class to within 1 + C n_c / N, and every row comes exactly once per cycle.

    Args:
        targets: Class of each row. Shape (N,), any integer dtype.
        seed: Seed of the run.
        cycle: Number of the pass over the data.

    Returns:
        A permutation of 0..N-1. Shape (N,), dtype int64.

    Example:
        >>> import torch
        >>> targets = torch.tensor([0, 0, 0, 0, 1, 1])
        >>> targets[stratified_order(targets, seed=0, cycle=0)]  # every part has its share of both
        tensor([1, 0, 0, 1, 0, 0])
    """
    check_tensor("targets", targets, "whole", ndim=1)
    if not len(targets):
        raise ValueError(problem("targets", "at least one class long", targets, "Pass the class of each row."))
    shuffled = permute(torch.arange(len(targets)), len(targets), seed, cycle, method="randperm")
    classes, labels, counts = torch.unique(targets[shuffled], return_inverse=True, return_counts=True)
    by_class = torch.argsort(labels, stable=True)  # grouped by class, in random order inside a class
    first = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(targets)) - first.repeat_interleave(counts)
    n_classes = len(classes)
    offset = (torch.randperm(n_classes, generator=generator(seed, cycle, 1)) + 0.5) / n_classes
    key = (place + offset.double().repeat_interleave(counts)) / counts.repeat_interleave(counts)
    return shuffled[by_class[torch.argsort(key, stable=True)]]


def weighted_order(weights: Tensor, k: int, seed: int, round_index: int) -> Tensor:
    """Return k distinct rows drawn one after another with probability proportional to their weights.

    Exponential keys (Efraimidis and Spirakis 2006): the k smallest of E_i / w_i, E_i ~ Exp(1).

    Args:
        weights: Weight of each row, >= 0, at least k of them positive. Shape (N,), floating point.
        k: Rows to draw.
        seed: Seed of the run.
        round_index: The round, t.

    Returns:
        Rows in the order drawn. Shape (k,), dtype int64.

    Example:
        >>> import torch
        >>> weighted_order(torch.tensor([0.0, 1.0, 5.0]), k=2, seed=0, round_index=0)
        tensor([2, 1])
    """
    check_tensor("weights", weights, "real", ndim=1)
    check_integer("k", k, "Draw at most the rows of positive weight.", maximum=int((weights > 0).sum()))
    check_integer("seed", seed, "Pass any whole number >= 0.")
    check_integer("round_index", round_index, "Pass any whole number >= 0.")
    drawn = uniform(torch.arange(len(weights)), derive_key(seed, round_index, 2))
    # in logarithms: E / w itself would overflow for tiny weights, and tie with the rows of weight 0, whose key is +inf
    key = torch.log(-torch.log1p(-drawn)) - torch.log(weights.double())
    return torch.topk(key, k, largest=False, sorted=True).indices
