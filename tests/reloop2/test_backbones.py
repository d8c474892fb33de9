"""DeepFM and DCNv2 against loops in NumPy, float64; gradients against finite differences; and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_adapt.reloop2.models.backbones import EMBEDDING_STD, DCNv2, DeepFM, pairwise_products
from lightning_adapt.reloop2.models.fields import fields_of_weights

SIZES = {"user": 7, "item": 5, "ad.type": 3}
NUMERIC = ("price", "age")


def batch(rows: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    ids = {field: torch.randint(size, (rows,), generator=random) for field, size in SIZES.items()}
    numbers = {field: torch.randn(rows, generator=random, dtype=torch.float64) for field in NUMERIC}
    return {**ids, **numbers, "label": torch.ones(rows)}


def with_weights(model: nn.Module, seed: int = 1) -> nn.Module:
    """Weights of size 1 in float64: with the initial ones most of the model could be missing unseen."""
    random = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return model.eval()


def embedded(model: nn.Module, rows: dict[str, torch.Tensor]) -> list[list[np.ndarray]]:
    """Per row, one vector per field."""
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    tables = {field: weights[f"embeddings.field_{field.replace('.', '%2E')}.weight"] for field in SIZES}
    result = []
    for row in range(len(rows["label"])):
        vectors = [tables[field][int(rows[field][row])] for field in sorted(SIZES)]
        vectors += [float(rows[field][row]) * weights[f"numeric_vectors.field_{field}"] for field in sorted(NUMERIC)]
        result.append(vectors)
    return result


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()


def mlp(model: nn.Module, x: np.ndarray) -> np.ndarray:
    for layer in model.mlp:
        if isinstance(layer, nn.Linear):
            x = np.maximum(linear(layer, x), 0)
    return x


@pytest.mark.parametrize("hidden", [(8, 4), (5,), ()])
def test_deepfm_is_the_papers_sum(hidden):
    model, rows = with_weights(DeepFM(SIZES, numeric=NUMERIC, embedding_dim=3, hidden=hidden)), batch()
    for row, vectors in enumerate(embedded(model, rows)):
        first = sum(vector[0] for vector in vectors)
        factors = [vector[1:] for vector in vectors]
        second = sum(factors[i] @ factors[j] for i in range(len(factors)) for j in range(i + 1, len(factors)))
        deep = mlp(model, np.concatenate(factors)) if hidden else np.zeros(0)
        expected = linear(model.output, np.concatenate([[first, second], deep]))[0]
        assert model(rows)[row].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("hidden", [(8, 4), ()])
def test_dcnv2_is_the_papers_recursion(layers, hidden):
    model = with_weights(DCNv2(SIZES, numeric=NUMERIC, embedding_dim=3, hidden=hidden, cross_layers=layers))
    rows = batch()
    for row, vectors in enumerate(embedded(model, rows)):
        first = np.concatenate(vectors)
        crossed = first
        for layer in model.cross:
            crossed = first * linear(layer, crossed) + crossed
        deep = mlp(model, first) if hidden else np.zeros(0)
        expected = linear(model.output, np.concatenate([crossed, deep]))[0]
        assert model(rows)[row].item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kind", [DeepFM, DCNv2])
def test_the_order_in_which_fields_are_named_does_not_matter(kind):
    model = with_weights(kind(SIZES, numeric=NUMERIC))
    other = kind(dict(reversed(SIZES.items())), numeric=NUMERIC[::-1]).double().eval()
    other.load_state_dict(dict(sorted(model.state_dict().items())))
    assert torch.equal(other(batch()), model(batch()))


def test_fields_can_be_read_off_the_weights():
    sizes = {"a.b": 2, "a_b": 3, "a%2Eb": 4, "field_.weight": 5, "type": 6}
    model = DeepFM(sizes, numeric=("items", "x.y"))
    assert fields_of_weights(model.state_dict()) == (dict(sorted(sizes.items())), ["items", "x.y"])
    outer = nn.ModuleDict({"net": model, "other": nn.Embedding(7, 2)})
    assert fields_of_weights(outer.state_dict(), "net.") == (dict(sorted(sizes.items())), ["items", "x.y"])
    assert fields_of_weights(outer.state_dict()) == ({}, [])


def test_the_first_weights_sum_the_parts_of_deepfm():
    model = DeepFM(SIZES, hidden=(4,))
    assert model.output.weight[0, :2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("fields", [1, 2, 5])
def test_pairwise_products_and_their_gradient(fields):
    factors = torch.randn(4, fields, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pairs = [(i, j) for i in range(fields) for j in range(i + 1, fields)]
    expected = sum(((factors[:, i] * factors[:, j]).sum(1) for i, j in pairs), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(pairwise_products(factors), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(pairwise_products, factors.requires_grad_())


@pytest.mark.parametrize("kind", [DeepFM, DCNv2])
def test_gradients_of_all_weights_match_finite_differences(kind):
    model, rows = with_weights(kind(SIZES, numeric=NUMERIC, embedding_dim=2, hidden=(3,))), batch(4)
    model(rows).sin().sum().backward()
    step = 1e-6
    for name, parameter in model.named_parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for place in range(0, flat.numel(), max(1, flat.numel() // 7)):
            ends = []
            for sign in (1, -1):
                flat[place] += sign * step
                ends.append(model(rows).sin().sum().item())
                flat[place] -= sign * step
            slope = (ends[0] - ends[1]) / (2 * step)
            assert gradient[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("kind", [DeepFM, DCNv2])
def test_the_last_linear_is_the_whole_logit(kind):
    model, rows = kind(SIZES, numeric=NUMERIC), batch()
    outputs = []
    model.output.register_forward_hook(lambda *arguments: outputs.append(arguments[-1]))
    logits = model.float()(rows)
    assert model.output.out_features == 1
    assert [module for module in model.modules() if isinstance(module, nn.Linear)][-1] is model.output
    assert torch.equal(outputs[0][:, 0], logits)


@pytest.mark.parametrize("kind", [DeepFM, DCNv2])
def test_untrained_rows_add_next_to_nothing(kind):
    model = kind({"user": 5000}, embedding_dim=16)
    weight = model.embeddings["field_user"].weight
    assert weight.std().item() == pytest.approx(EMBEDDING_STD, rel=0.05)
    logits = model({"user": torch.arange(5000)})
    assert logits.std().item() < 1e-3


def test_dropout_and_batch_norm_are_where_they_should_be():
    model = DCNv2(SIZES, hidden=(8, 4), dropout=0.5, batch_norm=True)
    kinds = [type(layer).__name__ for layer in model.mlp]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2
    rows = batch(200)
    assert not torch.equal(model(rows), model(rows))
    model.eval()
    assert torch.equal(model(rows), model(rows))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"field_sizes": {}}, "at least one field"),
        ({"field_sizes": {"a": 2}, "numeric": ("a",)}, "all names distinct"),
        ({"field_sizes": {"a": 0}}, ">= 1"),
        ({"field_sizes": {"a": 2}, "embedding_dim": 0}, "embedding_dim"),
        ({"field_sizes": {"a": 2}, "hidden": (4, 0)}, "hidden"),
        ({"field_sizes": {"a": 2}, "dropout": 1.0}, "dropout"),
    ],
)
@pytest.mark.parametrize("kind", [DeepFM, DCNv2])
def test_values_out_of_range_are_refused(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        kind(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"field_sizes": ["a"]},
        {"field_sizes": {"a": 2.5}},
        {"field_sizes": {"a": 2}, "numeric": "age"},
        {"field_sizes": {"a": 2}, "batch_norm": 1},
        {"field_sizes": {"a": 2}, "dropout": "a lot"},
    ],
)
def test_wrong_types_are_refused(arguments):
    with pytest.raises(TypeError, match="must be"):
        DeepFM(**arguments)


def test_cross_layers_must_be_there():
    with pytest.raises(ValueError, match="cross_layers"):
        DCNv2({"a": 2}, cross_layers=0)


def test_bad_batches_say_what_is_wrong():
    model = DeepFM(SIZES)
    with pytest.raises(ValueError, match=r"field 'ad\.type'"):
        model({"user": torch.tensor([1])})
    rows = {**batch(), "item": torch.tensor([0, 1, 2, 3, 4, 5])}
    with pytest.raises(ValueError, match="`item` must be whole numbers from 0 to 4, but got 'ids from 0 to 5'"):
        model(rows)
