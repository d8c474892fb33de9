"""Conversations as the token rows that ask for an answer, and templates that are filled in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_adapt.divconq.models.labels import ChatEncoder, with_template
from lightning_adapt.divconq.models.templates import TEMPLATES
from lightning_adapt.divconq.scoring.generate import generate_with_model
from lightning_adapt.divconq.scoring.prompts import fill, padded, prompt_ids
from lightning_adapt.divconq.text.conversation import Turn
from lightning_adapt.divconq.text.rows import texts_of
from tests.divconq.talking_parts import CONVERSATIONS, chatml, talking_model


@pytest.fixture(scope="module")
def tiny():
    return talking_model()


def test_the_last_answer_is_not_in_the_prompt_but_earlier_ones_are(tiny):
    _, tokenizer = tiny
    seen = tokenizer.decode(prompt_ids(tokenizer, CONVERSATIONS[3], 10_000))
    assert seen == "<|user|>window<|assistant|>garden<|end|><|user|>" + "engine " * 9 + "<|assistant|>"
    assert prompt_ids(tokenizer, CONVERSATIONS[3][:3], 10_000)[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")


@pytest.mark.parametrize("style", ["own", "plain", "chatml"])
def test_tokenised_rows_ask_with_their_own_ids_not_through_the_template_again(tiny, style):
    model, tokenizer = tiny
    if style != "own":
        tokenizer = with_template(chatml(tokenizer), TEMPLATES[style])
    rows, talks = [], [CONVERSATIONS[0], *CONVERSATIONS[2:4], CONVERSATIONS[4]]
    talks = [(*turns, Turn("assistant", "sugar")) if turns[-1].role == "user" else turns for turns in talks]
    for made in ChatEncoder(tokenizer).encode(talks):
        rows.append({"input_ids": made.input_ids, "labels": np.where(made.supervised, made.input_ids, -100)})
    texts = texts_of(rows, tokenizer)
    again = [texts.conversation(row) for row in range(len(rows))]
    for turns, conversation in zip(talks, again, strict=True):
        assert prompt_ids(tokenizer, conversation, 10_000) == prompt_ids(tokenizer, turns, 10_000)
        assert conversation[-1].content.strip() == turns[-1].content
    if style == "own":
        bare = with_template(tokenizer, None)  # nothing is rendered, so that no template is needed
        expected = generate_with_model(model, tokenizer, talks, max_new_tokens=6)
        assert generate_with_model(model, bare, again, max_new_tokens=6) == expected


def test_padding_puts_the_gaps_where_they_belong():
    cpu = torch.device("cpu")
    ids, mask = padded([[1, 2], [], [3]], 9, cpu, left=True)
    assert ids.tolist() == [[1, 2], [9, 9], [9, 3]]
    assert mask.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert padded([[1, 2], [3]], 9, cpu)[0].tolist() == [[1, 2], [3, 9]]


def test_a_template_is_filled_in_one_pass():
    text = fill("{response}: {prompt} {other} {response}", prompt="{response} {prompt}", response="{prompt}")
    assert text == "{prompt}: {response} {prompt} {other} {prompt}"


def test_an_answer_without_a_question_asks_with_no_token(tiny):
    model, tokenizer = tiny
    alone = (Turn("assistant", "sugar"),)
    assert prompt_ids(tokenizer, alone, 100) == []
    answers = generate_with_model(model, tokenizer, [alone, CONVERSATIONS[0]], max_new_tokens=3)
    assert answers[1] == generate_with_model(model, tokenizer, [CONVERSATIONS[0]], max_new_tokens=3)[0]
