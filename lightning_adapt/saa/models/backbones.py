"""Image classifiers for semi-supervised training: WRN (Zagoruyko and Komodakis 2016) and a small CNN; torch only."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_adapt._shared.checks import check_choice, check_integer, problem

__all__ = ["SmallCNN", "WideResNet", "build_backbone"]

_SLOPE = 0.1  # of LeakyReLU, as in FixMatch's networks
_SMALL = 16  # pixels
_NAME = re.compile(r"wrn-(\d+)-(\d+)")


class WideResNet(nn.Module):
    """Wide residual network with pre-activation, as FixMatch and SAA train it.

    Three stages of (depth - 4) / 6 blocks, LeakyReLU 0.1, no dropout. A block that changes the width normalises and
    activates before its shortcut, too, as in SAA's code (USB does so in the first stage only). The last feature map is
    averaged whatever its size, so that any image of at least 4 x 4 pixels works.

    Args:
        depth: Number of layers, 6 n + 4.
        width: Factor on the 16, 32 and 64 channels of the stages.
        n_classes: Number of classes, C.
        channels: Channels of an image: 1 (gray) or 3.
        bn_momentum: Weight of the newest batch in BatchNorm's running statistics, in (0, 1]. FixMatch takes one minus
            the decay of the averaged weights.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If a number is out of range.
    """

    def __init__(
        self, depth: int = 28, *, width: int = 2, n_classes: int = 10, channels: int = 3, bn_momentum: float = 0.001
    ) -> None:
        super().__init__()
        depth = check_integer("depth", depth, "Pass 28.", minimum=10)
        if (depth - 4) % 6:
            raise ValueError(problem("depth", "4 more than a multiple of 6", depth, "Pass 16, 22, 28 or 40."))
        width = check_integer("width", width, "Pass 2.", minimum=1)
        self.channels = _check_channels(channels)
        widths = [16, 16 * width, 32 * width, 64 * width]
        self.stem = _conv(self.channels, widths[0], 3)
        blocks: list[nn.Module] = []
        for stage, (incoming, outgoing) in enumerate(pairwise(widths)):
            for block in range((depth - 4) // 6):
                first = block == 0
                blocks.append(
                    _Block(incoming if first else outgoing, outgoing, 2 if stage and first else 1, bn_momentum)
                )
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(widths[-1], momentum=bn_momentum)
        self.activation = nn.LeakyReLU(_SLOPE)
        self.classifier = nn.Linear(widths[-1], check_integer("n_classes", n_classes, "Pass 10.", minimum=2))
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits.

        Args:
            images: Normalised images. Shape (B, channels, H, W).

        Returns:
            Logits. Shape (B, C).

        Raises:
            ValueError: If the images have another number of channels.
        """
        _check_images(images, self.channels)
        features = self.activation(self.norm(self.blocks(self.stem(images))))
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


class _Block(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and LeakyReLU, beside a shortcut."""

    def __init__(self, incoming: int, outgoing: int, stride: int, momentum: float) -> None:
        super().__init__()
        self.norm_first = nn.BatchNorm2d(incoming, momentum=momentum)
        self.conv_first = _conv(incoming, outgoing, 3, stride)
        self.norm_second = nn.BatchNorm2d(outgoing, momentum=momentum)
        self.conv_second = _conv(outgoing, outgoing, 3)
        self.activation = nn.LeakyReLU(_SLOPE)
        self.shortcut = None if incoming == outgoing else _conv(incoming, outgoing, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.activation(self.norm_first(inputs))
        shortcut = inputs if self.shortcut is None else self.shortcut(active)
        residual = self.conv_second(self.activation(self.norm_second(self.conv_first(active))))
        summed: Tensor = shortcut + residual
        return summed


class SmallCNN(nn.Module):
    """Four convolutions with BatchNorm, for small images on a CPU.

    The first three halve the image; one below 16 pixels is doubled before, so that something is left of it.

    Args:
        width: Channels of the first convolution; the others have 2, 4 and 4 times as many.
        n_classes: Number of classes, C.
        channels: Channels of an image: 1 (gray) or 3.
        bn_momentum: Weight of the newest batch in BatchNorm's running statistics, in (0, 1]. Far above that of
            `WideResNet`, because such a network is trained for a few thousand steps.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If a number is out of range.
    """

    def __init__(self, width: int = 16, *, n_classes: int = 10, channels: int = 3, bn_momentum: float = 0.01) -> None:
        super().__init__()
        width = check_integer("width", width, "Pass 16.", minimum=1)
        self.channels = _check_channels(channels)
        widths = [self.channels, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for place, (incoming, outgoing) in enumerate(pairwise(widths)):
            layers += [
                _conv(incoming, outgoing, 3, 1 if place == 3 else 2),
                nn.BatchNorm2d(outgoing, momentum=bn_momentum),
                nn.LeakyReLU(_SLOPE),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], check_integer("n_classes", n_classes, "Pass 10.", minimum=2))
        # a fifth faster on a CPU, for which this network is
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits.

        Args:
            images: Normalised images. Shape (B, channels, H, W).

        Returns:
            Logits. Shape (B, C).

        Raises:
            ValueError: If the images have another number of channels.
        """
        _check_images(images, self.channels)
        if min(images.shape[-2:]) < _SMALL:
            images = F.interpolate(images, scale_factor=2.0)
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits


def build_backbone(name: str, *, n_classes: int, channels: int, bn_momentum: float = 0.001) -> nn.Module:
    """Make a network by its name.

    Args:
        name: "cnn", or "wrn-<depth>-<width>" such as "wrn-28-2".
        n_classes: Number of classes, C.
        channels: Channels of an image: 1 (gray) or 3.
        bn_momentum: BatchNorm's momentum of a WRN; "cnn" has its own.

    Returns:
        A new network, images of shape (B, channels, H, W) to logits of shape (B, C); its weights come from torch's
        global random state, as those of any module.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If the name is not known, or a number is out of range.
    """
    sizes: dict[str, Any] = {"n_classes": n_classes, "channels": channels}
    if name == "cnn":
        return SmallCNN(**sizes)
    found = _NAME.fullmatch(name)
    if found is None:
        names = ("wrn-28-2", "wrn-28-8", "cnn")
        check_choice("backbone", name, names, "Pass one of these, or any module that returns logits.")
        raise ValueError(name)
    return WideResNet(int(found[1]), width=int(found[2]), bn_momentum=bn_momentum, **sizes)


def _conv(incoming: int, outgoing: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(incoming, outgoing, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _check_channels(channels: int) -> int:
    return check_integer("channels", channels, "Pass 1 for gray images, or 3.", minimum=1)


def _check_images(images: Tensor, channels: int) -> None:
    if images.ndim != 4 or images.shape[1] != channels:
        remedy = f"Build the network for them: channels={images.shape[1]}." if images.ndim == 4 else "Pass a batch."
        raise ValueError(problem("images", f"of shape (B, {channels}, H, W)", tuple(images.shape), remedy))
