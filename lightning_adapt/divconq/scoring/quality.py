"""Quality from a column, an array, a function or a model, and how an argument becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from lightning_adapt._shared.checks import describe, problem
from lightning_adapt.divconq.embed.array_file import open_array
from lightning_adapt.divconq.scoring.digits import DigitTokenQuality
from lightning_adapt.divconq.scoring.examples import split_answer
from lightning_adapt.divconq.scoring.quality_base import Quality
from lightning_adapt.divconq.scoring.ratings import as_number
from lightning_adapt.divconq.scoring.reward import RewardModel
from lightning_adapt.divconq.text.conversation import Conversation

__all__ = [
    "ArrayQuality",
    "ColumnQuality",
    "DigitTokenQuality",
    "FunctionQuality",
    "Quality",
    "RewardQuality",
    "as_quality",
]


class ColumnQuality(Quality):
    """Reads quality from a column that the rows have already.

    When to use it: the pool comes with ratings (likes, a teacher's score). Costs one read of the pool.

    Args:
        column: Its name.
        batch_size: Rows per batch.
    """

    def __init__(self, column: str, *, batch_size: int = 1024) -> None:
        super().__init__(batch_size)
        self.column = column
        self.name = f"column {column}"

    def rate(self, texts: Any, dataset: Any, rows: torch.Tensor) -> torch.Tensor:
        """Read the column; see `Quality.rate`.

        Args:
            texts: Not used.
            dataset: Rows that are mappings, a data set whose method `record(row)` gives such, or a `Subset` of one.
            rows: Row numbers. Shape (n,), dtype int64.

        Returns:
            Its values. Shape (n,), dtype float64.

        Raises:
            ValueError: If the column is missing (names those there are) or holds no number.
        """
        del texts
        if dataset is None:
            raise ValueError(problem("quality", "used with a data set", self.column, "Pass the pool's rows, too."))
        dataset, places = _located(dataset, rows.tolist())
        if hasattr(dataset, "select_columns") and self.column in dataset.column_names:  # of `datasets`: not row by row
            cells = dataset.select_columns([self.column])[places][self.column]
        else:
            cells = [self._cell(_record(dataset, place), row) for place, row in zip(places, rows.tolist(), strict=True)]
        values = [self._number(cell, row) for cell, row in zip(cells, rows.tolist(), strict=True)]
        return torch.tensor(values, dtype=torch.float64)

    def _cell(self, item: Any, row: int) -> Any:
        if isinstance(item, Mapping) and self.column in item:
            return item[self.column]
        found = (
            "the columns " + ", ".join(map(str, item)) if isinstance(item, Mapping) else "no columns: " + describe(item)
        )
        raise ValueError(problem("quality", "a column of the pool", self.column, f"Row {row} has {found}."))

    def _number(self, value: Any, row: int) -> float:
        number = as_number(value)
        if number is None:
            remedy = f"It stands in row {row}, column {self.column!r}."
            raise ValueError(problem("quality", "a column of numbers", value, remedy))
        return number


class ArrayQuality(Quality):
    """Quality worked out elsewhere: one number per row, in the order of the pool.

    Args:
        values: Array, tensor, sequence of numbers, or path of a `.npy` file. Shape (N,).

    Raises:
        ValueError: If it has more than one dimension or holds no numbers.
        FileNotFoundError: If there is no such file.
    """

    name = "array"

    def __init__(self, values: Any) -> None:
        super().__init__(4096)
        if isinstance(values, (str, Path)):
            values = open_array(values)
        try:
            found = values.detach().cpu() if isinstance(values, torch.Tensor) else torch.as_tensor(np.array(values))
            self.values = found.to(torch.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(problem("quality", "an array of numbers", values, "Pass one number per row.")) from error
        if self.values.ndim != 1:
            shape = tuple(self.values.shape)
            raise ValueError(problem("quality", "an array of shape (N,)", shape, "Pass one number per row."))

    def __call__(
        self,
        texts: Any,
        dataset: Any = None,
        *,
        part: tuple[int, int] = (0, 1),
        progress: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Check the length, then see `Quality.__call__`.

        Args:
            texts: The pool's texts, or None.
            dataset: The pool, where there are no texts.
            part: (rank, world): which share of the batches to do.
            progress: Called with the number of rows done after each batch.

        Returns:
            Values of the rows `self.rows(N, part)`. Shape (N,) for the whole pool, dtype float64.

        Raises:
            ValueError: If the number of values is not that of the rows, or one is NaN or infinite.
        """
        count = len(texts) if texts is not None else len(dataset)
        if len(self.values) != count:
            remedy = "Pass one number per row, in the order of the pool."
            raise ValueError(problem("quality", f"{count} numbers long, as the pool", len(self.values), remedy))
        return super().__call__(texts, dataset, part=part, progress=progress)

    def rate(self, texts: Any, dataset: Any, rows: torch.Tensor) -> torch.Tensor:
        """Look the rows up; see `Quality.rate`.

        Args:
            texts: Not used.
            dataset: Not used.
            rows: Row numbers. Shape (n,), dtype int64.

        Returns:
            Their values. Shape (n,), dtype float64.
        """
        del texts, dataset
        return self.values[rows]


class FunctionQuality(Quality):
    """Rates each conversation with a function of yours.

    When to use it: a rule tells good from bad (length, language, a checker). Costs one call per row.

    Args:
        function: `(conversation) -> number`; a conversation is a tuple of turns with `role` and `content`.
        batch_size: Rows per batch.
    """

    name = "function"
    needs_texts = True

    def __init__(self, function: Callable[[Conversation], float], *, batch_size: int = 256) -> None:
        super().__init__(batch_size)
        self.function = function

    def rate(self, texts: Any, dataset: Any, rows: torch.Tensor) -> torch.Tensor:
        """Call the function; see `Quality.rate`.

        Args:
            texts: The pool's texts.
            dataset: Not used.
            rows: Row numbers. Shape (n,), dtype int64.

        Returns:
            Its values. Shape (n,), dtype float64.

        Raises:
            RuntimeError: If the function raises; names the row, the cause is attached.
            ValueError: If it returns no number.
        """
        del dataset
        return torch.tensor([self._value(texts.conversation(row), row) for row in rows.tolist()], dtype=torch.float64)

    def _value(self, conversation: Conversation, row: int) -> float:
        try:
            value: Any = self.function(conversation)
        except Exception as error:
            raise RuntimeError(f"`quality` failed on row {row}: {type(error).__name__}: {error}") from error
        number = as_number(value)
        if number is None:
            raise ValueError(problem("quality", "a function that returns a number", value, f"It came for row {row}."))
        return number


class RewardQuality(Quality):
    """Rates each answer with a reward model.

    When to use it: the pool mixes good and bad answers, and a reward model of its language is at hand. Costs one
    forward pass of that model per row.

    Args:
        model: A sequence-classification model of `transformers` with one output, or its name or folder.
        tokenizer: Its tokenizer; None to load it beside a model given by name.
        batch_size: Rows per batch.
        options: Further arguments of `RewardModel`: template, max_length, device.
    """

    name = "reward"
    needs_texts = True

    def __init__(self, model: Any, tokenizer: Any = None, *, batch_size: int = 8, **options: Any) -> None:
        super().__init__(batch_size)
        self.reward = RewardModel(model, tokenizer, batch_size=batch_size, **options)

    def rate(self, texts: Any, dataset: Any, rows: torch.Tensor) -> torch.Tensor:
        """Ask the reward model; see `Quality.rate`.

        Args:
            texts: The pool's texts.
            dataset: Not used.
            rows: Row numbers. Shape (n,), dtype int64.

        Returns:
            Its ratings of the last answers. Shape (n,), dtype float64.
        """
        del dataset
        splits = [split_answer(texts.conversation(row)) for row in rows.tolist()]
        return self.reward.rate([context for context, _ in splits], [answer for _, answer in splits])


def as_quality(value: Any) -> Quality:
    """Return a quality for what the user passed.

    Args:
        value: A `Quality`; the name of a column; a path that ends in ".npy"; an array, tensor or sequence of numbers;
            or a function `(conversation) -> number`.

    Returns:
        The quality.

    Raises:
        TypeError: If the value is none of these.
        ValueError: If an array has the wrong shape.

    Example:
        >>> as_quality([0.5, 2.0])([("a",), ("b",)])
        tensor([0.5000, 2.0000], dtype=torch.float64)
    """
    if isinstance(value, Quality):
        return value
    if isinstance(value, Path) or (isinstance(value, str) and value.endswith(".npy")):
        return ArrayQuality(value)
    if isinstance(value, str):
        return ColumnQuality(value)
    if isinstance(value, (torch.Tensor, np.ndarray, Sequence)):
        return ArrayQuality(value)
    if callable(value) and not isinstance(value, type):
        return FunctionQuality(value)
    allowed = "a column name, an array, a .npy file, a function (conversation) -> number or a Quality"
    raise TypeError(problem("quality", allowed, value, "Pass for instance a column of your rows."))


def _located(dataset: Any, rows: list[int]) -> tuple[Any, list[int]]:
    """Return the data set inside all `Subset`s, and the same rows in it."""
    while isinstance(dataset, Subset):
        rows, dataset = [int(dataset.indices[row]) for row in rows], dataset.dataset
    return dataset, rows


def _record(dataset: Any, row: int) -> Any:
    # items of a tokenised data set are no longer what the user's columns were in
    record = getattr(dataset, "record", None)
    return record(row) if callable(record) else dataset[row]
