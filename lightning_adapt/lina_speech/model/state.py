"""The recurrent state of a model: all that it keeps of the past of some streams, and what voices stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt.lina_speech.model.config import LinaConfig
from lightning_adapt.lina_speech.model.layers import CONV_WIDTH

__all__ = ["State", "completed_state", "state_layout"]


@dataclass(frozen=True)
class State:
    """State of B streams after some steps; its size does not depend on how many.

    States are values: every method returns a new one, which may share memory with the old one.

    Attributes:
        gla: Matrix of each encoder block, then of each decoder block. Shape (B, H, K, V) each, float32. Learning these
            while the weights stay frozen is initial-state tuning: gradients reach them through `LinaModel.forward`.
        position: Matrix of the recurrence of blind cross-attention; None if attention is plain.
        conv: Last three inputs of the short convolution of each block, that of blind attention last; empty without
            short convolutions. Shape (B, 3, C) each, float32.
    """

    gla: tuple[Tensor, ...]
    position: Tensor | None = None
    conv: tuple[Tensor, ...] = ()

    @property
    def batch_size(self) -> int:
        """Number of streams."""
        return len(self.gla[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name: "gla.0", ..., "position", "conv.0", ..."""
        named = {f"gla.{i}": tensor for i, tensor in enumerate(self.gla)}
        if self.position is not None:
            named["position"] = self.position
        return {**named, **{f"conv.{i}": tensor for i, tensor in enumerate(self.conv)}}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> State:
        """Build a state from what `tensors` gave.

        Args:
            tensors: Name -> tensor.

        Returns:
            The state.

        Raises:
            ValueError: If a name is unknown or missing, there is no "gla.0", or the batch sizes differ.
        """
        parts = {kind: _numbered(tensors, kind) for kind in ("gla", "conv")}
        position = tensors.get("position")
        state = cls(parts["gla"], position, parts["conv"])
        unknown = set(tensors) - set(state.tensors())
        if unknown or not state.gla:
            allowed = "named gla.0, gla.1, ..., position, conv.0, conv.1, ... without gaps"
            raise ValueError(problem("tensors", allowed, sorted(tensors), "Pass what `State.tensors()` returned."))
        for name, tensor in state.tensors().items():
            if tensor.dim() < 2 or len(tensor) != state.batch_size:
                allowed = f"of shape ({state.batch_size}, ...), as gla.0 is"
                raise ValueError(
                    problem(f"tensors[{name!r}]", allowed, tuple(tensor.shape), "Pass tensors of one state.")
                )
        return state

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """Return a state with a function applied to every tensor."""
        position = None if self.position is None else function(self.position)
        return State(tuple(map(function, self.gla)), position, tuple(map(function, self.conv)))

    def to(self, device: torch.device | str) -> State:
        """Return the state on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def detach(self) -> State:
        """Return the state without its history of gradients."""
        return self.map(torch.Tensor.detach)

    def select(self, rows: Tensor | Sequence[int]) -> State:
        """Return some streams, in the order of `rows` (row numbers, or a bool per stream if a tensor)."""
        index = torch.as_tensor(rows, device=self.gla[0].device)
        index = index if index.dtype == torch.bool else index.long()  # an empty list would be float
        return self.map(lambda tensor: tensor[index])

    def expand(self, batch_size: int) -> State:
        """Return `batch_size` equal streams from a state of one; they share memory.

        Args:
            batch_size: Streams.

        Returns:
            The state.

        Raises:
            ValueError: If this state has more than one stream, and another number of them.
        """
        check_integer("batch_size", batch_size, "Pass the number of streams.", minimum=0)
        if self.batch_size not in (1, batch_size):
            remedy = "Pick one stream with `select([row])`, or take as many as there are texts."
            raise ValueError(problem("batch_size", f"{self.batch_size}, as the state has", batch_size, remedy))
        return self.map(lambda tensor: tensor.expand(batch_size, *tensor.shape[1:]))

    @classmethod
    def cat(cls, states: Sequence[State]) -> State:
        """Join the streams of several states of one model.

        Args:
            states: At least one.

        Returns:
            Their streams, in order.

        Raises:
            ValueError: If there is none, or they are of different models: the error names the layer.
        """
        if not states:
            raise ValueError(problem("states", "at least one state long", "none", "Use `LinaModel.initial_state`."))
        layout = states[0].layout()
        for number, state in enumerate(states):
            state.check(layout, f"states[{number}]")
        named = [state.tensors() for state in states]
        return cls.from_tensors({name: torch.cat([tensors[name] for tensors in named]) for name in layout})

    def split(self) -> list[State]:
        """Return one state per stream; they share memory with this one."""
        return [self.map(lambda tensor, row=row: tensor[row : row + 1]) for row in range(self.batch_size)]  # type: ignore[misc]

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name, without the batch: what two states must share to be joined."""
        return {name: tuple(tensor.shape[1:]) for name, tensor in self.tensors().items()}

    def check(self, layout: Mapping[str, tuple[int, ...]], name: str = "state") -> None:
        """Refuse a state of another model.

        Args:
            layout: What `layout()` of a state of the right model returns.
            name: What the state is called in the error.

        Raises:
            ValueError: If a tensor is missing, too many or of another shape: which one, expected, got.
        """
        here = self.layout()
        if here == layout:
            return
        remedy = "A state fits only the model (and the small_state and short_conv switches) it was made with."
        for part in {**layout, **here}:
            wanted, got = layout.get(part), here.get(part)
            if wanted != got:
                allowed = "absent" if wanted is None else "of shape (B, " + ", ".join(map(str, wanted)) + ")"
                received = "nothing" if got is None else "(B, " + ", ".join(map(str, got)) + ")"
                raise ValueError(problem(f"{name}.{part}", allowed, received, remedy))


def _numbered(tensors: Mapping[str, Tensor], kind: str) -> tuple[Tensor, ...]:
    """Return kind.0, kind.1, ... up to the first that is not there."""
    found: list[Tensor] = []
    while (tensor := tensors.get(f"{kind}.{len(found)}")) is not None:
        found.append(tensor)
    return tuple(found)


def state_layout(config: LinaConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a model's state by name, without the batch.

    Args:
        config: Sizes and switches of the model.

    Returns:
        Name as in `State.tensors` -> shape: (H, K, V) or (3, C).
    """
    widths = [config.d_model] * config.n_layers + ([config.d_blind] if config.cross_attention == "blind" else [])
    layout: dict[str, tuple[int, ...]] = {}
    for i, width in enumerate(widths):
        keys, values = int(width * config.expand_k), int(width * config.expand_v)
        name = f"gla.{i}" if i < config.n_layers else "position"
        layout[name] = (config.n_heads, keys // config.n_heads, values // config.n_heads)
        if config.short_conv:
            layout[f"conv.{i}"] = (CONV_WIDTH - 1, 2 * keys + values)
    return layout


def completed_state(tensors: Mapping[str, Tensor], zeros: State, name: str) -> State:
    """Return a state of some given tensors, with zeros for those that are left out.

    Args:
        tensors: Name as in `State.tensors` -> tensor of 1 or B streams. Gradients reach them.
        zeros: `initial_state(1)` of the model.
        name: What the tensors are called in an error.

    Returns:
        State of B streams, on the device and in the float type of `zeros`.

    Raises:
        ValueError: If the model has no such recurrence, a shape does not fit, or the numbers of streams differ.
    """
    found, layout = zeros.tensors(), zeros.layout()
    streams = max((len(tensor) for tensor in tensors.values() if tensor.dim()), default=1)
    for part, tensor in tensors.items():
        if part not in layout:
            remedy = "Its names are " + ", ".join(layout) + "."
            raise ValueError(problem(f"{name}: {part}", "a recurrence of the model", tuple(tensor.shape), remedy))
        if tuple(tensor.shape) not in {(1, *layout[part]), (streams, *layout[part])}:
            allowed = f"of shape ({streams}, " + ", ".join(map(str, layout[part])) + "), or with 1 row"
            raise ValueError(
                problem(f"{name}: {part}", allowed, tuple(tensor.shape), "Use the model it was made with.")
            )
        found[part] = tensor.to(found[part])
    whole = {part: tensor.expand(streams, *tensor.shape[1:]) for part, tensor in found.items()}
    return State.from_tensors(whole)
