"""InitialStates: the matrices that recurrences start from, as parameters of low or full rank, for one or more voices.

Initial-state tuning as in the authors' code of Lina-Speech, Lemerle et al., 2024, arXiv 2410.23320.
"""

# N voices, B rows of a batch, H heads, R rank, K key width, V value width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import check_integer, check_positive, problem
from lightning_adapt._shared.hashing import generator
from lightning_adapt.lina_speech.voices.factors import product_of

__all__ = ["InitialStates", "Rank", "check_rank"]

Rank = int | Literal["full"]

_START = 0.02  # standard deviation of w at the start


class InitialStates(nn.Module):
    """Learnable initial states of one or more voices.

    Of low rank, each matrix of each head is

        S = scale * sum_{r=1..R} u_r w_r^T,    u ~ N(0, 1) in R^K,    w ~ 0.02 N(0, 1) in R^V at the start

    which are R (K + V) numbers in place of K V. Of full rank it is a free matrix that starts as zeros: the first loss
    is then that of the base. All voices start alike, so that one tuned alone starts as it does in company.

    The parameters are in no state dict: as part of a LightningModule they leave its checkpoints as they are without
    them. `values` and `load_values` save and load them.

    Args:
        shapes: Name -> (H, K, V) of each matrix.
        n_voices: Voices.
        rank: R, or "full". A rank of min(K, V) or more gives no more matrices than "full" does, but learns otherwise.
        scale: Factor of a low-rank matrix; without effect on "full".
        seed: Of the start of low-rank states.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> states = InitialStates({"gla.0": (2, 8, 16)}, rank=4)
        >>> states.matrices()["gla.0"].shape
        torch.Size([1, 2, 8, 16])
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        n_voices: int = 1,
        rank: Rank = 1,
        scale: float = 0.02,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shapes = _checked_shapes(shapes)
        self.n_voices = check_integer("n_voices", n_voices, "Pass the number of voices.", minimum=1)
        self.rank = check_rank(rank)
        self.scale = check_positive("scale", scale, "Pass 0.02.")
        first = {name: self._start(shape, seed, place) for place, (name, shape) in enumerate(self.shapes.items())}
        for place, values in enumerate(first.values()):
            for part, value in values.items():
                parameter = nn.Parameter(value.repeat(n_voices, *[1] * value.dim()))
                self.register_parameter(_key(place, part), parameter)  # of no submodule: see the last two methods

    def _start(self, shape: tuple[int, ...], seed: int, place: int) -> dict[str, Tensor]:
        heads, keys, values = shape
        if self.rank == "full":
            return {"": torch.zeros(shape)}
        numbers = generator(seed, place)
        u = torch.randn(heads, self.rank, keys, generator=numbers)
        return {"u": u, "w": _START * torch.randn(heads, self.rank, values, generator=numbers)}

    def _part(self, place: int, part: str = "") -> nn.Parameter:
        return self.get_parameter(_key(place, part))

    # -- matrices -----------------------------------------------------------------------------------------------------
    def matrices(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Return the matrices to start from, with gradients.

        Args:
            rows: Number of the voice of each row of a batch, shape (B,), integers; None for the only voice.

        Returns:
            Name -> matrix, shape (B, H, K, V), or (1, H, K, V) for the only voice; float32 whatever the precision
            around (float64 if the parameters are).

        Raises:
            ValueError: If there are several voices and no `rows`.
        """
        if rows is None and self.n_voices > 1:
            remedy = "Say which voice each row of the batch has."
            raise ValueError(problem("rows", f"given where there are {self.n_voices} voices", rows, remedy))
        made = {}
        for place, name in enumerate(self.shapes):
            every = self._matrix(place)
            # a row's gradient reaches its own voice alone; the other voices' is 0
            made[name] = every if rows is None else every[rows.to(every.device)]
        return made

    def _matrix(self, place: int) -> Tensor:
        if self.rank == "full":
            return _wide(_in_order(self._part(place)))
        u, w = (_wide(_in_order(self._part(place, part))) for part in ("u", "w"))
        # as a voice file is multiplied out, so that a voice is bit for bit what was tuned: voices as further heads
        u, w = (part.flatten(0, 1).transpose(0, 1) for part in (self.scale * u, w))
        made = product_of(u, w)
        return made.view(self.n_voices, -1, *made.shape[1:])

    def voice_tensors(self, number: int = 0) -> dict[str, Tensor]:
        """Return what a file of one voice holds: the matrices or their factors.

        Args:
            number: Which voice.

        Returns:
            NAME.u, shape (R, H, K), with the scale in it, and NAME.w, shape (R, H, V), whose sum of u_r w_r^T is the
            matrix, bit for bit; of full rank NAME, shape (H, K, V). Copies on the CPU, float32.
        """
        made = {}
        for place, name in enumerate(self.shapes):
            if self.rank == "full":
                made[name] = _copied(self._part(place)[number]).float()
                continue
            u, w = (_wide(self._part(place, part)[number]).transpose(0, 1) for part in ("u", "w"))
            made[f"{name}.u"], made[f"{name}.w"] = _copied(self.scale * u).float(), _copied(w).float()
        return made

    def norms(self) -> Tensor:
        """Return the root of the summed squares of every matrix, on the CPU. Shape (N, number of matrices), float32."""
        with torch.no_grad():
            sizes = [self._matrix(place).flatten(1).norm(dim=1) for place in range(len(self.shapes))]
        return torch.stack(sizes, 1).float().cpu()

    # -- values -------------------------------------------------------------------------------------------------------
    def values(self, number: int | None = None) -> dict[str, Tensor]:
        """Return copies of the parameters on the CPU, of all voices or of one (first dimension 1)."""
        chosen = slice(None) if number is None else slice(number, number + 1)
        return {name: _copied(value[chosen]) for name, value in self.named_parameters()}

    def load_values(self, values: Mapping[str, Tensor], number: int | None = None) -> None:
        """Take over parameters that `values` returned, for all voices or for one.

        Args:
            values: Name -> values.
            number: Which voice; None for all.

        Raises:
            ValueError: If names or shapes do not fit: what was tuned had another rank, other layers or more voices.
        """
        here = {name: tuple(value.shape) for name, value in self.values(number).items()}
        there = {name: tuple(value.shape) for name, value in values.items()}
        if here != there:
            remedy = "Go on with the rank, the layers and the voices of the saved run, or begin anew."
            raise ValueError(problem("states", f"of shapes {here}", there, remedy))
        with torch.no_grad():
            for name, value in values.items():
                own = self.get_parameter(name)
                (own if number is None else own[number : number + 1]).copy_(value)

    def clear(self, number: int) -> None:
        """Let one voice start from zeros: as the base does."""
        with torch.no_grad():
            for value in self.parameters():
                value[number].zero_()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Write nothing: a checkpoint of the module around is that of its base."""

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        """Miss nothing in a checkpoint of the module around."""


def check_rank(rank: Any) -> Rank:
    """Check a rank.

    Args:
        rank: What the user passed.

    Returns:
        The value.

    Raises:
        ValueError: If it is neither a whole number >= 1 nor "full".
    """
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
    if not whole and rank != "full":
        remedy = "Pass 1 as the authors, 4 to 16 for minutes of data, or 'full'."
        raise ValueError(problem("rank", "a whole number >= 1 or 'full'", rank, remedy))
    chosen: Rank = rank
    return chosen


def _checked_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    checked = {name: tuple(shape) for name, shape in shapes.items()}
    wrong = [shape for shape in checked.values() if len(shape) != 3 or min(shape) < 1]
    if wrong or not checked:
        remedy = "Return one (H, K, V) for each recurrence."
        raise ValueError(problem("shapes", "at least one name -> (H, K, V), each at least 1", shapes, remedy))
    return checked


def _key(place: int, part: str) -> str:
    """Return the name of a parameter: names of layers may have dots, which parameters must not."""
    return f"{part or 'full'}_{place}"


def _copied(value: Tensor) -> Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _wide(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _in_order(value: Tensor) -> Tensor:
    """Return the value; its gradient then lies in memory as it does, which DistributedDataParallel asks for."""
    return value.flatten().view_as(value)
