"""Tuning a voice by YAML: the overlay stacks on a stranger's config, holds the defaults, and the demo configs run."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

import lightning_adapt
from lightning_adapt import InitialStateTuning, Voice, cli
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices

CONFIGS = Path(lightning_adapt.__file__).parents[1] / "configs" / "lina_speech"
FILES = {"checkpoint": "base.ckpt", "out": "voice.safetensors"}  # what nobody can have a default for
TINY = {"preset": "tiny", "codebook_size": 16, "overrides": {"d_model": 32, "n_text_heads": 2, "d_blind": 16}}
THEIR_CALLBACK = {
    "class_path": "lightning.pytorch.callbacks.GradientAccumulationScheduler",
    "init_args": {"scheduling": {0: 1}},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:No seed found:UserWarning"),
    # three steps need not be enough
    pytest.mark.filterwarnings("ignore:Nothing that was tuned was better:UserWarning"),
]


@pytest.fixture(autouse=True)
def _quiet_jsonargparse(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6.6 calls what jsonargparse renamed


def test_the_overlay_holds_the_defaults_and_names_the_base_once_and_for_all():
    overlay = yaml.safe_load((CONFIGS / "overlay_voice.yaml").read_text())
    (callback,) = overlay["trainer"]["callbacks+"]
    assert callback["class_path"] == "lightning_adapt.InitialStateTuning"
    defaults = {name: value.default for name, value in inspect.signature(InitialStateTuning).parameters.items()}
    assert callback["init_args"] == defaults | FILES
    assert overlay["data"]["init_args"] == {"codec": FILES["checkpoint"], "tokenizer": FILES["checkpoint"]}
    InitialStateTuning(**callback["init_args"])


def their_config(name, manifest, cache, **trainer):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    limits = {"max_steps": 3, "max_epochs": -1, "accelerator": "cpu", "callbacks": [THEIR_CALLBACK]}
    data = {"data": str(manifest), "val": 0.25, "codebook_size": 16, "tokens_per_batch": 400, "progress": False}
    model = {**TINY, "n_audio_samples": 0, "warmup_steps": 1}
    config = {
        "seed_everything": 0,
        "trainer": {**quiet, **limits, **trainer},
        "model": {"class_path": "lightning_adapt.LinaSpeechModule", "init_args": model},
        "data": {
            "class_path": "lightning_adapt.TextSpeechDataModule",
            "init_args": {**data, "cache_dir": str(cache)},
        },
    }
    Path(name).write_text(yaml.safe_dump(config))
    return name


def test_the_overlay_tunes_a_voice_on_top_of_the_config_of_the_base(tmp_path):
    corpora = [SynthesisedVoices(1, 6, engine="formant", digits=True, words=(1, 2), first_voice=n) for n in (0, 1)]
    base, new = (corpus.write(tmp_path / f"corpus-{number}") for number, corpus in enumerate(corpora))
    mine = their_config("mine.yaml", base, tmp_path / "cache", enable_checkpointing=True, default_root_dir="run")
    assert cli.main(["fit", "--config", mine]) == 0
    (made,) = Path("run").rglob("*.ckpt")
    made.rename("base.ckpt")
    more = ["--config", str(CONFIGS / "overlay_voice.yaml"), f"--data.data={new}", "--trainer.val_check_interval=1"]
    assert cli.main(["fit", "--config", mine, *more, "--trainer.enable_checkpointing=false"]) == 0
    voice = Voice.load("voice.safetensors")
    module = lightning_adapt.LinaSpeechModule.load_from_checkpoint("base.ckpt", weights_only=True)
    voice.state(module.model, module.codec)  # it is of that model and that codec
    assert voice.rank in (1, "full")
    assert voice.held_out["tuned"] <= voice.held_out["untuned"]
    assert voice.kind == "tuned"


def test_the_base_of_the_overlay_has_to_be_there(tmp_path):
    manifest = SynthesisedVoices(1, 4, engine="formant", digits=True, words=(1, 1)).write(tmp_path / "corpus")
    mine = their_config("mine.yaml", manifest, tmp_path / "cache", enable_checkpointing=False)
    with pytest.raises((SystemExit, OSError, ValueError)):
        cli.main(["fit", "--config", mine, "--config", str(CONFIGS / "overlay_voice.yaml")])
    assert not Path("voice.safetensors").exists()


def test_the_demo_configs_run_one_after_the_other():
    quiet = "--trainer.enable_progress_bar=false"
    few = ["--trainer.max_steps=6", "--data.progress=false", "--data.cache_dir=cache", quiet]
    assert cli.main(["fit", "--config", str(CONFIGS / "demo.yaml"), "--trainer.enable_checkpointing=true", *few]) == 0
    (made,) = Path("lightning_adapt_demo/checkpoints").glob("*.ckpt")
    made.rename("lina_base.ckpt")
    assert cli.main(["fit", "--config", str(CONFIGS / "voice_demo.yaml"), *few]) == 0
    voice = Voice.load("lina_voice.safetensors")
    assert (voice.name, voice.consent) == ("third", "a synthesiser's voice, nobody's")
    assert voice.held_out["tuned"] <= voice.held_out["untuned"]
