"""PrequentialDataModule: train on the first part of a log, then stream the rest in time order, slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_adapt._shared.checks import check_choice, check_integer, check_number, check_share, problem
from lightning_adapt._shared.collate import as_is
from lightning_adapt._shared.optional_hooks import OptionalHooks
from lightning_adapt._shared.resumable_data import ResumableData
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt.reloop2.data.tables import EncodedTable, Roles, encode_table, read_table

__all__ = ["PrequentialDataModule"]


class PrequentialDataModule(OptionalHooks, ResumableData, LightningDataModule):
    """Cut a log by time: its first part trains (shuffled), the rest is a stream in time order for test and predict.

    "Prequential" means predict first, learn from the label after: with `ErrorMemoryCallback`, `IncrementalTraining`
    and `PrequentialMetrics` in `trainer.test`. The stream has `slots` equal parts (Zhu et al., KDD 2023, section 4.1).

    A batch is a dict of tensors of shape (B,): int64 per id field, float32 per numeric field, and "label" (float32),
    "index" (int64, the row in time order) and "slot" (int64, -1 before the stream). Nothing in a row depends on later
    rows: ids are numbered as they first appear, numbers are scaled by the training rows. Under several processes the
    rows of a batch are dealt out rank by rank, so that batch b of all ranks together is the b-th stretch of time.
    For `lightning.pytorch` only.

    Args:
        data: A pandas DataFrame, a mapping of name to column, or the path of a .parquet, .csv or .tsv file (extra
            "recsys").
        time: Column to sort by: numbers or datetimes, not text.
        label: Column of the labels, 0 and 1 (or see `positive`).
        fields: Id columns. None: every column without another part.
        numeric: Numeric columns; standardised by the training rows, missing values become 0.
        train_share: Share of all rows before the stream begins, in (0, 1).
        val_share: Share of all rows cut from the end of that for validation, below `train_share`. With 0 nothing is
            validated.
        slots: Equal parts of the stream.
        batch_size: Rows per training batch of one process.
        test_batch_size: Rows per batch of one process in validation, test and predict.
        positive: Labels from this value on are clicks (4 for ratings of 1 to 5). None: labels are 0 and 1 already.
        sort_by: Columns that order rows of equal time; without them such rows stay in the order of the table.
        new_ids: "rows": an id that appears only after the training rows gets an embedding row of its own, which
            something has to train. "shared": they all get row 0.
        num_workers: Worker processes per loader; the data is in memory, so that 0 is fastest.
        seed: Seed of the training order.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or does not fit the table; the latter when the data is first used.
        FileNotFoundError: When the data is first used, if `data` is a path without a file.
        MisconfigurationException: In place of these when it is a Trainer that uses the data; on resume, if the saved
            position belongs to other training rows.
    """

    def __init__(
        self,
        data: Any,
        *,
        time: str,
        label: str,
        fields: Sequence[str] | None = None,
        numeric: Sequence[str] = (),
        train_share: float = 0.5,
        val_share: float = 0.0,
        slots: int = 10,
        batch_size: int = 256,
        test_batch_size: int = 100,
        positive: float | None = None,
        sort_by: Sequence[str] | None = None,
        new_ids: Literal["rows", "shared"] = "rows",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.data = data
        names = {"fields": fields, "numeric": numeric, "sort_by": sort_by}
        checked = {argument: _check_names(argument, value) for argument, value in names.items()}
        self.roles = Roles(time, label, checked["fields"], checked["numeric"] or (), checked["sort_by"] or ())
        self.train_share, self.val_share = _check_shares(train_share, val_share)
        self.slots = check_integer("slots", slots, "Pass 10, as the paper does.", minimum=1)
        self.batch_size = check_integer("batch_size", batch_size, "Pass 256, say.", minimum=1)
        self.test_batch_size = check_integer("test_batch_size", test_batch_size, "Pass 100, say.", minimum=1)
        self.positive = _check_threshold(positive)
        self.new_ids = check_choice("new_ids", new_ids, ("rows", "shared"), "Pass 'rows' to be able to learn new ids.")
        self.num_workers = check_integer("num_workers", num_workers, "Pass 0: the data is in memory.")
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**63 - 1)
        self._table: EncodedTable | None = None
        if self.val_share == 0:
            self.hide_hook("val_dataloader")

    # -- the table ------------------------------------------------------------------------------------------------
    def read(self) -> Any:
        """Return the table to cut: what `data` is; for subclasses that get it elsewhere."""
        return self.data

    @property
    def table(self) -> EncodedTable:
        """The whole log in time order as tensors; read at the first use."""
        if self._table is None:
            self._table = encode_table(
                read_table(self.read()),
                self.roles,
                train_share=self.train_share,
                val_share=self.val_share,
                slots=self.slots,
                positive=self.positive,
                own_rows=self.new_ids == "rows",
            )
        return self._table

    @property
    def field_sizes(self) -> dict[str, int]:
        """Id field -> number of its embedding rows; what `CTRModule` takes."""
        return dict(self.table.field_sizes)

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric fields."""
        return self.roles.numeric

    @property
    def n_train(self) -> int:
        """Number of training rows."""
        return self.table.split.n_train

    @property
    def n_val(self) -> int:
        """Number of validation rows."""
        return self.table.split.n_val

    @property
    def n_test(self) -> int:
        """Number of rows of the stream."""
        return self.table.split.n_test

    @property
    def slot_edges(self) -> Tensor:
        """First row of each slot, then the number of all rows. Shape (S + 1,), dtype int64."""
        return self.table.slot_edges

    def seen_in_training(self, field: str) -> Tensor:
        """Say for each row of the stream whether its id occurs in a training row.

        Args:
            field: An id field.

        Returns:
            True where it does; a missing id counts as not seen. Shape (n_test,), dtype bool.

        Raises:
            ValueError: If there is no such field.
        """
        table = self.table
        if field not in table.field_sizes:
            raise ValueError(problem("field", f"one of {list(table.field_sizes)}", field, "Name an id field."))
        seen = torch.zeros(table.field_sizes[field], dtype=torch.bool)
        seen[table.columns[field][table.part("train")]] = True
        seen[0] = False
        return seen[table.columns[field][table.part("test")]]

    @override
    def setup(self, stage: str | None = None) -> None:
        try:
            _ = self.table  # mistakes in the table show before training, not in the middle of the first request
        except (ValueError, TypeError, FileNotFoundError) as found:
            if self.trainer is None:
                raise
            raise MisconfigurationException(str(found)) from found

    # -- loaders --------------------------------------------------------------------------------------------------
    @override
    def train_dataloader(self) -> Any:
        rows = _Rows(self.table, "train")
        sampler = RowSampler(torch.arange(len(rows)), seed=self.seed)
        misfit = self.misfit()
        if misfit is not None:
            return misfit
        return ResumableLoader(
            rows,
            sampler=sampler,
            position=self.position,
            batch_size=self.batch_size,
            # one row alone has no variance, so that a BatchNorm would refuse it
            drop_last=len(sampler) % self.batch_size == 1 and len(sampler) > 1,
            **self._loader_options(),
        )

    @override
    def val_dataloader(self) -> Any:
        return self._in_time_order("val")

    @override
    def test_dataloader(self) -> Any:
        return self._in_time_order("test")

    @override
    def predict_dataloader(self) -> Any:
        return self._in_time_order("test")

    def _in_time_order(self, part: str) -> DataLoader[Any]:
        # under several processes Lightning deals its rows out in turns: rank r gets rows r, r + W, r + 2 W, ...
        return DataLoader(_Rows(self.table, part), batch_size=self.test_batch_size, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "collate_fn": as_is,
        }

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def _fingerprint(self) -> dict[str, Any]:
        ranks = 1 if self.trainer is None else self.trainer.world_size
        batch = self.batch_size * ranks
        return {"train rows": self.n_train, "fields": self.field_sizes, "seed": self.seed, "global batch": batch}


class _Rows(Dataset[Any]):
    """One part of a table; a DataLoader asks for a whole batch by one call, so that no row is handled alone."""

    def __init__(self, table: EncodedTable, part: str) -> None:
        self.columns = {name: column[table.part(part)] for name, column in table.columns.items()}

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        return {name: column[chosen] for name, column in self.columns.items()}


def _check_names(argument: str, names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(problem(argument, "a sequence of column names", names, 'Pass ["name"] for a single one.'))
    return tuple(names)


def _check_threshold(positive: Any) -> float | None:
    if positive is None:
        return None
    if isinstance(positive, bool) or not isinstance(positive, Real):
        raise TypeError(problem("positive", "a number or None", positive, "Pass 4 for ratings of 1 to 5."))
    return float(positive)


def _check_shares(train_share: float, val_share: float) -> tuple[float, float]:
    train_share = check_number("train_share", train_share, "(0, 1)", "Pass 0.5 to train on the first half.")
    val_share = check_share("val_share", val_share, "Pass 0 for none.")
    if val_share >= train_share:
        raise ValueError(problem("val_share", "below `train_share`", val_share, "It is a share of all rows."))
    return train_share, val_share
