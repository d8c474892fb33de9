"""Four methods in one run beside averaged weights, checkpoints, early stopping, accumulation and compiled modules."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from functools import partial
from itertools import permutations

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging

from tests.compose import acting
from tests.compose.parts import clicks
from tests.compose.parts_everything import FOUR, WITH, lightnings
from tests.compose.parts_saa import Traced
from tests.compose.runs import run
from tests.foreign_clicks import noted

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
]
BACKENDS = ["aot_eager", *(["inductor"] if shutil.which("g++") else [])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(FOUR, folder, others=lightnings(folder).values(), **WITH)


def test_all_of_them_act(whole):
    folder, outcome = whole
    FOUR.acts(outcome.callbacks, outcome.module)
    assert outcome.callbacks["memory"].memory.n_written == 32
    assert len(list(folder.glob("best-*.ckpt"))) == 6
    assert outcome.module.trainer.global_step == 6 * 2  # three batches an epoch, two of them a step
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert {"state_dict", "current_model_state"} <= set(saved), "averaged weights and the others"


def test_any_order_gives_the_same(whole, tmp_path):
    _, outcome = whole
    orders = [order for order in permutations(FOUR.callbacks) if order.index("selection") < order.index("rs2")]
    for order in random.Random(0).sample(orders[1:], 4):
        run(FOUR, tmp_path, order=order, others=lightnings(tmp_path).values(), **WITH).same_as(outcome)


def test_lightnings_own_may_stand_before_ours(whole, tmp_path):
    """It moves its checkpoints to the end itself."""
    _, outcome = whole
    run(FOUR, tmp_path, others=lightnings(tmp_path).values(), others_first=True, **WITH).same_as(outcome)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resume_is_exact(epoch, whole, tmp_path):
    folder, outcome = whole
    path = folder / f"best-epoch={epoch}.ckpt"
    resumed = run(FOUR, tmp_path, others=lightnings(tmp_path).values(), ckpt=path, **WITH)
    assert [number for number, _ in resumed.seen] == [number for number, _ in outcome.seen if number > epoch]
    resumed.same_as(outcome)


def test_a_run_that_stops_early_ends_whole(tmp_path):
    """Nothing improves by 10: two epochs, then the end, with the memory served afterwards."""
    stop = EarlyStopping("val_loss", min_delta=10.0, patience=1)
    outcome = run(FOUR, tmp_path, others=[stop], max_epochs=6)
    assert {epoch for epoch, _ in outcome.seen} == {0, 1}
    assert outcome.callbacks["memory"].memory.n_written == 32
    assert len(outcome.callbacks["saa"].curve) == 1  # in the first epoch too few rows had a loss


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # what the compiler imports
def test_a_compiled_module_is_trained_on_the_same_rows(backend, tmp_path):
    """Of a step, forward and backward are compiled; three of the four, since tracing a test as well takes long."""
    callbacks = {name: FOUR.callbacks[name] for name in ("selection", "rs2", "saa")}
    train = {"train_dataloaders": clicks()["train_dataloaders"]}
    stack = replace(FOUR, callbacks=callbacks, module=noted(Traced), data=lambda *_: train, stream=None)
    ema = partial(EMAWeightAveraging, decay=0.9)
    plain, compiled = (run(stack, tmp_path, others=[ema()], compiled=kind) for kind in ("", backend))
    acting.all_of(acting.halved, acting.guides, acting.flags)(compiled.callbacks, compiled.module)
    assert compiled.states["selection"] == plain.states["selection"]
    assert compiled.seen[:6] == plain.seen[:6]  # two rounds are a pass: until then no loss guides
    if backend != "inductor":  # whose kernels differ in the last bits
        compiled.same_as(plain)
