"""Planted instructions: clean topics with right answers, and garbage topics answered by random words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq.text.planted_facts import GARBAGE_TOPICS, GARBAGE_WORDS
from lightning_adapt.divconq.text.planted_topics import TOPICS, Draws, Topic

__all__ = ["planted_instructions"]

_TRIES = 200  # draws of a topic for one more prompt that is new


def planted_instructions(
    n_clean: int = 600,
    n_garbage: int = 200,
    *,
    topics: int | None = None,
    garbage_topics: int = 4,
    garbage_words: int = 40,
    vocabulary: Sequence[str] = GARBAGE_WORDS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Make instruction rows of which it is known which are worthless.

    Clean rows ask about numbers, units, capitals, dates and the like and are answered rightly, in words of the
    prompt. Garbage rows have prompts of a kind of their own, and random words for an answer, so that a whole topic
    is garbage: what a selection by clusters can find. No prompt comes twice.

    Args:
        n_clean: Rows of the clean topics; as equal a number of each as possible. Some thousands can be had.
        n_garbage: Rows of the garbage topics, likewise.
        topics: Clean topics, from 1 to 12; None for all.
        garbage_topics: Garbage topics, from 1 to 10.
        garbage_words: Words in a garbage answer.
        vocabulary: What these words are drawn from; 384 common ones when left out.
        seed: Decides the rows and their order.

    Returns:
        Rows in a random order: `messages` (a user's and an assistant's), `topic` and `garbage` (a bool).

    Raises:
        TypeError: If a number is no whole number.
        ValueError: If a number is out of range, or larger than what the topics can give.

    Example:
        >>> rows = planted_instructions(3, 1)
        >>> sorted(row["garbage"] for row in rows)
        [False, False, False, True]
        >>> [message["role"] for message in rows[0]["messages"]]
        ['user', 'assistant']
    """
    check_integer("n_clean", n_clean, "Pass 0 for no clean rows.")
    check_integer("n_garbage", n_garbage, "Pass 0 for no garbage.")
    check_integer("garbage_words", garbage_words, "Pass the words of an answer, such as 40.", minimum=1)
    if topics is None:
        topics = len(TOPICS)
    check_integer("topics", topics, "Leave it out for all of them.", minimum=1, maximum=len(TOPICS))
    most = len(GARBAGE_TOPICS)
    check_integer("garbage_topics", garbage_topics, "Pass n_garbage=0 for no garbage.", minimum=1, maximum=most)
    if not vocabulary:
        raise ValueError(problem("vocabulary", "at least one word", vocabulary, "Leave it out for common words."))
    draws = Draws(generator(seed, 0))
    clean: dict[str, Topic] = dict(list(TOPICS.items())[:topics])
    garbage = {name: _garbage_topic(name, garbage_words, vocabulary) for name in list(GARBAGE_TOPICS)[:garbage_topics]}
    rows = _rows(clean, n_clean, draws, garbage=False) + _rows(garbage, n_garbage, draws, garbage=True)
    return draws.some(rows, len(rows))


def _garbage_topic(name: str, words: int, vocabulary: Sequence[str]) -> Topic:
    def topic(draws: Draws) -> tuple[str, str]:
        code = "".join(draws.many("ABCDEFGHKMNPRSTVWXYZ0123456789", 4))
        prompt = GARBAGE_TOPICS[name].format(code=code, number=draws.number(100, 999))
        return prompt, " ".join(draws.many(vocabulary, words))

    return topic


def _rows(topics: Mapping[str, Topic], count: int, draws: Draws, *, garbage: bool) -> list[dict[str, Any]]:
    seen: set[str] = set()
    rows = []
    for number in range(count):
        name = list(topics)[number % len(topics)]
        prompt, answer = _new_row(name, topics[name], draws, seen)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        rows.append({"messages": messages, "topic": name, "garbage": garbage})
    return rows


def _new_row(name: str, topic: Topic, draws: Draws, seen: set[str]) -> tuple[str, str]:
    for _ in range(_TRIES):
        prompt, answer = topic(draws)
        if prompt not in seen:
            seen.add(prompt)
            return prompt, answer
    raise ValueError(
        f"No more new prompts of the topic {name!r} after {len(seen):,} rows. Ask for fewer rows or more topics."
    )
