"""What a model asks of the texts, ids and lengths it is given, and the masks they make."""

# ruff: noqa: N803, N806  - dimension suffixes: B batch, T audio steps, M text tokens, Q codebooks

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["check_audio", "check_column", "check_range", "check_streams", "check_text_ids"]


def check_text_ids(text_BM: Tensor, text_lengths_B: Tensor, vocab_size: int) -> Tensor:
    """Check a batch of texts and return where its real tokens are.

    Args:
        text_BM: Text ids. Shape (B, M) with M >= 1, int64.
        text_lengths_B: Real tokens per row, from 0 to M. Shape (B,), integers.
        vocab_size: Number of text ids there are; looked at on the CPU only, where that costs no wait.

    Returns:
        True at real tokens. Shape (B, M), bool.

    Raises:
        ValueError: If a shape, a dtype, an id or a length does not fit.
    """
    if text_BM.dim() != 2 or not text_BM.shape[1] or text_BM.is_floating_point():
        received = f"{text_BM.dtype} of shape {tuple(text_BM.shape)}"
        raise ValueError(problem("text_BM", "whole numbers of shape (B, M), M >= 1", received, "Pad texts with id 0."))
    batch, n_tokens = text_BM.shape
    if text_lengths_B.shape != (batch,):
        remedy = "Pass the number of ids of every row."
        raise ValueError(problem("text_lengths_B", f"of shape ({batch},)", tuple(text_lengths_B.shape), remedy))
    if text_BM.device.type == "cpu" and not torch.compiler.is_compiling() and batch:
        check_range("text_BM", text_BM, vocab_size - 1, "Use the tokenizer that the model was trained with.")
        check_range("text_lengths_B", text_lengths_B, n_tokens, "Count a row's ids without the padding.")
    return torch.arange(n_tokens, device=text_BM.device) < text_lengths_B.to(text_BM.device)[:, None]


def check_range(name: str, values: Tensor, maximum: int, remedy: str) -> None:
    """Refuse whole numbers outside 0..maximum; `remedy` says what to do about it.

    Raises:
        ValueError: If one is outside.
    """
    if not values.numel():
        return
    low, high = (int(value) for value in values.aminmax())
    if low < 0 or high > maximum:
        raise ValueError(problem(name, f"whole numbers from 0 to {maximum}", f"{low} to {high}", remedy))


def check_audio(
    inputs_BTQ: Tensor, lengths_B: Tensor | None, batch: int, n_codebooks: int, n_ids: int
) -> tuple[Tensor | None, Tensor | None]:
    """Check a batch of delayed ids and return where its real columns are.

    Args:
        inputs_BTQ: Delayed audio ids. Shape (B, T, Q), int64.
        lengths_B: Real columns per row; None for all. Shape (B,), integers.
        batch: Texts [B].
        n_codebooks: Codebooks of the model [Q].
        n_ids: Ids per codebook; looked at on the CPU only, where that costs no wait.

    Returns:
        True at real columns, shape (B, T), and the lengths, shape (B,), on the device of the ids; or twice None.

    Raises:
        ValueError: If a shape, an id or a length does not fit.
    """
    if inputs_BTQ.dim() != 3 or inputs_BTQ.shape[0] != batch or inputs_BTQ.shape[2] != n_codebooks:
        remedy = "Use `delay_codes` with as many codebooks as the model has, and one row per text."
        allowed = f"of shape ({batch}, T, {n_codebooks})"
        raise ValueError(problem("inputs_BTQ", allowed, tuple(inputs_BTQ.shape), remedy))
    looked_at = inputs_BTQ.device.type == "cpu" and not torch.compiler.is_compiling()
    if looked_at:
        check_range("inputs_BTQ", inputs_BTQ, n_ids - 1, "Use codes of the codec that the model was built for.")
    if lengths_B is None:
        return None, None
    if lengths_B.shape != (batch,):
        remedy = "Pass the number of columns of every row."
        raise ValueError(problem("lengths_B", f"of shape ({batch},)", tuple(lengths_B.shape), remedy))
    if looked_at:
        check_range("lengths_B", lengths_B, inputs_BTQ.shape[1], "Count a row's columns without the padding.")
    lengths_B = lengths_B.to(inputs_BTQ.device)
    return torch.arange(inputs_BTQ.shape[1], device=inputs_BTQ.device) < lengths_B[:, None], lengths_B


def check_streams(n_states: int, batch: int) -> None:
    """Refuse a state of neither one stream nor as many as there are texts.

    Raises:
        ValueError: If it is so.
    """
    if n_states not in (1, batch):
        remedy = "Pick or join streams with `State.select` and `State.cat`."
        raise ValueError(problem("state", f"of {batch} streams, as there are texts, or of one", n_states, remedy))


def check_column(inputs_BQ: Tensor, n_texts: int, n_states: int, n_codebooks: int) -> None:
    """Refuse one column of ids that does not fit the texts, the states or the model.

    Raises:
        ValueError: If it is so.
    """
    if inputs_BQ.shape != (n_texts, n_codebooks) or n_states != n_texts:
        allowed = f"of shape ({n_texts}, {n_codebooks}) and the state of {n_texts} streams, as there are texts"
        received = f"{tuple(inputs_BQ.shape)} and {n_states} streams"
        remedy = "Use `State.expand` on a state of one stream and `TextMemory.repeat` on one text."
        raise ValueError(problem("inputs_BQ", allowed, received, remedy))
