"""What is found in modules that other people wrote: outputs, embeddings, id fields, keys."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lightning_adapt.reloop2.capture import (
    ForwardCapture,
    find_module,
    find_output_module,
    flat_keys,
    warn_of_other_outputs,
)


class Tables(nn.Module):
    """Five ways to look ids up."""

    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Embedding(10, 3), nn.Embedding(20, 3)
        self.fields = nn.Embedding(30, 2)  # one table for three fields, with offsets
        self.bag = nn.EmbeddingBag(20, 4)
        self.out = nn.Linear(3 + 3 + 6 + 4 + 3, 1)

    def forward(self, batch):
        history = self.item(batch["history"]).mean(1)
        parts = [self.user(batch["user"]), self.item(batch["item"]), self.fields(batch["fields"]).flatten(1)]
        return self.out(torch.cat([*parts, self.bag(batch["tags"]), history], 1))


def batch(n=8):
    draws = torch.Generator().manual_seed(0)
    return {
        "user": torch.randint(10, (n,), generator=draws),
        "item": torch.randint(20, (n,), generator=draws),
        "fields": torch.randint(10, (n, 3), generator=draws) + torch.tensor([0, 10, 20]),
        "tags": torch.randint(20, (n, 5), generator=draws),
        "history": torch.randint(20, (n, 4), generator=draws),
    }


def captured(model, rows, key=None, key_from="input", **options):
    capture = ForwardCapture(model, key, key_from, **{"embeddings": True, **options})
    capture.attach()
    with torch.no_grad():
        model(rows)
    return capture


def test_fields_are_found_by_the_shape_of_their_ids():
    rows = batch()
    fields = captured(Tables(), rows).fields(8)
    assert set(fields) == {"user", "item#2", "fields[0]", "fields[1]", "fields[2]"}
    assert torch.equal(fields["user"], rows["user"])
    assert torch.equal(fields["item#2"], rows["item"])
    assert torch.equal(fields["fields[1]"], rows["fields"][:, 1])


def test_embeddings_stand_side_by_side_and_lists_as_their_mean():
    model, rows = Tables(), batch()
    capture = captured(model, rows)
    capture.fields(8)
    found = capture.embeddings(8)
    assert found.shape == (8, 3 + 3 + 3 + 3 * 2 + 4)
    history = model.item(rows["history"]).mean(1)
    assert any(torch.allclose(found[:, start : start + 3], history) for start in range(found.shape[1] - 2))


def test_what_columns_mean_is_decided_once():
    model, rows = Tables(), batch()
    capture = captured(model, rows)
    names = set(capture.fields(8))
    capture.clear()
    with torch.no_grad():
        model({**rows, "history": torch.tensor([[0, 5, 10, 15]] * 8)})  # now apart by chance
    assert set(capture.fields(8)) == names


def run_again(capture, model, rows):
    capture.clear()
    with torch.no_grad():
        model(rows)


def test_a_second_pass_over_a_batch_writes_over_the_first_and_keeps_what_it_does_not_look_up():
    model, rows = Tables(), batch()
    capture = captured(model, rows)
    names = set(capture.fields(8))
    capture.end_pass()
    with torch.no_grad():
        model.item(rows["history"])
        model.item(rows["item"].flip(0))
    assert set(capture.fields(8)) == names
    assert torch.equal(capture.fields(8)["item#2"], rows["item"].flip(0))
    assert torch.equal(capture.fields(8)["user"], rows["user"])


class Lists(nn.Module):
    """Positions that are no row's own, a padded history, a bag with offsets."""

    def __init__(self):
        super().__init__()
        self.position, self.history = nn.Embedding(50, 3), nn.Embedding(20, 3, padding_idx=0)
        self.bag, self.embeddings = nn.EmbeddingBag(20, 4), nn.Embedding(9, 2)

    def forward(self, rows):
        self.position(torch.arange(20)), self.history(rows["history"]), self.embeddings(rows["user"])
        self.bag(rows["flat"], rows["offsets"])


def lists(n, length):
    history = torch.arange(n * length).remainder(19).reshape(n, length) + 1
    user = torch.arange(n) % 9
    return {"history": history, "user": user, "flat": torch.arange(n), "offsets": torch.arange(n)}


@pytest.mark.parametrize("lengths", [(5, 1, 0), (1, 7, 2)])
def test_what_a_table_is_does_not_change_from_batch_to_batch(lengths):
    model = Lists()
    capture = captured(model, lists(16, lengths[0]))
    found = (set(capture.fields(16)), capture.embeddings(16).shape[1])
    assert found == ({"embeddings table"}, 3 + 4 + 2)
    for n, length in ((16, lengths[1]), (20, lengths[2]), (1, 2)):  # 20 rows, as there are positions
        run_again(capture, model, lists(n, length))
        assert (set(capture.fields(n)), capture.embeddings(n).shape) == (found[0], (n, found[1]))
        assert bool(torch.isfinite(capture.embeddings(n)).all())


@pytest.mark.parametrize("n", [1, 7])
def test_a_first_batch_too_small_to_tell_fields_from_a_list_is_warned_of_once(n):
    model = nn.ModuleDict({"fields": nn.Embedding(30, 2)})
    capture = ForwardCapture(model, None, "input", embeddings=True)
    capture.attach()
    for rows, fault in (
        (n, pytest.warns(UserWarning, match=f"{n} rows in the first .* 3 ids .* 'fields' are fields")),
        (8, nullcontext()),
    ):
        capture.clear()
        with torch.no_grad(), fault:
            model["fields"](batch(rows)["fields"])
            assert (capture.fields(rows), capture.embeddings(rows).shape) == ({}, (rows, 2))


def test_few_rows_tell_a_list_whose_columns_share_rows_of_the_table():
    model = nn.ModuleDict({"history": nn.Embedding(20, 2)})
    capture = ForwardCapture(model, None, "input", embeddings=True)
    capture.attach()
    with torch.no_grad():
        model["history"](torch.tensor([[1, 5], [5, 1]]))
    assert capture.fields(2) == {}


def test_a_table_that_was_a_field_and_is_none_any_more_is_explained():
    model = nn.ModuleDict({"user": nn.Embedding(9, 2)})
    capture = ForwardCapture(model, None, "input", embeddings=True)
    capture.attach()
    with torch.no_grad():
        model["user"](torch.arange(8))
        capture.fields(8)
        capture.clear()
        model["user"](torch.arange(5))
    allowed = "`batch` must be a batch in which the table 'user' is asked for 8 rows"
    with pytest.raises(ValueError, match=rf"{allowed}.*memory=ErrorMemory\(\), which leaves tables alone"):
        capture.fields(8)


def test_passes_with_gradients_are_not_noted():
    model = Tables()
    capture = ForwardCapture(model, model.out, "input", embeddings=True)
    capture.attach()
    model(batch())
    assert capture.fields(8) == {}
    assert capture.embeddings(8) is None
    assert capture.key is None


@pytest.mark.parametrize(("key_from", "width"), [("input", 19), ("output", 1)])
def test_keys_from_either_side(key_from, width):
    model = Tables()
    key = captured(model, batch(), model.out, key_from).key
    assert key.shape == (8, width)
    assert not key.requires_grad


def test_detaching_leaves_no_hook():
    model = Tables()
    capture = captured(model, batch(), model.out)
    capture.detach()
    assert not any(part._forward_hooks for part in model.modules())
    assert capture.key is None


def test_names_are_short_where_they_can_be():
    model = nn.ModuleDict({"left": nn.ModuleDict({"user": nn.Embedding(3, 2)}), "user": nn.Embedding(3, 2)})
    model["item"] = nn.Embedding(3, 2)
    assert set(ForwardCapture(model, None, "input", embeddings=True).tables) == {"left.user", "user", "item"}


def test_the_last_linear_with_one_output_is_the_output():
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 4), nn.Linear(4, 1), nn.Sigmoid())
    assert find_output_module(model)[0] == "2"
    with pytest.warns(UserWarning, match=r"The output of '2' is corrected; there are also \['0'\]"):
        warn_of_other_outputs(model)
    with pytest.raises(ValueError, match=r"`output_module` must be given where the model has no Linear"):
        find_output_module(nn.Linear(3, 2))


def test_parts_by_name_or_object():
    model = Tables()
    assert find_module(model, "bag", "key_module") is model.bag
    assert find_module(model, model.bag, "key_module") is model.bag
    with pytest.raises(ValueError, match="`key_module` must be the name of a submodule, one of"):
        find_module(model, "bags", "key_module")
    with pytest.raises(ValueError, match="`key_module` must be a part of the module that is run"):
        find_module(model, nn.Linear(1, 1), "key_module")


def test_keys_are_one_vector_per_row():
    assert flat_keys(torch.ones(4, 2, 3), 4).shape == (4, 6)
    with pytest.raises(ValueError, match="`key_module` must be a module that sees 4 rows"):
        flat_keys(torch.ones(8, 3), 4)
