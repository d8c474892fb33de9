"""Byte pair encoding over characters."""

import warnings
from collections import Counter
from itertools import pairwise

import pytest
from tokenizers import Tokenizer, models

from lightning_adapt.lina_speech.corpus.words import default_words, draw_texts
from lightning_adapt.lina_speech.text.bpe import BPETokenizer

TEXTS = draw_texts(300, vocabulary=default_words(), seed=3)
TRAINED = BPETokenizer.train(TEXTS)


def test_the_vocabulary_has_the_size_asked_for():
    assert TRAINED.vocab_size == 256
    assert BPETokenizer.train(TEXTS, vocab_size=100).vocab_size == 100


def test_the_same_texts_give_the_same_tokenizer():
    assert BPETokenizer.train(TEXTS) == TRAINED
    assert BPETokenizer.train(TEXTS[:100]) != TRAINED


def test_pieces_shorten_texts():
    characters = sum(map(len, TEXTS))
    pieces = sum(len(TRAINED.encode(text)) - 2 for text in TEXTS)
    assert 1.5 < characters / pieces < 4


def test_the_first_piece_is_the_most_frequent_pair():
    # counted by hand: pairs inside words, a word with the mark of the blank before it except for the first
    pairs = Counter()
    for text in TEXTS:
        for place, word in enumerate(text.split()):
            letters = word if place == 0 else "\u2581" + word
            pairs.update(pairwise(letters))
    best = max(pairs.values())
    assert pairs[tuple(_piece_of_two(TRAINED))] == best


def _piece_of_two(tokenizer):
    """Return the first merged piece: what comes right after the single characters."""
    vocabulary = Tokenizer.from_str(tokenizer.to_state()["json"]).get_vocab()
    return min((number, piece) for piece, number in vocabulary.items() if len(piece) == 2)[1]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Hello,  World! It's 42 pm (yes)", "hello, world! it's 42 pm (yes)"),
        ("\n a\tb ", "a b"),
        ("quick zebra fjord", "quick zebra fjord"),
        ('1234567890 - "x"; y: z?', '1234567890 - "x"; y: z?'),
    ],
)
def test_a_text_comes_back(text, spoken):
    ids = TRAINED.encode(text)
    assert (ids[0], ids[-1]) == (1, 2)
    assert TRAINED.decode([*ids, 0, 0]) == spoken


def test_digits_stay_single():
    assert len(TRAINED.encode("7777")) == len(BPETokenizer.train(["7777"] * 50).encode("7777")) == 6


def test_capital_letters_are_kept_where_asked():
    tokenizer = BPETokenizer.train(["Anna and Otto"] * 5, vocab_size=80, lowercase=False)
    assert tokenizer.decode(tokenizer.encode("Anna and Otto")) == "Anna and Otto"


def test_unknown_characters_are_named_once():
    tokenizer = BPETokenizer.train(TEXTS)
    with pytest.warns(UserWarning, match=r"'ñ' \(U\+00F1\)") as caught:
        ids = tokenizer.encode("a ñ b")
    assert ids.count(3) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode("ñ")


def test_a_file_is_read_by_the_library_too(tmp_path):
    path = TRAINED.save(tmp_path / "deep" / "bpe.json")
    assert BPETokenizer.load(path) == TRAINED
    assert Tokenizer.from_file(str(path)).encode("hello").ids == TRAINED.encode("hello")[1:-1]


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(ValueError, match="`text` must be a text with at least one character"):
        TRAINED.encode(text)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="`text` must be a str"):
        TRAINED.encode(3)
    with pytest.raises(ValueError, match="`ids` must be numbers from 0 to 255"):
        TRAINED.decode([256])
    with pytest.raises(ValueError, match="`vocab_size` must be a whole number >= "):
        BPETokenizer.train(TEXTS, vocab_size=10)
    with pytest.raises(ValueError, match="the characters of these texts"):
        BPETokenizer.train(["".join(map(chr, range(0x4E00, 0x4F00)))], vocab_size=100)
    with pytest.raises(ValueError, match="with the ids 0 to 3"):
        BPETokenizer(Tokenizer(models.BPE({"a": 0}, [])).to_str())
    with pytest.raises(ValueError, match="JSON of a tokenizer"):
        BPETokenizer("nonsense")


def test_special_tokens_in_a_text_are_text():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # brackets are in no piece
        ids = TRAINED.encode("one [EOS] two [PAD] [BOS]")
    assert not {0, 1, 2} & set(ids[1:-1])
    assert TRAINED.decode(ids) == "one eos two pad bos"


def test_a_file_that_cuts_or_fills_texts_keeps_them_whole():
    library = Tokenizer.from_str(TRAINED.to_state()["json"])
    library.enable_truncation(3)
    library.enable_padding(length=50)
    assert BPETokenizer(library.to_str()).encode("seven words are said") == TRAINED.encode("seven words are said")


def test_half_a_surrogate_pair_is_a_question_mark():
    assert TRAINED.decode(TRAINED.encode("so\ud83d")) == "so?"
