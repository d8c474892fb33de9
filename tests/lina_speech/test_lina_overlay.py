"""The overlay holds every default of the module and of its data, and completes a stranger's own YAML into a run."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

import lightning_adapt
from lightning_adapt import cli
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices

OVERLAY = Path(lightning_adapt.__file__).parents[1] / "configs" / "lina_speech" / "overlay.yaml"


@pytest.fixture(autouse=True)
def _quiet_jsonargparse(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6.6 calls what jsonargparse renamed


@pytest.mark.parametrize(
    ("part", "name", "required"), [("model", "LinaSpeechModule", {}), ("data", "TextSpeechDataModule", {"data"})]
)
def test_the_overlay_holds_the_defaults(part, name, required):
    section = yaml.safe_load(OVERLAY.read_text())[part]
    assert section["class_path"] == f"lightning_adapt.{name}"
    parameters = inspect.signature(getattr(lightning_adapt, name)).parameters
    defaults = {key: value.default for key, value in parameters.items() if key not in required}
    given = {key: value for key, value in section["init_args"].items() if key not in required}
    assert given == {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert set(section["init_args"]) - set(given) == set(required)


@pytest.mark.filterwarnings("ignore:No seed found:UserWarning")
def test_the_overlay_completes_their_yaml(tmp_path):
    corpus = SynthesisedVoices(1, 6, engine="formant", digits=True, words=(1, 2))
    manifest = corpus.write(tmp_path / "corpus")
    trainer = {
        "max_steps": 2,
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Path("mine.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "trainer": trainer}))
    small = [f"--model.{key}={value}" for key, value in {"codebook_size": 16, "n_audio_samples": 0}.items()]
    small += ["--data.codebook_size=16", f"--data.cache_dir={tmp_path / 'cache'}", "--data.tokens_per_batch=400"]
    small += ["--data.progress=false", "--data.val=0.2", "--model.warmup_steps=1"]
    stack = ["--config", "mine.yaml", "--config", str(OVERLAY)]
    assert cli.main(["fit", *stack, f"--data.data={manifest}", *small]) == 0
