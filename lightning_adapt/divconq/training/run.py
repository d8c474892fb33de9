"""One `fit` with a selection: what the callback does in each of its hooks; by the Trainer's public attributes alone."""

# Over 300 lines: one class, all turns of one `fit`; what is done in each is in the files beside it.

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_adapt._shared import compat
from lightning_adapt._shared.loaders import check_not_cycled, inspect_loader, rebuild_loader, replace_loader
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt._shared.resumed_epochs import begin_next_epoch
from lightning_adapt._shared.sampling import check_fingerprint
from lightning_adapt._shared.schedules import check_horizons
from lightning_adapt.divconq.embed.embedders import as_embedder
from lightning_adapt.divconq.rounds import SelectionRounds
from lightning_adapt.divconq.scoring.scorers import EmbeddingRelevanceScorer
from lightning_adapt.divconq.training.agreement import on_rank_zero
from lightning_adapt.divconq.training.chosen_rows import ChosenRows, check_planned, sampler_over, usual_batches
from lightning_adapt.divconq.training.in_loop import RunningSelection, needs_vectors
from lightning_adapt.divconq.training.options import RunOptions, scorer_for
from lightning_adapt.divconq.training.pool import TrainingPool, known_tokenizer, rows_of_source
from lightning_adapt.divconq.training.restart import TrainingStart
from lightning_adapt.divconq.training.run_checks import (
    ADVICE,
    NAME,
    check_lengths,
    check_trainer,
    is_over,
    warn_if_cut,
    warn_if_too_short,
    warn_if_unspent,
    warn_of_untrained,
)
from lightning_adapt.divconq.training.run_reports import describe_clusters, log_figures, write_files

__all__ = ["NO_STATE", "SelectionRun"]

NO_STATE: dict[str, Any] = {"rounds": None, "fingerprint": None, "global_batch": 0, "begun_round": -1, "start": None}


class SelectionRun:
    """The selection of one `fit`.

    Args:
        options: What was asked for.
        trainer: The Trainer, in `setup`.

    Attributes:
        running: The pool and the rounds; None until the Trainer asks for its train loaders.

    Raises:
        ModuleNotFoundError: If an optional package is missing; names the extra.
        ValueError: If the Trainer cannot be used with it.
    """

    def __init__(self, options: RunOptions, trainer: Any) -> None:
        self.options = options
        self.running: RunningSelection | None = None
        self._sampler: ChosenRows | None = None
        self._loader: ResumableLoader | None = None
        self._global_batch = 0
        self._usual_batches = 1  # of an epoch without a selection
        self._restored: dict[str, Any] | None = None
        self._start: TrainingStart | None = None
        self._looked_at = -1  # the newest round whose epochs were looked at
        self._begun_round = -1  # the newest round that training has begun with
        self._goes_on = False  # from a selection that was made earlier
        self._drew_late = False  # a round that was missing in the checkpoint
        check_trainer(options, trainer)
        embeds = needs_vectors(SelectionRounds(**options.settings))
        self._embedder = as_embedder(options.embedder) if embeds else None
        self._scorer = scorer_for(options.scorer, self._embedder, options.rounds)

    def release_loader(self) -> None:
        """Let go of what belongs to a Trainer's loaders; the selection stays."""
        self._sampler = self._loader = None

    # -- the loader -----------------------------------------------------------------------------------------------
    def choose(self, trainer: Any, module: nn.Module, loaders: Any) -> Any:
        """Return the user's loaders with the chosen one drawing the selection.

        Args:
            trainer: The Trainer, when it loads its data.
            module: The module in training.
            loaders: The user's train loader, or a collection of them; it stays as it is.

        Returns:
            The same with one of them replaced.

        Raises:
            ValueError: If the loader, the data or a checkpoint does not fit.
        """

        def build(loader: Any) -> ResumableLoader:
            parts = inspect_loader(loader, NAME, advice=ADVICE)
            rows = rows_of_source(parts.source, NAME)
            check_planned(parts.source, self.options)
            ranks = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
            self._global_batch = parts.batch_size * ranks["num_replicas"]
            if self.running is None:
                self.running = self._begin(trainer, module, loader.dataset, rows)
            self.running.pool.check_same(loader.dataset, rows)
            self._sampler = sampler_over(parts.source, self.running.dataset_rows, seed=self.options.seed, **ranks)
            self._usual_batches = usual_batches(loader, parts.source, self.running.pool.n, self._global_batch)
            position = partial(compat.position_in_run, trainer)
            self._loader = rebuild_loader(loader, self._sampler, position=position)
            check_lengths(self.running.rounds, self._sampler, self._loader, self._global_batch)
            return self._loader

        return replace_loader(loaders, self.options.loader, build, NAME)  # the rest in `start`

    def _begin(self, trainer: Any, module: nn.Module, dataset: Any, rows: Any) -> RunningSelection:
        """Look at the data and make the first selection, or take over that of a checkpoint."""
        options = self.options
        tokenizer = known_tokenizer(module, getattr(trainer, "datamodule", None), dataset)
        pool = TrainingPool(dataset, rows, self._embedder, tokenizer)
        running = RunningSelection(pool, SelectionRounds(**options.settings), options.text)
        restored, self._restored = self._restored, None
        self._check_batch(restored)
        known = self._goes_on = restored is not None and restored["rounds"] is not None
        running.begin(
            trainer,
            quality=options.quality,
            restored=restored if known else None,
            judge=self._scorer.embedder if isinstance(self._scorer, EmbeddingRelevanceScorer) else None,
            want_plane=options.log_figure and not compat.is_dev_run(trainer),
            cache_dir=options.cache_dir,
        )
        if not known and pool.empty_responses():
            rank_zero_warn(f"{NAME} may select rows that teach nothing. {pool.empty_responses()}")
        self._tell(trainer, running)
        return running

    def _check_batch(self, restored: dict[str, Any] | None) -> None:
        if restored is not None and restored["global_batch"]:
            saved, here = {"global batch": restored["global_batch"]}, {"global batch": self._global_batch}
            check_fingerprint(NAME, saved=saved, here=here)

    def resize(self, epoch: int | None) -> int:
        """Let the loader be as long as in an epoch to come, or as it is now; see `plan_steps`.

        Args:
            epoch: The epoch, or None.

        Returns:
            Rows in it.
        """
        if self.running is None or self._sampler is None:
            return 0
        if epoch is None:
            self._sampler.set_rows(self.running.dataset_rows)
        else:
            size = self.running.rounds.sizes[self.options.round_of(epoch)]
            if size != self._sampler.n_rows:
                self._sampler.set_rows(torch.arange(size))
        return self._sampler.n_rows

    # -- hooks ----------------------------------------------------------------------------------------------------
    def start(self, trainer: Any, module: nn.Module) -> None:
        """Check what is only known now, and catch up where a run was stopped inside the last epoch of a round.

        Args:
            trainer: The Trainer, in `on_train_start`.
            module: The module in training.

        Raises:
            ValueError: If a checkpoint does not fit, or the loader would start again inside an epoch.
        """
        begin_next_epoch(trainer)
        self._take_late_state(trainer)
        running = self.running
        if running is None:
            return
        check_not_cycled(compat.combined_train_loader(trainer), self.options.loader, NAME, advice=ADVICE)
        if compat.is_dev_run(trainer):
            return
        check_horizons(trainer, self.options.lr_horizon, NAME, trainer.num_training_batches / self._usual_batches)
        warn_if_too_short(self.options, trainer)
        running.check_answers(trainer, module, self._scorer)
        if self.options.restarts and self._start is None:
            self._start, self._begun_round = TrainingStart.of(trainer, module), running.rounds.round
        missing = self.options.round_of(trainer.current_epoch) - running.rounds.round
        if missing > 1 or (missing == 1 and not self._goes_on):
            warn_of_untrained(missing, trainer.current_epoch)
        for _ in range(missing):
            self._advance(trainer, module, running)
        self._drew_late = missing > 0

    def _take_late_state(self, trainer: Any) -> None:
        """Use a checkpoint that was read after the loader was made, by sharding strategies or learning-rate finders."""
        running = self.running
        if running is None:
            return
        restored, self._restored = self._restored, None
        if restored is None:
            return
        if restored["rounds"] is not None:
            if trainer.global_step > 0:  # a batch size finder restores the start of this run with other batches
                self._check_batch(restored)
            self._goes_on = True
            running.restore(restored)
            self._show(trainer, running)
        elif running.rounds.round > 0:  # what a finder did is taken back
            self.running = None
            compat.reload_train_loader(trainer)

    def begin_round(self, trainer: Any, module: nn.Module) -> None:
        """Restart a new round from the start of training where that was asked for; called as an epoch starts.

        Args:
            trainer: The Trainer.
            module: The module in training.
        """
        compat.restore_reloading(trainer)
        if self._drew_late:  # not before: callbacks after this one read in `on_train_start` where the run goes on
            compat.begin_after_last_batch(trainer)
            self._drew_late = False
        number = -1 if self.running is None else self.running.rounds.round
        if number > self._begun_round:
            first, self._begun_round = self._begun_round < 0, number
            if self._start is not None and not first:
                self._start.restore(trainer, module)
        if number > self._looked_at:  # once is enough
            self._looked_at = self.options.rounds if warn_if_cut(trainer, self._loader) else number

    def end_epoch(self, trainer: Any, module: nn.Module) -> dict[str, float]:
        """Draw the next round if the next epoch belongs to one; a repeated call for the same epoch changes nothing.

        Args:
            trainer: The Trainer, in `on_train_epoch_end`.
            module: The module in training.

        Returns:
            What there is to log.
        """
        running = self.running
        if running is None:
            return {}
        rounds = running.rounds
        values = {"divconq/round": float(rounds.round), "divconq/selected": float(len(rounds.rows))}
        entropy = rounds.history[-1]["entropy"]
        values |= {} if entropy is None else {"divconq/weight_entropy": float(entropy)}
        due = self.options.round_of(trainer.current_epoch + 1) > rounds.round
        # an epoch that was cut short goes on in a resumed run; and nothing is scored for a round that never comes
        if due and compat.epoch_is_complete(trainer) and not is_over(trainer) and not compat.is_dev_run(trainer):
            score = self._advance(trainer, module, running)
            values |= {"divconq/mean_score": score} if math.isfinite(score) else {}
        return values

    def _advance(self, trainer: Any, module: nn.Module, running: RunningSelection) -> float:
        score = running.advance(trainer, module, self._scorer)
        if not math.isfinite(score):
            rank_zero_warn(f"{NAME}: the scorer rated none of the rows, so that the clusters keep their weights.")
        self._show(trainer, running)
        self._tell(trainer, running)
        return score

    def _show(self, trainer: Any, running: RunningSelection) -> None:
        """Let the loader, and samplers stacked on ours, have the rows of the newest round."""
        if self._sampler is not None:
            self._sampler.set_rows(running.dataset_rows)
        compat.reload_train_loader(trainer)

    def _tell(self, trainer: Any, running: RunningSelection) -> None:
        if compat.is_dev_run(trainer):
            return
        if trainer.is_global_zero:
            rank_zero_info(describe_clusters(running))
        if self.options.out_dir is not None:
            on_rank_zero(trainer, partial(write_files, running, self.options))

    def end(self, trainer: Any) -> None:
        """Say where the budget was not spent, and log the figures of the run; in `on_train_end`."""
        if self.running is None or compat.is_dev_run(trainer):
            return
        warn_if_unspent(self.running.rounds)
        if self.options.log_figure and trainer.is_global_zero:
            log_figures(trainer, self.running)

    # -- resume ---------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return the plain state: rounds, fingerprint of the pool, and the start of training where rounds restart."""
        if self.running is None:
            return NO_STATE if self._restored is None else self._restored
        start = None if self._start is None else self._start.state_dict()
        state: dict[str, Any] = {"rounds": self.running.rounds.state_dict(), "fingerprint": self.running.fingerprint}
        state |= {"embedder": self.running.embedder, "global_batch": self._global_batch}
        return {**state, "begun_round": self._begun_round, "start": start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, as soon as there is a loader; in a run that is under way, when training starts.

        Args:
            state: What `state_dict` returned.
        """
        self._restored = {name: state[name] for name in NO_STATE} | {"embedder": state.get("embedder")}
        if state["rounds"] is not None:
            int(state["fingerprint"]["n"])  # what is damaged is told where it is read
        self._begun_round = state["begun_round"]
        self._start = None if state["start"] is None else TrainingStart.from_state(state["start"])
