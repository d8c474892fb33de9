"""Conversations and a tiny model that answers each in its own way, for the tests of generation."""

from __future__ import annotations

import torch

from lightning_adapt.divconq.models.labels import with_template
from lightning_adapt.divconq.models.templates import TEMPLATES
from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.text.conversation import Turn

WORDS = ["metres", "kilometre", "colour", "bright", "thousand", "window", "garden", "because", "engine", "sugar"]
TEXTS = [" ".join(WORDS[i % 10] for i in range(start, start + 3 + start % 7)) for start in range(40)]


def talk(*texts: str):
    return tuple(Turn("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(texts))


CONVERSATIONS = [
    talk("metres"),
    talk("garden " * 40, "gold answer that must not be seen"),
    talk("colour bright", "because", "sugar engine"),
    talk("window", "garden", "engine " * 9, "left out"),
    (Turn("system", "thousand"), Turn("user", "kilometre because sugar")),
]


def talking_model():
    """A model with sharp answers and its tokenizer, new ones each time."""
    model, tokenizer = tiny_language_model(TEXTS, vocab_size=320, hidden_size=32, seed=3)
    with torch.no_grad():  # sharper than at initialisation, so that the likeliest token depends on the prompt
        for weight in model.parameters():
            weight.mul_(6.0 if weight.ndim == 2 else 1.0)
    return model, tokenizer


def chatml(tokenizer):
    """A tokenizer whose turns end in another token than its texts."""
    tokenizer = with_template(tokenizer, TEMPLATES["chatml"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer
