"""Lina-Speech: text-to-speech with Gated Linear Attention (Lemerle et al., 2024, arXiv 2410.23320)."""

from lightning_adapt._shared.lazy import attach

# public name -> module of this package that defines it; read by the top level without importing torch
EXPORTS: dict[str, str] = {
    "BPETokenizer": "text.bpe",
    "CharacterTokenizer": "text.characters",
    "InitialStateTuning": "tuning.callback",
    "KMeansMelCodec": "codecs.kmeans_mel",
    "LinaModel": "model.model",
    "LinaSpeechModule": "module",
    "PhonemeTokenizer": "text.phonemes",
    "SynthesisedVoices": "corpus.voices",
    "TextSpeechDataModule": "data.datamodule",
    "TransformersCodec": "codecs.transformers_codec",
    "Voice": "voices.voice",
    "WavTokenizerCodec": "codecs.wavtokenizer",
}

__getattr__, __dir__, __all__ = attach(__name__, {name: f"{__name__}.{where}" for name, where in EXPORTS.items()})
