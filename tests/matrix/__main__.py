"""Runs every method with every foreign module, prints the table and writes it into the README.

python -m tests.matrix
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings

import torch

from tests.matrix.cells import cell
from tests.matrix.methods import METHODS
from tests.matrix.subjects import SUBJECTS
from tests.matrix.table import render, write_table


def main(args: list[str] | None = None) -> int:
    """Run all cells; return 1, and leave the README as it is, if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the table, and leave the README as it is")
    options = parser.parse_args(args)
    for package in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(package).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    words: dict[tuple[str, str], str] = {}
    for name in SUBJECTS:
        for method in METHODS:
            try:
                words[name, method] = cell(name, method)
            except AssertionError as error:
                words[name, method] = f"FAILED: {error}"
            print(f"{name} with {method}: {words[name, method]}", file=sys.stderr, flush=True)
    table = render(lambda name, method: words[name, method])
    print(table)
    failed = any(text.startswith("FAILED") for text in words.values())
    if not (failed or options.print):
        write_table(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
