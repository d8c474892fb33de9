"""DriftStream: a click log with known drift, made from a seed; needs no download and no extra."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared.checks import check_choice, check_integer, check_positive, check_share, problem
from lightning_adapt._shared.hashing import generator
from lightning_adapt.reloop2.data.datamodule import PrequentialDataModule

__all__ = ["DriftStream"]

Kind = Literal["gradual", "abrupt", "none"]
FIELDS = ("user_id", "item_id", "group", "category", "position")
_POSITIONS = 5
# standard deviations of the parts of the logit; what drifts carries most of it
_STD = {"user": 0.3, "item": 0.3, "position": 0.3, "category": 0.6, "group_category": 0.52}
_INTERCEPT = -1.35


class DriftStream(PrequentialDataModule):
    """A DataModule of made-up clicks whose causes change while they stream; the truth is known.

    The logit of a click is a constant plus effects of user, item, place on the page, category, and user group x
    category. The last two turn away from what they were: effect(t) = cos(a) old + sin(a) new, with old and new drawn
    alike, so that the task stays as hard as it was for whoever knows the truth. "gradual": the angle a grows evenly
    over the stream; "abrupt": it jumps in the middle of it; "none": nothing changes. A third of the items is not
    there before the stream begins (with "none" all items are there from the start).

    With the defaults a `CTRModule` has an AUC of .69 to .72 before the drift, and .56 to .64 over the last five of ten
    slots. For `lightning.pytorch` only.

    Args:
        kind: "gradual", "abrupt" or "none".
        n_train: Rows before the stream begins.
        n_stream: Rows of the stream.
        n_users: Users, each in one group.
        n_items: Items, each in one category; the popular ones come often.
        n_categories: Categories.
        n_groups: Groups of users.
        new_items: Share of the items that only the stream has, in [0, 1).
        drift: Angle at the end, in quarter turns; at 1 nothing of the old effects is left.
        val_share: As in `PrequentialDataModule`.
        slots: As in `PrequentialDataModule`.
        batch_size: As in `PrequentialDataModule`.
        test_batch_size: As in `PrequentialDataModule`.
        new_ids: As in `PrequentialDataModule`.
        num_workers: As in `PrequentialDataModule`.
        seed: Seed of the log and of the training order.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> stream = DriftStream("abrupt", n_train=2000, n_stream=1000)
        >>> stream.n_train, stream.n_test, sorted(stream.field_sizes)
        (2000, 1000, ['category', 'group', 'item_id', 'position', 'user_id'])
        >>> stream.true_probability.shape
        torch.Size([3000])
    """

    def __init__(
        self,
        kind: Kind = "gradual",
        *,
        n_train: int = 400_000,
        n_stream: int = 200_000,
        n_users: int = 2_000,
        n_items: int = 1_500,
        n_categories: int = 40,
        n_groups: int = 8,
        new_items: float = 1 / 3,
        drift: float = 0.9,
        val_share: float = 0.0,
        slots: int = 10,
        batch_size: int = 1_024,
        test_batch_size: int = 1_000,
        new_ids: Literal["rows", "shared"] = "rows",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.kind = check_choice("kind", kind, ("gradual", "abrupt", "none"), "Pass 'gradual'.")
        counts = {"n_users": n_users, "n_items": n_items, "n_categories": n_categories, "n_groups": n_groups}
        for name, count in {**counts, "n_train": n_train, "n_stream": n_stream}.items():
            check_integer(name, count, "Pass how many there are to be.", minimum=1 if name == "n_groups" else 3)
        self.sizes = counts
        self.drift = check_positive("drift", drift, "Pass kind='none' for no drift.")
        self.new_items = check_share("new_items", new_items, "Pass 0 for none.")
        if round(self.new_items * n_items) >= n_items:
            raise ValueError(problem("new_items", "such that one item is old", new_items, "Pass a third, say."))
        self._true_probability: Tensor | None = None
        super().__init__(
            None,
            time="time",
            label="click",
            fields=FIELDS,
            train_share=n_train / (n_train + n_stream),
            val_share=val_share,
            slots=slots,
            batch_size=batch_size,
            test_batch_size=test_batch_size,
            new_ids=new_ids,
            num_workers=num_workers,
            seed=seed,
        )
        self.rows_before, self.rows_streamed = n_train, n_stream

    @property
    def true_probability(self) -> Tensor:
        """Probability that each row's click was drawn with, the whole log in time order. Shape (N,), dtype float64."""
        if self._true_probability is None:
            _ = self.table
        return self._true_probability  # type: ignore[return-value]  # reading the table fills it

    @override
    def read(self) -> Any:
        random = generator(self.seed, 1)
        n_rows = self.rows_before + self.rows_streamed
        users, items, groups = (self.sizes[name] for name in ("n_users", "n_items", "n_groups"))
        group_of = torch.randint(groups, (users,), generator=random)
        category_of = torch.randint(self.sizes["n_categories"], (items,), generator=random)
        user = torch.randint(users, (n_rows,), generator=random)
        item = self._draw_items(n_rows, random)
        position = torch.randint(_POSITIONS, (n_rows,), generator=random)
        group, category = group_of[user], category_of[item]

        n_categories = self.sizes["n_categories"]
        cell = group * n_categories + category
        category_of_cell = torch.arange(groups * n_categories) % n_categories
        angle = self._angle(n_rows)
        shares = torch.stack([angle.cos(), angle.sin()])
        logit = torch.full((n_rows,), _INTERCEPT, dtype=torch.float64)
        for part, level in {"user": user, "item": item, "position": position}.items():
            logit += _STD[part] * _effects(level, 1, random)[0]
        logit += _STD["category"] * (shares * _effects(category, 2, random)).sum(0)
        logit += _STD["group_category"] * (shares * _effects(cell, 2, random, within=category_of_cell)).sum(0)
        self._true_probability = logit.sigmoid()
        click = torch.rand(n_rows, generator=random, dtype=torch.float64) < self._true_probability
        columns = {"user_id": user, "item_id": item, "group": group, "category": category, "position": position}
        return {"time": torch.arange(n_rows), "click": click, **columns}

    def _draw_items(self, n_rows: int, random: torch.Generator) -> Tensor:
        """Draw items by popularity; rows before the stream have the old ones alone, unless nothing is to change."""
        n_items = self.sizes["n_items"]
        n_old = n_items - (0 if self.kind == "none" else round(self.new_items * n_items))
        popularity = torch.rand(n_items, generator=random).mul_(9).add_(1).reciprocal_()  # ten to one
        parts = ((n_old, self.rows_before), (n_items, n_rows - self.rows_before))
        drawn = [torch.multinomial(popularity[:n], rows, replacement=True, generator=random) for n, rows in parts]
        return torch.cat(drawn)

    def _angle(self, n_rows: int) -> Tensor:
        progress = (torch.arange(n_rows, dtype=torch.float64) - self.rows_before).clamp_min(0) / self.rows_streamed
        if self.kind == "abrupt":
            progress = (progress >= 0.5).double()
        return progress * (0.0 if self.kind == "none" else self.drift * math.pi / 2)


def _effects(level: Tensor, n_kinds: int, random: torch.Generator, *, within: Tensor | None = None) -> Tensor:
    """Draw effects of a factor's levels and return those of the rows.

    Over the rows each kind has mean 0 and standard deviation 1, and two kinds are uncorrelated: with 40 categories,
    chance would otherwise make one seed's drift twice as large as another's.

    Args:
        level: Level of each row. Shape (N,), dtype int64.
        n_kinds: Kinds of effects.
        random: Source of random numbers.
        within: Level of a coarser factor that each level belongs to; the mean is then 0 in each of these. Shape (M,).

    Returns:
        Effects. Shape (n_kinds, N), dtype float64.
    """
    counts = torch.bincount(level, minlength=0 if within is None else len(within)).double()
    counts.clamp_min_(1e-3)  # a level that never comes may have any effect
    weight = (counts / counts.sum()).sqrt()[:, None]
    coarse = torch.zeros(len(counts), dtype=torch.int64) if within is None else within
    means = torch.nn.functional.one_hot(coarse).double()
    drawn = torch.randn(len(counts), n_kinds, generator=random, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(torch.cat([means, drawn], 1) * weight)[0] / weight
    return basis[:, means.shape[1] :].T[:, level]
