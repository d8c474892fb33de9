"""The benchmark of SAA's accuracy: its rows are paired, its controls are what they say, and its claims can fail."""

import json
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import TensorDataset

from lightning_adapt import SampleAdaptiveAugmentation

GAINS = (0.1, -0.1, 0.0, 0.05, -0.05)  # what five seeds differ by


@pytest.fixture
def training(script_of, monkeypatch):
    """The training on small data: ten classes of blurred blocks."""
    training = script_of("_saa_training")

    def images(split):
        labels = torch.arange(60_000 if split == "train" else 100) % 10
        draws = torch.Generator().manual_seed(0)
        blocks = torch.nn.functional.interpolate(torch.rand(100, 1, 4, 4, generator=draws), size=28)
        pixels = blocks.mul(255).to(torch.uint8)
        return TensorDataset(pixels[torch.arange(len(labels)) % 100], labels)

    train = {split: images(split) for split in ("train", "test")}
    monkeypatch.setattr(training, "images", train.__getitem__)
    monkeypatch.setattr(training, "BATCH", 8)
    monkeypatch.setattr(training, "MU", 2)
    monkeypatch.setattr(training, "EPOCH", 4)
    return training


@pytest.fixture
def small(training):
    """Four steps, each image in the unlabelled set seen once."""
    return training.Setting(steps=4, n_labels=10, n_unlabeled=64)


class Recorder(Callback):
    """Keeps the weights at the start and the batches."""

    def __init__(self):
        self.batches = []

    def on_train_start(self, trainer, pl_module):
        self.weights = {name: value.clone() for name, value in pl_module.backbone.state_dict().items()}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)


def callbacks_of(training, monkeypatch, row, seed, setting):
    """Run a row; return its result, its callbacks and what a recorder saw."""
    kind, callbacks = training.ROWS[row](seed)
    recorder = Recorder()
    with monkeypatch.context() as patched, training.h.bench_settings(1):
        patched.setitem(training.ROWS, row, lambda _: (kind, [*callbacks, recorder]))
        result = training.run(row, seed, setting)
    return result, callbacks, recorder


def differing(batch):
    """The parts of a batch that all rows share: all but the strong views that are regrouped."""
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    return [labeled["image"], labeled["index"], labeled["label"], unlabeled["weak"], unlabeled["index"]]


@pytest.mark.filterwarnings("ignore:SampleAdaptiveAugmentation has selected nothing:UserWarning")
def test_all_rows_of_a_seed_start_alike_and_see_the_same_images(training, monkeypatch, small):
    seen = {row: callbacks_of(training, monkeypatch, row, 1, small)[2] for row in training.ROWS}
    reference, regrouped = seen[training.FIXMATCH], {}
    assert len(reference.batches) == 4
    for row, recorder in seen.items():
        assert all(torch.equal(value, reference.weights[name]) for name, value in recorder.weights.items())
        regrouped[row] = 0
        for ours, theirs in zip(recorder.batches, reference.batches, strict=True):
            assert all(torch.equal(*pair) for pair in zip(differing(ours), differing(theirs), strict=True))
            flags = ours["unlabeled"]["regrouped"]
            changed = (ours["unlabeled"]["strong"] != theirs["unlabeled"]["strong"]).flatten(1).any(1)
            assert not (changed & ~flags).any()
            regrouped[row] += int(flags.sum())
    assert regrouped[training.FIXMATCH] == regrouped[training.SUPERVISED] == regrouped[training.FLEXMATCH] == 0
    assert regrouped[training.ALWAYS] == 64
    other = callbacks_of(training, monkeypatch, training.FIXMATCH, 2, small)[2]
    assert not torch.equal(other.weights["classifier.weight"], reference.weights["classifier.weight"])
    assert not torch.equal(other.batches[0]["unlabeled"]["index"], reference.batches[0]["unlabeled"]["index"])


def test_supervised_only_learns_nothing_from_unlabelled_images(training):
    batch = {"labeled": {"image": torch.randn(4, 1, 28, 28), "label": torch.arange(4)}, "unlabeled": {}}
    module = training.SupervisedOnly("cnn", n_classes=10, channels=1)
    outputs = module.training_step(batch, 0)
    expected = torch.nn.functional.cross_entropy(module(batch["labeled"]["image"]), torch.arange(4))
    torch.testing.assert_close(outputs["loss"], expected)


class Data:
    """Stands for a Trainer with a DataModule of 4,000 images."""

    n_unlabeled = 4_000

    @property
    def datamodule(self):
        return self

    def use_flags(self, flags):
        self.flags = flags


def flags_of(training, share, seed):
    trainer = Data()
    training.Flags(share, seed).setup(trainer, None, "fit")
    return trainer.flags


def test_fixed_flags_are_the_share_that_was_asked_for(training):
    half = flags_of(training, 0.5, 0)
    assert half.float().mean() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(half, flags_of(training, 0.5, 0))
    assert not torch.equal(half, flags_of(training, 0.5, 1))
    assert flags_of(training, 1.0, 0).all()


def test_shuffled_flags_are_as_many_as_saas_on_other_images(training, monkeypatch, small):
    ours = SampleAdaptiveAugmentation(seed=0, warmup=0)
    theirs = training.RandomFlags(seed=0, warmup=0)
    for name, callback in (("ours", ours), ("theirs", theirs)):
        monkeypatch.setitem(training.ROWS, name, lambda _, one=callback: (training.FixMatchModule, [one]))
        with training.h.bench_settings(1):
            result = training.run(name, 0, small)
        assert result["naive share"] == 100 * callback.history.naive_share
    assert torch.equal(ours.history.losses, theirs.history.losses)  # of the one period before the one selection
    assert ours.curve == theirs.curve
    assert len(ours.curve) == 1
    n = int(ours.history.flags.sum())
    assert 0 < n < 64
    assert int(theirs.history.flags.sum()) == n
    assert not torch.equal(ours.history.flags, theirs.history.flags)


def test_held_out_images_are_not_trained_on(training, monkeypatch):
    setting = training.Setting(n_labels=10, n_unlabeled=64, held_out=True)
    made, (pixels, labels) = training.data_of(setting, 3)
    chosen = set(made.unlabeled.indices if made.unlabeled is not None else made.labeled.indices)
    order = torch.randperm(60_000, generator=training.generator(3, 1))
    assert chosen == set(order[:64].tolist())
    assert torch.equal(labels, training.images("train").tensors[1][order[50_000:]])
    assert len(pixels) == 10_000


# -- claims ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def script(training, script_of):
    return script_of("saa_fashion_mnist")


def study(script, fixmatch, saa, size="full", wobble=1.0):
    """A study with made-up results: supervised only at 70, FixMatch and SAA that much better."""
    options = script.h.Options(size == "quick", True, None, tuple(range(5)), "cpu", 1)
    made = script.h.Study("saa_fashion_mnist", "accuracy", {}, options)
    for seed, gain in enumerate(GAINS if size == "full" else (0.0,)):
        values = {script.SUPERVISED: 70.0, script.FIXMATCH: 70 + fixmatch + wobble * gain}
        for row, value in {**values, script.SAA: values[script.FIXMATCH] + saa + wobble * gain}.items():
            made.add(row, seed, {"accuracy": value, "seconds": 10.0})
    return made


@pytest.mark.parametrize(
    ("fixmatch", "saa", "wobble", "failing"),
    [
        (1.6, -1.4, 1.0, []),
        (1.4, -1.4, 1.0, ["FixMatch minus supervised only, points"]),
        (1.6, -1.6, 1.0, ["FixMatch + SAA minus FixMatch, points"]),
        (2.0, 0.0, 30.0, ["lower end"]),  # the mean suffices, but the seeds do not agree
    ],
)
def test_the_claims_of_the_full_run(script, fixmatch, saa, wobble, failing):
    claims = script.check(study(script, fixmatch, saa, wobble=wobble), script.THRESHOLDS["full"])
    assert len(claims) == 3
    failed = [claim.text for claim in claims if not claim.holds]
    assert len(failed) == len(failing)
    assert all(text.startswith(start) for text, start in zip(failed, failing, strict=True))


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_shipped_thresholds_fail_when_fixmatch_is_its_control(script, size):
    claims = script.check(study(script, 0.0, 0.0, size), script.THRESHOLDS[size])
    assert not claims[0].holds


@pytest.mark.parametrize("size", ["full", "quick"])
def test_the_shipped_thresholds_fail_when_saa_loses_what_fixmatch_gains(script, size):
    gain = 5.0
    claims = script.check(study(script, gain, -gain, size), script.THRESHOLDS[size])
    assert claims[0].holds
    assert not claims[-1].holds


def test_a_missing_row_is_not_a_claim_that_holds(script):
    made = study(script, 2.0, 0.0)
    made._runs.pop(script.SAA)
    assert [claim.holds for claim in script.check(made, script.THRESHOLDS["full"])] == [True, True, False]


# -- the script --------------------------------------------------------------------------------------------------------
@pytest.fixture
def shortened(script, monkeypatch, small):
    """The script with four steps in every setting."""
    sizes_of = script.sizes_of
    monkeypatch.setattr(script, "sizes_of", lambda name, options: (small, sizes_of(name, options)[1]))
    return script


def saved_rows(path):
    return {row["method"]: row["n"] for row in json.loads(path.read_text())["rows"]}


def test_the_script_runs_what_is_checked_and_goes_on_with_more(shortened, tmp_path, capsys):
    out = tmp_path / "out.json"
    options = ["--seeds", "2", "--out", str(out)]
    assert shortened.main(options) == 0  # without --check the claims are only printed
    assert saved_rows(out) == dict.fromkeys(shortened.CHECKED, 2)
    assert out.with_suffix(".png").stat().st_size > 0
    text = capsys.readouterr().out
    assert text.count("(full)") == 3
    assert "64 unlabelled, 4 steps" in text
    before = json.loads(out.read_text())["rows"][0]["runs"]
    assert shortened.main(["--seeds", "2", "--rows", "all", "--setting", "long", "--out", str(out)]) == 0
    assert set(saved_rows(out)) == {*shortened.CHECKED, *script_rows(shortened)}
    assert json.loads(out.read_text())["rows"][0]["runs"] == before
    assert "(full)" not in capsys.readouterr().out  # the claims are about the base setting


def script_rows(script):
    options = script.h.Options(False, False, None, (0,), "cpu", 1)
    return script.sizes_of("long", options)[1]


def test_other_settings_are_refused(shortened, monkeypatch, small, tmp_path, capsys):
    out = tmp_path / "out.json"
    monkeypatch.setattr(shortened, "CHECKED", (shortened.SUPERVISED,))
    assert shortened.main(["--seeds", "1", "--out", str(out)]) == 0
    before = out.read_bytes()
    monkeypatch.setattr(shortened, "sizes_of", lambda *_: (replace(small, steps=5), ()))
    assert shortened.main(["--seeds", "1", "--out", str(out)]) == 2
    assert "steps=4, here 5" in capsys.readouterr().out.replace("\n", " ")
    assert out.read_bytes() == before


def test_check_fails_when_fixmatch_is_its_control(shortened, monkeypatch, capsys):
    monkeypatch.setitem(shortened.ROWS, shortened.FIXMATCH, shortened.ROWS[shortened.SUPERVISED])
    assert shortened.main(["--quick", "--check"]) == 1
    assert "FAILS  (quick) FixMatch minus supervised only" in capsys.readouterr().out


def test_a_quick_run_is_shorter_and_settings_differ(script):
    quick = script.h.Options(True, False, None, (0,), "cpu", 1)
    full = script.h.Options(False, False, None, (0,), "cpu", 1)
    assert script.sizes_of("base", quick)[0].steps < script.sizes_of("base", full)[0].steps
    assert set(script.sizes_of("base", full)[1]) == set(script.ROWS)
    settings = [script.sizes_of(name, full)[0] for name in script.SETTINGS]
    assert len(set(settings)) == len(settings) > 1
