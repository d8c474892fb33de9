"""Checkpoints of WavTokenizer: read without running code, folded, renamed, and checked name by name."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import check_integer
from lightning_adapt._shared.imports import require

__all__ = ["load_weights", "read_weights", "translate_weights"]

_PARTS = ("feature_extractor.", "backbone.", "head.")  # all else in a checkpoint is for training
_ENCODER = "feature_extractor.encodec.encoder.model."
_QUANTIZER = "feature_extractor.encodec.quantizer.vq.layers.0._codebook."
# EnCodec's own decoder lies in the checkpoints without being used, and so do the running sums of the codebook
_UNUSED = (
    "feature_extractor.encodec.decoder.",
    "head.istft.window",
    *(_QUANTIZER + name for name in ("inited", "cluster_size", "embed_avg")),
)
# length and direction of a weight, as the old and the new weight norm of torch name them
_NORMED = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
_SHOWN = 8


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by the authors' names, on the CPU.

    Args:
        path: A Lightning checkpoint, a plain state dict that torch.save wrote, or a .safetensors file.

    Returns:
        The tensors of encoder, codebook, backbone and head, and of nothing else.

    Raises:
        ModuleNotFoundError: If it is a .safetensors file and safetensors is not installed.
        OSError: If there is no such file.
        ValueError: If it is no checkpoint, can only be read by running code that it holds, or is of another model.
    """
    Path(path).open("rb").close()  # a missing file is an OSError of its own
    state = _read_safetensors(path) if Path(path).suffix == ".safetensors" else _read_checkpoint(path)
    found = {
        str(name): value
        for name, value in state.items()
        if isinstance(value, Tensor) and str(name).startswith(_PARTS) and not str(name).startswith(_UNUSED)
    }
    if not found:
        raise ValueError(
            f"{path} holds no WavTokenizer: no tensor is named {', '.join(part + '*' for part in _PARTS)}, but "
            f"{_listed(map(str, state))}. Pass a checkpoint of the authors' code."
        )
    return found


def translate_weights(weights: Mapping[str, Tensor], bandwidth_id: int) -> dict[str, Tensor]:
    """Fold and rename the tensors of a checkpoint.

    Args:
        weights: Tensors by the authors' names.
        bandwidth_id: Which condition of the adaptive layer norms to keep.

    Returns:
        Tensors by the names of `WavTokenizerModel`; those with no place in it keep their name.

    Raises:
        TypeError: If the condition is no whole number.
        ValueError: If there is no such condition.
    """
    tensors = {_renamed(name): value for name, value in _without_weight_norm(weights).items()}
    counts = [len(value) for name, value in tensors.items() if name.endswith(".norm.scale.weight")]
    remedy = "Leave it out: the published models were trained alike for all, and are used with 0."
    check_integer("bandwidth_id", bandwidth_id, remedy, maximum=min(counts, default=1) - 1)
    for name in [name for name in tensors if name.endswith((".norm.scale.weight", ".norm.shift.weight"))]:
        new = name.replace(".scale.weight", ".weight").replace(".shift.weight", ".bias")
        tensors[new] = tensors.pop(name)[bandwidth_id]
    return tensors


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Copy tensors into a model, each name exactly once.

    Args:
        model: The model.
        tensors: By the model's names.
        path: Where they come from, for the error text.

    Raises:
        ValueError: If names are missing, have no place, or a shape differs; the text lists them.
    """
    own = model.state_dict()
    missing = [_original(name) for name in own if name not in tensors]
    unexpected = [_original(name) for name in tensors if name not in own]
    other = [
        f"{_original(name)} {tuple(tensors[name].shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    text = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names)
    if text:
        raise ValueError(f"{path} does not fit the WavTokenizer of its sizes. Tensors {text}. Pass its own `config`.")
    model.load_state_dict(dict(tensors))


def _read_checkpoint(path: str | os.PathLike[str]) -> Mapping[str, object]:
    try:
        # mapped, so that optimizer states, twice as large as the rest, are not read
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what is no checkpoint makes torch.load raise nearly anything
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path} cannot be loaded as plain tensors (torch.load with weights_only=True): {reason} Where you trust "
            "the file, read it once with weights_only=False, write its 'state_dict' with safetensors.torch.save_file "
            "to a .safetensors file, and pass that."
        ) from error
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no state dict. Pass a checkpoint of the authors' code.")
    return state


def _read_safetensors(path: str | os.PathLike[str]) -> Mapping[str, object]:
    require("speech", "A .safetensors file", "safetensors")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: Mapping[str, object] = load_file(path)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}. Write it again.") from error
    return state


def _without_weight_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    folded = dict(weights)
    for length_name, direction_name in _NORMED:
        for name in [name for name in folded if name.endswith("." + length_name)]:
            stem = name.removesuffix(length_name)
            if stem + direction_name in folded:
                length, direction = folded.pop(name).float(), folded.pop(stem + direction_name).float()
                if direction.dim() == 0 or length.numel() != len(direction):
                    raise ValueError(f"The tensors {stem}{length_name} and {direction_name} do not belong together.")
                norms = direction.flatten(1).norm(dim=1).view_as(length)
                folded[stem + "weight"] = direction * (length / norms)
    return folded


def _renamed(name: str) -> str:
    if name == _QUANTIZER + "embed":
        return "codebook"
    if not name.startswith(_ENCODER):
        return name
    return "encoder.layers." + name.removeprefix(_ENCODER).replace("conv.conv.", "conv.")


def _original(name: str) -> str:
    if name == "codebook":
        return _QUANTIZER + "embed"
    if not name.startswith("encoder.layers."):
        return name
    return _ENCODER + re.sub(r"\bconv\.", "conv.conv.", name.removeprefix("encoder.layers."))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:_SHOWN]) or "none"
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
