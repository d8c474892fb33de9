"""The small data modules and networks that demos, demo configs and benchmarks train."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import multiclass_accuracy
from typing_extensions import override

from lightning_adapt._shared.checks import check_choice
from lightning_adapt._shared.datasets import digits, fashion_mnist


class ImageDataModule(LightningDataModule):
    """Digits (default) or Fashion-MNIST, held in memory.

    Args:
        name: "digits" (scikit-learn, no download) or "fashion-mnist" (where the machine has it).
        batch_size: Samples per batch.
        num_workers: Worker processes of the train loader.
    """

    def __init__(self, name: str = "digits", batch_size: int = 32, num_workers: int = 0) -> None:
        super().__init__()
        self.name = check_choice("name", name, ("digits", "fashion-mnist"), "Use 'digits'.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.train: TensorDataset | None = None
        self.test: TensorDataset | None = None

    @override
    def setup(self, stage: str) -> None:
        if self.train is None:
            self.train, self.test = (
                digits() if self.name == "digits" else (fashion_mnist("train"), fashion_mnist("test"))
            )

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self._ready(self.train), self.batch_size, shuffle=True, num_workers=self.num_workers)

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self._ready(self.test), 1000)

    @override
    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    @staticmethod
    def _ready(dataset: TensorDataset | None) -> TensorDataset:
        if dataset is None:
            raise RuntimeError("Call setup('fit') before asking for a loader.")
        return dataset


def small_cnn(image_size: int, n_classes: int = 10, width: int = 16) -> nn.Sequential:
    """Return a small convolutional network for gray images of shape (B, 1, S, S); a step is a few milliseconds.

    Args:
        image_size: Side S in pixels, >= 4.
        n_classes: Outputs.
        width: Channels of the first convolution; the second has twice as many.

    Returns:
        The network; logits of shape (B, n_classes).
    """
    side = (image_size + 3) // 4  # two strides of 2, each rounding up
    return nn.Sequential(
        nn.Conv2d(1, width, 5, stride=2, padding=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * side * side, 64),
        nn.ReLU(),
        nn.Linear(64, n_classes),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; ReLU of their sum.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the sum of both ways after a ReLU.

        Args:
            images: Shape (B, inputs, S, S).

        Returns:
            Shape (B, outputs, ceil(S / stride), ceil(S / stride)).
        """
        return torch.relu(self.branch(images) + self.shortcut(images))


def small_resnet(n_classes: int = 10, width: int = 8, channels: int = 1) -> nn.Sequential:
    """Return a small residual network for images of any size; a step at 28x28 is some 15 to 20 ms on one thread.

    Args:
        n_classes: Outputs.
        width: Channels of the stem and of the first of three blocks; each further block has twice as many.
        channels: Channels of the images; 1 for gray, 3 for colour.

    Returns:
        The network; logits of shape (B, n_classes). Its last module is the linear layer.
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        ResidualBlock(width, width),
        ResidualBlock(width, 2 * width, stride=2),
        ResidualBlock(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, n_classes),
    )


class ImageClassifier(LightningModule):
    """A small convolutional network with SGD and a one-cycle schedule over the true number of steps.

    Args:
        image_size: Side of the images in pixels.
        n_classes: Number of classes.
        width: Channels of the first convolution.
        learning_rate: Peak of the schedule.
    """

    def __init__(self, image_size: int = 8, n_classes: int = 10, width: int = 16, learning_rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = small_cnn(image_size, n_classes, width)
        self.learning_rate = learning_rate
        self.n_classes = n_classes

    @override
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, batch_size=len(batch[1]))
        return loss

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        logits = self(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]), batch_size=len(batch[1]))
        accuracy = multiclass_accuracy(logits, batch[1], self.n_classes, average="micro")
        self.log("val_accuracy", accuracy, batch_size=len(batch[1]), prog_bar=True)

    @override
    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    @override
    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        logits: Tensor = self(batch[0])
        return logits.argmax(-1)

    @override
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.learning_rate, momentum=0.9, nesterov=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
