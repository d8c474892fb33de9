"""RS2 and a selection under LinaSpeech training: whole batches of like length stay, only fewer of them come.

python examples/compose_speech.py
"""

import logging
import warnings

import torch
from lightning.pytorch import Trainer

from lightning_adapt import (
    DiversitySelectionCallback,
    LinaSpeechModule,
    RS2Callback,
    SynthesisedVoices,
    TextSpeechDataModule,
)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    voices = SynthesisedVoices(2, 24, engine="formant", digits=True, words=(2, 3))  # yours: a manifest of recordings
    options = {"val": 0.1, "codebook_size": 64, "tokens_per_batch": 500, "cache_dir": "compose_codes"}
    first = TextSpeechDataModule(voices, progress=False, **options)  # fits the codec, and tells the rows
    frequencies = [torch.bincount(row["codes"][0], minlength=64) / row["codes"].shape[1] for row in first.train_set]
    half = {"k": 4, "embedder": torch.stack(frequencies), "lr_horizon": "ignore"}
    rows = {
        "every batch": [],
        "RS2: half of the planned batches": [RS2Callback(0.5)],
        "a diverse half of the rows": [DiversitySelectionCallback("50%", **half)],
        "both": [DiversitySelectionCallback("50%", **half), RS2Callback(0.5)],  # in this order
    }
    for name, callbacks in rows.items():
        torch.manual_seed(0)
        module = LinaSpeechModule("tiny", codebook_size=64, learning_rate=3e-3, warmup_steps=5, n_audio_samples=0)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options |= {"codec": first.codec}
        trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=callbacks, enable_model_summary=False, **quiet)
        trainer.fit(module, TextSpeechDataModule(voices, progress=False, **options))
        loss = trainer.callback_metrics["val_loss"]
        print(f"{name:34} {trainer.global_step:3} steps   held-out loss {loss:.3f} nats a code")


if __name__ == "__main__":
    main()
