"""Chat templates with generation markers, for tokenizers that come without one."""

from __future__ import annotations

import re
from typing import Any

from lightning_adapt._shared.checks import problem

__all__ = ["TEMPLATES", "has_generation_markers", "resolve_template"]

# the text between the two `generation` tags is what a model is trained to write, its end of turn included
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_PLAIN = (
    "{% if bos_token %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '### Assistant:\\n' }}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ '### ' + message['role'] | capitalize + ':\\n' + message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)
TEMPLATES = {"chatml": _CHATML, "plain": _PLAIN}
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")


def has_generation_markers(template: str) -> bool:
    """Say whether a chat template marks what the assistant writes; without it a token mask is silently all zero.

    Args:
        template: A Jinja chat template.

    Returns:
        True if it has a `generation` block.

    Example:
        >>> has_generation_markers(TEMPLATES["plain"]), has_generation_markers("{{ messages }}")
        (True, False)
    """
    return _MARKER.search(template) is not None


def resolve_template(tokenizer: Any, chat_template: str | None) -> str:
    """Return the chat template to use: the user's, one of ours by name, or the tokenizer's own.

    Args:
        tokenizer: A tokenizer of `transformers`.
        chat_template: "chatml", "plain", a Jinja template, or None for the tokenizer's own.

    Returns:
        The Jinja template.

    Raises:
        ValueError: If there is none, or it needs tokens that the tokenizer does not have.
    """
    if chat_template is None:
        own = tokenizer.chat_template
        template = own.get("default") if isinstance(own, dict) else own
        if not template:
            remedy = 'This tokenizer has no chat template: pass chat_template="plain", "chatml" or a Jinja template.'
            raise ValueError(problem("chat_template", "given", None, remedy))
        return str(template)
    if chat_template not in TEMPLATES:
        if "{" not in chat_template:
            remedy = "Pass a name or the template's text, not a path."
            raise ValueError(problem("chat_template", '"plain", "chatml" or a Jinja template', chat_template, remedy))
        return chat_template
    if chat_template == "plain" and tokenizer.eos_token is None:
        remedy = "Set tokenizer.eos_token, or no answer would ever end."
        raise ValueError(problem("chat_template", "one that this tokenizer can end a turn of", chat_template, remedy))
    if chat_template == "chatml" and "<|im_end|>" not in tokenizer.get_vocab():
        remedy = 'The tokenizer does not know the token "<|im_end|>": pass chat_template="plain".'
        raise ValueError(problem("chat_template", "one that this tokenizer can end a turn of", chat_template, remedy))
    return TEMPLATES[chat_template]
