"""LossFeed: brings the losses of a Lightning training step to loss-guided rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.collectives import gather_rows
from lightning_adapt.rs2.combinations import check_guide_is_used
from lightning_adapt.rs2.guide import GUIDE_DEFAULTS, GuideOptions, check_warm_rounds, make_guide
from lightning_adapt.rs2.sampler import RS2Sampler

__all__ = ["LossFeed"]

DEFAULT_KEY = "sample_loss"
_PASSES = (1.1, 4.0)  # over the data; nobody measured a gain that one can count on outside


class LossFeed:
    """Collects the losses of each training step, and hands those of all ranks to the sampler.

    The rows behind a batch follow from its number: the sampler knows what it drew. Losses stay on their device until
    the end of the round, so that no step waits for them.

    Args:
        loss_key: Key of the losses in what `training_step` returns, shape (B,).
        index_key: Key of the rows of the data set there, shape (B,), int64; None: the sampler's own order.
        options: The arguments of `LossGuide`.
        total_rounds: The one of that name.
    """

    def __init__(self, loss_key: str, index_key: str | None, options: GuideOptions, total_rounds: int | None) -> None:
        self.loss_key, self.index_key = loss_key, index_key
        self.options, self.total_rounds = options, total_rounds
        self.sampler: RS2Sampler
        self._first: list[int]  # of each batch, its first sample of this rank in the round
        self._rows: list[Tensor]  # only with `index_key`
        self._losses: list[Tensor]
        self._length: int | None  # samples of this rank in the round; asking the sampler takes its time
        self._any = False

    def use(self, sampler: RS2Sampler, known: dict[str, Any] | None) -> None:
        """Guide a sampler by what is known of the same rows; what was collected since is forgotten.

        Args:
            sampler: The sampler, of mode "loss".
            known: State of the callback; None at the beginning of a run.
        """
        self.sampler, self._first, self._rows, self._losses, self._length = sampler, [], [], [], None
        guide = None if known is None else known.get("guide")
        if known is not None and guide is not None and known["fingerprint"] != sampler.fingerprint():
            rank_zero_warn("RS2: the train data changed while losses guide the rounds; their losses begin anew.")
            guide = None
        if guide is None:
            self._warn_of_length(sampler)
        sampler.guide = make_guide(self.options, self.total_rounds, guide)

    def _warn_of_length(self, sampler: RS2Sampler) -> None:
        if self.total_rounds is None or self.total_rounds == 1:  # unknown, or one round to try things out
            return
        passes = self.total_rounds * sampler.epoch_size(0) / sampler.n_rows
        if not _PASSES[0] < passes < _PASSES[1]:
            rank_zero_warn(
                f"RS2Callback: losses guide a run of {passes:.1f} passes over the data. In the benchmark they gained at"
                " two passes, nothing at one, and lost at six with one of two networks: compare with mode='without'."
            )

    def take(self, outputs: Any, batch_idx: int) -> None:
        """Note the losses of a training step.

        Args:
            outputs: What `on_train_batch_end` was given.
            batch_idx: Number of the batch in the round.

        Raises:
            MisconfigurationException: If the losses or rows are missing, or do not fit the batch.
        """
        size = self.sampler.round_to or 1  # a round is whole batches
        self._length = len(self.sampler) if self._length is None else self._length
        over = self.index_key is None and batch_idx * size >= self._length  # a longer loader beside it runs on
        if not outputs or over:  # without outputs, the step was skipped
            return
        if not isinstance(outputs, Mapping) or self.loss_key not in outputs:
            raise MisconfigurationException(_missing("loss_key", self.loss_key, outputs))
        losses, shape = torch.as_tensor(outputs[self.loss_key]), torch.Size([size])
        if self.index_key is not None:
            if self.index_key not in outputs:
                raise MisconfigurationException(_missing("index_key", self.index_key, outputs))
            # copies: a compiled step uses the memory of its outputs again
            self._rows.append(torch.as_tensor(outputs[self.index_key]).detach().to(torch.int64, copy=True))
            shape = self._rows[-1].shape
        if losses.shape != shape or losses.ndim != 1:
            raise MisconfigurationException(_misshapen(self.loss_key, tuple(shape), tuple(losses.shape)))
        self._first.append(batch_idx * size)
        self._losses.append(losses.detach().to(torch.float32, copy=True))

    def flush(self, trainer: Any) -> None:
        """Hand what was collected on all ranks to the sampler; every rank must call it.

        Args:
            trainer: The Trainer.

        Raises:
            MisconfigurationException: If a loss is negative, or a row lies outside the data set.
        """
        ranks = self.sampler.num_replicas
        parts = [first + torch.arange(len(part)) for first, part in zip(self._first, self._losses, strict=True)]
        nothing = torch.empty(0, dtype=torch.int64)
        mine = torch.cat(parts or [nothing])
        rows = self.sampler.rank_rows(mine) if self.index_key is None else torch.cat(self._rows or [nothing])
        losses = torch.cat(self._losses or [torch.empty(0)])
        places = mine * ranks + self.sampler.rank  # in the round, all ranks together
        self._first, self._rows, self._losses, self._length = [], [], [], None
        rows, losses, places = (gather_rows(trainer, part.to(losses.device)) for part in (rows, losses, places))
        order = torch.argsort(places, stable=True)  # of two losses of a row the later counts, on whichever rank it is
        try:
            self.sampler.record(rows[order], losses[order])
        except ValueError as problem_found:
            raise MisconfigurationException(str(problem_found)) from problem_found

    def check_any(self) -> None:
        """Raise at the end of a round if no loss has come so far: the rounds would never be guided.

        Raises:
            MisconfigurationException: If no row has a usable loss.
        """
        self._any = self._any or (self.sampler.guide is not None and self.sampler.guide.seen() > 0)
        if not self._any:
            allowed = "a key under which some step of a round returns finite losses"
            raise MisconfigurationException(problem("loss_key", allowed, self.loss_key, _remedy(self.loss_key)))


def planned_rounds(trainer: Any, batches: int, warm_rounds: float) -> int | None:
    """Return the rounds that a run will have, as far as the Trainer's arguments tell.

    Args:
        trainer: The Trainer.
        batches: Batches of a round.
        warm_rounds: The argument of that name, which needs them where it is a share.

    Returns:
        Rounds, >= 1; None when neither `max_epochs` nor `max_steps` bounds the run.

    Raises:
        MisconfigurationException: If they are needed and unknown.
    """
    bounds = []
    warm_rounds = check_warm_rounds(warm_rounds)
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        bounds.append(int(trainer.max_epochs))
    if trainer.max_steps > 0 and trainer.lightning_module.automatic_optimization:  # else, several steps a batch
        bounds.append(-(-int(trainer.max_steps) // -(-batches // trainer.accumulate_grad_batches)))
    if not bounds and not isinstance(warm_rounds, int):
        allowed = "a whole number of rounds where neither max_epochs nor max_steps says how long the run is"
        raise MisconfigurationException(problem("warm_rounds", allowed, warm_rounds, "Pass warm_rounds=5, say."))
    return min(bounds) if bounds else None


def check_feed(mode: str, loss_key: Any, index_key: Any, guide: GuideOptions) -> None:
    """Check the arguments of loss-guided rounds that a callback takes.

    Args:
        mode: Mode of the sampler.
        loss_key: As in `LossFeed`.
        index_key: As in `LossFeed`.
        guide: As the keyword arguments of `LossGuide`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range, or is given without mode "loss".
    """
    for name, key, default in (("loss_key", loss_key, DEFAULT_KEY), ("index_key", index_key, None)):
        if not isinstance(key, str) and key is not default:
            remedy = f"Pass the key that training_step uses, for example {DEFAULT_KEY!r}."
            raise TypeError(problem(name, "a string", key, remedy))
    keys = {"loss_key": loss_key, "index_key": index_key}
    check_guide_is_used(mode, {**keys, **guide}, {"loss_key": DEFAULT_KEY, "index_key": None, **GUIDE_DEFAULTS})
    make_guide(guide, total_rounds=1)


def _missing(argument: str, key: str, outputs: Any) -> str:
    found = sorted(map(str, outputs)) if isinstance(outputs, Mapping) else type(outputs).__name__
    rows = "Return the rows of the data set under it, or leave index_key out."
    remedy = _remedy(key) if argument == "loss_key" else rows
    return problem(argument, f"a key of what training_step returns (here {found})", key, remedy)


def _misshapen(loss_key: str, expected: tuple[int, ...], received: tuple[int, ...]) -> str:
    remedy = (
        "Return losses computed with reduction='none' and averaged over everything but the batch; where a collate_fn "
        "drops or adds samples, return their rows, too, and name them in `index_key`."
    )
    return problem(f"outputs[{loss_key!r}]", f"one number per sample, of shape {expected}", received, remedy)


def _remedy(loss_key: str) -> str:
    return (
        "mode='loss' needs the loss of every sample: return {'loss': losses.mean(), "
        f"{loss_key!r}: losses.detach()}} with losses from reduction='none'."
    )
