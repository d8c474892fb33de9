"""The codec language model: text encoder, recurrent audio encoder, one cross-attention, recurrent decoder, heads.

With e the tables of the Q codebooks and c = TextEncoder(text):

    x_t = sum_i e_i[id_ti];  x <- EncoderBlocks(x);  x <- x + CrossAttention(x, c);  x <- DecoderBlocks(x)
    logits_ti = W_i x_t

Lemerle et al., 2024, arXiv 2410.23320. As in the authors' code, tables start as N(0, 1), heads have no bias, and there
is no norm before them. Differs from it in one parallel path and one step path that agree, in states of every recurrence
for every stream that right padding does not change, and with `tie_embeddings` in logits over sqrt(D), since logits of
N(0, 1) tables start out at the size of D. The weights of the authors cannot be loaded.
"""

# ruff: noqa: N803, N806  - dimension suffixes: B batch, T audio steps, M text tokens, Q codebooks, D width, V audio ids

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_adapt._shared.checks import check_flag, problem
from lightning_adapt.lina_speech.gla.backend import Backend
from lightning_adapt.lina_speech.model.attention import (
    BlindCrossAttention,
    CrossOutput,
    PlainCrossAttention,
    TextMemory,
)
from lightning_adapt.lina_speech.model.config import LinaConfig
from lightning_adapt.lina_speech.model.inputs import check_audio, check_column, check_streams, check_text_ids
from lightning_adapt.lina_speech.model.layers import BlockOutput, MixingBlock
from lightning_adapt.lina_speech.model.state import State, state_layout
from lightning_adapt.lina_speech.model.text_encoder import TextEncoder

__all__ = ["LinaModel", "LinaOutput", "StepOutput"]

_CROSS = {"blind": BlindCrossAttention, "plain": PlainCrossAttention}


class LinaOutput(NamedTuple):
    """What `LinaModel.forward` returns.

    Attributes:
        logits: Logits of the next ids of every codebook. Shape (B, T, Q, V), V = codebook_size + 3.
        state: State after the last real step of each row; None if not asked for.
        attention: Weights over the text tokens; None if not asked for. Shape (B, T, M).
    """

    logits: Tensor
    state: State | None = None
    attention: Tensor | None = None


class StepOutput(NamedTuple):
    """What `LinaModel.step` returns.

    Attributes:
        logits: Logits of the next ids of every codebook. Shape (B, Q, V), V = codebook_size + 3.
        state: State after the step.
        attention: Weights over the text tokens; None if not asked for. Shape (B, M).
    """

    logits: Tensor
    state: State
    attention: Tensor | None = None


class LinaModel(nn.Module):
    """Predict delayed codec ids from text and the ids before; see `delay.py` for the ids.

    Args:
        config: Sizes and switches.
        backend: How to compute the recurrences in `forward`; see `gla`. Steps need no choice.
        checkpoint_activations: Whether to keep only the inputs of each block for the backward pass and to compute the
            rest anew: about a third more time for a fraction of the memory, and the same gradients.

    Raises:
        TypeError: If `config` is not a `LinaConfig`.
        ValueError: If there is no such backend.

    Example:
        >>> model = LinaModel(LinaConfig(d_model=32, n_text_heads=2, d_blind=16))
        >>> text, lengths = torch.tensor([[1, 7, 9, 2]]), torch.tensor([4])
        >>> model(text, lengths, torch.tensor([[[1], [3], [4]]])).logits.shape
        torch.Size([1, 3, 1, 515])
    """

    def __init__(self, config: LinaConfig, *, backend: Backend = "auto", checkpoint_activations: bool = False) -> None:
        super().__init__()
        if not isinstance(config, LinaConfig):
            raise TypeError(problem("config", "a LinaConfig", config, "Use preset('tiny')."))
        self.config = config
        self.checkpoint_activations = check_flag(
            "checkpoint_activations", checkpoint_activations, "Pass True or False."
        )
        width, table = config.d_model, (config.n_codebooks, config.n_audio_ids, config.d_model)
        self.text_encoder = TextEncoder(config)
        self.embedding = nn.Parameter(torch.empty(table))
        self.encoder = nn.ModuleList(
            MixingBlock(width, config, backend=backend) for _ in range(config.n_encoder_layers)
        )
        self.cross: PlainCrossAttention = _CROSS[config.cross_attention](config, backend=backend)
        self.decoder = nn.ModuleList(
            MixingBlock(width, config, backend=backend) for _ in range(config.n_decoder_layers)
        )
        self.head = None if config.tie_embeddings else nn.Parameter(torch.empty(table))
        nn.init.normal_(self.embedding)
        if self.head is not None:
            nn.init.uniform_(self.head, -(width**-0.5), width**-0.5)  # torch's for a Linear of this width
        first = torch.arange(config.n_codebooks) * config.n_audio_ids
        self.first_rows: Tensor  # where each codebook's table starts
        self.register_buffer("first_rows", first, persistent=False)
        self._layout = state_layout(config)

    # -- whole stretches ----------------------------------------------------------------------------------------------
    def encode_text(self, text_BM: Tensor, text_lengths_B: Tensor) -> TextMemory:
        """Encode texts once for all steps.

        Args:
            text_BM: Text ids, 0 after a row's end. Shape (B, M), int64.
            text_lengths_B: Real ids per row. Shape (B,), integers.

        Returns:
            What `step` and `forward_audio` read.

        Raises:
            ValueError: If a shape or, on the CPU, an id or a length does not fit.
        """
        mask_BM = check_text_ids(text_BM, text_lengths_B, self.config.text_vocab_size)
        return self.cross.remember(self.text_encoder(text_BM, mask_BM), mask_BM)

    def forward(
        self,
        text_BM: Tensor,
        text_lengths_B: Tensor,
        inputs_BTQ: Tensor,
        lengths_B: Tensor | None = None,
        *,
        state: State | None = None,
        output_state: bool = False,
        output_attention: bool = False,
    ) -> LinaOutput:
        """Predict every next column of a stretch of delayed ids at once.

        Args:
            text_BM: Text ids, 0 after a row's end. Shape (B, M), int64.
            text_lengths_B: Real ids per row. Shape (B,), integers.
            inputs_BTQ: Delayed audio ids, PAD after a row's end. Shape (B, T, Q), int64.
            lengths_B: Real columns per row; None for all T. Shape (B,), integers. Needed where the state of padded rows
                is asked for; logits of real columns do not depend on it.
            state: State before the first column, of B streams or of one for all; None for zeros, the start of an
                utterance. Gradients reach its tensors.
            output_state: Whether to return the state after the last real column.
            output_attention: Whether to return the attention weights, in training as in evaluation.

        Returns:
            Logits, and what was asked for. Two calls, the second from the state of the first, give what one call does.

        Raises:
            ValueError: If a shape does not fit, the state is of another model, or, on the CPU, an id is out of range.
        """
        memory = self.encode_text(text_BM, text_lengths_B)
        return self.forward_audio(
            memory,
            inputs_BTQ,
            lengths_B,
            state=state,
            output_state=output_state,
            output_attention=output_attention,
        )

    def forward_audio(
        self,
        memory: TextMemory,
        inputs_BTQ: Tensor,
        lengths_B: Tensor | None = None,
        *,
        state: State | None = None,
        output_state: bool = False,
        output_attention: bool = False,
    ) -> LinaOutput:
        """Do what `forward` does, for texts that are encoded already, such as for a prompt."""
        shape = (memory.batch_size, self.config.n_codebooks)
        mask_BT, lengths_B = check_audio(inputs_BTQ, lengths_B, *shape, self.config.n_audio_ids)
        if state is not None:
            state.check(self._layout)
            check_streams(state.batch_size, shape[0])
        masks = (mask_BT, lengths_B, output_state)

        def run_block(block: nn.Module, x: Tensor, gla: Tensor | None, conv: Tensor | None) -> BlockOutput:
            out: BlockOutput = self._run(block, x, gla, conv, *masks)
            return out

        def run_cross(x: Tensor, position: Tensor | None, conv: Tensor | None) -> CrossOutput:
            out: CrossOutput = self._run(self.cross, x, memory, position, conv, *masks)
            return out

        x, outs, crossed = self._walk(self._embed(inputs_BTQ), state, run_block, run_cross)
        after = self._state(outs, crossed) if output_state else None
        return LinaOutput(self._logits(x), after, crossed.attention_BTM if output_attention else None)

    # -- single steps -------------------------------------------------------------------------------------------------
    def step(
        self, inputs_BQ: Tensor, memory: TextMemory, state: State, *, output_attention: bool = False
    ) -> StepOutput:
        """Predict the next column from one column; as `forward` with T = 1, at a cost that never grows.

        Call it under `torch.inference_mode()` and in evaluation mode. Ids are not checked here. To decode few streams
        for long, `torch.compile(model.step)` is worth its seconds: it is one graph, and small ones are mostly overhead.

        Args:
            inputs_BQ: One column of delayed audio ids. Shape (B, Q), int64.
            memory: What `encode_text` returned.
            state: State before the column, of B streams. It is not changed.
            output_attention: Whether to return the attention weights.

        Returns:
            Logits, the state after the column, and the weights if asked for.

        Raises:
            ValueError: If the state is of another model, or batch sizes differ.
        """
        state.check(self._layout)
        check_column(inputs_BQ, memory.batch_size, state.batch_size, self.config.n_codebooks)

        def run_cross(x: Tensor, position: Tensor | None, conv: Tensor | None) -> CrossOutput:
            return self.cross.step(x, memory, position, conv)

        x, outs, crossed = self._walk(self._embed(inputs_BQ), state, MixingBlock.step, run_cross)
        attention = crossed.attention_BTM if output_attention else None
        return StepOutput(self._logits(x), self._state(outs, crossed), attention)

    def initial_state(self, batch_size: int = 1) -> State:
        """Return the state at the start of utterances: zeros, on the device of the model.

        Args:
            batch_size: Streams.

        Returns:
            The state, float32 (float64 in a float64 model).
        """
        dtype = torch.float64 if self.embedding.dtype == torch.float64 else torch.float32
        zeros = {
            name: torch.zeros(batch_size, *shape, dtype=dtype, device=self.embedding.device)
            for name, shape in self._layout.items()
        }
        return State.from_tensors(zeros)

    # -- parts --------------------------------------------------------------------------------------------------------
    def _embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids + self.first_rows, self.embedding.flatten(0, 1)).sum(-2)

    def _logits(self, x: Tensor) -> Tensor:
        table = self.embedding if self.head is None else self.head
        if self.head is None:
            x = x * self.config.d_model**-0.5
        logits = F.linear(x, table.flatten(0, 1))
        return logits.view(*x.shape[:-1], *table.shape[:2])

    def _walk(
        self,
        x: Tensor,
        state: State | None,
        run_block: Callable[..., BlockOutput],
        run_cross: Callable[..., CrossOutput],
    ) -> tuple[Tensor, list[BlockOutput], CrossOutput]:
        """Lead the stream through the stack: the one order of layers that `forward` and `step` share."""
        n_first, n_layers, outs = len(self.encoder), self.config.n_layers, []
        matrices: tuple[Tensor | None, ...] = (None,) * n_layers if state is None else state.gla
        convs: tuple[Tensor | None, ...] = state.conv if state is not None and state.conv else (None,) * (n_layers + 1)
        for block, matrix, conv in zip(self.encoder, matrices, convs, strict=False):
            outs.append(run_block(block, x, matrix, conv))
            x = outs[-1].y
        crossed = run_cross(x, None if state is None else state.position, convs[-1])
        x = x + crossed.y
        for block, matrix, conv in zip(self.decoder, matrices[n_first:], convs[n_first:], strict=False):
            outs.append(run_block(block, x, matrix, conv))
            x = outs[-1].y
        return x, outs, crossed

    def _state(self, outs: list[BlockOutput], crossed: CrossOutput) -> State:
        """Collect what the layers pass on."""
        matrices = tuple(out.gla for out in outs if out.gla is not None)
        convs = [out.conv for out in outs] + [crossed.conv]
        return State(matrices, crossed.gla, tuple(conv for conv in convs if conv is not None))

    def _run(self, module: nn.Module, *arguments: Any) -> Any:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(module, *arguments, use_reentrant=False, preserve_rng_state=self.training)
        return module(*arguments)
