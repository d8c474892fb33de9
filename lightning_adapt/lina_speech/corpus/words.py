"""Words, and seeded utterances made of them: what the synthesised voices say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.hashing import generator

__all__ = ["DIGIT_WORDS", "default_words", "draw_texts", "text_key"]

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_WORDS = """
able about above across after again air all almost along also always among animal answer apple arm around ask away baby
back bad bag ball bank bear beautiful bed before begin behind below best better between big bird black blue boat body
book both bottle box boy branch bread break bright bring brother brown build burn busy button buy cake call camp car
card care carry castle cat catch chair change cheap check child circle city class clean clear climb clock close cloud
coat cold color come cook cool copper corner cost count country cover cross cry cup cut dance dark day deep dinner
doctor dog door down dozen draw dream dress drink drive dry each early earth east easy eat egg empty end engine enough
even evening every eye face fall family far farm fast father feel few field fight find fine finger fire first fish floor
flower fly follow food foot forest free fresh friend from front frozen fruit full funny game garden gate gentle girl
give glass gold good grass gray great green ground grow guess hair half hand happy hard hat have head hear heart heavy
help here high hill hold home hope horse hot hour house how hungry ice idea inside iron island jacket job join jump just
keep key kind king kitchen knife know lady lake lamp large last laugh law lazy lead leaf learn left leg lemon letter
life light like line lion listen little live long look lose loud love low lunch machine make man many map market matter
meat meet middle milk mind minute money month moon more morning mother mountain mouth move music name narrow near neck
need never new next nice night noise north nose note now number ocean offer often old open orange order other out over
page paint paper park part party past path pay pencil people person picture place plane plant play please pocket point
poor pretty price prince prize pull push puzzle queen question quick quiet rabbit rain reach read ready red rest rich
ride right ring river road rock roof room round rule run sad safe salt same sand say school sea season second see send
seven shadow shape sharp she sheep ship shirt shoe shop short show shut side sign silver simple sing sister sit size sky
sleep slow small smile smoke snow soft some song soon sound south speak spring square stand star start stay still stone
stop storm story street strong student sugar summer sun sweet swim table take talk tall teach tell test thank that thick
thin thing think this throw ticket time tiny today together tomorrow too top touch town train travel tree true try turn
under until up use valley very village visit voice wait walk wall want warm wash watch water way weather week well west
what wheel when where white who why wide wild wind window winter wise wish with woman wonder wood word work world write
wrong yard year yellow yes yesterday young zebra zoo
"""

_CLASSES = 16  # a text belongs to one of so many classes, and a seed draws from one class only
_SEPARATE_FROM = 100_000  # texts there must be at least for that: with fewer, a class would hold too few
_BLOCK = 256  # candidate texts per draw
_BLOCKS = 64  # draws without enough new texts before repeats are taken


def default_words() -> tuple[str, ...]:
    """Return about 500 short, common English words, in alphabetical order.

    Returns:
        The words, lower-case letters only.

    Example:
        >>> default_words()[:3]
        ('able', 'about', 'above')
    """
    return tuple(_WORDS.split())


def text_key(text: str) -> int:
    """Return a 64-bit key of a text, the same in every process (unlike `hash`)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def draw_texts(
    n_texts: int, *, words: tuple[int, int] = (3, 6), vocabulary: Sequence[str], seed: int = 0, key: int = 0
) -> list[str]:
    """Draw utterances: words of a list with blanks between them.

    No utterance comes twice in one list as long as new ones can be found. Where the words allow at least 100,000
    utterances, every utterance belongs to one of 16 classes and a seed draws from the class `seed % 16` alone: lists of
    two seeds that differ by 1 to 15 never share an utterance, whatever their keys. A longer list starts with a
    shorter one of the same arguments.

    Args:
        n_texts: Utterances to draw.
        words: Least and most words of an utterance; every number between is equally likely.
        vocabulary: The words.
        seed: Decides the utterances, and their class.
        key: Further number that decides the utterances, such as one of the speaker.

    Returns:
        The utterances, `n_texts` of them.

    Raises:
        TypeError: If `words` is no pair of whole numbers.
        ValueError: If `words` is no range from 1 on, or the vocabulary is empty.

    Example:
        >>> texts = draw_texts(2, words=(3, 3), vocabulary=DIGIT_WORDS)
        >>> [len(text.split()) for text in texts]
        [3, 3]
    """
    least, most = _check_words(words)
    if not vocabulary:
        raise ValueError(problem("vocabulary", "at least one word", vocabulary, "Pass default_words()."))
    n_possible = sum(len(vocabulary) ** length for length in range(least, most + 1))
    numbers = generator(seed, key)
    found: dict[str, None] = {}  # a set that keeps its order
    repeats: list[str] = []
    for _ in range(_BLOCKS):
        for text in _candidates(numbers, (least, most), vocabulary):
            if n_possible < _SEPARATE_FROM or text_key(text) % _CLASSES == seed % _CLASSES:
                repeats.append(text)
                found[text] = None
        if len(found) >= n_texts:
            return list(found)[:n_texts]
    texts = list(found)
    while len(texts) < n_texts:
        texts.extend(repeats[: n_texts - len(texts)])
    return texts


def _check_words(words: tuple[int, int]) -> tuple[int, int]:
    remedy = "Pass the least and the most words of an utterance, such as (3, 6)."
    if not isinstance(words, (tuple, list)) or len(words) != 2:
        raise TypeError(problem("words", "a pair of whole numbers", words, remedy))
    least = check_integer("words[0]", words[0], remedy, minimum=1)
    return least, check_integer("words[1]", words[1], remedy, minimum=least)


def _candidates(numbers: torch.Generator, words: tuple[int, int], vocabulary: Sequence[str]) -> list[str]:
    least, most = words
    lengths = torch.randint(least, most + 1, (_BLOCK,), generator=numbers).tolist()
    rows = torch.randint(len(vocabulary), (_BLOCK, most), generator=numbers).tolist()
    return [" ".join(vocabulary[place] for place in row[:length]) for row, length in zip(rows, lengths, strict=True)]
