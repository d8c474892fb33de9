"""The batches that a LinaSpeechModule takes, and what it says of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["check_batch"]

_REMEDY = 'Use TextSpeechDataModule, or dicts of "text", "text_lengths", "codes" and "code_lengths".'
_DIMENSIONS = {"text": 2, "text_lengths": 1, "codes": 3, "code_lengths": 1}


def check_batch(batch: Any, n_codebooks: int) -> None:
    """Check the form of a batch; values of its tensors are not looked at, since a GPU would wait for that.

    Args:
        batch: "text" (B, M) and "text_lengths" (B,), "codes" (B, Q, N) and "code_lengths" (B,), whole numbers; any
            other keys.
        n_codebooks: Q of the model.

    Raises:
        MisconfigurationException: If it has another form.
    """
    if not isinstance(batch, Mapping) or not set(_DIMENSIONS) <= set(batch):
        found = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise _refused("batch", "a dict with texts and codes", found)
    for name, dimensions in _DIMENSIONS.items():
        value = batch[name]
        if not isinstance(value, Tensor) or value.is_floating_point() or value.ndim != dimensions:
            found = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else value
            raise _refused(f"batch[{name!r}]", f"whole numbers of {dimensions} dimension(s)", found)
    rows = {name: len(batch[name]) for name in _DIMENSIONS}
    if len(set(rows.values())) > 1:
        raise _refused("batch", "of as many texts as codes and lengths", rows)
    if batch["codes"].shape[1] != n_codebooks:
        remedy = f"Pass n_codebooks={batch['codes'].shape[1]} to LinaSpeechModule."
        raise _refused(
            "batch['codes']", f"of {n_codebooks} codebooks, shape (B, Q, N)", tuple(batch["codes"].shape), remedy
        )


def _refused(name: str, allowed: str, found: Any, remedy: str = _REMEDY) -> Exception:
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    return MisconfigurationException(problem(name, allowed, found, remedy))
