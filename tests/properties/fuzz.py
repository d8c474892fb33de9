"""Fuzz all readers of files: `python -m tests.properties.fuzz --inputs 2000 [--only NAME] [--seed 0]`."""

from __future__ import annotations

import argparse
import logging
import time
import warnings

from tests.properties.readers import all_readers, fuzz


def main(args: list[str] | None = None) -> int:
    """Print a row for each reader and each fault; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="files for each reader")
    parser.add_argument("--states", type=int, default=200, help="checkpoints for each state: a run starts for each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file, to repeat one")
    parser.add_argument("--only", default="", help="readers whose name has this in it")
    options = parser.parse_args(args)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    faults = inputs = 0
    print(
        f"{'reader':36} {'inputs':>7} {'read':>6} {'refused':>8} {'faults':>7} {'slowest':>8} {'memory':>8} {'time':>7}"
    )
    for name, reader in all_readers().items():
        count = options.states if name.startswith("state of") else options.inputs
        if options.only not in name or not count:
            continue
        started = time.perf_counter()
        found = fuzz(reader, count, options.seed, options.first)
        faults, inputs = faults + found.n_faults, inputs + count
        numbers = f"{count:7} {found.read:6} {found.refused:8} {found.n_faults:7}"
        costs = f"{found.slowest:6.2f} s {found.largest:4.0f} MiB {time.perf_counter() - started:5.0f} s"
        print(f"{name:36} {numbers} {costs}", flush=True)
        kinds: dict[str, list[tuple[int, str]]] = {}
        for number, text in found.faults:  # the same error at the same line counts as one
            kinds.setdefault(text.partition(":")[0] + text.partition(" < ")[0], []).append((number, text))
        for same in kinds.values():
            print(f"    {len(same)}x, the first is {options.first + same[0][0]}: {same[0][1]}", flush=True)
    print(f"{inputs} inputs, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
