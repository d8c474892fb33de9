"""PrequentialDataModule: tables and arguments that do not fit are refused by name, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from tests.foreign import trainer
from tests.reloop2.log_parts import Recorder, data, frame


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time": "date"}, r"`time` must be among the columns \['user', 'item'"),
        ({"label": "clicks"}, "`label` must be among the columns"),
        ({"fields": ["user", "shop"]}, "got 'shop'"),
        ({"numeric": ["prices"]}, "`numeric` must be among"),
        ({"sort_by": ["day"]}, "`sort_by` must be among"),
        ({"fields": ["user", "click"]}, r"without another part, but got \['click'\]"),
        ({"fields": ["user", "user"]}, r"\['user'\]"),
        ({"fields": ["user", "price"]}, r"\['price'\]"),
        ({"fields": []}, "at least one column"),
        ({"fields": None, "numeric": ()}, r"\['price'\] look like numbers or times"),
        ({"label": "price", "numeric": ()}, "0 or 1"),
        ({"time": "user", "fields": ["item"]}, "text would sort"),
        ({"numeric": ["user"], "fields": ["item"]}, None),
        ({"train_share": 0.001}, "have rows"),
        ({"train_share": 0.5, "val_share": 0.001}, "have rows"),
        ({"slots": 1000}, "from 1 to 54"),
    ],
)
def test_columns_that_do_not_fit(options, words):
    module = data(**options)
    if words is None:  # digits as text are numbers
        assert module.table.scales.keys() == {"user"}
        return
    with pytest.raises(ValueError, match=words):
        module.setup("fit")


def test_reserved_and_double_names():
    table = frame().rename(columns={"user": "slot"})
    with pytest.raises(ValueError, match="none of them named"):
        data(table, fields=["slot"]).setup()
    table = frame().rename(columns={"user": "item"})
    with pytest.raises(ValueError, match="names of their own"):
        data(table).setup()
    with pytest.raises(ValueError, match="equally long"):
        data({"when": [1, 2], "click": [0], "user": [1, 2]}).setup()


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (5, TypeError),
        ([1, 2], TypeError),
        ("nowhere.csv", FileNotFoundError),
        ("nowhere.xlsx", ValueError),
        (Path("nowhere.parquet"), FileNotFoundError),
    ],
)
def test_data_that_is_none(source, error):
    with pytest.raises(error, match="`data`"):
        data(source).setup()


def test_under_a_trainer_mistakes_are_misconfigurations(tmp_path):
    """So that the command line tells them in one line."""
    for source, options in (("nowhere.csv", {}), (frame(), {"time": "date"}), (5, {})):
        with pytest.raises(MisconfigurationException, match=r"must be|no file"):
            trainer(tmp_path).fit(Recorder(), datamodule=data(source, **options))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"train_share": 0}, ValueError),
        ({"train_share": 1.0}, ValueError),
        ({"train_share": "half"}, TypeError),
        ({"val_share": 0.5}, ValueError),
        ({"slots": 0}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"test_batch_size": 2.5}, TypeError),
        ({"new_ids": "hash"}, ValueError),
        ({"fields": "user"}, TypeError),
        ({"numeric": [3]}, TypeError),
        ({"seed": -1}, ValueError),
        ({"num_workers": -1}, ValueError),
        ({"positive": "4"}, TypeError),
    ],
)
def test_bad_arguments_are_refused_at_once(options, error):
    with pytest.raises(error, match=next(iter(options))):
        data(**options)
