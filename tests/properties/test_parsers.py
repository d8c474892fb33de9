"""Every parser of what users write: what it reads means what was written, and nothing but its own errors comes out."""

from __future__ import annotations

import argparse
import json
import math
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from lightning_adapt import AdaptiveErrorMemory
from lightning_adapt._shared import checks
from lightning_adapt._shared.text_files import parse_json
from lightning_adapt.divconq.choosing.budgets import check_budget
from lightning_adapt.divconq.offline import command as select
from lightning_adapt.divconq.text.conversation import ROLES, conversation_key, prompt_of, response_of
from lightning_adapt.divconq.text.formats import detect_format, to_conversation
from lightning_adapt.lina_speech.codecs.codec import as_codec
from lightning_adapt.lina_speech.codecs.wavtokenizer_config import WavTokenizerConfig, config_from
from lightning_adapt.lina_speech.commands import speak, tune_voice
from lightning_adapt.lina_speech.data.manifest import read_manifest
from lightning_adapt.lina_speech.text.tokenizer import as_tokenizer, tokenizer_from_state
from lightning_adapt.rs2.guide import check_warm_rounds
from lightning_adapt.saa.functional import check_pieces
from lightning_adapt.saa.history import check_decay, check_threshold
from tests.properties.guards import PACKAGE
from tests.properties.parts import floats, given

PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=4))
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=8,
)
_NEAR = (
    "5%|-5%|%|5 %|103|0.05|1e3|nan|inf|0|-1|1_000|\u0663|| |quantile:0.5|quantile:|quantile:2|quantile:nan|otsu|"
    "otsu-log|auto|phonemes:|phonemes:xx|characters|1e400"
)
NEAR = st.sampled_from(_NEAR.split("|"))


def as_dict(key: str, value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {key: value}


PARSERS: dict[str, tuple[Callable[[Any], Any], str]] = {  # name -> parser, argument that its errors name
    "budget": (check_budget, "budget"),
    "threshold": (check_threshold, "threshold"),
    "history_decay": (check_decay, "history_decay"),
    "pieces": (check_pieces, "pieces"),
    "warm_rounds": (check_warm_rounds, "warm_rounds"),
    "experts": (lambda value: AdaptiveErrorMemory(experts=value), "experts"),
    "train loader": (checks.check_loader_key, "loader"),
    "held out": (lambda value: checks.check_held_out("val", value, "manifest"), "val"),
    "fraction": (lambda value: checks.check_fraction("ratio", value, "Pass 0.1."), "ratio"),
    "integer": (lambda value: checks.check_integer("n", value, "Pass 1.", minimum=1), "n"),
    "choice": (lambda value: checks.check_choice("mode", value, ("a", "b"), "Pass a."), "mode"),
    "flag": (lambda value: checks.check_flag("warm", value, "Pass True."), "warm"),
    "name": (lambda value: checks.check_text("name", value, "Name it."), "name"),
    "codec": (as_codec, "codec"),
    "tokenizer": (as_tokenizer, ""),  # of a language it is `language`
    "state of a tokenizer": (
        lambda value: tokenizer_from_state(value if isinstance(value, dict) else {"kind": value}),
        "state",
    ),
    "sizes of a WavTokenizer": (lambda value: config_from(value if isinstance(value, dict) else {"ratios": value}), ""),
    "format of a row": (detect_format, ""),
    "row": (to_conversation, ""),
}


def error_of(parse: Callable[[Any], Any], value: Any) -> Exception | None:
    try:
        parse(value)
    except Exception as error:
        return error
    return None


def refused_or_read(parse: Callable[[Any], Any], value: Any, argument: str) -> None:
    error = error_of(parse, value)
    if error is not None:
        assert type(error) in (ValueError, TypeError, FileNotFoundError)
        assert traceback.extract_tb(error.__traceback__)[-1].filename.startswith(PACKAGE)
        assert argument in str(error)
        assert len(str(error)) < 2000


@pytest.mark.parametrize("name", PARSERS)
def test_anything_is_read_or_refused_by_an_error_that_names_the_argument(name):
    parse, argument = PARSERS[name]

    @given(st.one_of(ANYTHING, NEAR), examples=60)
    def run(value: Any) -> None:
        refused_or_read(parse, value, argument)

    run()


# -- numbers -----------------------------------------------------------------------------------------------------------
@given(st.integers(-(10**9), 10**9), floats(0, 100))
def test_numbers_are_read_as_they_are_written(whole, share):
    assert checks.read_number(str(whole)) == whole
    assert checks.read_number(f" {share!r} ") == share
    assert checks.read_number(f"{share!r}%") == pytest.approx(share / 100)


@given(st.integers(1, 10**9), st.floats(1e-9, 1))
def test_budgets_keep_their_kind(rows, share):
    assert check_budget(rows) == check_budget(str(rows)) == rows
    assert isinstance(check_budget(str(rows)), int)
    assert check_budget(share) == check_budget(repr(share)) == share
    assert isinstance(check_budget("100%"), float)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.floats(1e-6, 1e6))
def test_thresholds_come_back_in_a_form_that_means_the_same(quantile, nats):
    read = check_threshold(f"quantile:{quantile!r}")
    assert float(str(read).removeprefix("quantile:")) == quantile
    assert check_threshold(read) == read
    assert check_threshold(nats) == check_threshold(repr(nats)) == nats


@given(st.sampled_from("[("), floats(-9, 9), floats(0, 9), st.sampled_from("])"), floats(-20, 20))
def test_intervals_mean_what_mathematics_writes(left, low, width, right, value):
    high = low + width
    inside = (low <= value if left == "[" else low < value) and (value <= high if right == "]" else value < high)
    interval = f"{left}{low!r}, {high!r}{right}"
    if inside:
        assert checks.check_number("x", value, interval, "Pass one.") == value
    else:
        with pytest.raises(ValueError, match="`x`"):
            checks.check_number("x", value, interval, "Pass one.")


@given(ANYTHING)
def test_error_texts_are_short_and_of_one_line(value):
    assert len(checks.describe(value)) < 400
    assert "\n" not in checks.describe(value)
    assert checks.problem("x", "y", value, "Z.").startswith("`x` must be y, but got ")


@given(st.one_of(ANYTHING.filter(lambda value: b"" not in [value]), NEAR), st.text(max_size=20))
def test_json_is_read_as_it_was_written(value, text):
    try:
        written = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return
    assert parse_json(written, "it") == value
    error = error_of(lambda value: parse_json(value, "the file"), text)
    assert error is None or (type(error) is ValueError and str(error).startswith("the file is no readable JSON"))


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, b"\xff", "\ufeff{}", "{", ""])
def test_json_beyond_all_bounds_is_refused(text):
    with pytest.raises(ValueError, match="no readable JSON") as caught:
        parse_json(text, "it")
    assert type(caught.value) is ValueError


# -- rows of chats -----------------------------------------------------------------------------------------------------
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(st.sampled_from(ROLES), TEXTS), max_size=5))
def test_a_conversation_is_the_same_in_every_format(turns):
    messages = {"messages": [{"role": role.upper(), "content": text} for role, text in turns]}
    sharegpt = {"conversations": [{"from": f" {role} ", "value": text} for role, text in turns]}
    read = to_conversation(messages)
    assert [tuple(turn) for turn in read] == turns
    assert to_conversation(sharegpt) == read
    assert conversation_key(read) == conversation_key(to_conversation(sharegpt))
    assert prompt_of(read) == "\n".join(text for role, text in turns if role != "assistant")
    assert response_of(read) == "\n".join(text for role, text in turns if role == "assistant")
    assert to_conversation(json.loads(json.dumps(messages))) == read


@given(TEXTS, TEXTS)
def test_a_pair_is_one_question_and_one_answer(question, answer):
    pairs = [{"prompt": question, "response": answer}, {"question": question, "answer": answer}]
    pairs += [{"instruction": question, "output": answer}, {"conversations": [question, answer]}]
    assert len({to_conversation(row) for row in pairs}) == 1


# -- manifests ---------------------------------------------------------------------------------------------------------
WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters='|\t\n\r",\x00', exclude_categories=["Cc", "Zs", "Zl", "Zp"]),
    min_size=1,
)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4, unique_by=lambda row: row[0].strip()), st.booleans())
def test_a_manifest_says_the_same_in_every_format(tmp_path_factory, rows, windows):
    folder, found = tmp_path_factory.mktemp("manifests"), {}
    for name, mark in (("m.csv", ","), ("m.tsv", "\t"), ("bars.csv", "|")):
        text = "".join(
            f"{mark.join(row)}\n"
            for row in (("audio", "text", "id"), *((f"{n}.wav", said, name_) for n, (name_, said) in enumerate(rows)))
        )
        (folder / name).write_text(
            text.replace("\n", "\r\n") if windows else text, encoding="utf-8-sig" if windows else "utf-8", newline=""
        )
        found[name] = read_manifest(folder / name)
    lines = [json.dumps({"path": f"{n}.wav", "transcript": said, "id": name}) for n, (name, said) in enumerate(rows)]
    (folder / "m.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found["m.jsonl"] = read_manifest(folder / "m.jsonl")
    plain = [[(row["audio"], row["text"], row["id"], row["speaker"]) for row in each] for each in found.values()]
    assert all(each == plain[0] for each in plain)
    assert [(row[1], row[2]) for row in plain[0]] == [(said.strip(), name.strip()) for name, said in rows]


# -- command lines -----------------------------------------------------------------------------------------------------
class RefusedError(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise RefusedError(message)


@pytest.mark.parametrize("command", [select, speak, tune_voice], ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_command_line_is_read_or_refused_by_name(command):
    parser = Parser(exit_on_error=False)
    command.add_arguments(parser)
    options = [action for action in parser._actions if action.option_strings and action.nargs != 0]

    @given(st.sampled_from(range(len(options))), st.one_of(NEAR, st.text(max_size=8)), examples=60)
    def run(number: int, text: str) -> None:
        name = options[number].option_strings[0]
        error = error_of(parser.parse_args, [f"{name}={text}"])
        assert isinstance(error, (RefusedError, argparse.ArgumentError, type(None)))
        assert error is None or name in str(error) or "required" in str(error)

    run()


def test_defaults_of_configs_are_read_from_what_they_write():
    assert config_from(WavTokenizerConfig().to_dict()) == WavTokenizerConfig()
    assert math.prod(config_from({}).ratios) == config_from({}).hop_length
