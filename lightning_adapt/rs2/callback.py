"""RS2Callback: turns the epochs of an existing Trainer into RS2 rounds, without touching the user's data code."""

# Over 300 lines: one public class, half of it documentation and hooks; the rest is in the files beside it.

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
from lightning_adapt._shared.resumed_epochs import begin_next_epoch
from lightning_adapt._shared.sampling import check_fingerprint
from lightning_adapt._shared.schedules import ACTIONS, Action, check_horizons
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.rs2.figures import coverage_figure, loss_figure
from lightning_adapt.rs2.guide import GuideOptions
from lightning_adapt.rs2.loader import ADVICE, rs2_loader
from lightning_adapt.rs2.loss_feed import DEFAULT_KEY, LossFeed, check_feed, planned_rounds
from lightning_adapt.rs2.sampler import MODES, Mode, RS2Sampler
from lightning_adapt.rs2.validation import RoundValidation, check_validate

__all__ = ["RS2Callback"]

STATE_VERSION = 1


class RS2Callback(Callback):
    """Train each epoch on a fresh random share of the data (Repeated Sampling of Random Subsets).

    Okanovic et al., ICLR 2024, arXiv 2305.18424. With the same `max_epochs`, training costs `ratio` of the time: an
    epoch becomes a round. It works on whatever train loader the Trainer finds (DataModule, module or raw DataLoader)
    and keeps its workers, collate_fn, pinning and generator; workers become persistent. Without replacement it is
    ordinary shuffled training for ratio * max_epochs passes with the learning-rate schedule squeezed into them.

    Resume is exact at the end and in the middle of a round, with workers and under DDP; the number of ranks may change
    as long as ranks times batch size stays, except over a loader that plans whole batches. It logs `rs2/coverage`, the
    share of the data seen so far.

    .. tip:: Instances with different `loader` can be used together, one for each train loader.

    Args:
        ratio: Share of the data per round, in (0, 1]; the paper's r. 1 changes nothing unless you ask for
            bootstrap, stratify or another `validate`.
        mode: "without" replacement over rounds (default), "independent", "bootstrap" or "loss": guided by the losses
            that `training_step` returns under `loss_key`, for runs of about two passes; see `RS2Sampler`.
        stratify: Keep the class proportions in every round (mode "loss": over the rounds); reads the data set's
            `targets`, `labels` or `y`.
        loader: Which train loader when there are several: a dict key or a position.
        validate: "pass": validate once per pass over the data, that is every round(1/ratio) rounds times
            `check_val_every_n_epoch`, and in the last round, as far as `max_epochs` or `max_steps` tells which that is
            (with `max_time`, use "round"); "round": as the Trainer says; a number: every so many rounds, and in the
            last. ReduceLROnPlateau and EarlyStopping follow, ModelCheckpoint saves after validation; to keep
            `EarlyStopping(check_on_train_epoch_end=True)`, use "round".
        on_conflict: "raise" when the loader cannot be sampled; "warn" to train on it unchanged.
        lr_horizon: When a learning-rate schedule fits another number of steps: "warn", "rescale", "error", "ignore".
        loss_key: Mode "loss": key of the loss of each sample in the dict that `training_step` returns, shape (B,).
        index_key: Mode "loss": key of the samples' rows there; needed only where a collate_fn drops or adds samples.
        warm_rounds: Mode "loss": plain rounds first, a share of the run or a whole number; a resumed run keeps its own.
        power: Mode "loss": exponent of the loss.
        loss_cap: Mode "loss": quantile at which losses are cut.
        uniform_mix: Mode "loss": share of the visits that are spread evenly.
        seed: Seed of the sample order, the same on all ranks.
        enabled: False to switch the callback off.
        log_figure: Log a figure of the coverage or the losses at the end of `fit` (extra `figures`).

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
        lr_horizon: Action = "warn",
        loss_key: str = DEFAULT_KEY,
        index_key: str | None = None,
        warm_rounds: float = 0.25,
        power: float = 1.0,
        loss_cap: float = 0.75,
        uniform_mix: float = 0.0,
        seed: int = 0,
        enabled: bool = True,
        log_figure: bool = False,
    ) -> None:
        self.ratio = check_fraction("ratio", ratio, "Pass 0.1 to train on a tenth of the data per round.")
        self.mode: Mode = check_choice("mode", mode, MODES, "Use 'without' unless you need another.")  # type: ignore[assignment]
        self.stratify = check_flag("stratify", stratify, "Pass True to keep the class proportions.")
        self.loader = check_loader_key(loader)
        self.validate = check_validate(validate)
        self.on_conflict = check_choice("on_conflict", on_conflict, ("raise", "warn"), "Use 'raise'.")
        self.lr_horizon = check_choice("lr_horizon", lr_horizon, ACTIONS, "Use 'warn' to be told.")
        self.loss_key, self.index_key = loss_key, index_key
        self.guide_options: GuideOptions = {"warm_rounds": warm_rounds, "power": power, "loss_cap": loss_cap}
        self.guide_options["uniform_mix"] = uniform_mix
        check_feed(self.mode, loss_key, index_key, self.guide_options)
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**63 - 1)
        self.enabled = check_flag("enabled", enabled, "Pass False to switch the callback off.")
        self.log_figure = check_flag("log_figure", log_figure, "Pass True to log the coverage figure.")
        self.sampler: RS2Sampler | None = None
        self._restored: dict[str, Any] | None = None
        self._whole_rounds = True
        self._validation = RoundValidation(self.state_key)
        self._feed: LossFeed | None = None  # of the last run in mode "loss"
        self._known: dict[str, Any] | None = None
        self._running = False

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(loader=self.loader)

    @property
    def neutral(self) -> bool:
        """Whether the callback leaves training exactly as it is."""
        asks_for_more = self.mode in ("bootstrap", "loss") or self.stratify or isinstance(self.validate, int)
        return not self.enabled or (self.ratio == 1 and not asks_for_more)

    # -- attach and detach ----------------------------------------------------------------------------------------
    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach(trainer)
        if stage != "fit":
            return
        goes_on = self._feed is not None and trainer.current_epoch > 0  # the same run, with more epochs
        self._known = self.state_dict() if goes_on else None
        self.sampler = self._feed = self._restored = None  # a checkpoint to resume from is read after this
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
        self._validation.stop(trainer)
        self._running = False

    # -- the loader -----------------------------------------------------------------------------------------------
    def _sampled(self, trainer: Trainer, loaders: Any) -> Any:
        """Return the user's loaders with the chosen one drawing RS2 rounds; called when the Trainer loads data."""

        def build(loader: Any) -> ResumableLoader:
            ranks = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
            # the length of the run is not known yet: on_train_start makes the guide anew
            placeholder: GuideOptions = {"total_rounds": 1} if self.mode == "loss" else {}
            rounds = rs2_loader(
                loader,
                self.ratio,
                mode=self.mode,
                stratify=self.stratify,
                seed=self.seed,
                position=lambda: compat.position_in_run(trainer),
                **ranks,
                **placeholder,
            )
            self._take_over(rounds.sampler)  # type: ignore[arg-type]
            return rounds

        try:
            return replace_loader(loaders, self.loader, build, "RS2")  # the rest in on_train_start
        except ValueError as problem_found:
            self.sampler = self._feed = None
            self._conflict(str(problem_found), problem_found)
            return loaders

    def _take_over(self, sampler: RS2Sampler) -> None:
        """Use a new sampler; one for loaders reloaded inside a run goes on from what the last one knew."""
        if self._feed is not None:
            self._feed.use(sampler, self.state_dict())
        self.sampler = sampler

    def _conflict(self, message: str, cause: Exception | None = None) -> None:
        if self.on_conflict == "raise":
            raise MisconfigurationException(message) from cause
        rank_zero_warn(f"RS2Callback does nothing in this run. {message}")

    # -- when training starts: everything is loaded and restored ---------------------------------------------------
    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.sampler is None:
            return
        begin_next_epoch(trainer)
        batches = len(self.sampler) // (self.sampler.round_to or 1)
        known = self._restored or self._known
        if compat.has_trained(trainer):  # a batch size finder restores the beginning of this run, of other batches
            self._check_restored(self.sampler)
        self._restored = None
        if self.mode == "loss":
            total = planned_rounds(trainer, batches, self.guide_options["warm_rounds"])
            self._feed = LossFeed(self.loss_key, self.index_key, self.guide_options, total)
            self._feed.use(self.sampler, known)
        self._running = True
        self._whole_rounds = self._check_whole_rounds(trainer, batches)
        if not compat.is_dev_run(trainer):
            usual = -(-self.sampler.n_rows // self.sampler.multiple)
            check_horizons(trainer, self.lr_horizon, "RS2Callback", batches / usual)
        # None: the user counts steps, and steps stay steps. Without validation there is nothing to thin out, and
        # ModelCheckpoint would wait for one
        users = compat.users_check_val(trainer)
        if self.validate != "round" and users is not None and trainer.enable_validation:
            rounds = users * round(1 / self.ratio) if self.validate == "pass" else int(self.validate)
            self._validation.start(trainer, rounds, batches)

    def _check_whole_rounds(self, trainer: Trainer, batches: int) -> bool:
        """Say so when an epoch holds more or less than one round."""
        try:  # not earlier: another callback may shorten the other loaders, too
            check_not_cycled(compat.combined_train_loader(trainer), self.loader, "RS2", advice=ADVICE)
        except ValueError as problem_found:
            if self.on_conflict == "raise":
                raise MisconfigurationException(str(problem_found)) from problem_found
            rank_zero_warn(f"Rounds are repeated inside an epoch. {problem_found}")
        if trainer.num_training_batches >= batches:
            return True
        if not compat.is_dev_run(trainer):
            rank_zero_warn(
                f"Every RS2 round is cut from {batches} to {trainer.num_training_batches} batches, by "
                "limit_train_batches or a shorter loader beside it; what is cut off is not made up for in later "
                "rounds. Lower `ratio` instead."
            )
        return False

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation.begin_round(trainer)

    # -- losses, log and figure -----------------------------------------------------------------------------------
    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._feed is not None:
            self._feed.take(outputs, batch_idx)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._feed is not None:
            self._feed.flush(trainer)
            self._feed.check_any()
        if self.sampler is not None and self._whole_rounds:
            name, coverage = self._name(trainer, "coverage"), self.sampler.coverage(trainer.current_epoch + 1)
            pl_module.log(name, coverage, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.sampler is not None and self.log_figure and trainer.is_global_zero and not compat.is_dev_run(trainer):
            guided, rounds = self._feed is not None, max(trainer.current_epoch, 1)
            figure = loss_figure(self.sampler) if guided else coverage_figure(self.sampler, rounds)
            log_figure(trainer, self._name(trainer, "losses" if guided else "coverage"), figure, trainer.global_step)

    def _name(self, trainer: Trainer, what: str) -> str:
        alone = sum(isinstance(each, RS2Callback) for each in trainer.callbacks) == 1  # type: ignore[attr-defined]
        return f"rs2/{what}" if alone else f"rs2/{what}/{self.loader}"

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        if self.mode == "loss" and self._feed is None and self._restored is not None:
            return self._restored  # of a run that had ended: nothing is trained, so that no guide was made of it
        # the round and the batches done in it are the Trainer's own counters, so only their meaning is kept here
        fingerprint = None if self.sampler is None else self.sampler.fingerprint()
        batch = 0 if self.sampler is None else self.sampler.multiple
        state = {"fingerprint": fingerprint, "global_batch": batch}
        if self._feed is not None and self._feed.sampler.guide is not None:
            state["guide"] = self._feed.sampler.guide.state_dict()
        return with_version(state, STATE_VERSION)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._feed is not None:  # every rank is here, so that the losses since the round began can be gathered
            self._feed.flush(trainer)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    @override
    @reading_state("RS2Callback")
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, "RS2Callback")
        if self._running and self._feed is not None:  # the search for a learning rate takes back what it did
            self._feed.use(self._feed.sampler, state_dict)
        else:
            self._restored = state_dict

    @reading_state("RS2Callback")
    def _check_restored(self, sampler: RS2Sampler) -> None:
        """Compare the checkpoint with this run; in `on_train_start`, where every strategy has restored it."""
        restored = self._restored
        if restored is None or restored["fingerprint"] is None:
            return
        saved = {**restored["fingerprint"], "global batch": restored["global_batch"]}
        here = {**sampler.fingerprint(), "global batch": sampler.multiple}
        try:
            check_fingerprint("RS2Callback", saved=saved, here=here)
        except ValueError as problem_found:
            raise MisconfigurationException(str(problem_found)) from problem_found
