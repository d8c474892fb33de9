"""Formats of instruction data: each is found by its keys, read as published, and refused with a text of ours."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_adapt.divconq.text.conversation import Turn
from lightning_adapt.divconq.text.formats import FORMATS, detect_format, to_conversation

PAIR = (Turn("user", "2+2?"), Turn("assistant", "4"))
ROWS = [
    ({"instruction": "2+2?", "input": "", "output": "4"}, "alpaca", PAIR),
    ({"instruction": "2+2?", "output": "4", "text": "Below is ..."}, "alpaca", PAIR),
    ({"instruction": "Add.", "input": "2, 2", "output": "4"}, "alpaca", (Turn("user", "Add.\n2, 2"), PAIR[1])),
    ({"instruction": "Add.", "input": None, "output": None}, "alpaca", (Turn("user", "Add."), Turn("assistant", ""))),
    (
        {"instruction": "2+2?", "output": "4", "system": "Be brief.", "history": [["Hi", "Hello"]]},
        "alpaca",
        (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello"), *PAIR),
    ),
    ({"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}, "sharegpt", PAIR),
    ({"conversations": [{"from": "user", "value": "2+2?"}, {"from": "assistant", "value": "4"}]}, "sharegpt", PAIR),
    ({"conversations": [{"role": "user", "content": "2+2?"}, {"role": "model", "content": "4"}]}, "sharegpt", PAIR),
    ({"conversations": ["2+2?", "4"], "source": "lima"}, "sharegpt", PAIR),
    ({"conversations": ["2+2?", "4", "2+3?", "5"]}, "sharegpt", (*PAIR, Turn("user", "2+3?"), Turn("assistant", "5"))),
    ({"conversations": []}, "sharegpt", ()),
    ({"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}, "messages", PAIR),
    (
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "assistant", "content": None}]},
        "messages",
        (Turn("system", "Be brief."), Turn("assistant", "")),
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
        "messages",
        (Turn("user", "a\nb"),),
    ),
    (
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]},
                {"role": "assistant", "tool_calls": [{"id": "é"}]},
                {"role": "tool", "content": "4", "tool_calls": None},
                {"role": "assistant", "content": "4", "tool_calls": []},
                {"role": "assistant", "content": "so", "function_call": {"name": "add"}},
                {"role": "function", "content": "5"},
            ]
        },
        "messages",
        (
            Turn("assistant", '[{"function": {"name": "add"}}]'),
            Turn("assistant", '[{"id": "é"}]'),
            Turn("tool", "4"),
            Turn("assistant", "4"),
            Turn("assistant", 'so\n{"name": "add"}'),
            Turn("tool", "5"),
        ),
    ),
    (
        {"conversations": [{"from": name, "value": "x"} for name in ("function_call", "observation", "ipython")]},
        "sharegpt",
        (Turn("assistant", "x"), Turn("tool", "x"), Turn("tool", "x")),
    ),
    ({"prompt": "2+2?", "messages": [{"role": "user", "content": "2+2?"}]}, "messages", PAIR[:1]),
    ({"prompt": "2+2?", "response": "4"}, "prompt-response", PAIR),
    ({"prompt": "2+2?", "completion": "4"}, "prompt-response", PAIR),
    ({"question": "2+2?", "answer": "4"}, "prompt-response", PAIR),
    (
        {"prompt": [{"role": "user", "content": "2+2?"}], "completion": [{"role": "assistant", "content": "4"}]},
        "prompt-response",
        PAIR,
    ),
]


@pytest.mark.parametrize(("row", "name", "turns"), ROWS)
def test_each_format_is_found_and_read(row, name, turns):
    assert detect_format(row) == name
    assert to_conversation(row) == to_conversation(row, name) == turns


@pytest.mark.parametrize(
    ("row", "format", "parts"),
    [
        ({"text": "a", "label": 1}, None, ["alpaca", "sharegpt", "messages", "prompt-response", "text, label"]),
        ({}, None, ["keys 'none'"]),
        ({"prompt": "a"}, "alpaca", ["alpaca", "`instruction` and `output`", "prompt"]),
        ({"prompt": "a"}, "prompt-response", ["`question`/`answer`", "prompt"]),
        ({"messages": "hello"}, None, ["`messages`", "list", "hello"]),
        ({"messages": ["hello"]}, None, ["`messages[0]`", "turn", "hello"]),
        ({"messages": [{"role": "user"}]}, None, ["`messages[0]`", "`role` and `content`"]),
        ({"messages": [{"role": "judge", "content": "4"}]}, None, ["role", "`messages[0]`", "'judge'", "tool"]),
        ({"messages": [{"role": 3, "content": "4"}]}, None, ["role", "3"]),
        ({"messages": [{"role": "user", "content": 4}]}, None, ["`messages[0]`", "string", "4"]),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None, ["string", "image_url"]),
        ({"conversations": ["a", 3]}, None, ["`conversations[0]`", "turn"]),
        ({"instruction": 7, "output": "x"}, None, ["`instruction`", "7"]),
        ({"instruction": "a", "output": "x", "history": [["only"]]}, None, ["`history[0]`", "pair"]),
        ({"prompt": "a", "response": "b"}, "csv", ["`format`", "'csv'"]),
    ],
)
def test_errors_say_what_is_allowed_and_what_came(row, format, parts):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the parts are looked for below
        to_conversation(row, format)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("row", ["text", 3, None, ["a", "b"]])
def test_what_is_no_mapping_is_a_type_error(row):
    for call in (detect_format, to_conversation, lambda row: to_conversation(row, "alpaca")):
        with pytest.raises(TypeError, match="mapping"):
            call(row)


NAMES = ["messages", "conversations", "instruction", "output", "input", "history", "system", "prompt", "response"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
KEYS = st.sampled_from([*NAMES, "role", "content", "from", "value", "text"]) | st.text(max_size=3)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), st.sampled_from([None, *FORMATS]))
def test_any_row_gives_turns_or_an_error_of_ours(row, format):
    try:
        turns = to_conversation(row, format)
    except ValueError as error:
        turns, text, kind = (), str(error), type(error)
    else:
        text, kind = "must", ValueError
    assert "must" in text  # the wording of this package, not of Python
    assert kind is ValueError
    for turn in turns:
        assert turn.role in {"system", "user", "assistant", "tool"}
        turn.content.encode()
