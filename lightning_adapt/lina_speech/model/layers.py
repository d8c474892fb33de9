"""Layers that both the audio stack and blind cross-attention are made of: GLA mixer, SwiGLU and the block of the two.

With LN layer normalisation, a block maps x of shape (B, T, D) to

    x <- x + GLA(LN(x));  x <- x + SwiGLU(LN(x));  x <- dropout(x)

and the mixer is, per head (K key width, V value width; Wq..Wo without bias; tau = 16):

    q, k, v, g = Wq x, Wk x, Wv x, Wg x          q, k, v optionally through a causal depthwise convolution and SiLU
    log a = logsigmoid(W2 W1 x + b) / tau         one gate per key channel, always in float32
    S_t = diag(a_t) S_{t-1} + k_t v_t^T           the state, all that is kept of the past
    y_t = Wo [RMSNorm(K^-0.5 S_t^T q_t) * silu(g_t)]

Lemerle et al., 2024, arXiv 2410.23320; the mixer is that of Yang et al., 2023, arXiv 2312.06635. As the authors' code
in sizes, biases, initialisation and in dropout, which hits the whole residual stream and not the branch. Differs in one
fused map for q, k, v and g (each part initialised by itself), in gates that stay in float32 under autocast, and in
states that right padding does not change.
"""

# ruff: noqa: N803, N806  - dimension suffixes: B batch, T steps, D width, C convolved channels, H heads, K key, V value

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_adapt.lina_speech.gla.backend import Backend, check_backend, gla
from lightning_adapt.lina_speech.gla.inputs import without_autocast
from lightning_adapt.lina_speech.gla.recurrent import gla_step
from lightning_adapt.lina_speech.model.config import LinaConfig

__all__ = ["BlockOutput", "GLAMixer", "MixingBlock", "ShortConvolution", "SwiGLU"]

CONV_WIDTH = 4
_GAIN = 2**-2.5  # of the Xavier initialisation of the mixer's maps, as in flash-linear-attention
_NORM_EPS = 1e-5


class BlockOutput(NamedTuple):
    """What a mixer or a block returns.

    Attributes:
        y: Output. Shape of the input.
        gla: State after the last real step, or None where it was not asked for. Shape (B, H, K, V), float32.
        conv: Last inputs of the short convolution, or None without one. Shape (B, 3, C), float32.
    """

    y: Tensor
    gla: Tensor | None
    conv: Tensor | None


class SwiGLU(nn.Module):
    """y = W_out (silu(gate) * up) + b with (gate, up) = W_in x + b, both of width floor(4 D / 3).

    Args:
        width: Width of input and output [D].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 4 * width // 3
        self.expand = nn.Linear(width, 2 * inner)
        self.reduce = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return y, of the shape of x, (..., D)."""
        gate, up = self.expand(x).chunk(2, -1)
        y: Tensor = self.reduce(F.silu(gate) * up)
        return y


class ShortConvolution(nn.Module):
    """Causal depthwise convolution of width 4, without bias, and SiLU.

    Args:
        n_channels: Channels [C].
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_channels, CONV_WIDTH))
        nn.init.uniform_(self.weight, -(CONV_WIDTH**-0.5), CONV_WIDTH**-0.5)  # torch's for a convolution of this width

    def forward(self, x_BTC: Tensor, before: Tensor | None, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Convolve a stretch.

        Args:
            x_BTC: Inputs. Shape (B, T, C).
            before: The three inputs before; None for zeros. Shape (B or 1, 3, C).
            lengths_B: Real steps per row; None for all T. Shape (B,), int64.

        Returns:
            Outputs, shape (B, T, C), and the last three real inputs, shape (B, 3, C), float32.
        """
        batch, n_steps, n_channels = x_BTC.shape
        if before is None:
            before = x_BTC.new_zeros(batch, CONV_WIDTH - 1, n_channels)
        joined = torch.cat((before.to(x_BTC.dtype).expand(batch, -1, -1), x_BTC), 1)
        if lengths_B is None:
            last = joined[:, n_steps:]
        else:
            place_B3 = lengths_B[:, None] + torch.arange(CONV_WIDTH - 1, device=x_BTC.device)
            last = joined.gather(1, place_B3[:, :, None].expand(-1, -1, n_channels))
        if not n_steps:
            return x_BTC, _at_least_float32(last)
        y_BCT = F.conv1d(joined.transpose(1, 2), self.weight.unsqueeze(1), groups=n_channels)
        return F.silu(y_BCT).transpose(1, 2), _at_least_float32(last)

    def step(self, x_BC: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Convolve one step: inputs of shape (B, C) and the three before, shape (B, 3, C), None for zeros."""
        if before is None:
            before = x_BC.new_zeros(len(x_BC), CONV_WIDTH - 1, x_BC.shape[1])
        before = _at_least_float32(before)
        window = torch.cat((before, x_BC.unsqueeze(1).to(before.dtype)), 1)
        y_BC = F.silu(torch.einsum("bwc,cw->bc", window, self.weight.to(before.dtype)))
        return y_BC.to(x_BC.dtype), window[:, 1:]


class GLAMixer(nn.Module):
    """Gated Linear Attention with low-rank forget gates and an output gate; equations at the top of this file.

    Args:
        width: Width of input and output [D].
        config: Heads, expansion factors, gate and convolution are taken from here.
        backend: How to compute it in training; see `gla`.
    """

    def __init__(self, width: int, config: LinaConfig, *, backend: Backend = "auto") -> None:
        super().__init__()
        check_backend(backend)
        keys, values = int(width * config.expand_k), int(width * config.expand_v)
        self.n_heads, self.key_width, self.value_width = config.n_heads, keys, values
        self.gate_normalizer, self.backend = config.gate_normalizer, backend
        self.scale = (keys // config.n_heads) ** -0.5
        self.sections = [2 * keys + values, values]  # what the convolution takes, and the output gate
        self.project = nn.Linear(width, 2 * keys + 2 * values, bias=False)
        self.gate_down = nn.Linear(width, config.gate_rank, bias=False)
        self.gate_up = nn.Linear(config.gate_rank, keys)
        self.norm_weight = nn.Parameter(torch.ones(values // config.n_heads))  # shared by the heads
        self.output = nn.Linear(values, width, bias=False)
        self.conv = ShortConvolution(self.sections[0]) if config.short_conv else None
        self.reset_parameters(config.gate_bias_init)

    def reset_parameters(self, memory_steps: tuple[float, float] | None = None) -> None:
        """Draw the weights anew: Xavier-uniform with gain 2^-2.5, gate bias 0 or by memory lengths.

        A channel with log a = logsigmoid(b) / tau = -1 / m forgets to 1/e in m steps, so b = -log(e^(tau / m) - 1).

        Args:
            memory_steps: Memory at zero input of the first and the last channel; log-spaced between. None for b = 0.
        """
        keys, values = self.key_width, self.value_width
        parts = torch.split(self.project.weight, [keys, keys, values, values])
        for weight in (*parts, self.gate_down.weight, self.gate_up.weight, self.output.weight):
            with torch.no_grad():  # the parts are views of one parameter
                nn.init.xavier_uniform_(weight, _GAIN)
        nn.init.zeros_(self.gate_up.bias)
        if memory_steps is not None:
            shortest, longest = (math.log(steps) for steps in memory_steps)
            steps = torch.linspace(shortest, longest, keys, dtype=torch.float64, device="cpu").exp()
            bias = -torch.log(torch.expm1(self.gate_normalizer / steps))
            with torch.no_grad():
                self.gate_up.bias.copy_(bias)

    def log_decay(self, x: Tensor) -> Tensor:
        """Return log a, in (-inf, 0), of inputs of shape (..., D). Shape (..., H * K), float32, under autocast, too."""
        with without_autocast(x.device.type):
            down, up = self.gate_down, self.gate_up
            low = F.linear(_at_least_float32(x), _at_least_float32(down.weight))
            logits = F.linear(low, _at_least_float32(up.weight), _at_least_float32(up.bias))
            return F.logsigmoid(logits) / self.gate_normalizer

    def forward(
        self,
        x_BTD: Tensor,
        state: Tensor | None = None,
        conv: Tensor | None = None,
        mask_BT: Tensor | None = None,
        lengths_B: Tensor | None = None,
        output_state: bool = False,
    ) -> BlockOutput:
        """Mix a stretch of steps.

        Args:
            x_BTD: Inputs. Shape (B, T, D).
            state: State before the first step; None for zeros. Shape (B or 1, H, K, V), float32.
            conv: Inputs of the convolution before the first step; None for zeros. Shape (B or 1, 3, C).
            mask_BT: True at real steps, which come first in a row; None for all. Shape (B, T), bool.
            lengths_B: Real steps per row, the sums of the mask; None for all. Shape (B,), int64.
            output_state: Whether to return the state after the last real step.

        Returns:
            The output, and what a later call goes on from.
        """
        mixed, gate = torch.split(self.project(x_BTD), self.sections, -1)
        if self.conv is not None:
            mixed, conv = self.conv(mixed, conv, lengths_B)
        q, k, v = self._heads(mixed)
        out, state = gla(
            q,
            k,
            v,
            self.log_decay(x_BTD).view(q.shape),
            state,
            scale=self.scale,
            mask=mask_BT,
            output_final_state=output_state,
            backend=self.backend,
        )
        return BlockOutput(self._gated(out, gate), state, conv if output_state else None)

    def step(self, x_BD: Tensor, state: Tensor | None, conv: Tensor | None) -> BlockOutput:
        """Mix one step, as `forward` with T = 1 does; x of shape (B, D)."""
        if state is None:
            shape = (len(x_BD), self.n_heads, self.key_width // self.n_heads, self.value_width // self.n_heads)
            state = _at_least_float32(x_BD.new_zeros(shape))
        mixed, gate = torch.split(self.project(x_BD), self.sections, -1)
        if self.conv is not None:
            mixed, conv = self.conv.step(mixed, conv)
        q, k, v = self._heads(mixed)
        out, state = gla_step(q, k, v, self.log_decay(x_BD).view(q.shape), state, scale=self.scale)
        return BlockOutput(self._gated(out, gate), state, conv)

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = torch.split(mixed, [self.key_width, self.key_width, self.value_width], -1)
        lead = mixed.shape[:-1]
        of_keys = (*lead, self.n_heads, self.key_width // self.n_heads)
        return q.view(of_keys), k.view(of_keys), v.view(*lead, self.n_heads, self.value_width // self.n_heads)

    def _gated(self, out: Tensor, gate: Tensor) -> Tensor:
        normed = F.rms_norm(_at_least_float32(out), out.shape[-1:], _at_least_float32(self.norm_weight), _NORM_EPS)
        y: Tensor = self.output(normed.flatten(-2).to(gate.dtype) * F.silu(gate))
        return y


class MixingBlock(nn.Module):
    """One block of the recurrent stack: GLA mixer and SwiGLU, each before a LayerNorm and added to the stream.

    Args:
        width: Width of the residual stream [D].
        config: Heads, expansion factors, gate, convolution and dropout are taken from here.
        backend: How to compute the mixer in training; see `gla`.
    """

    def __init__(self, width: int, config: LinaConfig, *, backend: Backend = "auto") -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(width)
        self.mixer = GLAMixer(width, config, backend=backend)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = SwiGLU(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        state: Tensor | None = None,
        conv: Tensor | None = None,
        mask_BT: Tensor | None = None,
        lengths_B: Tensor | None = None,
        output_state: bool = False,
    ) -> BlockOutput:
        """Return the stream after the block; arguments as in `GLAMixer.forward`."""
        mixed: BlockOutput = self.mixer(self.mixer_norm(x_BTD), state, conv, mask_BT, lengths_B, output_state)
        return BlockOutput(self._rest(x_BTD + mixed.y), mixed.gla, mixed.conv)

    def step(self, x_BD: Tensor, state: Tensor | None, conv: Tensor | None) -> BlockOutput:
        """Return the stream after the block for one step; x of shape (B, D)."""
        mixed = self.mixer.step(self.mixer_norm(x_BD), state, conv)
        return BlockOutput(self._rest(x_BD + mixed.y), mixed.gla, mixed.conv)

    def _rest(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.mlp(self.mlp_norm(x))
        return self.dropout(y) if self.training else y


def _at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or as it is where it is float64."""
    return x if x.dtype == torch.float64 else x.float()
