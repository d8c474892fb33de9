"""What a text tokenizer is, and how one is chosen by name or restored from a checkpoint."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning_adapt._shared.checks import check_choice, problem
from lightning_adapt._shared.text_files import read_json
from lightning_adapt.lina_speech.saved_parts import check_checkpoint_is_there, saved_part

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "SPECIALS",
    "UNK",
    "TextTokenizer",
    "as_tokenizer",
    "check_speakable",
    "decoded",
    "state_fingerprint",
    "tokenizer_from_state",
    "warn_unknown",
]

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")

# kind, as written in a state -> module and class
_KINDS = {
    "characters": ("characters", "CharacterTokenizer"),
    "bpe": ("bpe", "BPETokenizer"),
    "phonemes": ("phonemes", "PhonemeTokenizer"),
}


@runtime_checkable
class TextTokenizer(Protocol):
    """Turns a text into ids from 0 to `vocab_size - 1`: PAD 0, BOS 1, EOS 2, UNK 3, then pieces of text.

    A class of your own with these five members works everywhere a tokenizer is taken. Equal fingerprints mean equal
    ids for every text.
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids, the four special ones included."""

    @property
    def fingerprint(self) -> str:
        """Kind and a hash of everything that decides the ids."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, BOS first and EOS last."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; PAD, BOS and EOS are left out."""

    def to_state(self) -> dict[str, Any]:
        """Return plain values that `tokenizer_from_state` makes an equal tokenizer of."""


def tokenizer_from_state(state: Mapping[str, Any]) -> TextTokenizer:
    """Make a tokenizer from what its `to_state` returned.

    Args:
        state: Plain values, such as those in a checkpoint.

    Returns:
        A tokenizer equal to the one that was saved.

    Raises:
        ValueError: If the state is not of one of the tokenizers of this package.

    Example:
        >>> tokenizer = as_tokenizer("characters")
        >>> tokenizer_from_state(tokenizer.to_state()) == tokenizer
        True
    """
    remedy = "Pass the tokenizer itself where the checkpoint is loaded, if it is of a class of your own."
    kind = check_choice("state['kind']", state.get("kind"), tuple(_KINDS), remedy)
    try:
        made: TextTokenizer = _class(kind).from_state(dict(state))
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"The saved state of a tokenizer of the kind {kind!r} is damaged: {error!r}. {remedy}"
        ) from error
    return made


def as_tokenizer(value: Any = None) -> TextTokenizer:
    """Return the tokenizer that a user asked for.

    Args:
        value: "characters" or None; "phonemes", or with a language "phonemes:en-gb"; the path of a JSON file of the
            `tokenizers` library or of a tokenizer's state, or of a checkpoint of `LinaSpeechModule`, for the tokenizer
            of its model; or a tokenizer, which comes back as it is.

    Returns:
        The tokenizer.

    Raises:
        TypeError: If it is none of these.
        FileNotFoundError: If it is neither a name nor a file.
        ValueError: If the file does not hold a tokenizer, or that of a checkpoint cannot be made again.
    """
    if value is None or value == "characters":
        return _made("characters")
    if isinstance(value, str) and value.partition(":")[0] == "phonemes":
        language = value.partition(":")[2]
        return _made("phonemes", **({"language": language} if language else {}))
    if isinstance(value, (str, Path)):
        return _from_file(Path(value).expanduser())
    if isinstance(value, TextTokenizer) and not isinstance(value, type):
        return value
    allowed = "'characters', 'phonemes', a path or an object with encode, decode, vocab_size, fingerprint and to_state"
    raise TypeError(problem("tokenizer", allowed, value, "Leave it out for characters."))


def _from_file(path: Path) -> TextTokenizer:
    check_checkpoint_is_there(path, "tokenizer")
    if not path.is_file():
        allowed = "'characters', 'phonemes' or an existing file"
        raise FileNotFoundError(problem("tokenizer", allowed, str(path), "Correct the name or the path."))
    part = saved_part(path, "tokenizer")
    if part is not None:
        return _checked(tokenizer_from_state(part["state"]), part["fingerprint"], path)
    try:
        content = read_json(path)
    except ValueError as error:
        allowed = "a JSON file, or a checkpoint of LinaSpeechModule"
        raise ValueError(problem("tokenizer", allowed, str(path), f"It cannot be read: {error}")) from error
    if isinstance(content, dict) and "kind" in content:
        return tokenizer_from_state(content)
    return tokenizer_from_state({"kind": "bpe", "json": json.dumps(content)})


def _checked(tokenizer: TextTokenizer, fingerprint: str, path: Path) -> TextTokenizer:
    if tokenizer.fingerprint != fingerprint:
        remedy = "It was made by a release whose ids are other ones."
        raise ValueError(problem("tokenizer", f"that of {path}, {fingerprint}", tokenizer.fingerprint, remedy))
    return tokenizer


def _made(kind: str, **arguments: Any) -> TextTokenizer:
    made: TextTokenizer = _class(kind)(**arguments)
    return made


def _class(kind: str) -> Any:
    module, name = _KINDS[kind]
    return getattr(import_module(f"lightning_adapt.lina_speech.text.{module}"), name)


def state_fingerprint(name: str, state: Mapping[str, Any]) -> str:
    """Return the name and 16 hexadecimal digits that depend on every value of a plain state."""
    content = json.dumps(state, sort_keys=True, ensure_ascii=True)
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def check_speakable(text: Any, cleaned: str) -> None:
    """Check that there is something to say.

    Args:
        text: What the user passed.
        cleaned: What is left of it.

    Raises:
        ValueError: If nothing is left.
    """
    if not cleaned:
        raise ValueError(problem("text", "a text with at least one character", text, "Leave out empty texts."))


def decoded(ids: Iterable[int], alphabet: str) -> str:
    """Return the symbols of ids from 4 on in the order of an alphabet.

    Args:
        ids: Numbers from 0 to the last of the alphabet; PAD, BOS and EOS are left out.
        alphabet: A symbol per id.

    Returns:
        The symbols; UNK is the replacement character U+FFFD.

    Raises:
        ValueError: If a number is outside the vocabulary.
    """
    last = len(SPECIALS) + len(alphabet) - 1
    symbols = []
    for number in map(int, ids):
        if not 0 <= number <= last:
            raise ValueError(
                problem("ids", f"numbers from 0 to {last}", number, "Decode with the tokenizer that made them.")
            )
        if number >= UNK:
            symbols.append("\ufffd" if number == UNK else alphabet[number - len(SPECIALS)])
    return "".join(symbols)


def warn_unknown(unknown: Iterable[str], named: set[str], remedy: str) -> None:
    """Warn once about characters that a tokenizer does not have.

    Args:
        unknown: Characters that became UNK.
        named: Characters that were warned of before; the new ones are added.
        remedy: What the user should do, a full sentence.
    """
    new: Sequence[str] = sorted(set(unknown) - named)
    if new:
        named.update(new)
        shown = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in new[:20])
        warnings.warn(f"The tokenizer does not know {shown}; each becomes UNK. {remedy}", UserWarning, stacklevel=3)
