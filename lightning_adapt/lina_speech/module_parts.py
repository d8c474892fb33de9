"""What a LinaSpeechModule needs beside its weights: codec and tokenizer, adopted, kept in checkpoints, told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.state import check_plain, read_version, reading_state, to_plain, with_version
from lightning_adapt.lina_speech.codecs.codec import as_codec, codec_from_state
from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.model.config import LinaConfig
from lightning_adapt.lina_speech.model.model import LinaModel
from lightning_adapt.lina_speech.model.state import State
from lightning_adapt.lina_speech.saved_parts import PARTS_KEY, PARTS_VERSION
from lightning_adapt.lina_speech.text.tokenizer import as_tokenizer, tokenizer_from_state

__all__ = ["MaybeCompiled", "SpeechParts", "checked_overrides", "seeded"]

_BUILDERS: dict[str, Callable[[Any], Any]] = {"codec": codec_from_state, "tokenizer": tokenizer_from_state}
_READERS: dict[str, Callable[[Any], Any]] = {"codec": as_codec, "tokenizer": as_tokenizer}
_REMEDIES = {
    "codec": "With another codec the codes mean other sounds: use the one that the model was trained with.",
    "tokenizer": "With another tokenizer the ids mean other characters: use the one that the model was trained with.",
}


class SpeechParts:
    """Codec and tokenizer of a model, or None until they are known.

    Args:
        config: Sizes of the model, which they must fit.
        codec: A codec, what `as_codec` makes one of, or None.
        tokenizer: A tokenizer, the name or file of one, or None.

    Raises:
        TypeError: If one is not a codec or not a tokenizer.
        OSError: If there is no such file or name.
        ValueError: If they do not fit the model.
    """

    def __init__(self, config: LinaConfig, codec: Any, tokenizer: Any) -> None:
        self.config = config
        self.codec: Any = None
        self.tokenizer: Any = None
        given = {"codec": codec, "tokenizer": tokenizer}
        self._take(**{name: None if value is None else _READERS[name](value) for name, value in given.items()})

    def adopt(self, source: Any) -> None:
        """Take what is missing from another object, and refuse it where it has another codec or tokenizer.

        Args:
            source: A DataModule, or None.

        Raises:
            OSError: If it names one that is not there.
            TypeError: If what it has is neither codec nor tokenizer.
            ValueError: If it has another one, both fingerprints named; or one that does not fit the model.
        """
        found = {}
        for name in _BUILDERS:
            own, theirs = getattr(self, name), getattr(source, name, None)
            if theirs is not None:
                theirs = _READERS[name](theirs)
            if own is not None and theirs is not None:
                _check_same(name, theirs, own.fingerprint, "the model")
            found[name] = theirs if own is None else own
        self._take(**found)

    def speaker(self, model: LinaModel, *needed: str, initial_state: State | None = None) -> Speaker:
        """Return what speaks with both.

        Args:
            model: The model.
            needed: "codec", "tokenizer" or both.
            initial_state: What speech without a voice starts from; None for zeros.

        Returns:
            The speaker.

        Raises:
            ValueError: If one that is needed is missing.
        """
        for name in needed:
            if getattr(self, name) is None:
                remedy = f"Pass {name}=... to LinaSpeechModule, or run it with TextSpeechDataModule."
                raise ValueError(problem(name, "given, in order to speak", None, remedy))
        return Speaker(model, self.codec, self.tokenizer, initial_state)

    def save(self, checkpoint: MutableMapping[str, Any]) -> None:
        """Write both into a checkpoint.

        Args:
            checkpoint: What is about to be saved.

        Raises:
            TypeError: If the state of one could not be read back; names the value.
        """
        state: dict[str, Any] = {}
        for name in _BUILDERS:
            part = getattr(self, name)
            state[name] = None if part is None else {"fingerprint": part.fingerprint, "state": part.to_state()}
        check_plain(state, PARTS_KEY)
        checkpoint[PARTS_KEY] = with_version(state, PARTS_VERSION)

    @reading_state("LinaSpeechModule")
    def load(self, checkpoint: MutableMapping[str, Any]) -> None:
        """Take what is missing from a checkpoint, and refuse it where it has another codec or tokenizer.

        Args:
            checkpoint: What was loaded.

        Raises:
            ValueError: If it is not from a `LinaSpeechModule`, or has another one, both fingerprints named.
        """
        saved: Any = checkpoint.get(PARTS_KEY)
        read_version(saved, PARTS_VERSION, "LinaSpeechModule")
        found = {}
        for name, build in _BUILDERS.items():
            found[name] = getattr(self, name)
            if saved[name] is not None:
                if found[name] is None:
                    found[name] = build(saved[name]["state"])
                _check_same(name, found[name], saved[name]["fingerprint"], "the checkpoint")
        self._take(**found)

    def _take(self, codec: Any, tokenizer: Any) -> None:
        if codec is not None:
            for name in ("n_codebooks", "codebook_size"):
                wanted, found = getattr(self.config, name), getattr(codec, name)
                if wanted != found:
                    remedy = f"Pass {name}={found} to LinaSpeechModule."
                    raise ValueError(problem(f"codec.{name}", f"{wanted}, as the model has", found, remedy))
        if tokenizer is not None and tokenizer.vocab_size > self.config.text_vocab_size:
            found = tokenizer.vocab_size
            allowed = f"at most {self.config.text_vocab_size}, the text ids of the model"
            remedy = f"Pass text_vocab_size={found} to LinaSpeechModule."
            raise ValueError(problem("tokenizer.vocab_size", allowed, found, remedy))
        self.codec, self.tokenizer = codec, tokenizer


def _check_same(name: str, here: Any, there: str, where: str) -> None:
    if here.fingerprint != there:
        raise ValueError(problem(name, f"that of {where}, {there}", here.fingerprint, _REMEDIES[name]))


# -- arguments and random numbers --------------------------------------------------------------------------------------
def checked_overrides(value: Any) -> dict[str, Any]:
    """Return the arguments of `LinaConfig` that a user passed, as plain values.

    Args:
        value: A mapping, or None for none.

    Returns:
        Name -> value.

    Raises:
        TypeError: If it is no mapping.
    """
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(problem("overrides", "a dict of arguments of LinaConfig", value, "Pass {'dropout': 0.1}."))
    plain: dict[str, Any] = to_plain(dict(value or {}))
    return plain


@contextmanager
def seeded(key: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global random state, and give it back afterwards: dropout knows no other.

    Args:
        key: 0..2^64-1.
        device: Whose random numbers are needed beside those of the CPU.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(key >> 1)
        yield


# -- torch.compile -----------------------------------------------------------------------------------------------------
class MaybeCompiled:
    """Calls a module, through `torch.compile` where that is wanted and works.

    Compiled code belongs to this object, not to the module: names of weights stay as they are, and copies and pickles
    compile anew.

    Args:
        wanted: Whether to compile.
        warn: Is told, once, why compiling failed; the module then runs as it is.
    """

    def __init__(self, wanted: bool, warn: Callable[[str], Any]) -> None:
        self.wanted, self.warn = wanted, warn
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, module: nn.Module, *arguments: Any, **options: Any) -> Any:
        """Call the module."""
        if not self.wanted:
            return module(*arguments, **options)
        if self._compiled is None:
            self._compiled = torch.compile(module.forward, dynamic=True)
        try:
            return self._compiled(*arguments, **options)
        except Exception as error:  # of a compiler there are many; what is the module's own fault comes again below
            made = module(*arguments, **options)
            self.wanted, self._compiled = False, None
            reason = " ".join(str(error).split())[:200]
            self.warn(f"`compile_model=True` has no effect: torch.compile failed ({type(error).__name__}: {reason}).")
            return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}
