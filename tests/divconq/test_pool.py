"""The pool of a training run: how often rows are read, what is hashed, quality over a part of the rows."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, SubsetRandomSampler

from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.embed import transformer
from lightning_adapt.divconq.embed.embedders import PrecomputedEmbedder
from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder
from lightning_adapt.divconq.scoring.scorers import EmbeddingRelevanceScorer
from lightning_adapt.divconq.training import pool_texts
from lightning_adapt.divconq.training.options import scorer_for
from lightning_adapt.divconq.training.pool import TrainingPool
from tests.divconq.rounds_parts import N, Texts, fit, row_loader, selection
from tests.divconq.test_callback_text import Speaks


class Counted(Texts):
    def __init__(self):
        super().__init__()
        self.reads = Counter()

    def conversation(self, row):
        self.reads[row] += 1
        return super().conversation(row)


@pytest.mark.parametrize(("held", "most"), [(2**28, 2), (200, 7)])
def test_rows_are_read_once_where_memory_allows(held, most, tmp_path, monkeypatch):
    monkeypatch.setattr(pool_texts, "_HELD_CHARACTERS", held)
    data, options = Counted(), {"k": 2, "engine": "torch", "quality": lambda turns: len(turns[1].content)}
    callback = DiversitySelectionCallback(8, "kmq", **options)
    fit(tmp_path, [callback], data=DataLoader(data, 4), max_epochs=1)
    assert set(data.reads) == set(range(40))
    assert max(data.reads.values()) <= most
    assert (max(data.reads.values()) > 3) == (held == 200), "the limit is used"
    texts = callback._run.running.pool.texts
    assert texts.prompt(3) == Texts().conversation(3)[0][1]
    assert not texts._held


def test_vectors_are_hashed_without_a_copy_of_them_all():
    vectors = np.zeros((20_000, 64), dtype=np.float32)
    vectors[:, 0] = np.arange(20_000)
    pool = TrainingPool(range(20_000), None, PrecomputedEmbedder(vectors), None)
    tracemalloc.start()
    first = pool._read()
    assert tracemalloc.get_traced_memory()[1] < vectors.nbytes / 4
    tracemalloc.stop()
    vectors[19_999, 63] = 1e-3
    assert pool._read() != first


@pytest.mark.parametrize("kind", ["array", "list", "file", "tensor"])
def test_quality_of_the_whole_data_serves_a_part_of_it(kind, tmp_path):
    values = np.arange(N, dtype=np.float64) ** 2
    np.save(tmp_path / "quality.npy", values)
    given = {"array": values, "list": values.tolist(), "file": str(tmp_path / "quality.npy")}
    given["tensor"] = torch.from_numpy(values)
    loader = row_loader(shuffle=None, sampler=SubsetRandomSampler(list(range(10, 50))))
    callback = selection(12, "kmq", quality=given[kind])
    fit(tmp_path, [callback], data=loader, max_epochs=1)
    assert callback.selection.quality.tolist() == values[10:50].tolist()


def test_the_scorer_keeps_its_settings_when_it_gets_the_embedder():
    mine, embedder = EmbeddingRelevanceScorer(truncate=False, generation={"max_new_tokens": 3}), TfidfEmbedder(8)
    found = scorer_for(mine, embedder, 3)
    assert (found.embedder, found.truncate, found.generation) == (embedder, False, {"max_new_tokens": 3})
    assert mine.embedder is None


def test_an_embedder_of_the_scorer_is_fitted_by_each_run_on_its_pool(tmp_path):
    mine = EmbeddingRelevanceScorer(TfidfEmbedder(8))
    for _ in range(2):
        callback = DiversitySelectionCallback(
            16, "km_random", rounds=2, k=2, engine="torch", embedder=TfidfEmbedder(4), scorer=mine
        )
        fit(tmp_path, [callback], Speaks(), DataLoader(Texts(), 4), max_epochs=2)
        assert callback.selection.scores.isfinite().sum() == 8
        assert not mine.embedder.is_fitted
    fitted = EmbeddingRelevanceScorer(TfidfEmbedder(8))
    fitted.embedder.fit(["one text", "another text"])
    assert scorer_for(fitted, None, 2).embedder is fitted.embedder


def test_an_embedder_of_the_scorer_may_be_a_name_and_no_array(monkeypatch):
    monkeypatch.setattr(transformer, "load_text_model", lambda *given: pytest.fail(f"asked for {given[0]}"))
    with pytest.raises(pytest.fail.Exception, match="asked for some/model"):
        EmbeddingRelevanceScorer("some/model")
    with pytest.raises(ValueError, match="`embedder` must be one that can embed new texts"):
        EmbeddingRelevanceScorer(np.eye(3, dtype=np.float32))
