"""The model to tune: loading, LoRA adapters, and which weights belong into a checkpoint; no Lightning."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.state import to_plain
from lightning_adapt.divconq.text.pretrained import load_pretrained

__all__ = [
    "DEFAULT_LORA",
    "add_lora",
    "frozen_fingerprint",
    "frozen_names",
    "keep_trained",
    "load_model",
    "lora_options",
    "recompute_activations",
    "restore_trained",
]

# as in the authors' LoRA scripts: all linear layers of the blocks (q, k, v, o, gate, up, down)
DEFAULT_LORA: dict[str, Any] = {"r": 64, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": "all-linear"}
_BASE, _SCALES = "lightning_adapt_base", "lightning_adapt_adapters"  # keys of a checkpoint
_SCALING = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")  # what the weights do not show
_SAMPLED = 1024  # values of each weight that go into the fingerprint


def lora_options(lora: Any) -> dict[str, Any] | None:
    """Return the arguments of `peft.LoraConfig`.

    Args:
        lora: True for the defaults, a dict to change some of them, False or None for none.

    Returns:
        The arguments, or None to tune all weights.

    Raises:
        TypeError: If it is none of these.
    """
    if lora is None or lora is False:
        return None
    if lora is True:
        return dict(DEFAULT_LORA)
    if not isinstance(lora, Mapping):
        remedy = "Pass True, or arguments of peft.LoraConfig such as {'r': 8}."
        raise TypeError(problem("lora", "True, False, None or a dict", lora, remedy))
    return {**DEFAULT_LORA, **lora}


def load_model(model: Any, dtype: str) -> Any:
    """Return a causal language model.

    Args:
        model: One, which is returned as it is, or the name or folder of one.
        dtype: "auto", "float32", "bfloat16" or "float16"; for a name.

    Returns:
        The model.

    Raises:
        TypeError: If it is neither.
        ValueError: If it cannot be loaded.
    """
    if isinstance(model, nn.Module):
        return model
    if not isinstance(model, (str, Path)):
        remedy = "Pass AutoModelForCausalLM.from_pretrained(...), or a name."
        raise TypeError(problem("model", "a causal language model of transformers, or a name", model, remedy))
    argument = "dtype" if RequirementCache("transformers>=4.56") else "torch_dtype"
    return load_pretrained("AutoModelForCausalLM", model, "model", **{argument: dtype})


def add_lora(model: Any, options: Mapping[str, Any]) -> Any:
    """Put LoRA adapters into a model; all other weights are frozen.

    Args:
        model: A model of `transformers`; changed in place. The adapters' weights come from torch's global random
            state, as those of any new layer.
        options: Arguments of `peft.LoraConfig`.

    Returns:
        A `peft.PeftModel` around it.

    Raises:
        ModuleNotFoundError: If `peft` is missing.
        TypeError: If peft does not know one of the options.
        ValueError: If the model has adapters already.
    """
    require("llm", "LoRA", "transformers", "peft")
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel) or hasattr(model, "peft_config"):
        remedy = "Pass lora=False to train the adapters that it has, or the model without them."
        raise ValueError(problem("model", "one without adapters where `lora` is given", type(model).__name__, remedy))
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by a name that goes away
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))


def recompute_activations(model: Any) -> None:
    """Switch gradient checkpointing on, in a way that works below frozen weights.

    Args:
        model: A model of `transformers`; changed in place.
    """
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its name since transformers 5.23 or so
        model.activation_checkpointing_enable(options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    model.enable_input_require_grads()  # for models whose own code checkpoints in the reentrant way


def frozen_names(module: nn.Module) -> set[str]:
    """Return the names of the weights that are not trained, shared ones under each of their names."""
    return {name for name, value in module.named_parameters(remove_duplicate=False) if not value.requires_grad}


def frozen_fingerprint(module: nn.Module) -> str:
    """Return a hash that tells one set of frozen weights from another.

    Made of names, shapes and about a thousand values of each weight in bfloat16, so that it takes a moment for a large
    model and is the same in float32 and bfloat16.

    Args:
        module: Any module.

    Returns:
        32 hexadecimal digits; "" if nothing is frozen.
    """
    digest, frozen = hashlib.blake2b(digest_size=16), frozen_names(module)
    if not frozen:
        return ""
    for name, value in sorted(module.named_parameters(remove_duplicate=False)):
        if name not in frozen:
            continue
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(_sample(value).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sample(value: Tensor) -> Tensor:
    flat = value.detach().reshape(-1)
    places = torch.arange(0, flat.numel(), max(1, flat.numel() // _SAMPLED), device=flat.device)
    return flat[places].to(torch.bfloat16).cpu()


def keep_trained(checkpoint: dict[str, Any], module: nn.Module, base: str) -> None:
    """Take the frozen weights out of a checkpoint, and note in it what the trained ones belong to.

    Args:
        checkpoint: With the weights of the module under "state_dict"; changed in place.
        module: The module, with its language model as `model`.
        base: `frozen_fingerprint` of the language model.
    """
    frozen = frozen_names(module)
    if frozen:
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in weights.items() if name not in frozen}
        checkpoint |= {_BASE: base, _SCALES: _scales(module.model)}


def restore_trained(checkpoint: dict[str, Any], module: nn.Module, base: str) -> None:
    """Put the module's frozen weights into a checkpoint without them, so that loading can stay strict.

    Args:
        checkpoint: As `keep_trained` left it, or with all weights; changed in place.
        module: The module that will load it.
        base: `frozen_fingerprint` of its language model.

    Raises:
        ValueError: If the adapters of the checkpoint belong to another model, or act with another strength.
    """
    if _BASE not in checkpoint:
        return  # a whole model
    if checkpoint[_BASE] != base:
        raise ValueError(
            f"The checkpoint holds only the weights that were trained (adapters), on top of a base model with the "
            f"fingerprint {checkpoint[_BASE]}, but the model here has {base or 'no frozen weights'}. Pass the base "
            "model and the `lora` of the saved run."
        )
    saved, here = checkpoint[_SCALES], _scales(module.model)
    if saved != here:
        remedy = "The same weights would act with another strength. Pass the `lora` of the saved run."
        raise ValueError(problem("lora", f"as in the checkpoint, {saved}", here, remedy))
    frozen = frozen_names(module)
    present = {name: value for name, value in module.state_dict().items() if name in frozen}
    checkpoint["state_dict"] = {**checkpoint["state_dict"], **present}


def _scales(model: Any) -> dict[str, Any]:
    """Return the options of each adapter that decide how strongly it acts; plain values, nothing without adapters."""
    adapters = getattr(model, "peft_config", {})
    return {
        name: {option: to_plain(getattr(config, option, None)) for option in _SCALING}
        for name, config in adapters.items()
    }
