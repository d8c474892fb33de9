"""DiversitySelectionCallback: trains on the rows worth training on, and chooses anew while training runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import Self, override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import check_choice, check_flag, check_loader_key
from lightning_adapt._shared.kmeans import Engine
from lightning_adapt._shared.planned_steps import forget_plan, plan_steps
from lightning_adapt._shared.schedules import ACTIONS, Action
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.divconq.choosing.weights import Update
from lightning_adapt.divconq.rounds import SelectionRounds
from lightning_adapt.divconq.scoring.scorers import as_scorer
from lightning_adapt.divconq.selection import Dedup, Method, Quota
from lightning_adapt.divconq.text.rows import TextPart, check_part
from lightning_adapt.divconq.training.in_loop import needs_vectors
from lightning_adapt.divconq.training.options import (
    RoundInit,
    RunOptions,
    as_folder,
    check_effect,
    check_epochs,
    epochs_before_last_round,
)
from lightning_adapt.divconq.training.run import NO_STATE, SelectionRun
from lightning_adapt.divconq.training.run_checks import NAME

__all__ = ["DiversitySelectionCallback"]

STATE_VERSION = 1


class DiversitySelectionCallback(Callback):
    """Train on the most useful part of the data: diverse by clusters, chosen anew by early signals of training.

    Diversify and Conquer, Yu et al., 2024, arXiv 2409.11378. Rows are embedded and clustered; each cluster gives a
    quota, inside it rows are drawn by quality. With `rounds` > 1 the budget is spent in parts: after each part the
    model's own answers are rated against the data's, and clusters whose data teaches nothing give less. It works on
    whatever train loader the Trainer finds (DataModule, module or raw DataLoader) and keeps its workers, collate_fn,
    pinning and generator; workers become persistent. Epoch e belongs to round e // epochs_per_round, all epochs that
    are left to the last one. `num_training_batches` and `trainer.estimated_stepping_batches` follow the rounds.

    Rows are texts (see `texts_of`; tokenised rows are read with the `tokenizer` of the module or the DataModule), or
    anything else with `embedder=<array>`. All ranks embed and score their part and train on the same selection; n rows
    on W ranks give n - n % W a turn, so choose an even budget. Resume is exact at the end and in the middle of an
    epoch, there at an optimizer step (between accumulated batches Lightning forgets gradients). Other data is refused;
    where rows have neither texts nor vectors (method "random"), only their number is compared. It logs `divconq/round`,
    `divconq/selected` and `divconq/weight_entropy` of the epoch that ends, and `divconq/mean_score` after it.

    .. tip:: RS2Callback after this one in the list trains inside the selection.

    Args:
        budget: Rows in all, over all rounds: 103, 0.05 or "5%".
        method: "kmq": by clusters and quality (without `quality` uniform inside clusters); "km_random",
            "km_closest", "k_center", "random": see `select_rows`.
        rounds: Rounds; the paper has 3. More than one needs "kmq" or "km_random".
        epochs_per_round: Epochs of each round but the last; the paper has 1.
        k: Clusters, or "auto": by silhouette.
        embedder: None for TF-IDF; a model's name or folder; an array or file of one vector per row; an embedder.
        quality: A column, a function of the conversation, an array, or a scorer of quality: see `as_quality`.
        scorer: Rates rows between rounds: a function (examples, module) -> scores, or a scorer; None for
            `EmbeddingRelevanceScorer`.
        quota: Quotas of clusters with one round: "proportional" (paper) or "equal" (authors' code).
        initial_weights: With several rounds, weights of clusters at first: "uniform" or "proportional".
        update: How scores change weights: "exp", "ratio" (paper's Eq. 6) or "softmax" (authors' code).
        tau: Temperature of quality and update.
        shrink: Rows that the mean of all scores counts for in a cluster's score.
        drop_below: Clusters below this weight give no more rows.
        train_on: "union" of all rounds so far, or only the "new" rows.
        round_init: "continue", or "restart" each round from the weights, optimizer and scheduler states that training
            began with (authors' scripts); the copy is kept on the CPU and in checkpoints, and planned steps are then
            those of the last round.
        dedup: Copies to leave out: "none", "exact" or "near".
        engine: Engine of k-means.
        loader: Which train loader when there are several: a dict key or a position.
        seed: Seed of clusters, draws and the order in epochs; the same on all ranks.
        out_dir: Folder for `round-<r>.json` and `round-<r>.parquet`, see `read_round` (needs pyarrow: extra `llm`).
        enabled: False to switch the callback off.
        log_figure: Log the clusters' weights and a map of the selection at the end of `fit` (extra `figures`).
        cache_dir: Folder for vectors that later runs can use.
        text: What of a row is embedded: "prompt", "response" or "prompt+response" (paper).
        lr_horizon: When a learning-rate schedule fits another number of steps: "warn", "rescale", "error", "ignore".

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or differs from its default where it would have no effect.
        MisconfigurationException: In `fit`, when the Trainer, the loader or the data cannot be used with it.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> selection = DiversitySelectionCallback("5%", rounds=3)
        >>> trainer = Trainer(max_epochs=5, callbacks=[selection], logger=False)
    """

    def __init__(
        self,
        budget: int | float | str,
        method: Method = "kmq",
        *,
        rounds: int = 1,
        epochs_per_round: int = 1,
        k: int | Literal["auto"] = "auto",
        embedder: Any = None,
        quality: Any = None,
        scorer: Any = None,
        quota: Quota = "proportional",
        initial_weights: Literal["uniform", "proportional"] = "uniform",
        update: Update = "exp",
        tau: float = 1.0,
        shrink: float = 4.0,
        drop_below: float = 0.0,
        train_on: Literal["union", "new"] = "union",
        round_init: RoundInit = "continue",
        dedup: Dedup = "exact",
        engine: Engine = "auto",
        loader: str | int | None = None,
        seed: int = 42,
        out_dir: str | Path | None = None,
        enabled: bool = True,
        log_figure: bool = False,
        cache_dir: str | Path | None = None,
        text: TextPart = "prompt",
        lr_horizon: Action = "warn",
    ) -> None:
        self.settings: dict[str, Any] = {"budget": budget, "method": method, "rounds": rounds, "k": k, "quota": quota}
        self.settings |= {"initial_weights": initial_weights, "update": update, "tau": tau, "shrink": shrink}
        self.settings |= {"drop_below": drop_below, "train_on": train_on, "dedup": dedup, "engine": engine}
        self.settings |= {"seed": seed}
        plan = SelectionRounds(**self.settings)  # checks them
        self.rounds, self.seed = rounds, seed
        self.epochs_per_round = check_epochs(epochs_per_round)
        self.embedder, self.quality, self.scorer = embedder, quality, scorer
        self.round_init = check_choice("round_init", round_init, ("continue", "restart"), "Use 'continue'.")
        self.loader = check_loader_key(loader)
        self.out_dir, self.cache_dir = as_folder("out_dir", out_dir), as_folder("cache_dir", cache_dir)
        self.enabled = check_flag("enabled", enabled, "Pass False to switch the callback off.")
        self.log_figure = check_flag("log_figure", log_figure, "Pass True to log figures.")
        self.text = check_part(text)
        self.lr_horizon = check_choice("lr_horizon", lr_horizon, ACTIONS, "Use 'warn' to be told.")
        as_scorer(scorer)  # checks it
        check_effect({**self.settings, **vars(self)}, vectors=needs_vectors(plan))
        self._run: SelectionRun | None = None  # of the running or last fit

    @classmethod
    def paper_wizardlm(cls, budget: int | float | str = "5%", **changes: Any) -> Self:
        """Return the callback as the authors' scripts set it for the WizardLM data, since the paper leaves things open.

        The paper's: 5 % of the data, kMQ, 3 rounds, even weights at first, training on the union. The scripts': k=512
        (the paper does not say), weights by softmax of the mean scores (the paper's Eq. 6 is update="ratio"), prompts
        alone embedded, each round 3 epochs from the base model (the paper: 1 epoch, and 3 in the end). Train with a
        batch of 64, length 2048, all weights, lr 2e-5 falling linearly after 3 % warm-up, `max_epochs=9`. Quality and
        scorer were models of theirs: pass `quality` and `scorer`. Copies of rows are left out, which they did not.

        Args:
            budget: As in the class.
            **changes: Other arguments of the class, which come first.

        Returns:
            The callback.

        Raises:
            TypeError: As the class does.
            ValueError: As the class does.
        """
        theirs = {"k": 512, "rounds": 3, "epochs_per_round": 3, "update": "softmax", "shrink": 0.0}
        return cls(budget, **{**theirs, "round_init": "restart", "text": "prompt", **changes})

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(loader=self.loader)

    @property
    def selection(self) -> SelectionRounds | None:
        """The rounds of the running or last `fit`: rows, clusters, weights, scores; None before the first."""
        return None if self._run is None or self._run.running is None else self._run.running.rounds

    # -- attach and detach ----------------------------------------------------------------------------------------
    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach(trainer)
        if stage != "fit":
            return
        goes_on = self._run is not None and trainer.current_epoch > 0  # the same run, with more epochs
        known = self._run.state_dict() if self._run is not None and goes_on else NO_STATE
        self._run = None
        if not self.enabled:
            return
        with _clear_errors():
            run = SelectionRun(self._options(), trainer)
        run.load_state_dict(known)
        self._run = run
        change = partial(self._chosen, run, trainer, pl_module)
        compat.add_train_loader_transform(trainer, self.state_key, change)
        if self.rounds > 1:
            restarts = self.round_init == "restart" and not compat.is_dev_run(trainer)  # that one has no last round
            first = epochs_before_last_round(self.epochs_per_round, self.rounds) if restarts else 0
            plan_steps(trainer, self.state_key, run.resize, first_epoch=first)

    def _options(self) -> RunOptions:
        names = (field.name for field in fields(RunOptions))
        return RunOptions(**{name: getattr(self, name) for name in names})

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach(trainer)

    def _detach(self, trainer: Trainer) -> None:
        compat.remove_train_loader_transform(trainer, self.state_key)
        compat.restore_reloading(trainer)
        forget_plan(trainer, self.state_key)
        if self._run is not None:
            self._run.release_loader()

    @staticmethod
    def _chosen(run: SelectionRun, trainer: Trainer, pl_module: LightningModule, loaders: Any) -> Any:
        """Return the user's loaders with the chosen one drawing the selection; called when the Trainer loads data."""
        with _clear_errors():
            return run.choose(trainer, pl_module, loaders)

    # -- rounds ---------------------------------------------------------------------------------------------------
    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run is not None:  # everything is loaded and restored
            with _clear_errors():
                self._run.start(trainer, pl_module)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run is not None:
            self._run.begin_round(trainer, pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._run is not None:  # resumed after the last batch of an epoch, the next one starts without its hook
            self._run.begin_round(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {} if self._run is None else self._run.end_epoch(trainer, pl_module)
        if values:
            pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run is not None:
            self._run.end(trainer)

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        return with_version(NO_STATE if self._run is None else self._run.state_dict(), STATE_VERSION)

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":  # a test needs nothing of this, and leaves what training knows
            checkpoint["callbacks"].pop(self.state_key, None)

    @override
    @reading_state(NAME)
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, NAME)
        if self._run is not None:
            self._run.load_state_dict(state_dict)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Raise what does not fit together in Lightning's own way."""
    try:
        yield
    except ValueError as found:
        raise MisconfigurationException(str(found)) from found
