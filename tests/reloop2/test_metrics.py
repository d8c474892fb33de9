"""PrequentialMetrics against loops over scikit-learn; what it refuses; copies, resets and devices."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from lightning_adapt.reloop2.data.datamodule import PrequentialDataModule
from lightning_adapt.reloop2.metric_functions import equal_slots, grouped_auc
from lightning_adapt.reloop2.metrics import PrequentialMetrics
from tests.reloop2.metric_parts import Rows, filled, part, plain, rows


# -- the same by loops over scikit-learn ------------------------------------------------------------------------------
def auc(prediction: np.ndarray, target: np.ndarray) -> float:
    return roc_auc_score(target, prediction) if len(set(target.tolist())) == 2 else math.nan


def reference(prediction: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    p, y = prediction.double().numpy(), target.long().numpy()
    if not len(y):
        return dict.fromkeys(("auc", "logloss", "calibration"), math.nan)
    return {
        "auc": auc(p, y),
        "logloss": log_loss(y, p.clip(1e-6, 1 - 1e-6), labels=[0, 1]),
        "calibration": p.sum() / y.sum() if y.sum() else math.nan,
    }


def reference_gauc(prediction: torch.Tensor, target: torch.Tensor, group: torch.Tensor) -> float:
    total = weight = 0.0
    for user in set(group.tolist()):
        mine = group == user
        value = auc(prediction[mine].numpy(), target[mine].numpy())
        if not math.isnan(value):
            total, weight = total + value * int(mine.sum()), weight + int(mine.sum())
    return total / weight if weight else math.nan


def close(found: dict[str, torch.Tensor], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert found[name].tolist() == pytest.approx(value, abs=2e-6, nan_ok=True), name


def check(columns: Rows, metrics: PrequentialMetrics, n_slots: int) -> None:
    scalars, by_slot = {}, {}
    slots = [columns["slot"] == slot for slot in range(n_slots)]
    for prefix, name in (("", "prediction"), ("base_", "base")):
        prediction, target = columns[name], columns["target"]
        pooled = reference(prediction, target)
        each = [reference(prediction[slot], target[slot]) for slot in slots]
        aucs = [slot["auc"] for slot in each if not math.isnan(slot["auc"])]
        pooled["slot_auc"] = float(np.mean(aucs)) if aucs else math.nan
        pooled["gauc"] = reference_gauc(prediction, target, columns["group"])
        scalars |= {prefix + key: value for key, value in pooled.items()}
        by_slot |= {prefix + key: [slot[key] for slot in each] for key in each[0]}
    close(metrics.compute(), scalars)
    close(metrics.per_slot(), by_slot)


ALL = ("base", "slot", "group")


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("batch", [1, 32, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_loops_over_scikit_learn(seed, batch, ties):
    columns = rows(seed=seed, ties=ties)
    check(columns, filled(columns, *ALL, batch=batch), 4)


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.uint8, torch.float64, torch.bfloat16])
def test_labels_of_any_kind(kind):
    columns = rows()
    check(columns, filled({**columns, "target": columns["target"].to(kind)}, *ALL), 4)


def test_other_integers_and_floats_are_taken():
    columns = rows()
    narrow = {"slot": columns["slot"].to(torch.int16), "prediction": columns["prediction"].double()}
    check(columns, filled({**columns, **narrow}, *ALL), 4)
    metrics = PrequentialMetrics()
    metrics.update(torch.tensor([0.25, 0.75], dtype=torch.bfloat16), torch.tensor([0, 1]))
    assert metrics.compute()["auc"] == 1


def test_one_class_users_and_slots_are_left_out():
    columns = rows()
    for user in columns["group"].unique()[:9]:
        columns["target"][columns["group"] == user] = 0
    columns["target"][columns["slot"] == 2] = 1
    metrics = filled(columns, *ALL)
    check(columns, metrics, 4)
    assert [bool(value) for value in metrics.per_slot()["auc"].isnan()] == [False, False, True, False]


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_alone_has_no_auc_but_a_logloss(value):
    columns = {**rows(), "target": torch.full((200,), value)}
    metrics = filled(columns, *ALL)
    check(columns, metrics, 4)
    assert metrics.compute()["gauc"].isnan()
    assert metrics.compute()["calibration"].isnan() == (value == 0)


def test_one_row():
    columns = rows(1, n_slots=1)
    check(columns, filled(columns, *ALL), 1)


def test_sure_predictions_have_a_finite_logloss():
    metrics = PrequentialMetrics()
    metrics.update(torch.tensor([0.0, 1.0]), torch.tensor([1, 1]))
    assert float(metrics.compute()["logloss"]) == pytest.approx(-(math.log(1e-6) + math.log(1 - 1e-6)) / 2)


def test_all_equal_predictions_are_half_right():
    columns = {**rows(), "prediction": torch.full((200,), 0.5)}
    found = filled(columns, *ALL).compute()
    assert [float(found[name]) for name in ("auc", "slot_auc", "gauc")] == [0.5, 0.5, 0.5]


def test_many_rows_stay_exact():
    """300,000 rows of 2 values each: the rank sums are far beyond what single precision counts."""
    n = 300_000
    prediction = (torch.arange(n) % 2).float()
    target = ((torch.arange(n) % 2 == 1) ^ (torch.arange(n) % 10 == 0)).long()
    metrics = PrequentialMetrics()
    metrics.update(prediction, target)
    assert float(metrics.compute()["auc"]) == pytest.approx(roc_auc_score(target, prediction), abs=1e-6)


def test_grouped_auc_leaves_empty_groups_out():
    found = grouped_auc(torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), torch.tensor([3, 3]), 5)
    assert found.tolist() == pytest.approx([math.nan] * 3 + [1, math.nan], nan_ok=True)
    assert grouped_auc(torch.empty(0), torch.empty(0), torch.empty(0, dtype=torch.int64), 0).shape == (0,)


# -- slots ------------------------------------------------------------------------------------------------------------
def test_slots_that_never_came_are_nan():
    columns = rows()
    columns["slot"] = columns["slot"] * 2  # 0, 2, 4, 6
    check(columns, filled(columns, *ALL), 7)
    check(columns, filled(columns, *ALL, n_slots=9), 9)


def test_rows_before_the_stream_count_in_no_slot():
    columns = rows()
    columns["slot"] = columns["slot"] - 1  # -1, 0, 1, 2
    check(columns, filled(columns, *ALL), 3)
    nowhere = filled({**columns, "slot": torch.full((200,), -1)}, *ALL)
    assert nowhere.compute()["slot_auc"].isnan()
    assert nowhere.per_slot()["auc"].shape == (0,)


@pytest.mark.parametrize("n_slots", [None, 1, 3, 64])
def test_without_slots_rows_are_cut_in_the_order_of_arrival(n_slots):
    columns = rows(64 + 7)
    metrics = filled(columns, "base", "group", n_slots=n_slots)
    edges = [i * 71 // (n_slots or 10) for i in range((n_slots or 10) + 1)]
    columns["slot"] = torch.cat([torch.full((b - a,), i) for i, (a, b) in enumerate(pairwise(edges))])
    check(columns, metrics, n_slots or 10)


def test_the_slots_are_those_of_the_data_module():
    table = {"time": np.arange(100), "click": np.arange(100) % 2, "user": np.arange(100) % 9}
    data = PrequentialDataModule(table, time="time", label="click", fields=["user"], train_share=0.5, slots=7)
    slot = torch.cat([batch["slot"] for batch in data.test_dataloader()])
    assert equal_slots(50, 7).tolist() == slot.tolist()


def test_rows_may_be_fewer_than_slots():
    assert equal_slots(3, 10).tolist() == [3, 6, 9]
    assert filled(rows(3)).per_slot()["auc"].isnan().all()


def test_index_gives_the_order_and_counts_a_row_once():
    columns = rows(90)
    shuffled = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    again = torch.cat([shuffled, shuffled[:25]])
    expected = filled(columns, "base", "group", n_slots=3)
    found = filled(part(columns, again), "base", "group", "index", n_slots=3)
    close(found.compute(), {name: float(value) for name, value in expected.compute().items()})
    close(found.per_slot(), {name: value.tolist() for name, value in expected.per_slot().items()})
    double = filled(part(columns, again), "base", "group", n_slots=3).compute()
    assert double["logloss"] != expected.compute()["logloss"]


# -- what is left out --------------------------------------------------------------------------------------------------
def test_without_base_and_group():
    metrics = filled(rows())
    assert set(metrics.compute()) == {"auc", "slot_auc", "gauc", "logloss", "calibration"}
    assert metrics.compute()["gauc"].isnan()
    assert not metrics.compute()["slot_auc"].isnan()
    assert set(metrics.per_slot()) == {"auc", "logloss", "calibration"}


def test_without_rows_everything_is_nan():
    metrics = PrequentialMetrics(n_slots=3)
    with pytest.warns(UserWarning, match="before the ``update`` method"):  # torchmetrics' own
        assert all(value.isnan() for value in metrics.compute().values())
    assert all(value.shape == (3,) and value.isnan().all() for value in metrics.per_slot().values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.update(torch.empty(0), torch.empty(0, dtype=torch.int64))
        assert all(value.isnan() for value in metrics.compute().values())
    metrics = PrequentialMetrics()
    metrics.update(torch.empty(0), torch.empty(0), slot=torch.empty(0, dtype=torch.int64))
    assert metrics.per_slot()["auc"].shape == (10,)


def test_empty_batches_change_nothing():
    columns = rows()
    metrics = filled(columns, *ALL)
    metrics.update(torch.empty(0), torch.empty(0))  # without the optional columns: there is nothing to compare
    check(columns, metrics, 4)


# -- what is refused ---------------------------------------------------------------------------------------------------
GOOD: dict[str, Any] = {"prediction": torch.tensor([0.2, 0.4]), "target": torch.tensor([0, 1])}
BAD = {
    "nan": ({"prediction": torch.tensor([0.2, math.nan])}, ValueError, r"`prediction` must be probabilities .*got nan"),
    "logits": ({"prediction": torch.tensor([0.2, 1.2])}, ValueError, r"got 1\.2.*\. Pass logits through \.sigmoid"),
    "negative": ({"base": torch.tensor([0.2, -0.5])}, ValueError, r"`base` must be probabilities .*got -0\.5"),
    "base shape": ({"base": torch.tensor([0.2])}, ValueError, r"`base` must be of shape \(2,\), as `prediction`"),
    "column": ({"prediction": torch.tensor([[0.2], [0.4]])}, ValueError, r"`prediction` must be of shape \(B,\).*flat"),
    "scalar": ({"prediction": torch.tensor(0.2)}, ValueError, r"`prediction` must be of shape \(B,\)"),
    "integers": ({"prediction": torch.tensor([0, 1])}, TypeError, "`prediction` must be of a float dtype"),
    "list": ({"prediction": [0.2, 0.4]}, TypeError, "`prediction` must be a tensor"),
    "ratings": ({"target": torch.tensor([1, 4])}, ValueError, "`target` must be 0 or 1, but got 4"),
    "soft": ({"target": torch.tensor([0.0, 0.5])}, ValueError, r"`target` must be 0 or 1, but got 0\.5"),
    "target nan": ({"target": torch.tensor([0.0, math.nan])}, ValueError, "`target` must be 0 or 1, but got nan"),
    "target shape": ({"target": torch.tensor([0, 1, 1])}, ValueError, r"`target` must be of shape \(2,\)"),
    "float slot": ({"slot": torch.tensor([0.0, 1.0])}, TypeError, "`slot` must be of an integer dtype"),
    "bool user": ({"group": torch.tensor([True, False])}, TypeError, "`group` must be of an integer dtype"),
    "names": ({"group": ["a", "b"]}, TypeError, "`group` must be a tensor"),
    "times": (
        {"slot": torch.tensor([0, 1_700_000_000])},
        ValueError,
        "`slot` must be below 1000000, but got 1700000000",
    ),
    "index shape": ({"index": torch.tensor([0])}, ValueError, r"`index` must be of shape \(2,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_and_not_counted(case):
    change, error, match = BAD[case]
    metrics = PrequentialMetrics()
    with pytest.raises(error, match=match):
        metrics.update(**{**GOOD, **change})
    metrics.update(**GOOD)
    assert metrics.compute()["auc"] == 1


def test_slots_beyond_the_number_asked_for_are_refused():
    with pytest.raises(ValueError, match=r"`slot` must be below 2, but got 2\. Raise `n_slots`"):
        PrequentialMetrics(n_slots=2).update(**GOOD, slot=torch.tensor([0, 2]))


@pytest.mark.parametrize("name", ["base", "slot", "group", "index"])
def test_a_column_comes_with_every_batch_or_with_none(name):
    column = {name: torch.tensor([0.5, 0.5]) if name == "base" else torch.tensor([0, 1])}
    metrics = PrequentialMetrics()
    metrics.update(**GOOD)
    with pytest.raises(ValueError, match=f"`{name}` must be left out, as it was before.*every batch, or with none"):
        metrics.update(**GOOD, **column)
    metrics = PrequentialMetrics()
    metrics.update(**GOOD, **column)
    with pytest.raises(ValueError, match=f"`{name}` must be given, as it was before, but got None"):
        metrics.update(**GOOD)


@pytest.mark.parametrize("n_slots", [0, -1, 2.5, True, "3"])
def test_n_slots_is_checked(n_slots):
    with pytest.raises((TypeError, ValueError), match="`n_slots` must be a whole number >= 1"):
        PrequentialMetrics(n_slots=n_slots)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `slots`"):
        PrequentialMetrics(slots=3)


# -- the life of a metric ----------------------------------------------------------------------------------------------
def test_later_changes_of_the_callers_tensors_do_not_matter():
    columns = rows()
    metrics = PrequentialMetrics()
    mine = {name: values.clone() for name, values in columns.items() if name != "index"}
    metrics.update(**mine)
    for values in mine.values():
        values.zero_()
    check(columns, metrics, 4)


def test_no_gradient_is_kept():
    weight = torch.tensor([0.2, 0.4], requires_grad=True)
    metrics = PrequentialMetrics()
    metrics(weight * 1, torch.tensor([0, 1]))
    assert not metrics.compute()["logloss"].requires_grad
    assert metrics.prediction[0].grad_fn is None


def test_reset_starts_anew_also_with_other_columns():
    columns, other = rows(seed=3), rows(seed=4)
    metrics = filled(columns, *ALL)
    metrics.compute()
    metrics.reset()
    metrics.update(other["prediction"], other["target"])
    assert plain(metrics.compute()) == plain(filled(other).compute())


@pytest.mark.parametrize("names", [ALL, (), ("index", "group")])
def test_forward_gives_the_batch_and_counts_on(names):
    columns = rows()
    chosen = {name: columns[name] for name in ("prediction", "target", *names)}
    metrics = PrequentialMetrics(n_slots=4)
    for start in range(0, 200, 50):
        batch = part(chosen, slice(start, start + 50))
        alone = PrequentialMetrics(n_slots=4)
        alone.update(**batch)
        assert plain(metrics(**batch)) == plain(alone.compute())
    assert plain(metrics.compute()) == plain(filled(columns, *names, n_slots=4).compute())
    assert plain(metrics.per_slot()) == plain(filled(columns, *names, n_slots=4).per_slot())


def test_copies_go_on_where_it_was():
    columns = rows()
    metrics = filled(part(columns, slice(0, 100)), *ALL)
    saved = io.BytesIO()
    torch.save(metrics, saved)
    saved.seek(0)
    copies = [copy.deepcopy(metrics), pickle.loads(pickle.dumps(metrics)), torch.load(saved, weights_only=False)]
    for each in (*copies, metrics):
        each.update(**part({name: columns[name] for name in columns if name != "index"}, slice(100, 200)))
        check(columns, each, 4)


def test_states_made_in_inference_mode_can_be_used_outside():
    columns = rows()
    with torch.inference_mode():
        metrics = filled(columns, *ALL)
    copied = copy.deepcopy(metrics)
    check(columns, copied, 4)
    assert plain(metrics.per_slot()) == plain(copied.per_slot())


def test_states_follow_the_metric_to_a_device():
    metrics = PrequentialMetrics().to("meta")  # stands for a device that is not the rows'
    metrics.update(**GOOD)
    assert {values.device.type for values in metrics.prediction} == {"meta"}
    columns = rows()
    on_cpu = filled(columns, *ALL, compute_on_cpu=True)
    check(columns, on_cpu, 4)


def test_another_dtype_of_the_metric_keeps_its_slots():
    columns = rows()
    metrics = filled(part(columns, slice(0, 100)), "slot", "base").set_dtype(torch.float64)
    metrics.update(**part({name: columns[name] for name in ("prediction", "target", "slot", "base")}, slice(100, 200)))
    assert plain(metrics.per_slot()) == plain(filled(columns, "slot", "base").per_slot())
