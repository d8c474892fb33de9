"""Scores between the steps inside chunks, and the gradients of these, without an overflow.

The score of steps i >= j is sum_d q_id k_jd exp(sum of log decays behind j up to i). To be a matrix product, the decay
between j and i has to be split into a factor of i and a factor of j. `Anchored` splits it at the middle of the chunk:
some factors are above 1, which is safe while a chunk decays mildly, and one product does all. Otherwise `Dyadic` halves
the chunk again and again: between an upper and a lower block both factors, taken to their border, are at most 1. Only
its smallest blocks are anchored in their middle, which is safe for every decay, since none counts for more than
`LEAST_LOG_DECAY`. Factors are products of decays: there is one exponential for each decay, and none of a sum.

Differs from the paper's secondary chunking, where every exponent is at most 0: exponents inside anchored blocks may be
above 0, but are bounded. Factors stay within e^-36 and e^36 in large blocks, e^-68 and e^68 in the smallest, so float32
holds their products with queries and keys up to about 1e8. Decays between blocks and chunks are at most 1.

Shapes: M chunks of all heads, C steps of a chunk, K key width; P blocks of c steps.
"""
# ruff: noqa: N803, N806, N815  (names end in their dimensions)

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_adapt.lina_speech.gla.blocks import Workspace

SMALLEST = 8  # steps of a block whose factors are numbers whatever the decays: 4 steps from the middle to either end
MILDEST = 36.0  # larger blocks may be anchored while their factors stay within e^-36 and e^36


class Links(NamedTuple):
    """Factors on the rows of states; K^T V of a chunk is what its keys write.

    Attributes:
        enter_GK1: From the state before the segment to the one that its first chunk reads; None for 1.
        carry_NGK1: From the state that a chunk reads to the one that the next reads, or that behind the last chunk.
        leave_NGK1: From what a chunk writes to those; None for 1.
    """

    enter_GK1: Tensor | None
    carry_NGK1: Tensor
    leave_NGK1: Tensor | None


class Intra(Protocol):
    """The inside of the chunks of a segment, and what links it to the states around.

    Attributes:
        query_MCK: Queries as they read the state that comes into a chunk.
        key_MCK: Keys as they write into the state that leaves it.
    """

    query_MCK: Tensor
    key_MCK: Tensor

    def links(self, chunks: int) -> Links:
        """Return what links the states, given the chunks of a head; M counts them first, then heads."""

    def scores(self, scale: float, out_MCC: Tensor) -> Tensor:
        """Write the scores into a tensor, 0 above the diagonal."""

    def pull(self, d_scores_MCC: Tensor, d_query_MCK: Tensor, d_key_MCK: Tensor) -> Tensor:
        """Turn gradients of `query_MCK` and `key_MCK` in place into those of q and k; return q dq - k dk."""


def intra(workspace: Workspace, q_MCK: Tensor, k_MCK: Tensor, log_decay_MCK: Tensor) -> Intra:
    """Choose by the strongest decay of a segment how its chunks are computed.

    Args:
        workspace: Gives the buffers.
        q_MCK: Queries. Shape (M, C, K); C a power of two, at least `SMALLEST`.
        k_MCK: Keys. Shape (M, C, K).
        log_decay_MCK: Logarithms of the decays, from `LEAST_LOG_DECAY` to 0. Shape (M, C, K).

    Returns:
        The inside of the chunks.
    """
    C = q_MCK.shape[1]
    strongest, block = -float(log_decay_MCK.amin()) if log_decay_MCK.numel() else 0.0, C
    while block > SMALLEST and strongest * block / 2 > MILDEST:
        block //= 2
    if block == C:
        return Anchored(workspace, q_MCK, k_MCK, log_decay_MCK)
    return Dyadic(workspace, q_MCK, k_MCK, log_decay_MCK, block)


class Anchored:
    """Chunks whose decays are split at their middle.

    Args:
        workspace: Gives the buffers.
        q_MCK: Queries. Shape (M, C, K).
        k_MCK: Keys. Shape (M, C, K).
        log_decay_MCK: Logarithms of the decays, <= 0. Shape (M, C, K).
    """

    def __init__(self, workspace: Workspace, q_MCK: Tensor, k_MCK: Tensor, log_decay_MCK: Tensor) -> None:
        M, C, K = q_MCK.shape
        half = C // 2
        factor_MCK = workspace.get("factor", M, C, K)
        upper, lower = factor_MCK[:, :half], factor_MCK[:, half:]
        # a factor of the upper half holds the decays behind its step: those of the next steps, hence the shift by one
        torch.exp(log_decay_MCK[:, 1:half], out=upper[:, :-1])
        torch.exp(log_decay_MCK[:, half:], out=lower)
        upper[:, -1].fill_(1)
        _multiply_back(upper)
        _multiply_on(lower)
        # the decays of each half, from the start of the chunk to its middle and from there to its end
        self._halves_MK = (log_decay_MCK[:, 0].exp().mul_(upper[:, 0]), lower[:, -1].clone())
        upper.reciprocal_()
        self._factor_MCK, self._workspace = factor_MCK, workspace
        self.query_MCK = torch.mul(q_MCK, factor_MCK, out=workspace.get("query", M, C, K))
        self.key_MCK = torch.div(k_MCK, factor_MCK, out=workspace.get("key", M, C, K))

    def links(self, chunks: int) -> Links:
        """Return what links the states as they are at the middles of the chunks."""
        first, last = (half.view(chunks, -1, half.shape[1], 1) for half in self._halves_MK)
        carry = last.clone()
        carry[:-1].mul_(first[1:])
        return Links(first[0], carry, carry)

    def scores(self, scale: float, out_MCC: Tensor) -> Tensor:
        """Write the scores into a tensor, 0 above the diagonal."""
        return scaled_bmm(self.query_MCK, self.key_MCK.transpose(1, 2), scale, out_MCC).tril_()

    def pull(self, d_scores_MCC: Tensor, d_query_MCK: Tensor, d_key_MCK: Tensor) -> Tensor:
        """Turn gradients of `query_MCK` and `key_MCK` in place into those of q and k; return q dq - k dk."""
        d_query_MCK.baddbmm_(d_scores_MCC, self.key_MCK)
        d_key_MCK.baddbmm_(d_scores_MCC.transpose(1, 2), self.query_MCK)
        # the factors cancel in the products, so these serve before they are taken out
        along = torch.mul(self.query_MCK, d_query_MCK, out=self._workspace.get("along", *d_query_MCK.shape))
        along.addcmul_(self.key_MCK, d_key_MCK, value=-1)
        d_query_MCK.mul_(self._factor_MCK)
        d_key_MCK.div_(self._factor_MCK)
        return along


class Dyadic:
    """Chunks halved again and again, down to blocks that are anchored at their middle.

    Args:
        workspace: Gives the buffers.
        q_MCK: Queries. Shape (M, C, K).
        k_MCK: Keys. Shape (M, C, K).
        log_decay_MCK: Logarithms of the decays, <= 0. Shape (M, C, K).
        block: Steps of the smallest blocks, c.
    """

    def __init__(self, workspace: Workspace, q_MCK: Tensor, k_MCK: Tensor, log_decay_MCK: Tensor, block: int) -> None:
        self._q_MCK, self._k_MCK, self._log_decay_MCK = q_MCK, k_MCK, log_decay_MCK
        self._workspace, self._block, self._shape = workspace, block, q_MCK.shape
        self._until_MCK, self._behind_MCK = (workspace.get(name, *self._shape) for name in ("until", "behind"))
        self._start()
        self._grow(1, q_MCK.shape[1])
        self.query_MCK = torch.mul(q_MCK, self._until_MCK, out=workspace.get("query", *self._shape))
        self.key_MCK = torch.mul(k_MCK, self._behind_MCK, out=workspace.get("key", *self._shape))
        self._decay_MK = self._until_MCK[:, -1].clone()

    def links(self, chunks: int) -> Links:
        """Return what links the states as they are at the borders of the chunks."""
        return Links(None, self._decay_MK.view(chunks, -1, self._decay_MK.shape[1], 1), None)

    def scores(self, scale: float, out_MCC: Tensor) -> Tensor:
        """Write the scores into a tensor, 0 above the diagonal."""
        out_MCC.zero_()
        query, key, _ = self._anchored()
        blocks = scaled_bmm(query, key.transpose(1, 2), scale, None)
        diagonal = _diagonal(out_MCC, self._block)
        diagonal.copy_(blocks.tril_().view_as(diagonal))
        for size in self._levels():
            query, key = self._pair(size)
            lower = _below(out_MCC, size)
            lower.copy_(scaled_bmm(query, key.transpose(1, 2), scale, None).view_as(lower))
        return out_MCC

    def pull(self, d_scores_MCC: Tensor, d_query_MCK: Tensor, d_key_MCK: Tensor) -> Tensor:
        """Turn gradients of `query_MCK` and `key_MCK` in place into those of q and k; return q dq - k dk."""
        self._start()
        self._grow(1, self._shape[1])
        d_query_MCK.mul_(self._until_MCK)
        d_key_MCK.mul_(self._behind_MCK)
        query, key, factor = self._anchored()
        d_blocks = _diagonal(d_scores_MCC, self._block).flatten(0, 1)
        d_query_MCK.view_as(query).addcmul_(d_blocks @ key, factor)
        d_key_MCK.view_as(key).addcdiv_(d_blocks.transpose(1, 2) @ query, factor)
        for size in self._levels():
            query, key = self._pair(size)
            d_lower = _below(d_scores_MCC, size).flatten(0, 1)
            until, behind = _halves(self._until_MCK, size)[1], _halves(self._behind_MCK, size)[0]
            _halves(d_query_MCK, size)[1].addcmul_((d_lower @ key).view_as(until), until)
            _halves(d_key_MCK, size)[0].addcmul_((d_lower.transpose(1, 2) @ query).view_as(behind), behind)
        along = torch.mul(self._q_MCK, d_query_MCK, out=self._workspace.get("along", *self._shape))
        return along.addcmul_(self._k_MCK, d_key_MCK, value=-1)

    def _start(self) -> None:
        """Begin with blocks of one step: the decays of a block until a step, it included, and those behind it."""
        torch.exp(self._log_decay_MCK, out=self._until_MCK)
        self._behind_MCK.fill_(1)

    def _grow(self, size: int, wanted: int) -> None:
        """Join blocks of one size in pairs, until they have the wanted one."""
        while size < wanted:
            (upper, lower), (behind, _) = _halves(self._until_MCK, size), _halves(self._behind_MCK, size)
            behind.mul_(lower[:, :, -1:])
            lower.mul_(upper[:, :, -1:])
            size *= 2

    def _anchored(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and factors of the smallest blocks, split at their middles. Shape (M P, c, K)."""
        self._start()
        self._grow(1, self._block // 2)
        factor = self._workspace.get("factor", *self._shape)
        halves = _halves(factor, self._block // 2)
        torch.reciprocal(_halves(self._behind_MCK, self._block // 2)[0], out=halves[0])
        halves[1].copy_(_halves(self._until_MCK, self._block // 2)[1])
        self._grow(self._block // 2, self._block)
        blocks = (-1, self._block, self._shape[2])
        return (self._q_MCK * factor).view(blocks), (self._k_MCK / factor).view(blocks), factor.view(blocks)

    def _levels(self) -> Iterator[int]:
        """Yield the sizes of the blocks to pair, from small to large, as the factors grow with them."""
        size = self._block
        while size < self._shape[1]:
            yield size
            self._grow(size, 2 * size)
            size *= 2

    def _pair(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the queries of the lower and the keys of the upper blocks, taken to the border. Shape (M P, c, K)."""
        query = _halves(self._q_MCK, size)[1] * _halves(self._until_MCK, size)[1]
        key = _halves(self._k_MCK, size)[0] * _halves(self._behind_MCK, size)[0]
        return query.flatten(0, 1), key.flatten(0, 1)


def scaled_bmm(first: Tensor, second: Tensor, scale: float, out: Tensor | None) -> Tensor:
    """Return scale times the product of two batches of matrices, at the cost of the product alone."""
    if out is None:
        out = first.new_empty(first.shape[0], first.shape[1], second.shape[2])
    return torch.baddbmm(out, first, second, beta=0, alpha=scale, out=out)


def sum_back(tensor_MCK: Tensor) -> None:
    """Replace every step by the sum of it and all later ones of its chunk."""
    for first, second in _pairs(tensor_MCK):
        first.add_(second[:, :, :1])


def _multiply_back(tensor_MCK: Tensor) -> None:
    """Replace every step by the product of it and all later ones."""
    for first, second in _pairs(tensor_MCK):
        first.mul_(second[:, :, :1])


def _multiply_on(tensor_MCK: Tensor) -> None:
    """Replace every step by the product of it and all earlier ones."""
    for first, second in _pairs(tensor_MCK):
        second.mul_(first[:, :, -1:])


def _pairs(tensor_MCK: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the halves of blocks of 2, 4, 8 and more steps, up to the whole."""
    size = 1
    while size < tensor_MCK.shape[1]:
        yield _halves(tensor_MCK, size)
        size *= 2


def _halves(tensor_MCK: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the upper and the lower blocks of all pairs of blocks. Shape (M, P, c, K)."""
    M, C, K = tensor_MCK.shape
    pairs = tensor_MCK.view(M, C // (2 * size), 2, size, K)
    return pairs[:, :, 0], pairs[:, :, 1]


def _diagonal(square_MCC: Tensor, size: int) -> Tensor:
    """Return the square blocks on the diagonal. Shape (M, P, c, c)."""
    M, C, _ = square_MCC.shape
    return square_MCC.as_strided((M, C // size, size, size), (C * C, size * (C + 1), C, 1), square_MCC.storage_offset())


def _below(square_MCC: Tensor, size: int) -> Tensor:
    """Return the square blocks of rows of a lower block and columns of its upper one. Shape (M, P, c, c)."""
    M, C, _ = square_MCC.shape
    shape, strides = (M, C // (2 * size), size, size), (C * C, 2 * size * (C + 1), C, 1)
    return square_MCC.as_strided(shape, strides, square_MCC.storage_offset() + size * C)
