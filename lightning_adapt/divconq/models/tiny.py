"""A tiny random language model with a tokenizer made on the spot: for demonstrations and tests, no download."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.imports import require
from lightning_adapt.divconq.text.planted import planted_instructions

__all__ = ["tiny_language_model", "tiny_planted_model", "tiny_planted_tokenizer"]

_SPECIAL = ["<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
# one token per role and one end of turn: short rows, which is what a tiny model can afford
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tiny_language_model(
    texts: Iterable[str],
    *,
    vocab_size: int = 800,
    hidden_size: int = 64,
    layers: int = 2,
    max_length: int = 1024,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Make a randomly initialised Llama and a byte-level BPE tokenizer learnt from texts.

    The same arguments give the same tokenizer and the same weights; no global random state is used or changed.

    Args:
        texts: What the tokenizer is learnt from, a few hundred are enough. Any text can be encoded afterwards.
        vocab_size: Tokens, special ones (5) and single bytes (256) included; fewer if the texts give no more.
        hidden_size: Width of the model, a multiple of 8.
        layers: Transformer blocks.
        max_length: Longest row in tokens.
        seed: Seed of the weights.

    Returns:
        A `LlamaForCausalLM` (float32, CPU) and a `PreTrainedTokenizerFast` whose chat template marks what the
        assistant writes.

    Raises:
        ModuleNotFoundError: If `transformers` is missing.
        TypeError: If a size is no whole number.
        ValueError: If a size is out of range, or there are no texts.

    Example:
        >>> model, tokenizer = tiny_language_model(["a few words", "some more words"])
        >>> tokenizer.decode(tokenizer("more words")["input_ids"])
        'more words'
    """
    require("llm", "tiny_language_model", "transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    vocab_size = check_integer("vocab_size", vocab_size, "Pass 800.", minimum=300)
    hidden_size = check_integer("hidden_size", hidden_size, "Pass 64.", minimum=8)
    layers = check_integer("layers", layers, "Pass 2.", minimum=1)
    if hidden_size % 8:
        raise ValueError(problem("hidden_size", "a multiple of 8", hidden_size, "Pass 64."))
    tokenizer = _train_tokenizer(list(texts), vocab_size, max_length)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=max_length,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds the GPUs, too
        model: Any = LlamaForCausalLM(config)
    model.eval()
    return model, tokenizer


def tiny_planted_model(seed: int = 0) -> Any:
    """Return a tiny model for `planted_instructions`; a YAML file can name it where a model is asked for.

    Args:
        seed: Seed of the weights.

    Returns:
        A `LlamaForCausalLM` whose tokenizer is that of `tiny_planted_tokenizer`.

    Raises:
        ModuleNotFoundError: If `transformers` is missing.
    """
    return tiny_language_model(_planted_texts(), seed=seed)[0]


def tiny_planted_tokenizer() -> Any:
    """Return the tokenizer of `tiny_planted_model`; a YAML file can name it where a tokenizer is asked for.

    Returns:
        A `PreTrainedTokenizerFast` with a chat template.

    Raises:
        ModuleNotFoundError: If `transformers` is missing.
    """
    return tiny_language_model(_planted_texts())[1]


def _planted_texts() -> list[str]:
    rows = planted_instructions(240, 0, seed=1)
    return [message["content"] for row in rows for message in row["messages"]]


def _train_tokenizer(texts: list[str], vocab_size: int, max_length: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if not texts:
        raise ValueError(problem("texts", "at least one text", texts, "Pass some rows of your pool."))
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(
        tokenizer_object=inner,
        pad_token="<pad>",  # noqa: S106  # no password
        eos_token="<|end|>",  # noqa: S106
        additional_special_tokens=_SPECIAL[2:],
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
