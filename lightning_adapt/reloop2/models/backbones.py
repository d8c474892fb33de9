"""DeepFM and DCNv2: click models whose whole logit comes out of one last Linear(., 1); plain PyTorch.

DeepFM: Guo et al., IJCAI 2017, arXiv 1703.04247. DCNv2: Wang et al., WWW 2021, arXiv 2008.13535 (parallel structure).
Defaults follow the BARS leaderboard's settings in kind (small initial embeddings, ReLU, dropout), not in width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import check_flag, check_integer, check_share, problem
from lightning_adapt.reloop2.models.fields import check_embedding_dim, check_fields, column_of, field_key

EMBEDDING_STD = 1e-4  # FuxiCTR's: a row that was never trained adds next to nothing to the logit


class Backbone(nn.Module):
    """Base of the click models: one embedding per id field, one vector per numeric field, and an MLP over them.

    A subclass adds its interaction part and, last, `output`, the Linear(., 1) over both.

    A numeric value x is embedded as x times a learned vector, as in FuxiCTR. Batches are mappings: an int64 tensor of
    shape (B,) per id field, a float tensor of shape (B,) per numeric field, under the fields' names.

    Args:
        field_sizes: Id field -> number of its rows; ids run from 0 to that number less one.
        numeric: Names of the numeric fields; standardise their values.
        width: Numbers per embedding.
        hidden: Widths of the MLP that works beside the interaction part; empty for none.
        dropout: Share of hidden units that are switched off in training, in [0, 1).
        batch_norm: Normalise each hidden layer over the batch.

    Raises:
        TypeError: If a size or width is no whole number.
        ValueError: If there is no field, a name is double, or a number is out of range.
    """

    def __init__(
        self,
        field_sizes: Mapping[str, int],
        *,
        numeric: Sequence[str] = (),
        width: int,
        hidden: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.field_sizes, self.numeric = check_fields(field_sizes, numeric)
        self.width = width
        self.embeddings = nn.ModuleDict(
            {field_key(field): nn.Embedding(size, width) for field, size in self.field_sizes.items()}
        )
        # one per field, and none without numeric fields: DDP refuses parameters that the loss does not reach
        self.numeric_vectors = nn.ParameterDict({field_key(field): torch.empty(width) for field in self.numeric})
        for weight in (*self.embeddings.parameters(), *self.numeric_vectors.parameters()):
            nn.init.normal_(weight, std=EMBEDDING_STD)
        self.mlp = _mlp(self.n_fields * self.input_width, hidden, dropout, batch_norm)
        self.mlp_width = hidden[-1] if hidden else 0
        self.output: nn.Linear

    @property
    def n_fields(self) -> int:
        """Number of fields, id and numeric ones."""
        return len(self.field_sizes) + len(self.numeric)

    @property
    def input_width(self) -> int:
        """Numbers per field that the MLP takes."""
        return self.width

    def embed(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Look up the embeddings of a batch.

        Args:
            batch: Field -> values of shape (B,); other entries are left alone.

        Returns:
            Embeddings, id fields first, each kind by name. Shape (B, F, width), the dtype of the weights.

        Raises:
            ValueError: If a field is missing; on the CPU, if an id is outside its field's rows.
        """
        parts = [self._lookup(field, column_of(batch, field)) for field in self.field_sizes]
        for field in self.numeric:
            vector: Tensor = self.numeric_vectors[field_key(field)]
            parts.append(column_of(batch, field).to(vector.dtype)[:, None] * vector)
        return torch.stack(parts, 1)

    def _lookup(self, field: str, ids: Tensor) -> Tensor:
        try:
            found: Tensor = self.embeddings[field_key(field)](ids)
        except IndexError as error:
            received = f"ids from {int(ids.min())} to {int(ids.max())}"
            remedy = "Encode the ids as in training, and send unknown ones to the row kept for them."
            allowed = f"whole numbers from 0 to {self.field_sizes[field] - 1}"
            raise ValueError(problem(field, allowed, received, remedy)) from error
        return found

    def logits(self, embedded: Tensor) -> Tensor:
        """Return the logits of looked-up embeddings.

        Args:
            embedded: What `embed` returned. Shape (B, F, width).

        Returns:
            Logits of a click. Shape (B,).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement logits.")

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of a batch, shape (B,); see `embed` for what goes in."""
        return self.logits(self.embed(batch))


class DeepFM(Backbone):
    """DeepFM: first-order weights, a factorisation machine and an MLP over the same embeddings.

    Guo et al. 2017, arXiv 1703.04247, Eqs. 1-4. Differs from the paper in: the first-order weight of an id is the
    first number of its embedding, so that there is one embedding per field; and the three parts meet in one Linear,
    which starts out weighing the first-order sum and the interaction term by 1, as the paper's sum does.

    Args:
        field_sizes: As in `Backbone`.
        numeric: As in `Backbone`.
        embedding_dim: Length of the factors, without the first-order weight.
        hidden: As in `Backbone`.
        dropout: As in `Backbone`.
        batch_norm: As in `Backbone`.

    Raises:
        TypeError: As in `Backbone`.
        ValueError: As in `Backbone`.

    Example:
        >>> model = DeepFM({"user": 10, "item": 20}, numeric=("age",))
        >>> batch = {"user": torch.tensor([1, 2]), "item": torch.tensor([3, 3]), "age": torch.tensor([0.5, -1.0])}
        >>> model(batch).shape
        torch.Size([2])
    """

    def __init__(
        self,
        field_sizes: Mapping[str, int],
        *,
        numeric: Sequence[str] = (),
        embedding_dim: int = 16,
        hidden: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        width = 1 + check_embedding_dim(embedding_dim)
        options = {"hidden": hidden, "dropout": dropout, "batch_norm": batch_norm}
        super().__init__(field_sizes, numeric=numeric, width=width, **options)  # type: ignore[arg-type]
        self.output = nn.Linear(2 + self.mlp_width, 1)
        with torch.no_grad():
            self.output.weight[:, :2] = 1.0

    @property
    def input_width(self) -> int:
        """Numbers per field that the MLP takes: the factors alone."""
        return self.width - 1

    def logits(self, embedded: Tensor) -> Tensor:
        """Return the logits of looked-up embeddings; as in `Backbone`."""
        factors = embedded[:, :, 1:]
        features = [embedded[:, :, 0].sum(1, keepdim=True), pairwise_products(factors)[:, None]]
        features.append(self.mlp(factors.flatten(1)))
        output: Tensor = self.output(torch.cat(features, 1))
        return output[:, 0]


class DCNv2(Backbone):
    """DCNv2 in its parallel form: cross layers and an MLP over the same embeddings, joined by the last Linear.

    Wang et al. 2021, arXiv 2008.13535, Eq. 2 with full-rank matrices. Same as the paper.

    Args:
        field_sizes: As in `Backbone`.
        numeric: As in `Backbone`.
        embedding_dim: Numbers per embedding.
        hidden: As in `Backbone`.
        cross_layers: Number of cross layers; n of them reach interactions of n + 1 fields.
        dropout: As in `Backbone`.
        batch_norm: As in `Backbone`.

    Raises:
        TypeError: As in `Backbone`.
        ValueError: As in `Backbone`.
    """

    def __init__(
        self,
        field_sizes: Mapping[str, int],
        *,
        numeric: Sequence[str] = (),
        embedding_dim: int = 16,
        hidden: Sequence[int] = (64, 32),
        cross_layers: int = 3,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        width = check_embedding_dim(embedding_dim)
        layers = check_integer("cross_layers", cross_layers, "Pass 3, as in the BARS settings.", minimum=1)
        options = {"hidden": hidden, "dropout": dropout, "batch_norm": batch_norm}
        super().__init__(field_sizes, numeric=numeric, width=width, **options)  # type: ignore[arg-type]
        inputs = self.n_fields * width
        self.cross = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(layers))
        self.output = nn.Linear(inputs + self.mlp_width, 1)

    def logits(self, embedded: Tensor) -> Tensor:
        """Return the logits of looked-up embeddings; as in `Backbone`."""
        first = embedded.flatten(1)
        crossed = first
        for layer in self.cross:
            crossed = first * layer(crossed) + crossed
        output: Tensor = self.output(torch.cat([crossed, self.mlp(first)], 1))
        return output[:, 0]


def pairwise_products(factors: Tensor) -> Tensor:
    """Sum the inner products of all pairs of fields, in time linear in their number.

    Second term of Eq. 2 of Guo et al. 2017, by the identity of Rendle, ICDM 2010.

    Args:
        factors: One vector per field. Shape (B, F, E).

    Returns:
        The sums. Shape (B,).

    Example:
        >>> pairwise_products(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])).item()  # 11 + 17 + 39
        67.0
    """
    return 0.5 * (factors.sum(1).square() - factors.square().sum(1)).sum(1)


def _mlp(n_inputs: int, hidden: Sequence[int], dropout: float, batch_norm: bool) -> nn.Sequential:
    remedy = "Pass 0.1 to switch off a tenth of the units."
    if check_share("dropout", dropout, remedy) == 1:
        raise ValueError(problem("dropout", "a number in [0, 1)", dropout, remedy))
    check_flag("batch_norm", batch_norm, "Pass True to normalise hidden layers over the batch.")
    layers: list[nn.Module] = []
    for n_outputs in hidden:
        width = check_integer("hidden", n_outputs, "Pass the widths of the layers, such as (64, 32).", minimum=1)
        layers.append(nn.Linear(n_inputs, width))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU())
        if dropout:
            layers.append(nn.Dropout(dropout))
        n_inputs = width
    return nn.Sequential(*layers) if layers else _NoFeatures()


class _NoFeatures(nn.Sequential):
    """An MLP without layers: no features."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, :0]
