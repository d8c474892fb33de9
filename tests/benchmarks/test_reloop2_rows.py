"""What the accuracy benchmarks of the error memory share: every row is what it says, and all are served alike."""

import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from lightning_adapt import AdaptiveErrorMemory, ErrorMemory, IncrementalTraining
from tests.benchmarks.reloop2_parts import small_log

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("_reloop2_rows")
    for path in BENCHMARKS.glob("*[a-z].py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def log():
    return small_log("abrupt")


@pytest.fixture(scope="module")
def trained(rows, log):
    known = log.seen_in_training("item_id")
    with rows.h.bench_settings(1):
        yield rows.Stream(log, 0, parts={"known items": known, "new items": ~known})


@pytest.fixture
def stream(trained):
    """The trained model on its stream; what a test changes is its own."""
    own = copy.copy(trained)
    own.rows, own._estimates = dict(trained.rows), {}
    return own


def test_what_is_served_is_the_model_on_the_rows_of_the_stream(rows, stream, log):
    part = log.table.rows(log.table.part("test"))
    with torch.no_grad():
        expected = stream.model(part).sigmoid()
    torch.testing.assert_close(stream.base, expected, rtol=0, atol=1e-6)
    assert torch.equal(stream.rows["index"], part["index"])
    own = [batch["index"] for batch in log.test_dataloader()]  # the batches are those of the DataModule's loader
    assert [len(batch["label"]) for batch in rows.batches(stream.rows, stream.batch)] == [len(index) for index in own]


def test_a_lambda_worked_out_from_one_pass_is_that_of_a_run_of_its_own(rows, stream):
    served = stream.serve_with(ErrorMemory(backend="sketch", lam=0.7))
    noted = ErrorMemory(lam=0.7).correct(stream.base, stream.estimates("sketch"), "probability")
    torch.testing.assert_close(noted, served, rtol=0, atol=2e-6)
    assert rows.fixed("sketch", 0.7)(stream)["slot AUC"] == pytest.approx(stream.measure(served)["slot AUC"], abs=0.02)
    assert (served - stream.base).abs().max() > 0.01


def test_no_row_leaves_a_trace_in_the_base_model(rows, stream):
    before = {name: value.clone() for name, value in stream.model.state_dict().items()}
    trained = stream.serve(IncrementalTraining(1e-2))
    assert not torch.equal(trained, stream.base)
    rows.both(1e-2)(stream)
    assert torch.equal(stream.serve(), stream.base)
    assert all(torch.equal(value, before[name]) for name, value in stream.model.state_dict().items())


def test_a_memory_is_whitened_by_training_rows_and_knows_no_label_of_them(stream):
    memory = ErrorMemory(backend="sketch")
    served = stream.serve_with(memory)
    assert torch.equal(served[: stream.batch], stream.base[: stream.batch])
    assert memory.n_written == len(stream.base)
    keys = []
    with torch.no_grad():
        hook = stream.model.network.output.register_forward_pre_hook(lambda _, args: keys.append(args[0]))
        stream.model(stream.before)
        hook.remove()
    by_hand = ErrorMemory(backend="sketch")
    by_hand.calibrate(keys[0])
    by_hand.write(keys[0][:1], torch.ones(1), torch.ones(1))  # from here on the statistics are fixed
    ours, theirs = (each.key_space(keys[0][:300]) for each in (memory, by_hand))
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, rtol=0, atol=0.01)  # axes may point the other way


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_tables_against_a_loop_over_rows(rows, stream, delay):
    n_rows = 1250
    stream.base, stream.rows = stream.base[:n_rows], {name: value[:n_rows] for name, value in stream.rows.items()}
    fields = [stream.rows["category"], stream.rows["user_id"]]
    residual = (stream.rows["label"] - stream.base).double()
    expected = stream.base.double().clone()
    for row in range(n_rows):
        n_written = max(row // 100 - delay, 0) * 100
        batch_end = (torch.arange(n_written) // 100 + 1) * 100
        fading = 0.5 ** ((n_written - batch_end) / rows.HALF_LIFE)  # by the rows of later batches
        for field in fields:
            weight = fading * (field[:n_written] == field[row])
            expected[row] += (weight * residual[:n_written]).sum() / (weight.sum() + rows.PRIOR_ROWS)
    served = rows.with_tables(stream, fields, delay)
    torch.testing.assert_close(served.double(), expected.clamp(1e-6, 1 - 1e-6), rtol=0, atol=1e-5)


@pytest.mark.parametrize("delay", [0, 1])
def test_no_row_knows_a_label_before_its_time(rows, stream, delay):
    changed = stream.shuffled()
    first = 1000
    changed.rows["label"] = torch.where(
        stream.rows["index"] < stream.rows["index"][first], stream.rows["label"], changed.rows["label"]
    )
    ways = {
        "tables": lambda each: rows.with_tables(each, [each.rows["category"]], delay),
        "adaptive": lambda each: each.serve_with(AdaptiveErrorMemory(), delay=delay),
        "incremental": lambda each: each.serve(IncrementalTraining(1e-2, delay=delay)),
    }
    if not delay:
        ways["knn"] = lambda each: each.estimates("knn")[:, 0]
    until = first + stream.batch * (1 + delay)
    for way in ways.values():
        ours, theirs = way(stream), way(changed)
        assert torch.equal(ours[:until], theirs[:until])
        assert not torch.equal(ours[until : until + stream.batch], theirs[until : until + stream.batch])


def test_shuffled_labels_are_the_same_labels_elsewhere(stream):
    stream.estimates("sketch")
    other = stream.shuffled()
    assert other.rows["label"].sum() == stream.rows["label"].sum()
    assert not torch.equal(other.rows["label"], stream.rows["label"])
    assert torch.equal(other.rows["label"], stream.shuffled().rows["label"])
    assert torch.equal(other.base, stream.base)
    assert not torch.equal(other.estimates("sketch"), stream.estimates("sketch"))
    assert abs(other.measure(other.base)["AUC"] - 50) < 4


def test_metrics_against_scikit_learn(stream):
    run, label, base = stream.measure(stream.base), stream.rows["label"].numpy(), stream.base.double().numpy()
    by_slot = [100 * roc_auc_score(label[part], base[part]) for part in np.split(np.arange(4000), 10)]
    assert run["curve"] == pytest.approx(by_slot, abs=1e-3)
    assert run["slot AUC"] == pytest.approx(np.mean(by_slot), abs=1e-3)
    assert run["late AUC"] == pytest.approx(np.mean(by_slot[5:]), abs=1e-3)
    assert run["AUC"] == pytest.approx(100 * roc_auc_score(label, base), abs=1e-3)
    assert run["logloss"] == pytest.approx(log_loss(label, base), abs=1e-5)
    assert run["calibration"] == pytest.approx(base.sum() / label.sum(), abs=1e-4)
    new = stream.parts["new items"].numpy()
    parts = [roc_auc_score(label[part][new[part]], base[part][new[part]]) for part in np.split(np.arange(4000), 10)]
    assert run["slot AUC, new items"] == pytest.approx(100 * np.mean(parts), abs=1e-3)


def test_the_best_row_is_the_one_with_the_largest_mean(rows):
    study = rows.h.Study("any", "slot AUC", {}, rows.h.Options(True, True, None, (0, 1), "cpu", 1))
    for name, values in {"a": (1.0, 2.0), "b": (3.0, 1.0), "c": (9.0, 9.0)}.items():
        for seed, value in enumerate(values):
            study.add(name, seed, {"slot AUC": value})
    assert rows.best(study, ["a", "b", "not run"], "slot AUC") == "b"
    assert rows.best(study, ["not run"], "slot AUC") is None
