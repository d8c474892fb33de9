"""SAADataModule: what batches are made of, that they come again, and what users get told."""

from __future__ import annotations

import json
import pickle
import random

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.model_helpers import is_overridden
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from lightning_adapt import (
    FixMatchModule,
    FlexMatchModule,
    RS2Callback,
    RS2DataModule,
    SAADataModule,
    SampleAdaptiveAugmentation,
)
from lightning_adapt.saa.data.images import to_uint8
from lightning_adapt.saa.data.sampler import DrawnRow
from tests.foreign import trainer
from tests.foreign_images import ForeignFixMatch, images
from tests.saa.entries import data, selection


class Recorded(ForeignFixMatch):
    """Keeps whole batches."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.batches: list = []

    def training_step(self, batch, batch_idx):
        self.batches.append({part: {**values} for part, values in batch.items()})
        return super().training_step(batch, batch_idx)


def fit(made, folder, *callbacks, module=None, **options):
    module = module or Recorded()
    trainer(folder, [*callbacks], **{"max_epochs": 2, **options}).fit(module, datamodule=made)
    return module


def same(one, other) -> bool:
    return all(
        torch.equal(here[part][name], there[part][name])
        for here, there in zip(one, other, strict=True)
        for part in here
        for name in here[part]
    )


# -- batches -----------------------------------------------------------------------------------------------------------
def test_a_batch_is_what_the_docstring_says(tmp_path):
    made = SAADataModule(images(), None, images(16), n_labels=10, batch_size=4, mu=3, steps_per_epoch=5)
    module = fit(made, tmp_path)
    assert len(module.batches) == 10
    for batch in module.batches:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        assert {name: (*value.shape, value.dtype) for name, value in labeled.items()} == {
            "image": (4, 1, 8, 8, torch.float32),
            "label": (4, torch.int64),
            "index": (4, torch.int64),
        }
        assert {name: (*value.shape, value.dtype) for name, value in unlabeled.items()} == {
            "weak": (12, 1, 8, 8, torch.float32),
            "strong": (12, 1, 8, 8, torch.float32),
            "index": (12, torch.int64),
            "regrouped": (12, torch.bool),
            "label": (12, torch.int64),
        }
        assert torch.equal(unlabeled["label"], unlabeled["index"] % 2)
        assert not unlabeled["regrouped"].any()
        assert labeled["index"].max() < 10
    assert (made.parts.n_labeled, made.n_unlabeled, made.n_classes, made.channels, made.image_size) == (
        10,
        107,
        2,
        1,
        (8, 8),
    )


def test_evaluation_batches_are_only_normalised():
    made = SAADataModule(images(), None, images(16), n_labels=10, mean=[0.25], std=[0.5], eval_batch_size=16)
    made.setup()
    (batch,) = [made.transfer_batch_to_device(batch, torch.device("cpu"), 0) for batch in made.val_dataloader()]
    raw, label = images(16).tensors
    torch.testing.assert_close(batch["image"], (raw / 255 - 0.25) / 0.5)
    assert torch.equal(batch["label"], label)
    assert torch.equal(batch["index"], torch.arange(16))


def test_normalisation_comes_from_the_unlabelled_images_unless_it_is_given():
    made = data()
    made.setup()
    raw = images().tensors[0].double() / 255
    batch = made.transfer_batch_to_device(made.val_dataloader().dataset[0], torch.device("cpu"), 0)
    expected = (images(16).tensors[0][:1] / 255 - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(batch["image"], expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("include_labeled", [True, False])
def test_labels_are_balanced_seeded_and_part_of_the_unlabelled_set_on_request(include_labeled):
    chosen = {}
    for seed in (0, 0, 1):
        made = SAADataModule(images(), n_labels=10, include_labeled=include_labeled, seed=seed)
        made.setup()
        rows = made.parts.labeled[1].tolist()
        assert [row % 2 for row in rows].count(0) == 5
        assert chosen.setdefault(seed, rows) == rows
        assert made.n_unlabeled == (107 if include_labeled else 97)
        if not include_labeled:
            assert not set(made.parts.unlabeled[1].tolist()) & set(rows)
    assert chosen[0] != chosen[1]


def test_odd_numbers_of_labels_are_spread_over_classes():
    labels = torch.tensor([0] * 30 + [1] * 30 + [2] * 3)
    pixels = torch.zeros(63, 1, 4, 4, dtype=torch.uint8)
    made = SAADataModule(TensorDataset(pixels, labels), n_labels=8)
    made.setup()
    counts = torch.bincount(labels[made.parts.labeled[1]])
    assert sorted(counts.tolist()) == [2, 3, 3]
    with pytest.raises(ValueError, match=r"such that class 2 has as many images as it needs, but got 12\. It has 3"):
        SAADataModule(TensorDataset(pixels, labels), n_labels=12).setup()


# -- any data set ------------------------------------------------------------------------------------------------------
class Pictures(Dataset):
    """What torchvision's data sets look like; `kind` says what an image is."""

    def __init__(self, kind: str, n: int = 30, labels: bool = True) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
        self.kind, self.labels = kind, labels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row):
        from PIL import Image

        array = self.pixels[row]
        image = {
            "pil": lambda: Image.fromarray(array),
            "array": lambda: array,
            "uint8": lambda: torch.from_numpy(array).permute(2, 0, 1),
            "float": lambda: torch.from_numpy(array).permute(2, 0, 1) / 255,
        }[self.kind]()
        if not self.labels:
            return image
        return {"image": image, "label": row % 3} if self.kind == "array" else (image, row % 3)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("kind", ["pil", "array", "uint8", "float"])
def test_images_of_every_kind_give_the_same_batches(kind, in_memory):
    batches = {}
    for name in (kind, "uint8"):
        made = SAADataModule(
            Pictures(name), Pictures(name, labels=False), batch_size=4, mu=2, steps_per_epoch=2, in_memory=in_memory
        )
        made.setup()
        assert (made.n_classes, made.channels) == (3, 3)
        loaders = made.train_dataloader()
        batches[name] = [made.transfer_batch_to_device(batch, torch.device("cpu"), 0) for batch, *_ in loaders]
        assert all(bool((batch["unlabeled"]["label"] == -1).all()) for batch in batches[name])
    assert same(batches[kind], batches["uint8"])


def test_gray_pil_images_and_subsets():
    from PIL import Image

    class Gray(Pictures):
        def __getitem__(self, row):
            return Image.fromarray(self.pixels[row, :, :, 0]), row % 3

    made = SAADataModule(Subset(Gray("pil"), range(5, 20)), Gray("pil"), batch_size=2, mu=1, steps_per_epoch=1)
    made.setup()
    assert (made.channels, made.parts.n_labeled) == (1, 15)
    rows = Subset(images(), [7, 3, 5])
    made = SAADataModule(rows, rows, batch_size=3, mu=1, steps_per_epoch=1)
    made.setup()
    assert made.parts.labeled[0].read([0, 2])[1].tolist() == [1, 1]
    assert torch.equal(made.parts.labeled[0].read([0, 2])[0], images().tensors[0][[7, 5]])


# -- the same again ----------------------------------------------------------------------------------------------------
def test_one_seed_gives_the_same_batches_and_another_one_others(tmp_path):
    runs = [fit(data(), tmp_path).batches, fit(data(workers=2), tmp_path).batches]
    assert same(*runs)
    other = SAADataModule(images(), n_labels=4, batch_size=4, mu=2, steps_per_epoch=4, seed=1)
    assert not same(runs[0], fit(other, tmp_path).batches)


def test_flags_change_the_flagged_and_nothing_else(tmp_path):
    flags = torch.arange(107) % 3 == 0
    runs = {}
    for used in (False, True):
        made = data()
        made.setup()
        if used:
            made.use_flags(flags)
        runs[used] = fit(made, tmp_path).batches
    changed = 0
    for plain, flagged in zip(runs[False], runs[True], strict=True):
        naive = flagged["unlabeled"]["regrouped"]
        assert torch.equal(naive, flags[flagged["unlabeled"]["index"]])
        assert torch.equal(plain["unlabeled"]["weak"], flagged["unlabeled"]["weak"])
        assert torch.equal(plain["unlabeled"]["strong"][~naive], flagged["unlabeled"]["strong"][~naive])
        assert torch.equal(plain["labeled"]["image"], flagged["labeled"]["image"])
        different = (plain["unlabeled"]["strong"] != flagged["unlabeled"]["strong"]).flatten(1).any(1)
        changed += int((different & naive).sum())
    assert changed > 10


@pytest.mark.parametrize("ranks", [2, 4])
def test_views_do_not_depend_on_the_number_of_processes(ranks, tmp_path):
    class Sums(Recorded):
        def on_train_end(self) -> None:
            sums = [[row, view.double().sum().item()] for batch in self.batches for row, view in pairs(batch)]
            (tmp_path / f"{self.trainer.world_size}-{self.global_rank}.json").write_text(json.dumps(sums))

    def pairs(batch):
        part = batch["unlabeled"]
        return zip(part["index"].tolist(), part["strong"] + 2 * part["weak"], strict=True)

    fit(data(0, 8), tmp_path, module=Sums())
    options = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]}
    fit(data(0, 8 // ranks), tmp_path, module=Sums(), **options)
    whole, *parts = (
        json.loads((tmp_path / f"{size}-{rank}.json").read_text())
        for size, rank in [(1, 0), *((ranks, rank) for rank in range(ranks))]
    )
    assert [pair for row in zip(*parts, strict=True) for pair in row] == whole


# -- views made by the user's transforms -------------------------------------------------------------------------------
def scaled(image) -> torch.Tensor:
    return image.float() / 255


def jittered(image) -> torch.Tensor:
    return scaled(image) * random.random() + torch.rand(1) + np.random.rand()  # noqa: NPY002


def own_transforms(workers: int) -> SAADataModule:
    sizes = {"batch_size": 4, "mu": 2, "steps_per_epoch": 4, "num_workers": workers, "n_labels": 4}
    return SAADataModule(images(), None, images(16), weak=jittered, strong=jittered, plain=scaled, **sizes)


def test_own_transforms_give_the_same_views_in_workers_and_here(tmp_path):
    here = fit(own_transforms(0), tmp_path).batches
    assert same(here, fit(own_transforms(2), tmp_path).batches)
    strong = torch.cat([batch["unlabeled"]["strong"] for batch in here])
    assert len({view.sum().item() for view in strong}) == len(strong), "random numbers of their own"


@pytest.mark.parametrize("kind", [FixMatchModule, FlexMatchModule])
def test_a_backbone_by_name_trains_on_own_transforms(kind, tmp_path):
    """What the transforms make of an image is not known beforehand."""
    module = kind("cnn", n_classes=10, channels=1)
    assert own_transforms(0).channels == 0
    fit(own_transforms(0), tmp_path, module=module, max_epochs=1)
    assert module.trainer.global_step == 4


def test_labels_are_those_that_batches_hold():
    """`targets` of torchvision's data sets are from before `target_transform`."""

    class Letters(TensorDataset):
        targets = torch.arange(40) % 4 + 1
        target_transform = staticmethod(lambda label: label - 1)

        def __getitem__(self, row):
            return self.tensors[0][row], self.target_transform(int(self.targets[row]))

    letters = Letters(torch.zeros(40, 1, 8, 8, dtype=torch.uint8))
    for dataset in (letters, Subset(letters, range(40)), ConcatDataset([Subset(letters, range(40))])):
        made = SAADataModule(dataset, None, images(16), n_labels=4)
        made.setup()
        assert made.n_classes == 4


def test_what_stands_in_the_place_of_a_label_does_not_matter_where_labels_are_not_used():
    class Named(Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, row):
            return torch.zeros(1, 8, 8, dtype=torch.uint8), f"{row}.png"

    made = SAADataModule(images(), Named(), images(16), batch_size=4)
    made.setup()
    assert set(next(iter(made.train_dataloader().iterables["unlabeled"]))["label"].tolist()) == {-1}
    with pytest.raises(TypeError, match=r"`label` must be a whole number, but got '0\.png'"):
        SAADataModule(Named(), images(), images(16)).n_classes  # noqa: B018


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pictures_of_more_than_8_bits_are_refused_and_not_cut_off(mode):
    picture = Image.new(mode, (8, 8), 1000)
    with pytest.raises(TypeError, match=f"`image` must be of a mode of 8 bits a channel, but got '{mode}'"):
        to_uint8(picture)


def test_own_transforms_leave_the_global_random_numbers_alone():
    made = own_transforms(0)
    made.setup()
    rows = made.train_dataloader().iterables["unlabeled"].dataset
    places = [DrawnRow(row, 100 + row) for row in range(6)]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    first = rows.__getitems__(places)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert states[2] == random.getstate()
    assert all(torch.equal(first[name], again) for name, again in rows.__getitems__(places).items())
    plain = rows.__getitems__([int(row) for row in places])  # without a place, they go on from where they are
    assert not torch.equal(plain["strong"], first["strong"])
    assert random.getstate() != states[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_flags_reach_kept_workers(workers, tmp_path):
    module = fit(own_transforms(workers), tmp_path, selection(), max_epochs=4)
    shares = [batch["unlabeled"]["regrouped"].float().mean().item() for batch in module.batches]
    assert sum(shares[:4]) == 0
    assert sum(shares[-4:]) > 0.5


def test_torchvision_transforms_work_in_workers(tmp_path):
    from torchvision.transforms import v2

    made = SAADataModule(
        Pictures("pil"),
        Pictures("pil"),
        Pictures("pil"),
        weak=v2.Compose([v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        strong=v2.Compose([v2.RandAugment(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        plain=v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        batch_size=4,
        mu=2,
        steps_per_epoch=2,
        num_workers=2,
    )
    made.setup()
    made.use_flags((torch.arange(30) % 2 == 0).share_memory_())
    batches = [made.transfer_batch_to_device(batch, torch.device("cpu"), 0) for batch, *_ in made.train_dataloader()]
    assert [batch["unlabeled"]["strong"].shape for batch in batches] == [(8, 3, 8, 8)] * 2
    regrouped = torch.cat([batch["unlabeled"]["regrouped"] for batch in batches])
    index = torch.cat([batch["unlabeled"]["index"] for batch in batches])
    assert torch.equal(regrouped, index % 2 == 0)


# -- with the user's own hooks, and other callbacks of ours ------------------------------------------------------------
def test_hooks_of_the_module_are_called_as_well(tmp_path):
    class Hooks(Recorded):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            called.append("after")
            return batch

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            called.append("transfer")
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

    called: list[str] = []
    with pytest.warns(UserWarning, match="You have overridden `"):
        module = fit(data(), tmp_path, module=Hooks(), max_epochs=1)
    assert called[:8] == ["transfer", "after"] * 4
    assert module.batches[0]["unlabeled"]["strong"].dtype == torch.float32


def test_views_take_the_precision_of_the_run(tmp_path):
    for precision, dtype in (("bf16-true", torch.bfloat16), ("64-true", torch.float64), ("bf16-mixed", torch.float32)):
        module = fit(data(), tmp_path, precision=precision, max_epochs=1)
        assert module.batches[0]["unlabeled"]["strong"].dtype == dtype


def test_rs2_shortens_the_unlabelled_part(tmp_path):
    module = fit(data(), tmp_path, RS2Callback(0.15, loader="unlabeled", validate="round"))
    assert [len(batch["unlabeled"]["index"]) for batch in module.batches] == [8, 8] * 2
    strong = [batch["unlabeled"]["strong"] for batch in module.batches]
    assert not torch.equal(strong[0], strong[2])
    wrapped = fit(RS2DataModule(data(), 0.15, loader="unlabeled"), tmp_path, selection(), max_epochs=9)
    assert any(batch["unlabeled"]["regrouped"].any() for batch in wrapped.batches), "flags pass through the wrapper"


# -- what users get told -----------------------------------------------------------------------------------------------
def test_a_resume_with_other_data_is_refused(tmp_path):
    made = data()
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(ForeignFixMatch(), datamodule=made)
    runner.save_checkpoint(tmp_path / "a.ckpt")
    other = SAADataModule(images(), n_labels=4, batch_size=4, mu=2, steps_per_epoch=4, seed=1)
    with pytest.raises(MisconfigurationException, match=r"labeled: saved .*seed: saved 0, here 1"):
        trainer(tmp_path).fit(ForeignFixMatch(), datamodule=other, ckpt_path=tmp_path / "a.ckpt", weights_only=True)


@pytest.mark.parametrize("loader", [None, "unlabeled"])
def test_a_resume_with_other_data_is_refused_below_rs2_too(loader, tmp_path):
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(ForeignFixMatch(), datamodule=data())
    runner.save_checkpoint(tmp_path / "a.ckpt")
    other = data(batch_size=16)
    with pytest.raises(MisconfigurationException, match=r"state of SAADataModule .*global batch: saved 8, here 16"):
        trainer(tmp_path, [RS2Callback(0.3, loader=loader)]).fit(
            ForeignFixMatch(), datamodule=other, ckpt_path=tmp_path / "a.ckpt", weights_only=True
        )


def test_a_batch_size_finder_leaves_no_trace(tmp_path):
    def made(batch_size):
        return SAADataModule(images(), None, images(16), n_labels=20, batch_size=batch_size, mu=2, steps_per_epoch=4)

    found, options = made(8), {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    module = fit(found, tmp_path, BatchSizeFinder(max_trials=2, steps_per_trial=1), selection(), **options)
    assert found.batch_size == 4
    whole = fit(made(4), tmp_path, selection(), **options)
    assert len(whole.batches) == 12
    assert same(module.batches[-12:], whole.batches)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_labels": 1}, "`n_labels` must be a whole number from 2 to 107, but got 1"),
        ({"n_labels": 2.5}, "`n_labels` must be a whole number"),
        ({}, "`unlabeled` must be given where `n_labels` is not"),
        ({"unlabeled": images(20, 3)}, r"`unlabeled` must be of the shape \(C, H, W\) of the labelled images"),
        ({"n_labels": 4, "unlabeled": iter([1])}, "`unlabeled` must be a map-style data set"),
        ({"n_labels": 4, "batch_size": 0}, "`batch_size` must be a whole number >= 1"),
        ({"n_labels": 4, "mu": 0}, "`mu`"),
        ({"n_labels": 4, "views": "randaugment"}, "`views` must be one of 'saa', 'usb'"),
        ({"n_labels": 4, "mean": [0.5]}, "`std` must be given together with `mean`"),
        ({"n_labels": 4, "weak": scaled}, "`strong` must be given together with the other transforms"),
        ({"n_labels": 4, "weak": 3, "strong": scaled, "plain": scaled}, "`weak` must be a function of one image"),
        ({"n_labels": 4, "weak": scaled, "strong": scaled, "val": images(4)}, "`plain` must be given together"),
        ({"n_labels": 4, "padding": 0.7}, "`padding`"),
        ({"n_labels": 4, "pieces": 3}, "`pieces` must be 2 or 4"),
        ({"n_labels": 4, "n_ops": -1}, "`n_ops`"),
    ],
)
def test_bad_arguments_are_named(options, text):
    with pytest.raises((TypeError, ValueError), match=text):
        SAADataModule(images(), **options).setup()


class Broken(Pictures):
    def __init__(self, value) -> None:
        super().__init__("uint8", 4)
        self.value = value

    def __getitem__(self, row):
        return self.value, 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.full((3, 8, 8), 1.5), r"`image` must be floats in \[0, 1\]"),
        (torch.zeros(2, 8, 8), "`image` must be of 1 or 3 channels"),
        (torch.zeros(8, 8), "`image` must be an image"),
        ("a.png", "`image` must be an image"),
        (torch.full((3, 8, 8), float("nan")), r"`image` must be floats in \[0, 1\]"),
    ],
)
def test_bad_images_are_named(value, text, tmp_path):
    with pytest.raises((TypeError, ValueError), match=text):
        SAADataModule(Broken(value), Broken(value)).setup()
    with pytest.raises(MisconfigurationException, match=text):
        fit(SAADataModule(Broken(value), Broken(value)), tmp_path)


def test_images_of_several_sizes_are_named():
    class Sizes(Pictures):
        def __getitem__(self, row):
            return torch.zeros(3, 8 + row % 2, 8, dtype=torch.uint8), 0

    made = SAADataModule(Sizes("uint8", 4), Sizes("uint8", 4), mean=[0, 0, 0], std=[1, 1, 1], batch_size=4, mu=1)
    made.setup()
    with pytest.raises(ValueError, match=r"`labeled` must be images of one size, but got \[\(3, 8, 8\), \(3, 9, 8\)\]"):
        next(iter(made.train_dataloader()))


def test_evaluation_without_data_is_refused(tmp_path):
    made = SAADataModule(images(), n_labels=4)
    with pytest.raises(MisconfigurationException, match="`test` must be given"):
        trainer(tmp_path).test(ForeignFixMatch(), datamodule=made)
    with pytest.raises(ValueError, match=r"`flags` must be of shape \(107,\) and dtype bool"):
        made.use_flags(torch.zeros(5, dtype=torch.bool))
    assert SampleAdaptiveAugmentation().history is None


@pytest.mark.filterwarnings("ignore:You requested to overfit:UserWarning")
def test_overfit_batches_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`sampler` must be one of ours.*use `limit_train_batches` instead"):
        fit(data(), tmp_path, overfit_batches=2)


def test_labels_are_the_second_tensor_and_whole_numbers(tmp_path):
    pixels, labels = images().tensors
    made = SAADataModule(TensorDataset(pixels, labels, torch.arange(107)), n_labels=4)
    made.setup()
    assert made.n_classes == 2
    with pytest.raises(TypeError, match="`label` must be a whole number"):
        SAADataModule(TensorDataset(pixels, labels * 0.9 + 0.3), n_labels=4).setup()
    with pytest.raises(ValueError, match=r"`labeled` must be a data set of \(image, label\)"):
        SAADataModule(TensorDataset(pixels), n_labels=4).setup()


@pytest.mark.parametrize("kind", [Subset, ConcatDataset])
def test_so_they_are_in_a_part_of_a_data_set(kind):
    whole = TensorDataset(*images().tensors, torch.arange(107))
    part = Subset(whole, range(30)) if kind is Subset else ConcatDataset([Subset(whole, range(14)), whole])
    made = SAADataModule(part, n_labels=8, batch_size=4, mu=1, steps_per_epoch=1)
    made.setup()
    assert (made.n_classes, made.parts.n_labeled) == (2, 8)
    apart = SAADataModule(part, images())
    apart.setup()
    assert apart.n_classes == 2


def test_a_copy_in_another_process_trains_without_validation(tmp_path):
    copied = pickle.loads(pickle.dumps(SAADataModule(images(), n_labels=4, batch_size=4, mu=2, steps_per_epoch=4)))
    assert len(fit(copied, tmp_path).batches) == 8
    with_val = pickle.loads(pickle.dumps(data()))
    assert is_overridden("val_dataloader", with_val)
    assert not is_overridden("val_dataloader", pickle.loads(pickle.dumps(copied)))


def test_a_fit_after_a_test_of_another_checkpoint_is_free(tmp_path):
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(ForeignFixMatch(), datamodule=data())
    runner.save_checkpoint(tmp_path / "a.ckpt")
    made = SAADataModule(images(), None, images(16), n_labels=4, batch_size=4, mu=2, steps_per_epoch=4, seed=1)
    path = tmp_path / "a.ckpt"
    trainer(tmp_path).validate(ForeignFixMatch(), datamodule=made, ckpt_path=path, weights_only=True, verbose=False)
    assert len(fit(made, tmp_path).batches) == 8


@pytest.mark.parametrize("options", [{"in_memory": True}, {"flip": False}, {"mean": [0.5], "std": [0.5]}, {"n_ops": 2}])
def test_what_has_no_effect_beside_own_transforms_is_refused(options):
    with pytest.raises(ValueError, match="must be left out beside `weak` and `strong`"):
        SAADataModule(images(), n_labels=4, weak=scaled, strong=scaled, plain=scaled, **options)


def test_no_unlabelled_image_is_refused():
    with pytest.raises(ValueError, match="`unlabeled` must be of at least one image"):
        SAADataModule(images(16), n_labels=16, include_labeled=False).setup()


def test_images_in_memory_are_read_once():
    class Counted(Pictures):
        reads = 0

        def __getitem__(self, row):
            Counted.reads += 1
            return super().__getitem__(row)

    made = SAADataModule(Counted("pil"), n_labels=6, batch_size=2, mu=2, steps_per_epoch=3, in_memory=True)
    made.setup()
    assert len(list(made.train_dataloader())) == 3
    assert Counted.reads == 30


def test_loaders_of_a_subclass_are_left_alone(tmp_path):
    class Own(SAADataModule):
        def val_dataloader(self):
            return DataLoader(TensorDataset(torch.rand(8, 1, 8, 8), torch.zeros(8).long()), 4)

    class Tuples(Recorded):
        def validation_step(self, batch, batch_idx):
            checked.append(batch[0].shape)

    checked: list = []
    fit(Own(images(), n_labels=4, batch_size=4, mu=2, steps_per_epoch=4), tmp_path, module=Tuples(), max_epochs=1)
    assert checked == [(4, 1, 8, 8)] * 2
