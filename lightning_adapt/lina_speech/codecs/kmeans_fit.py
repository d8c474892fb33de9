"""What `KMeansMelCodec.fit` does: draw frames of recordings, and put codebooks on them one after the other."""

# Dimension suffixes: N frames, M mel bands.
# ruff: noqa: N803, N806 - tensor names carry their dimensions

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt._shared.kmeans import kmeans
from lightning_adapt.lina_speech.codecs.inputs import one_recording
from lightning_adapt.lina_speech.codecs.mel import MelFrames

__all__ = ["drawn_frames", "residual_books"]


def drawn_frames(audios: Iterable[Tensor], mel: MelFrames, max_frames: int, seed: int) -> Tensor:
    """Return the log mel frames of recordings, or some of them where there are many.

    Args:
        audios: Recordings, each of shape (S,), float32, in [-1, 1]; taken one at a time.
        mel: What turns them into frames.
        max_frames: Most frames; of more, so many are drawn, every frame with the same probability.
        seed: Any whole number.

    Returns:
        Shape (N, M), float32, in the order of the recordings.

    Raises:
        TypeError: If a recording is no tensor of floats.
        ValueError: If there is no recording, or one is unfit; the text says which.
    """
    key, seen = derive_key(seed), 0
    kept: list[Tensor] = []
    tickets: list[Tensor] = []
    held = 0
    for number, audio in enumerate(audios):
        frames_NM = mel.analyse(one_recording(audio, f"audios[{number}]"))[0]
        kept.append(frames_NM)
        tickets.append(uniform(torch.arange(seen, seen + len(frames_NM)), key))
        seen, held = seen + len(frames_NM), held + len(frames_NM)
        if held > 2 * max_frames:
            kept, tickets = _lowest(kept, tickets, max_frames)
            held = max_frames
    if not kept:
        raise ValueError(problem("audios", "at least one recording", 0, "Give the audio to fit on."))
    return _lowest(kept, tickets, max_frames)[0][0]


def _lowest(kept: list[Tensor], tickets: list[Tensor], most: int) -> tuple[list[Tensor], list[Tensor]]:
    frames_NM, drawn = torch.cat(kept), torch.cat(tickets)
    if len(drawn) <= most:
        return [frames_NM], [drawn]
    chosen = drawn.topk(most, largest=False).indices.sort().values
    return [frames_NM[chosen]], [drawn[chosen]]


def residual_books(left_NM: Tensor, n_codebooks: int, codebook_size: int, iterations: int, seed: int) -> Tensor:
    """Return codebooks, each made by k-means on what those before it have left of the frames.

    Args:
        left_NM: Log mel frames, shape (N, M), float32, N >= C.
        n_codebooks: Q.
        codebook_size: C.
        iterations: Most iterations of each k-means.
        seed: Any whole number.

    Returns:
        Shape (Q, C, M), float32.
    """
    books = []
    for book in range(n_codebooks):
        # always torch: which engines are installed must not decide what a code sounds like
        key = derive_key(seed, book)
        found = kmeans(left_NM, codebook_size, engine="torch", iterations=iterations, seed=key)
        left_NM = left_NM - found.centers[found.labels]
        copies = torch.arange(codebook_size) % len(found.centers)  # fewer distinct frames than centers: some repeat
        books.append(found.centers[copies])
    return torch.stack(books)
