"""Labels on the assistant's tokens and nowhere else, by both routes, against positions of characters."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lightning_adapt.divconq.models.labels import ChatEncoder, with_template
from lightning_adapt.divconq.models.templates import TEMPLATES, has_generation_markers, resolve_template
from lightning_adapt.divconq.text.conversation import Turn
from tests.divconq.instruction_parts import lima, reference, talk, talks, tiny

STYLES = ["tiny", "plain", "chatml"]
LONG = 10**6


def without_markers(template):
    return re.sub(r"\{% (end)?generation %\}", "", template)


def encoder_of(style, route, **options):
    _, tokenizer = tiny()
    if style == "chatml":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.eos_token = "<|im_end|>"
    template = tokenizer.chat_template if style == "tiny" else TEMPLATES[style]
    if route == "prefix":
        template = without_markers(template)
    return ChatEncoder(tokenizer, chat_template=template, **{"max_length": LONG, **options})


def check_against_reference(encoder, style, conversations):
    for conversation, made in zip(conversations, encoder.encode(conversations), strict=True):
        ids, mask = reference(style, conversation, encoder.tokenizer)
        assert made.input_ids.dtype == np.int32
        np.testing.assert_array_equal(made.input_ids, ids)
        np.testing.assert_array_equal(made.supervised, mask)


@pytest.mark.parametrize("route", ["markers", "prefix"])
@pytest.mark.parametrize("style", STYLES)
def test_labels_equal_the_reference(style, route):
    encoder = encoder_of(style, route)
    assert encoder.route == route
    check_against_reference(encoder, style, talks())


@pytest.mark.parametrize(("style", "route"), [("tiny", "markers"), ("plain", "prefix")])
def test_labels_equal_the_reference_on_lima(style, route):
    conversations = lima()
    assert len(conversations) == 60
    assert sum(len(turns) > 2 for turns in conversations) >= 30
    check_against_reference(encoder_of(style, route), style, conversations)


@pytest.mark.parametrize("route", ["markers", "prefix"])
@pytest.mark.parametrize("style", STYLES)
def test_what_a_tool_says_is_part_of_the_prompt(style, route):
    turns = talk(("user", "2+2?"), ("assistant", "add(2, 2)"), ("tool", "4"), ("assistant", "It is 4."))
    encoder = encoder_of(style, route)
    check_against_reference(encoder, style, [turns])
    made = encoder.encode([turns])[0]
    assert "tool" in encoder.tokenizer.decode(made.input_ids).lower()
    assert "4add" not in encoder.tokenizer.decode(made.input_ids[made.supervised])


@pytest.mark.parametrize("route", ["markers", "prefix"])
def test_every_answer_ends_with_the_end_of_its_turn(route):
    encoder = encoder_of("tiny", route)
    (made,) = encoder.encode([talk(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))])
    assert encoder.tokenizer.decode(made.input_ids[made.supervised]) == "b<|end|>d<|end|>"


def test_the_end_of_a_turn_counts_when_the_template_closes_its_block_before_it():
    _, tokenizer = tiny()
    template = tokenizer.chat_template.replace(
        "{{ message['content'] + eos_token }}{% endgeneration %}",
        "{{ message['content'] }}{% endgeneration %}{{ eos_token }}",
    )
    encoder = ChatEncoder(tokenizer, chat_template=template)
    assert encoder.route == "markers"
    check_against_reference(encoder, "tiny", talks())


def test_markers_around_something_else_are_found_out():
    _, tokenizer = tiny()
    wrong = without_markers(tokenizer.chat_template).replace(
        "{% else %}{{ message['content'] }}", "{% else %}{% generation %}{{ message['content'] }}{% endgeneration %}"
    )
    assert has_generation_markers(wrong)
    encoder = ChatEncoder(tokenizer, chat_template=wrong)
    assert encoder.route == "prefix"
    check_against_reference(encoder, "tiny", talks())


def test_the_tokenizer_stays_as_it_is_and_keeps_its_settings():
    _, tokenizer = tiny()
    own = tokenizer.chat_template
    ChatEncoder(tokenizer, chat_template="plain").encode(talks())
    assert tokenizer.chat_template == own
    copied = with_template(tokenizer, TEMPLATES["plain"])
    assert copied is not tokenizer
    assert copied.chat_template == TEMPLATES["plain"]
    assert with_template(tokenizer, own) is tokenizer


@pytest.mark.parametrize("route", ["markers", "prefix"])
def test_rows_are_cut_and_may_lose_their_labels(route):
    conversation = talk(("user", "a long question with many words in it"), ("assistant", "short"))
    whole = encoder_of("tiny", route).encode([conversation])[0]
    first = int(np.flatnonzero(whole.supervised)[0])
    kept = encoder_of("tiny", route, max_length=first + 1).encode([conversation])[0]
    assert len(kept.input_ids) == first + 1
    assert kept.supervised.sum() == 1
    assert not encoder_of("tiny", route, max_length=first).encode([conversation])[0].supervised.any()


def test_a_template_that_rewrites_history_is_refused():
    _, tokenizer = tiny()
    last_two = "{% for message in messages[-2:] %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    encoder = ChatEncoder(tokenizer, chat_template=last_two)
    assert encoder.route == "prefix"
    with pytest.raises(ValueError, match=r"`chat_template` must be one that extends .* drops earlier turns"):
        encoder.encode([talks()[3]])


@pytest.mark.parametrize("markers", [True, False])
def test_what_a_template_refuses_is_explained(markers):
    _, tokenizer = tiny()
    template = tokenizer.chat_template if markers else without_markers(tokenizer.chat_template)
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + template
    encoder = ChatEncoder(tokenizer, chat_template=refuses)
    with pytest.raises(ValueError, match="no system role"):
        encoder.encode([talks()[1]])


def test_no_template_and_templates_that_do_not_fit():
    _, tokenizer = tiny()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"`chat_template` must be given.*chat_template=\"plain\", \"chatml\""):
        ChatEncoder(tokenizer)
    with pytest.raises(ValueError, match=r"does not know the token .*im_end"):
        ChatEncoder(tokenizer, chat_template="chatml")
    with pytest.raises(ValueError, match="not a path"):
        ChatEncoder(tokenizer, chat_template="templates/own.jinja")
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="eos_token"):
        ChatEncoder(tokenizer, chat_template="plain")
    with pytest.raises(ValueError, match="max_length"):
        ChatEncoder(tiny()[1], max_length=1)


def test_a_template_of_several_names_gives_its_default():
    class Named:
        chat_template = {"default": "{{ messages }}", "tool_use": "other"}  # noqa: RUF012

    assert resolve_template(Named(), None) == "{{ messages }}"


def test_an_answer_before_any_question_is_not_supervised_without_markers():
    encoder = encoder_of("tiny", "prefix")
    (made,) = encoder.encode([(Turn("assistant", "hello"), Turn("user", "hi"), Turn("assistant", "bye"))])
    assert encoder.tokenizer.decode(made.input_ids[made.supervised]) == "bye<|end|>"


def test_a_cut_row_does_not_hold_on_to_the_whole_one():
    encoder = ChatEncoder(tiny()[1], max_length=8)
    made = encoder.encode([talk(("user", "a b " * 500), ("assistant", "c"))])[0]
    assert made.supervised.base is None
    assert len(made.supervised) == 8
