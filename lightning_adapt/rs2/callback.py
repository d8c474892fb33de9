"""RS2Callback: turns the epochs of an existing Trainer into RS2 rounds, without touching the user's data code."""

from __future__ import annotations

from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import (
    check_choice,
    check_flag,
    check_fraction,
    check_integer,
    check_loader_key,
    problem,
)
from lightning_adapt._shared.figures import log_figure
from lightning_adapt._shared.loaders import check_not_cycled, replace_loader
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt._shared.sampling import check_fingerprint
from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.rs2.figures import coverage_figure
from lightning_adapt.rs2.loader import rs2_loader
from lightning_adapt.rs2.sampler import MODES, Mode, RS2Sampler

__all__ = ["RS2Callback"]

STATE_VERSION = 1


class RS2Callback(Callback):
    """Train each epoch on a fresh random share of the data (Repeated Sampling of Random Subsets).

    Okanovic et al., ICLR 2024, arXiv 2305.18424. With the same `max_epochs`, training costs `ratio` of the time: an
    epoch becomes a round. It works on whatever train loader the Trainer finds (DataModule, module or raw DataLoader)
    and keeps its workers, collate_fn, pinning and generator; workers become persistent. Without replacement it is
    ordinary shuffled training for ratio * max_epochs passes with the learning-rate schedule squeezed into them.

    Resume is exact at the end and in the middle of a round, with workers and under DDP; the number of ranks may change
    as long as ranks times batch size stays. It logs `rs2/coverage`, the share of the data seen so far.

    .. tip:: Instances with different `loader` can be used together, one for each train loader.

    Args:
        ratio: Share of the data per round, in (0, 1]; the paper's r. 1 changes nothing unless you ask for
            bootstrap, stratify or another `validate`.
        mode: "without" replacement over rounds (default), "independent" or "bootstrap"; see `RS2Sampler`.
        stratify: Keep the class proportions in every round; reads the data set's `targets`, `labels` or `y`.
        loader: Which train loader when there are several: a dict key or a position.
        validate: "pass": validate once per pass over the data, that is every round(1/ratio) rounds times
            `check_val_every_n_epoch`, and in the last round, as far as `max_epochs` or `max_steps` tells which that is
            (with `max_time`, use "round"); "round": as the Trainer says; a number: every so many rounds, and in the
            last. ReduceLROnPlateau and EarlyStopping follow, ModelCheckpoint saves after validation; to keep
            `EarlyStopping(check_on_train_epoch_end=True)`, use "round".
        on_conflict: "raise" when the loader cannot be sampled; "warn" to train on it unchanged.
        seed: Seed of the sample order, the same on all ranks.
        enabled: False to switch the callback off.
        log_figure: Log a figure of the coverage at the end of `fit` (extra `figures`).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        MisconfigurationException: In `fit`, when the Trainer or the loader cannot be used with it.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(max_epochs=20, callbacks=[RS2Callback(0.1)], logger=False)
    """

    def __init__(
        self,
        ratio: float = 0.1,
        *,
        mode: Mode = "without",
        stratify: bool = False,
        loader: str | int | None = None,
        validate: Literal["pass", "round"] | int = "pass",
        on_conflict: Literal["raise", "warn"] = "raise",
        seed: int = 0,
        enabled: bool = True,
        log_figure: bool = False,
    ) -> None:
        self.ratio = check_fraction("ratio", ratio, "Pass 0.1 to train on a tenth of the data per round.")
        self.mode: Mode = check_choice("mode", mode, MODES, "Use 'without' unless you need another.")  # type: ignore[assignment]
        self.stratify = check_flag("stratify", stratify, "Pass True to keep the class proportions.")
        self.loader = check_loader_key(loader)
        self.validate = _check_validate(validate)
        self.on_conflict = check_choice("on_conflict", on_conflict, ("raise", "warn"), "Use 'raise'.")
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**63 - 1)
        self.enabled = check_flag("enabled", enabled, "Pass False to switch the callback off.")
        self.log_figure = check_flag("log_figure", log_figure, "Pass True to log the coverage figure.")
        self.sampler: RS2Sampler | None = None
        self._restored: dict[str, Any] | None = None
        self._whole_rounds = True
        self._validate_every = 0  # rounds; 0: as the Trainer says

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(loader=self.loader)

    @property
    def neutral(self) -> bool:
        """Whether the callback leaves training exactly as it is."""
        asks_for_more = self.mode == "bootstrap" or self.stratify or isinstance(self.validate, int)
        return not self.enabled or (self.ratio == 1 and not asks_for_more)

    # -- attach and detach ----------------------------------------------------------------------------------------
    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach(trainer)
        if stage != "fit":
            return
        self.sampler = None
        if self.neutral:
            return
        overfit: float = trainer.overfit_batches  # type: ignore[attr-defined]  # set by a connector
        if overfit:
            remedy = "It trains on one fixed subset and replaces the sampler: remove one of the two."
            self._conflict(problem("overfit_batches", "0 beside RS2Callback", overfit, remedy))
            return
        compat.add_train_loader_transform(trainer, self.state_key, lambda loaders: self._sampled(trainer, loaders))

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach(trainer)

    def _detach(self, trainer: Trainer) -> None:
        compat.remove_train_loader_transform(trainer, self.state_key)
        compat.restore_validation(trainer, self.state_key)
        self._validate_every = 0

    # -- the loader -----------------------------------------------------------------------------------------------
    def _sampled(self, trainer: Trainer, loaders: Any) -> Any:
        """Return the user's loaders with the chosen one drawing RS2 rounds; called when the Trainer loads data."""

        def build(loader: Any) -> ResumableLoader:
            ranks = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
            rounds = rs2_loader(
                loader,
                self.ratio,
                mode=self.mode,
                stratify=self.stratify,
                seed=self.seed,
                position=lambda: compat.batches_to_skip(trainer),
                **ranks,
            )
            self.sampler = rounds.sampler  # type: ignore[assignment]
            return rounds

        try:
            return replace_loader(loaders, self.loader, build, "RS2", may_cycle=True)  # checked in on_train_start
        except ValueError as problem_found:
            self.sampler = None
            self._conflict(str(problem_found), problem_found)
            return loaders

    def _conflict(self, message: str, cause: Exception | None = None) -> None:
        if self.on_conflict == "raise":
            raise MisconfigurationException(message) from cause
        rank_zero_warn(f"RS2Callback does nothing in this run. {message}")

    # -- when training starts: everything is loaded and restored ---------------------------------------------------
    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.sampler is None:
            return
        self._check_restored(self.sampler)
        batches = len(self.sampler) // (self.sampler.round_to or 1)
        self._whole_rounds = self._check_whole_rounds(trainer, batches)
        # None: the user counts steps, and steps stay steps. Without validation there is nothing to thin out, and
        # ModelCheckpoint would wait for one
        users = compat.users_check_val(trainer)
        if self.validate != "round" and users is not None and trainer.enable_validation:
            rounds = users * round(1 / self.ratio) if self.validate == "pass" else int(self.validate)
            self._validate_every = rounds
            compat.thin_out_validation(trainer, self.state_key, rounds)
            self._let_others_follow(trainer)
            # a run resumed inside a round gets no on_train_epoch_start
            self._validate_last_round(trainer, compat.batches_to_skip(trainer) % batches)

    def _check_whole_rounds(self, trainer: Trainer, batches: int) -> bool:
        """Say so when an epoch holds more or less than one round."""
        try:  # not earlier: another callback may shorten the other loaders, too
            check_not_cycled(compat.combined_train_loader(trainer), self.loader, "RS2")
        except ValueError as problem_found:
            if self.on_conflict == "raise":
                raise MisconfigurationException(str(problem_found)) from problem_found
            rank_zero_warn(f"Rounds are repeated inside an epoch. {problem_found}")
        if trainer.num_training_batches >= batches:
            return True
        if not _is_dev_run(trainer):
            rank_zero_warn(
                f"Every RS2 round is cut from {batches} to {trainer.num_training_batches} batches, by "
                "limit_train_batches or a shorter loader beside it; what is cut off is not made up for in later "
                "rounds. Lower `ratio` instead."
            )
        return False

    def _let_others_follow(self, trainer: Trainer) -> None:
        """Adapt what waits for validation: plateau schedules, and checkpoints that might never be saved."""
        every = trainer.check_val_every_n_epoch or 1
        for config in trainer.lr_scheduler_configs:  # ReduceLROnPlateau must find a metric when it steps
            if config.reduce_on_plateau and config.interval == "epoch" and config.frequency % every:
                config.frequency = every
        for number in compat.checkpoints_that_miss_validation(trainer):
            rank_zero_warn(
                f"ModelCheckpoint(every_n_epochs={number}) saves after validation, which now runs every {every} RS2 "
                f"rounds and in the last one: some of its checkpoints will not come. Use every_n_epochs=1, a multiple "
                f'of {every}, save_on_train_epoch_end=True, or RS2Callback(validate="round").'
            )

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validate_every:
            self._validate_last_round(trainer, done=0)

    def _validate_last_round(self, trainer: Trainer, done: int) -> None:
        """Validate the last round that is run to its end: its schedule has come down, and its weights stay.

        `done` are the batches of this round that a run resumed inside it has behind it.
        """
        compat.thin_out_validation(trainer, self.state_key, self._validate_every)
        batches = int(trainer.num_training_batches)
        steps, steps_done = -(-batches // trainer.accumulate_grad_batches), done // trainer.accumulate_grad_batches
        if not trainer.lightning_module.automatic_optimization and trainer.fit_loop.total_batch_idx >= 0:
            per_batch = trainer.global_step / (trainer.fit_loop.total_batch_idx + 1)  # several optimizers step
            steps, steps_done = round(batches * per_batch), round(done * per_batch)
        left = trainer.max_steps - trainer.global_step + steps_done  # from the beginning of this round
        ends_by_steps = trainer.max_steps > 0 and steps <= left < 2 * steps
        if trainer.current_epoch + 1 == trainer.max_epochs or ends_by_steps:
            compat.validate_in_this_epoch(trainer)
        elif trainer.max_steps > 0 and left < steps:
            trainer.check_val_every_n_epoch = 1  # a round cut short: ModelCheckpoint saves what it leaves, as ever

    # -- log and draw ---------------------------------------------------------------------------------------------
    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.sampler is not None and self._whole_rounds:
            coverage = self.sampler.coverage(trainer.current_epoch + 1)
            pl_module.log("rs2/coverage", coverage, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.sampler is not None and self.log_figure and trainer.is_global_zero and not _is_dev_run(trainer):
            figure = coverage_figure(self.sampler, rounds=max(trainer.current_epoch, 1))
            log_figure(trainer, "rs2/coverage", figure, step=trainer.global_step)

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        # the round and the batches done in it are the Trainer's own counters, so only their meaning is kept here
        fingerprint = None if self.sampler is None else self.sampler.fingerprint()
        batch = 0 if self.sampler is None else self.sampler.multiple
        return with_version({"fingerprint": fingerprint, "global_batch": batch}, STATE_VERSION)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, "RS2Callback")
        self._restored = state_dict

    def _check_restored(self, sampler: RS2Sampler) -> None:
        """Compare the checkpoint with this run; in `on_train_start`, where every strategy has restored it."""
        restored, self._restored = self._restored, None
        if restored is None or restored["fingerprint"] is None:
            return
        saved = {**restored["fingerprint"], "global batch": restored["global_batch"]}
        here = {**sampler.fingerprint(), "global batch": sampler.multiple}
        try:
            check_fingerprint("RS2Callback", saved=saved, here=here)
        except ValueError as problem_found:
            raise MisconfigurationException(str(problem_found)) from problem_found


def _is_dev_run(trainer: Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by a connector


def _check_validate(validate: Any) -> str | int:
    remedy = "Use 'pass' to validate once per pass over the data."
    if isinstance(validate, str):
        return check_choice("validate", validate, ("pass", "round"), remedy)
    return check_integer("validate", validate, remedy, minimum=1)
