"""Phonemes of the international phonetic alphabet, by espeak-ng: what is said rather than what is written."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lightning_adapt._shared.checks import problem
from lightning_adapt.lina_speech.corpus.engine import near_names
from lightning_adapt.lina_speech.corpus.espeak_program import EspeakProgram, require_espeak
from lightning_adapt.lina_speech.text.tokenizer import (
    BOS,
    EOS,
    SPECIALS,
    UNK,
    check_speakable,
    decoded,
    state_fingerprint,
    warn_unknown,
)

__all__ = ["PHONEME_ALPHABET", "PhonemeTokenizer"]

_PUNCTUATION = " .,;:!?-\u2014'\"()\u00ab\u00bb\u00a1\u00bf\u2026\u201c\u201d"
_LETTERS = "abcdefghijklmnopqrstuvwxyz\u00e6\u00f0\u00f8\u0127\u0153\u014b\u03b2\u03b5\u03b8\u03c7\u1d7b\u1d4a\u2c71"
_IPA = "".join(map(chr, range(0x250, 0x2B0)))  # the block of IPA letters
_MODIFIERS = "\u02b0\u02b1\u02b2\u02b7\u02bc\u02c8\u02cc\u02d0\u02d1\u02de\u02e0\u02e4\u207f"  # stress, length, ...
_MARKS = "".join(
    map(chr, (*range(0x300, 0x334), 0x33A, 0x33B, 0x33C, 0x33D, 0x339, 0x35C, 0x361))
)  # below, above, ties
_TONES = "12345\u02e5\u02e6\u02e7\u02e8\u02e9"

# In Unicode's decomposed form (NFD): a letter and its marks have an id each, so that few ids cover all languages.
PHONEME_ALPHABET = _PUNCTUATION + _LETTERS + _IPA + _MODIFIERS + _MARKS + _TONES

_BREAK = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)|[;!?()\"\u00ab\u00bb\u00a1\u00bf\u2026\u201c\u201d\u2014]+")
_SWITCH = re.compile(r"\([a-z]{2,3}(?:-[a-z0-9-]+)?\)")  # "(en)": espeak-ng says a word in another language
_KEPT = 200_000  # texts whose phonemes are remembered
_AT_ONCE = 256  # texts per start of espeak-ng: one to three seconds of work, far from its time limit
_STARTS = 16  # of them at the same time, for each process of a training


class PhonemeTokenizer:
    """Phonemes with stress marks, from espeak-ng, and the punctuation of the text; ids from 4 on.

    The text is read aloud by the rules of a language (numbers and abbreviations, too) and written down in IPA. The
    alphabet is fixed, the same for all languages. Other versions of espeak-ng may pronounce a word differently:
    the version at hand when the tokenizer is made belongs to its fingerprint, and another one later gives a warning.

    Args:
        language: A language or accent of espeak-ng, such as "en-us", "de" or "fr-fr".

    Raises:
        ModuleNotFoundError: If espeak-ng is not there; the message says how to install it.
        ValueError: If espeak-ng does not know the language.
    """

    def __init__(self, language: str = "en-us") -> None:
        program = require_espeak("PhonemeTokenizer")
        if not isinstance(language, str) or not program.check_language(language):
            remedy = f"Near ones are {near_names(str(language), program.languages())}."
            raise ValueError(problem("language", "a language of espeak-ng", language, remedy))
        self._fill(language, program.version)

    def _fill(self, language: str, version: str) -> None:
        self.language = language
        self.espeak_version = version
        self._ids = {symbol: place for place, symbol in enumerate(PHONEME_ALPHABET, start=len(SPECIALS))}
        self._named: set[str] = set()
        self._memory: dict[str, str] = {}
        self._checked_version = False

    @property
    def vocab_size(self) -> int:
        """Number of ids: the alphabet and the four special ones."""
        return len(SPECIALS) + len(PHONEME_ALPHABET)

    @property
    def fingerprint(self) -> str:
        """Name, language and a hash of the alphabet and the version of espeak-ng."""
        return state_fingerprint(f"PhonemeTokenizer-{self.language}", {**self.to_state(), "symbols": PHONEME_ALPHABET})

    def phonemes(self, texts: Iterable[str]) -> list[str]:
        """Return the phonemes of texts, by few starts of espeak-ng: one takes 10 ms, and then some ms per sentence.

        They are remembered, so that encoding these texts later costs next to nothing. Many texts are worked on by all
        cores at once.

        Args:
            texts: The texts.

        Returns:
            IPA with the punctuation of the texts, in Unicode's decomposed form.

        Raises:
            TypeError: If one is no str.
            ValueError: If there is nothing to say in one.
        """
        wanted = [_cleaned(text) for text in texts]
        found = {text: self._memory.get(text, "") for text in wanted}  # a copy: another thread may clear the memory
        new = [text for text, spoken in found.items() if not spoken]
        if new:
            program = require_espeak("PhonemeTokenizer")
            self._check_version(program)
            found.update(zip(new, _all_spoken(program, self.language, new), strict=True))
            if len(self._memory) + len(new) > _KEPT:
                self._memory.clear()
            self._memory.update((text, found[text]) for text in new[:_KEPT])
        return [found[text] for text in wanted]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Args:
            text: The text.

        Returns:
            BOS, one id per symbol, EOS.

        Raises:
            TypeError: If it is no str.
            ValueError: If there is nothing to say in it.
            ModuleNotFoundError: If espeak-ng is not there.
        """
        return self.encode_joined([text])

    def encode_joined(self, texts: Sequence[str]) -> list[int]:
        """Return the ids of texts that were said one after the other, each by itself.

        Unlike `encode` of the joined text, no sound runs from one text into the next, and what is remembered of each
        text serves all its joins.

        Args:
            texts: The texts, at least one.

        Returns:
            BOS, the ids of all texts with a blank between, EOS.

        Raises:
            TypeError: If one is no str.
            ValueError: If there is nothing to say in one.
            ModuleNotFoundError: If espeak-ng is not there.
        """
        spoken = " ".join(self.phonemes(texts))
        ids = [self._ids.get(symbol, UNK) for symbol in spoken]
        if UNK in ids:
            unknown = {symbol for symbol, number in zip(spoken, ids, strict=True) if number == UNK}
            warn_unknown(unknown, self._named, "Say it in other words, or use CharacterTokenizer.")
        return [BOS, *ids, EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the phonemes of ids; the letters of the text cannot be had back.

        Args:
            ids: Numbers from 0 to `vocab_size - 1`; PAD, BOS and EOS are left out.

        Returns:
            IPA; UNK is the replacement character U+FFFD.

        Raises:
            ValueError: If a number is outside the vocabulary.
        """
        return decoded(ids, PHONEME_ALPHABET)

    def to_state(self) -> dict[str, Any]:
        """Return what makes an equal tokenizer, as plain values."""
        return {"kind": "phonemes", "language": self.language, "espeak_version": self.espeak_version}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PhonemeTokenizer:
        """Return the tokenizer of a state; espeak-ng itself is needed only when a text is encoded."""
        made = cls.__new__(cls)
        made.__setstate__(state)
        return made

    def __getstate__(self) -> dict[str, Any]:  # for workers: what is remembered stays here
        return self.to_state()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._fill(state["language"], state["espeak_version"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PhonemeTokenizer) and self.to_state() == other.to_state()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.language!r}, espeak-ng {self.espeak_version})"

    def _check_version(self, program: EspeakProgram) -> None:
        if not self._checked_version and program.version != self.espeak_version:
            warnings.warn(
                f"This PhonemeTokenizer was made with espeak-ng {self.espeak_version}, but {program.version} is "
                "installed: some words may get other phonemes than in training. Install that version for the same.",
                UserWarning,
                stacklevel=4,
            )
        self._checked_version = True


def _cleaned(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(problem("text", "a str", text, "Pass one text."))
    cleaned = " ".join(unicodedata.normalize("NFKC", text).split())
    check_speakable(text, cleaned if any(map(str.isalnum, cleaned)) else "")
    return cleaned


def _all_spoken(program: EspeakProgram, language: str, texts: list[str]) -> list[str]:
    parts = [texts[first : first + _AT_ONCE] for first in range(0, len(texts), _AT_ONCE)]
    with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1, _STARTS)) as pool:  # each waits for its own process
        spoken = pool.map(lambda part: _spoken(program, language, part), parts)
        return [line for lines in spoken for line in lines]


def _spoken(program: EspeakProgram, language: str, texts: list[str]) -> list[str]:
    """Return the phonemes of texts: cut at punctuation, one clause per line, put together again."""
    pieces = [_pieces(text) for text in texts]
    clauses = [piece for row in pieces for piece, is_clause in row if is_clause]
    lines = _lines(program, language, clauses)
    answers = iter(lines)
    return ["".join(next(answers) if is_clause else piece for piece, is_clause in row).strip() for row in pieces]


def _pieces(text: str) -> list[tuple[str, bool]]:
    """Return the parts of a text in order: clauses to be spoken (True), and the punctuation and blanks between."""
    found: list[tuple[str, bool]] = []
    place = 0
    for match in [*_BREAK.finditer(text), None]:
        start, end = match.span() if match else (len(text), len(text))
        clause = text[place:start]
        if any(map(str.isalnum, clause)):
            bare = clause.strip()
            found += [(" " * clause.startswith(" "), False), (bare, True), (" " * clause.endswith(" "), False)]
        elif clause:
            found.append((" ", False))
        found.append((text[start:end], False))
        place = end
    return found


def _lines(program: EspeakProgram, language: str, clauses: list[str]) -> list[str]:
    output = program.run("-q", "--ipa", "-v", language, text="".join(f"{clause}\n" for clause in clauses)).decode()
    plain = _SWITCH.sub("", output).replace("\u200d", "").replace("\u200c", "")
    lines = [unicodedata.normalize("NFD", " ".join(line.split())) for line in plain.splitlines() if line.strip()]
    if len(lines) == len(clauses):
        return lines
    if len(clauses) == 1:  # so long that espeak-ng cut it, or nothing it can say
        return [" ".join(lines)]
    half = len(clauses) // 2
    return _lines(program, language, clauses[:half]) + _lines(program, language, clauses[half:])
