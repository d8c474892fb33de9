"""Byte pair encoding over characters, through the `tokenizers` library: about 1.5 characters per id at 256 ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_adapt._shared.checks import check_flag, check_integer, problem
from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.text_files import read_text
from lightning_adapt.lina_speech.text.tokenizer import (
    BOS,
    EOS,
    SPECIALS,
    UNK,
    check_speakable,
    state_fingerprint,
    warn_unknown,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["BPETokenizer"]

_BLANK = "\u2581"  # stands for a blank inside the pieces
_ALWAYS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-" + _BLANK  # in every vocabulary, seen in training or not


class BPETokenizer:
    """Pieces of words that were frequent in the training texts, ids from 4 on.

    Texts are normalised by NFKC and lower-cased, runs of white space become one blank; no piece reaches over a blank,
    a digit or punctuation. A character that is in no piece becomes UNK, with one warning that names it. Letters a to
    z, digits and common punctuation are always there, so that no digit is ever unknown.

    Args:
        content: JSON text of a `tokenizers.Tokenizer` whose ids 0 to 3 are [PAD], [BOS], [EOS] and [UNK].

    Raises:
        ValueError: If it is no such text.
        ModuleNotFoundError: If `tokenizers`, which comes with transformers, is missing.

    Example:
        >>> tokenizer = BPETokenizer.train(["the theme of the thesis"] * 3, vocab_size=60)
        >>> len(tokenizer.encode("the theme")) < len("the theme")
        True
        >>> tokenizer.decode(tokenizer.encode("The  theme 7"))
        'the theme 7'
    """

    def __init__(self, content: str) -> None:
        self._content = content
        self._tokenizer = _opened(content)
        self._known = {piece for piece in self._tokenizer.get_vocab() if len(piece) == 1}
        self._named: set[str] = set()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 256, lowercase: bool = True) -> BPETokenizer:
        """Learn pieces from texts.

        Args:
            texts: Texts of the training data.
            vocab_size: Most ids, the four special ones and the single characters included.
            lowercase: Whether capital letters become small ones.

        Returns:
            The tokenizer. The same texts give the same one.

        Raises:
            ValueError: If the characters of the texts alone are more than `vocab_size` allows.
        """
        require("speech", "BPETokenizer", "transformers")
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        check_flag("lowercase", lowercase, "Pass False to keep capital letters apart.")
        remedy = "Pass at least the characters of the texts and some pieces, such as 256."
        check_integer("vocab_size", vocab_size, remedy, minimum=len(SPECIALS) + len(_ALWAYS))
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIALS[UNK]))
        steps = [normalizers.NFKC(), normalizers.Replace(_pattern(r"\s+"), " "), normalizers.Strip()]
        tokenizer.normalizer = normalizers.Sequence(steps + ([normalizers.Lowercase()] if lowercase else []))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(replacement=_BLANK, prepend_scheme="never"),
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.Split(_pattern(r"[^\w\s\u2581']"), "isolated"),
            ]
        )
        tokenizer.decoder = decoders.Metaspace(replacement=_BLANK, prepend_scheme="never")
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIALS), initial_alphabet=list(_ALWAYS), show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        if tokenizer.get_vocab_size() > vocab_size:
            allowed = f"at least {tokenizer.get_vocab_size()}, the characters of these texts"
            raise ValueError(
                problem("vocab_size", allowed, vocab_size, "Raise it, or leave out texts in other scripts.")
            )
        return cls(tokenizer.to_str())

    @property
    def vocab_size(self) -> int:
        """Number of ids, the four special ones included."""
        return self._tokenizer.get_vocab_size()

    @property
    def fingerprint(self) -> str:
        """Name and a hash of the pieces and rules."""
        return state_fingerprint("BPETokenizer", json.loads(self._content))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Args:
            text: The text.

        Returns:
            BOS, the ids of the pieces, EOS.

        Raises:
            TypeError: If it is no str.
            ValueError: If it is empty.
        """
        if not isinstance(text, str):
            raise TypeError(problem("text", "a str", text, "Pass one text."))
        text = text.encode("utf-8", "replace").decode()  # halves of surrogate pairs have no UTF-8
        cleaned = self._tokenizer.normalizer.normalize_str(text) if self._tokenizer.normalizer else text
        check_speakable(text, cleaned.strip())
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if UNK in ids:
            unknown = set(cleaned.replace(" ", _BLANK)) - self._known
            warn_unknown(unknown, self._named, "Spell them out, or train on texts that have them.")
        return [BOS, *ids, EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids.

        Args:
            ids: Numbers from 0 to `vocab_size - 1`; PAD, BOS, EOS and UNK are left out.

        Returns:
            The text.

        Raises:
            ValueError: If a number is outside the vocabulary.
        """
        numbers = [int(number) for number in ids]
        wrong = [number for number in numbers if not 0 <= number < self.vocab_size]
        if wrong:
            remedy = "Decode with the tokenizer that made them."
            raise ValueError(problem("ids", f"numbers from 0 to {self.vocab_size - 1}", wrong[0], remedy))
        return self._tokenizer.decode([number for number in numbers if number > UNK], skip_special_tokens=False)

    def save(self, path: str | Path) -> Path:
        """Write the JSON file of the `tokenizers` library, which other programs read, too.

        Args:
            path: The file.

        Returns:
            Its path.
        """
        with whole_file(path) as unfinished:
            unfinished.write_text(self._content, encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> BPETokenizer:
        """Read a file that `save` wrote.

        Args:
            path: The file.

        Returns:
            The tokenizer.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it holds no tokenizer with our special ids.
        """
        return cls(read_text(path))

    def to_state(self) -> dict[str, Any]:
        """Return what makes an equal tokenizer, as plain values."""
        return {"kind": "bpe", "json": self._content}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> BPETokenizer:
        """Return the tokenizer of a state."""
        return cls(state["json"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BPETokenizer) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size} ids)"


def _pattern(expression: str) -> Any:
    from tokenizers import Regex

    return Regex(expression)


def _opened(content: str) -> Tokenizer:
    require("speech", "BPETokenizer", "transformers")
    from tokenizers import Tokenizer

    try:
        tokenizer: Tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception for text it cannot read
        raise ValueError(problem("content", "JSON of a tokenizer", content, f"It cannot be read: {error}.")) from error
    first = tuple(tokenizer.id_to_token(number) for number in range(len(SPECIALS)))
    if first != SPECIALS:
        allowed = f"of a tokenizer with the ids 0 to 3 for {', '.join(SPECIALS)}"
        raise ValueError(problem("content", allowed, first, "Train one with BPETokenizer.train."))
    tokenizer.encode_special_tokens = True  # "[EOS]" in a text is text
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
