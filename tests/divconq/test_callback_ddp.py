"""Two gloo processes: the same selection, files and scores as one; what one rank finds wrong, all report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader

from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.training import pool
from tests.divconq.rounds_parts import GROUPS, Asks, N, RowData, Texts, WithLoader, row_loader, selection
from tests.foreign import trainer

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


class Checks(Callback):
    """Inside the processes: what must hold on every rank, and what to look at afterwards."""

    def __init__(self, chosen, folder: Path, name: str) -> None:
        self.chosen, self.folder, self.name = chosen, folder, name

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        rounds = self.chosen.selection
        state = json.dumps(rounds.state_dict(), default=lambda value: value.tolist())
        assert trainer.strategy.broadcast(state, src=0) == state

    def on_train_end(self, trainer, pl_module) -> None:
        assert pl_module.planned in ([], [trainer.global_step])
        found = {"seen": pl_module.seen, "batches": pl_module.batches, "rows": self.chosen.selection.rows.tolist()}
        (self.folder / f"{self.name}-{trainer.world_size}-{trainer.global_rank}.json").write_text(json.dumps(found))


def run(folder: Path, chosen, ranks: int, name: str = "run", module=None, data=None, ckpt=None, extra=(), **options):
    """What each rank saw."""
    given = {} if isinstance(module, WithLoader) else {"train_dataloaders": data}
    if isinstance(data, RowData):
        given = {"datamodule": data}
    strategy = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]} if ranks > 1 else {}
    runner = trainer(folder, [chosen, *extra, Checks(chosen, folder, name)], **{"max_epochs": 4, **strategy, **options})
    runner.fit(module or Asks(), **given, ckpt_path=ckpt, weights_only=True)
    return [json.loads((folder / f"{name}-{ranks}-{rank}.json").read_text()) for rank in range(ranks)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("where", "workers"), [("loader", 2), ("datamodule", 0), ("module", 0)])
def test_ranks_share_what_one_process_selects(where, workers, tmp_path):
    options = {"workers": workers, "batch_size": 2}
    module = WithLoader(**options) if where == "module" else Asks()
    data = {"loader": row_loader(**options), "datamodule": RowData(**options), "module": None}[where]
    alone = run(tmp_path, selection(rounds=3, out_dir=tmp_path / "one"), 1, data=row_loader())[0]
    both = run(tmp_path, selection(rounds=3, out_dir=tmp_path / "two"), 2, module=module, data=data)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one")) == 6
    assert both[0]["batches"] == both[1]["batches"] == alone["batches"] == [2, 4, 6, 6]
    together = [sorted(a + b) for (_, a), (_, b) in zip(both[0]["seen"], both[1]["seen"], strict=True)]
    assert together == [sorted(rows) for _, rows in alone["seen"]]


def test_texts_are_embedded_and_rated_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_EMBEDDED_AT_ONCE", 16)

    class Speaks(Asks):
        def generate_responses(self, conversations):
            return [f"apples and pears {turns[0].content[-3:]}" for turns in conversations]

    def chosen(out):
        options = {"rounds": 2, "k": 2, "engine": "torch", "out_dir": out}
        return DiversitySelectionCallback(24, "kmq", quality=lambda turns: len(turns[0].content), **options)

    run(tmp_path, chosen(tmp_path / "one"), 1, module=Speaks(), data=DataLoader(Texts(50), 4), max_epochs=2)
    run(tmp_path, chosen(tmp_path / "two"), 2, module=Speaks(), data=DataLoader(Texts(50), 2), max_epochs=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_resumed_run_of_two_goes_on(tmp_path):
    def saves():
        return ModelCheckpoint(tmp_path, "saved-{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)

    options = {"enable_checkpointing": True}
    whole = run(tmp_path, selection(rounds=3), 2, data=row_loader(batch_size=2), extra=[saves()], **options)
    path = tmp_path / "saved-epoch=0.ckpt"
    rest = run(tmp_path, selection(rounds=3), 2, "rest", data=row_loader(batch_size=2), ckpt=path)
    for there, here in zip(whole, rest, strict=True):
        assert here["seen"] == there["seen"][2:]
    alone = run(tmp_path, selection(rounds=3), 1, "alone", data=row_loader(), ckpt=path)[0]
    together = [sorted(a + b) for (_, a), (_, b) in zip(rest[0]["seen"], rest[1]["seen"], strict=True)]
    assert [sorted(rows) for _, rows in alone["seen"]] == together


def test_an_odd_row_is_left_out(tmp_path):
    both = run(tmp_path, selection(9, "random"), 2, data=row_loader(batch_size=2), max_epochs=2)
    per_epoch = [
        sorted(row for part in both for number, rows in part["seen"] if number == epoch for row in rows)
        for epoch in (0, 1)
    ]
    assert [len(rows) for rows in per_epoch] == [8, 8]
    assert set(per_epoch[0]) <= set(both[0]["rows"])


class OneSided:
    """Fails on rank 1 alone; without care rank 0 would wait for it for ever."""

    needs_generation = False

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, examples, module):
        if module.global_rank == 1:
            raise RuntimeError("the judge is not at home")
        return (examples.rows % GROUPS).double()


@pytest.mark.parametrize("where", ["scorer", "vectors", "data"])
def test_what_fails_on_one_rank_fails_on_all(where, tmp_path):
    if where == "scorer":
        chosen, data, match = selection(rounds=2, scorer=OneSided(), budget=48), row_loader(), "not at home|same place"
    elif where == "vectors":

        class Broken:
            name = "broken"

            def fit(self, documents):
                pass

            def encode(self, texts):
                bad = torch.distributed.get_rank() == 1
                return np.full((len(texts), 2), np.nan if bad else 1.0, dtype=np.float32)

            def describe(self):
                return {}

        chosen = DiversitySelectionCallback(8, "km_random", k=2, embedder=Broken())
        data, match = DataLoader(Texts(2000), 2), "finite|same place"
    else:

        class Other(Texts):
            def conversation(self, row):
                return super().conversation(row + torch.distributed.get_rank())

        chosen, data, match = (
            DiversitySelectionCallback(8, "random"),
            DataLoader(Other(), 2),
            "same on all ranks|same place",
        )
    with pytest.raises(Exception, match=match):
        run(tmp_path, chosen, 2, data=data, max_epochs=2)


def test_groups_fit_the_pool():
    assert N % GROUPS == 0
