"""Generation in the middle of training: right answers whatever the batch, and no trace left in the run."""

from __future__ import annotations

import random
import types

import numpy as np
import pytest
import torch
from torch import nn

from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.scoring.generate import (
    find_language_model,
    find_tokenizer,
    generate_responses,
    generate_with_model,
    unwrapped,
)
from lightning_adapt.divconq.scoring.prompts import cut_left, prompt_ids
from tests.divconq.talking_parts import CONVERSATIONS, TEXTS, chatml, talking_model


@pytest.fixture(scope="module")
def tiny():
    return talking_model()


class Holder(nn.Module):
    def __init__(self, model, tokenizer=None, name: str = "model") -> None:
        super().__init__()
        setattr(self, name, model)
        if tokenizer is not None:
            self.tokenizer = tokenizer


def greedy(model, tokenizer, conversation, count: int) -> str:
    """One token after the other, without cache or padding: the independent reference."""
    messages = [{"role": turn.role, "content": turn.content} for turn in conversation]
    while messages and any(message["role"] == "assistant" for message in messages):
        last = messages.pop()
        if last["role"] == "assistant":
            break
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(count):
            token = model(ids).logits[0, -1].argmax()
            if token == tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, token.reshape(1, 1)], 1)
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_answers_equal_a_plain_loop_whatever_the_batch(tiny, batch_size):
    model, tokenizer = tiny
    conversations = [CONVERSATIONS[0], CONVERSATIONS[1], CONVERSATIONS[3][:3], CONVERSATIONS[4]]
    expected = [greedy(model, tokenizer, talk, 10) for talk in conversations]
    assert generate_with_model(model, tokenizer, conversations, max_new_tokens=10, batch_size=batch_size) == expected
    assert len(set(expected)) > 1


def test_it_stops_at_the_end_token_and_allows_empty_answers(tiny):
    model, tokenizer = tiny
    plain = generate_with_model(model, tokenizer, CONVERSATIONS[:2], max_new_tokens=6)
    with torch.no_grad():
        first = int(model(torch.tensor([prompt_ids(tokenizer, CONVERSATIONS[0], 99)])).logits[0, -1].argmax())
    model.generation_config.eos_token_id, kept = [first], model.generation_config.eos_token_id
    try:
        answers = generate_with_model(model, tokenizer, CONVERSATIONS[:2], max_new_tokens=6)
    finally:
        model.generation_config.eos_token_id = kept
    assert answers == ["", plain[1]]
    assert plain[0]
    assert generate_with_model(model, tokenizer, []) == []


def test_it_stops_at_the_token_that_the_template_writes_after_an_answer(tiny):
    model, tokenizer = tiny
    tokenizer = chatml(tokenizer)
    assert tokenizer.eos_token == "<|end|>"
    written = tokenizer("garden<|im_end|>\n<|im_start|>user\nwindow", add_special_tokens=False)["input_ids"]

    def generate(self, input_ids, attention_mask, generation_config):
        asked.append(generation_config.eos_token_id)
        return torch.cat([input_ids, torch.tensor([written])], 1)

    asked = []
    model.generate = types.MethodType(generate, model)
    try:
        assert generate_with_model(model, tokenizer, CONVERSATIONS[:1]) == ["garden"]
        assert asked == [sorted(tokenizer.convert_tokens_to_ids(["<|end|>", "<|im_end|>"]))]
        tokenizer.chat_template = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
        generate_with_model(model, tokenizer, CONVERSATIONS[:1])
        assert asked[1:] == [[tokenizer.eos_token_id]]
    finally:
        del model.generate


def test_nothing_of_model_or_tokenizer_changes(tiny):
    model, tokenizer = tiny
    model.train()
    model.model.layers[0].eval()  # frozen on purpose: a plain model.train() would wake it up
    model.config.use_cache = False
    tokenizer.padding_side = "right"
    flags = [part.training for part in model.modules()]
    before = (model.config.to_dict(), model.generation_config.to_dict(), tokenizer.pad_token, tokenizer.padding_side)
    grad = torch.is_grad_enabled()
    try:
        generate_with_model(model, tokenizer, CONVERSATIONS, max_new_tokens=3, do_sample=True)
        assert [part.training for part in model.modules()] == flags
        after = (model.config.to_dict(), model.generation_config.to_dict(), tokenizer.pad_token, tokenizer.padding_side)
        assert after == before
        assert torch.is_grad_enabled() == grad
        assert all(weight.grad is None for weight in model.parameters())
    finally:
        model.config.use_cache = True
        model.eval()


def test_the_cache_is_on_under_gradient_checkpointing(tiny):
    model, tokenizer = tiny
    expected = generate_with_model(model, tokenizer, CONVERSATIONS, max_new_tokens=6)
    kind = (
        "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    )  # transformers 5 renames it
    getattr(model, f"{kind}_checkpointing_enable")()
    model.config.use_cache = False
    model.train()
    widths = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        assert generate_with_model(model, tokenizer, CONVERSATIONS, max_new_tokens=6) == expected
        assert widths[1:] == [1] * (len(widths) - 1)  # without a cache every step would read the whole row again
        assert len(widths) > 1
    finally:
        hook.remove()
        getattr(model, f"{kind}_checkpointing_disable")()
        model.config.use_cache = True
        model.eval()


@pytest.mark.parametrize("do_sample", [False, True])
def test_training_with_dropout_is_bit_equal_with_and_without_generation(do_sample):
    def train(generates: bool):
        model, tokenizer = tiny_language_model(TEXTS, vocab_size=300, hidden_size=16, layers=1)
        net = nn.Sequential(model.get_input_embeddings(), nn.Dropout(0.5), model.lm_head)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        model.train()
        torch.manual_seed(5)
        ids = torch.randint(0, 300, (4, 9))
        for _ in range(3):
            net(ids).logsumexp(-1).mean().backward()
            optimizer.step()
            if generates:
                holder = Holder(model, tokenizer)
                generate_responses(holder, CONVERSATIONS[:2], max_new_tokens=2, do_sample=do_sample, seed=8)
        return [weight.detach().clone() for weight in net.parameters()], torch.rand(3)

    (weights, after), (others, others_after) = train(False), train(True)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
    assert torch.equal(after, others_after)


def test_sampling_repeats_for_a_seed_and_differs_between_seeds(tiny):
    model, tokenizer = tiny
    options = {"max_new_tokens": 8, "do_sample": True}
    first, again, other = (
        generate_with_model(model, tokenizer, CONVERSATIONS, seed=seed, **options) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_module_with_its_own_method_is_asked_in_eval_mode(tiny):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.result = nn.Dropout(), None

        def generate_responses(self, conversations, shout=True):
            self.seen = (self.part.training, torch.is_grad_enabled())
            torch.rand(5), np.random.rand(5), random.random()  # noqa: NPY002
            answers = [turns[0].content.upper() if shout else turns[0].content for turns in conversations]
            return answers if self.result is None else self.result

    module = Own()
    state, others = torch.get_rng_state(), (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert generate_responses(nn.DataParallel(module), CONVERSATIONS[:1]) == ["METRES"]
    assert module.seen == (False, False)
    assert generate_responses(module, CONVERSATIONS[:1], shout=False) == ["metres"]
    assert module.part.training
    assert torch.equal(torch.get_rng_state(), state)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == others  # noqa: NPY002
    for wrong in (["one", "two"], [3], "a"):
        module.result = wrong
        with pytest.raises(TypeError, match="a list of 1 strings from the module's generate_responses"):
            generate_responses(module, CONVERSATIONS[:1])


def test_the_model_and_the_tokenizer_are_found(tiny):
    model, tokenizer = tiny
    for module in (model, Holder(model), Holder(model, name="network"), Holder(Holder(model)).model):
        assert find_language_model(module) is model
    with pytest.raises(TypeError, match=r"generate_responses\(conversations\) -> list\[str\]"):
        find_language_model(nn.Linear(2, 2))
    both = Holder(model, name="one")
    both.two = tiny_language_model(TEXTS, vocab_size=300, hidden_size=8, layers=1)[0]
    with pytest.raises(TypeError, match="one that can generate text"):
        find_language_model(both)
    assert find_tokenizer(Holder(model, tokenizer)) is tokenizer

    class Data:
        pass

    data = Data()
    data.tokenizer = tokenizer
    assert find_tokenizer(model, data) is tokenizer
    module = Holder(model)
    module.trainer = Data()
    module.trainer.datamodule = data
    assert find_tokenizer(module) is tokenizer
    assert generate_responses(module, CONVERSATIONS[:1], max_new_tokens=2)
    with pytest.raises(TypeError, match="attribute `tokenizer`"):
        find_tokenizer(model)


def test_a_tokenizer_with_a_template_wins_over_one_without(tiny):
    model, tokenizer = tiny
    bare = tiny_language_model(TEXTS, vocab_size=300, hidden_size=8, layers=1)[1]
    bare.chat_template = None
    data = Holder(model, tokenizer)
    assert find_tokenizer(Holder(model, bare), data) is tokenizer
    with pytest.raises(ValueError, match="one with a chat template"):
        generate_with_model(model, bare, CONVERSATIONS)


def test_a_template_that_refuses_a_conversation_says_so(tiny):
    model, _ = tiny
    strict = tiny_language_model(TEXTS, vocab_size=300, hidden_size=8, layers=1)[1]
    strict.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ValueError, match=r"\['system', 'user'\].*System role not supported"):
        generate_with_model(model, strict, [CONVERSATIONS[4]])


def test_long_prompts_are_cut_from_the_left_and_leave_room_for_the_answer(tiny):
    tokenizer = tiny[1]
    ids = prompt_ids(tokenizer, CONVERSATIONS[1], 10_000)
    assert prompt_ids(tokenizer, CONVERSATIONS[1], 7) == ids[-7:]
    assert cut_left([1, 2, 3, 4, 5], 3, first=1) == [1, 4, 5]
    assert cut_left([1, 2, 3, 4, 5], 3, first=9) == [3, 4, 5]
    short = tiny_language_model(TEXTS, vocab_size=300, hidden_size=8, layers=1, max_length=16)[0]
    generate_with_model(short, tokenizer, [CONVERSATIONS[0]], max_new_tokens=8)
    with pytest.raises(ValueError, match=r"`max_new_tokens` must be below 16"):
        generate_with_model(short, tokenizer, [CONVERSATIONS[0]], max_new_tokens=16)


def test_bad_arguments_are_refused(tiny):
    model, tokenizer = tiny
    for name, value in (("max_new_tokens", 0), ("batch_size", 0), ("max_prompt_length", 0)):
        with pytest.raises(ValueError, match=name):
            generate_with_model(model, tokenizer, CONVERSATIONS, **{name: value})
    with pytest.raises(TypeError, match="do_sample"):
        generate_with_model(model, tokenizer, CONVERSATIONS, do_sample=1)


def test_ddp_is_taken_off():
    inner = nn.Linear(1, 1)
    assert unwrapped(nn.DataParallel(inner)) is inner
    assert unwrapped(inner) is inner
