"""The support table of the README, from those of the cards: `python -m tests.contracts.support` writes it there.

A card says more than fits: what stands before the first colon or semicolon of its cell is what the README shows.
"""

from __future__ import annotations

import re
from pathlib import Path

from lightning_adapt import METHODS

ROOT = Path(__file__).parents[2]
ROWS = {  # how the row starts in the cards -> its name in the README
    "1 device, CPU": "1 device, CPU",
    "1 device, GPU": "1 device, GPU",
    "DDP": "DDP",
    "FSDP": "FSDP, DeepSpeed",
    "AMP": "AMP (bf16-mixed)",
    "`torch.compile`": "`torch.compile`",
    "resume": "resume, end and middle of an epoch",
    "`accumulate_grad_batches`": "`accumulate_grad_batches`",
    "iterable data": "iterable data",
    "`pytorch_lightning` Trainer": "`pytorch_lightning` Trainer",
}
MORE = {"its voices (`InitialStateTuning`)": ("lina_speech", 1)}  # heading -> card, number of the table in its section
ANSWERS = ("yes", "no", "untested", "exact", "refused", "not run yet", "callback", "the callback")


def columns() -> dict[str, tuple[str, int]]:
    """Heading -> card and number of the table: the first one of every card, named by its title, and some more."""
    titles = {method: (ROOT / "lightning_adapt" / method / "README.md").read_text() for method in METHODS}
    first = {card.removeprefix("# ").split(":", 1)[0]: (method, 0) for method, card in titles.items()}
    return {**first, **MORE}


def tables(method: str) -> list[list[list[str]]]:
    """The tables of a card's section "Support table", as rows of cells."""
    card = (ROOT / "lightning_adapt" / method / "README.md").read_text()
    section = re.search(r"^## Support table$(.*?)^## ", card, flags=re.MULTILINE | re.DOTALL)
    found: list[list[list[str]]] = []
    for line in (section[1] if section else "").splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == "" or set(cells[0]) <= set("-: "):
            if cells[0] == "":
                found.append([])
        elif found:
            found[-1].append(cells)
    return found


def short(method: str, number: int, start: str) -> str:
    """The answer of a card to one row of the README; raises if it has none, or none that the README could show."""
    cells = [row[1] for row in tables(method)[number] if row[0].startswith(start)]
    if len(cells) != 1:
        raise AssertionError(f"{method}: {len(cells)} rows of its support table start with {start!r}; one must")
    answer = re.split(r"[:;]", cells[0], maxsplit=1)[0].strip()
    if not answer.startswith(ANSWERS):
        raise AssertionError(f"{method}, {start}: the answer must start with one of {ANSWERS}, but is {answer!r}")
    return answer


def rendered() -> str:
    """The table as Markdown."""
    where = columns()
    lines = [f"| | {' | '.join(where)} |", f"|---|{'---|' * len(where)}"]
    for start, name in ROWS.items():
        lines.append(f"| {name} | {' | '.join(short(*column, start) for column in where.values())} |")
    return "\n".join(lines)


def between(text: str, name: str) -> str:
    """What stands between the two markers of a name."""
    found = re.findall(rf"<!-- {name}: begin -->\n(.*?)\n?<!-- {name}: end -->", text, flags=re.DOTALL)
    if len(found) != 1:
        raise AssertionError(f"README.md has {len(found)} pairs of the markers {name!r}; one must be there")
    return found[0]


def main() -> None:
    """Write the table into the README."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    old = f"<!-- support: begin -->\n{between(text, 'support')}"
    readme.write_text(text.replace(old.rstrip("\n"), f"<!-- support: begin -->\n{rendered()}", 1))


if __name__ == "__main__":
    main()
