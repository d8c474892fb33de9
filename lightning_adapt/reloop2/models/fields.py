"""What the click models know of their fields: names, numbers of rows, and where they sit in a batch; plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem

_PREFIX = "field_"


def check_fields(field_sizes: Any, numeric: Any) -> tuple[dict[str, int], tuple[str, ...]]:
    """Check the fields of a click model, and put them in the order of their names.

    That order is the models' own: weights then fit whatever order a data set, a config or a weight file has.

    Args:
        field_sizes: Id field -> number of its rows.
        numeric: Names of the numeric fields.

    Returns:
        Both, sorted, as a new dict and a tuple.

    Raises:
        TypeError: If they are no mapping and no sequence of names, or a size is no whole number.
        ValueError: If there is no field, a size is below 1, or two fields would share a name.
    """
    if not isinstance(field_sizes, Mapping):
        remedy = 'Pass {"user_id": 1000, "item_id": 500}, or the `field_sizes` of a PrequentialDataModule.'
        raise TypeError(problem("field_sizes", "a mapping of field name to number of rows", field_sizes, remedy))
    if isinstance(numeric, str) or not all(isinstance(name, str) for name in numeric):
        raise TypeError(problem("numeric", "a sequence of names", numeric, 'Pass ["age"] for one field.'))
    sizes = {
        str(name): check_integer(f"field_sizes[{name!r}]", size, "Pass the largest id plus one.", minimum=1)
        for name, size in field_sizes.items()
    }
    names = [*sizes, *numeric]
    if not names or len(set(names)) != len(names):
        raise ValueError(problem("field_sizes", "at least one field, all names distinct", names, "Name each once."))
    return dict(sorted(sizes.items())), tuple(sorted(numeric))


def check_embedding_dim(embedding_dim: int) -> int:
    """Return `embedding_dim` as an int >= 1, or raise as `check_integer` does."""
    return check_integer("embedding_dim", embedding_dim, "Pass 16, say.", minimum=1)


def field_key(field: str) -> str:
    """Return the name of a field's weight in a ModuleDict or ParameterDict.

    These take neither dots nor the names of their own methods ("type", "items").

    Args:
        field: Name of the field.

    Returns:
        The name; `fields_of_weights` reads it back.

    Example:
        >>> field_key("ad.type")
        'field_ad%2Etype'
    """
    return _PREFIX + field.replace("%", "%25").replace(".", "%2E")


def fields_of_weights(weights: Mapping[str, Tensor], prefix: str = "") -> tuple[dict[str, int], list[str]]:
    """Read the fields of a click model off its weights.

    Args:
        weights: The state of a `Backbone`, or of a module that has one.
        prefix: Name of the backbone in that module, with a dot.

    Returns:
        Id field -> number of its rows; names of the numeric fields. Both are empty without such weights.

    Example:
        >>> import torch
        >>> fields_of_weights({"embeddings.field_user.weight": torch.zeros(9, 4)})
        ({'user': 9}, [])
    """
    sizes, numeric = {}, []
    for key, weight in weights.items():
        kind, _, name = key.removeprefix(prefix).partition(f".{_PREFIX}")
        name = name.replace("%2E", ".").replace("%25", "%")
        if key.startswith(prefix) and kind == "embeddings":
            sizes[name.removesuffix(".weight")] = len(weight)
        elif key.startswith(prefix) and kind == "numeric_vectors":
            numeric.append(name)
    return sizes, numeric


def column_of(batch: Mapping[str, Tensor], field: str) -> Tensor:
    """Return the values of a field.

    Args:
        batch: Field -> values of shape (B,).
        field: Name of the field.

    Returns:
        The values. Shape (B,).

    Raises:
        ValueError: If the batch does not have it.
    """
    if field not in batch:
        allowed = f"a mapping with the field {field!r}"
        raise ValueError(problem("batch", allowed, sorted(batch), "Add the field, under this name."))
    return batch[field]
