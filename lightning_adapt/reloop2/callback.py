"""ErrorMemoryCallback: corrects the predictions of a module that stays as it is, and learns from late labels."""

# Over 300 lines: one public class, half of it documentation and hooks; its parts are in compensator.py and capture.py.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared.checks import check_choice, check_flag, check_integer, problem
from lightning_adapt._shared.figures import log_figure
from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt._shared.stage_hooks import STAGES, Stage, StageHooks, check_stages
from lightning_adapt._shared.state import read_version, reading_state, to_plain, with_version
from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory
from lightning_adapt.reloop2.batches import check_callable, default_ids, default_labels, match_labels
from lightning_adapt.reloop2.capture import warn_of_other_outputs
from lightning_adapt.reloop2.compensator import KINDS, Compensator, Memory, make_memory
from lightning_adapt.reloop2.feedback import Feedback, FeedbackQueue
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.stage_metrics import StageMetrics

__all__ = ["ErrorMemoryCallback"]

STATE_VERSION = 1


class ErrorMemoryCallback(StageHooks, Callback):
    """Adapt a served model to new feedback without retraining (ReLoop2: Zhu et al., KDD 2023, arXiv 2306.08808).

    In validation, test and prediction the output of your module is corrected by what a memory knows of the model's
    recent errors, before your own `test_step` or `predict_step` sees it; when a batch is done, its labels are written
    to the memory, so that the next batch profits. The weights stay as they are. Training is not touched.

    The default memory, "auto", finds the module's embeddings and last hidden layer by itself and learns how far to
    trust which of them (`AdaptiveErrorMemory`). Validation inside `fit` uses a memory of its own each time, which is
    thrown away; the sanity check uses none.

    Feed it batches in time order: shuffled feedback has no drift to follow. It logs `reloop2/<stage>_<metric>` and
    `reloop2/<stage>_base_<metric>` side by side (AUC, log loss, calibration; mean squared error for regression).

    .. tip:: One instance per Trainer: two would correct the same output twice.

    Args:
        memory: "auto", or an `ErrorMemory` or `AdaptiveErrorMemory` of your own.
        key_module: Name of the submodule that gives the key; None: the output module.
        key_from: Take its "input" (of the output module: the last hidden layer) or its "output".
        output_module: Name of the submodule whose output is corrected, one number per row; None: the last
            `Linear(., 1)`. It must give the whole logit, not one term of a sum.
        output_kind: What that output is: "logit", "probability", "regression"; "auto": a logit, or what the memory's
            task and a Sigmoid say.
        label_fn: Takes a batch and returns its labels, shape (B,). None: the usual keys of a dict ("label", "y", ...),
            the last entry of a tuple.
        id_fn: Takes a batch and returns ids of its rows, int64 of shape (B,), that grow with time; under several
            processes rows are put back in their order, and repeated ones dropped. None: "index" of a dict, or else the
            rows' place.
        fields_fn: Takes a batch and returns further id fields as a dict of int64 tensors of shape (B,): ids that the
            module itself does not see, or sees as one unknown id. For adaptive memories.
        delay: Batches that labels are late. 0: they are written right after their batch was predicted.
        stages: Where outputs are corrected: "validate", "test", "predict".
        write_in: Stages whose labels are written, beside validation inside `fit`.
        reset_on: "weights": begin anew when the weights are other than those the memory was written for; "never".
        log_base: Log metrics, of the base model beside those of the corrected output.
        log_figure: Log a figure of AUC and log loss over ten stretches of a test (extra `figures`); needs `log_base`.
        enabled: False to switch the callback off.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
        MisconfigurationException: When a run starts, if the module has no such output, or its labels are not found.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ErrorMemoryCallback()], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        memory: Literal["auto"] | ErrorMemory | AdaptiveErrorMemory = "auto",
        *,
        key_module: str | None = None,
        key_from: Literal["input", "output"] = "input",
        output_module: str | None = None,
        output_kind: Literal["auto", "logit", "probability", "regression"] = "auto",
        label_fn: Callable[[Any], Tensor] | None = None,
        id_fn: Callable[[Any], Tensor] | None = None,
        fields_fn: Callable[[Any], Mapping[str, Tensor]] | None = None,
        delay: int = 0,
        stages: Sequence[Stage] = STAGES,
        write_in: Sequence[Stage] = ("test",),
        reset_on: Literal["weights", "never"] = "weights",
        log_base: bool = True,
        log_figure: bool = False,
        enabled: bool = True,
    ) -> None:
        self.memory: Memory = make_memory(memory)
        self._places = {
            "key_module": key_module,
            "key_from": check_choice("key_from", key_from, ("input", "output"), "Use 'input'."),
            "output_module": output_module,
            "output_kind": check_choice("output_kind", output_kind, KINDS, "Use 'auto'."),
        }
        self.label_fn = check_callable("label_fn", label_fn) or default_labels
        self.id_fn = check_callable("id_fn", id_fn) or default_ids
        self.fields_fn = check_callable("fields_fn", fields_fn)
        self.delay = check_integer("delay", delay, "Pass the batches that labels are late, 0 for none.")
        self.stages = check_stages("stages", stages)
        self.write_in = check_stages("write_in", write_in)
        self.reset_on = check_choice("reset_on", reset_on, ("weights", "never"), "Use 'weights'.")
        self.log_base = check_flag("log_base", log_base, "Pass False to log nothing.")
        self.log_figure = check_flag("log_figure", log_figure, "Pass True to log a figure at the end of a test.")
        self.enabled = check_flag("enabled", enabled, "Pass False to switch the callback off.")
        self.weights: str | None = None  # fingerprint of what the memory was written for
        self._queue = FeedbackQueue(self.delay)
        self._metrics: StageMetrics | None = None
        self._compensator: Compensator | None = None
        self._writes = self._in_fit = self._warned = False
        self._other_keys = False  # whether the memory, now empty, is whitened by the keys of other weights

    # -- stages -------------------------------------------------------------------------------------------------------
    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.enabled and stage == "predict" and "predict" in self.write_in and trainer.world_size > 1:
            remedy = "Lightning gives ranks different numbers of batches there. Use trainer.test, or one process."
            allowed = "without 'predict' under several processes"
            raise MisconfigurationException(problem("write_in", allowed, list(self.write_in), remedy))

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled and "validate" in self.stages:
            self._compensator_for(pl_module, self.memory)  # what cannot work is said before hours of training

    def _compensator_for(self, pl_module: LightningModule, memory: Memory) -> Compensator:
        try:
            return Compensator(pl_module, memory, keep_units=True, **self._places)  # type: ignore[arg-type]
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error

    @override
    def begin_stage(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        if not self.enabled or stage not in self.stages:
            return
        self._in_fit = str(getattr(trainer.state.fn, "value", None)) == "fit"
        if self._in_fit:
            memory = self._scratch()
        else:
            memory = self.memory
            self._check_weights(pl_module)
        with torch.inference_mode(False):  # a buffer that moves here is a new one, to be written to anywhere
            for each in (memory, self.memory):
                each.to(pl_module.device)
        self._writes = self._in_fit or stage in self.write_in
        self._queue.clear()
        compensator = self._compensator_for(pl_module, memory)
        if self._places["output_module"] is None:
            warn_of_other_outputs(pl_module)
        compensator.attach()
        self._compensator = compensator
        self._metrics = StageMetrics(memory, pl_module.device) if self.log_base and stage != "predict" else None

    def _scratch(self) -> Memory:
        """Return a memory for one validation inside fit, whitened by the keys of the one before."""
        scratch = self.memory.empty_copy()
        if not self.memory.n_written:
            self.memory.reset()  # the weights move: from here on it is whitened by the keys of this validation
        return scratch

    def _check_weights(self, pl_module: LightningModule) -> None:
        if self.reset_on == "never":
            return
        weights = weights_fingerprint(pl_module)
        if self.weights not in (None, weights):  # None: filled elsewhere, by the user
            if self.memory.n_written:
                rank_zero_warn(
                    "ErrorMemoryCallback: the weights have changed since the memory was written, so that its keys and "
                    "errors belong to another model. It begins anew; reset_on='never' keeps it.",
                    category=UserWarning,
                )
                self._other_keys = True
            self.memory.reset()
        self.weights = weights

    @override
    def end_epoch(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        if self._metrics is not None:
            for name, value in self._metrics.compute().items():  # equal on all ranks: the mean is the value
                pl_module.log(f"reloop2/{stage}_{name}", value, sync_dist=True)
            figure = self._metrics.figure() if self.log_figure and not self._in_fit else None
            if figure is not None and trainer.is_global_zero:
                log_figure(trainer, f"reloop2/{stage}_slots", figure, trainer.global_step)

    @override
    def end_stage(self) -> None:
        if self._compensator is not None:
            self._queue.flush(self._compensator.memory)

    @override
    def release(self) -> None:
        if self._compensator is not None:
            self._compensator.detach()
        self._compensator = self._metrics = None
        self._queue.clear()

    # -- batches ------------------------------------------------------------------------------------------------------
    @override
    def begin_batch(self, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._compensator is None:
            return
        if batch_idx == 0:
            self._queue.begin()
        self._compensator.begin(self.fields_fn(batch) if self.fields_fn else None)

    @override
    def end_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any, n_rows: int | None) -> None:
        if self._compensator is None:
            return
        passes = self._compensator.finish()
        labels = self._labels(batch)
        served = match_labels(passes, labels)
        if served is None:
            self._warn_once_of_no_pass()
            return
        if labels is not None and self._metrics is not None:
            ids = self.id_fn(batch) if trainer.world_size > 1 else None  # one process: rows come in their order, once
            self._metrics.update(served, labels.to(served.base.device), ids)
        gather = trainer.world_size == 1 or self._all_have_labels(trainer, labels)
        if not gather or not (self._writes or self._calibrates()):
            return
        rows = Feedback(served.keys, served.base if labels is None else labels, served.base, served.signals)
        rows = self._queue.gathered(trainer, rows, self.id_fn(batch), n_rows)
        if self._calibrates():
            self.memory.calibrate(rows.keys)  # type: ignore[arg-type]
        if self._writes and labels is not None:
            memory = self._compensator.memory
            if self._in_fit and not memory.is_calibrated:
                memory.calibrate(rows.keys)  # type: ignore[arg-type]
            if self._other_keys and not self._in_fit:
                memory.calibrate(rows.keys)  # type: ignore[arg-type]
                self._other_keys = False
            self._queue.add(memory, rows)

    def _warn_once_of_no_pass(self) -> None:
        if not self._warned:
            self._warned = True
            rank_zero_warn(
                "ErrorMemoryCallback: the output module did not run in this batch, or ran with gradients or inside a "
                "compiled submodule, so that nothing was corrected. Name the module that runs in output_module.",
                category=UserWarning,
            )

    def _all_have_labels(self, trainer: Trainer, labels: Tensor | None) -> bool:
        """Say whether all ranks have labels; raise if only some do, which would let the others wait for ever."""
        if not self._writes and self._metrics is None:
            return False  # prediction: ranks may have fewer batches than others, so they must not wait for each other
        everywhere = bool(trainer.strategy.reduce_boolean_decision(labels is not None, all=True))
        if labels is not None and not everywhere:
            allowed = "a function that finds labels on all ranks or on none"
            raise MisconfigurationException(problem("label_fn", allowed, "labels on some", _LABEL_REMEDY))
        return everywhere

    def _calibrates(self) -> bool:
        """Say whether what is served is to whiten the memory's keys: none is stored, and these will not be either."""
        return not self.memory.n_written and (self._in_fit or not self._writes)

    def _labels(self, batch: Any) -> Tensor | None:
        if not self._writes and self._metrics is None:
            return None
        labels = self.label_fn(batch)
        if labels is None:
            if self._writes and not self._in_fit:
                allowed = "given where labels are not found by their usual names"
                raise MisconfigurationException(problem("label_fn", allowed, batch, _LABEL_REMEDY))
            return None
        if not isinstance(labels, Tensor) or labels.ndim == 0 or labels.numel() != len(labels):
            raise TypeError(problem("label_fn", "a function that returns a tensor (B,)", labels, _LABEL_REMEDY))
        return labels.detach().reshape(-1).float()

    # -- state --------------------------------------------------------------------------------------------------------
    @override
    def state_dict(self) -> dict[str, Any]:
        # an empty memory has nothing to keep but what whitens its keys, which a test of a resumed run begins with
        worth = self.memory.n_written or self.memory.is_calibrated
        memory = to_plain(self.memory.state_dict()) if worth else None
        state = {"memory": memory, "config": self.memory.config(), "weights": self.weights}
        return with_version(state, STATE_VERSION)

    @override
    @reading_state("ErrorMemoryCallback")
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        read_version(state_dict, STATE_VERSION, "ErrorMemoryCallback")
        if self.memory.n_written and (state_dict["memory"] is None or self.weights != state_dict["weights"]):
            rank_zero_warn(
                f"ErrorMemoryCallback: the checkpoint's memory replaces one with {self.memory.n_written} rows of "
                "feedback. To go on with those, save a checkpoint after the test, or pass no ckpt_path.",
                category=UserWarning,
            )
        self.weights = state_dict["weights"]
        self._other_keys = state_dict["memory"] is None and bool(self.memory.n_written)
        if state_dict["memory"] is None:
            self.memory.reset()
        else:
            self.memory.load_state_dict(state_dict["memory"])


_LABEL_REMEDY = "Pass label_fn=lambda batch: batch['clicked'], say; or write_in=() to only read the memory."
