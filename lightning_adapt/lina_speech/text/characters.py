"""One id per character: small, needs nothing, and knows digits."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from lightning_adapt._shared.checks import check_flag, problem
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

__all__ = ["DEFAULT_ALPHABET", "CharacterTokenizer"]

_MOST = 252  # with the four special ids 256, the text vocabulary of the presets
_ASCII = "".join(map(chr, range(0x20, 0x7F)))  # 95: blank, punctuation, digits, letters of both cases
_LATIN_1 = "".join(chr(code) for code in range(0xC0, 0x100) if code not in {0xD7, 0xF7})  # 62 letters, both cases
# small letters that Latin-1 lacks, of European languages, Vietnamese and Azerbaijani
_LATIN_MORE = "āăąćĉċčďđēĕėęěĝğġģĥħĩīĭįıĵķĺļľłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷźżžșțơưə"
_PUNCTUATION = (
    "\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2039\u203a\u00ab\u00bb"  # dashes and quotes
    "\u00a1\u00bf\u00b0\u00b7\u00a3\u20ac\u00a7\u2022\u2020\u00b1\u00d7\u00f7"  # inverted marks and symbols
)

DEFAULT_ALPHABET = _ASCII + _LATIN_1 + _LATIN_MORE + _PUNCTUATION


class CharacterTokenizer:
    """Characters after NFKC normalisation, ids from 4 on in the order of the alphabet.

    Runs of white space become one blank, and white space at the ends goes. A character that is not in the alphabet
    but whose small letter is becomes that; any other becomes UNK, with one warning that names it.

    The default alphabet holds printable ASCII (95), the letters of Latin-1 in both cases (62), small letters of
    further languages (65), and 24 signs: dashes, quotes, guillemets, inverted marks and a few symbols.

    Args:
        alphabet: At most 252 different characters.
        lowercase: Whether capital letters become small ones; False keeps those of the alphabet.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the alphabet is empty, too long, or holds a character twice or one that NFKC replaces.

    Example:
        >>> tokenizer = CharacterTokenizer("abc ")
        >>> tokenizer.encode("A  Cab")
        [1, 4, 7, 6, 4, 5, 2]
        >>> tokenizer.decode([1, 4, 7, 6, 4, 5, 2])
        'a cab'
    """

    def __init__(self, alphabet: str = DEFAULT_ALPHABET, lowercase: bool = True) -> None:
        _check_alphabet(alphabet)
        self.alphabet = alphabet
        self.lowercase = check_flag("lowercase", lowercase, "Pass False to keep capital letters apart.")
        self._ids = {character: place for place, character in enumerate(alphabet, start=len(SPECIALS))}
        self._named: set[str] = set()

    @property
    def vocab_size(self) -> int:
        """Number of ids: the alphabet and the four special ones."""
        return len(SPECIALS) + len(self.alphabet)

    @property
    def fingerprint(self) -> str:
        """Name and a hash of the alphabet and the case rule."""
        return state_fingerprint("CharacterTokenizer", self.to_state())

    def normalise(self, text: str) -> str:
        """Return a text as the ids can hold it, except for unknown characters."""
        if not isinstance(text, str):
            raise TypeError(problem("text", "a str", text, "Pass one text."))
        text = " ".join(unicodedata.normalize("NFKC", text).split())
        return unicodedata.normalize("NFKC", text.lower()) if self.lowercase else text

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Args:
            text: The text.

        Returns:
            BOS, one id per character, EOS.

        Raises:
            TypeError: If it is no str.
            ValueError: If it is empty.
        """
        cleaned = self.normalise(text)
        check_speakable(text, cleaned)
        ids = [self._ids.get(character, self._ids.get(character.lower(), UNK)) for character in cleaned]
        if UNK in ids:
            unknown = {character for character, number in zip(cleaned, ids, strict=True) if number == UNK}
            warn_unknown(unknown, self._named, "Spell them out, or pass an alphabet that has them.")
        return [BOS, *ids, EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids.

        Args:
            ids: Numbers from 0 to `vocab_size - 1`; PAD, BOS and EOS are left out.

        Returns:
            The text; UNK is the replacement character U+FFFD.

        Raises:
            ValueError: If a number is outside the vocabulary.
        """
        return decoded(ids, self.alphabet)

    def to_state(self) -> dict[str, Any]:
        """Return what makes an equal tokenizer, as plain values."""
        return {"kind": "characters", "alphabet": self.alphabet, "lowercase": self.lowercase}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CharacterTokenizer:
        """Return the tokenizer of a state."""
        return cls(state["alphabet"], state["lowercase"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharacterTokenizer) and self.to_state() == other.to_state()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.alphabet)} characters, lowercase={self.lowercase})"


def _check_alphabet(alphabet: str) -> None:
    if not isinstance(alphabet, str):
        raise TypeError(problem("alphabet", "a str of characters", alphabet, "Leave it out for the default."))
    if not 1 <= len(alphabet) <= _MOST:
        allowed = f"from 1 to {_MOST} characters"
        raise ValueError(problem("alphabet", allowed, len(alphabet), "Leave out rare characters; they become UNK."))
    twice = sorted({character for character in alphabet if alphabet.count(character) > 1})
    if twice:
        raise ValueError(problem("alphabet", "without repeats", alphabet, f"Twice there: {twice}."))
    replaced = [character for character in alphabet if unicodedata.normalize("NFKC", character) != character]
    if replaced:
        remedy = f"Texts never hold {replaced}, which NFKC replaces."
        raise ValueError(problem("alphabet", "of characters that NFKC keeps", alphabet, remedy))
