"""The cells of the RS2 benchmark: their rows, labels, result files, claims, and CIFAR-10 from torchvision's files."""

import hashlib
import json
import pickle
import sys

import numpy as np
import pytest
import torch

FOUR = ["full, schedule compressed", "static random subset", "margin, most uncertain", "RS2 without replacement"]


@pytest.fixture
def script(script_of, monkeypatch):
    """rs2_time_to_accuracy with two rounds, small batches and a data set of 1,600 random images."""
    module = script_of("rs2_time_to_accuracy")

    def load(split):
        draws = torch.Generator().manual_seed(len(split))
        count = 1600 if split == "train" else 100
        images = torch.randn(count, 1, 28, 28, generator=draws)
        return module.CountedRows(images, torch.randint(10, (count,), generator=draws))

    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(module, "BATCH", 16)
    monkeypatch.setattr(module, "ROUNDS", {"full": 2, "quick": 1})
    monkeypatch.setattr(module, "POINTS", {"full": 2, "quick": 1})
    return module


@pytest.mark.parametrize(
    ("grid", "rounds", "steps", "full"),
    [("cnn-r0.01", 10, 10, None), ("cnn-r0.05", 2, 10, None), ("cnn-r0.3", 1, 30, None), ("resnet-r0.1", 1, 10, 100)],
)
def test_a_cell_runs_its_rows_for_equal_steps(script, monkeypatch, tmp_path, capsys, grid, rounds, steps, full):
    monkeypatch.setattr(script, "ROUNDS", {"full": rounds})
    out = tmp_path / "cell.json"
    assert script.main(["--grid", grid, "--seeds", "1", "--out", str(out)]) == 0
    saved = json.loads(out.read_text())
    ratio = float(grid.split("-r")[1])
    made = {row["method"]: row["runs"][0]["steps"] for row in saved["rows"]}
    expected = dict.fromkeys([*FOUR, f"limit_train_batches={ratio:g}"], steps)
    assert made == ({**expected, "full": full} if full else expected)
    settings = {key: saved["settings"][key] for key in ("grid", "net", "ratio")}
    assert settings == {"grid": grid, "net": grid.split("-")[0], "ratio": ratio}
    printed = capsys.readouterr().out
    assert ("No row 'full'" in printed) == (full is None)
    assert "never" in printed  # random labels teach nothing
    assert script.main(["--grid", "cnn-r0.1", "--seeds", "1", "--out", str(out)]) == 2
    assert "another settings" in capsys.readouterr().out


def test_the_network_of_a_cell_is_the_one_it_names(script):
    training = sys.modules["_rs2_training"]
    gray, colour = torch.zeros(2, 1, 28, 28), torch.zeros(2, 3, 32, 32)
    assert any(isinstance(part, torch.nn.AdaptiveAvgPool2d) for part in training.network("resnet", gray))
    assert not any(isinstance(part, torch.nn.AdaptiveAvgPool2d) for part in training.network("cnn", gray))
    assert training.network("resnet", colour)(colour).shape == (2, 10)
    assert training.network("cnn", gray)(gray).shape == (2, 10)


def test_every_cell_has_claims_that_its_control_fails(script):
    harness = sys.modules["_harness"]
    for grid in script.GRID:
        bounds = script.THRESHOLDS["full" if grid == script.DEFAULT else grid]
        options = harness.Options(False, True, None, (0, 1, 2), "cpu", 1)
        assert script.bounds_of(grid, options) == bounds
        study = harness.Study("recorded", "accuracy", {}, options)
        for seed in range(3):
            # the method replaced by the static subset, three points below full training
            for method, value in {script.COMPRESSED: 88, script.STATIC: 85, script.RS2: 84.9}.items():
                study.add(method, seed, {"accuracy": value})
        claims = script.check(study, bounds)
        assert len(claims) == len(bounds) > 0
        assert not any(claim.holds for claim in claims)


def test_quick_check_is_refused_where_nothing_is_claimed(script, capsys):
    assert script.main(["--grid", "cnn-r0.05", "--quick", "--check"]) == 2
    assert "--quick --check" in capsys.readouterr().out


def test_help_and_abbreviations_know_the_grid(script, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(["--help"])
    assert stopped.value.code == 0
    assert "--grid" in (printed := capsys.readouterr().out)
    assert "--quick" in printed
    with pytest.raises(SystemExit) as stopped:
        script.main(["--grid", "cnn-r0.2"])
    assert stopped.value.code == 2
    assert sys.modules["_rs2_grid"].read_cell(["--gri", "cnn-r0.3", "--seeds", "1"]).grid == "cnn-r0.3"


def write_cifar10(folder, monkeypatch):
    """Write torchvision's files with four images each; return (training images, training classes)."""
    datasets = pytest.importorskip("torchvision").datasets
    place = folder / datasets.CIFAR10.base_folder
    place.mkdir(parents=True)
    draws = np.random.default_rng(0)
    written, sums = [], {}

    def write(name, content):
        (place / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((place / name).read_bytes()).hexdigest()

    for name, _ in [*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list]:
        batch = {"data": draws.integers(256, size=(4, 3072), dtype=np.uint8), "labels": draws.integers(10, size=4)}
        batch["labels"] = batch["labels"].tolist()
        write(name, batch)
        written.append(batch)
    meta = dict(datasets.CIFAR10.meta)
    write(meta["filename"], {meta["key"]: [str(number) for number in range(10)]})
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(datasets.CIFAR10, part, [[name, sums[name]] for name, _ in getattr(datasets.CIFAR10, part)])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**meta, "md5": sums[meta["filename"]]})
    train = written[:-1]
    return np.concatenate([batch["data"] for batch in train]), [label for batch in train for label in batch["labels"]]


def test_cifar10_is_read_from_the_files_of_torchvision(script, tmp_path, monkeypatch):
    images, labels = write_cifar10(tmp_path, monkeypatch)
    train = script.load_cifar10("train", tmp_path)
    assert train.labels.tolist() == labels
    assert train.images.shape == (20, 3, 32, 32)
    mean, sd = np.array([0.491, 0.482, 0.447]), np.array([0.247, 0.243, 0.262])
    expected = (images.reshape(20, 3, 32, 32) / 255 - mean[:, None, None]) / sd[:, None, None]
    np.testing.assert_allclose(train.images, expected, rtol=1e-5, atol=1e-5)
    assert len(script.load_cifar10("test", tmp_path)) == 4


def test_the_cifar10_cell_trains(script, tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    monkeypatch.setattr(script, "BATCH", 2)
    monkeypatch.setattr(script, "ROUNDS", {"full": 10})  # of one batch
    assert script.main(["--grid", "cifar10-resnet-r0.1", "--data", str(tmp_path), "--seeds", "1"]) == 0


def test_missing_cifar10_is_said_and_nothing_is_fetched(script, tmp_path, monkeypatch, capsys):
    datasets = pytest.importorskip("torchvision").datasets

    def refuse(self):
        raise AssertionError("no download was asked for")

    monkeypatch.setattr(datasets.CIFAR10, "download", refuse)
    assert script.main(["--grid", "cifar10-resnet-r0.1", "--data", str(tmp_path)]) == 2
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "--data must be a folder" in printed
    assert "--download" in printed
    with pytest.raises(AssertionError, match="no download"):
        script.main(["--grid", "cifar10-resnet-r0.1", "--data", str(tmp_path), "--download"])


def test_missing_torchvision_names_the_extra(script, monkeypatch, capsys):
    from lightning_adapt._shared import imports

    monkeypatch.setitem(imports.EXTRAS["vision"], "torchvision", imports.RequirementCache("torchvision>=999"))
    assert script.main(["--grid", "cifar10-resnet-r0.1"]) == 2
    assert "vision" in capsys.readouterr().out
