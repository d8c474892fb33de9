"""Scorers against loops over single examples, and what they say when something is wrong."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.scoring.examples import Examples, cut_to, split_answer
from lightning_adapt.divconq.scoring.likelihood import response_nll
from lightning_adapt.divconq.scoring.reward import RewardModel
from lightning_adapt.divconq.scoring.scorers import (
    EmbeddingRelevanceScorer,
    JudgeScorer,
    PerplexityScorer,
    RewardScorer,
    as_scorer,
    score_examples,
)
from lightning_adapt.divconq.text.conversation import Turn

TEXTS = ["how many metres are in a kilometre", "a thousand metres", "name a colour", "red because it is bright"] * 3
GOLD = ["a thousand metres are in a kilometre", "red because it is bright and warm", "", "zinc yodel fathom quartz"]
OWN = ["a thousand", "bright", "name a colour", ""]
PROMPTS = ["how many metres are in a kilometre", "name a colour", "say nothing", "count from one to three please"]


def examples(generated=OWN) -> Examples:
    talks = [(Turn("user", ask), Turn("assistant", answer)) for ask, answer in zip(PROMPTS, GOLD, strict=True)]
    return Examples.of(torch.tensor([3, 9, 4, 20]), talks, generated)


class Letters:
    """Counts letters: an embedder whose cosines are easy to work out, and not of unit length."""

    name = "letters"

    def fit(self, documents) -> None: ...

    def encode(self, texts):
        return np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], np.float32)


@pytest.fixture(scope="module")
def tiny():
    return tiny_language_model(TEXTS, vocab_size=320, hidden_size=32, seed=1)


@pytest.fixture(scope="module")
def module(tiny):
    holder = nn.Module()
    holder.model, holder.tokenizer = tiny
    return holder


def reward_model(tokenizer, **options):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    options = {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id, **sizes, **options}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), **options)).double().eval()


# -- examples -------------------------------------------------------------------------------------------------------
def test_the_last_assistant_turn_is_what_the_model_competes_with():
    turns = (Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    assert split_answer(turns) == (turns[:4], "d")
    assert split_answer(turns[:2]) == (turns[:2], "")
    assert split_answer(()) == ((), "")
    made = Examples.of(torch.tensor([0]), [turns])
    assert (made.prompts, made.responses, len(made)) == (["s\na\nc"], ["d"], 1)


def test_examples_refuse_different_lengths_and_missing_answers():
    with pytest.raises(ValueError, match=r"`generated` must be 4 entries long, but got 3"):
        examples(OWN[:3])
    with pytest.raises(ValueError, match="needs_generation"):
        examples(None).answers()


def test_gold_is_cut_at_a_space_and_not_below_the_least():
    assert cut_to("alpha beta gamma delta", "x" * 12, least=4) == "alpha beta"
    assert cut_to("alpha beta gamma delta", "x" * 10, least=4) == "alpha beta"
    assert cut_to("alpha beta", "", least=10) == "alpha beta"
    assert cut_to("日本語日本語日本語", "一二三四", least=2) == "日本語日"
    long = "word " * 60
    assert len(cut_to(long, "short")) == 79
    assert examples(["y" * 20] * 4).rivals()[0] == GOLD[0]
    assert examples(["y" * 20] * 4).rivals(truncate=False) == GOLD


# -- embedding relevance ----------------------------------------------------------------------------------------------
def test_relevance_equals_a_loop_of_cosines():
    embedder = Letters()

    def cosine(one: str, other: str) -> float:
        a, b = embedder.encode([one, other]).astype(float)
        size = math.sqrt((a * a).sum() * (b * b).sum())
        return float((a * b).sum() / size) if size else 0.0

    scores = EmbeddingRelevanceScorer(embedder)(examples(), nn.Identity())
    expected = [cosine(p, g) - cosine(p, o) for p, g, o in zip(PROMPTS, GOLD, OWN, strict=True)]
    assert scores.dtype == torch.float64
    assert scores.tolist() == pytest.approx(expected, abs=1e-12)
    assert scores[3] > 0  # an empty answer counts as no relevance, not as NaN
    assert scores[2] < 0


def test_relevance_compares_equal_lengths():
    prompt, gold = "abc", "zzzz " * 20 + "abc " * 50  # the relevant part is beyond what the model was given to write
    made = Examples.of(torch.tensor([0]), [(Turn("user", prompt), Turn("assistant", gold))], ["zzzz " * 12])
    assert EmbeddingRelevanceScorer(Letters())(made, nn.Identity()).item() == 0
    assert EmbeddingRelevanceScorer(Letters(), truncate=False)(made, nn.Identity()).item() > 0.5


def test_relevance_with_the_zero_download_embedder_prefers_answers_that_fit():
    from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder

    embedder = TfidfEmbedder(dimensions=8)
    embedder.fit(PROMPTS + GOLD + TEXTS)
    scores = EmbeddingRelevanceScorer(embedder)(examples(["zinc yodel fathom quartz"] * 4), nn.Identity())
    assert scores[0] > 0.2
    assert scores[3] == 0
    assert scores.isfinite().all()


def test_relevance_says_what_is_missing():
    with pytest.raises(ValueError, match=r"`embedder` must be set before scoring"):
        EmbeddingRelevanceScorer()(examples(), nn.Identity())
    with pytest.raises(ValueError, match="needs_generation"):
        EmbeddingRelevanceScorer(Letters())(examples(None), nn.Identity())
    scorer = EmbeddingRelevanceScorer(truncate=False, generation={"max_new_tokens": 7}).with_embedder(Letters())
    assert (scorer.truncate, scorer.generation) == (False, {"max_new_tokens": 7})
    assert scorer(examples(), nn.Identity()).isfinite().all()
    nothing = Examples.of(torch.zeros(0, dtype=torch.int64), [], [])
    assert EmbeddingRelevanceScorer(Letters())(nothing, nn.Identity()).shape == (0,)


# -- perplexity -------------------------------------------------------------------------------------------------------
def loss_by_token(model, tokenizer, prompt: str, response: str) -> float:
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False)
    ids = tokenizer(text + "<|assistant|>", add_special_tokens=False)["input_ids"]
    losses = []
    with torch.no_grad():
        for token in tokenizer(response, add_special_tokens=False)["input_ids"]:
            losses.append(-model(torch.tensor([ids])).logits[0, -1].double().log_softmax(0)[token].item())
            ids = [*ids, token]
    return sum(losses) / len(losses) if losses else math.nan


@pytest.mark.parametrize("batch_size", [1, 3])
def test_perplexity_equals_a_loop_over_the_response_tokens(tiny, module, batch_size):
    model, tokenizer = tiny
    with pytest.warns(UserWarning, match="raises the weight of clusters that the model finds hard, garbage first"):
        scorer = PerplexityScorer(batch_size=batch_size)
    model.train()
    scores = scorer(examples(), module)
    assert model.training
    model.eval()
    gold, own = (
        [loss_by_token(model, tokenizer, p, r) for p, r in zip(PROMPTS, part, strict=True)] for part in (GOLD, OWN)
    )
    expected = np.array(gold) - np.array(own)
    assert np.allclose(scores.numpy(), expected, atol=1e-5, equal_nan=True)
    assert scores.isnan().tolist() == [False, False, True, True]  # an empty answer has no perplexity: not scored


def test_a_trained_model_finds_garbage_hard(tiny):
    model, tokenizer = tiny_language_model(TEXTS, vocab_size=320, hidden_size=32, seed=2)
    ids = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPTS[0]}, {"role": "assistant", "content": GOLD[0]}],
            tokenize=True,
            return_dict=False,
        )
    ]
    block = torch.tensor(ids)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(15):
        optimizer.zero_grad()
        model(input_ids=block, labels=block).loss.backward()
        optimizer.step()
    talk = [(Turn("user", PROMPTS[0]), Turn("assistant", ""))] * 2
    clean, garbage = response_nll(model, tokenizer, talk, [GOLD[0], GOLD[3]]).tolist()
    assert garbage > clean + 2


def test_rows_too_long_for_the_model_lose_the_prompt_first(tiny):
    model, tokenizer = tiny
    talk = [(Turn("user", "name a colour " * 40), Turn("assistant", ""))]
    answer = GOLD[0]
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    cut = response_nll(model, tokenizer, talk, [answer], max_length=len(ids) + 3)
    whole = response_nll(model, tokenizer, talk, [answer])
    assert cut.isfinite().all()
    assert cut.item() != whole.item()
    assert response_nll(model, tokenizer, talk, [answer], max_length=4).isfinite().all()


def test_the_warning_comes_with_the_scorer_and_not_at_every_round(tiny, module):
    with pytest.warns(UserWarning, match="garbage"):
        scorer = PerplexityScorer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer(examples(), module)
        scorer(examples(), module)


# -- judge and reward -------------------------------------------------------------------------------------------------
def test_judge_is_asked_for_both_answers_and_names_the_row_when_it_fails():
    asked = []

    def judge(prompt, response):
        asked.append((prompt, response))
        return len(response)

    scores = JudgeScorer(judge)(examples(), nn.Identity())
    assert scores.tolist() == [len(g) - len(o) for g, o in zip(GOLD, OWN, strict=True)]
    assert asked[:2] == [(PROMPTS[0], GOLD[0]), (PROMPTS[0], OWN[0])]
    with pytest.raises(RuntimeError, match="failed on row 9 of the pool: ZeroDivisionError"):
        JudgeScorer(lambda prompt, response: 1 / (prompt != PROMPTS[1]))(examples(), nn.Identity())
    for value in (None, "5", math.nan):
        with pytest.raises(ValueError, match="row 3 of the pool"):
            JudgeScorer(lambda prompt, response, value=value: value)(examples(), nn.Identity())
    with pytest.raises(TypeError, match="`fn` must be a callable"):
        JudgeScorer("gpt")


@pytest.mark.parametrize("pad", [True, False])
def test_reward_equals_single_rows_in_float64(tiny, pad):
    tokenizer = tiny[1]
    model = reward_model(tokenizer, **({} if pad else {"pad_token_id": None}))
    scores = RewardScorer(model, tokenizer, batch_size=3)(examples(), nn.Identity())

    def rate(prompt, response):
        text = f"<|user|>{prompt}<|assistant|>{response}<|end|>"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return model(ids).logits.item()

    expected = [rate(p, g) - rate(p, o) for p, g, o in zip(PROMPTS, GOLD, OWN, strict=True)]
    assert scores.dtype == torch.float64
    assert scores.tolist() == pytest.approx(expected, abs=1e-9)
    assert scores.abs().max() > 1e-4


def test_the_beginning_of_text_token_stands_once(tiny):
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_language_model(TEXTS, vocab_size=320, hidden_size=8, layers=1)[1]
    tokenizer.bos_token = "<|system|>"
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    seen = []
    model = reward_model(tokenizer)
    model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    talk = [(Turn("user", "red"),)]
    RewardModel(model, tokenizer).rate(talk, ["bright"])
    RewardModel(model, tokenizer, template="<|system|>{prompt} {response}").rate(talk, ["bright"])
    assert [int((ids == tokenizer.bos_token_id).sum()) for ids in seen] == [1, 1]


def test_reward_takes_a_pair_of_texts_without_a_chat_template_or_a_format(tiny):
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tiny_language_model(TEXTS, vocab_size=320, hidden_size=8, layers=1)[1]
    tokenizer.chat_template = None
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=0, **sizes)
    model = BertForSequenceClassification(config).eval()
    talks = [(Turn("user", prompt),) for prompt in PROMPTS]
    together = RewardModel(model, tokenizer, batch_size=4).rate(talks, GOLD)
    alone = RewardModel(model, tokenizer, batch_size=1).rate(talks, GOLD)
    assert torch.allclose(together, alone, atol=1e-5)
    formatted = RewardModel(model, tokenizer, template="Human: {prompt}\nAssistant: {response}").rate(talks, GOLD)
    assert not torch.allclose(formatted, together, atol=1e-5)


def test_reward_refuses_what_is_no_rating(tiny):
    tokenizer = tiny[1]
    with pytest.raises(ValueError, match="one with 2"):
        RewardModel(reward_model(tokenizer, num_labels=2), tokenizer)
    with pytest.raises(TypeError, match=r"`tokenizer` must be given beside a loaded model"):
        RewardModel(reward_model(tokenizer))
    with pytest.raises(ValueError, match=r"a text with \{prompt\} and \{response\}"):
        RewardModel(reward_model(tokenizer), tokenizer, template="{prompt}")
    broken = reward_model(tokenizer)
    nn.init.constant_(broken.score.weight, math.nan)
    with pytest.raises(ValueError, match="Answer 0 of this call"):
        RewardModel(broken, tokenizer).rate([(Turn("user", "red"),)], ["bright"])


# -- any callable -----------------------------------------------------------------------------------------------------
def test_any_callable_is_a_scorer_and_its_result_is_checked():
    def scorer(examples, module):
        return [float(row) for row in examples.rows]

    assert as_scorer(scorer) is scorer
    assert score_examples(scorer, examples(), nn.Identity()).tolist() == [3.0, 9.0, 4.0, 20.0]
    assert isinstance(as_scorer(None), EmbeddingRelevanceScorer)
    assert as_scorer(None).needs_generation
    unscored = score_examples(lambda e, m: torch.full((4,), math.nan, requires_grad=True), examples(), nn.Identity())
    assert unscored.isnan().all()
    assert not unscored.requires_grad
    with pytest.raises(ValueError, match=r"results of shape \(4,\)"):
        score_examples(lambda e, m: [1.0], examples(), nn.Identity())
    with pytest.raises(ValueError, match="Row 9 is the first"):
        score_examples(lambda e, m: [0.0, math.inf, 0.0, -math.inf], examples(), nn.Identity())
    for wrong in ("perplexity", EmbeddingRelevanceScorer):
        with pytest.raises(TypeError, match=r"a callable \(examples, module\) -> scores"):
            as_scorer(wrong)
