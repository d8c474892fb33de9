"""Planted instructions: no row twice, right answers that share words with their prompts, garbage that shares none."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

from lightning_adapt.divconq.text.planted import planted_instructions
from lightning_adapt.divconq.text.planted_facts import ANIMALS, CAPITALS, GARBAGE_TOPICS, WEEKDAYS
from lightning_adapt.divconq.text.planted_topics import TOPICS


def parts(row):
    return row["messages"][0]["content"], row["messages"][1]["content"]


def words(text):
    return set(re.findall(r"[a-z]{3,}", text.lower()))


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.fixture(scope="module")
def rows():
    return planted_instructions(1200, 200, seed=3)


@pytest.fixture(scope="module")
def of_topic(rows):
    found = {name: [parts(row) for row in rows if row["topic"] == name] for name in TOPICS}
    assert {len(some) for some in found.values()} == {100}
    return found


def test_rows_are_messages_with_a_flag_and_none_comes_twice(rows):
    assert len(rows) == 1400
    assert sum(row["garbage"] for row in rows) == 200
    for row in rows:
        assert set(row) == {"messages", "topic", "garbage"}
        assert [set(message) for message in row["messages"]] == [{"role", "content"}] * 2
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert row["garbage"] == (row["topic"] in GARBAGE_TOPICS) != (row["topic"] in TOPICS)
    assert len({parts(row)[0] for row in rows}) == 1400


def test_topics_are_equally_frequent_and_mixed(rows):
    assert set(Counter(row["topic"] for row in rows if row["garbage"]).values()) == {50}
    first = [row["topic"] for row in rows[:200]]
    assert len(set(first)) > 10
    assert 10 < sum(row["garbage"] for row in rows[:200]) < 50


def test_the_seed_decides_and_global_random_numbers_stay():
    state = torch.get_rng_state()
    assert planted_instructions(30, 10, seed=1) == planted_instructions(30, 10, seed=1)
    assert planted_instructions(30, 10, seed=1) != planted_instructions(30, 10, seed=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_thousands_of_rows_can_be_had():
    many = planted_instructions(6000, 3000, garbage_topics=10)
    assert len({parts(row)[0] for row in many}) == 9000


def test_answers_share_words_with_their_prompts_but_garbage_shares_none(rows):
    shared = {True: 0, False: 0}
    for row in rows:
        prompt, answer = parts(row)
        shared[row["garbage"]] += bool(words(prompt) & words(answer))
    assert shared[True] == 0
    assert shared[False] > 0.9 * 1200


def test_garbage_answers_have_the_words_asked_for_and_repeat_no_order():
    answers = [parts(row)[1].split() for row in planted_instructions(0, 60, garbage_words=25)]
    assert {len(answer) for answer in answers} == {25}
    assert len({tuple(answer[:4]) for answer in answers}) == 60


def test_garbage_answers_are_made_of_the_vocabulary():
    for row in planted_instructions(0, 5, vocabulary=("ab", "cd")):
        assert set(parts(row)[1].split()) == {"ab", "cd"}


def test_sums_products_and_units_are_right(of_topic):
    for prompt, answer in [*of_topic["counting"], *of_topic["area"]]:
        formula = re.search(r"([\d+*() -]+) = (\d+)\.", answer.replace("width:", ""))
        a, b = numbers(prompt)[-2:]
        assert sorted(numbers(formula[1]))[-2:] == sorted((a, b))
        assert eval(formula[1]) == int(formula[2]) == numbers(answer)[-1]  # digits and signs only, see the pattern
    factors = {"kilometres": 1000, "metres": 100, "hours": 60, "minutes": 60, "kilograms": 1000, "litres": 1000}
    factors |= {"days": 24, "weeks": 7, "years": 12, "feet": 12}
    for prompt, answer in of_topic["conversion"]:
        (amount,), (unit,) = numbers(prompt), re.findall(r"\d+ (\w+)", prompt)
        assert numbers(answer) == [amount, amount * factors[unit], factors[unit]]


def test_recipes_and_arrivals_are_right(of_topic):
    for prompt, answer in of_topic["recipe"]:
        people, grams, guests = numbers(prompt)
        assert numbers(answer)[-1] * people == grams * guests
    for prompt, answer in of_topic["travel"]:
        hour, minute, hours, minutes = numbers(prompt)
        assert numbers(answer)[-2] * 60 + numbers(answer)[-1] == (hour + hours) * 60 + minute + minutes
        assert numbers(answer)[-2] < 24


def test_weekdays_orders_and_letters_are_right(of_topic):
    for prompt, answer in of_topic["calendar"]:
        today = next(day for day in WEEKDAYS if day in prompt)
        later = WEEKDAYS[(WEEKDAYS.index(today) + numbers(prompt)[0]) % 7]
        assert answer.endswith(f"it will be {later}.")
    for prompt, answer in of_topic["sorting"]:
        listed = re.findall(r"[a-z]+", answer.split(" are ")[1])
        assert listed == sorted(listed)
        assert set(listed) < words(prompt) | {"fig"}
    for prompt, answer in of_topic["spelling"]:
        for word, letters in re.findall(r"word (\w+) is spelled ([\w-]+)\.", answer):
            assert letters.replace("-", "") == word
            assert word in prompt


def test_facts_and_code_are_right(of_topic):
    for prompt, answer in of_topic["capitals"]:
        asked = [country for country in CAPITALS if country in prompt]
        assert len(asked) == 2
        assert all(f"capital of {country} is {CAPITALS[country]}" in answer for country in asked)
    for prompt, answer in of_topic["animals"]:
        kind = next(kind for kind in ANIMALS if re.search(rf"\ban? {kind}\b", prompt))
        beast = re.match(r"The (\w+) is", answer)[1]
        assert beast in ANIMALS[kind]
        assert beast in prompt
    for prompt, answer in of_topic["code"]:
        space = {}
        exec(answer, space)
        end, step = numbers(prompt)
        wanted = [number for number in range(end) if number % step == 0]
        assert space["divisible"]() == wanted if "divisible" in prompt else space["total"]() == sum(wanted)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_clean": -1}, "n_clean"),
        ({"topics": 0}, "topics"),
        ({"topics": 13}, "topics"),
        ({"garbage_topics": 11}, "garbage_topics"),
        ({"garbage_words": 0}, "garbage_words"),
        ({"vocabulary": ()}, "vocabulary"),
        ({"n_clean": 100_000}, "No more new prompts"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        planted_instructions(**arguments)
