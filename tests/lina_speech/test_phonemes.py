"""Phonemes by espeak-ng."""
# ruff: noqa: RUF001 - quotes, dashes and IPA letters are what is tested

import pickle
import subprocess
import warnings

import pytest

from lightning_adapt.lina_speech.corpus import espeak_program
from lightning_adapt.lina_speech.corpus.espeak_program import EspeakProgram, find_espeak
from lightning_adapt.lina_speech.text import phonemes as phonemes_file
from lightning_adapt.lina_speech.text.phonemes import PHONEME_ALPHABET, PhonemeTokenizer
from lightning_adapt.lina_speech.text.tokenizer import as_tokenizer, tokenizer_from_state

needs_espeak = pytest.mark.skipif(find_espeak() is None, reason="espeak-ng is not installed")


class Spelling:
    """Stands in for espeak-ng: writes every clause in capital letters, and counts its starts."""

    version = "0.1"

    def __init__(self, cut="", silent=""):
        self.starts, self.cut, self.silent = [], cut, silent

    def run(self, *options, text=""):
        self.starts.append(text)
        lines = [line.upper().replace(self.cut.upper() or "\0", "\n") for line in text.splitlines()]
        return "".join(f"{line}\n" for line in lines if line != self.silent.upper()).encode()

    def languages(self):
        return ("en-us", "en-gb", "de")

    def check_language(self, language):
        return language in self.languages()


@pytest.fixture
def spelling(monkeypatch):
    program = Spelling()
    monkeypatch.setattr(phonemes_file, "require_espeak", lambda feature: program)
    return program


def test_the_alphabet_fits_the_presets():
    assert len(set(PHONEME_ALPHABET)) == len(PHONEME_ALPHABET) <= 252
    assert set("ˈˌːəɹʃʒθðŋɑɔɛɪʊʌæ .,?!") <= set(PHONEME_ALPHABET)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("one, two", "ONE, TWO"),
        ('he said: "no"!', 'HE SAID: "NO"!'),
        ("pay 3.14 or 1,000 at 12:30.", "PAY 3.14 OR 1,000 AT 12:30."),
        ("wait... (now)", "WAIT... (NOW)"),
        (" a  b\n", "A B"),
        ("so — what?!", "SO — WHAT?!"),
        ("ends in 7.", "ENDS IN 7."),
    ],
)
def test_punctuation_stays_where_it_was(spelling, text, spoken):
    assert PhonemeTokenizer().phonemes([text]) == [spoken]


def test_texts_are_spoken_in_one_start_and_remembered(spelling):
    tokenizer = PhonemeTokenizer()
    texts = ["one, two", "three", "one, two"]
    assert tokenizer.phonemes(texts) == ["ONE, TWO", "THREE", "ONE, TWO"]
    assert spelling.starts == ["one\ntwo\nthree\n"]
    tokenizer.phonemes(texts)
    assert len(spelling.starts) == 1


def test_the_memory_has_a_limit(spelling, monkeypatch):
    monkeypatch.setattr(phonemes_file, "_KEPT", 2)
    tokenizer = PhonemeTokenizer()
    for texts in (["a", "b"], ["b", "c"], ["d", "e", "f"]):
        assert tokenizer.phonemes(texts) == [text.upper() for text in texts]


@pytest.mark.parametrize("odd", [{"cut": " x "}, {"silent": "c"}])
def test_clauses_of_no_or_two_lines_do_not_shift_the_others(spelling, odd):
    spelling.cut, spelling.silent = odd.get("cut", ""), odd.get("silent", "")
    spoken = PhonemeTokenizer().phonemes(["a", "long x one", "b, c, d", "e"])
    assert spoken == [
        "A",
        "LONG ONE" if spelling.cut else "LONG X ONE",
        "B, , D" if spelling.silent else "B, C, D",
        "E",
    ]


def test_another_version_later_is_warned_of_once(spelling):
    tokenizer = tokenizer_from_state({"kind": "phonemes", "language": "en-us", "espeak_version": "1.50"})
    with pytest.warns(UserWarning, match=r"made with espeak-ng 1.50, but 0.1 is installed"):
        tokenizer.phonemes(["a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.phonemes(["b"])
    assert tokenizer != PhonemeTokenizer()
    assert tokenizer.fingerprint != PhonemeTokenizer().fingerprint


def test_unknown_symbols_are_named(spelling):
    with pytest.warns(UserWarning, match="does not know 'A'"):
        assert PhonemeTokenizer().encode("a!")[1] == 3


@pytest.mark.parametrize("text", ["", "  ", "!?", "..."])
def test_a_text_without_words_is_refused(spelling, text):
    with pytest.raises(ValueError, match="`text` must be a text with at least one character"):
        PhonemeTokenizer().encode(text)


def test_wrong_arguments_are_refused(spelling):
    with pytest.raises(ValueError, match="Near ones are 'en-us'"):
        PhonemeTokenizer("en-uss")
    with pytest.raises(TypeError, match="`text` must be a str"):
        PhonemeTokenizer().encode(3)
    with pytest.raises(ValueError, match="`ids` must be numbers from 0"):
        PhonemeTokenizer().decode([900])


def test_a_missing_espeak_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(espeak_program, "find_espeak", lambda: None)
    with pytest.raises(ModuleNotFoundError, match=r"PhonemeTokenizer needs espeak-ng.*sudo apt install espeak-ng"):
        PhonemeTokenizer()
    # a checkpoint can still be opened, and its ids read
    state = {"kind": "phonemes", "language": "en-us", "espeak_version": "1.51"}
    assert tokenizer_from_state(state).decode([1, 4 + PHONEME_ALPHABET.index("ə"), 2]) == "ə"
    with pytest.raises(ModuleNotFoundError, match="apt install"):
        tokenizer_from_state(state).encode("a")


@needs_espeak
def test_words_are_written_as_they_are_said():
    tokenizer = as_tokenizer("phonemes")
    spoken = tokenizer.phonemes(["Seven, three!", "knight", "night"])
    assert spoken[0] == "sˈɛvən, θɹˈiː!"
    assert spoken[1] == spoken[2] == "nˈaɪt"
    ids = tokenizer.encode("Seven, three!")
    assert (ids[0], ids[-1]) == (1, 2)
    assert 3 not in ids
    assert tokenizer.decode(ids) == spoken[0]


@needs_espeak
def test_the_program_is_called_with_the_language_and_agrees_with_single_calls():
    program = find_espeak()
    texts = ["bath", "tomato", "I read 3.14 of it"]
    spoken = as_tokenizer("phonemes:en-gb").phonemes(texts)
    for text, found in zip(texts, spoken, strict=True):
        done = subprocess.run(
            [*program.command, "-q", "--ipa", "-v", "en-gb"],
            input=f"{text}\n".encode(),
            capture_output=True,
            check=True,
        )
        assert found == done.stdout.decode().strip()
    assert spoken != as_tokenizer("phonemes:en-us").phonemes(texts)


@needs_espeak
@pytest.mark.parametrize("language", ["de", "fr-fr", "es", "pl"])
def test_other_languages_use_known_symbols(language):
    text = {"de": "Zwölf schöne Bücher", "fr-fr": "un bon vin blanc", "es": "mañana por la noche", "pl": "cześć"}[
        language
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(PhonemeTokenizer(language).encode(text)) > 6


@needs_espeak
def test_it_travels_in_checkpoints_and_to_workers():
    tokenizer = PhonemeTokenizer("en-gb")
    tokenizer.encode("hello")
    assert tokenizer.to_state() == {
        "kind": "phonemes",
        "language": "en-gb",
        "espeak_version": find_espeak().version,
    }
    for again in (tokenizer_from_state(tokenizer.to_state()), pickle.loads(pickle.dumps(tokenizer))):
        assert again == tokenizer
        assert again.encode("hello") == tokenizer.encode("hello")


def test_language_switches_are_taken_out(spelling):
    program = EspeakProgram(("none",), "0")
    object.__setattr__(program, "run", lambda *options, text: "(en)ðə(de) kɔm\n".encode())
    assert phonemes_file._lines(program, "de", ["the com"]) == ["ðə kɔm"]


def test_many_texts_are_spoken_in_several_starts(spelling, monkeypatch):
    monkeypatch.setattr(phonemes_file, "_AT_ONCE", 3)
    texts = [f"text {number}" for number in range(8)]
    assert PhonemeTokenizer().phonemes(texts) == [text.upper() for text in texts]
    assert sorted(start.count("\n") for start in spelling.starts) == [2, 3, 3]


def test_a_full_memory_is_still_used(spelling, monkeypatch):
    monkeypatch.setattr(phonemes_file, "_KEPT", 2)
    tokenizer = PhonemeTokenizer()
    tokenizer.phonemes(["a", "b", "c"])  # more than it may keep
    tokenizer.phonemes(["a", "b"])
    assert len(spelling.starts) == 1


def test_joined_texts_are_spoken_each_by_itself(spelling):
    tokenizer = PhonemeTokenizer()
    single = [tokenizer.encode(text) for text in ("1 2", "3.")]
    joined = tokenizer.encode_joined(["1 2", "3."])
    blank = tokenizer.encode("1 2")[2]
    assert joined == [1, *single[0][1:-1], blank, *single[1][1:-1], 2]
    assert spelling.starts == ["1 2\n", "3\n"]


@needs_espeak
@pytest.mark.parametrize(
    ("text", "same"),
    [("hello\0there", "hello there"), ("hello\ud83d there", "hello there"), ("say [[ab]]", "say [ [ab]]")],
)
def test_nothing_in_a_text_ends_it_or_is_a_command(text, same):
    tokenizer = PhonemeTokenizer()
    assert tokenizer.phonemes([text]) == tokenizer.phonemes([same])
