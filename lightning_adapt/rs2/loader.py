"""rs2_loader: the plain PyTorch way to RS2, from the loader that you already have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader
from typing_extensions import Unpack

from lightning_adapt._shared.batch_planner import BatchPlanner
from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.loaders import Advice, conflict, inspect_loader, rebuild_loader
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt._shared.targets import find_targets
from lightning_adapt.rs2.batch_rounds import BatchRounds
from lightning_adapt.rs2.guide import GuideOptions
from lightning_adapt.rs2.sampler import Mode, RS2Sampler

__all__ = ["rs2_loader"]

ADVICE = Advice(
    iteration=", or build your {kind} with sampler=RS2Sampler(...)",
    batches=", or build your batch sampler over a sampler of ours (RS2Sampler)",
    weights=", or use RS2Sampler(mode='independent', weights=...) in your loader",
    draws="; RS2 has `ratio` for a share and mode='bootstrap' for replacement",
    sampler=", or sample over it yourself with one of ours (RS2Sampler) in your loader",
    length=", or raise the ratio",
)


def rs2_loader(
    loader: DataLoader[Any],
    ratio: float = 0.1,
    *,
    mode: Mode = "without",
    stratify: bool = False,
    num_replicas: int | None = None,
    rank: int | None = None,
    seed: int = 0,
    position: Callable[[], tuple[int, int]] | None = None,
    **guide: Unpack[GuideOptions],
) -> ResumableLoader:
    """Return a loader like yours whose every epoch is one RS2 round.

    Okanovic et al., ICLR 2024, arXiv 2305.18424; see `RS2Sampler`. K is rounded down to whole global batches. Call
    `loader.sampler.set_epoch(round)` before each round (Lightning does it). `state_dict` and `load_state_dict` resume
    inside a round; Lightning calls them too, except when `trainer.estimated_stepping_batches` was read first
    (Lightning #20550): use `RS2Callback` there. Of a loader that plans whole batches by itself (`TextSpeechDataModule`)
    a round takes a share of the planned batches, in their order; `seed` is then the planner's.

    Args:
        loader: Your loader, over a map-style data set; it stays as it is.
        ratio: Share of the data per round, in (0, 1]; the paper's r.
        mode: As in `RS2Sampler`.
        stratify: Keep the class proportions in every round; reads the data set's `targets`, `labels` or `y`.
        num_replicas: Number of ranks. None: from the process group, at use.
        rank: This rank. None: from the process group, at use.
        seed: Seed shared by all ranks.
        position: Returns the running round and its batches already used. None: what `set_epoch` says, and counted by
            the loader itself.
        guide: Mode "loss": `warm_rounds`, `total_rounds`, `power`, `loss_cap`, `uniform_mix` of `RS2Sampler`; call
            `loader.sampler.record(rows, losses)` after each step.

    Returns:
        The new loader.

    Raises:
        LoaderConflictError: If your loader cannot be rebuilt; the text says why and what to do.
        ValueError: If an argument is out of range, or a round holds no whole global batch.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> loader = DataLoader(TensorDataset(torch.arange(1000)), batch_size=10, shuffle=True)
        >>> rounds = rs2_loader(loader, 0.1)
        >>> len(loader), len(rounds)
        (100, 10)
    """
    parts = inspect_loader(loader, "RS2", advice=ADVICE)
    if isinstance(parts.source, RS2Sampler):
        remedy = "use either the callback or a sampler of your own, not both"
        conflict("RS2", "a loader without an RS2Sampler", "one", remedy)
    if isinstance(parts.source, BatchPlanner):
        if stratify:
            remedy = "Batches are taken as they are planned: leave it out."
            raise ValueError(problem("stratify", "False where the loader plans whole batches", stratify, remedy))
        planned = BatchRounds(parts.source, ratio, mode=mode, num_replicas=num_replicas, rank=rank, **guide)
        return rebuild_loader(loader, planned, position=position)
    sampler = RS2Sampler(
        parts.source,
        ratio,
        mode=mode,
        targets=find_targets(loader.dataset) if stratify else None,
        round_to=parts.batch_size,
        num_replicas=num_replicas,
        rank=rank,
        seed=seed,
        **guide,
    )
    return rebuild_loader(loader, sampler, position=position)
