"""Quality of rows: columns, arrays, functions, the digit a language model answers with, reward models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.scoring.digits import (
    COMPLEXITY_TEMPLATE,
    QUALITY_TEMPLATE,
    DigitTokenQuality,
    digit_token_ids,
    question_answer_pairs,
)
from lightning_adapt.divconq.scoring.quality import ColumnQuality, FunctionQuality, RewardQuality, as_quality
from lightning_adapt.divconq.text.conversation import Turn
from lightning_adapt.divconq.text.rows import texts_of

ROWS = [
    {"prompt": "how many metres are in a kilometre", "response": "a thousand", "stars": 5, "note": "x"},
    {"prompt": "name a colour", "response": "red because it is bright", "stars": 2.5, "note": "y"},
    {"prompt": "say " * 30, "response": "", "stars": np.float32(1), "note": "z"},
]
TEXTS = texts_of(ROWS)
LONG = (Turn("system", "s"), Turn("user", "one"), Turn("assistant", "1"), Turn("user", "two"), Turn("assistant", "2"))


class Talks:
    """A pool that knows its conversations and nothing else."""

    def __init__(self, *talks) -> None:
        self.talks = talks

    def __len__(self) -> int:
        return len(self.talks)

    def __getitem__(self, row: int):
        return self.talks[row]

    def conversation(self, row: int):
        return self.talks[row]


@pytest.fixture(scope="module")
def tiny():
    return tiny_language_model([row["prompt"] + row["response"] for row in ROWS] * 4, vocab_size=320, hidden_size=32)


# -- what a value stands for ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "rows", [ROWS, Subset(ROWS + ROWS[::-1], [0, 1, 2]), Subset(Subset(ROWS, [2, 0, 1]), [1, 2, 0])]
)
def test_a_column_is_read_from_any_rows(rows):
    values = as_quality("stars")(texts_of(list(ROWS)), rows)
    assert values.dtype == torch.float64
    assert values.tolist() == [5, 2.5, 1]


def test_a_column_of_a_dataset_of_the_hub_library_is_read_in_blocks():
    datasets = pytest.importorskip("datasets")
    pool = datasets.Dataset.from_list([{"prompt": str(i), "response": "r", "stars": i / 2} for i in range(7)])
    assert ColumnQuality("stars", batch_size=3)(texts_of(pool), pool).tolist() == [i / 2 for i in range(7)]
    with pytest.raises(ValueError, match="has the columns prompt, response, stars"):
        as_quality("likes")(texts_of(pool), pool)


def test_a_tokenised_data_set_can_offer_the_rows_it_was_made_of():
    class Tokenised(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, row):
            return {"input_ids": torch.tensor([row])}

        def record(self, row):
            return ROWS[2 - row]

    pool = Subset(Tokenised(), [1, 0])
    assert as_quality("stars")(texts_of(ROWS[:2]), pool).tolist() == [2.5, 1]


def test_a_wrong_column_says_which_there_are():
    with pytest.raises(ValueError, match=r"'likes'.*Row 0 has the columns prompt, response, stars, note"):
        as_quality("likes")(TEXTS, ROWS)
    with pytest.raises(ValueError, match=r"a column of numbers, but got 'x'. It stands in row 0"):
        as_quality("note")(TEXTS, ROWS)
    with pytest.raises(ValueError, match="used with a data set"):
        as_quality("stars")(TEXTS)
    with pytest.raises(ValueError, match="has no columns"):
        as_quality("stars")(texts_of(["a"]), ["a"])


def test_arrays_of_any_kind_and_files(tmp_path):
    np.save(tmp_path / "q.npy", np.array([1, 2, 3]))
    values = [
        [1, 2, 3],
        np.array([1, 2, 3], np.int8),
        torch.tensor([1, 2, 3], dtype=torch.bfloat16),
        torch.tensor([1.0, 2, 3], requires_grad=True),
        tmp_path / "q.npy",
        str(tmp_path / "q.npy"),
    ]
    for value in values:
        got = as_quality(value)(TEXTS)
        assert got.dtype == torch.float64
        assert got.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"3 numbers long, as the pool, but got 2"):
        as_quality([1, 2])(TEXTS)
    with pytest.raises(ValueError, match=r"of shape \(N,\)"):
        as_quality(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="an array of numbers"):
        as_quality(["a", "b", "c"])
    with pytest.raises(FileNotFoundError):
        as_quality("missing.npy")
    with pytest.raises(TypeError, match="`quality` must be a column name"):
        as_quality(7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_name_their_row(bad):
    with pytest.raises(ValueError, match=r"1 of 3 values looked at, the first in row 1"):
        as_quality([0.0, bad, 1.0])(TEXTS)


def test_a_function_sees_the_conversation():
    assert as_quality(lambda talk: len(talk[-1].content))(TEXTS).tolist() == [10, 24, 0]
    assert as_quality(lambda talk: torch.tensor(2))(TEXTS).tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="`quality` failed on row 2: ZeroDivisionError"):
        as_quality(lambda talk: 1 / len(talk[-1].content))(TEXTS)
    with pytest.raises(ValueError, match=r"returns a number, but got '9'. It came for row 0"):
        as_quality(lambda talk: "9")(TEXTS)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_parts_do_the_same_batches_as_one_process(world):
    texts = texts_of([f"{'word ' * (row % 5)}{row}" for row in range(11)])
    calls: list[list[int]] = []

    class Batches(FunctionQuality):
        def rate(self, texts, dataset, rows):
            calls.append(rows.tolist())
            return super().rate(texts, dataset, rows)

    quality = Batches(lambda talk: len(talk[0].content), batch_size=2)
    whole = quality(texts)
    batches, calls = calls, []
    together = torch.full((11,), torch.nan, dtype=torch.float64)
    done: list[int] = []
    for rank in range(world):
        together[quality.rows(11, (rank, world))] = quality(texts, part=(rank, world), progress=done.append)
    assert torch.equal(together, whole)
    assert sorted(calls) == batches
    assert sum(done) == 11


# -- the digit of a language model ------------------------------------------------------------------------------------
def expected_digit(model, tokenizer, prompt: str) -> float:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits[0, -1].double()
    chosen = np.array([logits[tokenizer.convert_tokens_to_ids(digit)].item() for digit in "123456"])
    share = np.exp(chosen - chosen.max())
    return float((share / share.sum() * np.arange(1, 7)).sum())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_digit_quality_equals_a_computation_by_hand(tiny, batch_size):
    model, tokenizer = tiny
    model.train()
    values = DigitTokenQuality(model, tokenizer, batch_size=batch_size)(TEXTS)
    assert model.training
    model.eval()
    prompts = [QUALITY_TEMPLATE.format(instruction=row["prompt"], output=row["response"]) for row in ROWS]
    assert values.tolist() == pytest.approx([expected_digit(model, tokenizer, prompt) for prompt in prompts], abs=1e-5)
    assert ((values > 1) & (values < 6)).all()
    assert not torch.equal(values, values.round())
    assert len(set(values.tolist())) == 3


def test_two_scorers_multiply_and_turns_add_up(tiny):
    model, tokenizer = tiny
    other = tiny_language_model([row["prompt"] for row in ROWS] * 4, vocab_size=320, hidden_size=16, seed=4)
    quality = DigitTokenQuality(model, tokenizer, complexity_model=other[0], complexity_tokenizer=other[1])
    pool = Talks(LONG, LONG[:2], LONG[:3])
    parts = [
        expected_digit(model, tokenizer, QUALITY_TEMPLATE.format(instruction=ask, output=answer))
        * expected_digit(*other, COMPLEXITY_TEMPLATE.format(instruction=ask))
        for ask, answer in (("one", "1"), ("two", "2"))
    ]
    assert quality(texts_of(pool)).tolist() == pytest.approx([sum(parts), 0, parts[0]], abs=1e-4)
    assert question_answer_pairs(LONG) == [("one", "1"), ("two", "2")]
    assert question_answer_pairs((Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c"))) == [("a\nb", "c")]


def test_long_texts_are_cut_inside_the_template(tiny):
    model, tokenizer = tiny
    quality = DigitTokenQuality(model, tokenizer, template="Q {instruction} A {output} score: ", max_length=40)
    seen = []
    hook = model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs["input_ids"][0]), with_kwargs=True
    )
    try:
        quality(texts_of(Talks((Turn("user", "name a colour"), Turn("assistant", "very long " * 50)))))
    finally:
        hook.remove()
    text = tokenizer.decode(seen[0])
    assert text.startswith("Q name a colour A very long")
    assert text.endswith(" score: ")
    assert 25 <= len(seen[0]) <= 40


def test_a_text_that_looks_like_the_template_is_left_alone(tiny):
    model, tokenizer = tiny
    pool = texts_of(Talks((Turn("user", "what is {output}"), Turn("assistant", "{instruction}"))))
    prompt = QUALITY_TEMPLATE.replace("{instruction}", "what is X").replace("{output}", "{instruction}")
    expected = expected_digit(model, tokenizer, prompt.replace("what is X", "what is {output}"))
    assert DigitTokenQuality(model, tokenizer)(pool).item() == pytest.approx(expected, abs=1e-5)


def test_a_tokenizer_without_single_digits_is_refused(tiny):
    model, tokenizer = tiny
    assert tokenizer.convert_ids_to_tokens(digit_token_ids(tokenizer)) == list("123456")
    with pytest.raises(ValueError, match="no single token for 10, 12"):
        digit_token_ids(tokenizer, ["1", "10", "12"])
    with pytest.raises(ValueError, match="all different"):
        DigitTokenQuality(model, tokenizer, digits=["1", "1"])
    with pytest.raises(ValueError, match=r"a text with \{output\}|a text with \{instruction\} and \{output\}"):
        DigitTokenQuality(model, tokenizer, template="{instruction}")
    with pytest.raises(TypeError, match="`tokenizer` must be given beside a loaded model"):
        DigitTokenQuality(model)


def test_models_load_by_folder(tiny, tmp_path):
    model, tokenizer = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = DigitTokenQuality(model, tokenizer)(TEXTS)
    for folder in (tmp_path, str(tmp_path)):
        assert torch.allclose(DigitTokenQuality(folder, device="cpu")(TEXTS), expected)


def reward_model(tokenizer):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes)
    return LlamaForSequenceClassification(config).double().eval()


def test_a_reward_model_reads_the_name_of_a_place_in_a_prompt_as_it_is(tiny):
    tokenizer = tiny[1]
    model, seen = reward_model(tokenizer), []
    model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"][0].tolist()), with_kwargs=True)
    quality = RewardQuality(model, tokenizer, template="Human: {prompt}\nAssistant: {response}")
    quality(texts_of([{"prompt": "what is {response} in a format", "response": "it formats"}]))
    assert tokenizer.decode(seen[0]) == "Human: what is {response} in a format\nAssistant: it formats"


def test_reward_quality_rates_the_last_answer(tiny):
    tokenizer = tiny[1]
    model = reward_model(tokenizer)
    pool = Talks(LONG, LONG[:3], LONG[:2])
    values = RewardQuality(model, tokenizer, batch_size=2)(texts_of(pool))
    ends = [LONG, LONG[:3], (*LONG[:2], Turn("assistant", ""))]
    for value, talk in zip(values, ends, strict=True):
        text = "".join(f"<|{t.role}|>{t.content}{'<|end|>' if t.role == 'assistant' else ''}" for t in talk)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            assert value.item() == pytest.approx(model(ids).logits.item(), abs=1e-9)
