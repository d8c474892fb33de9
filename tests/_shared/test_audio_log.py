"""One call logs a sound wherever the Trainer logs; files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_adapt._shared.audio_log import log_audio, save_audio
from tests.rs2.parts import small_trainer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
RATE = 8000


class WandbLogger(DummyLogger):
    """What the W&B logger offers for sounds, recorded."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def log_audio(self, key, audios, step=None, **options):
        self.calls.append((key, audios, step, options))


class MLFlowLogger(DummyLogger):
    """What the MLflow logger offers for files, recorded."""

    run_id = "run7"

    class Client:
        def __init__(self):
            self.calls = []

        def log_artifact(self, run_id, local_path, artifact_path):
            self.calls.append((run_id, Path(local_path).name, soundfile.read(local_path), artifact_path))

    def __init__(self):
        super().__init__()
        self.client = self.Client()

    @property
    def experiment(self):
        return self.client


@pytest.fixture
def sound():
    return 0.5 * torch.sin(torch.arange(400) * 0.3)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def check_file(path, sound):
    samples, rate = soundfile.read(path)
    assert rate == RATE
    np.testing.assert_allclose(samples, sound.numpy(), atol=2 / 2**15)


@pytest.mark.parametrize("ending", ["wav", "flac", "WAV"])
def test_save_makes_folders_and_a_file(sound, tmp_path, ending):
    target = tmp_path / "new" / f"sound.{ending}"
    assert save_audio(str(target), sound, RATE) == target
    assert files_in(tmp_path) == [f"new/sound.{ending}"]
    check_file(target, sound)


def test_loud_and_broken_samples_are_cut_off(tmp_path):
    path = save_audio(tmp_path / "a.wav", torch.tensor([3.0, -3.0, float("nan"), 0.25]).double(), RATE)
    np.testing.assert_allclose(soundfile.read(path)[0], [1, -1, 0, 0.25], atol=1e-4)


def test_a_failure_leaves_the_old_file_and_no_other(sound, tmp_path, monkeypatch):
    target = save_audio(tmp_path / "sound.wav", sound, RATE)
    old = target.read_bytes()

    def fails(path, *arguments, **options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(soundfile, "write", fails)
    with pytest.raises(OSError, match="disk full"):
        save_audio(target, sound, RATE)
    assert files_in(tmp_path) == ["sound.wav"]
    assert target.read_bytes() == old


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("path", {"path": "sound.txt"}, ValueError),
        ("path", {"path": "sound"}, ValueError),
        ("sample_rate_hz", {"sample_rate_hz": 0}, ValueError),
        ("sample_rate_hz", {"sample_rate_hz": 8000.5}, TypeError),
        ("audio", {"audio": torch.zeros(1, 9)}, ValueError),
        ("audio", {"audio": torch.zeros(9, dtype=torch.int16)}, TypeError),
        ("audio", {"audio": [0.0]}, TypeError),
    ],
)
def test_bad_arguments_are_named(sound, tmp_path, name, change, error):
    with pytest.raises(error, match=f"`{name}` must be"):
        save_audio(**{"path": "sound.wav", "audio": sound, "sample_rate_hz": RATE, **change})
    assert files_in(tmp_path) == []


def test_tensorboard(sound, tmp_path):
    logger = TensorBoardLogger(tmp_path)
    assert log_audio(small_trainer(logger=logger), "lina/sample_0", sound, RATE, step=3) == ["tensorboard"]
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    (event,) = events.Audio("lina/sample_0")
    assert (event.step, event.sample_rate, event.length_frames) == (3, RATE, 400)


def test_csv_gets_a_file_beside_its_own(sound, tmp_path):
    logger = CSVLogger(tmp_path)
    places = log_audio(small_trainer(logger=logger), "lina/sample_0", sound, RATE, step=3)
    assert places == [f"{logger.log_dir}/audio/lina-sample_0-step3.wav"]
    check_file(places[0], sound)


def test_wandb_and_mlflow(sound, tmp_path):
    wandb, mlflow = WandbLogger(), MLFlowLogger()
    trainer = small_trainer(logger=[wandb, mlflow], default_root_dir=tmp_path)
    assert log_audio(trainer, "lina/sample_0", sound, RATE, step=3) == ["wandb", "mlflow"]
    ((key, audios, step, options),) = wandb.calls
    assert (key, step, options) == ("lina/sample_0", 3, {"sample_rate": [RATE]})
    np.testing.assert_array_equal(audios[0], sound.numpy())
    ((run, name, (samples, rate), place),) = mlflow.client.calls
    assert (run, name, rate, place) == ("run7", "sample_0-step3.wav", RATE, "audio/lina")
    np.testing.assert_allclose(samples, sound.numpy(), atol=2 / 2**15)
    assert files_in(tmp_path) == []


def test_several_loggers_all_get_it(sound, tmp_path):
    class Ours(WandbLogger):
        pass

    loggers = [TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path / "csv"), Ours()]
    places = log_audio(small_trainer(logger=loggers), "a/b", sound, RATE, step=1)
    assert places == ["tensorboard", f"{loggers[1].log_dir}/audio/a-b-step1.wav", "wandb"]


@pytest.mark.parametrize("logger", [False, DummyLogger()], ids=["none", "unknown"])
def test_without_a_place_of_a_logger_it_goes_to_the_root(sound, tmp_path, logger):
    trainer = small_trainer(logger=logger, default_root_dir=tmp_path)
    assert log_audio(trainer, "a/b", sound, RATE, step=9) == [f"{tmp_path}/audio/a-b-step9.wav"]
    assert files_in(tmp_path) == ["audio/a-b-step9.wav"]
