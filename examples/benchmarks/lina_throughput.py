"""Training throughput of the codec language model, against a twin with causal softmax attention of equal size.

The twin has causal softmax attention with rotary embeddings (torch's fused kernels) in place of every recurrence; all
else is shared: text encoder, cross-attention, SwiGLU, tables, AdamW. A row is one kind at one length; every repeat
trains on random ids, without padding, at a constant number of tokens per batch, and one text token per eight columns.
With --device cuda: the 60m preset in bf16 autocast at 2,048 and 8,192 tokens. On the CPU the rows of the 60m preset are
not measured; the tiny preset in float32 takes their place and shows that all of it runs. Ratios have no bound: what is
checked is that losses are finite and that the two have the same number of parameters.

    python examples/benchmarks/lina_throughput.py --device cuda --out lina_throughput.json --check
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import _harness as h
import _lina_twin as twin
import torch
import torch.nn.functional as F

from lightning_adapt.lina_speech.model.config import preset

KINDS = ("GLA", "SDPA")
METRIC = "tokens_per_s"
THRESHOLDS: dict[str, dict[str, float]] = {"full": {"parameters": 0.02}, "quick": {"parameters": 0.02}}
LENGTHS_OF_60M = (2048, 8192)  # the rows that need a GPU


class Size(NamedTuple):
    """What is trained.

    Attributes:
        preset: Name of the preset.
        lengths: Columns per row, one benchmark row each.
        tokens: Columns per batch.
        steps: Training steps that are timed, behind as many as `warm_up`.
        warm_up: Training steps before.
    """

    preset: str
    lengths: tuple[int, ...]
    tokens: int
    steps: int
    warm_up: int


SIZES: dict[tuple[str, str], Size] = {
    ("cuda", "full"): Size("60m", LENGTHS_OF_60M, 16_384, 20, 5),
    ("cuda", "quick"): Size("60m", LENGTHS_OF_60M, 8192, 5, 2),
    ("cpu", "full"): Size("tiny", (512, 2048), 2048, 5, 1),
    ("cpu", "quick"): Size("tiny", (256,), 256, 2, 1),
}


def row_of(kind: str, length: int) -> str:
    """Return the name of a row."""
    return f"{kind}, {length} tokens"


def measure(size: Size, device: str, row: str, seed: int) -> h.Run:
    """Train for some steps; return tokens per second, the last loss, parameters and the peak memory of the device."""
    kind, length = next((kind, length) for kind in KINDS for length in size.lengths if row_of(kind, length) == row)
    model = twin.build(kind, preset(size.preset, short_conv=False), device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.1, fused=device == "cuda")
    batch = _batch(model.config, max(1, size.tokens // length), length, device, seed)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(size.warm_up):
        _train(model, optimiser, batch, device)
    began = h.spent(device)
    for _ in range(size.steps):
        loss = _train(model, optimiser, batch, device)
    seconds = h.spent(device) - began
    n_tokens = size.steps * batch[2].shape[0] * length
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {METRIC: n_tokens / seconds, "loss": loss.item(), "parameters": parameters, "peak_MiB": peak}


def _batch(config: Any, n_rows: int, length: int, device: str, seed: int) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    n_text = max(1, length // 8)
    text = torch.randint(3, config.text_vocab_size, (n_rows, n_text), generator=draw)
    ids = torch.randint(3, config.n_audio_ids, (n_rows, length + 1, config.n_codebooks), generator=draw)
    return tuple(tensor.to(device) for tensor in (text, torch.full((n_rows,), n_text), ids))


def _train(model: Any, optimiser: Any, batch: tuple[torch.Tensor, ...], device: str) -> torch.Tensor:
    text, text_lengths, ids = batch
    with torch.autocast("cuda", dtype=torch.bfloat16) if device == "cuda" else nullcontext():
        logits = model(text, text_lengths, ids[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 2).float(), ids[:, 1:].flatten())
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach()


def check(study: h.Study, options: h.Options) -> list[h.Claim]:
    """Return the claims."""
    size, bound = SIZES[options.device, options.size], THRESHOLDS[options.size]["parameters"]
    claims = []
    for length in size.lengths:
        gaps = [abs(ratio - 1) for ratio in study.ratios(*(row_of(kind, length) for kind in KINDS), "parameters")]
        claims.append(h.at_most(f"{length} tokens: difference of the parameters", max(gaps, default=None), bound))
        for kind in KINDS:
            losses = study.values(row_of(kind, length), "loss")
            finite = bool(losses) and all(map(math.isfinite, losses))
            worst = max(losses, key=lambda loss: (not math.isfinite(loss), loss), default=None)
            claims.append(h.Claim(f"{row_of(kind, length)}: every loss is finite, the worst", worst, finite))
    return claims


def report(study: h.Study, options: h.Options) -> None:
    """Print throughput, the ratio to the twin, parameters and memory; rows without a GPU say that they were not run."""
    size, table = SIZES[options.device, options.size], []
    for length in size.lengths:
        for kind in KINDS:
            row = row_of(kind, length)
            ratios = study.ratios(row, row_of("SDPA", length))
            peaks = [peak for peak in study.values(row, "peak_MiB") if peak is not None]
            table.append(
                [
                    f"{size.preset}, {row}",
                    h.show(study.values(row), 0),
                    f"{statistics.median(ratios):.3f}" if ratios else "-",
                    f"{study.values(row, 'parameters')[0] / 1e6:.2f}" if study.values(row) else "-",
                    f"{max(peaks):.0f}" if peaks else "-",
                ]
            )
    if options.device != "cuda":
        rows = [row_of(kind, length) for length in LENGTHS_OF_60M for kind in KINDS]
        table += [[f"60m bf16 on a GPU, {row}", "not measured", "-", "-", "-"] for row in rows]
    title = f"Training, {size.tokens} tokens per batch, {options.device}"
    h.print_table(title, ["row", "tokens/s", "/ SDPA", "M parameters", "peak MiB"], table)


def draw(study: h.Study, options: h.Options) -> Any:
    """Draw tokens per second over the length."""
    from matplotlib.figure import Figure

    size = SIZES[options.device, options.size]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for kind in KINDS:
        lengths = [length for length in size.lengths if study.values(row_of(kind, length))]
        axes.plot(lengths, [statistics.fmean(study.values(row_of(kind, n))) for n in lengths], "o-", label=kind)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="tokens per row", ylabel="tokens / s", ylim=(0, None), title=f"{size.preset}, {options.device}")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], 5, 1, argv=argv)
    size = SIZES[options.device, options.size]
    try:
        study = h.Study("lina_throughput", METRIC, {"shape": size}, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    rows = [row_of(kind, length) for length in size.lengths for kind in KINDS]
    with h.bench_settings(options.threads):
        h.run_missing(study, rows, options.seeds, partial(measure, size, options.device))
    report(study, options)
    h.save_figure(lambda: draw(study, options), options)
    return h.verdict(check(study, options), options)


if __name__ == "__main__":
    sys.exit(main())
