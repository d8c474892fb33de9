"""InitialStateTuning: learns a voice as the state that the recurrences of a frozen model start from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import check_flag, problem
from lightning_adapt._shared.resumed_epochs import begin_next_epoch
from lightning_adapt._shared.state import read_version, reading_state, with_version
from lightning_adapt.lina_speech.tuning.ending import summary, write_voices
from lightning_adapt.lina_speech.tuning.evaluation import InEvaluation, checked_origin, clear_errors, summed
from lightning_adapt.lina_speech.tuning.figure import log_tuning, tuning_figure
from lightning_adapt.lina_speech.tuning.fit_checks import NAME, check_fit, check_resumed, load_base
from lightning_adapt.lina_speech.tuning.hold import Hold, adam
from lightning_adapt.lina_speech.tuning.options import TuningOptions
from lightning_adapt.lina_speech.tuning.rates import rate_factor_of
from lightning_adapt.lina_speech.voices.voice import Voice

__all__ = ["InitialStateTuning"]

STATE_VERSION = 1


class InitialStateTuning(InEvaluation):
    """Learn a voice, or a style, by tuning only the state that the recurrences of a frozen model start from.

    Initial-state tuning as in the authors' code of Lina-Speech, Lemerle et al., 2024, arXiv 2410.23320. A voice is
    a file of some hundred kilobytes, learnt in seconds to minutes; the model itself is not changed, so that nothing
    is forgotten, and speech in the voice costs nothing more. Works with any LightningModule that accepts initial
    states: see `AcceptsInitialStates` in `lightning_adapt.lina_speech.tuning.protocol`. Train on speech and texts
    of the person, validate on some more of them.

    During `fit` the weights are frozen, layers with running statistics do not move them, and Adam on the states
    stands in for `configure_optimizers`. Afterwards the module is as it was (its weights are compared by their hash),
    also after an error. A checkpoint of such a run is one of the base, with the states in the callback's state; resume
    is exact. Held-out losses come from `sequence_losses` on the validation batches, at the first validation also those
    of the base, over all processes. The best states so far are kept, the base (zeros) being the first, so that a voice
    is never worse than the base on its held-out data. It logs `lina/held_out_loss`, `lina/held_out_untuned` and
    `lina/held_out_ratio` (means over voices), with several voices also `lina/held_out_ratio/NAME`.

    Afterwards `voices` holds the voices by name, and `validate`, `test` and `predict` with this callback start from
    them. With a launcher that runs `fit` in other processes (ddp_fork, ddp_spawn), read them from `out`.

    Args:
        voice: Name of the voice, that of all rows; or several names, tuned together by one callback (a Trainer takes no
            second one): a batch names the speaker of each row, and each voice learns from its own rows (Adam's momentum
            moves it a little in steps without any).
        rank: Rank of the matrices: 1 as the authors; 4 to 16 for some minutes of data, while its factors are smaller
            than the matrices; or "full", matrices that start as zeros, at a learning rate that falls to a tenth along a
            cosine.
        scale: Factor of low-rank matrices, the authors' gamma.
        learning_rate: Of Adam.
        layers: "all", or numbers and names of the recurrences that are tuned; others start from zeros.
        positional_state: Tune the recurrence over text positions, too, where there is one; the authors do not.
        patience: Stop after so many validations in which no voice got better; None for never.
        max_steps: Stop after so many optimizer steps; None to train as long as the Trainer says.
        checkpoint: Checkpoint whose weights are loaded into the module first; None for those it has.
        out: File of the voice (safetensors); for several voices a folder, for files NAME.safetensors.
        consent: Who agreed to what, in words; kept in the file.
        speaker_key: Key of the speakers in a batch that is a dict, or their place in one that is a tuple or a list; one
            a row, as places in `speakers` of the DataModule, else in `voice`; or as names.
        log_figure: Log a figure of held-out losses and sizes of the states at the end of `fit` (extra `figures`).
        seed: Of the start of low-rank states.
        enabled: False to switch the callback off.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        MisconfigurationException: In `fit`, when module, Trainer or data cannot be used with it.
        OSError: In `fit`, if `out` cannot be written to; checked before, the voices of a fit that ends so are kept.
        RuntimeError: At the end of `fit`, if the weights of the module were changed all the same.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> tuning = InitialStateTuning("anna", rank=4, max_steps=60, out="anna.safetensors")
        >>> trainer = Trainer(callbacks=[tuning], val_check_interval=10, check_val_every_n_epoch=None, logger=False)
    """

    def __init__(
        self,
        voice: str | Sequence[str] = "voice",
        *,
        rank: int | Literal["full"] = 1,
        scale: float = 0.02,
        learning_rate: float = 0.1,
        layers: Literal["all"] | Sequence[int | str] = "all",
        positional_state: bool = False,
        patience: int | None = 5,
        max_steps: int | None = None,
        checkpoint: str | Path | None = None,
        out: str | Path | None = None,
        consent: str | None = None,
        speaker_key: int | str = "speaker",
        log_figure: bool = False,
        seed: int = 0,
        enabled: bool = True,
    ) -> None:
        self.enabled = check_flag("enabled", enabled, "Pass False to switch the callback off.")
        given: dict[str, Any] = {"rank": rank, "scale": scale, "learning_rate": learning_rate, "layers": layers}
        given |= {"positional_state": positional_state, "patience": patience, "max_steps": max_steps}
        given |= {"checkpoint": checkpoint, "out": out, "consent": consent, "speaker_key": speaker_key}
        self.options = TuningOptions.checked(voice, log_figure=log_figure, seed=seed, **given)
        self._voices: dict[str, Voice] = {}

    @property
    def voices(self) -> dict[str, Voice]:
        """The voices of the last fit by name, or of a loaded state once it was evaluated; empty before."""
        return dict(self._voices)

    @property
    def tuned(self) -> Voice:
        """The voice of the last fit, where one was tuned.

        Raises:
            RuntimeError: If there are several, or no fit of this process has ended.
        """
        if len(self._voices) != 1:
            have = ", ".join(map(repr, self._voices)) or "none: no fit has ended in this process"
            raise RuntimeError(f"`tuned` is the voice of a fit of one voice, but there are: {have}. See `voices`.")
        return next(iter(self._voices.values()))

    def figure(self) -> Any:
        """Draw the last fit: held-out losses with those of the base, and what was learnt, by layer.

        Returns:
            A matplotlib figure that belongs to no window.

        Raises:
            ModuleNotFoundError: If matplotlib is missing; names the extra.
            RuntimeError: If there was no fit in this process.
        """
        if self._run is None:
            raise RuntimeError("There is nothing to draw: no fit has run in this process.")
        return tuning_figure(self.options.voices, self._run.best, self._run.states)

    # -- attach and detach ----------------------------------------------------------------------------------------
    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not self.enabled or stage != "fit":
            return
        self._release()
        known = self._run.state_dict() if self._run is not None and trainer.global_step > 0 else self._loaded
        with clear_errors():
            check_fit(self.options, trainer, pl_module)
            if self.options.checkpoint is not None:
                load_base(self.options.checkpoint, pl_module)
            self._begin(trainer, pl_module, known)
        self._voices = {}

    def _begin(self, trainer: Trainer, pl_module: Any, known: dict[str, Any] | None) -> None:
        run = self._new_run(trainer, pl_module, known)
        run.speakers.check_all_there()
        factor = rate_factor_of(self.options, trainer)
        optimizers = partial(adam, run.states, self.options.learning_rate, factor)
        self._run, self._hold = run, Hold(pl_module, run.states, optimizers)

    # -- training -------------------------------------------------------------------------------------------------
    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._hold is not None and self._run is not None:
            self._hold.freeze()
            self._hold.remember_weights()
            with clear_errors():  # of a run that goes on, the weights must be those that it began with
                self._run.origin = checked_origin(self._run, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._hold is not None and self._run is not None:
            if begin_next_epoch(trainer):  # the end of the epoch before is left out
                self._run.heard.begin_epoch()
            self._stop_after_max_steps(trainer)
            if self._run.out_of_patience:  # resumed after it had stopped
                trainer.should_stop = True

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._hold is None or self._run is None:
            return
        self._hold.still_statistics()
        with clear_errors():
            rows = self._run.use(pl_module, batch)
            blend = self._run.speakers.blend(batch)
        if blend is not None:
            rank_zero_warn(blend)
        seconds = getattr(pl_module, "sequence_seconds", None)
        self._run.heard.add(rows, None if seconds is None else seconds(batch))

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self._hold is not None and not loss.requires_grad:
            remedy = "Have `training_step` start from what `use_initial_states` was given, without detaching it."
            raise MisconfigurationException(
                problem("training_step", "a loss that depends on the initial states", "one that does not", remedy)
            )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._hold is not None and self._run is not None:
            self._run.rest(pl_module)
            self._stop_after_max_steps(trainer)

    def _stop_after_max_steps(self, trainer: Trainer) -> None:
        if self.options.max_steps is not None and trainer.global_step >= self.options.max_steps:
            trainer.should_stop = True

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._hold is not None and self._run is not None:
            self._run.heard.collect(summed(trainer), end_of_epoch=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._hold is None or self._run is None:
            return
        self._hold.move_statistics()
        self._run.finish()
        self._run.rest(pl_module)
        if self.options.log_figure and trainer.is_global_zero and not compat.is_dev_run(trainer):
            log_tuning(trainer, self._run)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        hold, run = self._hold, self._run
        if hold is None or run is None:
            return
        self._release()
        hold.check_weights()
        run.finish()  # again: nothing may have been trained at all, or a callback have put averages in their place
        run.states.cpu()
        self._voices, broken = run.whole_voices()
        if not compat.is_dev_run(trainer):
            for text in run.warnings():
                rank_zero_warn(text)
            if trainer.is_global_zero and self.options.out is not None and self._voices:
                write_voices(self.options.out, self.options.voices, self._voices)
            rank_zero_info(summary(run, self._voices, trainer.global_step))
        if broken is not None:  # the others are there, and written
            raise broken

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        run = self._loaded
        if run is None and self._run is not None:
            run = self._run.state_dict()
        return with_version({"run": run}, STATE_VERSION)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._hold is not None and self._run is not None:  # every process is here: each has heard its own part
            self._run.heard.collect(summed(trainer), end_of_epoch=False)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._hold is not None:
            with clear_errors():
                check_resumed(checkpoint, self.state_key)

    @override
    @reading_state(NAME)
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, NAME)
        if state_dict["run"] is None:
            return
        if self._hold is None or self._run is None:
            self._loaded = state_dict["run"]
            return
        with clear_errors():
            self._run.load_state_dict(state_dict["run"])
