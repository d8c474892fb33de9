"""Lightning's own lines are hidden for a while; ours are not."""

from __future__ import annotations

import logging
import warnings

import pytest
import pytorch_lightning  # noqa: F401 - its logger takes over the lines of both
from lightning.pytorch import Trainer

from lightning_adapt._shared.quiet import quiet_lightning


def test_lines_of_lightning_are_hidden_and_come_back(caplog):
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with quiet_lightning():
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        assert not caplog.records
    assert logger.level == level


def test_warnings_of_others_still_show():
    with quiet_lightning(), pytest.warns(UserWarning, match="of ours"):
        warnings.warn("of ours", UserWarning, stacklevel=1)
