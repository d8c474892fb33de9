"""Loads a text model and its tokenizer: any encoder or decoder of transformers, or a sentence-transformers folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import check_choice, problem
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.text_files import read_json
from lightning_adapt.divconq.text.pretrained import load_pretrained

__all__ = ["Pooling", "TextModel", "default_device", "load_text_model"]

Pooling = Literal["mean", "cls"]
_LARGEST_LIMIT = 1_000_000  # tokenizers without a limit report 1e30
_POOLING_KEYS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_PLAIN_PARTS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class TextModel:
    """A model that gives one vector per row of tokens.

    Args:
        module: The model, for its device and mode.
        tokenizer: Its tokenizer.
        pooled: (tokens, mask), both (B, L) int64 with padding on the right -> (B, D).
        pooling: "mean", "cls", or "sentence-transformers" where that package does it.
        max_length: Longest row of tokens that it takes; None if nothing says.
        lower: Whether texts are put in lower case first.
    """

    module: nn.Module
    tokenizer: Any
    pooled: Callable[[Tensor, Tensor], Tensor]
    pooling: str
    max_length: int | None
    lower: bool


def load_text_model(model: Any, tokenizer: Any, pooling: Pooling | None, revision: str | None) -> TextModel:
    """Load a model, or wrap a loaded one.

    Args:
        model: A name on the hub, a folder, a model of transformers, or a `SentenceTransformer`.
        tokenizer: For a loaded model of transformers.
        pooling: None to take what a sentence-transformers folder says, else the mean.
        revision: Of a model on the hub.

    Returns:
        The model; a loaded one as it is, another in float32 and eval mode on the CPU.

    Raises:
        ModuleNotFoundError: If a package is missing.
        TypeError: If the model is none of these, or a loaded one comes without its tokenizer.
        ValueError: If it cannot be loaded.
    """
    require("llm", "TransformerEmbedder", "transformers")
    if pooling is not None:
        check_choice("pooling", pooling, get_args(Pooling), "Leave it out for the model's own.")
    if isinstance(model, (str, Path)):
        return _load(str(model), pooling, revision)
    if isinstance(model, nn.Module) and callable(getattr(model, "encode", None)) and hasattr(model, "tokenizer"):
        return _package_model(model)
    if isinstance(model, nn.Module) and hasattr(model, "config"):
        if not callable(tokenizer):
            raise TypeError(
                problem("tokenizer", "the tokenizer of the loaded model", tokenizer, "Pass it, or pass a folder.")
            )
        return _wrap(model, tokenizer, pooling or "mean", None, False)
    raise TypeError(
        problem("model", "a name, a folder or a loaded model", model, "Pass a model of transformers, or its name.")
    )


def _load(name: str, pooling: Pooling | None, revision: str | None) -> TextModel:
    parts = _json_of(name, "modules.json", revision) or []
    kinds = {str(part["type"]).rpartition(".")[2]: str(part["path"]) for part in parts}
    pooling_config = _json_of(name, f"{kinds['Pooling']}/config.json", revision) if "Pooling" in kinds else None
    own = _simple_pooling(pooling_config or {})
    simple = not parts or (own is not None and list(kinds) == list(_PLAIN_PARTS[: len(kinds)]))
    if pooling is None and not simple:
        return _package_model(_sentence_transformer(name, revision))
    folder = kinds.get("Transformer", "")
    settings = _json_of(name, f"{folder}/sentence_bert_config.json".lstrip("/"), revision) or {}
    where = {"revision": revision, "subfolder": folder}
    model = load_pretrained("AutoModel", name, "model", **where).float().eval()
    tokenizer = load_pretrained("AutoTokenizer", name, "model", **where)
    return _wrap(
        model, tokenizer, pooling or own or "mean", settings.get("max_seq_length"), bool(settings.get("do_lower_case"))
    )


def _wrap(model: nn.Module, tokenizer: Any, pooling: Pooling, max_length: int | None, lower: bool) -> TextModel:
    config: Any = model.config
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()  # type: ignore[operator]
    elif getattr(model, "get_output_embeddings", lambda: None)() is not None:  # a language model: without its head
        model = getattr(model, "base_model", model)
    limits = [max_length, getattr(tokenizer, "model_max_length", None), _positions(config)]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _LARGEST_LIMIT]
    return TextModel(model, tokenizer, partial(_pool_states, model, pooling), pooling, min(known, default=None), lower)


# functions of the module with `partial`, not closures: those can be neither pickled nor copied
def _pool_states(model: nn.Module, pooling: Pooling, tokens: Tensor, mask: Tensor) -> Tensor:
    states = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()  # (B, L, D)
    if pooling == "cls":
        first: Tensor = states[:, 0]
        return first
    weights = mask.to(states.dtype)[:, :, None]
    mean: Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
    return mean


def _pool_as_package(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    vectors: Tensor = model({"input_ids": tokens, "attention_mask": mask})["sentence_embedding"]
    return vectors.float()


def _positions(config: Any) -> int | None:
    """Return how many learned positions a model has; RoBERTa and its kin count from the padding token on."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None or getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None):
        return limit
    shifted = str(getattr(config, "model_type", "")) in {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}
    return int(limit) - (int(config.pad_token_id or 0) + 1 if shifted else 0)


def _package_model(model: Any) -> TextModel:
    """Wrap a `SentenceTransformer`: its own modules do the pooling, ours are the tokens."""
    model.eval()
    lower = bool(getattr(model[0], "do_lower_case", False))
    limit = model.max_seq_length
    return TextModel(model, model.tokenizer, partial(_pool_as_package, model), "sentence-transformers", limit, lower)


def _sentence_transformer(name: str, revision: str | None) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ModuleNotFoundError(
            f"The model {name} pools in a way of its own, which needs the package sentence-transformers. "
            "Run: pip install sentence-transformers, or pass pooling='mean'."
        ) from error
    return SentenceTransformer(name, revision=revision, device="cpu")


def _simple_pooling(config: Mapping[str, Any]) -> Pooling | None:
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        mode = _POOLING_KEYS.get(modes[0]) if len(modes) == 1 else None
    return "mean" if mode == "mean" else "cls" if mode == "cls" else None


def _json_of(name: str, file: str, revision: str | None) -> Any:
    """Return a JSON file of a model, or None if it has none."""
    if Path(name).is_dir():
        path: Any = Path(name) / file
        if not path.is_file():
            return None
    else:
        from transformers.utils.hub import cached_file

        try:
            path = cached_file(name, file, revision=revision)
        except (OSError, ValueError):  # no such file, no such model or no connection: loading the model says which
            return None
    return read_json(str(path))


def default_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
