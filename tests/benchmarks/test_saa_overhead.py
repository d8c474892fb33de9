"""The benchmark of SAA's cost: its rows do what they say, its clock sees the bookkeeping, and its claims can fail."""

import json
import time

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import TensorDataset

from lightning_adapt.saa.history import LossHistory

pytestmark = pytest.mark.timed

QUICK = ["--quick", "--check", "--seeds", "1"]


@pytest.fixture
def fits(script_of, monkeypatch):
    """What is fitted, on small data: steps of 8 + 16 images."""
    fits = script_of("_saa_fits")
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (200, 1, 28, 28), generator=draws, dtype=torch.uint8)
    monkeypatch.setattr(fits, "images", lambda _: TensorDataset(pixels, torch.arange(200) % 10))
    for name, value in {"BATCH": 8, "MU": 2, "N_LABELS": 10}.items():
        monkeypatch.setattr(fits, name, value)
    return fits


@pytest.fixture
def script(fits, script_of, monkeypatch):
    """The script with fits of a few steps."""
    script = script_of("saa_overhead")
    monkeypatch.setattr(script, "STEPS", {"full": 3, "quick": 5})
    monkeypatch.setattr(script, "SIZES", {"full": (64, 128), "quick": (64,)})
    monkeypatch.setattr(script, "ALONE", {"full": (64, 1000), "quick": (64,)})
    return script


class Recorder(Callback):
    """Keeps the weights at the start and the batches."""

    def __init__(self):
        self.batches = []

    def on_train_start(self, trainer, pl_module):
        self.weights = {name: value.clone() for name, value in pl_module.backbone.state_dict().items()}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch["unlabeled"])


def fitted(fits, kind, n=64, seed=0):
    """Fit a row for four steps, one pass over 64 images; return its result and what a recorder saw."""
    recorder = Recorder()

    class Bench(fits.Bench):
        def callbacks(self, row, seed):
            return [*super().callbacks(row, seed), recorder]

    with fits.h.bench_settings(1):
        return Bench(4, "cpu").fit(fits.Row(kind, n), seed), recorder


def regrouped(recorder):
    """The share of each batch that was regrouped."""
    return torch.stack([batch["regrouped"].float().mean() for batch in recorder.batches])


def test_rows_differ_in_what_is_regrouped_alone(fits):
    kinds = (fits.FIXMATCH, fits.BOOKS, fits.SAA, fits.ALWAYS, fits.TURNS)
    runs = {kind: fitted(fits, kind) for kind in kinds}
    plain = runs[fits.FIXMATCH][1]
    for run, recorder in runs.values():
        assert run[fits.METRIC] > 0
        assert len(recorder.batches) == 4
        assert all(torch.equal(value, plain.weights[name]) for name, value in recorder.weights.items())
        for ours, theirs in zip(recorder.batches, plain.batches, strict=True):
            assert torch.equal(ours["index"], theirs["index"])
            assert torch.equal(ours["weak"], theirs["weak"])
            assert torch.equal(ours["strong"][~ours["regrouped"]], theirs["strong"][~ours["regrouped"]])
    shares = {kind: regrouped(recorder) for kind, (_, recorder) in runs.items()}
    assert shares[fits.FIXMATCH].max() == shares[fits.BOOKS].max() == 0
    assert shares[fits.SAA].mean() == pytest.approx(0.77, abs=0.03)
    assert shares[fits.ALWAYS].min() == 1
    assert torch.equal(shares[fits.TURNS], shares[fits.SAA] * torch.tensor([0, 1, 0, 1]))


def test_the_bookkeeping_of_a_row_without_flags_is_that_of_saa(fits):
    for kind in (fits.BOOKS, fits.SAA, fits.TURNS):
        run, _ = fitted(fits, kind)
        assert run["selections"] == 1
        assert run["flagged"] == pytest.approx(0.77, abs=0.03)
        assert 0 < run["bookkeeping"] < run[fits.METRIC]
    assert "bookkeeping" not in fitted(fits, fits.FIXMATCH)[0]
    assert "bookkeeping" not in fitted(fits, fits.ALWAYS)[0]


def test_another_repeat_sees_other_images(fits):
    first, second = (fitted(fits, fits.FIXMATCH, seed=seed)[1] for seed in (0, 1))
    assert not torch.equal(first.batches[0]["weak"], second.batches[0]["weak"])


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def slowed(monkeypatch, owner, name, seconds):
    """Make a method take so much processor time more, or what a function says of its arguments."""
    method = getattr(owner, name)

    def slow(*arguments, **options):
        burn(seconds(*arguments) if callable(seconds) else seconds)
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, slow)


@pytest.mark.parametrize(("name", "calls"), [("record", 4), ("select", 1)])
def test_the_clock_sees_what_the_callback_does(fits, monkeypatch, name, calls):
    slowed(monkeypatch, LossHistory, name, 0.1)
    added = 100 * calls / 4  # milliseconds per step
    for kind in (fits.BOOKS, fits.TURNS):
        run, _ = fitted(fits, kind)
        assert added <= run["bookkeeping"] < added + 50
    assert run[fits.METRIC] > run["bookkeeping"]
    assert run[fits.METRIC] - run["without"] > added - 10  # a step without SAA has none of it
    assert run["without"] < 100


def test_the_clock_of_the_bookkeeping_does_not_see_what_the_module_does(fits, monkeypatch):
    slowed(monkeypatch, fits.FixMatchModule, "training_step", 0.1)
    run, _ = fitted(fits, fits.TURNS)
    assert run["bookkeeping"] < 50
    assert run[fits.METRIC] > 100
    assert run["without"] > 100


def test_steps_by_turns_tell_what_a_second_view_costs(fits, monkeypatch):
    views = fits.Bench(4, "cpu").data(fits.Row(fits.SAA, 64), 0).views
    slowed(monkeypatch, type(views), "strong", lambda _, images, draws, flagged: 0.1 * bool(flagged.any()))
    run, _ = fitted(fits, fits.TURNS)
    assert run["extra"] == pytest.approx(run[fits.METRIC] / run["without"] - 1)
    assert 90 < run[fits.METRIC] - run["without"] < 160


def test_a_history_alone_is_timed_by_step_and_by_selection(fits, monkeypatch):
    plain = fits.alone(64, 0)
    slowed(monkeypatch, LossHistory, "select", 0.02)
    slow = fits.alone(64, 0)
    assert 0 < plain[fits.METRIC] < 20 < slow[fits.METRIC]
    assert 0 < slow["microseconds per step"] < 10_000


# -- claims ------------------------------------------------------------------------------------------------------------
def study(script, more, books, size="full"):
    """A study with made-up milliseconds: steps of 100 and more, with SAA so much slower, some of it bookkeeping."""
    options = script.h.Options(size == "quick", True, None, (0, 1, 2), "cpu", 1)
    made = script.h.Study("saa_overhead", script.METRIC, {}, options)
    for n in script.SIZES[size]:
        for seed in range(3):
            plain = 100.0 + 20 * seed
            own = {"bookkeeping": books * plain}
            share = 5.0 if seed == 1 else more  # one repeat in which the machine was busy does not decide
            ours = {script.METRIC: plain * (1 + share), "extra": share, **own}
            made.add(str(script.Row(script.TURNS, n)), seed, ours)
            made.add(str(script.Row(script.FIXMATCH, n)), seed, {script.METRIC: plain})
            for kind in (script.BOOKS, script.SAA):
                made.add(str(script.Row(kind, n)), seed, {script.METRIC: plain * (1 + books), **own})
    return made


@pytest.mark.parametrize(
    ("size", "more", "books", "failing"),
    [
        ("full", 0.09, 0.009, 0),
        ("full", 0.11, 0.009, 2),
        ("full", 0.09, 0.0125, 6),
        ("quick", 0.14, 0.018, 0),
        ("quick", 0.16, 0.018, 1),
        ("quick", 0.14, 0.03, 1),
    ],
)
def test_the_claims(script, size, more, books, failing):
    claims = script.check(study(script, more, books, size), size, script.THRESHOLDS[size])
    assert len(claims) == (8 if size == "full" else 2)
    assert sum(not claim.holds for claim in claims) == failing
    assert all(claim.value is not None for claim in claims)


def test_not_measured_is_not_passed(script):
    made = study(script, 0.01, 0.001)
    made._runs = {name: runs for name, runs in made._runs.items() if "N=64" not in name}
    claims = script.check(made, "full", script.THRESHOLDS["full"])
    assert [claim.holds for claim in claims] == [False] * 4 + [True] * 4


# -- the script --------------------------------------------------------------------------------------------------------
def test_check_passes_and_fails_with_slow_bookkeeping(script, monkeypatch, capsys):
    # on steps this small everything else is large
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": {"SAA": 3.0, "bookkeeping": 1.0}})
    assert script.main(QUICK) == 0
    assert "FAILS" not in capsys.readouterr().out
    monkeypatch.setattr(script, "ALONE", {"quick": ()})
    slowed(monkeypatch, LossHistory, "record", 0.2)
    assert script.main(QUICK) == 1
    printed = capsys.readouterr().out
    assert printed.count(f"FAILS  (quick) {script.TURNS}, N=64") == 2


def test_the_full_run_has_every_row_and_is_continued(script, monkeypatch, tmp_path, capsys):
    out = tmp_path / "overhead.json"
    options = ["--out", str(out), "--seeds"]
    assert script.main([*options, "1"]) == 0  # without --check the claims are only printed
    assert script.main([*options, "2"]) == 0
    rows = {row["method"]: row["n"] for row in json.loads(out.read_text())["rows"]}
    assert rows == dict.fromkeys(script.rows_of("full"), 2)
    assert set(script.rows_of("quick")) < set(rows)
    assert out.with_suffix(".png").stat().st_size > 0
    assert "history alone, N=1,000" in capsys.readouterr().out
    monkeypatch.setattr(script, "FLAGGED", 0.5)
    assert script.main([*options, "1"]) == 2
    assert "flagged=0.77, here 0.5" in capsys.readouterr().out.replace("\n", " ")
