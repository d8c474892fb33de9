"""RS2Callback(lr_horizon=...) in real runs: what a schedule for the whole data becomes when epochs turn into rounds."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler, ModelCheckpoint
from torch import nn
from torch.optim import lr_scheduler as s

from lightning_adapt import RS2Callback
from tests._shared.schedule_parts import BASE, SCHEDULES, Build, Custom, stepped
from tests.rs2.parts import row_loader, small_trainer

EPOCHS, ROWS, BATCH = 5, 960, 4  # 240 batches an epoch, 24 a round
NOW, WITHOUT = 120, 1200


class Scheduled(LightningModule):
    """A linear model with schedules of its own making; notes its learning rates."""

    def __init__(self, build: Any = None, interval: str = "step", steps: int | str = WITHOUT) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.build = build if callable(build) else SCHEDULES[build]
        self.interval, self.steps = interval, steps
        self.rates: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch / 1000).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), BASE, momentum=0.9)
        steps = int(self.trainer.estimated_stepping_batches) if self.steps == "estimated" else self.steps
        schedule = {"scheduler": self.build(optimizer, steps), "interval": self.interval}
        return [optimizer], [schedule]

    def on_train_batch_end(self, *_: Any) -> None:
        self.rates.append(self.optimizers().param_groups[0]["lr"])


class Manual(Scheduled):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def run(module: Any, action: str = "warn", *callbacks: Any, ratio: float = 0.1, ckpt_path: Any = None, **options: Any):
    """Train; warnings are errors here, as everywhere in these tests."""
    options = {"max_epochs": EPOCHS, **options}
    trainer = small_trainer(RS2Callback(ratio, lr_horizon=action), *callbacks, **options)
    trainer.fit(module, row_loader(ROWS, BATCH), ckpt_path=ckpt_path)
    return trainer


def last_rate(module: Scheduled) -> float:
    return module.trainer.optimizers[0].param_groups[0]["lr"]


def intended(build: Build, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], BASE, momentum=0.9)
    return stepped(build(optimizer, steps), steps)


# accumulation changes the number of steps alike for every schedule, and test_schedules.py has all of them with it: here
# one of each way to find an end
ACCUMULATED = ["cosine", "milestones", "sequence", "chain", "lambda, clamped", "lambda object", "product", "hub linear"]


@pytest.mark.parametrize(("name", "accumulate"), [(n, 1) for n in SCHEDULES] + [(n, 4) for n in ACCUMULATED])
def test_a_hard_coded_schedule_is_caught_and_rescaled(name, accumulate):
    options = {"accumulate_grad_batches": accumulate}
    steps = WITHOUT // accumulate
    with pytest.warns(UserWarning, match=f"RS2Callback: .* {NOW // accumulate}") as seen:
        run(unguarded := Scheduled(name, steps=steps), **options)
    assert sum("learning-rate schedule" in str(warning.message) for warning in seen) == 1
    run(rescaled := Scheduled(name, steps=steps), "rescale", **options)
    rates = intended(SCHEDULES[name], steps)
    end, peak = rates[-1], max(rates)
    assert last_rate(rescaled) == pytest.approx(end, abs=0.01 * peak)
    assert abs(last_rate(unguarded) - end) > 0.05 * peak  # the guard matters


@pytest.mark.parametrize(
    ("name", "action", "accumulate"), [(n, "error", 1) for n in SCHEDULES] + [(n, "rescale", 4) for n in ACCUMULATED]
)
def test_a_right_schedule_is_left_alone(name, action, accumulate):
    run(module := Scheduled(name, steps="estimated"), action, accumulate_grad_batches=accumulate)
    total = EPOCHS * -(-24 // accumulate)
    assert last_rate(module) == intended(SCHEDULES[name], total)[-1]


@pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using 'interval'")  # Lightning's own advice
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_in_epochs_count_rounds(name):
    run(module := Scheduled(name, "epoch", 20), "error", ratio=0.01, max_epochs=20)
    assert last_rate(module) == intended(SCHEDULES[name], 20)[-1]


def test_a_schedule_in_epochs_for_another_number_of_them():
    with pytest.warns(UserWarning, match=r"ends after 77 epochs, but the run has 5.*`trainer.max_epochs`"):
        run(Scheduled("cosine", "epoch", steps=77))


@pytest.mark.parametrize("steps", [120, 1200])
@pytest.mark.parametrize("action", ["warn", "rescale"])
def test_a_schedule_of_steps_that_is_stepped_by_epoch_is_told_so_and_left_alone(steps, action):
    said = rf'ends after {steps} epochs, but the run has 5\. It seems to count steps: .*"interval": "step"'
    with pytest.warns(UserWarning, match=said) as warned:
        run(module := Scheduled("cosine", "epoch", steps=steps), action)
    assert "trainer.max_epochs" not in str(warned[0].message)
    assert last_rate(module) > 0.9 * BASE


def test_error_stops_before_the_first_step():
    with pytest.raises(MisconfigurationException, match="ends after 1200 steps, but the run has 120"):
        run(module := Scheduled("cosine"), "error")
    assert module.rates == []


def test_ignore_says_nothing():
    run(module := Scheduled("cosine"), "ignore")
    assert last_rate(module) > 0.9 * BASE


def test_runs_bounded_by_steps():
    """Steps stay steps under RS2: what was right before is right."""
    run(Scheduled("cosine", steps=130), "error", max_steps=130, max_epochs=-1)
    with pytest.warns(UserWarning, match="ends after 1200 steps, but the run has 30"):
        run(Scheduled("cosine"), max_steps=30, max_epochs=-1)
    run(module := Scheduled("cosine"), "rescale", max_steps=30)
    assert last_rate(module) == pytest.approx(1e-4, abs=1e-3 * BASE)


def test_runs_of_unknown_length_pass():
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = True

    run(Scheduled("cosine"), "error", Stop(), max_epochs=-1)
    run(Scheduled("cosine"), "error", Stop(), max_epochs=None, max_time={"minutes": 1})
    run(Scheduled("cosine"), "error", GradientAccumulationScheduler({0: 1, 2: 4}))


def test_manual_optimization_fast_dev_run_and_a_neutral_callback_pass():
    run(Manual("cosine"), "error")
    run(Scheduled("cosine"), "error", fast_dev_run=True)
    run(Scheduled("cosine", steps=7), "error", ratio=1, max_epochs=1)


def test_several_schedules_on_one_optimizer():
    class Two(Scheduled):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), BASE)
            first = {"scheduler": s.LinearLR(optimizer, 0.1, total_iters=500), "interval": "step"}
            second = {"scheduler": s.CosineAnnealingLR(optimizer, EPOCHS), "interval": "epoch"}
            third = {"scheduler": s.StepLR(optimizer, 30), "interval": "step", "frequency": 2}
            return [optimizer], [first, second, third]

    with pytest.warns(UserWarning, match="LinearLR ends after 500 steps") as seen:
        run(Two("cosine"))
    assert "Cosine" not in str(seen[0].message)
    assert "StepLR" not in str(seen[0].message)
    run(module := Two("cosine"), "rescale")
    assert module.trainer.lr_scheduler_configs[0].scheduler.total_iters == 50
    assert module.trainer.lr_scheduler_configs[2].scheduler.step_size == 30  # steps: both drops inside the run


def test_a_schedule_of_ones_own_is_named_when_it_should_be_rescaled():
    run(Scheduled(lambda optimizer, steps: Custom(optimizer, steps)))
    with pytest.warns(UserWarning, match=r"Custom cannot be rescaled.*120 steps instead of 1200"):
        run(Scheduled(lambda optimizer, steps: Custom(optimizer, steps)), "rescale")


def test_pytorch_lightning():
    pl = pytest.importorskip("pytorch_lightning")

    class Theirs(pl.LightningModule):
        __init__, training_step = (
            pl.LightningModule.__init__,
            lambda self, batch, batch_idx: self.net(batch / 1000).mean(),
        )

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), BASE)
            return [optimizer], [{"scheduler": s.CosineAnnealingLR(optimizer, WITHOUT), "interval": "step"}]

    def fit(action: str) -> float:
        module = Theirs()
        module.net = nn.Linear(1, 1)
        options = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            logger=False,
            callbacks=[RS2Callback(0.1, lr_horizon=action)],
            **options,
        )
        trainer.fit(module, row_loader(ROWS, BATCH))
        return trainer.optimizers[0].param_groups[0]["lr"]

    with pytest.warns(UserWarning, match="CosineAnnealingLR ends after 1200 steps, but the run has 120"):
        assert fit("warn") > 0.9 * BASE
    assert fit("rescale") == pytest.approx(0, abs=1e-6)
    with pytest.raises(MisconfigurationException):
        fit("error")


RESUMED = ["cosine", "one cycle", "milestones", "sequence", "chain", "lambda, clamped", "lambda object", "hub linear"]


@pytest.mark.parametrize("after", [48, 55])  # at the end of a round and inside one
@pytest.mark.parametrize("name", [*RESUMED, "product", "linear to zero", "polynomial", "hub stable"])
def test_a_resumed_rescaled_run_goes_on_bit_for_bit(name, after, tmp_path):
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=after, save_top_k=-1)
    torch.manual_seed(0)
    run(whole := Scheduled(name), "rescale", saving, enable_checkpointing=True)
    path, saving = tmp_path / f"step={after}.ckpt", ModelCheckpoint(tmp_path, every_n_train_steps=after)
    trainer = small_trainer(
        RS2Callback(0.1, lr_horizon="rescale"), saving, max_epochs=EPOCHS, enable_checkpointing=True
    )
    trainer.fit(rest := Scheduled(name), row_loader(ROWS, BATCH), ckpt_path=path, weights_only=True)
    assert rest.rates == whole.rates[after:]
    assert last_rate(rest) == last_rate(whole)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(rest.parameters(), whole.parameters(), strict=True))


def test_a_resumed_unscaled_run_is_not_rescaled(tmp_path):
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=48, save_top_k=-1)
    run(Scheduled("cosine"), "ignore", saving, enable_checkpointing=True)
    with pytest.warns(UserWarning, match="cannot be rescaled in the middle of a run"):
        run(Scheduled("cosine"), "rescale", saving, enable_checkpointing=True, ckpt_path=tmp_path / "step=48.ckpt")


@pytest.mark.parametrize("value", ["Warn", None, True])
def test_only_four_words_are_allowed(value):
    with pytest.raises(ValueError, match="`lr_horizon` must be one of 'warn', 'rescale', 'error', 'ignore'"):
        RS2Callback(0.1, lr_horizon=value)


def test_a_second_fit_speaks_again():
    for _ in range(2):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run(Scheduled("cosine"))
        assert sum("does not fit the run" in str(warning.message) for warning in seen) == 1
