"""The registry entries of Lina-Speech: the smallest way to use each public name."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lightning_adapt import RS2DataModule
from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.codecs.transformers_codec import TransformersCodec
from lightning_adapt.lina_speech.codecs.wavtokenizer import WavTokenizerCodec
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.model.config import preset
from lightning_adapt.lina_speech.model.model import LinaModel
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.text.bpe import BPETokenizer
from lightning_adapt.lina_speech.text.characters import CharacterTokenizer
from lightning_adapt.lina_speech.text.phonemes import PhonemeTokenizer
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.foreign_clicks import noted
from tests.foreign_speech import N_CODES, ForeignSpeech, SpokenData
from tests.lina_speech.made_voice_parts import some_voice
from tests.lina_speech.tuning_entries import ENTRIES as TUNING
from tests.lina_speech.wavtokenizer_parts import SIZES as SIZES_OF_WAVTOKENIZER
from tests.lina_speech.wavtokenizer_parts import checkpoint
from tests.registry_parts import Entry, Setup

SIZES = {
    "d_model": 16,
    "n_encoder_layers": 1,
    "n_decoder_layers": 1,
    "n_heads": 1,
    "n_text_layers": 1,
    "n_text_heads": 1,
    "d_blind": 16,
    "gate_rank": 2,
}
TEXTS = ["a word", "two more words", "nothing at all"]
RATE = 8000


def sound(seconds: float = 0.2, number: int = 0) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    return 0.5 * torch.sin(6.2832 * (200 + 40 * number) * time) * (1 + torch.sin(20 * time)) / 2


# -- codecs ------------------------------------------------------------------------------------------------------------
@cache
def codebooks() -> torch.Tensor:
    return KMeansMelCodec.fit(
        [sound(0.4, number) for number in range(4)], sample_rate_hz=RATE, codebook_size=N_CODES
    ).to_state()["codebooks"]


def kmeans_codec() -> KMeansMelCodec:
    return KMeansMelCodec(codebooks(), sample_rate_hz=RATE)


def transformers_codec() -> TransformersCodec:
    from transformers import EncodecConfig, EncodecModel

    # 10 bits at 400 frames/s and 4 kbit/s: one codebook, also in older transformers, which takes 10 bits for any size
    sizes: dict[str, Any] = {"hidden_size": 8, "num_filters": 2, "codebook_size": 1024, "codebook_dim": 8}
    more: dict[str, Any] = {"upsampling_ratios": [5, 4], "target_bandwidths": [4.0], "norm_type": "time_group_norm"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EncodecModel(EncodecConfig(sampling_rate=RATE, **sizes, **more))
    return TransformersCodec(model.eval())


@cache
def wavtokenizer_file() -> tuple[Path, Any]:
    return checkpoint(Path(tempfile.mkdtemp(prefix="wavtokenizer-"))), SIZES_OF_WAVTOKENIZER


def wavtokenizer() -> WavTokenizerCodec:
    path, sizes = wavtokenizer_file()
    return WavTokenizerCodec(path, config=sizes)


def decoded(codec: Any) -> torch.Tensor:
    codes = codec.encode(sound())
    return torch.cat([codes.flatten().float(), codec.decode(codes).flatten()])


# -- data --------------------------------------------------------------------------------------------------------------
@cache
def cache_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="lina-codes-"))


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Sounds of one length, so that batches are cut by their size alone."""
    found = []
    for number in range(start, start + count):
        text, name = f"number {number}", f"u{number:03d}"
        audio = {"audio": sound(number=number % 30), "sample_rate_hz": RATE}
        found.append({**audio, "text": text, "speaker": f"voice {number % 3}", "id": name})
    return found


def speech(workers: int = 0, batch_size: int = 8) -> TextSpeechDataModule:
    """32 rows in each epoch, 16 for everything else."""
    sizes: dict[str, Any] = {
        "max_batch_size": batch_size,
        "tokens_per_batch": 100 * batch_size,
        "join_probability": 0.0,
    }
    more: dict[str, Any] = {"num_workers": workers, "cache_dir": cache_folder(), "progress": False, "min_seconds": 0.05}
    held_out = {"val": rows(16, 50), "test": rows(16, 70)}
    return TextSpeechDataModule(rows(32), codec=kmeans_codec(), trim_silence_db=None, **held_out, **sizes, **more)


def data(workers: int = 0, batch_size: int = 8) -> Setup:
    made = speech(workers, batch_size)
    return Setup({"datamodule": made}, [], ForeignSpeech, {"datamodule": made})


# -- module and model --------------------------------------------------------------------------------------------------
def training(**options: Any) -> LinaSpeechModule:
    sizes: dict[str, Any] = {"codebook_size": N_CODES, "learning_rate": 1e-2, "warmup_steps": 2, "max_seconds": 0.2}
    parts: dict[str, Any] = {"codec": kmeans_codec(), "tokenizer": CharacterTokenizer()}
    parts |= {"min_learning_rate_ratio": 1.0}  # a rate that does not depend on where a run ends
    return LinaSpeechModule("tiny", overrides=SIZES, **{"n_audio_samples": 0, **sizes, **parts, **options})


def on_rounds(workers: int = 0, batch_size: int = 8) -> Setup:
    """The module on rows of a stranger, in rounds whose order can be resumed anywhere."""
    stream = SpokenData(workers, 8)
    return Setup(
        {"datamodule": RS2DataModule(SpokenData(workers, batch_size), 0.3)},
        [],
        noted(training),
        {"datamodule": stream},
    )


def model() -> LinaModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LinaModel(preset("tiny", codebook_size=N_CODES, **SIZES)).eval()


def logits(made: LinaModel) -> torch.Tensor:
    text, inputs = torch.tensor([[1, 5, 6, 2]]), torch.tensor([[[1], [4], [7]]])
    with torch.no_grad():
        return made(text, torch.tensor([4]), inputs).logits


# -- texts and voices --------------------------------------------------------------------------------------------------
def encoded(tokenizer: Any) -> torch.Tensor:
    return torch.tensor([number for text in TEXTS for number in tokenizer.encode(text)])


def trained_bpe() -> BPETokenizer:
    return BPETokenizer.train(TEXTS * 3, vocab_size=60)


def voices() -> SynthesisedVoices:
    return SynthesisedVoices(2, 1, engine="formant", digits=True, words=(1, 1))


def started(voice: Voice) -> torch.Tensor:
    return torch.cat([matrix.flatten() for matrix in Voice.mix([voice, voice], [0.25, 0.5]).matrices().values()])


ENTRIES: dict[str, Entry] = {
    **TUNING,
    "BPETokenizer": Entry(kind="object", make=trained_bpe, use=encoded, file=(".json", BPETokenizer.load)),
    "CharacterTokenizer": Entry(kind="object", make=CharacterTokenizer, use=encoded),
    "PhonemeTokenizer": Entry(kind="object", make=PhonemeTokenizer, use=encoded),
    "KMeansMelCodec": Entry(kind="object", make=kmeans_codec, use=decoded, file=(".safetensors", KMeansMelCodec.load)),
    # torch pickles no weight norm, which these two have
    "TransformersCodec": Entry(kind="object", make=transformers_codec, use=decoded, copies=False),
    "WavTokenizerCodec": Entry(kind="object", make=wavtokenizer, use=decoded, copies=False),
    "LinaModel": Entry(kind="object", make=model, use=logits),
    "LinaSpeechModule": Entry(kind="module", build=on_rounds, resume="exact"),
    "SynthesisedVoices": Entry(
        kind="object", make=voices, use=lambda made: torch.cat([row["audio"][::50] for row in made])
    ),
    "TextSpeechDataModule": Entry(kind="data", build=data, resume="exact", state=speech),
    "Voice": Entry(kind="object", make=some_voice, use=started, file=(".safetensors", Voice.load)),
}
