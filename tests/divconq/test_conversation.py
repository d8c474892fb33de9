"""Conversations: what is prompt and what is response, and keys that only copies share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_adapt.divconq.text.conversation import (
    ROLES,
    Turn,
    clean_text,
    conversation_key,
    prompt_of,
    response_of,
)

TALK = (
    Turn("system", "Be brief."),
    Turn("user", "a"),
    Turn("assistant", "b"),
    Turn("user", "c"),
    Turn("assistant", "d"),
)
TURNS = st.lists(st.tuples(st.sampled_from(ROLES), st.text(max_size=6)).map(lambda turn: Turn(*turn)), max_size=4)


def test_system_and_user_turns_are_the_prompt_and_the_others_the_response():
    assert prompt_of(TALK) == "Be brief.\na\nc"
    assert response_of(TALK) == "b\nd"
    assert prompt_of(()) == response_of(()) == ""


@given(TURNS, TURNS)
def test_only_equal_conversations_share_a_key(first, second):
    keys = conversation_key(tuple(first)), conversation_key(tuple(second))
    assert len(keys[0]) == 16
    assert (keys[0] == keys[1]) == (first == second)


def test_text_that_imitates_the_next_turn_has_another_key():
    two = conversation_key((Turn("user", "a"), Turn("assistant", "b")))
    for text in ("aassistant b", "aassistant 1 b", "a assistant 1 b"):
        assert conversation_key((Turn("user", text),)) != two


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("naïve 数学 😀", "naïve 数学 😀"),
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        ("\ud83d\ude00", "😀"),  # a pair that was cut in two by JSON escapes
    ],
)
def test_lone_surrogates_are_replaced(text, clean):
    assert clean_text(text) == clean
    clean_text(text).encode()
    conversation_key((Turn("user", text),))  # and a text with one has a key
