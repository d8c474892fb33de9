"""One call that logs a sound to whichever loggers a Trainer has, and one that writes it to a file (extra `speech`)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require

__all__ = ["log_audio", "save_audio"]


def save_audio(path: str | os.PathLike[str], audio: Tensor, sample_rate_hz: int) -> Path:
    """Write a sound to a file, all of it or nothing (a temporary file beside it, then a rename).

    Args:
        path: Where to; the ending chooses the format (wav, flac, ogg). Missing folders are made.
        audio: Samples; what is outside [-1, 1] is cut off. Shape (S,), any float dtype.
        sample_rate_hz: Samples per second.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: If soundfile is missing; names the extra.
        TypeError: If the audio is no tensor of floats, or the rate no whole number.
        ValueError: If the audio has not one dimension, the rate is below 1, or the ending means no sound format.
    """
    require("speech", "save_audio", "soundfile")
    import soundfile

    samples = _mono(audio)
    rate = check_integer("sample_rate_hz", sample_rate_hz, "Pass 22050.", minimum=1)
    kind = Path(path).suffix.lstrip(".").upper()
    if kind not in soundfile.available_formats():
        raise ValueError(problem("path", "a file that ends in .wav, .flac or .ogg", str(path), "Pass 'speech.wav'."))
    with whole_file(path) as unfinished:
        soundfile.write(str(unfinished), samples.numpy(), rate, format=kind)
    return Path(path)


def log_audio(trainer: Any, name: str, audio: Tensor, sample_rate_hz: int, step: int) -> list[str]:
    """Log a sound to every logger of a Trainer: TensorBoard, W&B, MLflow, CSV, several at once, or none.

    A logger that cannot hold sounds (CSV, unknown ones) gets a wav beside its files; without any logger the wav goes to
    `audio/` in the Trainer's `default_root_dir`. Call it on rank 0.

    Args:
        trainer: A Trainer of `lightning.pytorch` or `pytorch_lightning`.
        name: Key, `<method>/<quantity>`.
        audio: Samples; what is outside [-1, 1] is cut off. Shape (S,), any float dtype.
        sample_rate_hz: Samples per second.
        step: Global step.

    Returns:
        Where it went: a word per logger, or the path of the file.
    """
    samples = _mono(audio)
    places = [_log_to(logger, trainer, name, samples, sample_rate_hz, step) for logger in trainer.loggers]
    return places or [_beside(trainer.default_root_dir, name, samples, sample_rate_hz, step)]


def _log_to(logger: Any, trainer: Any, name: str, samples: Tensor, rate: int, step: int) -> str:
    # by class name: the same loggers exist under lightning.pytorch and pytorch_lightning, and none need be installed
    kinds = {kind.__name__ for kind in type(logger).__mro__}
    if "TensorBoardLogger" in kinds:
        logger.experiment.add_audio(name, samples.unsqueeze(0), global_step=step, sample_rate=rate)
        return "tensorboard"
    if "WandbLogger" in kinds:
        logger.log_audio(key=name, audios=[samples.numpy()], step=step, sample_rate=[rate])
        return "wandb"
    if "MLFlowLogger" in kinds:
        with tempfile.TemporaryDirectory() as folder:
            file = save_audio(Path(folder) / f"{name.rsplit('/', 1)[-1]}-step{step}.wav", samples, rate)
            logger.experiment.log_artifact(logger.run_id, str(file), "/".join(["audio", *name.split("/")[:-1]]))
        return "mlflow"
    folder = getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None) or trainer.default_root_dir
    return _beside(folder, name, samples, rate, step)


def _beside(folder: str, name: str, samples: Tensor, rate: int, step: int) -> str:
    return str(save_audio(Path(folder) / "audio" / f"{name.replace('/', '-')}-step{step}.wav", samples, rate))


def _mono(audio: Any) -> Tensor:
    remedy = "Pass samples in [-1, 1] of one channel."
    if not isinstance(audio, Tensor) or not audio.is_floating_point():
        raise TypeError(problem("audio", "a tensor of floating-point numbers", audio, remedy))
    if audio.ndim != 1:
        raise ValueError(problem("audio", "of one dimension", tuple(audio.shape), remedy))
    return torch.nan_to_num(audio.detach().float().cpu()).clamp(-1.0, 1.0)
