"""Answers of the model in training: batched generation that leaves no trace in the run."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from lightning_adapt._shared.checks import check_flag, check_integer, problem
from lightning_adapt._shared.forward import evaluating
from lightning_adapt._shared.hashing import derive_key
from lightning_adapt.divconq.scoring.prompts import device_of, padded, prompt_ids, render, room_for_prompt
from lightning_adapt.divconq.text.conversation import Conversation, Turn

__all__ = [
    "find_language_model",
    "find_tokenizer",
    "generate_responses",
    "generate_with_model",
    "random_state_kept",
    "unwrapped",
]

_OFFER = (
    "Give your module a method generate_responses(conversations) -> list[str]; or an attribute `model` that is a "
    "causal language model of transformers and an attribute `tokenizer`."
)


def generate_responses(
    module: nn.Module,
    conversations: Sequence[Conversation],
    *,
    tokenizer: Any = None,
    data: Any = None,
    trainer: Any = None,
    **options: Any,
) -> list[str]:
    """Let a module answer the last user turn of every conversation.

    A module that has a method `generate_responses(conversations)` is asked through it; any other one needs a causal
    language model (itself, `.model`, or the only child that can generate) and a tokenizer. Training flags and random
    states are afterwards what they were.

    Args:
        module: The module in training; a DDP wrapper around it is taken off.
        conversations: What to answer. The last assistant turn is left out of the prompt.
        tokenizer: Tokenizer of the model; None to look for one with `find_tokenizer`.
        data: A DataModule or data set that may know the tokenizer.
        trainer: Gives the precision context; None for the module's own precision.
        options: Further arguments of `generate_with_model`, or of the module's own method.

    Returns:
        One answer per conversation, in the same order; "" where the model ends at once.

    Raises:
        TypeError: If the module offers no way to generate, or its own method returns something else.
        ValueError: If an option is out of range, or the tokenizer has no chat template.
    """
    module = unwrapped(module)
    own = getattr(module, "generate_responses", None)
    if callable(own):
        with evaluating(module, trainer), random_state_kept(device_of(module)):
            return _checked(own(list(conversations), **options), len(conversations))
    model = find_language_model(module)
    tokenizer = find_tokenizer(module, data) if tokenizer is None else tokenizer
    return generate_with_model(model, tokenizer, conversations, trainer=trainer, **options)


def generate_with_model(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 8,
    max_prompt_length: int = 2048,
    do_sample: bool = False,
    seed: int = 0,
    trainer: Any = None,
) -> list[str]:
    """Let a causal language model of `transformers` answer the last user turn of every conversation.

    Prompts are padded on the left; eval mode without gradients; the key-value cache is on even where gradient
    checkpointing has switched it off. Modes, settings and random states are afterwards what they were, so that
    training goes on as if nothing had happened. Costs about one forward pass per new token and batch.

    Args:
        model: The model, LoRA or not, on any device.
        tokenizer: Its tokenizer, with a chat template. Its padding settings are not used.
        conversations: What to answer. The last assistant turn is left out of the prompt.
        max_new_tokens: Longest answer in tokens; an answer also ends at the end-of-text token, and at the special token
            that the chat template writes after an answer.
        batch_size: Conversations per batch, in the order given.
        max_prompt_length: Longest prompt in tokens, cut from the left; less if the model holds less.
        do_sample: Draw tokens with the model's own temperature and top-p; False for the likeliest token (repeatable).
        seed: Seed of the draws.
        trainer: Gives the precision context; None for the model's own precision.

    Returns:
        One answer per conversation, without special tokens and outer white space.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the tokenizer has no chat template.
    """
    remedy = "Leave it out for the default."
    max_new_tokens = check_integer("max_new_tokens", max_new_tokens, remedy, minimum=1)
    batch_size = check_integer("batch_size", batch_size, remedy, minimum=1)
    max_prompt_length = check_integer("max_prompt_length", max_prompt_length, remedy, minimum=1)
    do_sample = check_flag("do_sample", do_sample, remedy)
    ends = _end_tokens(model, tokenizer)
    pad = _pad_token(tokenizer, ends)
    settings = _settings(model, max_new_tokens, do_sample, ends, pad)
    longest = room_for_prompt(model, max_new_tokens, max_prompt_length)
    device = device_of(model)
    answers: list[str] = []
    with evaluating(model, trainer), random_state_kept(device):
        for start in range(0, len(conversations), batch_size):
            if do_sample:
                _seed(device, derive_key(seed, start // batch_size) >> 1)
            batch = conversations[start : start + batch_size]
            rows = [prompt_ids(tokenizer, conversation, longest) or [pad] for conversation in batch]
            ids, mask = padded(rows, pad, device, left=True)
            written = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
            answers += [_decoded(tokenizer, row, ends) for row in written[:, ids.shape[1] :].tolist()]
    return answers


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside DDP or DataParallel wrappers.

    Args:
        module: Any module.

    Returns:
        The module inside, or the module itself.
    """
    while isinstance(module, (DistributedDataParallel, DataParallel)):
        module = module.module
    return module


def find_language_model(module: nn.Module) -> Any:
    """Return the language model of a module.

    Args:
        module: The module in training.

    Returns:
        The module itself, its `.model`, or its only child that can generate.

    Raises:
        TypeError: If there is none, or more than one; the message names what to offer.
    """
    module = unwrapped(module)
    for candidate in (module, getattr(module, "model", None)):
        if _can_generate(candidate):
            return candidate
    children = [child for _, child in module.named_children() if _can_generate(child)]
    if len(children) != 1:
        raise TypeError(problem("module", "one that can generate text", type(module).__name__, _OFFER))
    return children[0]


def find_tokenizer(module: nn.Module, data: Any = None) -> Any:
    """Return the tokenizer that a module or its data know.

    Args:
        module: The module in training.
        data: A DataModule or data set; None for those of the module's trainer, if it has one.

    Returns:
        The first attribute `tokenizer` with a chat template, of the module, the data, or the data's own data set; the
        first one at all if none has a template.

    Raises:
        TypeError: If there is none; the message names what to offer.
    """
    module = unwrapped(module)
    sources = _data_of(module) if data is None else [data]
    owners = [module, *sources, *(getattr(source, "dataset", None) for source in sources)]
    found = [
        owner.tokenizer for owner in owners if callable(getattr(getattr(owner, "tokenizer", None), "decode", None))
    ]
    if not found:
        remedy = "Give module or DataModule an attribute `tokenizer`, or a method generate_responses(conversations)."
        raise TypeError(problem("module", "one with a tokenizer", type(module).__name__, remedy))
    return next((tokenizer for tokenizer in found if getattr(tokenizer, "chat_template", None)), found[0])


def _data_of(module: nn.Module) -> list[Any]:
    try:
        trainer: Any = getattr(module, "trainer", None)
    except RuntimeError:  # a LightningModule outside a run
        return []
    loader = getattr(trainer, "train_dataloader", None)
    return [source for source in (getattr(trainer, "datamodule", None), loader) if source is not None]


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Restore the global random states on leaving: torch's of the CPU and of a GPU, NumPy's and Python's.

    Args:
        device: Where the work inside happens.

    Yields:
        Nothing.
    """
    plain, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002  # a user's method may draw from it
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)  # noqa: NPY002


def _can_generate(candidate: Any) -> bool:
    if not isinstance(candidate, nn.Module) or not callable(getattr(candidate, "generate", None)):
        return False
    if getattr(candidate, "generation_config", None) is None:
        return False  # a `generate` of another library
    able = getattr(candidate, "can_generate", None)  # False for an encoder
    return bool(able()) if callable(able) else True


def _seed(device: torch.device, seed: int) -> None:
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds every GPU
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    known = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = list(known) if isinstance(known, (list, tuple)) else [known]
    known = [*ends, tokenizer.eos_token_id, _end_of_turn(tokenizer)]
    return sorted({int(token) for token in known if token is not None})


def _end_of_turn(tokenizer: Any) -> int | None:
    """Return the first special token that the chat template writes after an answer, which need not be the end of text.

    None if it writes none, or there is no template, or it refuses the trial.
    """
    answer = "An answer"
    try:
        text = render(tokenizer, (Turn("user", "A question"), Turn("assistant", answer)), tokenize=False)
    except ValueError:
        return None
    after = str(text).rpartition(answer)[2]
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return next((token for token in tokenizer(after, add_special_tokens=False)["input_ids"] if token in special), None)


def _pad_token(tokenizer: Any, ends: list[int]) -> int:
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return ends[0] if ends else 0  # masked out of the prompt, and cut off the answer, whatever it is


def _settings(model: Any, max_new_tokens: int, do_sample: bool, ends: list[int], pad: int) -> Any:
    settings = copy.deepcopy(model.generation_config)
    settings.max_new_tokens, settings.max_length, settings.min_length = max_new_tokens, None, None
    settings.do_sample, settings.num_beams, settings.num_return_sequences = do_sample, 1, 1
    settings.use_cache, settings.return_dict_in_generate = True, False
    settings.eos_token_id, settings.pad_token_id = ends or None, pad
    if not do_sample:  # values without effect make transformers warn, so they go back to their defaults
        settings.temperature, settings.top_p, settings.top_k = 1.0, 1.0, 50
    return settings


def _decoded(tokenizer: Any, ids: list[int], ends: list[int]) -> str:
    stop = next((position for position, token in enumerate(ids) if token in ends), len(ids))
    return str(tokenizer.decode(ids[:stop], skip_special_tokens=True)).strip()


def _checked(answers: Any, count: int) -> list[str]:
    answers = list(answers) if isinstance(answers, (list, tuple)) else answers
    if isinstance(answers, list) and len(answers) == count and all(isinstance(answer, str) for answer in answers):
        return answers
    allowed = f"a list of {count} strings from the module's generate_responses"
    raise TypeError(problem("generated", allowed, answers, "Return one string per conversation, in the same order."))
