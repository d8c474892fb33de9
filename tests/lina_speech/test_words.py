"""Words, and utterances made of them."""

import hashlib
import re

import pytest

from lightning_adapt.lina_speech.corpus.words import DIGIT_WORDS, default_words, draw_texts, text_key

WORDS = default_words()


def test_the_words_are_plain_and_different():
    assert 400 <= len(WORDS) <= 700
    assert len(set(WORDS)) == len(WORDS)
    assert list(WORDS) == sorted(WORDS)
    assert all(re.fullmatch("[a-z]+", word) for word in WORDS)
    assert {letter for word in WORDS for letter in word} == set("abcdefghijklmnopqrstuvwxyz")
    assert len(DIGIT_WORDS) == 10


def test_texts_are_words_of_the_list_in_every_length():
    texts = draw_texts(200, words=(2, 4), vocabulary=WORDS)
    assert {len(text.split()) for text in texts} == {2, 3, 4}
    assert {word for text in texts for word in text.split()} <= set(WORDS)
    assert len(set(texts)) == 200


def test_texts_depend_on_the_seed_and_the_key_alone():
    first = draw_texts(30, vocabulary=WORDS, seed=5, key=1)
    assert draw_texts(30, vocabulary=WORDS, seed=5, key=1) == first
    assert draw_texts(10, vocabulary=WORDS, seed=5, key=1) == first[:10]
    assert not set(draw_texts(30, vocabulary=WORDS, seed=5, key=2)) & set(first)


@pytest.mark.parametrize("vocabulary", [WORDS, DIGIT_WORDS])
def test_near_seeds_share_no_text(vocabulary):
    # thousands of digit texts of one seed would collide with those of another by chance
    lists = [set(draw_texts(1500, vocabulary=vocabulary, seed=seed, key=seed % 2)) for seed in (0, 1, 15)]
    assert not lists[0] & lists[1]
    assert not lists[1] & lists[2]
    assert not lists[0] & lists[2]
    assert all(text_key(text) % 16 == 15 for text in lists[2])


def test_few_possible_texts_are_all_used_then_repeated():
    texts = draw_texts(14, words=(1, 1), vocabulary=DIGIT_WORDS)
    assert len(texts) == 14
    assert set(texts) == set(DIGIT_WORDS)
    assert draw_texts(3, words=(1, 1), vocabulary=["only"]) == ["only"] * 3


def test_the_key_of_a_text_is_the_same_everywhere():
    assert text_key("seven") == int.from_bytes(hashlib.blake2b(b"seven", digest_size=8).digest(), "big")


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (3, TypeError, "`words` must be a pair"),
        ((1, 2, 3), TypeError, "`words` must be a pair"),
        ((0, 2), ValueError, r"`words\[0\]` must be a whole number >= 1"),
        ((3, 2), ValueError, r"`words\[1\]` must be a whole number >= 3"),
        ((1.5, 2), TypeError, r"`words\[0\]`"),
    ],
)
def test_wrong_numbers_of_words_are_refused(words, error, text):
    with pytest.raises(error, match=text):
        draw_texts(1, words=words, vocabulary=WORDS)


def test_an_empty_vocabulary_is_refused():
    with pytest.raises(ValueError, match="`vocabulary` must be at least one word"):
        draw_texts(1, vocabulary=[])
