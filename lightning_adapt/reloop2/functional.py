"""Pure parts of ReLoop2: hashing, sketch and neighbour readouts, the error they estimate, and its compensation.

ReLoop2: Building Self-Adaptive Recommendation Models via Responsive Error Compensation Loop, Zhu et al., KDD 2023,
arXiv 2306.08808. Shapes: B keys, d features, K arrays (tables) of 2^L buckets, k neighbours.
"""

# Over 300 lines: the pure functions of a method stand in one place, each with its equation and an example.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_adapt._shared.checks import (
    check_choice,
    check_integer,
    check_number,
    check_positive,
    check_share,
    problem,
)
from lightning_adapt._shared.hashing import generator
from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = [
    "base_prediction",
    "compensate",
    "error_estimate",
    "simhash_codes",
    "simhash_projections",
    "sketch_read",
    "sketch_write",
    "softmax_readout",
]

Kind = Literal["probability", "logit", "regression"]
KINDS: tuple[str, ...] = ("probability", "logit", "regression")

FORGOTTEN = 2.0**-10  # a bucket is empty once all that it holds has decayed to this share of one fresh sample


class MemoryReading(NamedTuple):
    """What a memory knows about some keys.

    Attributes:
        label: Mean label of what is stored near each key, ybar of Eq. 11; 0 without support. Shape (B,), float32.
        base: Mean base prediction there, ybar_base of Eq. 11; 0 without support. Shape (B,), float32.
        support: Samples that the means rest on, >= 0. Shape (B,), float32.
    """

    label: Tensor
    base: Tensor
    support: Tensor


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch gradients and autocast off: a hash or a running sum in bfloat16 would be another one.

    Args:
        device: Where the computation runs.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


# -- the sketch -------------------------------------------------------------------------------------------------------
def simhash_projections(dim: int, n_tables: int, n_bits: int, seed: int) -> Tensor:
    """Draw the random projections of SimHash, w ~ N(0, I), section 2.3 of Zhu et al.; they depend on nothing else.

    Args:
        dim: Features of a key, d.
        n_tables: Independent arrays, K.
        n_bits: Bits per array, L.
        seed: Seed; memories that are to be merged need the same.

    Returns:
        One column per bit, those of an array side by side. Shape (d, K * L), dtype float32.

    Example:
        >>> simhash_projections(64, 8, 12, seed=0).shape
        torch.Size([64, 96])
    """
    for name, value in (("dim", dim), ("n_tables", n_tables), ("n_bits", n_bits)):
        check_integer(name, value, "Pass a number of them.", minimum=1, maximum=2**31)
    check_integer("seed", seed, "Pass any whole number >= 0.")
    draws = generator(seed, dim, n_tables, n_bits)
    return torch.randn(dim, n_tables * n_bits, generator=draws, dtype=torch.float32)


def simhash_codes(keys: Tensor, projections: Tensor, n_tables: int) -> Tensor:
    """Return the bucket of each key in each array: L bits [w . h > 0], section 2.3 of Zhu et al.

    Two keys at angle theta share a bucket with probability (1 - theta / pi)^L. Only the direction of a key counts.
    Bits are computed for all arrays by one matrix product and packed by a second one.

    Args:
        keys: Representations h. Shape (B, d), float32.
        projections: As `simhash_projections` draws them. Shape (d, K * L), float32.
        n_tables: Arrays, K.

    Returns:
        Buckets in [0, 2^L). Shape (B, K), dtype int64; array after array in memory, so that a gather stays in one.

    Example:
        >>> projections = torch.tensor([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
        >>> simhash_codes(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), projections, 2).tolist()
        [[3, 0], [2, 1]]
    """
    check_tensor("keys", keys, "real", ndim=2)
    check_tensor("projections", projections, "real", ndim=2)
    check_integer("n_tables", n_tables, "Pass that of the projections.", minimum=1, maximum=projections.shape[1])
    n_bits = projections.shape[1] // n_tables
    powers = torch.exp2(torch.arange(n_bits, device=keys.device, dtype=keys.dtype))  # sums are exact
    with full_precision(keys.device):
        bits = torch.matmul(projections.T, keys.T).gt_(0).view(n_tables, n_bits, len(keys))
        return torch.matmul(powers, bits).long().T


def _rows_of_cells(codes: Tensor, n_buckets: int) -> Tensor:
    """Return the row of each (array, bucket) among all cells, array after array; shape (K * B,)."""
    first = torch.arange(codes.shape[1], device=codes.device) * n_buckets
    return (codes + first).T.reshape(-1)


def sketch_write(cells: Tensor, codes: Tensor, labels: Tensor, base: Tensor, weight: float | Tensor = 1.0) -> None:
    """Add samples to a sketch in place, Eq. 17 of Zhu et al.: (sum of 1, sum of y, sum of y_base) in each bucket.

    Differs from the paper in: a sample may have a weight, which is how older ones decay.

    Args:
        cells: Running sums, changed in place. Shape (K, 2^L, 3), float32.
        codes: Bucket of each sample in each array. Shape (B, K), dtype int64.
        labels: Labels y. Shape (B,), float32.
        base: Base predictions when they were served. Shape (B,), float32.
        weight: How much each sample counts, > 0; one number, or one for each. Shape (B,), float32.

    Example:
        >>> import torch
        >>> cells = torch.zeros(1, 2, 3)
        >>> sketch_write(cells, torch.tensor([[1]]), labels=torch.tensor([1.0]), base=torch.tensor([0.25]))
        >>> cells[0, 1]
        tensor([1.0000, 1.0000, 0.2500])
    """
    check_tensor("cells", cells, "real", ndim=3)
    check_tensor("codes", codes, "whole", ndim=2)
    check_tensor("labels", labels, "real", ndim=1)
    check_tensor("base", base, "real", ndim=1)
    if not isinstance(weight, Tensor):
        weight = check_number("weight", weight, "(0, inf)", "Pass 1.")
    sums = torch.stack((torch.ones_like(labels), labels, base), dim=1)
    sums = sums * (weight.unsqueeze(1) if isinstance(weight, Tensor) else weight)
    rows = _rows_of_cells(codes, cells.shape[1])
    cells.view(-1, 3).index_add_(0, rows, sums.repeat(codes.shape[1], 1))


def sketch_read(cells: Tensor, codes: Tensor, weight: float = 1.0) -> MemoryReading:
    """Read a sketch: the mean, over the arrays whose bucket is not empty, of the means in the bucket.

    A bucket mean is a Nadaraya-Watson regression with kernel (1 - theta / pi)^L. How Eq. 18 of Zhu et al. weighs the K
    pseudo-neighbours is not recoverable; a plain mean over arrays was better than weights by count or share.

    Args:
        cells: Running sums. Shape (K, 2^L, 3), float32.
        codes: Bucket of each key in each array. Shape (B, K), dtype int64.
        weight: What a sample written last counts in `cells`; a bucket with less than 2^-10 of it is empty.

    Returns:
        Means and support; the support is the mean count of a bucket over all arrays, in fresh samples.

    Example:
        >>> cells, codes = torch.zeros(1, 2, 3), torch.tensor([[0], [1]])
        >>> sketch_write(cells, codes[:1], torch.tensor([1.0]), torch.tensor([0.25]))
        >>> [values.tolist() for values in sketch_read(cells, codes)]
        [[1.0, 0.0], [0.25, 0.0], [1.0, 0.0]]
    """
    check_tensor("cells", cells, "real", ndim=3)
    check_tensor("codes", codes, "whole", ndim=2)
    weight = check_number("weight", weight, "(0, inf)", "Pass 1, or what the newest sample was written with.")
    n_keys, n_tables = codes.shape
    found = cells.view(-1, 3).index_select(0, _rows_of_cells(codes, cells.shape[1])).view(n_tables, n_keys, 3)
    count, label, base = found.unbind(-1)
    full = count > FORGOTTEN * weight
    share = torch.where(full, 1 / count, 0.0)
    arrays = full.sum(0).clamp_(min=1)
    support = torch.where(full, count, 0.0).mean(0) / weight
    return MemoryReading((label * share).sum(0) / arrays, (base * share).sum(0) / arrays, support)


# -- neighbours -------------------------------------------------------------------------------------------------------
def softmax_readout(
    similarity: Tensor, labels: Tensor, base: Tensor, tau: float, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weighted means of the neighbours' labels and base predictions, Eqs. 11 and 12 of Zhu et al.

    The weights are softmax(s / tau) over the valid neighbours. The authors' code takes a plain mean.

    Args:
        similarity: Similarity of each neighbour to its query. Shape (B, k), floating point.
        labels: Labels of the neighbours. Shape (B, k), floating point.
        base: Base predictions of the neighbours. Shape (B, k), floating point.
        tau: Temperature, > 0.
        valid: Which neighbours there are; what the other places hold is ignored. Shape (B, k), bool.

    Returns:
        Mean label and mean base prediction; 0 where no neighbour is valid. Shape (B,) each.

    Example:
        >>> both = torch.tensor([[1.0, 0.0]])
        >>> softmax_readout(torch.zeros(1, 2), both, both / 2, 0.1, torch.tensor([[True, True]]))
        (tensor([0.5000]), tensor([0.2500]))
    """
    check_tensor("similarity", similarity, "real", ndim=2)
    check_tensor("labels", labels, "real", ndim=2)
    check_tensor("base", base, "real", ndim=2)
    check_tensor("valid", valid, "whole", ndim=2)
    tau = check_positive("tau", tau, "Pass 0.1.")
    logits = (similarity / tau).masked_fill(~valid, -torch.inf)
    weights = torch.softmax(logits, dim=1).masked_fill(~valid, 0.0)  # a row of nothing but -inf gives NaN
    return (weights * labels.masked_fill(~valid, 0.0)).sum(1), (weights * base.masked_fill(~valid, 0.0)).sum(1)


# -- error and compensation -------------------------------------------------------------------------------------------
def error_estimate(ybar: Tensor, pbar: Tensor, p_base: Tensor, gamma: float) -> Tensor:
    """Estimate the error of the base model, Eq. 13 of Zhu et al.: gamma (ybar - p_base) + (1 - gamma) (ybar - pbar).

    gamma 0 is the mean residual of the neighbours; gamma 1, which all the paper's experiments use, pulls the prediction
    towards their mean label (Eq. 14).

    Args:
        ybar: Mean label of the neighbours. Shape (B,).
        pbar: Mean base prediction of the neighbours. Shape (B,).
        p_base: Base prediction for the query itself. Shape (B,).
        gamma: Weight in [0, 1].

    Returns:
        Estimated y - p_base. Shape (B,).

    Example:
        >>> error_estimate(torch.tensor([0.5]), torch.tensor([0.25]), torch.tensor([0.75]), gamma=0.5)
        tensor([0.])
    """
    check_tensor("ybar", ybar, "real")
    check_tensor("pbar", pbar, "real")
    check_tensor("p_base", p_base, "real")
    check_share("gamma", gamma, "Pass 0, or 1 as the paper does.")
    return gamma * (ybar - p_base) + (1 - gamma) * (ybar - pbar)


def base_prediction(output: Tensor, kind: Kind) -> Tensor:
    """Return what a memory keeps of a model's output: the probability (binary), or the value itself (regression).

    Args:
        output: Predictions of the base model. Shape (B,) or any other with B elements, floating point.
        kind: What they are: "probability", "logit" or "regression".

    Returns:
        Probabilities or values. Shape (B,), dtype float32.

    Example:
        >>> import torch
        >>> base_prediction(torch.tensor([[0.0], [2.0]]), "logit")
        tensor([0.5000, 0.8808])
    """
    check_tensor("output", output, "real")
    check_choice("kind", kind, KINDS, "Say what the model gives.")
    values = output.detach().reshape(-1).float()
    return torch.sigmoid(values) if kind == "logit" else values


def compensate(output: Tensor, error: Tensor, lam: float, kind: Kind, eps: float = 1e-6) -> Tensor:
    """Add lambda times the estimated error to what a model gave, Eq. 9 of Zhu et al.

    A logit is compensated as the probability that it stands for, and comes back as a logit. Differs from the paper in:
    a binary result stays in [eps, 1 - eps] instead of [0, 1], which makes log loss infinite at its ends. A base
    prediction that is further out already may only come back. Computed in float32 (float64 for float64 outputs).

    Args:
        output: Predictions of the base model. Shape (B,), or any with B elements such as (B, 1), floating point.
        error: Estimated error of each, in probability (binary) or in the unit of the output. Shape (B,).
        lam: How much of the error is added, lambda.
        kind: "probability", "logit" or "regression" (no bounds).
        eps: Distance to 0 and 1 that a binary result keeps, in (0, 0.5).

    Returns:
        Compensated predictions; shape, dtype and device as `output`, and bit-identical to it where lam * error is 0.

    Raises:
        TypeError: If `lam` or `eps` is no number.
        ValueError: If there is not one error per prediction, or another argument is out of range.

    Example:
        >>> compensate(torch.tensor([0.5, 0.9]), torch.tensor([0.5, 0.0]), 0.4, "probability")
        tensor([0.7000, 0.9000])
    """
    check_tensor("output", output, "real")
    check_tensor("error", error, "real")
    if error.numel() != output.numel():
        remedy = "Pass the predictions of the same rows that the errors belong to."
        raise ValueError(problem("output", f"{error.numel()} predictions, one per error", tuple(output.shape), remedy))
    check_choice("kind", kind, KINDS, "Say what the model gives.")
    lam = check_number("lam", lam, "(-inf, inf)", "Pass 0.4.")
    check_number("eps", eps, "(0, 0.5)", "Leave it at 1e-6.")
    work = output if output.dtype == torch.float64 else output.float()
    shift = lam * error.to(work).reshape(output.shape)
    if kind == "regression":
        moved, same = work + shift, shift == 0
    elif kind == "probability":
        # a half-precision result may not be rounded to 1: the largest number below it is eps / 2 of its type away
        moved = _moved(work, shift, eps, max(eps, torch.finfo(output.dtype).eps / 2))
        same = moved == work
    else:
        start = work.clamp(-80, 80)  # beyond, one of the two underflows in float32
        low, high = torch.sigmoid(start), torch.sigmoid(-start)  # 1 - low has nothing left of a confident prediction
        new_low, new_high = _moved(low, shift, eps, eps), _moved(high, -shift, eps, eps)
        moved, same = start + (new_low / low).log() - (new_high / high).log(), (new_low == low) & (new_high == high)
    return torch.where(same, output, moved.to(output.dtype))


def _moved(value: Tensor, shift: Tensor, bottom: float, top: float) -> Tensor:
    """Return value + shift, but not nearer to 0 than `bottom` and to 1 than `top`, unless it was nearer before."""
    return torch.minimum(torch.maximum(value + shift, value.clamp(max=bottom)), value.clamp(min=1 - top))
