"""Loss of the tiny preset after minutes on synthesised voices, then on recorded speech, beside counters and controls.

Twenty voices of espeak-ng say two hundred sentences of three to six words each; the codec is one codebook of 512 means
of log-mel frames, 50 a second, fitted on the training sentences. The loss is that of the next code (or the end) of
sentences held out, nats per target. Counters: a unigram of the training codes with one added to every count, and its
mixture with a bigram, whose weight is chosen on the very targets it is measured on. Controls: the trained model with
the texts of the held-out sentences exchanged among them, and the model before training. Then the checkpoint, with its
codec, is trained on 28 recorded utterances of one speaker, and measured on 4 others.

    OMP_NUM_THREADS=2 python examples/benchmarks/lina_train.py --threads 2 --check --data DIR --out lina_train.json

DIR is the folder around ljspeech-32; without --data that in the environment variable LIGHTNING_ADAPT_TEST_DATA.
Sound and a figure of the text's alignment are written beside the result.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _harness as h
import _lina_training as t
from _lina_ljspeech import ljspeech_rows

from lightning_adapt._shared.figures import save_figure
from lightning_adapt.lina_speech.figures import alignment_figure

VARIABLE = "LIGHTNING_ADAPT_TEST_DATA"
# nats per target, minutes of the clock, share of generated sentences that end by themselves; gains are those of a mean
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"loss": 2.2, "minutes": 4.0, "stopped": 0.9, "unigram": 0.0, "bigram": 0.0, "text": 0.1, "real": 0.0},
    "quick": {"unigram": 0.0, "bigram": 0.0},
}
SETTING = t.Setting(
    voices=20,
    utterances=200,
    codes=512,
    fit=t.Fit(steps=260, learning_rate=4e-3, warmup=25, tokens=1400, join=0.0),
    real=t.Fit(steps=30, learning_rate=5e-4, warmup=5, tokens=3000, join=0.0),
    spoken=40,
)
QUICK = t.Setting(
    voices=3,
    utterances=100,
    codes=64,
    fit=t.Fit(steps=120, learning_rate=5e-3, warmup=15, tokens=900, join=0.0),
    real=t.Fit(steps=10, learning_rate=5e-4, warmup=2, tokens=600, join=0.0),
    spoken=4,
)

MAKE = t.fresh_module  # a test puts a control here


def check(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims that have a bound."""
    ours = study.values(t.OURS)
    worst = max(ours) if ours else None
    claims = [h.at_most(f"{t.OURS}: held-out loss", worst, bounds["loss"])] if "loss" in bounds else []
    for row, key in ((t.UNIGRAM, "unigram"), (t.BIGRAM, "bigram"), (t.SHUFFLED, "text")):
        if key in bounds:
            text = f"loss of {row} minus that of {t.OURS}"
            claims.append(above(text, study.differences(row, t.OURS), bounds[key]))
    if "minutes" in bounds:
        minutes = [seconds / 60 for seconds in study.values(t.OURS, "wall")]
        claims.append(h.at_most(f"{t.OURS}: minutes of training", max(minutes, default=None), bounds["minutes"]))
    if "stopped" in bounds:
        text = "share of held-out sentences that end by themselves"
        claims.append(h.at_least(text, study.values(t.OURS, "stopped"), bounds["stopped"]))
    if "real" in bounds:
        text = f"loss of {t.REAL_UNIGRAM} minus that of {t.REAL}"
        claims.append(above(text, study.differences(t.REAL_UNIGRAM, t.REAL), bounds["real"]))
    return claims


def above(text: str, values: Sequence[float], bound: float) -> h.Claim:
    """Claim that the smallest of some values lies above a bound."""
    smallest = min(values, default=None)
    return h.Claim(f"{text} > {bound:g}", smallest, smallest is not None and smallest > bound)


def report(study: h.Study) -> None:
    """Print losses, times and how generation ended."""
    lines = []
    for row in (row for row in (*t.SYNTHETIC_ROWS, *t.REAL_ROWS) if row in study.methods):
        runs = study.runs(row)
        shown = [h.show([run[key] for run in runs if key in run], digits) for key, digits in COLUMNS.items()]
        lines.append([row, *shown])
    headings = ["held-out loss", "wall s", "CPU s", "weight of the bigram", "ends by itself, share"]
    settings = study.head["settings"]
    title = f"{settings['voices']} voices, {settings['utterances']} sentences each, {settings['codes']} codes"
    h.print_table(title, ["row", *headings], lines)


COLUMNS = {"loss": 3, "wall": 0, "cpu": 0, "weight": 2, "stopped": 2}


def draw(study: h.Study) -> Any:
    """Draw the losses, and how training came to them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    bars, curves = figure.subplots(1, 2)
    rows = [row for row in (*t.SYNTHETIC_ROWS, *t.REAL_ROWS) if row in study.methods]
    values = [h.mean_sd(study.values(row))[0] for row in rows]
    colours = ["C0" if row in (t.OURS, t.REAL) else "0.7" for row in rows]
    bars.barh(range(len(rows)), values, color=colours)
    bars.set_yticks(range(len(rows)), rows)
    bars.invert_yaxis()
    bars.set(xlabel="held-out loss, nats per target")
    for row in (t.OURS, t.REAL):
        for number, run in enumerate(study.runs(row)):
            label = row if number == 0 else None
            curves.plot(*zip(*run["curve"], strict=True), label=label, color="C0" if row == t.OURS else "C1")
    curves.set(xlabel="step", ylabel="training loss, nats per target")
    curves.legend(frameon=False)
    for axes in (bars, curves):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def write_speech(speech: dict[str, Any], out: Path) -> None:
    """Write what was said beside the result: sound, and where in the text each frame looked."""
    for name, one in speech.items():
        one.save(out.with_name(f"{out.stem}-{name}.wav"))
        sound = {"audio": one.audio, "sample_rate_hz": one.sample_rate_hz, "title": one.text}
        figure = alignment_figure(one.alignment, frame_rate_hz=one.codes.shape[1] / one.seconds, **sound)
        save_figure(figure, out.with_name(f"{out.stem}-{name}-alignment.png"))


def chooser() -> argparse.ArgumentParser:
    """Return the options of this benchmark."""
    parser = argparse.ArgumentParser(add_help=False)
    default = os.environ.get(VARIABLE, "data")
    parser.add_argument("--data", metavar="DIR", default=default, help=f"folder around ljspeech-32 (or {VARIABLE})")
    return parser


def recorded_rows(folder: str) -> Any:
    """Return the rows of the recorded voice; None, with a word of it, when they are not there."""
    manifest = Path(folder) / "ljspeech-32" / "metadata.csv"
    if manifest.is_file():
        return ljspeech_rows(manifest.parent)
    text = f"No recorded speech: no {manifest}. Pass --data DIR, or set {VARIABLE}: an excerpt of LJSpeech as it ships."
    h.console.print(text, markup=False, soft_wrap=True)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    parser = chooser()
    options = h.read_options(__doc__.splitlines()[0], full_seeds=1, quick_seeds=1, argv=argv, parents=[parser])
    if t.ENGINE == "espeak" and shutil.which("espeak-ng") is None:
        h.console.print("Not run: espeak-ng is not there (apt install espeak-ng).", markup=False)
        return 0 if options.quick else 2
    setting = QUICK if options.quick else SETTING
    real = None if options.quick else recorded_rows(parser.parse_known_args(argv)[0].data)
    try:
        study = h.Study("lina_train", "loss", setting.described(), options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    bench = t.Bench(setting, real, MAKE)
    rows = (*t.SYNTHETIC_ROWS, *(t.REAL_ROWS if real is not None else ()))
    with h.bench_settings(options.threads):
        h.run_missing(study, rows, options.seeds, bench.measure)
    report(study)
    h.save_figure(lambda: draw(study), options)
    if options.out is not None and bench.has(options.seeds[0]):
        write_speech(bench.outcome(options.seeds[0]).speech, options.out)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


if __name__ == "__main__":
    sys.exit(main())
