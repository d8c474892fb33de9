"""What must hold between a Trainer, a module and initial-state tuning; and loading the base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require
from lightning_adapt.lina_speech.tuning.ending import check_out
from lightning_adapt.lina_speech.tuning.hold import SUBMODULE
from lightning_adapt.lina_speech.tuning.options import TuningOptions
from lightning_adapt.lina_speech.tuning.protocol import AcceptsInitialStates

__all__ = ["NAME", "check_fit", "check_protocol", "check_resumed", "load_base"]

NAME = "InitialStateTuning"
_METHODS = ("initial_state_shapes", "use_initial_states", "sequence_losses")
_SHARDING = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")
_AVERAGING = "WeightAveraging"  # the base of Lightning's callbacks that do so


def check_fit(options: TuningOptions, trainer: Any, module: Any) -> None:
    """Raise where a Trainer or a module cannot be used, or a missing package would make the run fail later.

    Args:
        options: What was asked for.
        trainer: The Trainer, in `setup`.
        module: The module that is to be tuned.

    Raises:
        ModuleNotFoundError: If an optional package is missing; names the extra.
        OSError: If voices cannot be written to `out`.
        ValueError: If Trainer or module do not fit.
    """
    check_protocol(module)
    if not module.automatic_optimization:
        remedy = "Optimizers that the module steps by hand would tune its weights: set it to True."
        raise ValueError(problem("automatic_optimization", f"True with {NAME}", False, remedy))
    if hasattr(module, SUBMODULE):
        raise ValueError(problem(f"module.{SUBMODULE}", f"free for {NAME}", getattr(module, SUBMODULE), "Rename it."))
    strategy = _kinds(trainer.strategy).intersection(_SHARDING)
    if strategy:
        remedy = "It cuts the weights into pieces, which cannot be compared: use one device or 'ddp'."
        raise ValueError(problem("strategy", f"one that keeps the weights whole with {NAME}", min(strategy), remedy))
    averaging = [type(callback).__name__ for callback in trainer.callbacks if _AVERAGING in _kinds(callback)]
    if averaging:
        remedy = "It would swap averages in for validation, and round the weights of the base: leave it out."
        raise ValueError(problem("callbacks", f"without averages of weights beside {NAME}", averaging[0], remedy))
    if options.out is not None:
        require("speech", f"{NAME}(out=...)", "safetensors")
        if trainer.is_global_zero:
            check_out(options.out, options.voices)
    if options.log_figure:
        require("figures", f"{NAME}(log_figure=True)", "matplotlib")


def _kinds(thing: Any) -> set[str]:
    return {kind.__name__ for kind in type(thing).__mro__}


def check_protocol(module: Any) -> None:
    """Raise if a module does not accept initial states.

    Args:
        module: Any module.

    Raises:
        ValueError: If it does not; names what it lacks.
    """
    missing = [name for name in _METHODS if not callable(getattr(module, name, None))]
    if missing:
        place = f"{AcceptsInitialStates.__name__} in {AcceptsInitialStates.__module__}"
        remedy = f"Add {', '.join(missing)} to it: see {place}, or use a LinaSpeechModule."
        raise ValueError(problem("module", "one that accepts initial states", type(module).__name__, remedy))


def check_resumed(checkpoint: Mapping[str, Any], key: str) -> None:
    """Raise if a fit is to go on from a checkpoint of a run without tuning, whose optimizer is another one.

    Args:
        checkpoint: What the Trainer was given as `ckpt_path`.
        key: Where it has the state of the callback.

    Raises:
        ValueError: If it has none.
    """
    if key not in checkpoint["callbacks"]:
        remedy = f"To tune a base, pass its checkpoint to {NAME}(checkpoint=...) and no `ckpt_path`."
        raise ValueError(problem("ckpt_path", f"a checkpoint of a run with {NAME}", "one of a run without", remedy))


def load_base(path: Path, module: Any) -> None:
    """Load the weights of a checkpoint, and what the module itself keeps in one.

    Args:
        path: The checkpoint, of the same module.
        module: The module.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or of another module.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}, which `checkpoint` names. Train a base first.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has several kinds for what is no checkpoint
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}, which `checkpoint` names, cannot be read as a checkpoint: {reason}") from error
    if not isinstance(saved, Mapping) or not isinstance(saved.get("state_dict"), Mapping):
        remedy = "Pass a file that a ModelCheckpoint wrote."
        raise ValueError(problem("checkpoint", "a checkpoint of Lightning", str(path), remedy))
    try:
        module.on_load_checkpoint(saved)
        module.load_state_dict(saved["state_dict"])
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise ValueError(f"{path}, which `checkpoint` names, is not of this module: {reason}") from error
