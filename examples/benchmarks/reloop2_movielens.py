"""MovieLens-100k in time order: what an error memory adds to a click model, beside its rivals and plain controls.

Ratings are sorted by (timestamp, user_id, item_id); a click is a rating of 4 or 5. A DeepFM is trained on the first
half, the second half is served in batches of 100 rows. In every row labels come, and models are updated, after the
batch has been served, so that a label is up to 100 rows late; in the rows named "1 batch late" they come a batch later,
after 100 to 200 rows. 87 % of the rows served are of users that the first half does not know.

    python examples/benchmarks/reloop2_movielens.py --data FOLDER --out reloop2_movielens.json --check

The folder is the one around ml-100k; without --data that in the environment variable LIGHTNING_ADAPT_TEST_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import _harness as h
import _reloop2_rows as r

from lightning_adapt import MovieLensDataModule, PrequentialDataModule

# points of slot AUC and of logloss (nats): adaptive minus base, and adaptive minus the best incremental training; the
# same whether labels come right after their batch or one batch later
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"over base": 2.5, "logloss over base": -0.02, "over incremental": 1.0, "logloss over incremental": 0.0},
    "quick": {"over base": 1.5, "logloss over base": -0.01, "over incremental": 0.5, "logloss over incremental": 0.0},
}
VARIABLE = "LIGHTNING_ADAPT_TEST_DATA"
RATES = (2e-4, 1e-3, 3e-3, 1e-2)
QUICK_RATES = (2e-4, 1e-3)
LATE = ", 1 batch late"
PROTOCOLS = {0: "", 1: LATE}  # batches that labels are late, beyond their own -> what the rows' names end with
SEEN, UNSEEN = "known users", "new users"
USER, ITEM, USER_ITEM = "per-user residuals", "per-item residuals", "per-user and per-item residuals"


def trained(rate: float, late: str = "") -> str:
    """Return the name of an incremental row."""
    return f"incremental, lr {rate:g}{late}"


ROWS: dict[str, r.Row] = {
    r.BASE: r.base,
    r.INTERCEPT: r.residuals(),
    USER: r.residuals("user_id"),
    ITEM: r.residuals("item_id"),
    USER_ITEM: r.residuals("user_id", "item_id"),
    r.PAPER: r.paper,
    "knn": r.fixed("knn", r.LAMBDAS[0]),
    "sketch": r.fixed("sketch", r.LAMBDAS[0]),
    r.ADAPTIVE: r.adaptive,
    **{trained(rate): r.incremental(rate) for rate in RATES},
    **{f"{trained(rate)}, with adaptive": r.both(rate) for rate in RATES},
    USER_ITEM + LATE: r.residuals("user_id", "item_id", delay=1),
    r.ADAPTIVE + LATE: partial(r.adaptive, delay=1),
    **{trained(rate, LATE): r.incremental(rate, delay=1) for rate in RATES},
    f"{trained(1e-3, LATE)}, with adaptive": r.both(1e-3, delay=1),
    r.BASE + r.SHUFFLED: r.on_shuffled(r.base),
    r.ADAPTIVE + r.SHUFFLED: r.on_shuffled(r.adaptive),
}
QUICK_ROWS = (
    r.BASE,
    USER_ITEM,
    r.ADAPTIVE,
    *(trained(rate) for rate in QUICK_RATES),
    r.ADAPTIVE + LATE,
    *(trained(rate, LATE) for rate in QUICK_RATES),
)


def load(folder: str, seed: int) -> PrequentialDataModule:
    """Return the log; ids that only the stream has get embedding rows of their own, so that the rival can learn them.

    Raises:
        FileNotFoundError: If it is not there.
    """
    data = MovieLensDataModule(folder, seed=seed, new_ids="rows", test_batch_size=100)
    _ = data.table
    return data


def stream_of(folder: str, seed: int, device: str) -> r.Stream:
    """Return the stream with a freshly trained base model."""
    data = load(folder, seed)
    known = data.seen_in_training("user_id")
    return r.Stream(data, seed, device, parts={SEEN: known, UNSEEN: ~known})


def check(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study, for each protocol."""
    claims = []
    for late in PROTOCOLS.values():
        ours = r.ADAPTIVE + late
        rival = r.best(study, [trained(rate, late) for rate in RATES], study.metric) or trained(RATES[0], late)
        for other, short in ((r.BASE, "base"), (rival, "incremental")):
            gain, loss = study.differences(ours, other), study.differences(ours, other, "logloss")
            claims.append(h.at_least(f"{ours} minus {other}, points of slot AUC", gain, bounds[f"over {short}"]))
            text = f"{ours} minus {other}, logloss"
            claims.append(h.at_most(text, h.mean_sd(loss)[0], bounds[f"logloss over {short}"]))
    return claims


def report(study: h.Study) -> None:
    """Print the metrics of each row, and its difference from the base model."""
    digits = {"slot AUC": 2, "AUC": 2, "gAUC": 2, "logloss": 4, "calibration": 3}
    split = [f"{study.metric}, {part}" for part in (SEEN, UNSEEN)]
    rows = [
        [name, *(h.show(study.values(name, key), n) for key, n in digits.items())]
        + [h.show(study.values(name, key)) for key in split]
        for name in study.methods
    ]
    h.print_table("MovieLens-100k, second half, AUC in per cent", ["row", *digits, SEEN, UNSEEN], rows)
    rows = []
    for name in study.methods:
        if name != r.BASE:
            other = r.BASE + (r.SHUFFLED if name.endswith(r.SHUFFLED) else "")
            gain, loss = study.differences(name, other), study.differences(name, other, "logloss")
            rows.append([name, h.show(gain), h.show(loss, 4)])
    h.print_table("minus base, paired by seed", ["row", "points of slot AUC", "logloss"], rows)


def draw(study: h.Study) -> Any:
    """Draw the AUC per slot of the rows that matter, one panel per protocol."""
    panels = {}
    for late, title in zip(PROTOCOLS.values(), ("labels after their batch", "labels one batch later"), strict=True):
        rival = r.best(study, [trained(rate, late) for rate in RATES], study.metric)
        lines = {r.BASE: r.BASE, r.ADAPTIVE: r.ADAPTIVE + late, "incremental, best rate": rival or ""}
        lines |= {USER_ITEM: USER_ITEM + late}
        more = {} if late else {"knn": "knn", r.PAPER: r.PAPER}
        panels[title] = {**lines, **more}
    return r.draw(study, panels)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    chooser = argparse.ArgumentParser(add_help=False)
    chooser.add_argument(
        "--data", metavar="DIR", default=os.environ.get(VARIABLE, "data"), help=f"folder around ml-100k (or {VARIABLE})"
    )
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv, parents=[chooser])
    folder = chooser.parse_known_args(argv)[0].data
    rows = QUICK_ROWS if options.quick else tuple(ROWS)
    try:
        stream_data = load(folder, 0)
    except FileNotFoundError as missing:
        where = "MovieLensDataModule('DIR', download=True).prepare_data() fetches it; then pass --data DIR"
        h.console.print(f"Not run: {missing} ({where}, or set {VARIABLE}.)", markup=False, soft_wrap=True)
        return 0 if options.quick else 2
    settings = {"rows served": stream_data.n_test, "batch": stream_data.test_batch_size, "epochs": r.EPOCHS}
    settings |= {"slots": stream_data.slots, "prior rows": r.PRIOR_ROWS, "half-life of controls": r.HALF_LIFE}
    try:
        study = h.Study("reloop2_movielens", "slot AUC", settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    streams: dict[int, r.Stream] = {}  # of the seed at work

    def measure(method: str, seed: int) -> h.Run:
        if seed not in streams:
            streams.clear()
            streams[seed] = stream_of(folder, seed, options.device)
        return ROWS[method](streams[seed])

    with h.bench_settings(options.threads):
        h.run_missing(study, rows, options.seeds, measure)
    report(study)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


if __name__ == "__main__":
    sys.exit(main())
