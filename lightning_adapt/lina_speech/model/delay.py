"""The delay pattern that turns the codes of several codebooks into one sequence of id columns, and back."""

# ruff: noqa: N803, N806  - dimension suffixes: B batch, Q codebooks, N frames, T columns

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = ["BOA", "CODE_OFFSET", "EOA", "PAD", "delay_codes", "undelay_codes"]

PAD, BOA, EOA = 0, 1, 2  # padding, beginning of audio, end of audio
CODE_OFFSET = 3  # code c of the codec is id c + 3


def delay_codes(codes_BQN: Tensor, lengths_B: Tensor) -> Tensor:
    """Delay codebook i by i frames, and frame the codes with begin and end ids.

    n frames become n + Q + 1 columns; row i (from 0) is (i + 1) x BOA, the codes + 3, (Q - i) x EOA. A model that
    predicts column t + 1 from columns 0..t so sees codebooks 0..i-1 of a frame before it predicts codebook i. Train
    on inputs `ids[:, :-1]` and targets `ids[:, 1:]`, and leave out targets that are BOA or PAD. Same as the authors'.

    Args:
        codes_BQN: Codes 0..codebook_size-1; what lies after a row's length is ignored. Shape (B, Q, N), integers.
        lengths_B: Frames per row, from 0 to N. Shape (B,), integers.

    Returns:
        Ids, PAD after each row's end. Shape (B, N + Q + 1, Q), int64, on the device of the codes.

    Raises:
        ValueError: If the shapes do not belong together.

    Example:
        >>> delay_codes(torch.tensor([[[5, 6, 7], [8, 9, 10]]]), torch.tensor([3]))[0].T.tolist()
        [[1, 8, 9, 10, 2, 2], [1, 1, 11, 12, 13, 2]]
    """
    check_tensor("codes_BQN", codes_BQN, "whole")
    check_tensor("lengths_B", lengths_B, "whole")
    if codes_BQN.dim() != 3 or codes_BQN.shape[1] == 0:
        remedy = "Add a batch and a codebook dimension: codes[None, None]."
        raise ValueError(problem("codes_BQN", "of shape (B, Q, N) with Q >= 1", tuple(codes_BQN.shape), remedy))
    batch, n_codebooks, n_frames = codes_BQN.shape
    if lengths_B.shape != (batch,):
        remedy = "Pass the number of frames of every row."
        raise ValueError(problem("lengths_B", f"of shape ({batch},)", tuple(lengths_B.shape), remedy))
    device = codes_BQN.device
    columns = torch.arange(n_frames + n_codebooks + 1, device=device)
    frames_TQ = columns[:, None] - 1 - torch.arange(n_codebooks, device=device)
    source_QT = frames_TQ.clamp(0, max(n_frames - 1, 0)).T
    if n_frames:
        delayed_BTQ = codes_BQN.long().gather(2, source_QT.expand(batch, -1, -1)).transpose(1, 2) + CODE_OFFSET
    else:
        delayed_BTQ = frames_TQ.new_zeros(batch, *frames_TQ.shape)
    lengths_B11 = lengths_B.to(device)[:, None, None]
    ids_BTQ = torch.where(frames_TQ < lengths_B11, delayed_BTQ, EOA)
    ids_BTQ = torch.where(columns[:, None] <= lengths_B11 + n_codebooks, ids_BTQ, PAD)
    return torch.where(frames_TQ < 0, BOA, ids_BTQ)


def undelay_codes(ids_TQ: Tensor) -> Tensor:
    """Return the codes of one delayed sequence, the inverse of `delay_codes`.

    The first codebook decides where the audio ends: at its first EOA or PAD, or, in a sequence that was cut off, at
    the last frame that has all its codebooks. A sampled sequence may hold special ids elsewhere: these become code 0.
    To lose no frame, go on for Q - 1 columns after the first EOA of codebook 0.

    Args:
        ids_TQ: Ids, the first column of BOA included. Shape (T, Q), integers.

    Returns:
        Codes 0..codebook_size-1. Shape (Q, N), int64, N >= 0.

    Raises:
        ValueError: If the shape is wrong.

    Example:
        >>> undelay_codes(torch.tensor([[1, 1], [8, 1], [9, 11], [2, 12], [2, 2]]))
        tensor([[5, 6],
                [8, 9]])
    """
    check_tensor("ids_TQ", ids_TQ, "whole")
    if ids_TQ.dim() != 2 or ids_TQ.shape[1] == 0:
        remedy = "Pass the ids of one sequence, time first."
        raise ValueError(problem("ids_TQ", "of shape (T, Q) with Q >= 1", tuple(ids_TQ.shape), remedy))
    n_columns, n_codebooks = ids_TQ.shape
    n_frames = max(n_columns - n_codebooks, 0)
    first_N = ids_TQ[1 : 1 + n_frames, 0]
    ended = ((first_N == EOA) | (first_N == PAD)).nonzero()
    if len(ended):
        n_frames = int(ended[0, 0])
    rows = [ids_TQ[1 + i : 1 + i + n_frames, i] for i in range(n_codebooks)]
    return (torch.stack(rows).long() - CODE_OFFSET).clamp(min=0)
