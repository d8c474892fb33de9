"""The predictor serves what the callback would, keeps ids apart, bounds what waits, and comes back as it was saved."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory
from lightning_adapt.reloop2.callback import ErrorMemoryCallback
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor, FeedbackResult
from tests.foreign import trainer
from tests.foreign_clicks import ForeignClicks, click_stream
from tests.reloop2.predictor_parts import MEMORIES, Clicks, calls, do, predictor, rows

every_memory = pytest.mark.parametrize("memory", MEMORIES)


# -- what is served ----------------------------------------------------------------------------------------------------
@every_memory
def test_without_feedback_it_is_the_base_model_bit_by_bit(memory):
    one = predictor(memory)
    batch = rows(10)
    with torch.inference_mode():
        base = torch.sigmoid(one.module(batch))
    assert torch.equal(one.predict(batch, range(10)), base)


@every_memory
def test_feedback_changes_the_next_prediction_towards_the_labels(memory):
    one, batch = predictor(memory), rows(16, seed=1)
    before = one.predict(batch, range(16))
    for _ in range(20):
        one.feedback(range(16), torch.ones(16))
        after = one.predict(batch, range(16))
    assert bool((after > before).all())


@pytest.mark.parametrize("memory", [AdaptiveErrorMemory, lambda: ErrorMemory(k=3)], ids=["adaptive", "knn"])
def test_it_serves_what_the_callback_serves(memory, tmp_path):
    stream = list(click_stream(8, 40))
    module, learnt = ForeignClicks(), memory()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*whitened by the statistics of the first.*")  # by the callback
        runner = trainer(tmp_path, [ErrorMemoryCallback(learnt)])
        runner.test(module, DataLoader(stream, batch_size=None), verbose=False)
        one = ErrorMemoryPredictor(module, memory(), forward=lambda module, batch: module.net(batch))
        for batch, (_, logits) in zip(stream, module.tested, strict=True):
            served = one.predict(batch, batch["index"])
            assert torch.equal(served, torch.tensor(logits).sigmoid())
            one.feedback(batch["index"], batch["label"])
    for name, value in learnt.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, one.memory.state_dict()[name]), name


def test_late_labels_are_learnt_with_what_was_known_when_they_were_served():
    one, reference, batch = predictor("adaptive"), predictor("adaptive"), rows(6)
    one.predict(batch, range(6))
    then = reference._model(batch)
    for places, labels in (([0, 1, 2], [1.0, 1.0, 1.0]), ([5, 3], [0.0, 1.0])):
        one.feedback(places, labels)
        keys = {name: value[places] for name, value in then.keys.items()}
        reference.memory.write(keys, torch.tensor(labels), then.base[places], then.signals[places])
    assert torch.equal(one.predict(batch, range(20, 26)), reference.predict(batch, range(20, 26)))


def test_regression_and_probability_outputs():
    values = ErrorMemoryPredictor(Clicks(), ErrorMemory(task="regression", whiten=False, lam=1.0, support_n0=0.0))
    batch = rows(4)
    first = values.predict(batch, range(4))
    assert torch.equal(first, values.module.eval()(batch).detach())
    values.feedback(range(4), [30.0, 30.0, 30.0, 30.0])
    assert bool((values.predict(batch, range(4)) > 5).all())

    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.clicks, self.sigmoid = Clicks(), nn.Sigmoid()

        def forward(self, batch):
            return self.sigmoid(self.clicks(batch))

    ends = ErrorMemoryPredictor(Ends(), ErrorMemory(whiten=False), output_module="sigmoid", key_module="clicks.out")
    logits = ErrorMemoryPredictor(Clicks(), ErrorMemory(whiten=False))
    for one in (ends, logits):
        one.predict(batch, range(4))
        one.feedback(range(4), [1, 0, 1, 0])
    assert torch.allclose(ends.predict(batch, range(4)), logits.predict(batch, range(4)), atol=1e-6)


def test_further_id_fields_reach_the_memory():
    one = ErrorMemoryPredictor(Clicks(), fields_fn=lambda batch: {"day": batch["day"]})
    batch = {**rows(2), "day": torch.tensor([3, 4])}
    one.predict(batch, [0, 1])
    assert "day" in one.memory.names()


def test_batches_in_tuples_and_lists_reach_the_module():
    one = ErrorMemoryPredictor(Clicks(), ErrorMemory(whiten=False), forward=lambda module, batch: module(batch[0]))
    for kind in (tuple, list):
        assert len(one.predict(kind([rows(3), "note"]), range(3))) == 3


def test_calibration_is_for_memories_that_nothing_was_written_to():
    seen = []

    def batches():
        seen.append(True)
        yield rows(64, seed=99)

    one = predictor("knn", calibration=batches())
    assert seen
    assert one.memory.is_calibrated
    one.predict(rows(1), [0])
    one.feedback([0], [1])
    seen.clear()
    ErrorMemoryPredictor(one.module, one.memory, calibration=batches())
    assert not seen


@pytest.mark.parametrize("memory", ["adaptive", "knn"])
def test_without_calibration_what_is_served_before_the_first_label_has_to_do(memory):
    asked_twice = {name: torch.cat([rows(1, 2)[name], rows(1, 5)[name]]) for name in rows(1)}
    by_hand = predictor(memory, calibration=[rows(40, 1), rows(1, 2), rows(1, 5)])
    one = predictor(memory, calibration=())
    for each in (by_hand, one):
        each.predict(rows(40, 1), range(40))
        each.predict(rows(1, 2), [40])
        each.predict(asked_twice, [40, 41])  # by a client whose connection broke: the first row must not count twice
        each.feedback([40], [1])
        each.predict(rows(8, 3), range(50, 58))
        each.feedback(range(50, 58), torch.ones(8))
    batch = rows(9, seed=4)
    # to rounding: sums over rows that came in batches of other sizes
    torch.testing.assert_close(one.predict(batch, range(9)), by_hand.predict(batch, range(9)), rtol=0, atol=3e-7)


# -- what is refused ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ids", "error", "text"),
    [
        (["a"], ValueError, "2 ids"),
        (["a", "a"], ValueError, "distinct"),
        ([], ValueError, "at least one"),
        ("ab", TypeError, "list"),
        ([1.5, 2.5], TypeError, "whole number"),
        ([True, False], TypeError, "whole number"),
        ([2**63, 1], ValueError, "whole number"),
        (["", "b"], ValueError, "1 to 256"),
        (["x" * 257, "b"], ValueError, "1 to 256"),
        (["\ud800", "b"], ValueError, "Unicode"),
        (torch.tensor([1.0, 2.0]), TypeError, "whole numbers"),
        (torch.tensor([[1, 2]]), TypeError, "whole numbers"),
    ],
)
def test_wrong_ids_are_refused_and_nothing_is_kept(ids, error, text):
    one = predictor("knn")
    with pytest.raises(error, match=text):
        one.predict(rows(2), ids)
    assert one.n_pending == 0


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([1], ValueError, "shape"),
        ([1, 2], ValueError, "in \\[0, 1\\]"),
        ([1, float("nan")], ValueError, "in \\[0, 1\\]"),
        ([1, "x"], TypeError, "numbers"),
        ([1, [0]], TypeError, "numbers"),
        (None, TypeError, "numbers"),
    ],
)
def test_wrong_labels_are_refused_and_none_is_taken(labels, error, text):
    one = predictor("knn")
    one.predict(rows(2), ["a", "b"])
    with pytest.raises(error, match=text):
        one.feedback(["a", "b"], labels)
    assert one.n_pending == 2
    assert one.memory.n_written == 0


@pytest.mark.parametrize("memory", ["adaptive", "knn"])
def test_a_model_that_gives_nan_is_not_served(memory):
    one = predictor(memory)
    one.predict(rows(1), ["good"])
    one.feedback(["good"], [1])
    batch = rows(2)
    batch["price"][0] = float("nan")
    with pytest.raises(ValueError, match="nan"):
        one.predict(batch, ["a", "b"])
    assert one.n_pending == 0
    assert one.predict(rows(2), ["a", "b"]).isfinite().all()


def test_wrong_arguments_are_refused():
    for options, text in (
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_pending": 0}, "max_pending"),
        ({"memory": "knn of mine"}, "No such file"),
        ({"memory": 3}, "memory"),
        ({"output_module": "nothing"}, "output_module"),
        ({"forward": "forward"}, "forward"),
        ({"fields_fn": 3}, "fields_fn"),
    ):
        with pytest.raises((TypeError, ValueError, OSError), match=text):
            ErrorMemoryPredictor(Clicks(), **options)
    with pytest.raises(TypeError, match="module"):
        ErrorMemoryPredictor(lambda batch: batch)
    with pytest.raises(ValueError, match="runs once per batch"):
        ErrorMemoryPredictor(Clicks(), forward=lambda module, batch: None).predict(rows(1), [0])


def test_keys_may_not_change_their_shape():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.key, self.out = nn.Identity(), nn.Linear(1, 1)

        def forward(self, batch):
            self.key(batch)
            return self.out(batch[:, :1])

    one = ErrorMemoryPredictor(Wide(), ErrorMemory(whiten=False), key_module="key")
    one.predict(torch.ones(2, 3), [0, 1])
    with pytest.raises(ValueError, match="same names and sizes"):
        one.predict(torch.ones(1, 4), [2])
    assert one.feedback([0, 1, 2], [1, 0, 1]) == FeedbackResult(accepted=[0, 1], unknown=[2])


# -- leaves no trace ---------------------------------------------------------------------------------------------------
def test_the_module_is_left_as_it_was():
    module = Clicks()
    module.hidden[2].eval()
    flags = [part.training for part in module.modules()]
    one = ErrorMemoryPredictor(module, ErrorMemory(whiten=False))
    before = torch.get_rng_state()
    for _ in range(2):
        one.predict(rows(3), range(3))
        with pytest.raises(KeyError):
            one.predict({"user": torch.tensor([0])}, ["x"])
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.training for part in module.modules()] == flags
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_the_base_module_is_served_in_eval_mode():
    one = predictor("knn")
    one.module.train()  # its dropout would make two answers differ
    batch = rows(20)
    assert torch.equal(one.predict(batch, range(20)), one.predict(batch, range(20)))


@pytest.mark.parametrize("how", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_copies_go_on_apart(how):
    one = predictor("adaptive")
    for call in list(calls(6))[:-1]:
        do(one, call)
    other = how(one)
    rest = list(calls(12))[11:]
    assert [do(one, call) for call in rest] == [do(other, call) for call in rest]


def test_threads_take_turns():
    one = predictor("adaptive")
    faults = []

    def client(number):
        try:
            for turn in range(25):
                ids = [f"{number}-{turn}-{row}" for row in range(3)]
                assert one.predict(rows(3, seed=turn), ids).isfinite().all()
                assert one.feedback(ids, [1, 0, 1]).accepted == ids
        except Exception as error:  # whatever happens in a thread has to reach the test
            faults.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert one.memory.n_written == 4 * 25 * 3
    assert one.n_pending == 0
