"""One call logs a figure wherever the Trainer logs; files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_adapt._shared.figures import log_figure, save_figure
from tests.rs2.parts import small_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard"),
]


class WandbLogger(DummyLogger):
    """What the W&B logger offers for pictures, recorded."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def log_image(self, key, images, step=None):
        self.calls.append((key, images, step))


class MLFlowLogger(DummyLogger):
    """What the MLflow logger offers for pictures, recorded."""

    run_id = "run7"

    class Client:
        def __init__(self):
            self.calls = []

        def log_figure(self, run_id, figure, artifact_file):
            self.calls.append((run_id, figure, artifact_file))

    def __init__(self):
        super().__init__()
        self.client = self.Client()

    @property
    def experiment(self):
        return self.client


@pytest.fixture
def figure():
    drawn = Figure(figsize=(1, 1))
    drawn.subplots().plot([0, 1])
    return drawn


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_save_makes_folders_and_a_file(figure, tmp_path, ending):
    target = tmp_path / "new" / "folder" / f"picture.{ending}"
    assert save_figure(figure, str(target)) == target
    assert files_in(tmp_path) == [f"new/folder/picture.{ending}"]
    if ending == "png":
        Image.open(target).verify()


def test_a_failure_leaves_the_old_file_and_no_other(figure, tmp_path, monkeypatch):
    target = save_figure(figure, tmp_path / "picture.png")
    old = target.read_bytes()

    def fails(path, **options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fails)
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, target)
    assert files_in(tmp_path) == ["picture.png"]
    assert target.read_bytes() == old


def test_tensorboard(figure, tmp_path):
    logger = TensorBoardLogger(tmp_path)
    assert log_figure(small_trainer(logger=logger), "rs2/coverage", figure, step=3) == ["tensorboard"]
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert [event.step for event in events.Images("rs2/coverage")] == [3]


def test_csv_gets_a_file_beside_its_own(figure, tmp_path):
    logger = CSVLogger(tmp_path)
    places = log_figure(small_trainer(logger=logger), "rs2/coverage", figure, step=3)
    assert places == [f"{logger.log_dir}/figures/rs2-coverage-step3.png"]
    Image.open(places[0]).verify()


def test_wandb_and_mlflow(figure, tmp_path):
    wandb, mlflow = WandbLogger(), MLFlowLogger()
    trainer = small_trainer(logger=[wandb, mlflow], default_root_dir=tmp_path)
    assert log_figure(trainer, "rs2/coverage", figure, step=3) == ["wandb", "mlflow"]
    assert wandb.calls == [("rs2/coverage", [figure], 3)]
    assert mlflow.client.calls == [("run7", figure, "figures/rs2/coverage-step3.png")]
    assert files_in(tmp_path) == []


def test_a_subclass_of_a_known_logger_is_known(figure):
    class Ours(WandbLogger):
        pass

    logger = Ours()
    assert log_figure(small_trainer(logger=logger), "a", figure, step=0) == ["wandb"]
    assert len(logger.calls) == 1


def test_several_loggers_all_get_it(figure, tmp_path):
    loggers = [TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path / "csv"), WandbLogger()]
    places = log_figure(small_trainer(logger=loggers), "a/b", figure, step=1)
    assert places == ["tensorboard", f"{loggers[1].log_dir}/figures/a-b-step1.png", "wandb"]


@pytest.mark.parametrize("logger", [False, DummyLogger()], ids=["none", "unknown"])
def test_without_a_place_of_a_logger_it_goes_to_the_root(figure, tmp_path, logger):
    trainer = small_trainer(logger=logger, default_root_dir=tmp_path)
    assert log_figure(trainer, "rs2/coverage", figure, step=9) == [f"{tmp_path}/figures/rs2-coverage-step9.png"]
    assert files_in(tmp_path) == ["figures/rs2-coverage-step9.png"]
