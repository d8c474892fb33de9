"""A codec without signal processing, a tiny model with a life of its own, and short runs, for the tests of speech."""

from __future__ import annotations

import string

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset

from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.model.config import preset
from lightning_adapt.lina_speech.model.model import LinaModel
from lightning_adapt.lina_speech.module import LinaSpeechModule

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}
SMALL = {
    "d_model": 32,
    "n_encoder_layers": 1,
    "n_decoder_layers": 1,
    "n_heads": 2,
    "n_text_layers": 1,
    "n_text_heads": 2,
    "d_blind": 16,
    "gate_rank": 4,
}
TEXTS = ["a short one", "this one is a good deal longer than that", "x", "and here are a few words"]
HOP = 8


class Letters:
    """Characters of ASCII as ids; what the interface of a tokenizer asks for, and no more."""

    vocab_size = 4 + len(string.printable)
    fingerprint = "Letters-0"

    def encode(self, text):
        return [1, *(4 + string.printable.index(character) for character in text), 2]

    def decode(self, ids):
        return "".join(string.printable[number - 4] for number in ids if number >= 4)

    def to_state(self):
        return {"kind": "letters"}


class Steps:
    """A codec whose frames are `HOP` equal samples, with one frame of memory, so that pieces must be joined rightly."""

    sample_rate_hz, frame_rate_hz = 400, 50.0

    def __init__(self, n_codebooks=1, codebook_size=12, name="a"):
        self.n_codebooks, self.codebook_size, self.name = n_codebooks, codebook_size, name

    @property
    def fingerprint(self):
        return f"Steps-{self.n_codebooks}x{self.codebook_size}-{self.name}"

    def to_state(self):
        return {"kind": "steps", "name": self.name}

    def encode(self, audio):
        raise NotImplementedError("nothing is encoded here")

    def decode(self, codes):
        values = codes.double().sum(0) / (codes.shape[0] * self.codebook_size)
        before = torch.cat([torch.zeros(1, dtype=torch.float64), values[:-1]])
        return ((values + before) / 2).float().repeat_interleave(HOP)

    def stream_decoder(self):
        return StepsDecoder(self)


class StepsDecoder:
    """Gives a frame out one frame late."""

    def __init__(self, codec):
        self.codec, self.codes, self.given = codec, torch.empty(codec.n_codebooks, 0, dtype=torch.int64), 0

    def push(self, codes):
        self.codes = torch.cat([self.codes, codes], 1)
        return self._until(max(0, self.codes.shape[1] - 1))

    def finish(self):
        return self._until(self.codes.shape[1])

    def _until(self, end):
        audio = self.codec.decode(self.codes)[self.given * HOP : end * HOP]
        self.given = end
        return audio


def lively(n_codebooks=1, *, seed=0, end_bias=0.0, codebook_size=12, **options):
    """A random model whose choices depend on text and past; its weights are larger than those of a new model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"n_codebooks": n_codebooks, "codebook_size": codebook_size, "text_vocab_size": Letters.vocab_size}
        model = LinaModel(preset("tiny", **{**SMALL, **sizes, **options}))
        with torch.no_grad():
            for name, value in model.named_parameters():
                if value.ndim >= 2 and "embed" not in name:
                    value.mul_(4.0 if name == "head" else 2.0)
    return model if not end_bias else EndsSooner(model, end_bias)


class EndsSooner:
    """The model with a constant on the logit of the end in every codebook."""

    def __init__(self, model, bias):
        self.model, self.bias = model, bias

    def step(self, *arguments, **options):
        made = self.model.step(*arguments, **options)
        logits = made.logits.clone()
        logits[..., 2] += self.bias
        return made._replace(logits=logits)

    def __getattr__(self, name):
        return getattr(self.model, name)


def speaker(n_codebooks=1, **options):
    return Speaker(lively(n_codebooks, **options), Steps(n_codebooks), Letters())


class Utterances(Dataset):
    """Texts and codes that follow from the texts: each letter is spoken for two frames."""

    def __init__(self, count=12, n_codebooks=1, start=0):
        words = ["one", "two", "three", "four", "five", "six", "seven"]
        self.texts = [" ".join(words[(row + i) % 7] for i in range(1 + row % 3)) for row in range(start, start + count)]
        self.n_codebooks = n_codebooks

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, row):
        letters = [ord(letter) % 12 for letter in self.texts[row]]
        codes = torch.tensor(letters).repeat_interleave(2)
        return Letters().encode(self.texts[row]), torch.stack([(codes + i) % 12 for i in range(self.n_codebooks)]), row


def collate(items):
    texts, codes, rows = zip(*items, strict=True)
    longest = max(code.shape[1] for code in codes)
    return {
        "text": torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True),
        "text_lengths": torch.tensor([len(text) for text in texts]),
        "codes": torch.stack([torch.nn.functional.pad(code, (0, longest - code.shape[1])) for code in codes]),
        "code_lengths": torch.tensor([code.shape[1] for code in codes]),
        "index": torch.tensor(rows),
    }


def loader(count=12, *, batch_size=4, n_codebooks=1, start=0, shuffle=False):
    order = torch.Generator().manual_seed(5)
    rows = Utterances(count, n_codebooks, start)
    return DataLoader(rows, batch_size, collate_fn=collate, shuffle=shuffle, generator=order)


def batch_of(count=4, n_codebooks=1):
    return next(iter(loader(count, batch_size=count, n_codebooks=n_codebooks)))


def module(n_codebooks=1, **options):
    """A small module without codec and tokenizer; weights depend on nothing."""
    sizes = {"n_codebooks": n_codebooks, "codebook_size": 12, "text_vocab_size": Letters.vocab_size}
    defaults = {"overrides": SMALL, "learning_rate": 5e-3, "warmup_steps": 2, "n_audio_samples": 0, **sizes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LinaSpeechModule(**{**defaults, **options})


def fit(made, train=None, val=None, ckpt_path=None, **options):
    trainer = Trainer(**{**QUIET, "max_epochs": 1, **options})
    data = {"train_dataloaders": train or loader(), "val_dataloaders": val}
    trainer.fit(made, **data, ckpt_path=ckpt_path, weights_only=True)
    return trainer
