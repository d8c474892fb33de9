"""SAADataModule: few labelled and many unlabelled images, weak and strong views, epochs of a fixed number of steps."""

# Over 300 lines: one public class whose 26 arguments take a third of it; the rest is in the files beside it.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import check_flag, check_integer, problem
from lightning_adapt._shared.collate import as_is
from lightning_adapt._shared.optional_hooks import OptionalHooks
from lightning_adapt._shared.resumable_data import ResumableData
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt.saa.augment.views import Views
from lightning_adapt.saa.data.rows import RawRows, ViewedRows, evaluation_rows
from lightning_adapt.saa.data.sampler import EndlessSampler
from lightning_adapt.saa.data.sources import Parts, read_parts
from lightning_adapt.saa.data.view_batches import example_views, is_ours, make_views, take_plan
from lightning_adapt.saa.data.view_options import ViewOptions, check_transforms
from lightning_adapt.saa.streams import LABELED_ORDER, UNLABELED_ORDER

__all__ = ["SAADataModule"]


class SAADataModule(OptionalHooks, ResumableData, LightningDataModule):
    """Few labelled and many unlabelled images of any data set, for FixMatch-like training with or without SAA.

    An epoch is `steps_per_epoch` batches, whatever the sizes of the two sets: each is drawn in shuffled passes without
    end. A training batch is {"labeled": {"image", "label", "index"}, "unlabeled": {"weak", "strong", "index",
    "regrouped", "label"}}; evaluation batches are {"image", "label", "index"}. Images are float32, normalised; "index"
    is the row of the labelled or unlabelled set, "label" of unlabelled images is there for logging only (-1: unknown).

    Images travel as bytes, and the views are made of the whole batch on the device. With `weak` and `strong`, your own
    transforms make them one by one in the workers instead. All random numbers follow from `seed` and an image's place
    in the order: resume is exact, also inside an epoch, and the views do not depend on the number of processes. With a
    `SampleAdaptiveAugmentation` callback, the images that it flags get regrouped strong views.
    For `lightning.pytorch` only.

    Args:
        labeled: Data set of (image, label), map-style: PIL images, uint8 arrays (H, W) or (H, W, C), uint8 tensors, or
            float tensors (C, H, W) in [0, 1].
        unlabeled: Data set of images, of (image, label) or of dicts with "image"; labels are not used. None: the images
            of `labeled`, with `n_labels`.
        val: Labelled data set to validate on.
        test: Labelled data set for `test` and `predict`; None: `val`.
        n_labels: Take so many images of `labeled` as the labelled set, equally many of each class.
        batch_size: Labelled images per step of one process, the paper's B.
        mu: Unlabelled images per labelled one.
        steps_per_epoch: Batches of an epoch.
        views: "saa": strong augmentation, then flip and crop with black borders; "usb": flip and crop with reflected
            borders first. The order of the respective authors' code.
        weak: A transform of one image to a float tensor, for views made in the workers; with `strong`.
        strong: Likewise.
        plain: Likewise, for evaluation; needed with `val` or `test`.
        n_ops: Operations of RandAugment on a strong view.
        cutout: Largest side of the box cut out of a strong view, share of the width; 0 for none.
        flip: Flip at random; turn it off for digits and letters.
        padding: Border for the random crop, share of the side.
        pieces: Pieces of a regrouped view, 2 or 4.
        mean: Of each channel in [0, 1], for the normalisation; None: of 10,000 unlabelled images.
        std: Likewise.
        replacement: Draw with replacement, as the authors' code does; some images are then not seen in a pass.
        include_labeled: With `n_labels`: the labelled images are among the unlabelled ones, too.
        in_memory: Read all images once and keep them as bytes; a TensorDataset is in memory anyway.
        eval_batch_size: Images per evaluation batch.
        num_workers: Worker processes of the unlabelled loader; the labelled one gets its share on top.
        pin_memory: As in `DataLoader`.
        seed: Seed of the labelled set, the order and the views.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the data sets do not fit each other; the latter in `setup`.
        MisconfigurationException: In place of these when it is a Trainer that uses the data; on resume, if the saved
            position belongs to other data or another global batch size.
    """

    def __init__(
        self,
        # plain `Dataset`: from `Dataset[Any]` the command line would make a bare one in place of the class named
        labeled: Dataset,  # type: ignore[type-arg]
        unlabeled: Dataset | None = None,  # type: ignore[type-arg]
        val: Dataset | None = None,  # type: ignore[type-arg]
        *,
        test: Dataset | None = None,  # type: ignore[type-arg]
        n_labels: int | None = None,
        batch_size: int = 64,
        mu: int = 7,
        steps_per_epoch: int = 256,
        views: Literal["saa", "usb"] = "saa",
        weak: Callable[[Any], Tensor] | None = None,
        strong: Callable[[Any], Tensor] | None = None,
        plain: Callable[[Any], Tensor] | None = None,
        n_ops: int = 3,
        cutout: float = 0.5,
        flip: bool = True,
        padding: float = 0.125,
        pieces: int = 2,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        replacement: bool = False,
        include_labeled: bool = True,
        in_memory: bool = False,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.labeled, self.unlabeled, self.val, self.test = labeled, unlabeled, val, test
        self.batch_size = check_integer("batch_size", batch_size, "Pass 64, as the paper does.", minimum=1)
        self.mu = check_integer("mu", mu, "Pass 7, as the paper does.", minimum=1)
        self.steps_per_epoch = check_integer("steps_per_epoch", steps_per_epoch, "Pass 256.", minimum=1)
        self.eval_batch_size = check_integer("eval_batch_size", eval_batch_size, "Pass 256.", minimum=1)
        self.num_workers = check_integer("num_workers", num_workers, "Pass 0 for none.")
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**62)
        self.replacement = check_flag("replacement", replacement, "Pass True to draw independently.")
        self.include_labeled = check_flag("include_labeled", include_labeled, "Pass False to leave them out.")
        self.in_memory = check_flag("in_memory", in_memory, "Pass True to read everything once.")
        self.pin_memory = check_flag("pin_memory", pin_memory, "Pass True on a CUDA machine.")
        self.n_labels = n_labels
        self.transforms = check_transforms(weak, strong, plain, needs_plain=val is not None or test is not None)
        self._options = ViewOptions(views, mean, std, n_ops, cutout, flip, padding, pieces, self.seed)
        self._options.check(own_transforms=self.transforms is not None, in_memory=self.in_memory)
        self._parts: Parts | None = None
        self._views: Views | None = None
        self._flags: Tensor | None = None
        if val is None and type(self).val_dataloader is SAADataModule.val_dataloader:
            self.hide_hook("val_dataloader")

    # -- the data -------------------------------------------------------------------------------------------------
    @override
    def setup(self, stage: str | None = None) -> None:
        try:
            _ = self.parts
        except (TypeError, ValueError) as found:
            if self.trainer is None:
                raise
            raise MisconfigurationException(str(found)) from found

    @property
    def parts(self) -> Parts:
        """The labelled and the unlabelled set, read at the first use."""
        if self._parts is None:
            self._parts = read_parts(
                self.labeled,
                self.unlabeled,
                self.n_labels,
                include_labeled=self.include_labeled,
                in_memory=self.in_memory,
                raw=self.transforms is None,
                seed=self.seed,
            )
        return self._parts

    @property
    def n_unlabeled(self) -> int:
        """Number of unlabelled images."""
        return self.parts.n_unlabeled

    @property
    def n_classes(self) -> int:
        """Number of classes among the labelled images."""
        return self.parts.n_classes

    @property
    def channels(self) -> int:
        """Channels of an image; 0 where the user's transforms make them."""
        return self.parts.shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels; 0 where the user's transforms decide."""
        return self.parts.shape[1:]

    @property
    def views_in_workers(self) -> bool:
        """Whether views are made by the user's transforms; flags then reach them from one epoch to the next only."""
        return self.transforms is not None

    def use_flags(self, flags: Tensor | None) -> None:
        """Regroup the strong views of these unlabelled images from now on.

        Args:
            flags: Shape (n_unlabeled,), dtype bool, on the CPU, in shared memory where workers make the views. Kept,
                not copied: what is written into it later counts. None: regroup none.

        Raises:
            ValueError: If the shape is wrong.
        """
        if flags is not None and (flags.shape != (self.n_unlabeled,) or flags.dtype != torch.bool):
            remedy = "Pass one flag per unlabelled image."
            raise ValueError(problem("flags", f"of shape ({self.n_unlabeled},) and dtype bool", flags, remedy))
        self._flags = flags

    @property
    def views(self) -> Views:
        """What makes the views of a batch of raw images."""
        if self._views is None:
            self._views = self._options.views(self.parts)
        return self._views

    def example_views(self, index: Tensor) -> dict[str, Tensor]:
        """Return views of some unlabelled images as they are made in training, for a figure.

        Args:
            index: Rows of the unlabelled set. Shape (B,), dtype int64.

        Returns:
            "image", "weak", "strong" and "regrouped", in [0, 1], made by the built-in views. Shapes (B, C, H, W).
        """
        source, rows = self.parts.unlabeled
        return example_views(source.read((index if rows is None else rows[index]).tolist())[0], self.views)

    # -- loaders --------------------------------------------------------------------------------------------------
    @override
    def train_dataloader(self) -> Any:
        misfit = self.misfit()
        if misfit is not None:
            return misfit
        share = min(self.num_workers, max(1, self.num_workers // (1 + self.mu)))
        loaders = {
            "labeled": self._endless("labeled", self.batch_size, share),
            "unlabeled": self._endless("unlabeled", self.batch_size * self.mu, self.num_workers),
        }
        return CombinedLoader(loaders, mode="min_size")

    def _endless(self, part: str, batch_size: int, num_workers: int) -> ResumableLoader:
        rows = self._rows(part)
        stream = LABELED_ORDER if part == "labeled" else UNLABELED_ORDER
        drawing: dict[str, Any] = {"replacement": self.replacement, "stream": stream, "seed": self.seed}
        sampler = EndlessSampler(rows, self.steps_per_epoch * batch_size, **drawing)
        options = {**self._loader_options(num_workers), "batch_size": batch_size, "position": self.position}
        return ResumableLoader(rows, sampler=sampler, **options)

    def _rows(self, part: str) -> RawRows | ViewedRows:
        source, chosen = self.parts.labeled if part == "labeled" else self.parts.unlabeled
        if self.transforms is None:
            return RawRows(source, chosen)
        options: dict[str, Any] = {"flags": self._flags, "pieces": self._options.pieces, "seed": self.seed}
        return ViewedRows(source.dataset, part, self.transforms, rows=chosen, **options)

    def _loader_options(self, num_workers: int) -> dict[str, Any]:
        shared = {"collate_fn": as_is, "pin_memory": self.pin_memory}
        return {**shared, "num_workers": num_workers, "persistent_workers": num_workers > 0}

    @override
    def val_dataloader(self) -> Any:
        return self._evaluation("val", self.val)

    @override
    def test_dataloader(self) -> Any:
        return self._evaluation("test", self.val if self.test is None else self.test)

    @override
    def predict_dataloader(self) -> Any:
        return self.test_dataloader()

    def _evaluation(self, name: str, dataset: Dataset[Any] | None) -> Any:
        if dataset is None:
            remedy = "Pass a labelled data set as `val` or `test`."
            return compat.RaisesWhenUsed(MisconfigurationException(problem(name, "given", None, remedy)))
        rows = evaluation_rows(dataset, name, self.transforms, in_memory=self.in_memory)
        return DataLoader(rows, batch_size=self.eval_batch_size, **self._loader_options(self.num_workers))

    # -- views ----------------------------------------------------------------------------------------------------
    @override
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        # views are made here and not in `on_after_batch_transfer`, so that a module may have that hook to itself
        trainer, ours = self.trainer, is_ours(batch)
        epoch = 0 if trainer is None else trainer.current_epoch
        plan = take_plan(batch, self._flags, epoch) if ours else None  # on the host: nothing waits for the device
        module = None if trainer is None else trainer.lightning_module
        if module is not None and is_overridden("transfer_batch_to_device", module):
            moved = module.transfer_batch_to_device(batch, device, dataloader_idx)
        else:
            moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if self.transforms is not None or not ours:
            return moved
        made = make_views(moved, plan, self.views.to(device))
        return made if trainer is None else trainer.precision_plugin.convert_input(made)

    # -- resume ---------------------------------------------------------------------------------------------------
    @override
    def _fingerprint(self) -> dict[str, Any]:
        ranks = 1 if self.trainer is None else self.trainer.world_size
        return {
            **self.parts.described(),
            "seed": self.seed,
            "replacement": self.replacement,
            "steps per epoch": self.steps_per_epoch,
            "global batch": self.batch_size * self.mu * ranks,
            "labeled batch": self.batch_size * ranks,
        }
