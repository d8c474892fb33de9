"""Phones of the formant synthesiser, and simple rules that spell a text with them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

__all__ = ["PHONES", "Phone", "phones_of"]


@dataclass(frozen=True)
class Phone:
    """One sound: where its resonances lie, how it is excited, and for how long.

    Attributes:
        formants: First three resonances of a man's vocal tract in Hz (Peterson and Barney 1952 for the vowels).
        milliseconds: Duration at speed 1.
        voicing: Strength of the glottal pulses, 0 to 1.
        breath: Strength of the noise at the glottis, which the formants shape.
        friction: Strength of the noise made in the mouth.
        friction_hz: Centre of that noise.
        friction_width_hz: Its bandwidth.
        vowel: Whether it carries the accent of a word.
    """

    formants: tuple[float, float, float]
    milliseconds: float
    voicing: float = 0.0
    breath: float = 0.0
    friction: float = 0.0
    friction_hz: float = 3000.0
    friction_width_hz: float = 1000.0
    vowel: bool = False


def _vowel(first: float, second: float, third: float, milliseconds: float) -> Phone:
    return Phone((first, second, third), milliseconds, voicing=1.0, vowel=True)


def _hiss(hertz: float, width: float, strength: float, second: float, *, voicing: float = 0.0) -> Phone:
    return Phone((300, second, 2500), 90, voicing, friction=strength, friction_hz=hertz, friction_width_hz=width)


def _closure(second: float, voicing: float) -> Phone:
    return Phone((200, second, 2400), 50, voicing)


def _burst(hertz: float, second: float, breath: float) -> Phone:
    return Phone((350, second, 2400), 25, 0.0, breath, 0.7, hertz, 900)


PHONES: Final[dict[str, Phone]] = {
    "iy": _vowel(270, 2290, 3010, 120),
    "ih": _vowel(390, 1990, 2550, 90),
    "eh": _vowel(530, 1840, 2480, 100),
    "ae": _vowel(660, 1720, 2410, 120),
    "ah": _vowel(640, 1190, 2390, 90),
    "aa": _vowel(730, 1090, 2440, 120),
    "ao": _vowel(570, 840, 2410, 120),
    "uh": _vowel(440, 1020, 2240, 90),
    "uw": _vowel(300, 870, 2240, 120),
    "er": _vowel(490, 1350, 1690, 120),
    "w": Phone((300, 610, 2200), 60, 0.7),
    "y": Phone((280, 2250, 3000), 60, 0.7),
    "r": Phone((320, 1100, 1500), 65, 0.7),
    "l": Phone((360, 1100, 2700), 65, 0.7),
    "m": Phone((280, 900, 2200), 70, 0.45),
    "n": Phone((280, 1700, 2600), 70, 0.45),
    "ng": Phone((280, 2300, 2750), 70, 0.45),
    "h": Phone((500, 1500, 2500), 60, 0.0, 0.6),
    "s": _hiss(5500, 1500, 0.9, 1700),
    "z": _hiss(5500, 1500, 0.5, 1700, voicing=0.4),
    "sh": _hiss(2700, 1000, 0.9, 1900),
    "zh": _hiss(2700, 1000, 0.5, 1900, voicing=0.4),
    "f": _hiss(3800, 4000, 0.3, 1100),
    "v": _hiss(3800, 4000, 0.15, 1100, voicing=0.5),
    "th": _hiss(4800, 3000, 0.25, 1400),
    "dh": _hiss(4800, 3000, 0.12, 1400, voicing=0.5),
    "p-": _closure(900, 0.0),
    "t-": _closure(1700, 0.0),
    "k-": _closure(2000, 0.0),
    "b-": _closure(900, 0.2),
    "d-": _closure(1700, 0.2),
    "g-": _closure(2000, 0.2),
    "p+": _burst(900, 900, 0.5),
    "t+": _burst(4500, 1700, 0.4),
    "k+": _burst(2000, 2000, 0.4),
    "b+": _burst(900, 900, 0.1),
    "d+": _burst(4000, 1700, 0.1),
    "g+": _burst(2000, 2000, 0.1),
    "_": Phone((500, 1500, 2500), 40),  # between words
    "#": Phone((500, 1500, 2500), 200),  # at punctuation
}

# What a spelling stands for; the longest that fits counts. "^" is the start of a word, "$" its end.
_SPELLINGS: Final = """
b: b- b+ | bb: b- b+ | d: d- d+ | dd: d- d+ | g: g- g+ | gg: g- g+ | k: k- k+ | p: p- p+ | pp: p- p+
t: t- t+ | tt: t- t+
f: f | ff: f | h: h | l: l | ll: l | m: m | mm: m | n: n | nn: n | r: r | rr: r | s: s | ss: s | v: v
w: w | z: z | zz: z
c: k- k+ | j: d- zh | q: k- k+ | x: k- s | ^y: y | y: ih | y$: iy | a: ae | e: eh | i: ih | o: aa | u: ah
ch: t- sh | tch: t- sh | sh: sh | th: th | ph: f | wh: w | ng: ng | ck: k- k+ | qu: k- w | dg: d- zh | mb$: m
ce: s eh | ci: s ih | cy: s iy | ge$: d- zh | nge$: n d- zh | ce$: s | le$: l | e$: | ^kn: n | ^wr: r | tion: sh ah n
ee: iy | ea: iy | ie: iy | ey: iy | oo: uw | ew: uw | ue: uw | ui: uw | oa: ao uw | ow: ao uw | ou: aa uw | oi: ao iy
oy: ao iy | ai: eh iy | ay: eh iy | ei: eh iy | au: ao | aw: ao | igh: aa iy | eigh: eh iy | ough: ao | augh: ae f
er: er | ir: er | ur: er | ar: aa r | or: ao r | ore: ao r | ear: iy r | air: eh r | are: eh r
our: aa uw r | ire: aa iy r
all: ao l | alk: ao k- k+ | ^e$: iy | ^a$: ah | ^i$: aa iy
"""
_LONG_VOWELS: Final = "a: eh iy | e: iy | i: aa iy | o: ao uw | u: uw"  # before one consonant and a last e

# What the rules would get badly wrong.
_WORDS: Final = """
one: w ah n | two: t- t+ uw | three: th r iy | four: f ao r | seven: s eh v ah n | eight: eh iy t- t+
zero: z iy r ao uw
the: dh ah | that: dh ae t- t+ | this: dh ih s | they: dh eh iy | of: ah v | to: t- t+ uw | you: y uw | your: y ao r
we: w iy | he: h iy | she: sh iy | be: b- b+ iy | me: m iy | no: n ao uw | go: g- g+ ao uw | do: d- d+ uw
by: b- b+ aa iy
my: m aa iy | fly: f l aa iy | cry: k- k+ r aa iy | dry: d- d+ r aa iy | why: w aa iy | eye: aa iy | now: n aa uw
how: h aa uw | give: g- g+ ih v | have: h ae v | live: l ih v | love: l ah v | some: s ah m | come: k- k+ ah m
"""
_DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _table(text: str) -> dict[str, str]:
    cells = [cell for line in text.splitlines() for cell in line.split("|") if cell.strip()]
    return {key.strip(): phones.strip() for key, _, phones in (cell.partition(":") for cell in cells)}


_SPELLED: Final = _table(_SPELLINGS)
_LONG: Final = _table(_LONG_VOWELS)
_SPOKEN: Final = _table(_WORDS)
_LONGEST: Final = max(map(len, _SPELLED))


def phones_of(text: str) -> list[str]:
    """Return the phones of a text, by rules that are consistent rather than right: English spelling has many more.

    Args:
        text: Any text; accents are dropped, digits are read one by one, other signs than punctuation are skipped.

    Returns:
        Names of `PHONES`; words have a "_" between them and a "#" at punctuation.

    Raises:
        ValueError: If no sound is left.

    Example:
        >>> phones_of("Ship 2")
        ['sh', 'ih', 'p-', 'p+', '_', 't-', 't+', 'uw']
    """
    plain = "".join(
        letter for letter in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(letter)
    )
    plain = re.sub(r"\d", lambda match: f" {_DIGITS[int(match[0])]} ", plain, flags=re.ASCII).replace("'", "")
    phones: list[str] = []
    for token in re.findall(r"[a-z]+|[.,;:!?]+", plain):
        if not token.isalpha():
            phones.append("#")
            continue
        if phones and phones[-1] != "#":
            phones.append("_")
        phones += _SPOKEN[token].split() if token in _SPOKEN else _spell(token)
    if not any(phone not in {"_", "#"} for phone in phones):
        raise ValueError(f"The formant synthesiser finds nothing to say in {text!r}: pass words in Latin letters.")
    return phones


def _spell(word: str) -> list[str]:
    marked = f"^{word}$"
    place, phones = 1, ""
    while place < len(word) + 1:
        long = re.match(r"([aeiou])(?=[bcdfgklmnprstvz]e\$)", marked[place:])
        if long:
            phones += f" {_LONG[long[1]]}"
            place += 1
            continue
        found, length = _longest(marked, place)
        phones += f" {found}"
        place += length
    return phones.split() or ["ah"]


def _longest(marked: str, place: int) -> tuple[str, int]:
    """Return the phones of the longest spelling at a place of a word between marks, and how many letters it takes."""
    for length in range(_LONGEST, 0, -1):
        for first in (place - 1, place):  # with the mark of the start, where it stands before the place
            piece = marked[first : place + length]
            bare = piece.strip("^$")
            fits = first == place or piece.startswith("^")
            if fits and bare and len(piece) == place + length - first and piece in _SPELLED:
                return _SPELLED[piece], len(bare)
    return "", 1
