"""Plain state of an iterative selection: what is written, what is read, and what must be equal on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lightning_adapt._shared.state import on_cpu, read_version, reading_state, to_plain, with_version
from lightning_adapt.divconq.choosing.budgets import resolve_budget

if TYPE_CHECKING:
    from lightning_adapt.divconq.rounds import SelectionRounds

__all__ = ["read_state", "write_state"]

STATE_VERSION = 1

# what decides which rows are drawn; the engine is left out, since nothing is clustered again
ARGUMENTS = (
    "budget",
    "method",
    "rounds",
    "wanted_k",
    "quota",
    "initial_weights",
    "update",
    "tau",
    "shrink",
    "drop_below",
    "train_on",
    "dedup",
    "seed",
)


def _arguments(rounds: SelectionRounds, n: int) -> dict[str, Any]:
    plain = {name.removeprefix("wanted_"): to_plain(getattr(rounds, name)) for name in ARGUMENTS}
    # "5%" and 52 are the same budget of a pool that is known
    return {**plain, "budget": resolve_budget(rounds.budget, n)} if n else plain


def write_state(rounds: SelectionRounds) -> dict[str, Any]:
    """Return the plain state of a selection, begun or not.

    Args:
        rounds: The selection.

    Returns:
        A dict with version, arguments and "selection" (None before `begin`), which shares no memory with it.
    """
    selection = on_cpu(_selection(rounds)) if rounds.begun else None
    return with_version({"arguments": _arguments(rounds, rounds.n), "selection": selection}, STATE_VERSION)


def _selection(rounds: SelectionRounds) -> dict[str, Any]:
    known = (~torch.isnan(rounds.scores)).nonzero().squeeze(1)
    return {
        "round": rounds.round,
        "n": rounds.n,
        "k": rounds.k,
        "engine": rounds.engine,
        "silhouettes": rounds.silhouettes,
        "labels": None if rounds.labels is None else rounds.labels.int(),
        "quality": rounds.quality,
        "log_weights": rounds.log_weights,
        "duplicates": rounds.duplicates.nonzero().squeeze(1),
        "scored_rows": known,
        "scores": rounds.scores[known],
        "drawn": rounds.drawn,
        "history": rounds.history,
    }


@reading_state("SelectionRounds")
def read_state(rounds: SelectionRounds, state: dict[str, Any]) -> None:
    """Give a selection the state that another one had.

    Args:
        rounds: The selection, made with the same arguments.
        state: What `write_state` returned.

    Raises:
        ValueError: If an argument differs; the message names each. If the version is unknown.
    """
    read_version(state, STATE_VERSION, "SelectionRounds")
    saved, selection = state["arguments"], on_cpu(state["selection"])
    here = _arguments(rounds, 0 if selection is None else selection["n"])
    other = [name for name in here if saved.get(name) != here[name]]
    differences = [f"{name}: saved {saved.get(name)!r}, here {here[name]!r}" for name in other]
    if differences:
        raise ValueError(
            f"The saved state belongs to another selection ({', '.join(differences)}). Resume with the same arguments, "
            "or start a new run from the weights only."
        )
    if selection is None:
        rounds.forget()
        return
    rounds.round, rounds.n, rounds.k = selection["round"], selection["n"], selection["k"]
    rounds.engine, rounds.silhouettes = selection["engine"], selection["silhouettes"]
    rounds.labels = None if selection["labels"] is None else selection["labels"].long()
    rounds.quality, rounds.log_weights = selection["quality"], selection["log_weights"]
    rounds.duplicates = torch.zeros(rounds.n, dtype=torch.bool)
    rounds.duplicates[selection["duplicates"]] = True
    rounds.scores = torch.full((rounds.n,), float("nan"), dtype=torch.float64)
    rounds.scores[selection["scored_rows"]] = selection["scores"]
    rounds.drawn, rounds.history = [torch.as_tensor(rows) for rows in selection["drawn"]], selection["history"]
    rounds.scores[torch.cat(rounds.drawn)]  # rows that there are
