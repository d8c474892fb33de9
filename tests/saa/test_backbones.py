"""The networks: their size, their forward pass by another derivation, any image size, and what they refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_adapt.saa.models.backbones import SmallCNN, WideResNet, build_backbone


def count(depth: int, width: int, n_classes: int, channels: int) -> int:
    """Parameters of a WRN by its published table: 3x3 convolutions, two BatchNorms a block, three 1x1 shortcuts."""
    n, (a, b, c) = (depth - 4) // 6, (16 * width, 32 * width, 64 * width)
    total = 9 * channels * 16
    for incoming, outgoing in ((16, a), (a, b), (b, c)):
        total += 9 * incoming * outgoing + (2 * n - 1) * 9 * outgoing**2  # convolutions
        total += 2 * incoming + (2 * n - 1) * 2 * outgoing  # BatchNorm
        total += incoming * outgoing if incoming != outgoing else 0
    return total + 2 * c + c * n_classes + n_classes


@pytest.mark.parametrize(
    ("name", "size"), [("wrn-28-2", 1_467_610), ("wrn-16-2", None), ("wrn-28-8", None), ("wrn-10-1", None)]
)
def test_number_of_parameters(name, size):
    depth, width = map(int, name.split("-")[1:])
    with torch.device("meta"):
        net = build_backbone(name, n_classes=10, channels=3)
    ours = sum(parameter.numel() for parameter in net.parameters())
    assert ours == count(depth, width, 10, 3)
    assert size in (None, ours)  # 1.47 M: what TorchSSL and others report for WRN-28-2


def by_hand(net: WideResNet, images: torch.Tensor, depth: int, width: int) -> torch.Tensor:
    """The network once more, from its weights in their order, without its modules."""
    weights = iter([value.double() for value in net.parameters()])

    def norm_act(x, weight, bias):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        x = (x - mean) / (var + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]
        return torch.where(x > 0, x, 0.1 * x)

    x = F.conv2d(images.double(), next(weights), padding=1)
    now = 16
    for stage, wide in enumerate((16 * width, 32 * width, 64 * width)):
        for block in range((depth - 4) // 6):
            stride = 2 if stage > 0 and block == 0 else 1
            active = norm_act(x, next(weights), next(weights))
            y = F.conv2d(active, next(weights), padding=1, stride=stride)
            y = norm_act(y, next(weights), next(weights))
            y = F.conv2d(y, next(weights), padding=1)
            x = (x if now == wide else F.conv2d(active, next(weights), stride=stride)) + y
            now = wide
    x = norm_act(x, next(weights), next(weights))
    logits = x.mean((2, 3)) @ next(weights).T + next(weights)
    assert next(weights, None) is None
    return logits


@pytest.mark.parametrize(("depth", "width", "channels", "shape"), [(16, 2, 3, (8, 12)), (10, 1, 1, (9, 9))])
def test_forward_is_that_of_the_paper(depth, width, channels, shape):
    torch.manual_seed(0)
    net = WideResNet(depth, width=width, channels=channels).double()
    for parameter in net.parameters():  # also those that begin at 0 and 1
        nn.init.normal_(parameter, 0.3, 0.3)
    images = torch.randn(3, channels, *shape)
    torch.testing.assert_close(net(images.double()), by_hand(net, images, depth, width), rtol=1e-9, atol=1e-9)


def test_initial_weights_and_norms():
    torch.manual_seed(0)
    net = WideResNet(28, width=2)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 9_000:
            he = (2 / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(he, rel=0.05)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.momentum == 0.001
            assert layer.eps == 1e-5
        if isinstance(layer, nn.LeakyReLU):
            assert layer.negative_slope == 0.1
    assert not net.classifier.bias.any()


@pytest.mark.parametrize("name", ["wrn-10-1", "cnn"])
@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (33, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_of_image(name, shape, channels):
    net = build_backbone(name, n_classes=7, channels=channels)
    logits = net(torch.randn(2, channels, *shape))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_small_net_is_small():
    net = SmallCNN(channels=1)
    assert sum(isinstance(layer, nn.Conv2d) for layer in net.modules()) == 4
    assert 40_000 < sum(parameter.numel() for parameter in net.parameters()) < 80_000
    small = torch.randn(2, 1, 8, 8)
    doubled = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(net.eval()(small), net(doubled))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: build_backbone("resnet", n_classes=10, channels=3), ValueError, "`backbone` must be one of"),
        (lambda: build_backbone("wrn-28", n_classes=10, channels=3), ValueError, "'wrn-28-2'"),
        (lambda: WideResNet(27), ValueError, "`depth` must be 4 more than a multiple of 6, but got 27"),
        (lambda: WideResNet(width=0), ValueError, "`width`"),
        (lambda: WideResNet(n_classes=1), ValueError, "`n_classes`"),
        (lambda: SmallCNN(channels=0), ValueError, "`channels`"),
        (lambda: SmallCNN(2.5), TypeError, "`width`"),
        (lambda: SmallCNN(channels=1)(torch.zeros(2, 3, 8, 8)), ValueError, "channels=3"),
        (lambda: WideResNet(10)(torch.zeros(3, 8, 8)), ValueError, r"`images` must be of shape \(B, 3, H, W\)"),
    ],
)
def test_refusals(make, error, text):
    with pytest.raises(error, match=text):
        make()
