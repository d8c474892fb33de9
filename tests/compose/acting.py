"""What shows that a method really acted in a run: rows, answers, flags, states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.foreign_clicks import Clicks

Act = Callable[[dict[str, Any], Any], None]  # gets the callbacks by name, and the module


def all_of(*checks: Act) -> Act:
    def check(callbacks: dict[str, Any], module: Any) -> None:
        for one in checks:
            one(callbacks, module)

    return check


def by_epoch(module: Any) -> dict[int, list[int]]:
    """The rows of each epoch, in order."""
    found: dict[int, list[int]] = {}
    for epoch, rows in module.seen:
        found.setdefault(epoch, []).extend(rows)
    return found


# -- rows --------------------------------------------------------------------------------------------------------------
def rounds_of(size: int, n: int) -> Act:
    """RS2: every epoch has so many rows, and none comes twice in the first pass over the n of them."""

    def check(callbacks: dict[str, Any], module: Any) -> None:
        found = by_epoch(module)
        assert {len(rows) for rows in found.values()} == {size}
        first = [row for epoch in range(n // size) for row in found[epoch]]
        assert len(first) == len(set(first))
        assert found[0] != found[n // size]

    return check


def guides(callbacks: dict[str, Any], module: Any) -> None:
    """RS2 guided by losses: the first round is the plain one, a later one is not."""
    sampler, losses = callbacks["rs2"].sampler, callbacks["rs2"].state_dict()["guide"]
    found, size = by_epoch(module), sampler.epoch_size(0)
    plain = type(sampler)(
        sampler.inner or sampler.n_rows, sampler.ratio, round_to=sampler.round_to, num_replicas=1, rank=0
    )
    assert found[0] == plain.epoch_rows(0).tolist()[: len(found[0])]
    assert any(found[epoch] != plain.epoch_rows(epoch).tolist()[:size] for epoch in (1, 2, 3))
    assert losses


def inside_of(budget: int) -> Act:
    """The selection: all that was trained on is in it."""

    def check(callbacks: dict[str, Any], module: Any) -> None:
        rows = callbacks["selection"].selection.rows.tolist()
        assert len(rows) == budget
        assert {row for _, part in module.seen for row in part} <= set(rows)

    return check


def halved_of(budget: int) -> Act:
    """RS2 inside a selection: two epochs are one pass over it."""

    def check(callbacks: dict[str, Any], module: Any) -> None:
        found = by_epoch(module)
        assert len(found[0] + found[1]) == budget
        assert sorted(found[0] + found[1]) == callbacks["selection"].selection.rows.tolist()

    return check


inside, halved = inside_of(24), halved_of(24)


def in_rounds(callbacks: dict[str, Any], module: Any) -> None:
    """A selection in two rounds of two epochs, half of it in each of them."""
    assert [len(rows) for rows in by_epoch(module).values()] == [4, 4, 12, 12]
    assert callbacks["selection"].selection.done


# -- what is done with them --------------------------------------------------------------------------------------------
def served(callbacks: dict[str, Any], module: Any) -> None:
    """The memory: it wrote all rows, and the later answers are not those of the model."""
    rows, answers = zip(*module.tested, strict=True)
    assert callbacks["memory"].memory.n_written == sum(map(len, rows)) == 32
    with torch.no_grad():
        plain = module.net(Clicks(32).columns).tolist()
    _corrected([value for part in answers for value in part], plain)


def served_images(callbacks: dict[str, Any], module: Any) -> None:
    """The same where answers are of images: they are not those that two labels alone would give."""
    assert callbacks["memory"].memory.n_written == 32
    assert sum(len(answers) for _, answers in module.tested) == 32


def _corrected(given: list[float], plain: list[float]) -> None:
    assert given[:8] == pytest.approx(plain[:8], abs=1e-5)
    assert sum(abs(one - two) > 1e-4 for one, two in zip(given[8:], plain[8:], strict=True)) > 12


def flags(callbacks: dict[str, Any], module: Any) -> None:
    """SAA: it selected in the later epochs at least, and calls some of the rows learnt."""
    assert len(callbacks["saa"].curve) >= 3
    assert 0 < callbacks["saa"].history.naive_share < 1


def asked(callbacks: dict[str, Any], module: Any) -> None:
    """The step had flags from the second epoch on."""
    per_epoch = len(module.flagged) // 4
    assert not any(module.flagged[:per_epoch])
    assert all(any(module.flagged[first : first + per_epoch]) for first in range(per_epoch, 4 * per_epoch, per_epoch))


def tuned(callbacks: dict[str, Any], module: Any) -> None:
    """Tuning: the states are better than none on held-out rows, and the weights are those of the start."""
    tuning = callbacks["tuning"]
    voices = tuning.voices.values() if tuning.voices else [tuning.tuned]
    assert all(voice.held_out["tuned"] < voice.held_out["untuned"] for voice in voices)
