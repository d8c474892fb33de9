"""One id per character."""
# ruff: noqa: RUF001 - quotes, dashes and IPA letters are what is tested

import string
import unicodedata
import warnings

import pytest

from lightning_adapt.lina_speech.text.characters import DEFAULT_ALPHABET, CharacterTokenizer
from lightning_adapt.lina_speech.text.tokenizer import UNK


def test_the_default_alphabet_fits_the_presets():
    assert len(DEFAULT_ALPHABET) <= 252
    assert len(set(DEFAULT_ALPHABET)) == len(DEFAULT_ALPHABET)
    assert set(string.ascii_letters + string.digits + string.punctuation + " ") <= set(DEFAULT_ALPHABET)
    assert CharacterTokenizer().vocab_size == len(DEFAULT_ALPHABET) + 4 <= 256


def test_the_ids_are_fixed():
    # written down, so that a change of the alphabet, which would spoil every checkpoint, is seen
    assert CharacterTokenizer().encode("a 7é") == [1, 69, 4, 27, 139, 2]
    assert CharacterTokenizer().fingerprint == "CharacterTokenizer-3836d84c661db2b8"


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Seven 3 nine.", "seven 3 nine."),
        ("  many\n\tblanks\u00a0 here ", "many blanks here"),
        ("ﬁne ½ ²", "fine 1⁄2 2"),  # NFKC: a ligature, a fraction, a power
        ("e\u0301tude", "étude"),  # two code points become one
        ("Straße ÀÉÎ Łódź čeština", "straße àéî łódź čeština"),
        ("“quoted” — ‘this’…", "“quoted” — ‘this’..."),
    ],
)
def test_a_text_comes_back(text, spoken):
    tokenizer = CharacterTokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fraction slash is in no alphabet
        ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == spoken.replace("⁄", "\ufffd")
    assert len(ids) == len(spoken) + 2
    assert (ids[0], ids[-1]) == (1, 2)
    assert 0 not in ids


def test_capital_letters_are_kept_where_asked():
    tokenizer = CharacterTokenizer(lowercase=False)
    assert tokenizer.decode(tokenizer.encode("Anna É")) == "Anna É"
    assert tokenizer.decode(tokenizer.encode("Č")) == "č"  # the alphabet has the small one alone
    assert tokenizer != CharacterTokenizer()


def test_lower_case_is_normalised_too():
    text = CharacterTokenizer().normalise("İ")  # its small form is two code points
    assert unicodedata.is_normalized("NFKC", text)


def test_unknown_characters_are_named_once():
    tokenizer = CharacterTokenizer()
    with pytest.warns(UserWarning, match=r"'日' \(U\+65E5\), '本'") as caught:
        ids = tokenizer.encode("日本 日")
    assert ids == [1, UNK, UNK, 4, UNK, 2]
    assert caught[0].filename == __file__  # it points at the caller
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.decode(tokenizer.encode("日")) == "\ufffd"


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(ValueError, match="`text` must be a text with at least one character"):
        CharacterTokenizer().encode(text)


@pytest.mark.parametrize("text", [None, 7, b"bytes", ["list"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(TypeError, match="`text` must be a str"):
        CharacterTokenizer().encode(text)


@pytest.mark.parametrize("number", [-1, 7, 250])
def test_ids_outside_the_vocabulary_are_refused(number):
    with pytest.raises(ValueError, match="`ids` must be numbers from 0 to 6"):
        CharacterTokenizer("abc").decode([4, number])


def test_padding_decodes_to_nothing():
    assert CharacterTokenizer("abc").decode([1, 4, 5, 2, 0, 0]) == "ab"


@pytest.mark.parametrize(
    ("alphabet", "error", "text"),
    [
        ("", ValueError, "from 1 to 252"),
        ("".join(map(chr, range(0x4E00, 0x4F00))), ValueError, "from 1 to 252 characters, but got 256"),
        ("abca", ValueError, r"Twice there: \['a'\]"),
        ("a²", ValueError, "which NFKC replaces"),
        (["a"], TypeError, "a str of characters"),
    ],
)
def test_a_wrong_alphabet_is_refused(alphabet, error, text):
    with pytest.raises(error, match=text):
        CharacterTokenizer(alphabet)


def test_the_case_flag_is_checked():
    with pytest.raises(TypeError, match="`lowercase` must be True or False"):
        CharacterTokenizer("abc", lowercase="no")
