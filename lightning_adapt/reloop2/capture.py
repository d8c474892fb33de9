"""Finds the modules of a recommender that matter here, and notes ids, embeddings and hidden layers as they pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import problem

__all__ = [
    "EMBEDDINGS",
    "HIDDEN",
    "ForwardCapture",
    "Keys",
    "find_module",
    "find_output_module",
    "flat_keys",
    "warn_of_other_outputs",
]

Keys = Tensor | Mapping[str, Tensor]

EMBEDDINGS, HIDDEN = "embeddings", "hidden"  # names of the key spaces
Part = Literal["field", "columns", "list", "other"]
_FEWEST_ROWS = 8  # that tell whether the columns of an index tensor are fields
_MOST_COLUMNS = 64  # of an (B, F) index tensor that may hold one field per column


def find_output_module(module: nn.Module) -> tuple[str, nn.Module]:
    """Return the last Linear with one output, in order of registration.

    Args:
        module: The user's module.

    Returns:
        Its name within `module`, and the Linear.

    Raises:
        ValueError: If there is none.
    """
    found = [(name, part) for name, part in module.named_modules() if _gives_one_number(part)]
    if not found:
        names = [f"{name} ({type(part).__name__})" for name, part in module.named_modules() if name][-5:]
        remedy = (
            "Name the module whose output is the logit, probability or value of each row; where no module gives it (a "
            "dot product), pass it through a torch.nn.Identity() and name that."
        )
        raise ValueError(problem("output_module", "given where the model has no Linear(., 1)", names, remedy))
    return found[-1]


def find_module(module: nn.Module, which: str | nn.Module, argument: str) -> nn.Module:
    """Return a part of a module.

    Args:
        module: The user's module.
        which: Name of the part within it, or the part itself.
        argument: Name of the argument, for errors.

    Returns:
        The part.

    Raises:
        ValueError: If there is no such part.
    """
    parts = dict(module.named_modules())
    if isinstance(which, nn.Module):
        if not any(part is which for part in parts.values()):
            raise ValueError(problem(argument, "a part of the module that is run", which, "Pass its name instead."))
        return which
    if which not in parts or not which:
        names = [name for name in parts if name]
        raise ValueError(problem(argument, f"the name of a submodule, one of {names}", which, "Correct the name."))
    found: nn.Module = parts[which]
    return found


def _gives_one_number(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) and part.out_features == 1


class ForwardCapture:
    """Hooks that note what passes through a module's embeddings and key module; nothing is changed.

    Only passes without gradients are noted: a training step inside a test loop is none of its business.

    Args:
        module: The user's module.
        key_module: Where to take a key from besides the embeddings; None: nothing more.
        key_from: "input" or "output" of it.
        embeddings: Whether to note the embeddings.

    Attributes:
        known_fields: Names of fields that an earlier run found, to be found again; None: the first batch decides.
    """

    def __init__(self, module: nn.Module, key_module: nn.Module | None, key_from: str, *, embeddings: bool) -> None:
        self.module, self.key_module, self.key_from = module, key_module, key_from
        self.tables = _embedding_names(module) if embeddings else {}
        self.ids: dict[str, Tensor] = {}
        self.vectors: dict[str, Tensor] = {}
        self.key: Tensor | None = None
        self.known_fields: Collection[str] | None = None
        self._parts: dict[str, Part] = {}
        self._uses: dict[str, int] = {}
        self._handles: list[Any] = []

    def attach(self) -> None:
        """Register the hooks."""
        for name, table in self.tables.items():
            self._handles.append(table.register_forward_hook(self._embedding_hook(name)))
        if self.key_module is not None:
            self._handles.append(self.key_module.register_forward_hook(self._key_hook))

    def detach(self) -> None:
        """Remove the hooks and forget what they saw."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    def clear(self) -> None:
        """Forget what was seen, before the next batch."""
        self.ids.clear()
        self.vectors.clear()
        self._uses.clear()
        self.key = None

    def end_pass(self) -> None:
        """Let the next pass over the same batch write over what this one left; what it does not look up again stays."""
        self._uses.clear()

    def fields(self, n_rows: int) -> dict[str, Tensor]:
        """Return the id fields seen since `clear`, as int64 tensors of shape (B,).

        What a table's ids are is decided by the first batch and kept: ids of shape (B,) are a field. An index tensor of
        shape (B, F) is F fields if its columns use different rows of a table without padding (one big table with
        offsets), in 8 rows or more; otherwise it is a list, such as a history, and no field.

        Args:
            n_rows: Rows of the batch, B.
        """
        found: dict[str, Tensor] = {}
        for name, ids in self.ids.items():
            part = self._part(name, n_rows)
            if part == "field":
                found[name] = self._checked(name, ids, n_rows).reshape(n_rows, -1)[:, 0].long()
            elif part == "columns":
                columns = self._checked(name, ids, n_rows).long()
                found |= {f"{name}[{column}]": columns[:, column] for column in range(columns.shape[1])}
        return found

    def embeddings(self, n_rows: int) -> Tensor | None:
        """Return all embeddings of a row side by side; lists (histories) as their mean. Shape (B, d); None without any.

        Args:
            n_rows: Rows of the batch, B.
        """
        parts = []
        for name, vector in self.vectors.items():
            part = self._part(name, n_rows)
            if part == "other":
                continue
            vector = self._checked(name, vector, n_rows).float()
            if part == "list" and vector.ndim > 2:
                vector = vector.flatten(1, -2).mean(1).nan_to_num()  # a list may be empty
            parts.append(vector.flatten(1))
        return torch.cat(parts, 1) if parts else None

    def _part(self, name: str, n_rows: int) -> Part:
        if name not in self._parts:  # once: what a row is made of may not change from batch to batch
            self._parts[name] = self._decide(name, n_rows)
        return self._parts[name]

    def _decide(self, name: str, n_rows: int) -> Part:
        ids, vector = self.ids[name], self.vectors[name]
        if vector.shape[:1] != (n_rows,) or not vector.is_floating_point():
            return "other"  # positions, say: not one entry per row
        if self.known_fields is not None:
            return "field" if name in self.known_fields else "columns" if f"{name}[0]" in self.known_fields else "list"
        padded = getattr(self.tables[name.partition("#")[0]], "padding_idx", None) is not None
        if ids.shape == (n_rows,) or (ids.shape == (n_rows, 1) and not padded):
            return "field"
        if ids.ndim != 2 or ids.shape[0] != n_rows or padded or not _are_apart(ids):
            return "list"
        if n_rows < _FEWEST_ROWS:
            warnings.warn(
                f"{n_rows} rows in the first batch do not tell whether the {ids.shape[1]} ids per row of the table "
                f"{name!r} are fields; they count as a list, for good. Begin with a batch of {_FEWEST_ROWS} rows or "
                "more (ErrorMemoryPredictor: in `calibration`).",
                category=UserWarning,
                stacklevel=2,
            )
            return "list"
        return "columns"

    def _checked(self, name: str, value: Tensor, n_rows: int) -> Tensor:
        if value.shape[:1] != (n_rows,):
            remedy = "Look it up for each row of every batch, or pass memory=ErrorMemory(), which leaves tables alone."
            allowed = f"a batch in which the table {name!r} is asked for {n_rows} rows, as in the first"
            raise ValueError(problem("batch", allowed, tuple(value.shape), remedy))
        return value

    def _embedding_hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if torch.is_grad_enabled() or not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
                return
            self._uses[name] = self._uses.get(name, 0) + 1
            # a table that is used twice in one pass
            known = name if self._uses[name] == 1 else f"{name}#{self._uses[name]}"
            ids = args[0] if len(args) == 1 else args[0].new_zeros(0)  # an EmbeddingBag with offsets: only its vectors
            self.ids[known], self.vectors[known] = ids.detach(), output.detach()

        return hook

    def _key_hook(self, part: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.is_grad_enabled():
            return
        value = output if self.key_from == "output" else (args[0] if args else None)
        if not isinstance(value, Tensor):
            remedy = "Choose a module that is called with a tensor as its first argument, or key_from='output'."
            raise TypeError(problem("key_module", f"a module whose {self.key_from} is a tensor", part, remedy))
        self.key = value.detach()


def _are_apart(ids: Tensor) -> bool:
    """Say whether the columns of an index tensor of shape (B, F) use different rows of a table."""
    if not ids.numel() or ids.shape[1] > _MOST_COLUMNS:
        return False
    low, high = ids.min(0).values, ids.max(0).values
    order = low.argsort()
    return bool((low[order][1:] > high[order][:-1]).all())


def _embedding_names(module: nn.Module) -> dict[str, nn.Module]:
    """Return the embedding tables by the last part of their name, or the whole name where that is not unique."""
    tables = {name: part for name, part in module.named_modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))}
    short = [name.rsplit(".", 1)[-1] for name in tables]
    taken = {EMBEDDINGS, HIDDEN}
    names = [last if short.count(last) == 1 else name for last, name in zip(short, tables, strict=True)]
    return {f"{name} table" if name in taken else name: part for name, part in zip(names, tables.values(), strict=True)}


def flat_keys(key: Tensor, n_rows: int) -> Tensor:
    """Return a captured key as one vector per row.

    Args:
        key: Shape (B, ...).
        n_rows: Rows of the batch, B.

    Returns:
        Shape (B, d), float32.

    Raises:
        ValueError: If the key has another number of rows than the output.
    """
    if key.shape[:1] != (n_rows,):
        remedy = "Choose a module that sees the same rows as the output."
        raise ValueError(problem("key_module", f"a module that sees {n_rows} rows", tuple(key.shape), remedy))
    return key.flatten(1).float() if key.ndim > 1 else key[:, None].float()


def warn_of_other_outputs(module: nn.Module) -> None:
    """Say so where a module has several Linear(., 1): their outputs may be terms of one sum.

    Args:
        module: The user's module.
    """
    found = [name for name, part in module.named_modules() if _gives_one_number(part)]
    if len(found) > 1:
        warnings.warn(
            f"The output of {found[-1]!r} is corrected; there are also {found[:-1]}. If the prediction is a sum of "
            "several of them, name the module that holds the whole of it in output_module.",
            category=UserWarning,
            stacklevel=2,
        )
