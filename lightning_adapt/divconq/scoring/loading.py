"""Models that rate text: given loaded or by name, and moved to the GPU when they are first asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require
from lightning_adapt.divconq.embed.text_model import default_device
from lightning_adapt.divconq.text.pretrained import load_pretrained

__all__ = ["RatingModel"]


class RatingModel:
    """A model of `transformers` with its tokenizer.

    Args:
        task: What the model does: "causal" for a language model, "classify" for a sequence classifier.
        model: A loaded model, its name, or its folder.
        tokenizer: Its tokenizer; None to load the one beside a name or folder.
        device: Where a model given by name goes at its first use; None for the current GPU, or the CPU without one. A
            loaded model stays where it is.

    Raises:
        ModuleNotFoundError: If `transformers` is missing.
        TypeError: If a loaded model comes without a tokenizer.
        ValueError: If a model cannot be loaded by its name.
    """

    def __init__(
        self, task: Literal["causal", "classify"], model: Any, tokenizer: Any, device: str | torch.device | None
    ) -> None:
        require("llm", "A model that rates text", "transformers")
        self._by_name = isinstance(model, (str, Path))
        self._device = device
        if self._by_name:
            name, kind = model, "AutoModelForCausalLM" if task == "causal" else "AutoModelForSequenceClassification"
            model = load_pretrained(kind, name, "model").eval()
            tokenizer = load_pretrained("AutoTokenizer", name, "model") if tokenizer is None else tokenizer
        if tokenizer is None:
            remedy = "Pass tokenizer=..., or the name of the model in place of the model."
            raise TypeError(problem("tokenizer", "given beside a loaded model", None, remedy))
        self.model: Any = model
        self.tokenizer: Any = tokenizer

    def placed(self) -> Any:
        """Return the model, moved to its device if it was given by name.

        Not in the constructor: a process that has touched a GPU can no longer be forked, and the rank of a run is known
        later.
        """
        if self._by_name:
            self.model = self.model.to(self._device or default_device())
        return self.model
