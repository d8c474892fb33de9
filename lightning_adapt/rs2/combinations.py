"""Which arguments of RS2Sampler exclude each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_adapt._shared.checks import problem
from lightning_adapt.rs2.functional import round_size

if TYPE_CHECKING:
    from lightning_adapt.rs2.sampler import RS2Sampler


def check_combination(sampler: RS2Sampler) -> None:
    """Raise where two arguments of a sampler exclude each other.

    Args:
        sampler: The sampler, with its arguments set.

    Raises:
        ValueError: If two exclude each other.
    """
    _check_weights(sampler)
    if sampler.boundary == "partition":
        if sampler.mode != "without":
            raise ValueError(problem("boundary", "'stream' unless mode='without'", "partition", "Use mode='without'."))
        if abs(1 / sampler.ratio - round(1 / sampler.ratio)) > 1e-9 * round(1 / sampler.ratio):
            remedy = f"Use ratio=1/{round(1 / sampler.ratio)} or boundary='stream'."
            raise ValueError(
                problem("ratio", "one over a whole number when boundary='partition'", sampler.ratio, remedy)
            )


def _check_weights(sampler: RS2Sampler) -> None:
    if sampler.weights is None:
        return
    if sampler.mode != "independent":
        raise ValueError(
            problem("weights", "left out unless mode='independent'", sampler.mode, "Pass mode='independent'.")
        )
    if sampler.targets is not None:
        raise ValueError(
            problem("targets", "left out when `weights` is given", "both", "Fold the class balance into weights.")
        )
    positive = int((sampler._of_population(sampler.weights) > 0).sum())
    needed = round_size(sampler.n_rows, sampler.ratio)
    if positive < needed:
        remedy = "Give more rows a weight" + (" or lower the ratio." if positive else ".")
        raise ValueError(problem("weights", f"positive for at least {needed} rows", positive, remedy))


def check_guide_is_used(mode: str, given: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise where an argument of loss-guided rounds is given without them.

    Args:
        mode: Mode of the sampler.
        given: The arguments as they came.
        defaults: What they are when nobody passes them.

    Raises:
        ValueError: If one differs from its default in another mode than "loss".
    """
    for name, value in given.items():
        if mode != "loss" and value != defaults[name]:
            raise ValueError(problem(name, "left out unless mode='loss'", value, "Pass mode='loss', or remove it."))
