"""The readers of Lina-Speech: manifests, voices, codecs, tokenizers, checkpoints, caches of codes, recordings."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lightning_adapt import BPETokenizer, KMeansMelCodec, Voice, WavTokenizerCodec
from lightning_adapt.lina_speech.codecs.codec import as_codec
from lightning_adapt.lina_speech.codecs.wavtokenizer_config import config_from
from lightning_adapt.lina_speech.corpus.wave_files import samples_of_wave
from lightning_adapt.lina_speech.data.audio import load_audio
from lightning_adapt.lina_speech.data.code_cache import CodeCache, settings_key
from lightning_adapt.lina_speech.data.encode import Preparation, find_encoded
from lightning_adapt.lina_speech.data.fitting import find_fitted
from lightning_adapt.lina_speech.data.manifest import read_manifest
from lightning_adapt.lina_speech.text.characters import CharacterTokenizer
from lightning_adapt.lina_speech.text.tokenizer import as_tokenizer
from lightning_adapt.lina_speech.tuning.fit_checks import load_base
from tests.lina_speech.entries import training
from tests.lina_speech.wavtokenizer_parts import SIZES, checkpoint
from tests.lina_speech.wavtokenizer_parts import weights as published
from tests.properties import file_mutations as w
from tests.properties import mutations as m
from tests.properties.readers import Reader, stored

# -- manifests ---------------------------------------------------------------------------------------------------------
_ROWS = [(f"wavs/{name}.wav", f"it says \u00e9 {name}", "anna", name) for name in ("a", "b", "c", "d")]
_NAMES = ("audio", "text", "speaker", "id")


def manifest_lines(_: Path) -> list[bytes]:
    return ["".join(json.dumps(dict(zip(_NAMES, row, strict=True))) + "\n" for row in _ROWS).encode()]


def manifest_table(separator: str) -> Any:
    text = "".join(separator.join(row) + "\n" for row in (_NAMES, *_ROWS))
    quoted = ",".join(_NAMES) + '\n"a, b.wav","he said ""no""\nand left",x,1\n'
    return lambda _: [text.encode(), *([quoted.encode()] if separator == "," else [])]


def ljspeech(_: Path) -> list[bytes]:
    return [b"LJ001-0001|Printing, in 1900|Printing, in nineteen hundred\nLJ001-0002|a|b|anna\nLJ001-0003|only\n"]


def tree(folder: Path) -> list[bytes]:
    (folder / "anna/1").mkdir(parents=True, exist_ok=True)
    (folder / "anna/1/x.wav").touch()
    return [b"what she says"]


# -- codecs and tokenizers ---------------------------------------------------------------------------------------------
def tokenizer_states(_: Path) -> list[bytes]:
    state = CharacterTokenizer("abc").to_state()
    phonemes = as_tokenizer("phonemes").to_state()
    bpe = BPETokenizer.train(["the theme of the thesis"] * 3, vocab_size=60).to_state()
    return [json.dumps(each).encode() for each in (state, phonemes, bpe, json.loads(bpe["json"]))]


def base_checkpoint(_: Path) -> list[bytes]:
    module, file = training(), io.BytesIO()
    content: dict[str, Any] = {"state_dict": module.state_dict(), "callbacks": {}, "epoch": 1}
    module.on_save_checkpoint(content)
    torch.save(content, file)
    return [file.getvalue()]


def tuned_from(path: Path) -> None:
    load_base(path, training())


def wavtokenizer_checkpoint(folder: Path) -> list[bytes]:
    return [checkpoint(folder).read_bytes()]


def wavtokenizer_weights(_: Path) -> list[bytes]:
    from safetensors.torch import save

    return [save({name: value.contiguous() for name, value in published().items()})]


def wavtokenizer_sizes(_: Path) -> list[bytes]:
    features = {"init_args": {"dowmsamples": [3, 2], "vq_bins": 32, "num_quantizers": 1}}
    backbone = {"init_args": {"input_channels": 16, "dim": 64, "intermediate_dim": 96, "num_layers": 2}}
    head = {"init_args": {"n_fft": 24, "hop_length": 6, "padding": "same"}}
    nested = {"model": {"init_args": {"feature_extractor": features, "backbone": backbone, "head": head}}}
    return [json.dumps(SIZES).encode(), json.dumps(nested).encode()]


# -- caches ------------------------------------------------------------------------------------------------------------
SETTINGS = {"codec": "x", "trim_silence_db": None, "pipeline": 1}


def cached_codes(folder: Path) -> list[bytes]:
    cache = CodeCache(folder / "made", SETTINGS)
    for number in range(4):
        cache.put(f"k{number}", torch.arange(8 + 2 * number).reshape(2, -1), 0.5)
    cache.flush()
    (file,) = cache.folder.glob("*.safetensors")
    return [file.read_bytes()]


def codes_of(path: Path) -> None:
    """Read a file of a cache in the cache's own folder."""
    folder = CodeCache(path.parent, SETTINGS).folder
    folder.mkdir(exist_ok=True)
    path.replace(folder / path.name)
    cache = CodeCache(path.parent, SETTINGS)
    known = [f"k{number}" for number in range(4) if f"k{number}" in cache]
    if known:
        cache.read(known)


SOURCE = SimpleNamespace(identity="source")
CODEC = SimpleNamespace(fingerprint="x")
PREPARATION = Preparation(trim_silence_db=None, min_seconds=0.1, max_seconds=9.0)
OPTIONS = {"n_codebooks": 1, "codebook_size": 8, "seed": 1, "val": None}


def record(_: Path) -> list[bytes]:
    left_out = [{"place": "line 1", "id": "a", "audio": "a.wav", "reason": "empty", "detail": ""}]
    report = {"rows": 2, "left_out": left_out, "notes": {"clipped": 1}}
    rows = [{"id": "b", "text": "t", "speaker": "s", "key": "k"}]
    return [json.dumps({"version": 1, "rows": rows, "report": report}).encode()]


def recorded(path: Path) -> None:
    """Look for a record under its own name, which is a hash of what it depends on."""
    about = {**PREPARATION.settings(CODEC), "source": SOURCE.identity, "seconds": [0.1, 9.0]}
    path.replace(path.with_name(f"rows-{settings_key(about)}.json"))
    find_encoded(SOURCE, CODEC, path.parent, PREPARATION, cache={"k": 1})  # type: ignore[arg-type]


def pointed(path: Path) -> None:
    about = {**OPTIONS, **vars(PREPARATION), "source": SOURCE.identity, "version": 1}
    path.replace(path.with_name(f"fit-{settings_key(about)}.json"))
    find_fitted(SOURCE, path.parent, PREPARATION, OPTIONS)  # type: ignore[arg-type]


# -- recordings --------------------------------------------------------------------------------------------------------
def wave(_: Path) -> list[bytes]:
    samples = b"".join(struct.pack("<h", (n * 997) % 20000 - 10000) for n in range(400))
    head = (
        b"RIFF"
        + struct.pack("<I", 36 + len(samples))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    )
    return [head + b"data" + struct.pack("<I", len(samples)) + samples]


TEXT = (*m.BYTES, *(m.lines,) * 7)
FILES = (*m.BYTES, *(w.header,) * 3, *(w.resealed,) * 11)
READERS: dict[str, Reader] = {
    "manifest in JSON lines": Reader("m.jsonl", manifest_lines, read_manifest, (*TEXT, *(m.json_lines,) * 7)),
    "manifest in CSV": Reader("m.csv", manifest_table(","), read_manifest, TEXT),
    "manifest in TSV": Reader("m.tsv", manifest_table("\t"), read_manifest, TEXT),
    "manifest with bars": Reader("m.csv", manifest_table("|"), read_manifest, TEXT),
    "LJSpeech": Reader("metadata.csv", ljspeech, lambda path: read_manifest(path.parent), TEXT),
    "LibriTTS": Reader("anna/1/x.normalized.txt", tree, lambda path: read_manifest(path.parents[2])),
    "Voice": Reader("v.safetensors", stored("Voice-v1.safetensors", "Voice-prompt-v1.safetensors"), Voice.load, FILES),
    "KMeansMelCodec": Reader(
        "c.safetensors",
        stored("KMeansMelCodec-one-v1.safetensors", "KMeansMelCodec-v1.safetensors"),
        KMeansMelCodec.load,
        FILES,
    ),
    "codec by a path": Reader("c.safetensors", stored("KMeansMelCodec-one-v1.safetensors"), as_codec, FILES),
    "codec of a checkpoint": Reader("c.ckpt", base_checkpoint, as_codec, (*m.BYTES, *(w.saved,) * 7)),
    "BPETokenizer": Reader(
        "t.json", stored("BPETokenizer-small-v1.json"), BPETokenizer.load, (*m.BYTES, *(m.json_file,) * 14)
    ),
    "tokenizer by a path": Reader("t.json", tokenizer_states, as_tokenizer, (*m.BYTES, *(m.json_file,) * 14)),
    "tokenizer of a checkpoint": Reader("t.ckpt", base_checkpoint, as_tokenizer, (*m.BYTES, *(w.saved,) * 7)),
    "base of a tuning": Reader("base.ckpt", base_checkpoint, tuned_from, (*m.BYTES, *(w.saved,) * 7)),
    "WavTokenizer, checkpoint": Reader(
        "w.ckpt",
        wavtokenizer_checkpoint,
        lambda path: WavTokenizerCodec(path, config=SIZES),
        (*m.BYTES, *(w.saved,) * 7),
    ),
    "WavTokenizer, safetensors": Reader(
        "w.safetensors",
        wavtokenizer_weights,
        lambda path: WavTokenizerCodec(path, config=SIZES),
        (*m.BYTES, *(w.header,) * 7),
    ),
    "WavTokenizer, JSON": Reader("c.json", wavtokenizer_sizes, config_from, (*m.BYTES, *(m.json_file,) * 14)),
    "WavTokenizer, YAML": Reader("c.yaml", wavtokenizer_sizes, config_from, (*m.BYTES, *(m.json_file,) * 14)),
    "cache of codes": Reader("x.safetensors", cached_codes, codes_of, (*m.BYTES, *(w.header,) * 7)),
    "record of encoded rows": Reader("r.json", record, recorded, (*m.BYTES, *(m.json_file,) * 14)),
    "pointer to a fitted codec": Reader(
        "p.json", lambda _: [b'{"codec": "c.safetensors"}'], pointed, (*m.BYTES, *(m.json_file,) * 3)
    ),
    "recording": Reader("a.wav", wave, lambda path: load_audio(path, 8000)),
    "wave of a synthesiser": Reader("a.wav", wave, lambda path: samples_of_wave(path.read_bytes())),
}
