"""The settings of an adaptive memory, checked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning_adapt._shared.checks import check_choice, check_integer, check_number, check_positive, problem
from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.reloop2.experts.layout import Layout

__all__ = ["AdaptiveSettings", "parts_of_saved", "saved_parts"]

VERSION = 1
_HALF_LIFE = "Pass the rows of feedback after which evidence should count half."


@dataclass(frozen=True)
class AdaptiveSettings:
    """What an `AdaptiveErrorMemory` was built with; its docstring says what each means.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    experts: Literal["auto"] | tuple[str, ...]
    half_life: float
    prior_variance: float
    n_buckets: int
    max_crosses: int
    key_backend: Literal["sketch", "knn"]
    task: Literal["binary", "regression"]
    eps: float
    seed: int

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "experts": _checked_experts(self.experts),
            "half_life": check_number("half_life", self.half_life, "[1, inf)", _HALF_LIFE),
            "prior_variance": check_positive("prior_variance", self.prior_variance, "Pass 0.1."),
            "n_buckets": _power_of_two(self.n_buckets),
            "max_crosses": check_integer("max_crosses", self.max_crosses, "Pass 0 for no crosses."),
            "key_backend": check_choice("key_backend", self.key_backend, ("sketch", "knn"), "Pass 'sketch'."),
            "task": check_choice("task", self.task, ("binary", "regression"), "Use 'binary' for clicks."),
            "eps": check_number("eps", self.eps, "[1e-7, 0.5)", "Pass 1e-6."),
            "seed": check_integer("seed", self.seed, "Pass any whole number that is not negative.", maximum=2**63 - 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain values, those of the constructor."""
        return {**asdict(self), "experts": self.experts if self.experts == "auto" else list(self.experts)}


def saved_parts(settings: AdaptiveSettings, layout: Layout | None) -> dict[str, Any]:
    """Return the part of a memory's state that is not in buffers.

    Args:
        settings: What it was built with.
        layout: Names of its parts; None before the first call.
    """
    return with_version({"config": settings.plain(), "layout": None if layout is None else layout.plain()}, VERSION)


def parts_of_saved(saved: Any, settings: AdaptiveSettings) -> Layout | None:
    """Return the names of the parts of a saved memory, after checking that it fits.

    Args:
        saved: What `saved_parts` returned.
        settings: Those of the memory that is to take the state.

    Returns:
        The names; None if it had none yet.

    Raises:
        ValueError: If the state is of no such memory, of a newer release, or of other settings.
    """
    read_version(saved, VERSION, "an AdaptiveErrorMemory")
    if "config" not in saved:
        remedy = "Load it into the kind of memory that it was saved from."
        raise ValueError(problem("state_dict", "of an AdaptiveErrorMemory", sorted(saved), remedy))
    if saved["config"] != settings.plain():
        remedy = "Build the memory with the settings that it was saved with."
        raise ValueError(problem("state_dict", f"of a memory with {settings.plain()}", saved["config"], remedy))
    return None if saved["layout"] is None else Layout.from_plain(saved["layout"])


def _checked_experts(experts: Any) -> Literal["auto"] | tuple[str, ...]:
    if isinstance(experts, str) and experts == "auto":
        return "auto"
    remedy = "Leave it out, or name fields, key spaces, crosses ('user*genre') and 'intercept'."
    if isinstance(experts, str) or not isinstance(experts, Sequence) or not experts:
        raise ValueError(problem("experts", "'auto' or a list of names", experts, remedy))
    if not all(isinstance(name, str) for name in experts):
        raise TypeError(problem("experts", "'auto' or a list of names", experts, remedy))
    return tuple(dict.fromkeys(experts))


def _power_of_two(value: Any) -> int:
    number = check_integer("n_buckets", value, "Pass 65536.", minimum=2, maximum=2**30)
    if number & (number - 1):
        raise ValueError(problem("n_buckets", "a power of two", value, "Pass 65536."))
    return number
