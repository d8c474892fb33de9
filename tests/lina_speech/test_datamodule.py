"""TextSpeechDataModule: batches, what is left out, splits, loaders of every stage, the command line."""

from __future__ import annotations

import json
import pickle
import warnings
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer

from lightning_adapt.lina_speech.data.audio import trim_silence
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.data.sets import default_cache_dir
from tests.lina_speech.data_parts import QUIET, RATE, Letters, LoudnessCodec, data, rows, tone, write_wav


class Watcher(LightningModule):
    """Writes down the rows it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {"fit": [], "validate": [], "test": [], "predict": []}

    def note(self, stage, batch):
        self.seen[stage].append(batch["index"].tolist())
        return (self.weight * batch["codes"].float().mean()).sum()

    def training_step(self, batch, batch_idx):
        return self.note("fit", batch)

    def validation_step(self, batch, batch_idx):
        self.note("validate", batch)

    def test_step(self, batch, batch_idx):
        self.note("test", batch)

    def predict_step(self, batch, batch_idx):
        return self.note("predict", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_a_batch_is_what_the_docstring_says():
    source = rows(30)
    made = data(source, join_probability=1.0)
    made.setup("fit")
    loader = made.train_dataloader()
    plan = loader.sampler.plan(0)
    codec, encode = LoudnessCodec(), Letters().encode
    for batch, items in zip(loader, (plan.batch(n) for n in range(len(loader))), strict=True):
        assert all(value.dtype == torch.int64 for value in batch.values())
        assert batch["index"].tolist() == [item[0] for item in items]
        assert batch["codes"].shape[0] * batch["codes"].shape[2] <= 200
        for place, item in enumerate(items):
            text = encode(" ".join(source[row]["text"] for row in item))
            codes = torch.cat([codec.encode(trim_silence(source[row]["audio"], RATE)) for row in item], dim=1)
            n, m = batch["code_lengths"][place], batch["text_lengths"][place]
            assert batch["text"][place, :m].tolist() == text
            assert torch.equal(batch["codes"][place, :, :n], codes)
            assert not batch["codes"][place, :, n:].any()
            assert not batch["text"][place, m:].any()
            assert made.speakers[batch["speaker"][place]] == source[item[0]]["speaker"]
    assert made.speakers == ("voice 0", "voice 1", "voice 2")


def broken_rows(folder):
    """Files with every fault there is, and two that are fine."""
    samples = {
        "good": tone(1.0),
        "stereo": np.stack([tone(1.0), tone(1.0, 3)], axis=1),
        "silent": np.zeros(900),
        "short": tone(0.2),
        "long": tone(3.0),
        "very long": tone(30.0),
        "empty": np.zeros(0),
        "nan": np.full(900, np.nan),
    }
    found = [write_wav(folder / f"{name}.wav", value, subtype="FLOAT") for name, value in samples.items()]
    (folder / "noise.wav").write_bytes(b"RIFF and nothing more")
    paths = [*found, str(folder / "noise.wav"), str(folder / "gone.wav"), str(folder / "wordless.wav")]
    write_wav(paths[-1], tone(1.0, 5))
    texts = {paths[-1]: " ... "}
    return [{"audio": path, "text": texts.get(path, "words"), "id": Path(path).stem} for path in paths]


REASONS = {
    "silent": "silent",
    "short": "too short",
    "long": "too long",
    "very long": "too long",
    "empty": "empty",
    "nan": "not finite",
    "noise": "cannot be read",
    "gone": "file not found",
    "wordless": "no text",
}


def test_what_cannot_be_used_is_listed_once(tmp_path):
    source = broken_rows(tmp_path)
    made = data(source, max_seconds=2.0)
    left_out = r"9 of 11 recordings of `data` are left out: 2 too long, 1 .*report-"
    with pytest.warns(UserWarning, match=left_out):
        made.setup("fit")
    made.setup("validate")  # a second warning would be an error
    assert made.train_set.ids == ["good", "stereo"]
    assert {entry.id: entry.reason for entry in made.report.left_out} == REASONS
    assert made.report.notes == {"mixed down to mono": 1}
    content = json.loads(Path(made.report.path).read_text())
    assert content["reasons"]["too long"] == 2
    assert [entry["audio"] for entry in content["left_out"]] == [row["audio"] for row in source[2:]]
    assert content["left_out"][0]["place"] == "row 2 of `data`"
    again = data(source, max_seconds=2.0)
    with pytest.warns(UserWarning, match=left_out):  # known without reading anything
        again.setup("fit")
    assert again.codec.calls == 0
    assert again.report == made.report


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"None of the 1 recordings of `data` can be.*1 silent.*row 0 .*silent \(peak"):
        data(broken_rows(tmp_path)[2:3]).setup("fit")
    with pytest.raises(ValueError, match=r"`id` must be different in every row of `data`, but got 'u0001'"):
        data([*rows(3), rows(2)[1]]).setup("fit")


def test_the_split_is_seeded_and_does_not_depend_on_the_order_or_other_rows():
    source = rows(40)
    made, turned = data(source, val=0.2), data(source[::-1], val=0.2)
    assert (len(made.train_set), len(made.val_set)) == (32, 8)
    assert sorted(made.train_set.ids + made.val_set.ids) == [row["id"] for row in source]
    assert (turned.val_set.ids, turned.train_set.digest) == (made.val_set.ids, made.train_set.digest)
    turned_batches, batches = list(turned.train_dataloader()), list(made.train_dataloader())
    assert all(torch.equal(a["codes"], b["codes"]) for a, b in zip(turned_batches, batches, strict=True))
    assert data(source, val=0.2, seed=1).val_set.ids != made.val_set.ids
    fewer = data(source[:39], val=0.2)
    assert len(set(fewer.val_set.ids) - set(made.val_set.ids)) <= 1
    assert len(data(source[:5], val=0.01).val_set) == 1
    assert len(data(source[:2], val=0.99).train_set) == 1
    with pytest.raises(ValueError, match="`val` must be a share of at least two usable recordings"):
        data(source[:1], val=0.5).setup("fit")


def test_every_stage_has_its_rows(tmp_path):
    (tmp_path / "val").mkdir()
    lines = [json.dumps({"audio": f"{n}.wav", "text": "words", "speaker": "new"}) for n in range(7)]
    (tmp_path / "val" / "m.jsonl").write_text("\n".join(lines))
    for number in range(7):
        write_wav(tmp_path / "val" / f"{number}.wav", tone(0.5 + 0.1 * number, number))
    made = data(rows(20), val=str(tmp_path / "val" / "m.jsonl"), test=rows(4, start=50), max_batch_size=3)
    trainer, module = Trainer(**QUIET, max_epochs=1, num_sanity_val_steps=0), Watcher()
    trainer.fit(module, datamodule=made)
    assert module.seen["validate"] == [[0, 1, 2], [3, 4, 5], [6]]
    trainer.test(module, datamodule=made, verbose=False)
    assert list(chain(*module.seen["test"])) == [0, 1, 2, 3]
    predicted = trainer.predict(module, datamodule=made)
    assert len(predicted) == 3
    assert module.seen["predict"] == module.seen["validate"]
    assert made.val_set[3]["speaker"] == "new"
    assert made.val_set[[(3,)]]["speaker"].tolist() == [-1]
    assert made.speakers == ("voice 0", "voice 1", "voice 2")


def test_a_test_needs_no_training_data():
    made = data("nowhere.jsonl", test=rows(3))
    Trainer(**QUIET).test(Watcher(), datamodule=made, verbose=False)
    assert made.codec.calls == 3
    with pytest.raises(MisconfigurationException, match="`test` must be given"):
        Trainer(**QUIET).test(Watcher(), datamodule=data(rows(3)), verbose=False)


def test_without_validation_rows_predict_uses_the_training_rows():
    trainer, module = Trainer(**QUIET, max_epochs=1), Watcher()
    copied = pickle.loads(pickle.dumps(data(rows(6))))
    trainer.fit(module, datamodule=copied)
    assert module.seen["validate"] == []
    trainer.predict(module, datamodule=copied)
    assert list(chain(*module.seen["predict"])) == list(range(6))


def test_statistics_are_what_a_loop_counts():
    made = data(rows(25))
    found = made.statistics()
    codes = torch.cat([made.train_set[n]["codes"] for n in range(25)], dim=1)
    for row, entropy in zip(codes, found["unigram_entropy"], strict=True):
        _, counts = np.unique(row.numpy(), return_counts=True)
        shares = counts / counts.sum()
        assert entropy == pytest.approx(-(shares * np.log(shares)).sum())
    assert (found["utterances"], found["speakers"], found["frames"]) == (25, 3, codes.shape[1])
    assert found["seconds"] == pytest.approx(codes.shape[1] / 50, abs=0.5)
    assert found["characters"] == sum(len(row["text"]) for row in rows(25))
    assert 0 <= found["padding_share"] < 0.5


class Spoken(list):
    """Rows that vouch for themselves, as corpora made on the spot do."""

    fingerprint = "spoken-1"
    read = 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)


def test_rows_with_a_fingerprint_are_read_once_ever():
    first = Spoken(rows(5))
    data(first).setup("fit")
    assert first.read == 5
    again = Spoken(rows(5))
    made = data(again)
    made.setup("fit")
    assert again.read == 0
    assert len(made.train_set) == 5
    again.fingerprint = "spoken-2"
    data(again).setup("fit")
    assert again.read == 5


def test_the_command_line_takes_paths_and_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # the method that newer releases renamed
    from jsonargparse import ArgumentParser

    for row in rows(6):
        write_wav(tmp_path / "wavs" / f"{row['id']}.wav", row["audio"])
    (tmp_path / "metadata.csv").write_text("".join(f"{row['id']}|{row['text']}\n" for row in rows(6)))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TextSpeechDataModule, "data")
    given = ["--data.data", str(tmp_path), "--data.val", "0.34", "--data.cache_dir", "kept", "--data.progress", "false"]
    chosen = {"codec": {"class_path": "tests.lina_speech.data_parts.LoudnessCodec", "init_args": {"n_codebooks": 3}}}
    made = parser.instantiate_classes(
        parser.parse_args([*given, "--data.codec", json.dumps(chosen["codec"]), "--data.trim_silence_db", "null"])
    ).data
    assert made.codec.n_codebooks == 3
    assert (len(made.train_set), len(made.val_set)) == (4, 2)
    assert Path("kept").is_dir()


def test_a_bar_is_shown_while_recordings_are_encoded(capsys):
    data(rows(3), progress=True).setup("fit")
    captured = capsys.readouterr()
    assert "Encoding `data`" in captured.err
    assert "3/3" in captured.err
    assert captured.out == ""


def test_the_cache_is_in_the_users_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "lightning_adapt" / "lina_speech"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "lightning_adapt" / "lina_speech"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"val": 1.0}, ValueError, "`val`"),
        ({"val": True}, ValueError, "`val`"),
        ({"tokens_per_batch": 0}, ValueError, "`tokens_per_batch`"),
        ({"max_batch_size": 1.5}, TypeError, "`max_batch_size`"),
        ({"min_seconds": 0}, ValueError, "`min_seconds`"),
        ({"max_seconds": 0.1}, ValueError, "`max_seconds` must be larger than `min_seconds`"),
        ({"join_probability": 2}, ValueError, "`join_probability`"),
        ({"max_joined": 0}, ValueError, "`max_joined`"),
        ({"trim_silence_db": -1.0}, ValueError, "`trim_silence_db`"),
        ({"n_codebooks": 0}, ValueError, "`n_codebooks`"),
        ({"codebook_size": 1}, ValueError, "`codebook_size`"),
        ({"num_workers": -1}, ValueError, "`num_workers`"),
        ({"pin_memory": 1}, TypeError, "`pin_memory`"),
        ({"progress": None}, TypeError, "`progress`"),
        ({"seed": -1}, ValueError, "`seed`"),
    ],
)
def test_bad_arguments_are_named(options, error, text):
    with pytest.raises(error, match=text):
        data(**options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"source": "nowhere.csv"}, FileNotFoundError, "`data` must be a file or folder that is there"),
        ({"source": []}, ValueError, "`data` must be at least one row long"),
        ({"source": 5}, TypeError, "`data` must be a path or rows"),
        ({"source": ["a.wav"]}, TypeError, "row 0 of `data` must be a mapping"),
        ({"source": [{"text": "a"}]}, ValueError, "row 0 of `data` must have the keys audio and text, but got text"),
        ({"source": [{"audio": [0.1], "text": "a"}]}, ValueError, "row 0 of `data` must have the key sample_rate_hz"),
        ({"codec": "nowhere"}, FileNotFoundError, "`codec` must be a codec; the file that .* 'encodec:'"),
        ({"codec": Letters()}, TypeError, "`codec` must be a codec.*has no .*sample_rate_hz"),
        ({"tokenizer": 3}, TypeError, "`tokenizer` must be"),
    ],
)
def test_what_cannot_be_used_is_named_in_setup(options, error, text):
    with pytest.raises(error, match=text):
        data(options.pop("source", None), **options).setup("fit")


def test_tests_run_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data(rows(5), val=0.2).setup()
