"""A server that is killed again and again: what is lost (nothing), what changes (nothing), and what the memory costs.

A client posts the rows of a DriftStream one by one to examples/reloop2_serve.py over HTTP on loopback, and their labels
20 at a time, 200 rows late. One server is killed with SIGKILL three times in between, each time while it works on a
request; one is never killed; one has no memory and no journal. Then come requests that are wrong.

    python examples/benchmarks/reloop2_serving.py --out reloop2_serving.json --check
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import _harness as h
import _reloop2_serving as s
import torch
from torchmetrics.functional.classification import binary_auroc

from lightning_adapt import CTRModule, DriftStream
from lightning_adapt._shared.demo_training import quiet_trainer

KILLED, WHOLE, ALONE = "killed three times", "never killed", "model alone"
ROWS = (KILLED, WHOLE, ALONE)
METRIC = "predict p50, ms"
KILLS = 3
# predictions; requests that are wrong; AUC over the model alone, which shows that there was something to lose
THRESHOLDS = {"full": {"predictions": 20_000, "wrong": 100, "AUC": 0.005}, "quick": {"predictions": 600, "wrong": 100}}
TRAINED = {"full": 60_000, "quick": 10_000}
LATE, AT_ONCE, BLOCK = 200, 20, 100
LIMITS = {"rows": 1000, "bytes": 2**20}  # of the example
EXAMPLE = Path(__file__).parents[1] / "reloop2_serve.py"
PLAIN = Path(__file__).parent / "_reloop2_plain_server.py"


@lru_cache
def stream(size: str) -> DriftStream:
    """Return the log whose first part trains the model and whose rest is posted."""
    ids = {"n_users": 300, "n_items": 200, "n_categories": 12, "n_groups": 4}
    log = DriftStream(n_train=TRAINED[size], n_stream=int(THRESHOLDS[size]["predictions"]), batch_size=256, **ids)
    log.setup()
    return log


def train(size: str, checkpoint: Path) -> None:
    """Train the model that is served."""
    torch.manual_seed(0)
    module, trainer = CTRModule(embedding_dim=8, hidden=(32, 16)), quiet_trainer([], max_epochs=2)
    trainer.fit(module, datamodule=stream(size))
    trainer.save_checkpoint(checkpoint, weights_only=False)


def calls(size: str) -> list[dict[str, Any]]:
    """Return all requests in their order."""
    columns = stream(size).table.columns
    part = stream(size).table.part("test")
    fields = {name: columns[name][part].tolist() for name in stream(size).field_sizes}
    labels = columns["label"][part].tolist()
    made: list[dict[str, Any]] = []
    for row in range(len(labels)):
        features = {name: [values[row]] for name, values in fields.items()}
        made.append({"type": "predict", "ids": [row], "features": features})
        first = row + 1 - LATE - AT_ONCE
        if first >= 0 and first % AT_ONCE == 0:
            ids = list(range(first, first + AT_ONCE))
            made.append({"type": "feedback", "ids": ids, "labels": [labels[number] for number in ids]})
    return made


class Run:
    """Posts all requests to one server.

    Args:
        server: The server, which has been started.
        kills: Numbers of the requests during which it is killed.
        seed: Decides how long after its request a kill comes.
    """

    def __init__(self, server: s.Server, kills: Sequence[int], seed: int) -> None:
        self.server, self.kills, self.client = server, set(kills), s.Client(server.port)
        self.draws = torch.Generator().manual_seed(seed)
        self.seconds: dict[str, list[float]] = {"predict": [], "feedback": []}
        self.restarts: list[float] = []
        self.answers: list[float] = []
        self.acknowledged: set[int] = set()

    def post_all(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Post them, again when the server died over one of them."""
        for number, request in enumerate(requests):
            timer = None
            if number in self.kills:
                timer = threading.Timer(0.006 * float(torch.rand((), generator=self.draws)), self.server.kill)
                timer.start()
            self.note(request, self.ask(request))
            if timer is not None:
                timer.join()

    def ask(self, request: Mapping[str, Any]) -> Any:
        began = time.perf_counter()
        try:
            said = self.client.post(request)
        except ConnectionError:
            self.server.wait_until_gone()
            self.restarts.append(self.server.start())
            return self.client.post(request)
        self.seconds[request["type"]].append(time.perf_counter() - began)
        return said

    def note(self, request: Mapping[str, Any], said: Any) -> None:
        if request["type"] == "predict":
            self.answers += said["probabilities"]
        else:  # a label that was on the disk when the server died is a duplicate when it is sent again
            self.acknowledged |= {*said["accepted"], *said["duplicate"]}

    def attack(self, request: Mapping[str, Any], field_sizes: Mapping[str, int]) -> tuple[int, int]:
        """Send requests that are wrong; return how many there were, and how many got a status of 4xx with a text."""
        two = {name: values * 2 for name, values in request["features"].items()}
        wrong = s.malformed({**request, "ids": ["a", "b"], "features": two}, field_sizes, LIMITS)
        refused = 0
        for one in wrong:
            status, text = self.client.send(one)
            refused += 400 <= status < 500 and bool(json.loads(text)["detail"])
        return len(wrong), refused


def blocks(answers: Sequence[float]) -> list[str]:
    """Return a hash of every hundred answers, bit by bit."""
    parts = [answers[first : first + BLOCK] for first in range(0, len(answers), BLOCK)]
    return [hashlib.blake2b(json.dumps(part).encode(), digest_size=8).hexdigest() for part in parts]


def measure(size: str, checkpoint: Path, row: str, seed: int) -> h.Run:
    """Run one row."""
    requests, sizes, port = calls(size), stream(size).field_sizes, s.free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, str(PLAIN), str(checkpoint), str(port)]
        if row != ALONE:
            options = {"--checkpoint": checkpoint, "--folder": folder, "--port": port}
            command = [sys.executable, str(EXAMPLE), *(str(part) for pair in options.items() for part in pair)]
        with s.Server(command, port, folder / "log") as server:
            kills = [len(requests) * part // (KILLS + 1) for part in range(1, KILLS + 1)] if row == KILLED else []
            run = Run(server, kills, seed)
            run.post_all(requests)
            result = summary(run, stream(size))
            if row != ALONE:
                result["in memory"] = run.client.post({"type": "status"})["feedback_rows"]
            if row == KILLED:
                first = server.process
                result["wrong"], result["refused"] = run.attack(requests[0], sizes)
                status = run.client.post({"type": "status"})  # it still answers, and none of that was learnt
                result["survived"] = int(first is server.process and status["feedback_rows"] == result["in memory"])
            run.client.close()
    return result


def summary(run: Run, log: DriftStream) -> h.Run:
    """Return what a run gave, as plain values."""
    labels = log.table.columns["label"][log.table.part("test")].long()
    result: h.Run = {}
    for kind, seconds in run.seconds.items():
        cuts = statistics.quantiles(seconds, n=100)
        result |= {f"{kind} p50, ms": 1000 * cuts[49], f"{kind} p99, ms": 1000 * cuts[98]}
    return {
        **result,
        "slowest, ms": 1000 * max(max(seconds) for seconds in run.seconds.values()),  # snapshots are in there
        "predictions": len(run.answers),
        "acknowledged": len(run.acknowledged),
        "restarts": len(run.restarts),
        "restart, s": max(run.restarts, default=0.0),
        "AUC": float(binary_auroc(torch.tensor(run.answers), labels)),
        "blocks": blocks(run.answers),
    }


# -- what comes out ---------------------------------------------------------------------------------------------------
def worst(study: h.Study, row: str, other: str, differ: Any) -> float | None:
    """Return the largest of something over the seeds that two rows share."""
    theirs = {run["seed"]: run for run in study.runs(other)}
    found = [differ(run, theirs[run["seed"]]) for run in study.runs(row) if run["seed"] in theirs]
    return max(found) if found else None


def differing(one: h.Run, other: h.Run) -> float:
    """Return how many blocks of answers differ."""
    same = sum(mine == its for mine, its in zip(one["blocks"], other["blocks"], strict=False))
    return max(len(one["blocks"]), len(other["blocks"])) - same


def check(study: h.Study, size: str) -> list[h.Claim]:
    """Return the claims."""
    bounds = THRESHOLDS[size]
    killed = study.runs(KILLED)
    least = {
        key: min((run[key] for run in killed), default=0) for key in ("predictions", "restarts", "wrong", "survived")
    }
    lost = worst(study, KILLED, KILLED, lambda run, _: abs(run["acknowledged"] - run["in memory"]))
    claims = [
        h.at_least(f"{KILLED}: predictions", [least["predictions"]], bounds["predictions"]),
        h.at_least(f"{KILLED}: times it had to be started again", [least["restarts"]], KILLS),
        h.at_most(f"{KILLED}: acknowledged labels that are not in the memory", lost, 0),
        h.at_most(
            f"{KILLED} against {WHOLE}: blocks of answers that differ", worst(study, KILLED, WHOLE, differing), 0
        ),
        h.at_least(f"{KILLED}: requests that are wrong", [least["wrong"]], bounds["wrong"]),
        h.at_most("of these not refused with a text", worst(study, KILLED, KILLED, _let_in), 0),
        h.at_least("the server survived them and learnt nothing", [least["survived"]], 1),
        # otherwise all of the above would be easy
        h.at_least(f"{WHOLE} against {ALONE}: blocks that differ", [_or_zero(study, WHOLE, ALONE)], 1),
    ]
    if "AUC" in bounds:
        gain = study.differences(WHOLE, ALONE, "AUC")
        claims.append(h.at_least(f"{WHOLE} over {ALONE}: AUC", gain, bounds["AUC"]))
    return claims


def _let_in(run: h.Run, _: h.Run) -> int:
    return int(run["wrong"] - run["refused"])


def _or_zero(study: h.Study, row: str, other: str) -> float:
    return worst(study, row, other, differing) or 0.0


def report(study: h.Study, size: str) -> None:
    """Print latencies and what was lost."""
    shown = {
        METRIC: "predict p50",
        "predict p99, ms": "p99",
        "feedback p50, ms": "feedback p50",
        "feedback p99, ms": "p99",
        "slowest, ms": "slowest",
        "restart, s": "restart, s",
        "AUC": "AUC",
    }
    rows = [
        [row, *(h.show(study.values(row, key), 4 if key == "AUC" else 1) for key in shown)] for row in study.methods
    ]
    title = (
        f"milliseconds; {int(THRESHOLDS[size]['predictions'])} predictions, one a request; {AT_ONCE} labels a request"
    )
    h.print_table(title, ["row", *shown.values()], rows)


def draw(study: h.Study) -> Any:
    """Draw the latencies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.5), layout="constrained")
    axes = figure.subplots()
    for kind, place in (("predict", -0.15), ("feedback", 0.15)):
        for cut, shade in (("p99", 0.4), ("p50", 1.0)):
            values = [statistics.mean(study.values(row, f"{kind} {cut}, ms")) for row in study.methods]
            places = [number + place for number in range(len(values))]
            colour = "tab:blue" if kind == "predict" else "tab:orange"
            axes.barh(places, values, 0.28, color=colour, alpha=shade, label=f"{kind} {cut}")
    axes.set_yticks(range(len(study.methods)), study.methods)
    axes.set(xlabel="milliseconds over HTTP")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv)
    if options.device != "cpu":
        h.console.print("This benchmark measures the CPU. Leave out --device.", markup=False)
        return 2
    size = options.size
    settings = {"predictions": THRESHOLDS[size]["predictions"], "late": LATE, "labels at once": AT_ONCE, "kills": KILLS}
    try:
        study = h.Study("reloop2_serving", METRIC, settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    with h.bench_settings(options.threads), tempfile.TemporaryDirectory() as name:
        checkpoint = Path(name) / "model.ckpt"
        train(size, checkpoint)
        h.run_missing(study, ROWS, options.seeds, partial(measure, size, checkpoint))
    report(study, size)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, size), options)


if __name__ == "__main__":
    sys.exit(main())
