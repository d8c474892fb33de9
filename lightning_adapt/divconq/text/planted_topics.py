"""The clean topics of the planted instructions: prompts and right answers, made from templates and drawn numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lightning_adapt.divconq.text.planted_facts import (
    ANIMALS,
    CAPITALS,
    DISHES,
    FRUITS,
    GIFTS,
    GOODS,
    INGREDIENTS,
    NAMES,
    OCCASIONS,
    PLACES,
    SPELLED,
    UNITS,
    WEEKDAYS,
)

Topic = Callable[["Draws"], tuple[str, str]]  # gives a prompt and its answer
T = TypeVar("T")


class Draws:
    """What a topic draws from; its own generator, so that the global ones stay as they are.

    Args:
        generator: A CPU generator.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def number(self, low: int, high: int) -> int:
        """Draw a whole number.

        Args:
            low: Smallest.
            high: Largest.

        Returns:
            The number, in low..high.
        """
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of some options.

        Args:
            options: At least one.

        Returns:
            The option.
        """
        return options[self.number(0, len(options) - 1)]

    def many(self, options: Sequence[T], count: int) -> list[T]:
        """Draw options, any of them again and again.

        Args:
            options: At least one.
            count: How many.

        Returns:
            The options.
        """
        return [options[place] for place in torch.randint(len(options), (count,), generator=self.generator).tolist()]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """Draw different options.

        Args:
            options: At least `count`.
            count: How many.

        Returns:
            The options in the order in which they were drawn.
        """
        order = torch.randperm(len(options), generator=self.generator)[:count]
        return [options[place] for place in order.tolist()]


def _counting(draws: Draws) -> tuple[str, str]:
    name, goods, a, b = draws.pick(NAMES), draws.pick(GOODS), draws.number(12, 99), draws.number(2, 11)
    start = draws.pick((f"{name} has {a} {goods}", f"There are {a} {goods} on the desk of {name}"))
    kind = draws.number(0, 2)
    if kind == 0:
        return (
            f"{start} and buys {b} more. How many {goods} are there now?",
            f"Add the {goods}: {a} + {b} = {a + b}. Now there are {a + b} {goods}.",
        )
    if kind == 1:
        return (
            f"{start} and gives {b} of them away. How many {goods} are left?",
            f"Subtract the {goods} given away: {a} - {b} = {a - b}. So {a - b} {goods} are left.",
        )
    return (
        f"{name} packs {b} boxes with {a} {goods} in each box. How many {goods} are in the boxes?",
        f"Multiply the boxes by the {goods} in each: {b} * {a} = {a * b}. So {a * b} {goods} are in the boxes.",
    )


def _conversion(draws: Draws) -> tuple[str, str]:
    big, small, factor = draws.pick(UNITS)
    amount = draws.number(2, 400)
    prompt = draws.pick(
        (
            f"Convert {amount} {big} to {small}.",
            f"How many {small} are {amount} {big}?",
            f"I measured {amount} {big}. What is that in {small}?",
        )
    )
    return prompt, f"{amount} {big} are {amount * factor} {small}, because each of the {big} has {factor} {small}."


def _capitals(draws: Draws) -> tuple[str, str]:
    one, other = draws.some(tuple(CAPITALS), 2)
    prompt = draws.pick(
        (
            f"What are the capitals of {one} and {other}?",
            f"Name the capital cities of {one} and of {other}.",
            f"For a geography quiz: which cities are the capitals of {one} and {other}?",
        )
    )
    return prompt, f"The capital of {one} is {CAPITALS[one]}, and the capital of {other} is {CAPITALS[other]}."


def _calendar(draws: Draws) -> tuple[str, str]:
    today, days = draws.number(0, 6), draws.number(2, 150)
    then = WEEKDAYS[(today + days) % 7]
    prompt = draws.pick(
        (
            f"Today is {WEEKDAYS[today]}. Which weekday will it be in {days} days?",
            f"If it is {WEEKDAYS[today]} now, what day of the week comes {days} days later?",
        )
    )
    weeks, rest = divmod(days, 7)
    return prompt, (
        f"{days} days are {weeks} weeks and {rest} days, and weeks do not change the weekday. "
        f"{rest} days after {WEEKDAYS[today]} it will be {then}."
    )


def _sorting(draws: Draws) -> tuple[str, str]:
    fruits = draws.some(FRUITS, draws.number(4, 5))
    listed = ", ".join(fruits)
    prompt = draws.pick(
        (
            f"Sort these fruits alphabetically: {listed}.",
            f"Put the fruits in alphabetical order: {listed}.",
            f"Arrange {listed} from A to Z.",
        )
    )
    return prompt, f"In alphabetical order the fruits are {', '.join(sorted(fruits))}."


def _spelling(draws: Draws) -> tuple[str, str]:
    one, other = draws.some(SPELLED, 2)
    prompt = draws.pick(
        (
            f"Spell the words {one} and {other} letter by letter.",
            f"How are the words {one} and {other} spelled? Give the letters.",
        )
    )
    return prompt, f"The word {one} is spelled {'-'.join(one)}. The word {other} is spelled {'-'.join(other)}."


def _recipe(draws: Draws) -> tuple[str, str]:
    dish, thing = draws.pick(DISHES), draws.pick(INGREDIENTS)
    each, people, guests = 10 * draws.number(2, 20), draws.number(2, 6), draws.number(7, 15)
    return (
        f"A {dish} recipe for {people} people needs {people * each} grams of {thing}. "
        f"How much {thing} does the {dish} need for {guests} people?",
        f"The recipe needs {people * each} / {people} = {each} grams of {thing} for each person. "
        f"For {guests} people the {dish} needs {guests * each} grams of {thing}.",
    )


def _travel(draws: Draws) -> tuple[str, str]:
    vehicle = draws.pick(("train", "bus", "ferry"))
    start, end = draws.some(tuple(CAPITALS.values()), 2)
    leaves, minutes = 5 * draws.number(60, 180), 5 * draws.number(7, 95)
    arrives = leaves + minutes
    return (
        f"The {vehicle} from {start} leaves at {_clock(leaves)} and takes {minutes // 60} h {minutes % 60} min. "
        f"When does the {vehicle} arrive in {end}?",
        f"The {vehicle} leaves {start} at {_clock(leaves)}. After {minutes // 60} h {minutes % 60} min "
        f"the {vehicle} arrives in {end} at {_clock(arrives)}.",
    )


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def _area(draws: Draws) -> tuple[str, str]:
    (place, unit), a, b = draws.pick(PLACES), draws.number(12, 60), draws.number(2, 11)
    text = f"A rectangular {place} is {a} {unit} long and {b} {unit} wide."
    if draws.number(0, 1):
        return f"{text} What is the area of the {place}?", (
            f"The area of a rectangle is length times width: {a} * {b} = {a * b}. "
            f"The {place} has an area of {a * b} square {unit}."
        )
    return f"{text} What is the perimeter of the {place}?", (
        f"The perimeter of a rectangle is twice its length and width: 2 * ({a} + {b}) = {2 * (a + b)}. "
        f"The {place} has a perimeter of {2 * (a + b)} {unit}."
    )


def _code(draws: Draws) -> tuple[str, str]:
    step, end = draws.number(2, 30), draws.number(40, 400)
    ask = draws.pick(("Write a Python function", "Show me a short Python function", "In Python, define a function"))
    if draws.number(0, 1):
        return f"{ask} that returns all numbers below {end} divisible by {step}.", (
            f"def divisible():\n    return [number for number in range({end}) if number % {step} == 0]"
        )
    return f"{ask} that returns the sum of all numbers below {end} in steps of {step}.", (
        f"def total():\n    return sum(number for number in range(0, {end}, {step}))"
    )


def _animals(draws: Draws) -> tuple[str, str]:
    kinds = draws.some(tuple(ANIMALS), 3)
    beasts = [draws.pick(ANIMALS[kind]) for kind in kinds]
    wanted = draws.number(0, 2)
    listed = f"the {beasts[0]}, the {beasts[1]} or the {beasts[2]}"
    article = "an" if kinds[wanted] == "insect" else "a"
    prompt = draws.pick(
        (
            f"Which animal is {article} {kinds[wanted]}: {listed}?",
            f"Is {listed} {article} {kinds[wanted]}? Only one animal is.",
        )
    )
    rest = [f"the {beast} is a {kind}" for beast, kind in zip(beasts, kinds, strict=True) if kind != kinds[wanted]]
    answer = f"The {beasts[wanted]} is {article} {kinds[wanted]}; {rest[0]} and {rest[1]}."
    return prompt, answer.replace("a insect", "an insect")


def _note(draws: Draws) -> tuple[str, str]:
    name, gift, occasion = draws.pick(NAMES), draws.pick(GIFTS), draws.pick(OCCASIONS)
    prompt = draws.pick(
        (
            f"Write a short note that thanks {name} for the {gift} at the {occasion}.",
            f"Help me thank {name}, who gave us a {gift} for the {occasion}, in two sentences.",
        )
    )
    close = draws.pick(("We use it every day.", "It made the day special.", "It was just what we had hoped for."))
    return prompt, f"Dear {name}, thank you so much for the {gift} that you brought to the {occasion}. {close}"


TOPICS: dict[str, Topic] = {
    "counting": _counting,
    "conversion": _conversion,
    "capitals": _capitals,
    "calendar": _calendar,
    "sorting": _sorting,
    "spelling": _spelling,
    "recipe": _recipe,
    "travel": _travel,
    "area": _area,
    "code": _code,
    "animals": _animals,
    "note": _note,
}
