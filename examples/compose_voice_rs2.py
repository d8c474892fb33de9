"""A voice of initial states, tuned on a fresh half of the recordings in each epoch; the weights stay as they are.

python examples/compose_voice_rs2.py
"""

import logging
import warnings

import torch
from lightning.pytorch import Trainer

from lightning_adapt import InitialStateTuning, LinaSpeechModule, RS2Callback, SynthesisedVoices, TextSpeechDataModule


def trainer(epochs: int, callbacks: list) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(max_epochs=epochs, accelerator="cpu", callbacks=callbacks, enable_model_summary=False, **quiet)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spoken = {"engine": "formant", "digits": True, "words": (2, 3)}
    options = {"codebook_size": 64, "tokens_per_batch": 500, "cache_dir": "compose_codes", "progress": False}
    base = TextSpeechDataModule(SynthesisedVoices(2, 16, **spoken), val=0.1, **options)
    module = LinaSpeechModule("tiny", codebook_size=64, learning_rate=3e-3, warmup_steps=5, n_audio_samples=0)
    trainer(3, []).fit(module, base)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    person = SynthesisedVoices(1, 16, first_voice=7, **spoken)  # yours: recordings of somebody who agreed
    for name, callbacks in {"every batch": [], "RS2, half of them": [RS2Callback(0.5)]}.items():
        tuning = InitialStateTuning("anna", rank=4, learning_rate=1.0, patience=None)
        tuned = TextSpeechDataModule(person, val=0.2, codec=module.codec, tokenizer=module.tokenizer, **options)
        running = trainer(3, [tuning, *callbacks])  # in any order
        running.fit(module, tuned)
        was, now = (tuning.tuned.held_out[kind] for kind in ("untuned", "tuned"))
        print(f"{name:20} {running.global_step:3} steps   held-out loss {was:.3f} -> {now:.3f} nats a code")
    same = all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    print("the weights are what they were" if same else "the weights have changed")


if __name__ == "__main__":
    main()
