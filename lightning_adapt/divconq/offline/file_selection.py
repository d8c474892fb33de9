"""Choose rows of a file of instruction data and write them to another: what `lightning-adapt select` runs.

Method of Yu, Chen, Ahmadian, Fadaee, 2024, arXiv 2409.11378, without its rounds of training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from lightning_adapt._shared.checks import check_choice, problem
from lightning_adapt._shared.files import existing_folder
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.kmeans import Engine
from lightning_adapt._shared.state import to_plain
from lightning_adapt.divconq.choosing.arguments import Dedup, Method, Quota, check_selection_arguments
from lightning_adapt.divconq.choosing.budgets import check_budget, resolve_budget
from lightning_adapt.divconq.choosing.candidates import check_quality
from lightning_adapt.divconq.embed.embedders import PrecomputedEmbedder, as_embedder
from lightning_adapt.divconq.offline.file_outputs import plan_outputs, write_outputs
from lightning_adapt.divconq.offline.file_pool import Pool, Progress, read_pool
from lightning_adapt.divconq.offline.file_result import Clock, FileSelection, Results, peak_mib, record, versions
from lightning_adapt.divconq.offline.file_vectors import Vectors, vectors_of
from lightning_adapt.divconq.selection import Selection, select_rows
from lightning_adapt.divconq.text.formats import FORMATS, Format
from lightning_adapt.divconq.text.readers import open_rows

__all__ = ["select_file"]

Text = Literal["prompt", "prompt+response"]
Rows = npt.NDArray[np.int64]


def select_file(
    data: str | Path,
    budget: int | float | str,
    out: str | Path,
    *,
    method: Method = "kmq",
    k: int | Literal["auto"] = "auto",
    quota: Quota = "proportional",
    quality: str | None = None,
    tau: float = 1.0,
    embedder: Any = None,
    text: Text = "prompt",
    dedup: Dedup = "exact",
    format: Format | None = None,
    engine: Engine = "auto",
    seed: int = 42,
    cache_dir: str | Path | None = None,
    report: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> FileSelection:
    """Choose rows of a file of instruction data and write them, their numbers and a page about them.

    Rows with an empty response are left out, then copies, then `method` chooses. Texts are never held in memory, and
    vectors are in a memory map of a file without a name beside `out`, which the system deletes at the end, however
    this ends: a million rows are fine. Same as `lightning-adapt select`.

    Args:
        data: A .jsonl, .json or .parquet file, or a folder saved by the datasets library.
        budget: Rows to choose: 5000, or 0.05 or "5%" of all rows of the file; 1 is one row, 1.0 is all.
        out: Where the chosen rows go, in the format of the input. `chosen.jsonl` brings `chosen.indices.json` and
            `chosen.html` beside it.
        method: "random", "km_random", "km_closest", "k_center" or "kmq", see `select_rows`.
        k: Clusters; "auto" compares a few by their silhouette.
        quota: Rows per cluster: by its size, or the same for each.
        quality: Column with a number per row, higher is better, for "kmq"; without one it draws evenly in a cluster.
        tau: Temperature of the quality; small: only the best of a cluster.
        embedder: None or "tfidf" (no download), the name or folder of a model, an array or .npy file with a vector per
            row, or an object with `fit`, `encode`, `describe` and `name`.
        text: What the clusters are made of.
        dedup: Copies to leave out: none, equal rows, or nearly equal ones, too.
        format: "alpaca", "sharegpt", "messages" or "prompt-response"; None to go by the keys of the first rows.
        engine: What computes k-means.
        seed: The same seed, data and versions give the same files.
        cache_dir: Keeps the vectors for the next run; None: nothing is kept.
        report: Write the page.
        force: Replace files that are there; a folder never is.
        progress: Called with (step, rows done, rows in all or None).

    Returns:
        What was chosen, and the paths.

    Raises:
        FileExistsError: If an output is there and `force` is not given, or is a folder.
        FileNotFoundError: If there is no such input.
        ModuleNotFoundError: If a package is missing; names the extra.
        OSError: If the outputs cannot be written.
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument or a row is not as it should be; nothing is written then.
    """
    check_budget(budget)
    check_selection_arguments(method, k, quota, tau, dedup, engine, seed)
    settings = _Settings(method, k, quota, quality, tau, text, dedup, format, engine, seed)
    settings.check()
    if report:
        require("figures", "The report page (`--no-report`, or report=False, goes without)", "matplotlib")
    source_path, clock = Path(data), Clock(progress)
    outputs = plan_outputs(source_path, Path(out), report=report, force=force, others=_read_by(embedder))
    maker = as_embedder(None if _is_tfidf(embedder) else embedder) if settings.embeds else None
    with clock.step("reading"):
        source = open_rows(source_path)
        pool = read_pool(source, format=format or source.format, quality=quality, progress=clock.progress)
        rows = pool.candidates(copies=dedup == "none")
        size = _size(budget, pool, rows)
    vectors = None
    if maker is not None:
        cache = None if cache_dir is None else Path(cache_dir)
        folders: dict[str, Any] = {"cache_dir": cache, "folder": existing_folder(outputs.data.absolute())}
        with clock.step("embedding", announce=False):
            vectors = vectors_of(pool, rows, maker, text=text, progress=clock.progress, **folders)
    with clock.step("choosing"):
        selection = settings.select(vectors, size, rows, pool)
    results = _results(pool, rows, selection, settings, budget, maker)
    with clock.step("writing"):
        facts = {"name": source_path.name, "kind": source.kind, "format": format or source.format}
        about = {**facts, "rows": len(source), "fingerprint": pool.fingerprint}
        described = None if maker is None else maker.describe()
        kept = record(results, about, to_plain({"budget": budget, **asdict(settings)}), embedder=described)
        page = _page(source_path.name, pool, rows, selection, results, vectors) if report else None
        write_outputs(outputs, source, results.rows.numpy(), kept, page)
    return FileSelection(results, outputs.data, outputs.indices, outputs.report, clock.seconds, peak_mib())


@dataclass(frozen=True)
class _Settings:
    """The arguments that decide about the choice."""

    method: Method
    k: int | Literal["auto"]
    quota: Quota
    quality: str | None
    tau: float
    text: Text
    dedup: Dedup
    format: Format | None
    engine: Engine
    seed: int

    @property
    def embeds(self) -> bool:
        return self.method != "random" or self.dedup == "near"

    def check(self) -> None:
        check_choice("text", self.text, ("prompt", "prompt+response"), "Leave it at 'prompt'.")
        if self.format is not None:
            check_choice("format", self.format, FORMATS, "Leave it out to go by the keys of the rows.")
        if self.method != "kmq":
            check_quality(self.quality, self.method, 0)

    def select(self, vectors: Vectors | None, size: int, rows: Rows, pool: Pool) -> Selection:
        """Choose among the candidates, whose exact copies are gone already."""
        near = self.dedup == "near"
        return select_rows(
            vectors,
            size,
            self.method,
            n=len(rows),
            k=self.k,
            quality=None if pool.quality is None else torch.from_numpy(pool.quality[rows]),
            quota=self.quota,
            tau=self.tau,
            keys=[key.tobytes() for key in pool.keys[rows]] if near else None,
            dedup="near" if near else "none",
            engine=self.engine,
            seed=self.seed,
        )


def _is_tfidf(embedder: Any) -> bool:
    return isinstance(embedder, str) and embedder.lower() == "tfidf"


def _read_by(embedder: Any) -> list[Path]:
    """Return the file or folder that an embedder reads, if it is one."""
    path = embedder.path if isinstance(embedder, PrecomputedEmbedder) else embedder
    if not isinstance(path, (str, Path)) or _is_tfidf(path) or not Path(path).exists():
        return []
    return [Path(path)]


def _size(budget: int | float | str, pool: Pool, rows: Rows) -> int:
    size = resolve_budget(budget, len(pool.lengths))
    if size > len(rows):
        empty = int((pool.lengths == 0).sum())
        copies = len(pool.lengths) - empty - len(rows)
        left = f"at most {len(rows):,}, the rows left of {len(pool.lengths):,}"
        allowed = f"{left} (left out: {empty:,} for an empty response, {copies:,} for being a copy)"
        raise ValueError(problem("budget", allowed, size, "Lower it, or add data."))
    return size


def _results(pool: Pool, rows: Rows, selection: Selection, settings: _Settings, budget: Any, maker: Any) -> Results:
    chosen = torch.from_numpy(rows)[selection.rows]
    empty = int((pool.lengths == 0).sum())
    copies = len(pool.lengths) - empty - len(rows) + int(selection.duplicates.sum())
    counts = {"rows": len(pool.lengths), "empty_responses_left_out": empty, "copies_left_out": copies}
    notes = []
    if settings.method == "kmq" and settings.quality is None:
        notes.append("No quality was given, so rows were drawn evenly inside each cluster, as km_random does.")
    if empty:
        first = pool.texts.place(int(pool.lengths.argmin()))
        found = (
            "1 row has an empty response and was" if empty == 1 else f"{empty:,} rows have an empty response and were"
        )
        notes.append(f"{found} left out{':' if empty == 1 else '; the first is'} {first}.")
    what = f"budget {budget}, method {settings.method}, k {settings.k}, seed {settings.seed}, dedup {settings.dedup}"
    return Results(
        chosen,
        None if selection.labels is None else selection.labels[selection.rows],
        {**counts, "chosen": len(chosen)},
        what,
        "none needed" if maker is None else f"{maker.name}, text {settings.text}",
        selection.k,
        selection.engine,
        notes,
    )


def _page(name: str, pool: Pool, rows: Rows, selection: Selection, results: Results, vectors: Vectors | None) -> str:
    from lightning_adapt.divconq.offline.command_report import Findings, page

    gone = np.ones(len(pool.lengths), dtype=np.bool_)
    gone[rows] = selection.duplicates.numpy()
    gone &= pool.lengths > 0
    found = Findings(
        name,
        pool,
        rows,
        np.flatnonzero(gone),
        results.rows.numpy(),
        None if selection.labels is None else selection.labels.numpy(),
        vectors,
        results.facts(),
        results.notes,
        ", ".join(f"{package} {number}" for package, number in versions().items()),
    )
    return page(found)
