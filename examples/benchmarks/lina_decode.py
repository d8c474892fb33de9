"""What a decoded step costs at the start of a long utterance and after thousands of steps, against a cache of the past.

Both decoders have the widths of the preset "tiny", 8 streams at once, and random weights, which cost what trained ones
do. They are brought to step 50 and to step 3,800 in the quickest way; the stretches from there on alternate, so that a
slow minute of the machine meets both. Medians are over repeats of the ratio within a repeat. Speaking is measured with
one stream, from text to sound, with the k-means codec.

    python examples/benchmarks/lina_decode.py --check --out lina_decode.json
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import _harness as h
from _lina_decoders import CacheDecoder, Decoder, StateDecoder, milliseconds
from _lina_speaking import speak

# time of a late step over that of an early one at the most; the same of the twin at the least, which shows that the
# comparison can tell; bytes of the state late over early
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"state": 1.15, "cache": 2.0, "bytes": 1.0},
    "quick": {"state": 1.35, "cache": 1.5, "bytes": 1.0},
}
OURS, TWIN, SPEAKING = "Lina-Speech", "softmax attention with a cache (control)", "speaking"
EARLY, LATE = 50, 3800
STREAMS = 8


class Size(NamedTuple):
    """How much is measured: steps of a stretch, and most steps of an utterance that is spoken."""

    stretch: int
    seconds: float


SIZES = {"full": Size(200, 20.0), "quick": Size(40, 3.0)}
DECODERS: dict[str, Callable[[], Decoder]] = {  # a test puts a control here
    OURS: lambda: StateDecoder(STREAMS, {}),
    TWIN: lambda: CacheDecoder(STREAMS, {}, LATE + SIZES["full"].stretch),
}


class Bench:
    """Decoders that have been everywhere once; made when they are first asked for.

    Args:
        size: How much to measure.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        self._ready: dict[str, tuple[Decoder, dict[int, int]]] = {}

    def measure(self, row: str, seed: int) -> h.Run:
        """Measure one row once."""
        if row == SPEAKING:
            return speak(self.size.seconds, seed)
        decoder, nbytes = self._decoder(row)
        places = (EARLY, LATE) if seed % 2 == 0 else (LATE, EARLY)
        took = {place: milliseconds(decoder, place, self.size.stretch) for place in places}
        ratio = took[LATE] / took[EARLY]
        return {"ratio": ratio, "early": took[EARLY], "late": took[LATE], **_bytes(nbytes)}

    def _decoder(self, row: str) -> tuple[Decoder, dict[int, int]]:
        if row not in self._ready:
            decoder, nbytes = DECODERS[row](), {}
            for place, steps in ((EARLY, EARLY), (LATE, LATE - EARLY)):
                decoder.advance(steps)
                decoder.mark(place)
                nbytes[place] = decoder.nbytes
            self._ready[row] = decoder, nbytes
        return self._ready[row]


def _bytes(nbytes: dict[int, int]) -> dict[str, int]:
    return {"early bytes": nbytes[EARLY], "late bytes": nbytes[LATE]}


def median(study: h.Study, row: str, key: str) -> float | None:
    """Return the median over repeats; None when the row did not run."""
    values = study.values(row, key)
    return statistics.median(values) if values else None


def check(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims: a flat cost, which the control does not have, and a state that does not grow."""
    late = f"step at {LATE:,} over one at {EARLY}"
    grown = median(study, TWIN, "ratio")
    early, after = (median(study, OURS, key) for key in ("early bytes", "late bytes"))
    ratio = None if early is None or after is None else after / early
    return [
        h.at_most(f"{OURS}: {late}, time", median(study, OURS, "ratio"), bounds["state"]),
        h.at_least(f"{TWIN}: {late}, time", [] if grown is None else [grown], bounds["cache"]),
        h.at_most(f"{OURS}: bytes of the state, late over early", ratio, bounds["bytes"]),
    ]


def report(study: h.Study) -> None:
    """Print times, bytes, and how long one waits for speech."""
    table = []
    for row in (OURS, TWIN):
        times = [median(study, row, key) for key in ("early", "late", "ratio")]
        sizes = [median(study, row, key) for key in ("early bytes", "late bytes")]
        shown = ["-" if value is None else f"{value:.3f}" for value in times]
        table.append([row, *shown, *("-" if value is None else f"{value / 2**20:.2f}" for value in sizes)])
    columns = ["row", f"ms at {EARLY}", f"ms at {LATE:,}", "ratio", f"MiB at {EARLY}", f"MiB at {LATE:,}"]
    h.print_table(f"a step of {STREAMS} streams; medians over repeats", columns, table)
    keys = ("first chunk", "chunk", "real-time factor", "seconds")
    spoken = [median(study, SPEAKING, key) for key in keys]
    columns = ["row", "ms to the first chunk", "s of sound in it", "real-time factor", "s spoken"]
    h.print_table("one stream", columns, [[SPEAKING, *("-" if value is None else f"{value:.3f}" for value in spoken)]])


def draw(study: h.Study) -> Any:
    """Draw what a step costs early and late."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for row, marker in ((OURS, "o"), (TWIN, "s")):
        values = [median(study, row, key) for key in ("early", "late")]
        if None not in values:
            axes.plot((EARLY, LATE), values, marker=marker, label=row)
    axes.set(xlabel="steps decoded before", ylabel=f"ms a step, {STREAMS} streams", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=9, quick_seeds=3, argv=argv)
    if options.device != "cpu":
        h.console.print("This benchmark measures the CPU. Leave out --device.", markup=False)
        return 2
    size = SIZES[options.size]
    settings = {"places": [EARLY, LATE], "streams": STREAMS, **size._asdict()}
    try:
        study = h.Study("lina_decode", "ratio", settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    bench = Bench(size)
    with h.bench_settings(options.threads):
        h.run_missing(study, (OURS, TWIN, SPEAKING), options.seeds, bench.measure)
    report(study)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


if __name__ == "__main__":
    sys.exit(main())
