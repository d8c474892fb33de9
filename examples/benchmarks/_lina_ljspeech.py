"""The excerpt of LJ Speech with the words of all its clips: recordings and texts are in the public domain."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

# Clips 9 to 32 read on in William Morris and Emery Walker, "Printing" (1893); `metadata.csv` of a short excerpt may end
# before them. The words are those of LJ Speech 1.1, numbers written out.
TEXTS = {
    "LJ001-0009": (
        "Printing, then, for our purpose, may be considered as the art of making books by means of movable types."
    ),
    "LJ001-0010": (
        "Now, as all books not primarily intended as picture-books consist principally of types composed "
        "to form letterpress,"
    ),
    "LJ001-0011": "it is of the first importance that the letter used should be fine in form;",
    "LJ001-0012": (
        "especially as no more time is occupied, or cost incurred, in casting, setting, or printing beautiful letters"
    ),
    "LJ001-0013": "than in the same operations with ugly ones.",
    "LJ001-0014": (
        "And it was a matter of course that in the Middle Ages, when the craftsmen took care that "
        "beautiful form should always be a part of their productions whatever they were,"
    ),
    "LJ001-0015": (
        "the forms of printed letters should be beautiful, and that their arrangement on the page should "
        "be reasonable and a help to the shapeliness of the letters themselves."
    ),
    "LJ001-0016": "The Middle Ages brought calligraphy to perfection, and it was natural therefore",
    "LJ001-0017": (
        "that the forms of printed letters should follow more or less closely those of the written "
        "character, and they followed them very closely."
    ),
    "LJ001-0018": (
        "The first books were printed in black letter, i.e. the letter which was a Gothic development of "
        "the ancient Roman character,"
    ),
    "LJ001-0019": (
        'and which developed more completely and satisfactorily on the side of the "lower-case" than the '
        "capital letters;"
    ),
    "LJ001-0020": 'the "lower-case" being in fact invented in the early Middle Ages.',
    "LJ001-0021": (
        "The earliest book printed with movable type, the aforesaid Gutenberg Bible, is printed in "
        "letters which are an exact imitation"
    ),
    "LJ001-0022": (
        "of the more formal ecclesiastical writing which obtained at that time; this has since been "
        'called "missal type,"'
    ),
    "LJ001-0023": (
        "and was in fact the kind of letter used in the many splendid missals, psalters, etc., produced "
        "by printing in the fifteenth century."
    ),
    "LJ001-0024": (
        "But the first Bible actually dated (which also was printed at Maintz by Peter Schoeffer in the "
        "year fourteen sixty-two)"
    ),
    "LJ001-0025": (
        "imitates a much freer hand, simpler, rounder, and less spiky, and therefore far pleasanter and easier to read."
    ),
    "LJ001-0026": "On the whole the type of this book may be considered the ne-plus-ultra of Gothic type,",
    "LJ001-0027": (
        "especially as regards the lower-case letters; and type very similar was used during the next "
        "fifteen or twenty years not only by Schoeffer,"
    ),
    "LJ001-0028": "but by printers in Strasburg, Basle, Paris, Lubeck, and other cities.",
    "LJ001-0029": "But though on the whole, except in Italy, Gothic letter was most often used",
    "LJ001-0030": "a very few years saw the birth of Roman character not only in Italy, but in Germany and France.",
    "LJ001-0031": "In fourteen sixty-five Sweynheim and Pannartz began printing in the monastery of Subiaco near Rome,",
    "LJ001-0032": (
        "and used an exceedingly beautiful type, which is indeed to look at a transition between Gothic and Roman,"
    ),
}


def ljspeech_rows(folder: Path) -> list[dict[str, Any]]:
    """Return a row for every recording of the excerpt whose words are known.

    Args:
        folder: With `metadata.csv` and `wavs/`.

    Returns:
        Rows with "audio" (a path), "text", "speaker" and "id", in the order of the clips.
    """
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        texts = {line[0]: line[-1] for line in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)}
    known = {**TEXTS, **texts}
    clips = sorted((folder / "wavs").glob("*.wav"))
    return [
        {"audio": str(clip), "text": known[clip.stem], "speaker": "LJ", "id": clip.stem}
        for clip in clips
        if clip.stem in known
    ]
