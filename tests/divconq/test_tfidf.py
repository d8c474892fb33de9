"""TF-IDF with SVD: against scikit-learn's own classes, in chunks, reproducible, and at the edges."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from lightning_adapt.divconq.embed import tfidf
from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder

NOUNS = ["apple", "engine", "river", "verb", "planet", "violin"]
RNG = np.random.default_rng(0)
DOCUMENTS = [
    " ".join([noun] * 2 + [f"{noun}{other}" for other in RNG.integers(0, 9, 6)] + ["the", "of", "A"])
    for noun in NOUNS
    for _ in range(20)
]


def by_hand(documents, texts, dimensions):
    """Exact words instead of hashed ones, loops instead of sparse matrices, and a full SVD."""
    words = sorted({word for document in documents for word in re.findall(r"\w+", document.lower())})
    found = {word: sum(word in re.findall(r"\w+", document.lower()) for document in documents) for word in words}

    def weights(texts):
        rows = np.zeros((len(texts), len(words)))
        for row, text in enumerate(texts):
            tokens = re.findall(r"\w+", text.lower())
            for place, word in enumerate(words):
                if word in tokens:
                    idf = math.log((1 + len(documents)) / (1 + found[word])) + 1
                    rows[row, place] = (1 + math.log(tokens.count(word))) * idf
            rows[row] /= np.linalg.norm(rows[row]) or 1
        return rows

    directions = np.linalg.svd(weights(documents))[2][:dimensions].T
    vectors = weights(texts) @ directions
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_it_equals_the_definition():
    embedder = TfidfEmbedder(5)
    embedder.fit(DOCUMENTS)
    texts = [*DOCUMENTS[::7], "the apple of the river", "violin violin violin2 unknown"]
    vectors, expected = embedder.encode(texts), by_hand(DOCUMENTS, texts, 5)
    assert vectors.dtype == np.float32
    # directions may be turned inside the space: compare what clusters depend on
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_topics_are_apart():
    embedder = TfidfEmbedder(16)
    embedder.fit(DOCUMENTS)
    vectors = embedder.encode(DOCUMENTS).reshape(len(NOUNS), 20, 16)
    near = np.einsum("ind,jmd->ijnm", vectors, vectors).mean((2, 3))
    assert near.diagonal().min() > 0.5 + near[~np.eye(len(NOUNS), dtype=bool)].max()


def test_same_input_same_vectors_whatever_the_chunks(monkeypatch):
    first, second = TfidfEmbedder(8, seed=3), TfidfEmbedder(8, seed=3)
    first.fit(DOCUMENTS)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - that it is left alone is what is tested
    monkeypatch.setattr(tfidf, "_CHUNK", 7)
    second.fit(tuple(DOCUMENTS))
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    np.testing.assert_array_equal(first.encode(DOCUMENTS), second.encode(DOCUMENTS))
    one_by_one = np.concatenate([second.encode([text]) for text in DOCUMENTS])
    np.testing.assert_allclose(one_by_one, second.encode(DOCUMENTS), atol=1e-6)
    assert first.describe() == second.describe()


def test_the_description_changes_with_what_the_vectors_depend_on():
    def described(documents, **options):
        embedder = TfidfEmbedder(**{"dimensions": 4, **options})
        embedder.fit(documents)
        return json.dumps(embedder.describe())

    documents = DOCUMENTS[:9]
    found = [
        described(documents),
        described(documents[::-1]),
        described([*documents[:-2], documents[-2] + documents[-1]]),
        described(documents, dimensions=5),
        described(documents, seed=1),
        described(documents, ngrams=(1, 2)),
    ]
    assert len(set(found)) == len(found)


def test_the_svd_sees_a_seeded_sample_and_the_idf_everything(monkeypatch):
    monkeypatch.setattr(tfidf, "_SVD_SAMPLE", 30)
    sizes = []
    weights = TfidfEmbedder._weights

    def counted(self, texts):
        texts = list(texts)
        sizes.append(len(texts))
        return weights(self, texts)

    monkeypatch.setattr(TfidfEmbedder, "_weights", counted)
    embedder, again, other = TfidfEmbedder(8), TfidfEmbedder(8), TfidfEmbedder(8, seed=1)
    for each in (embedder, again, other):
        each.fit(DOCUMENTS)
    assert sizes == [30, 30, 30]
    np.testing.assert_array_equal(embedder.encode(DOCUMENTS), again.encode(DOCUMENTS))
    assert not np.allclose(embedder.encode(DOCUMENTS), other.encode(DOCUMENTS))
    assert tfidf._sample(120, 0) != tfidf._sample(120, 1)
    assert len(set(tfidf._sample(120, 0))) == 30


def test_few_documents_unknown_words_and_texts_without_spaces():
    embedder = TfidfEmbedder(50)
    embedder.fit(["one two", "three", "数学很好", "数学 lone \ud800"])
    vectors = embedder.encode(["one", "", "never seen", "好数学", "2"])
    assert vectors.shape == (5, 50)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 0, 1, 0], atol=1e-6)
    assert vectors[3] @ embedder.encode(["数学很好"])[0] > 0.7  # every character counts as a word
    assert embedder.encode([]).shape == (0, 50)


def test_word_pairs():
    documents = ["new york", "york new", "new", "york"]
    single, pairs = TfidfEmbedder(8), TfidfEmbedder(8, ngrams=(1, 2))
    single.fit(documents)
    pairs.fit(documents)
    near = [embedder.encode(documents[:2]) for embedder in (single, pairs)]
    assert near[0][0] @ near[0][1] > 0.999 > near[1][0] @ near[1][1] + 0.1


def test_bad_arguments():
    with pytest.raises(RuntimeError, match="fitted first"):
        TfidfEmbedder().encode(["a"])
    with pytest.raises(ValueError, match="at least one document"):
        TfidfEmbedder().fit([])
    with pytest.raises(ValueError, match="has a word"):
        TfidfEmbedder().fit(["", "!?"])
    with pytest.raises(ValueError, match="`dimensions`"):
        TfidfEmbedder(0)
    for ngrams in ((2, 1), (0, 1), 3, (1, 2, 3), ("a", "b")):
        with pytest.raises(ValueError, match="`ngrams`"):
            TfidfEmbedder(ngrams=ngrams)
