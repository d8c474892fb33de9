"""InEvaluation: the hooks that start validation, test and prediction from tuned states, and measure held-out losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.collectives import gather_rows
from lightning_adapt._shared.stage_hooks import Stage, StageHooks
from lightning_adapt.lina_speech.tuning.fit_checks import check_protocol
from lightning_adapt.lina_speech.tuning.held_out_sums import Reduce
from lightning_adapt.lina_speech.tuning.hold import Hold
from lightning_adapt.lina_speech.tuning.options import TuningOptions
from lightning_adapt.lina_speech.tuning.run import TuningRun, origin_of
from lightning_adapt.lina_speech.voices.voice import Voice

__all__ = ["InEvaluation", "checked_origin", "clear_errors", "summed"]


class InEvaluation(StageHooks, Callback):
    """What `InitialStateTuning` does outside of training steps."""

    in_sanity_check = True  # as in every other validation of the fit, the module starts from the tuned states
    enabled: bool
    options: TuningOptions
    _run: TuningRun | None = None  # of the running or last fit, or of a loaded state
    _hold: Hold | None = None  # of the running fit
    _loaded: dict[str, Any] | None = None  # until there is a module that it can be used with
    _voices: dict[str, Voice]  # of the last fit, or of a loaded state that was evaluated
    _evaluates = False  # in validate, test or predict, with a voice

    def _new_run(self, trainer: Trainer, pl_module: Any, known: dict[str, Any] | None) -> TuningRun:
        """Return a run for a module, which goes on from a saved one if there is one."""
        run = TuningRun(self.options, pl_module, _speakers_of(trainer))
        if known is not None:
            run.load_state_dict(known)
        self._loaded = None
        return run

    @override
    def begin_stage(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        if self._hold is not None and self._run is not None:
            self._run.begin_validation()
            return
        if not self.enabled:
            return
        with clear_errors():
            if self._loaded is not None:
                check_protocol(pl_module)
                self._run = self._new_run(trainer, pl_module, self._loaded)
                self._run.finish()
                self._voices = {}
            if self._run is None or not self._run.finished:
                return
            check_protocol(pl_module)
            speakers = _speakers_of(trainer)
            if speakers is not None:  # each DataModule numbers its own
                self._run.know_speakers(speakers)
            self._run.origin = checked_origin(self._run, pl_module)
            self._voices = self._voices or self._run.voices()
        self._run.states.to(pl_module.device)
        self._evaluates = True

    @override
    def begin_batch(self, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._run is not None and (self._evaluates or self._hold is not None):
            with clear_errors(), torch.no_grad():
                self._run.use(pl_module, batch)

    @override
    def end_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any, n_rows: int | None) -> None:
        if self._run is None:
            return
        if self._hold is not None and not trainer.sanity_checking:  # a validation of the fit: held-out losses
            with clear_errors(), trainer.precision_plugin.val_step_context():
                self._run.measure(pl_module, batch)
        if self._evaluates or self._hold is not None:
            self._run.rest(pl_module)

    @override
    def end_epoch(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        if self._hold is None or self._run is None or trainer.sanity_checking:
            return
        values = self._run.end_validation(trainer.global_step, summed(trainer))
        for name, value in values.items():  # equal on all processes already; `sync_dist` says so to Lightning
            pl_module.log(name, value, prog_bar=name == "lina/held_out_ratio", batch_size=1, sync_dist=True)
        if self._run.out_of_patience:
            trainer.should_stop = True

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()
        self.leave(pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()
        self.leave(pl_module)

    def _release(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()

    def leave(self, pl_module: Any) -> None:
        """Leave a module that was evaluated as without tuning; harmless when there is nothing to leave."""
        if self._evaluates and self._run is not None:
            self._evaluates = False
            self._run.states.cpu()
            pl_module.use_initial_states(None)


def checked_origin(run: TuningRun, pl_module: Any) -> dict[str, Any]:
    """Return what voices of a module belong to; refuse other weights than those that the states were tuned with."""
    origin = origin_of(pl_module)
    made_with, here = run.origin["model"], origin["model"]
    if made_with is not None and made_with != here:
        remedy = "Tuned states mean nothing to other weights: load those of the tuning run, or tune again."
        raise ValueError(problem("model", f"the one that was tuned, {made_with}", here, remedy))
    return origin


def _speakers_of(trainer: Trainer) -> Sequence[str] | None:
    """Return the names that the speakers of a batch are places in; None where no DataModule has them."""
    speakers: Sequence[str] | None = getattr(getattr(trainer, "datamodule", None), "speakers", None)
    return speakers


def summed(trainer: Trainer) -> Reduce:
    """Return what sums a tensor over all processes."""
    return lambda value: gather_rows(trainer, value[None]).sum(0)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Raise what does not fit together in Lightning's own way."""
    try:
        yield
    except (TypeError, ValueError) as found:
        raise MisconfigurationException(str(found)) from found
