"""Made-up clicks whose causes drift: what an error memory wins back, beside its rivals, plain controls and the truth.

`DriftStream` trains a DeepFM on what comes before the drift and serves the rest in batches of 1,000 rows; labels come,
and models are updated, right after their batch was served. "late" is the AUC over the last half of the slots, where the
drift has done most; the best lambda and the best learning rate are chosen with hindsight. With shuffled labels there is
nothing to learn: a gain there would be a leak. "oracle" serves the probability that each click was drawn with.

    python examples/benchmarks/reloop2_drift.py --out reloop2_drift.json --check
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import _harness as h
import _reloop2_rows as r

from lightning_adapt import DriftStream

# points of AUC (0.01), paired by seed. "knn" and "sketch": late AUC over the base model, both drifts; "AUC lost" and
# "logloss" (%): what knn, sketch and adaptive cost where nothing drifts; adaptive against the best fixed lambda (late
# AUC, every stream) and against the best incremental training (late AUC, the drift where it does better); "leak": the
# gain of slot AUC on shuffled labels
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {
        "knn": 0.8,
        "sketch": 0.3,
        "AUC lost": 0.1,
        "logloss": 0.5,
        "fixed": -0.1,
        "incremental": -0.5,
        "leak": 0.2,
    },
    "quick": {
        "knn": 0.1,
        "sketch": 0.05,
        "AUC lost": 0.5,
        "logloss": 1.0,
        "fixed": -0.1,
        "incremental": -0.5,
        "leak": 1.0,
    },
}
TITLES = {"gradual": "gradual drift", "abrupt": "abrupt drift", "none": "no drift"}
KINDS = tuple(TITLES)
DRIFTS = KINDS[:2]
ROWS_OF = {"full": {"n_train": 400_000, "n_stream": 200_000}, "quick": {"n_train": 120_000, "n_stream": 40_000}}
RATES = (2e-4, 1e-3, 3e-3, 1e-2)
BACKENDS = ("knn", "sketch")
LATE = "late AUC"
CATEGORY, ORACLE, DELAYED = "per-category residuals", "oracle", "adaptive, labels 1 batch late"


def fixed(backend: str, lam: float = r.LAMBDAS[0]) -> str:
    """Return the name of a row with one lambda for all."""
    return f"{backend}, lambda {lam:g}"


def trained(rate: float) -> str:
    """Return the name of an incremental row."""
    return f"incremental, lr {rate:g}"


def oracle(stream: r.Stream) -> h.Run:
    """What nobody can beat: the probabilities themselves."""
    if stream.truth is None:
        raise ValueError("`truth` must be known for the oracle's row, but is None. Leave the row out.")
    return stream.measure(stream.truth)


ROWS: dict[str, r.Row] = {
    r.BASE: r.base,
    r.INTERCEPT: r.residuals(),
    CATEGORY: r.residuals("category"),
    **{fixed(*choice): r.fixed(*choice) for choice in product(BACKENDS, r.LAMBDAS)},
    r.PAPER: r.paper,
    r.ADAPTIVE: r.adaptive,
    DELAYED: partial(r.adaptive, delay=1),
    **{trained(rate): r.incremental(rate) for rate in RATES},
    **{f"{trained(rate)}, with adaptive": r.both(rate) for rate in RATES},
    r.BASE + r.SHUFFLED: r.on_shuffled(r.base),
    fixed("knn") + r.SHUFFLED: r.on_shuffled(r.fixed("knn", r.LAMBDAS[0])),
    r.ADAPTIVE + r.SHUFFLED: r.on_shuffled(r.adaptive),
    ORACLE: oracle,
}
QUICK_ROWS = (r.BASE, *(fixed(*choice) for choice in product(BACKENDS, r.LAMBDAS)), r.ADAPTIVE)
QUICK_ROWS_OF = {
    "gradual": (*QUICK_ROWS, *map(trained, RATES), *(name for name in ROWS if name.endswith(r.SHUFFLED))),
    "abrupt": (*QUICK_ROWS, *map(trained, RATES)),
    "none": QUICK_ROWS,
}


def label(kind: str, row: str) -> str:
    """Return the name of a row in the result file."""
    return f"{kind}: {row}"


def cells(size: str) -> dict[str, tuple[str, str]]:
    """Return what to run: the name in the result file, and its stream and row."""
    return {
        label(kind, row): (kind, row) for kind in KINDS for row in (ROWS if size == "full" else QUICK_ROWS_OF[kind])
    }


def stream_of(kind: str, seed: int, size: str, device: str) -> r.Stream:
    """Return a stream with a freshly trained base model."""
    data = DriftStream(kind, seed=seed, **ROWS_OF[size])  # type: ignore[arg-type]
    return r.Stream(data, seed, device, truth=data.true_probability[-data.n_test :].float())


# -- claims -----------------------------------------------------------------------------------------------------------
def gain(study: h.Study, kind: str, row: str, other: str = r.BASE, key: str = LATE) -> list[float]:
    """Return row minus other on one stream, paired by seed."""
    return study.differences(label(kind, row), label(kind, other), key)


def best(study: h.Study, kind: str, rows: Sequence[str]) -> str:
    """Return the row with the largest late AUC on a stream."""
    found = r.best(study, [label(kind, row) for row in rows], LATE)
    return rows[0] if found is None else found.removeprefix(label(kind, ""))


def check(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study."""
    claims = [
        h.at_least(
            f"{kind}: {fixed(backend)} minus base, points of late AUC",
            gain(study, kind, fixed(backend)),
            bounds[backend],
        )
        for kind, backend in product(DRIFTS, BACKENDS)
    ]
    claims += check_without_drift(study, bounds)
    lambdas = [fixed(*choice) for choice in product(BACKENDS, r.LAMBDAS)]
    for kind in KINDS:
        rival = best(study, kind, lambdas)
        text = f"{kind}: adaptive minus the best fixed lambda ({rival}), points of late AUC"
        claims.append(h.at_least(text, gain(study, kind, r.ADAPTIVE, rival), bounds["fixed"]))
    return [*claims, check_rival(study, bounds), *check_leak(study, bounds)]


def check_without_drift(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Claim that little is lost where there is nothing to win."""
    claims = []
    for row in (*map(fixed, BACKENDS), r.ADAPTIVE):
        lost = h.mean_sd(gain(study, "none", r.BASE, row, study.metric))[0]
        claims.append(h.at_most(f"none: base minus {row}, points of slot AUC", lost, bounds["AUC lost"]))
        ratio = h.mean_sd(study.ratios(label("none", row), label("none", r.BASE), "logloss"))[0]
        more = None if ratio is None else 100 * (ratio - 1)
        claims.append(h.at_most(f"none: logloss of {row} over base, %", more, bounds["logloss"]))
    return claims


def check_rival(study: h.Study, bounds: dict[str, float]) -> h.Claim:
    """Claim that adaptive is not far behind tuned incremental training on one of the drifts."""
    gains = {}
    for kind in DRIFTS:
        rival = best(study, kind, [trained(rate) for rate in RATES])
        values = gain(study, kind, r.ADAPTIVE, rival)
        gains[f"{kind}: adaptive minus the best incremental training ({rival})"] = h.mean_sd(values)[0], values
    text, (_, values) = max(gains.items(), key=lambda item: -float("inf") if item[1][0] is None else item[1][0])
    return h.at_least(f"{text}, points of late AUC", values, bounds["incremental"])


def check_leak(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Claim that nothing is won where labels say nothing."""
    claims = []
    for kind, row in product(KINDS, (fixed("knn"), r.ADAPTIVE)):
        if kind == KINDS[0] or label(kind, row + r.SHUFFLED) in study.methods:
            won = h.mean_sd(gain(study, kind, row + r.SHUFFLED, r.BASE + r.SHUFFLED, study.metric))[0]
            claims.append(h.at_most(f"{kind}: {row} minus base{r.SHUFFLED}, points of slot AUC", won, bounds["leak"]))
    return claims


# -- what comes out ---------------------------------------------------------------------------------------------------
def report(study: h.Study) -> None:
    """Print the metrics of each row and its difference from the base model, one table per stream."""
    digits = {study.metric: 2, LATE: 2, "gAUC": 2, "logloss": 4, "calibration": 3}
    for kind in KINDS:
        rows = []
        for row in (row for row in ROWS if label(kind, row) in study.methods):
            other = r.BASE + (r.SHUFFLED if row.endswith(r.SHUFFLED) else "")
            shown = [h.show(study.values(label(kind, row), key), n) for key, n in digits.items()]
            rows.append([row, *shown, "" if row == other else h.show(gain(study, kind, row, other))])
        h.print_table(f"{TITLES[kind]}, AUC in per cent", ["row", *digits, f"{LATE} minus base"], rows)


def draw(study: h.Study) -> Any:
    """Draw the AUC per slot, one panel per stream."""
    lambdas = [fixed(*choice) for choice in product(BACKENDS, r.LAMBDAS)]
    panels = {}
    for kind in KINDS:
        chosen = {
            r.BASE: r.BASE,
            "knn, lambda 0.4": fixed("knn"),
            "best fixed lambda": best(study, kind, lambdas),
            CATEGORY: CATEGORY,
            "incremental, best rate": best(study, kind, [trained(rate) for rate in RATES]),
            r.ADAPTIVE: r.ADAPTIVE,
            ORACLE: ORACLE,
        }
        panels[TITLES[kind]] = {line: label(kind, row) for line, row in chosen.items()}
    return r.draw(study, panels)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv)
    settings = {**ROWS_OF[options.size], "epochs": r.EPOCHS, "prior rows": r.PRIOR_ROWS, "half-life": r.HALF_LIFE}
    try:
        study = h.Study("reloop2_drift", "slot AUC", settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    planned = cells(options.size)
    streams: dict[tuple[str, int], r.Stream] = {}  # the one at work: its base model serves all rows

    def measure(method: str, seed: int) -> h.Run:
        kind, row = planned[method]
        if (kind, seed) not in streams:
            streams.clear()
            streams[kind, seed] = stream_of(kind, seed, options.size, options.device)
        return ROWS[row](streams[kind, seed])

    with h.bench_settings(options.threads):
        h.run_missing(study, list(planned), options.seeds, measure)
    report(study)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


if __name__ == "__main__":
    sys.exit(main())
