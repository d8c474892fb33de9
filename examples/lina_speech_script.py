"""Text-to-speech on a CPU, from nothing: voices are synthesised, a codec is fitted, a tiny model learns to speak.

python examples/lina_speech_script.py
"""

import logging
import warnings

from lightning.pytorch import Trainer, seed_everything

from lightning_adapt import LinaSpeechModule, SynthesisedVoices, TextSpeechDataModule


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(0, verbose=False)
    # yours: a manifest, "LJSpeech-1.1/metadata.csv", or rows {"audio": "a.wav", "text": "...", "speaker": "..."}
    voices = SynthesisedVoices(n_voices=4, n_utterances=40)  # espeak-ng where it is installed
    data = TextSpeechDataModule(voices, val=0.1, codebook_size=128, tokens_per_batch=1500, cache_dir="lina_codes")
    module = LinaSpeechModule("tiny", codebook_size=128, learning_rate=3e-3, warmup_steps=20, n_audio_samples=0)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(max_steps=150, max_epochs=-1, accelerator="cpu", gradient_clip_val=1.0, **quiet)
    trainer.fit(module, data)
    print(f"held-out loss {trainer.callback_metrics['val_loss']:.3f} nats a code")
    trainer.save_checkpoint("lina.ckpt")  # with codec and tokenizer: `lightning-adapt speak --checkpoint lina.ckpt`

    module = LinaSpeechModule.load_from_checkpoint("lina.ckpt", weights_only=True)
    for number, speech in enumerate(module.generate(["the river goes home", "a small green house"], max_seconds=6)):
        print(f"{speech.text!r}: {speech.seconds:.1f} s, {'ended by itself' if speech.stopped else 'cut'}")
        speech.save(f"lina-{number}.wav")
    chunks = [len(chunk) for chunk in module.stream("the river goes home", max_seconds=6)]
    print(f"streamed in {len(chunks)} chunks, {sum(chunks) / data.codec.sample_rate_hz:.1f} s")


if __name__ == "__main__":
    main()
