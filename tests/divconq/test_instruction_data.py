"""InstructionDataModule: any source, rows that teach nothing left out and counted, exact resume, refusals."""

from __future__ import annotations

import json
import pickle
from itertools import chain

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment

from lightning_adapt.divconq.models import instruction_data
from lightning_adapt.divconq.models.instruction_data import InstructionDataModule
from lightning_adapt.divconq.models.instruction_rows import InstructionDataset
from lightning_adapt.divconq.text.conversation import Turn
from tests.divconq.instruction_parts import pairs, reference, tiny

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


class Watcher(LightningModule):
    """Writes down the rows it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["index"].tolist())
        return (self.weight * batch["input_ids"].float().mean()).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def data(rows=None, **options):
    return InstructionDataModule(pairs(21) if rows is None else rows, tiny()[1], **{"batch_size": 4, **options})


def run(datamodule, ckpt_path=None, **options):
    module, trainer = Watcher(), Trainer(**{**QUIET, "max_epochs": 2, **options})
    trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
    return module, trainer


def test_a_batch_is_what_the_docstring_says():
    module = data()
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert {name: value.dtype for name, value in batch.items()} == dict.fromkeys(
        ("input_ids", "labels", "attention_mask", "index"), torch.int64
    )
    width = batch["input_ids"].shape[1]
    for place, index in enumerate(batch["index"].tolist()):
        ids, mask = reference("tiny", module.train_set.conversation(index), module.tokenizer)
        gap = width - len(ids)
        assert batch["input_ids"][place].tolist() == [*ids, *[module.tokenizer.pad_token_id] * gap]
        labels = [token if spoken else -100 for token, spoken in zip(ids, mask, strict=True)]
        assert batch["labels"][place].tolist() == [*labels, *[-100] * gap]
        assert batch["attention_mask"][place].tolist() == [1] * len(ids) + [0] * gap


def write(kind, rows, folder):
    import datasets

    if kind == "jsonl":
        path = folder / "pool.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path = folder / "pool.json"
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        path = folder / "pool.parquet"
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    else:
        path = folder / "saved"
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "folder", "dataset"])
def test_every_source_gives_the_same_rows(kind, tmp_path):
    import datasets

    rows = pairs(12)
    source = datasets.Dataset.from_list(rows) if kind == "dataset" else write(kind, rows, tmp_path)
    made, expected = data(source).train_set, data(rows).train_set
    assert made.digest == expected.digest
    assert [made[i]["input_ids"].tolist() for i in range(12)] == [expected[i]["input_ids"].tolist() for i in range(12)]
    assert made.conversation(3) == (Turn("user", rows[3]["prompt"]), Turn("assistant", rows[3]["response"]))


def test_rows_that_teach_nothing_are_left_out_and_counted():
    rows = pairs(10)
    rows[2]["response"] = " \n"
    rows[5]["prompt"] = "many words " * 60
    module = data(rows, max_length=64)
    with pytest.warns(UserWarning, match=r"2 of 10 rows of `data` .*1 no response, 1 too long .max_length=64"):
        module.setup("fit")
    assert module.dropped == {"no response": 1, "too long": 1}
    kept = [0, 1, 3, 4, 6, 7, 8, 9]
    assert module.train_set.rows.tolist() == kept
    assert module.train_set.conversation(2)[0].content == rows[3]["prompt"]
    assert module.train_set.place(2) == "row 3"
    assert all((module.train_set[i]["labels"] != -100).any() for i in range(len(kept)))
    with pytest.raises(ValueError, match="at least one row that can be trained on"):
        data(rows[2:3]).setup("fit")


def test_a_row_that_cannot_be_used_is_named(tmp_path):
    rows = [*pairs(3), {"prompt": "a", "answer": "b"}]
    with pytest.raises(ValueError, match=r"[Rr]ow 3.*prompt"):
        data(rows).setup("fit")
    (tmp_path / "pool.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": \n')
    with pytest.raises(ValueError, match=r"pool.jsonl, line 2"):
        data(str(tmp_path / "pool.jsonl")).setup("fit")
    tokenizer = tiny()[1]
    refusing = (
        "{% if 'number 2 ' in messages[0]['content'] %}{{ raise_exception('not two') }}{% endif %}"
        + tokenizer.chat_template
    )
    with pytest.raises(ValueError, match=r"row 2: .*not two"):
        data(pairs(5), chat_template=refusing).setup("fit")


def test_the_split_is_disjoint_whole_and_seeded(tmp_path):
    module, same, other = data(val=0.2), data(val=0.2), data(val=0.2, seed=1)
    train, val = module.train_set.rows.tolist(), module.val_set.rows.tolist()
    assert sorted(train + val) == list(range(21))
    assert len(val) == 4
    assert same.val_set.rows.tolist() == val
    assert other.val_set.rows.tolist() != val
    path = write("jsonl", pairs(5, start=50), tmp_path)
    assert data(val=path).val_set.digest == data(val=pairs(5, start=50)).val_set.digest
    assert len(data(val=path).train_set) == 21
    with pytest.raises(ValueError, match="rows on both sides"):
        data(val=0.01).setup("fit")


@pytest.mark.parametrize(
    ("stage", "options", "read"),
    [
        ("fit", {"val": 0.2, "test": 3}, {"data": 17, "val": 4}),
        ("validate", {"val": 0.2, "test": 3}, {"val": 4}),
        ("validate", {"val": 5}, {"val": 5}),
        ("test", {"val": 0.2, "test": 3}, {"test": 3}),
        ("predict", {"val": 5, "test": 3}, {"val": 5}),
        ("predict", {"test": 3}, {"data": 21}),
        (None, {"val": 5, "test": 3}, {"data": 21, "val": 5, "test": 3}),
    ],
)
def test_a_stage_reads_the_rows_that_it_needs(stage, options, read, monkeypatch):
    made = []

    class Counted(InstructionDataset):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(len(self))

    monkeypatch.setattr(instruction_data, "InstructionDataset", Counted)
    rows = {name: pairs(value) if isinstance(value, int) else value for name, value in options.items()}
    data(**rows).setup(stage)
    assert sorted(made) == sorted(read.values())


def test_a_file_that_is_only_tested_on_needs_no_pool():
    module = InstructionDataModule("nowhere.jsonl", tiny()[1], test=pairs(3))
    module.setup("test")
    assert [len(batch["index"]) for batch in module.test_dataloader()] == [3]


@pytest.mark.parametrize("name", ["data", "val", "test"])
def test_rows_that_are_not_there_are_named_by_their_argument(name):
    for value, text in (("nosuch.jsonl", "a file that is there"), ([], "at least one row long")):
        rows = {"data": pairs(4), name: value}
        with pytest.raises((FileNotFoundError, ValueError), match=f"^`{name}` must be {text}"):
            InstructionDataModule(rows.pop("data"), tiny()[1], **rows).setup()


def test_without_validation_rows_there_is_no_validation():
    _, trainer = run(data(), max_epochs=1)
    assert trainer.num_val_batches in ([], 0, [0])
    copied = pickle.loads(pickle.dumps(data()))
    run(copied, max_epochs=1)
    assert len(copied.train_set) == 21


def test_a_copy_in_another_process_knows_its_conversations(tmp_path):
    module = data(write("jsonl", pairs(6), tmp_path))
    module.setup("fit")
    copied = pickle.loads(pickle.dumps(module.train_set))
    assert copied.conversation(4) == module.train_set.conversation(4)
    assert torch.equal(copied[4]["labels"], module.train_set[4]["labels"])


def test_the_order_is_new_every_epoch_and_follows_from_the_seed():
    first, again, other = run(data())[0].seen, run(data())[0].seen, run(data(seed=7))[0].seen
    assert first == again != other
    epochs = [list(chain(*first[:6])), list(chain(*first[6:]))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(21))] * 2
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [6, 8])
def test_a_run_resumes_exactly_at_the_end_of_an_epoch_and_inside_one(steps, workers, tmp_path):
    def keep():
        return ModelCheckpoint(str(tmp_path), "{step}", every_n_train_steps=steps, save_top_k=-1)

    options = {"enable_checkpointing": True}
    whole = run(data(num_workers=workers), callbacks=[keep()], **options)[0].seen
    path = str(tmp_path / f"step={steps}.ckpt")
    resumed = run(data(num_workers=workers), ckpt_path=path, callbacks=[keep()], **options)[0].seen
    assert resumed == whole[steps:]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows": pairs(21, start=1)}, "conversations"),
        ({"chat_template": "plain"}, "chat template"),
        ({"max_length": 1000}, "max_length"),
        ({"batch_size": 2}, "global batch"),
        ({"seed": 3}, "seed"),
    ],
)
def test_a_resume_with_other_data_is_refused(change, named, tmp_path):
    _, trainer = run(data(), max_epochs=1)
    trainer.save_checkpoint("stopped.ckpt")
    torch.load("stopped.ckpt", weights_only=True)
    with pytest.raises(MisconfigurationException, match=named):
        run(data(**change), ckpt_path="stopped.ckpt")


class Ranks(Watcher):
    """Both processes together see every row once; unlabelled rows fill up the validation."""

    def on_train_epoch_end(self):
        mine = torch.tensor([list(chain(*self.seen))])
        both = self.all_gather(mine).flatten().tolist()
        assert len(set(both)) == len(both) == 20, both
        self.seen = []

    def validation_step(self, batch, batch_idx):
        counted = (batch["labels"] != -100).any(dim=1)
        self.counted = [*getattr(self, "counted", []), *batch["index"][counted].tolist()]

    def on_validation_epoch_end(self):
        sizes = self.all_gather(torch.tensor(len(self.counted))).tolist()
        assert sum(sizes) == 5, sizes
        self.counted = []


def test_two_processes_share_the_rows(tmp_path):
    options = {"strategy": "ddp_fork", "devices": 2, "plugins": [LightningEnvironment()], "num_sanity_val_steps": 0}
    Trainer(**QUIET, max_epochs=2, **options).fit(Ranks(), datamodule=data(val=pairs(5, start=40)))


def test_names_of_folders_and_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # the method that newer releases renamed
    from jsonargparse import ArgumentParser

    tiny()[1].save_pretrained(str(tmp_path / "tokenizer"))
    path = write("jsonl", pairs(8), tmp_path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(InstructionDataModule, "data")
    arguments = ["--data.data", path, "--data.tokenizer", str(tmp_path / "tokenizer"), "--data.val", "0.25"]
    made = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert (len(made.train_set), len(made.val_set)) == (6, 2)
    assert made.train_set.digest == data(pairs(8), val=0.25).train_set.digest


def test_a_template_by_name_reaches_the_tokenizer_of_the_data():
    tokenizer = tiny()[1]
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match='chat_template="plain"'):
        InstructionDataModule(pairs(4), tokenizer).setup("fit")
    module = InstructionDataModule(pairs(4), tokenizer, chat_template="plain")
    assert "### Assistant:" in module.tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.chat_template is None


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"val": 1.0}, ValueError, "val"),
        ({"val": True}, ValueError, "val"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"eval_batch_size": 0}, ValueError, "eval_batch_size"),
        ({"max_length": 1}, ValueError, "max_length"),
        ({"num_workers": -1}, ValueError, "num_workers"),
        ({"seed": -1}, ValueError, "seed"),
        ({"pin_memory": 1}, TypeError, "pin_memory"),
    ],
)
def test_bad_arguments_are_named(options, error, text):
    with pytest.raises(error, match=text):
        data(**options)


def test_something_else_than_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`tokenizer` must be a folder with a tokenizer"):
        InstructionDataModule(pairs(3), str(tmp_path)).setup("fit")
    with pytest.raises(TypeError, match="`tokenizer` must be"):
        InstructionDataModule(pairs(3), object()).setup("fit")
