"""Voices from minutes of speech: tuned initial states beside prompts, LoRA and full fine-tuning, at equal steps.

The base, preset tiny, learns twenty voices of espeak-ng, 100 sentences of words and 100 of digits each, half of the
items joined from up to three of one voice, so that it knows prompts. Then come people it has not heard: voices of flite
and espeak-ng (60 utterances, a minute and a half), and a recorded speaker (26 clips of LJ Speech, three minutes). Of
each, further utterances choose the best step, and others, in no way used before, are measured on: cross-entropy,
relative to that of the base; SECS, the cosine similarity of Resemblyzer between generated sentences and recordings as
the codec makes them sound, all pairs; the share of digits that pocketsphinx hears in generated digits. Prompts go
before each held-out utterance, loss and sound are those of the latter alone. All tuning has the same steps and batches.
Forgetting: cross-entropy on held-out utterances of the base's own voices, over that of the base.

    OMP_NUM_THREADS=1 python examples/benchmarks/lina_voices.py --check --data DIR --out lina_voices.json
    python examples/benchmarks/lina_voices.py --quick --check

DIR is the folder around ljspeech-32; without --data that in the environment variable LIGHTNING_ADAPT_TEST_DATA.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

import _harness as h
import _lina_training as t
import _lina_voices_data as d
import _lina_voices_rows as w
from _lina_voices_report import check, draw, report
from lina_train import chooser, recorded_rows

# CE over that of the base: of every person, their mean, and of the recorded one; SECS over untuned; seconds of 60
# steps; time of a token with a voice over without; CE after three utterances. Quick: signs alone
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"each": 0.97, "mean": 0.90, "real": 0.90, "SECS": 0.03, "seconds": 30.0, "token": 1.05, "three": 1.02},
    "quick": {"each": 0.99, "mean": 0.99, "token": 1.10},
}
RATES = {w.RANK_1: 1.0, w.RANK_4: 1.0, w.FULL_RANK: 0.1, w.LORA: 5e-3, w.FINE_TUNED: 1e-3}
SETTING = d.Setting(
    voices=20,
    utterances=100,
    codes=512,
    base=t.Fit(steps=260, learning_rate=4e-3, warmup=25, tokens=2000, join=0.5),
    unseen=("flite:slt", "flite:awb", "espeak:en-gb+f3", "espeak:en-us+m6"),
    train=60,
    stop=8,
    held=20,
    steps=100,
    every=20,
    batch=8,
    tokens=800,
    rates=RATES,
    spoken=6,
    ranks=(2, 16),
    minutes=(0.25, 1.0),
)
QUICK = d.Setting(
    voices=3,
    utterances=40,
    codes=64,
    base=t.Fit(steps=60, learning_rate=6e-3, warmup=10, tokens=600, join=0.3),
    unseen=("espeak:en-gb+f3",),
    train=16,
    stop=4,
    held=8,
    steps=20,
    every=10,
    batch=4,
    tokens=400,
    rates=RATES,
    spoken=1,
    repeats=15,
)
QUICK_METHODS = (w.UNTUNED, w.PROMPT, w.PROMPTS, w.STORED, w.RANK_4, w.FINE_TUNED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    parser = chooser()
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv, parents=[parser])
    if missing := missing_programs(options.quick):
        h.console.print(f"Not run: {missing} is not there (apt install espeak-ng flite).", markup=False)
        return 0 if options.quick else 2
    setting = QUICK if options.quick else SETTING
    real: Any = None if options.quick else recorded_rows(parser.parse_known_args(argv)[0].data)
    try:
        study = h.Study("lina_voices", "ratio", {**setting.described(), "recorded": len(real or [])}, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    methods = QUICK_METHODS if options.quick else w.METHODS
    with w.Bench(setting, real, methods) as bench, h.bench_settings(options.threads):
        h.run_missing(study, bench.rows, options.seeds, bench.measure)
    report(study, bench.people)
    h.save_figure(lambda: draw(study, bench.people), options)
    return h.verdict(check(study, bench.people, THRESHOLDS[options.size]), options)


def missing_programs(quick: bool) -> str:
    """Return the name of a speech synthesiser that is needed and missing; empty if none is."""
    needed = [] if t.ENGINE != "espeak" else ["espeak-ng"] if quick else ["espeak-ng", "flite"]
    return next((name for name in needed if shutil.which(name) is None), "")


if __name__ == "__main__":
    sys.exit(main())
