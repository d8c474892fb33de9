"""The rival of the throughput benchmark: our model with causal softmax attention in place of every recurrence."""

# ruff: noqa: N803  - dimension suffixes: B batch, T steps, D width, H heads, E of a head

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_adapt.lina_speech.model.config import LinaConfig
from lightning_adapt.lina_speech.model.layers import BlockOutput, MixingBlock
from lightning_adapt.lina_speech.model.model import LinaModel
from lightning_adapt.lina_speech.model.text_encoder import rotary_angles, rotate_half_of_head

HEAD_WIDTH = 64  # what the fused kernels are fastest at


class SDPAMixer(nn.Module):
    """Causal softmax attention with rotary embeddings, by torch's fused kernels, at the size of a GLA mixer.

    q, k, v and the output have width d * (2 expand_k + 3 expand_v) / 4, so that its four maps have the parameters of
    the five of a GLA mixer; the low-rank gate of that (below 1 %) has no counterpart. No biases, no output gate.

    Args:
        width: Width of input and output.
        config: The expansion factors are taken from here.
    """

    def __init__(self, width: int, config: LinaConfig) -> None:
        super().__init__()
        inner = int(width * (2 * config.expand_k + 3 * config.expand_v) / 4)
        self.n_heads = max(1, inner // HEAD_WIDTH)
        self.project = nn.Linear(width, 3 * inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def forward(self, x_BTD: Tensor, *_: object) -> BlockOutput:
        """Mix a stretch of steps without padding; states are not supported."""
        batch, n_steps, _ = x_BTD.shape
        qkv = self.project(x_BTD).view(batch, n_steps, 3, self.n_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        turn = rotary_angles(n_steps, q.shape[-1] // 2, x_BTD.device)
        q, k = rotate_half_of_head(q, turn), rotate_half_of_head(k, turn)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return BlockOutput(self.output(mixed.transpose(1, 2).flatten(2)), None, None)


def build(method: str, config: LinaConfig, device: str) -> LinaModel:
    """Return our model ("GLA") or the twin ("SDPA"), with weights that do not depend on anything else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LinaModel(config)
        if method == "SDPA":
            for block in model.modules():
                if isinstance(block, MixingBlock):
                    block.mixer = SDPAMixer(block.mixer_norm.normalized_shape[0], config)
    return model.to(device)
