"""One call that logs a matplotlib figure to whichever loggers a Trainer has (extra `figures`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file, all of it or nothing (a temporary file beside it, then a rename).

    Args:
        figure: A matplotlib figure.
        path: Where to; the ending chooses the format (png, svg, pdf). Missing folders are made.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
    """
    require("figures", "save_figure", "matplotlib")
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, bbox_inches="tight", dpi=150)
    return Path(path)


def log_figure(trainer: Any, name: str, figure: Figure, step: int) -> list[str]:
    """Log a figure to every logger of a Trainer: TensorBoard, W&B, MLflow, CSV, several at once, or none.

    A logger that cannot hold pictures (CSV, unknown ones) gets a PNG beside its files; without any logger the PNG goes
    to `figures/` in the Trainer's `default_root_dir`. Call it on rank 0.

    Args:
        trainer: A Trainer of `lightning.pytorch` or `pytorch_lightning`.
        name: Key, `<method>/<quantity>`.
        figure: A matplotlib figure.
        step: Global step.

    Returns:
        Where it went: a word per logger, or the path of the file.
    """
    places = [_log_to(logger, trainer, name, figure, step) for logger in trainer.loggers]
    return places or [_beside(trainer.default_root_dir, name, figure, step)]


def _log_to(logger: Any, trainer: Any, name: str, figure: Figure, step: int) -> str:
    # by class name: the same loggers exist under lightning.pytorch and pytorch_lightning, and none need be installed
    kinds = {kind.__name__ for kind in type(logger).__mro__}
    if "TensorBoardLogger" in kinds:
        logger.experiment.add_figure(name, figure, global_step=step, close=False)
        return "tensorboard"
    if "WandbLogger" in kinds:
        logger.log_image(key=name, images=[figure], step=step)
        return "wandb"
    if "MLFlowLogger" in kinds:
        logger.experiment.log_figure(logger.run_id, figure, f"figures/{name}-step{step}.png")
        return "mlflow"
    folder = getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None) or trainer.default_root_dir
    return _beside(folder, name, figure, step)


def _beside(folder: str, name: str, figure: Figure, step: int) -> str:
    return str(save_figure(figure, Path(folder) / "figures" / f"{name.replace('/', '-')}-step{step}.png"))
