"""The tiny language model: repeatable, and it leaves no trace."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.divconq.models.tiny import tiny_language_model

TEXTS = [f"number {number} is a {word} thing" for number in range(40) for word in ("red", "green", "blue")]


def test_the_same_arguments_give_the_same_tokenizer():
    # the hash tables inside are seeded anew each time, so that an order taken from them would show
    made = [tiny_language_model(TEXTS, vocab_size=320, hidden_size=16, layers=1) for _ in range(3)]
    first, *others = [tokenizer.backend_tokenizer.to_str() for _, tokenizer in made]
    assert [other == first for other in others] == [True, True]
    assert len(made[0][1]) == 320
    for (name, value), same in zip(made[0][0].state_dict().items(), made[1][0].state_dict().values(), strict=True):
        assert torch.equal(value, same), name


def test_no_global_random_state_is_used_or_changed():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = tiny_language_model(TEXTS, vocab_size=300, hidden_size=16, layers=1)[0].lm_head.weight
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(8)
    assert torch.equal(first, tiny_language_model(TEXTS, vocab_size=300, hidden_size=16, layers=1)[0].lm_head.weight)
    other = tiny_language_model(TEXTS, vocab_size=300, hidden_size=16, layers=1, seed=1)[0].lm_head.weight
    assert not torch.equal(first, other)


def test_any_text_can_be_encoded_and_the_template_marks_the_answer():
    model, tokenizer = tiny_language_model(TEXTS, vocab_size=400)
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings
    text = "Any text: é 漢字 🙂 \n\t number"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "green"}]
    made = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    answer = [token for token, own in zip(made["input_ids"], made["assistant_masks"], strict=True) if own]
    assert tokenizer.decode(answer) == "green<|end|>"
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id == model.config.eos_token_id


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"vocab_size": 10}, "vocab_size"),
        ({"hidden_size": 12}, "multiple of 8"),
        ({"layers": 0}, "layers"),
        ({"texts": []}, "at least one text"),
    ],
)
def test_bad_arguments(wrong, text):
    with pytest.raises(ValueError, match=text):
        tiny_language_model(**{"texts": TEXTS, **wrong})
