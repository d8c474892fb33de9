"""MovieLensDataModule: MovieLens ratings as a stream of clicks in time order."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import override

from lightning_adapt._shared.checks import check_choice, check_flag
from lightning_adapt.reloop2.data.datamodule import PrequentialDataModule
from lightning_adapt.reloop2.data.movielens_files import N_GENRES, RELEASES, fetch_movielens, read_movielens

__all__ = ["MovieLensDataModule"]

_FIELDS = ("user_id", "item_id", "gender", "occupation", "age", "year")
_SECONDS_PER_HOUR = 3600


class MovieLensDataModule(PrequentialDataModule):
    """MovieLens in time order: the first half trains, the rest streams; a click is a rating of 4 or 5.

    Harper & Konstan, ACM TiiS 2015. Rows are sorted by (timestamp, user_id, item_id), and every feature is known when
    the rating is given: ids, gender, occupation, age and release year in fixed buckets, the first three genres. In
    ml-100k 87 % of the rows after the middle are of users that the first half does not know; see
    `seen_in_training("user_id")`. For `lightning.pytorch` only.

    Args:
        root: Folder of GroupLens' files (`u.data` or `ratings.dat`, ...), of RecBole's atomic files (`ml-100k.inter`,
            `.user`, `.item`), or GroupLens' zip; or the folder around one of these.
        version: "100k" (100,000 ratings, 1997-98) or "1m" (1,000,209 ratings, 2000-03).
        download: Fetch the zip from GroupLens into `root` if it is not there; its licence forbids passing it on.
        time_fields: Add hour of the day and day of the week (UTC) as fields "hour" and "weekday".
        train_share: As in `PrequentialDataModule`.
        val_share: As in `PrequentialDataModule`.
        slots: As in `PrequentialDataModule`.
        batch_size: As in `PrequentialDataModule`.
        test_batch_size: As in `PrequentialDataModule`.
        new_ids: As in `PrequentialDataModule`.
        num_workers: As in `PrequentialDataModule`.
        seed: As in `PrequentialDataModule`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; if the files are not what GroupLens published.
        FileNotFoundError: When the data is first used, if it is not there.
    """

    def __init__(
        self,
        root: str = "data",
        *,
        version: Literal["100k", "1m"] = "100k",
        download: bool = False,
        time_fields: bool = False,
        train_share: float = 0.5,
        val_share: float = 0.0,
        slots: int = 10,
        batch_size: int = 256,
        test_batch_size: int = 100,
        new_ids: Literal["rows", "shared"] = "rows",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        check_choice("version", version, tuple(RELEASES), "Pass '100k'.")
        check_flag("time_fields", time_fields, "Pass True to add hour and weekday.")
        genres = [f"genre_{place + 1}" for place in range(N_GENRES)]
        super().__init__(
            root,
            time="timestamp",
            label="rating",
            positive=4,
            sort_by=("user_id", "item_id"),
            fields=(*_FIELDS, *genres, *(("hour", "weekday") if time_fields else ())),
            train_share=train_share,
            val_share=val_share,
            slots=slots,
            batch_size=batch_size,
            test_batch_size=test_batch_size,
            new_ids=new_ids,
            num_workers=num_workers,
            seed=seed,
        )
        self.root, self.version, self.time_fields = root, version, time_fields
        self.download = check_flag("download", download, "Pass True to fetch the data from GroupLens.")

    @override
    def prepare_data(self) -> None:
        if self.download:
            fetch_movielens(self.root, self.version)

    @override
    def read(self) -> Any:
        columns = read_movielens(self.root, self.version)
        if self.time_fields:
            hours = columns["timestamp"] // _SECONDS_PER_HOUR
            columns["hour"] = hours % 24
            columns["weekday"] = (hours // 24 + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
        return columns
