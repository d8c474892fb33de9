"""The networks that benchmarks train."""

import pytest
import torch
from torch import nn

from lightning_adapt._shared.demo_parts import ResidualBlock, small_resnet


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (1, 9)])
def test_small_resnet_takes_gray_and_colour_of_any_size(channels, side):
    net = small_resnet(n_classes=7, width=4, channels=channels)
    assert net(torch.randn(2, channels, side, side)).shape == (2, 7)
    assert isinstance(net[-1], nn.Linear)


def test_small_resnet_has_three_blocks_that_double():
    net = small_resnet(width=8)
    blocks = [part for part in net if isinstance(part, ResidualBlock)]
    images, sides = torch.randn(2, 1, 28, 28), []
    for part in net[:6]:
        images = part(images)
        sides.append(tuple(images.shape[1:]))
    assert len(blocks) == 3
    assert sides[2:] == [(8, 14, 14), (8, 14, 14), (16, 7, 7), (32, 4, 4)]
    assert [isinstance(block.shortcut, nn.Identity) for block in blocks] == [True, False, False]
    kernels = [part.kernel_size for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert kernels.count((3, 3)) == 7
    assert kernels.count((1, 1)) == 2


def test_a_block_adds_its_shortcut():
    block, images = ResidualBlock(3, 3).eval(), torch.randn(2, 3, 5, 5)
    for weights in block.branch.parameters():
        nn.init.zeros_(weights)
    torch.testing.assert_close(block(images), images.relu())
    wider = ResidualBlock(3, 6, stride=2).eval()
    for weights in wider.branch.parameters():
        nn.init.zeros_(weights)
    torch.testing.assert_close(wider(images), wider.shortcut(images).relu())
    assert wider(images).shape == (2, 6, 3, 3)
