"""Gated Linear Attention forward and backward: chunks against the step loop and against torch's causal attention.

A repeat runs every row once; ratios are taken within a repeat, medians over repeats. Sequences are 2 x T steps of 4
heads, K = V = 64, float32, gates as a new model has them (log sigmoid over 16). The claims are for two threads.

    python examples/benchmarks/lina_gla_speed.py --threads 2 --out lina_gla_speed.json --check
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import _fresh_process as fresh
import _harness as h
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_adapt.lina_speech.gla.chunked import chunked_gla
from lightning_adapt.lina_speech.gla.recurrent import recurrent_gla

METRIC = "milliseconds"
BATCH, HEADS, WIDTH, NORMALISER = 2, 4, 64, 16.0
CHUNKS, LOOP, SDPA, STRONG = "chunks", "step loop", "torch SDPA", "chunks, gates / 1 with resets"
MATMUL, MATMUL_WIDTH = "torch.mm", 1024
DIFFERENCES = "differences from the step loop in float64"
SHORT = {"full": 1024, "quick": 512}
LENGTHS = {"full": (1024, 4096, 8192), "quick": (512, 2048, 4096)}
# how many times the loop's speed; time over SDPA's; times SDPA's speed at the middle length; time at the longest over
# that at the middle one; peak memory over the loop's; largest error over the largest number of outputs and gradients
THRESHOLDS = {
    "full": {"loop": 8, "sdpa": 1.3, "long": 2.5, "double": 2.2, "memory": 0.25, "outputs": 1e-5, "gradients": 5e-5},
    "quick": {"loop": 4, "sdpa": 2.0, "long": 1.3, "double": 2.8, "memory": 0.25, "outputs": 1e-5, "gradients": 5e-5},
}
CHUNKED: Callable[..., tuple[Tensor, Tensor | None]] = chunked_gla  # a test puts a control here


def attend(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Tensor:
    """Return causal softmax attention in the same layout."""
    given = (tensor.transpose(1, 2) for tensor in (q, k, v))
    return F.scaled_dot_product_attention(*given, is_causal=True).transpose(1, 2)


def kinds() -> dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]]:
    """Return what is compared, by name."""
    return {
        CHUNKS: lambda *given: CHUNKED(*given)[0],
        STRONG: lambda *given: CHUNKED(*given)[0],
        LOOP: lambda *given: recurrent_gla(*given)[0],
        SDPA: attend,
    }


def rows(size: str) -> list[str]:
    """Return the rows; those to be compared run one after another."""
    short, *longer = LENGTHS[size]
    found = [f"{kind}, T={short}" for kind in (LOOP, SDPA, CHUNKS, STRONG)]
    return [*found, *(f"{kind}, T={steps}" for steps in longer for kind in (SDPA, CHUNKS)), MATMUL]


def make(kind: str, steps: int, device: str) -> tuple[list[Tensor], Tensor]:
    """Return q, k, v and log decays, which want gradients, and the gradient of the outputs."""
    generator = torch.Generator().manual_seed(steps)
    q, k, v, gate, d_output = (torch.randn(BATCH, steps, HEADS, WIDTH, generator=generator) for _ in range(5))
    log_decay = F.logsigmoid(gate) / (1.0 if kind == STRONG else NORMALISER)
    if kind == STRONG:
        log_decay[torch.rand(log_decay.shape, generator=generator) < 0.01] = -20.0
    leaves = [tensor.to(device).requires_grad_() for tensor in (q, k, v, log_decay)]
    return leaves, d_output.to(device)


def once(kind: str, leaves: Sequence[Tensor], d_output: Tensor) -> None:
    """Run forward and backward."""
    for leaf in leaves:
        leaf.grad = None
    kinds()[kind](*leaves).backward(d_output)


def flops(steps: int, chunk: int = 64) -> float:
    """Return the operations in matrix products of the chunks, forward and backward: 4 products of a chunk and then 9.

    6 of the 13 have the size C C K or C C V, 7 have C K V; all are counted in full, also where half is discarded.
    """
    inside, across = 2 * chunk * chunk * WIDTH, 2 * chunk * WIDTH * WIDTH
    return BATCH * HEADS * steps / chunk * (6 * inside + 7 * across)


# -- one row ----------------------------------------------------------------------------------------------------------
def measure(row: str, device: str) -> h.Run:
    """Measure one row once, after a warm-up."""
    if row == MATMUL:
        matrix = torch.rand(MATMUL_WIDTH, MATMUL_WIDTH, device=device)
        took = min(_timed(lambda: torch.mm(matrix, matrix), device) for _ in range(5))
        return {METRIC: took, "GFLOP/s": 2 * MATMUL_WIDTH**3 / took / 1e6}
    kind, steps = row.rsplit(", T=", 1)
    leaves, d_output = make(kind, int(steps), device)
    once(kind, leaves, d_output)
    took = min(_timed(lambda: once(kind, leaves, d_output), device) for _ in range(2))
    run: h.Run = {METRIC: took}
    return {**run, "GFLOP/s": flops(int(steps)) / took / 1e6} if kind == CHUNKS else run


def _timed(work: Callable[[], Any], device: str) -> float:
    gc.collect()
    began = h.spent(device)
    work()
    return (h.spent(device) - began) * 1e3


def extra_memory(kind: str, steps: int, threads: int) -> float:
    """Return by how many MiB forward and backward raise the memory of this process, after a warm-up on few steps."""
    torch.set_num_threads(threads)
    once(kind, *make(kind, 64, "cpu"))
    leaves, d_output = make(kind, steps, "cpu")

    def work() -> dict[str, float]:
        once(kind, leaves, d_output)
        return {}

    return fresh.with_peak(work)["MiB"]


def extra_memory_apart(kind: str, steps: int, threads: int) -> float:
    """Return what `extra_memory` gives in a new process: memory once used would hide the next peak."""
    if CHUNKED is not chunked_gla and kind == CHUNKS:
        kind = LOOP  # a control does not travel to another process; the only one there is, is the loop
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_adapt.lina_speech.gla.chunked"])
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        return processes.submit(extra_memory, kind, steps, threads).result()


def differences(steps: int) -> h.Run:
    """Return the largest errors of the chunks, over the largest number, with mild and with strong gates."""
    worst = {"outputs": 0.0, "gradients": 0.0}
    for kind in (CHUNKS, STRONG):
        leaves, d_output = make(kind, steps, "cpu")
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        ours, truth = CHUNKED(*leaves)[0], recurrent_gla(*exact)[0]
        ours.backward(d_output)
        truth.backward(d_output.double())
        gradients = [_error(leaf.grad, true.grad) for leaf, true in zip(leaves, exact, strict=True)]
        worst["outputs"] = max(worst["outputs"], _error(ours, truth))
        worst["gradients"] = max(worst["gradients"], *gradients)
    return {METRIC: 0.0, **worst}


def _error(ours: Any, truth: Any) -> float:
    return float((ours.double() - truth).detach().abs().max() / truth.detach().abs().max())


# -- what comes out ---------------------------------------------------------------------------------------------------
def median(values: Sequence[float]) -> float | None:
    """Return the median; None of nothing."""
    return statistics.median(values) if values else None


def ratio(study: h.Study, row: str, other: str, key: str = METRIC) -> float | None:
    """Return the median over repeats of row over other in the same repeat."""
    return median(study.ratios(row, other, key))


def least(text: str, value: float | None, bound: float) -> h.Claim:
    """Claim that one value reaches a bound."""
    return h.at_least(text, [] if value is None else [value], bound)


def memory(study: h.Study, kind: str, size: str) -> list[float]:
    """Return the MiB of a row of memory; there is one run of it."""
    row = f"memory of {kind}, T={SHORT[size]}"
    return study.values(row, "MiB")


def check(study: h.Study, size: str) -> list[h.Claim]:
    """Return the claims."""
    bounds, (short, middle, long) = THRESHOLDS[size], LENGTHS[size]
    ours, loops = median(memory(study, CHUNKS, size)), median(memory(study, LOOP, size))
    shares = None if ours is None or loops is None else ours / loops
    at = {steps: f"{CHUNKS}, T={steps}" for steps in LENGTHS[size]}
    errors = [
        h.at_most(f"T={short}: error of {what}", median(study.values(DIFFERENCES, what)), bounds[what])
        for what in ("outputs", "gradients")
    ]
    return [
        *errors,
        least(f"T={short}: times the step loop's speed", ratio(study, f"{LOOP}, T={short}", at[short]), bounds["loop"]),
        h.at_most(f"T={short}: time over SDPA's", ratio(study, at[short], f"{SDPA}, T={short}"), bounds["sdpa"]),
        h.at_most(f"T={short}: extra memory over the step loop's", shares, bounds["memory"]),
        least(f"T={middle}: times SDPA's speed", ratio(study, f"{SDPA}, T={middle}", at[middle]), bounds["long"]),
        h.at_most(f"time at {long} over that at {middle}", ratio(study, at[long], at[middle]), bounds["double"]),
    ]


def report(study: h.Study, size: str) -> None:
    """Print times, rates and memory."""
    table = []
    for row in rows(size):
        took, rate = median(study.values(row)), [run["GFLOP/s"] for run in study.runs(row) if "GFLOP/s" in run]
        share = ratio(study, row, MATMUL, "GFLOP/s") if rate else None
        table.append([row, *(_number(value) for value in (took, median(rate), share))])
    title = f"forward and backward, B={BATCH}, H={HEADS}, K=V={WIDTH}; medians over repeats"
    h.print_table(title, ["row", METRIC, "GFLOP/s in products", "share of torch.mm"], table)
    for kind in (CHUNKS, LOOP):
        used = _number(median(memory(study, kind, size)))
        h.console.print(f"extra memory of {kind}, T={SHORT[size]}: {used} MiB", markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def draw(study: h.Study, size: str) -> Any:
    """Draw time against length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker in zip((CHUNKS, SDPA, LOOP), "osd", strict=True):
        points = [(steps, median(study.values(f"{kind}, T={steps}"))) for steps in LENGTHS[size]]
        shown = [(steps, value) for steps, value in points if value is not None]
        axes.loglog(*zip(*shown, strict=True), marker=marker, label=kind) if shown else None
    axes.set(xlabel="steps, T", ylabel="forward and backward, ms")
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
    settings = {"batch": BATCH, "heads": HEADS, "width": WIDTH, "normaliser": NORMALISER, "lengths": LENGTHS}
    try:
        study = h.Study("lina_gla_speed", METRIC, settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    for kind in (CHUNKS, LOOP):
        row, steps = f"memory of {kind}, T={SHORT[options.size]}", SHORT[options.size]
        if not study.has(row, 0):
            study.add(row, 0, {METRIC: 0.0, "MiB": extra_memory_apart(kind, steps, options.threads)})
    if not study.has(DIFFERENCES, 0):
        study.add(DIFFERENCES, 0, differences(SHORT[options.size]))
    with h.bench_settings(options.threads):
        h.run_missing(study, rows(options.size), options.seeds, lambda row, _: measure(row, options.device))
    report(study, options.size)
    h.save_figure(lambda: draw(study, options.size), options)
    return h.verdict(check(study, options.size), options)


if __name__ == "__main__":
    sys.exit(main())
