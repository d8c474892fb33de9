"""DiversitySelectionCallback on texts: the default embedder and scorer, real generation, what it tells of topics."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.models.instruction_data import InstructionDataModule
from lightning_adapt.divconq.models.instruction_module import InstructionTuningModule
from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.text.planted import planted_instructions
from lightning_adapt.divconq.training import run
from lightning_adapt.divconq.training.round_files import read_round
from tests.divconq.rounds_parts import Asks, Texts, fit
from tests.foreign import trainer


class Speaks(Asks):
    """Answers everything with apples, as if it had learnt that topic."""

    def generate_responses(self, conversations):
        self.asked = [*getattr(self, "asked", []), *conversations]
        return ["apples and pears in the garden" for _ in conversations]


def test_the_default_scorer_asks_the_module_and_embeds_its_answers(tmp_path):
    callback = DiversitySelectionCallback(16, "km_random", rounds=2, k=2, engine="torch", out_dir=tmp_path / "out")
    module = fit(tmp_path, [callback], Speaks(), DataLoader(Texts(), 4), max_epochs=3)
    rounds = callback.selection
    first = rounds.drawn[0]
    assert [turns[0].content for turns in module.asked] == [Texts().conversation(int(row))[0][1] for row in first]
    scores = rounds.scores[first]
    apples = first % 2 == 0
    assert float(scores[apples].max()) < float(scores[~apples].min()), "it has nothing more to learn about apples"
    weights = rounds.log_weights.exp()
    assert float(weights[rounds.labels[1]]) > 0.5 > float(weights[rounds.labels[0]])
    table = read_round(tmp_path / "out", 1).table
    scored = {row for row, score in zip(table["index"], table["S"], strict=True) if score is not None}
    assert scored == set(first.tolist())
    assert all(len(name) == 32 for name in table["row_hash"])


def test_the_topics_at_both_ends_are_told_once_a_round(tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(run, "rank_zero_info", lines.append)
    callback = DiversitySelectionCallback(16, "km_random", rounds=2, k=2, engine="torch")
    fit(tmp_path, [callback], Speaks(), DataLoader(Texts(), 4), max_epochs=4)
    assert len(lines) == 2
    assert lines[0] == "Diversify and Conquer, round 1 of 2: 8 of 40 rows from 2 clusters"
    head, more, less = lines[1].splitlines()
    assert head.startswith("Diversify and Conquer, round 2 of 2: 16 of 40 rows from 2 clusters; entropy")
    assert "more of cluster" in more
    assert more.count("'Tell me about tensors and gradients in the network, numbe...'") == 2
    assert "less of cluster" in less
    assert "apples and pears" in less


def test_rows_of_a_prompt_and_of_both_parts_cluster_differently(tmp_path):
    class Swapped(Texts):
        """The prompt tells one topic, the response another, much longer one."""

        def conversation(self, row):
            prompt, answer = ("apples", "tensors")[row % 2], ("gears and wheels ", "music and song ")[row // 2 % 2]
            return (("user", prompt), ("assistant", answer * 9))

    def groups(text):
        callback = DiversitySelectionCallback(4, "km_random", k=2, engine="torch", text=text, dedup="none")
        fit(tmp_path, [callback], data=DataLoader(Swapped(), 4), max_epochs=1)
        return callback.selection.labels

    prompts, answers = groups("prompt"), groups("response")
    rows = torch.arange(40)
    assert len(set(prompts[rows % 2 == 0].tolist())) == 1
    assert len(set(answers[rows // 2 % 2 == 0].tolist())) == 1
    assert len(set(answers[rows % 2 == 0].tolist())) == 2


def test_a_language_model_is_tuned_through_the_rounds(tmp_path):
    rows = planted_instructions(40, 20, topics=4, garbage_topics=2, seed=0)
    model, tokenizer = tiny_language_model(
        [str(row["messages"]) for row in rows], vocab_size=300, hidden_size=16, layers=1
    )
    module = InstructionTuningModule(model, lora=None, tokenizer=tokenizer, learning_rate=1e-3, max_new_tokens=4)
    data = InstructionDataModule(rows, tokenizer, max_length=96, batch_size=4)
    callback = DiversitySelectionCallback(24, "kmq", rounds=3, k=6, engine="torch", round_init="restart")
    runner = trainer(tmp_path, [callback], max_epochs=3)
    runner.fit(module, datamodule=data)
    assert runner.global_step == 2 + 4 + 6
    assert len(callback.selection.rows) == 24
    scored = torch.isfinite(callback.selection.scores)
    assert int(scored.sum()) == 16
    assert all(part.training for part in module.modules())


def test_a_module_that_cannot_answer_is_named_before_anything_is_trained(tmp_path):
    class Mute(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.steps = torch.nn.Linear(1, 1), 0

        def training_step(self, batch, batch_idx):
            self.steps += 1
            return self.layer(torch.ones(1, 1)).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    rows = planted_instructions(40, 10, seed=2)
    loader = DataLoader(rows, 4, collate_fn=lambda batch: batch)
    module = Mute()
    with pytest.raises(MisconfigurationException, match="generate_responses"):
        trainer(tmp_path, [DiversitySelectionCallback(12, rounds=2, k=3)]).fit(module, loader)
    assert module.steps == 0
