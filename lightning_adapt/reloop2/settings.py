"""The settings of an error memory, checked one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from lightning_adapt._shared.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_not_negative,
    check_number,
    check_positive,
    check_share,
)
from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.reloop2.functional import KINDS, Kind
from lightning_adapt.reloop2.stores.inputs import check_values

__all__ = ["Backend", "MemorySettings", "PaperData", "Task", "check_saved"]

STATE_VERSION = 1

Backend = Literal["knn", "sketch", "faiss"]
Task = Literal["binary", "regression"]
PaperData = Literal["microvideo", "amazon"]


_HALF_LIFE = "Pass the samples after which one should count half, or None for no decay."

CHECKS: dict[str, Callable[[Any], Any]] = {
    "backend": lambda value: check_choice("backend", value, ("knn", "sketch", "faiss"), "Use 'knn' for most."),
    "k": lambda value: check_integer("k", value, "Pass the neighbours to read, such as 100.", minimum=1),
    "tau": lambda value: check_positive("tau", value, "Pass a temperature such as 0.1."),
    "gamma": lambda value: check_share("gamma", value, "Pass 0 to add the mean residual, 1 for the paper's form."),
    "lam": lambda value: check_share("lam", value, "Pass the share of the estimated error to add, such as 0.4."),
    "capacity": lambda value: check_integer("capacity", value, "Pass the samples to keep.", minimum=1),
    "n_bits": lambda value: check_integer("n_bits", value, "Pass 12, or 16 for millions.", minimum=1, maximum=24),
    "n_tables": lambda value: check_integer("n_tables", value, "Pass the number of arrays, such as 64.", minimum=1),
    "half_life": lambda value: None if value is None else check_number("half_life", value, "[1, inf)", _HALF_LIFE),
    "support_n0": lambda value: check_not_negative("support_n0", value, "Pass the support for half of the trust."),
    "whiten": lambda value: check_flag("whiten", value, "Pass False to use the keys as they are."),
    "max_dim": lambda value: check_integer("max_dim", value, "Pass the components to keep, such as 64.", minimum=1),
    "task": lambda value: check_choice("task", value, ("binary", "regression"), "Use 'binary' for clicks."),
    "eps": lambda value: check_number("eps", value, "[1e-12, 0.5)", "Pass 1e-6 unless it is too far."),
    "seed": lambda value: check_integer("seed", value, "Pass any whole number >= 0.", maximum=2**63 - 1),
}
READ_ONLY = ("k", "tau", "gamma", "lam", "support_n0", "eps")  # how a memory is read; the rest decides what it holds


_PAPER = {"backend": "sketch", "n_bits": 16, "gamma": 1.0, "half_life": None, "support_n0": 0.0, "whiten": False}
# with the optima of section 4.4 for DCNv2, by data set; K is the number of arrays here and of neighbours there
PAPER: dict[str, dict[str, Any]] = {
    "microvideo": {**_PAPER, "k": 70, "n_tables": 70, "lam": 0.4},
    "amazon": {**_PAPER, "k": 180, "n_tables": 180, "lam": 0.9},
}


@dataclass(frozen=True)
class MemorySettings:
    """What `ErrorMemory` was built with; its docstring says what each means.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    backend: Backend
    k: int
    tau: float
    gamma: float
    lam: float
    capacity: int
    n_bits: int
    n_tables: int
    half_life: float | None
    support_n0: float
    whiten: bool
    max_dim: int
    task: Task
    eps: float
    seed: int

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            object.__setattr__(self, name, check(getattr(self, name)))  # plain numbers, whatever came

    def stored(self) -> dict[str, Any]:
        """Return the settings that decide what a memory holds; states are only exchanged between equal ones."""
        return {name: value for name, value in asdict(self).items() if name not in READ_ONLY}

    def saved(self) -> dict[str, Any]:
        """Return the extra state of a memory: a version, and the settings that decide what it holds."""
        return with_version({"settings": self.stored()}, STATE_VERSION)

    def checked_values(self, argument: str, values: Any, rows: int) -> Tensor:
        """Return labels or base predictions as float32 after checking them; see `check_values`."""
        return check_values(argument, values, rows, binary=self.task == "binary")

    def checked_kind(self, kind: Any) -> Kind:
        """Return the kind of an output, the usual one for None.

        Args:
            kind: What came.

        Returns:
            One of `KINDS`.

        Raises:
            ValueError: If it is another word, or does not go with the task.
        """
        kinds = KINDS[2:] if self.task == "regression" else KINDS[:2]
        remedy = f"That is what a memory with task={self.task!r} corrects."
        return check_choice("kind", kinds[0] if kind is None else kind, kinds, remedy)  # type: ignore[return-value]

    def check_same(self, other: Any, whose: str) -> None:
        """Raise where what another memory holds would mean something else here.

        Args:
            other: What `stored` returned there.
            whose: The other one, in words, to begin a sentence.

        Raises:
            ValueError: If a setting differs; the message names each.
        """
        mine = self.stored()
        theirs = other if isinstance(other, dict) else {}
        wrong = [name for name in mine if name not in theirs or theirs[name] != mine[name]]
        if wrong:
            texts = [f"{name}={theirs.get(name)!r}, here {mine[name]!r}" for name in wrong]
            raise ValueError(f"{whose} has {'; '.join(texts)}. Build this memory with the same settings.")


def check_saved(memory: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Refuse a state of other settings before any of it is loaded; a hook for `register_load_state_dict_pre_hook`.

    Args:
        memory: The memory, with its `settings`.
        state_dict: The state that is about to be loaded.
        prefix: Where the memory sits in it.

    Raises:
        ValueError: If the state is not one of this class, of a newer release, or of other settings.
    """
    name = type(memory).__name__
    state = state_dict.get(f"{prefix}_extra_state", {})
    read_version(state, STATE_VERSION, name)
    memory.settings.check_same(state.get("settings"), f"The saved {name}")
