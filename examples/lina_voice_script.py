"""A voice for a text-to-speech model that stays as it is: tuned from rows of one speaker, saved, spoken, mixed.

python examples/lina_voice_script.py
"""

import logging
import warnings

from lightning.pytorch import Trainer, seed_everything

from lightning_adapt import InitialStateTuning, LinaSpeechModule, SynthesisedVoices, TextSpeechDataModule, Voice

QUIET = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
QUIET |= {"accelerator": "cpu", "enable_progress_bar": False}


def train_base() -> LinaSpeechModule:
    """Train a small base on three voices; yours is a checkpoint: LinaSpeechModule.load_from_checkpoint("base.ckpt")."""
    voices = SynthesisedVoices(n_voices=3, n_utterances=30, digits=True)  # espeak-ng where it is installed
    data = TextSpeechDataModule(voices, val=0.1, codebook_size=64, tokens_per_batch=600, cache_dir="lina_codes")
    module = LinaSpeechModule("tiny", codebook_size=64, learning_rate=3e-3, warmup_steps=10, n_audio_samples=0)
    trainer = Trainer(max_steps=80, max_epochs=-1, gradient_clip_val=1.0, limit_val_batches=0, **QUIET)
    trainer.fit(module, data)
    return module


def tune(module: LinaSpeechModule, name: str, number: int) -> Voice:
    """Learn one voice from some sentences of it; the weights of the module do not change."""
    # yours: a manifest of one speaker, "anna.csv", or rows {"audio": "a.wav", "text": "..."}; the speaker agreed
    rows = SynthesisedVoices(n_voices=1, n_utterances=15, first_voice=number, digits=True)
    same = {"codec": module.codec, "tokenizer": module.tokenizer, "cache_dir": "lina_codes"}
    data = TextSpeechDataModule(rows, val=0.2, tokens_per_batch=600, **same)
    consent = "a synthesiser's voice, nobody's"
    tuning = InitialStateTuning(name, rank=4, learning_rate=1.0, patience=3, consent=consent)  # 0.1 for long runs
    often = {"val_check_interval": 1.0, "check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
    Trainer(max_steps=30, max_epochs=-1, callbacks=[tuning], **often, **QUIET).fit(module, data)
    return tuning.tuned


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(0, verbose=False)
    module = train_base()
    for name, number in (("anna", 3), ("ben", 4)):  # neither was heard by the base
        voice = tune(module, name, number)
        losses = voice.held_out
        print(f"{name}: held-out loss {losses['untuned']:.3f} untuned, {losses['tuned']:.3f} tuned; ", end="")
        print(f"{voice.nbytes:,} bytes, rank {voice.rank}, from {voice.training_seconds:.0f} s of speech")
        voice.save(f"{name}.safetensors")

    anna, ben = Voice.load("anna.safetensors"), Voice.load("ben.safetensors")
    both = Voice.mix([anna, ben], [0.5, 0.5], name="both")
    voices = {"base": None, "anna": anna, "ben": ben, "both": both}  # in one batch
    spoken = module.generate(["seven three nine"] * 4, list(voices.values()), top_p=0.9, max_seconds=4)
    for who, speech in zip(voices, spoken, strict=True):
        speech.save(f"lina-{who}.wav")  # synthetic speech: say so where people hear it
        print(f"{who}: {speech.seconds:.1f} s")


if __name__ == "__main__":
    main()
