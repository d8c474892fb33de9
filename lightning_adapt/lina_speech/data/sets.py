"""SpeechSets: from sources to utterances, by way of the codec and the cache; plain PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_adapt.lina_speech.data.code_cache import CodeCache
from lightning_adapt.lina_speech.data.encode import Encoded, Preparation, encode_source, find_encoded
from lightning_adapt.lina_speech.data.fitting import find_fitted, fit_codec
from lightning_adapt.lina_speech.data.left_out import Report
from lightning_adapt.lina_speech.data.sources import Source
from lightning_adapt.lina_speech.data.split import split_order, split_sizes
from lightning_adapt.lina_speech.data.utterances import Utterances

__all__ = ["SpeechSets", "default_cache_dir"]


class SpeechSets:
    """The utterances to train, validate and test on.

    Args:
        sources: "data", "val" and "test": a manifest or rows; None for none. "val" may be a share of "data".
        codec: As in `TextSpeechDataModule`; None to fit one.
        tokenizer: Likewise.
        preparation: How recordings are prepared.
        fit_options: "n_codebooks" and "codebook_size" of a codec that is fitted, and "seed".
        cache_dir: Folder of the cache; None for `default_cache_dir`.
        progress: Whether to show progress bars.

    Attributes:
        speakers: Sorted names of the speakers of `data`; of the sources that were prepared, while `data` is none of
            them.
    """

    def __init__(
        self,
        sources: dict[str, Any],
        *,
        codec: Any,
        tokenizer: Any,
        preparation: Preparation,
        fit_options: dict[str, Any],
        cache_dir: str | Path | None,
        progress: bool,
    ) -> None:
        self.sources, self.preparation, self.progress = sources, preparation, progress
        self.val_share: float | None = sources["val"] if isinstance(sources["val"], float) else None
        self.cache_dir = default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()
        self._fit_options = {**fit_options, "val": self.val_share}
        self._wanted_codec, self._wanted_tokenizer = codec, tokenizer
        self._codec: Any = None
        self._tokenizer: Any = None
        self._opened: dict[str, Source] = {}
        self._encoded: dict[str, Encoded] = {}
        self._sets: dict[str, Utterances] = {}
        self.speakers: tuple[str, ...] = ()

    @property
    def tokenizer(self) -> Any:
        """What turns texts into token ids."""
        if self._tokenizer is None:
            from lightning_adapt.lina_speech.text.tokenizer import as_tokenizer

            self._tokenizer = as_tokenizer(self._wanted_tokenizer)
        return self._tokenizer

    def codec(self, *, may_write: bool) -> Any:
        """Return the codec, fitted if need be.

        Args:
            may_write: Whether this process may fit one.
        """
        if self._codec is None:
            self._codec = self._fitted(may_write) if self._wanted_codec is None else self._given()
        return self._codec

    def _given(self) -> Any:
        from lightning_adapt.lina_speech.codecs.codec import as_codec

        return as_codec(self._wanted_codec)

    def _fitted(self, may_write: bool) -> Any:
        arguments: tuple[Any, ...] = (self._source("data"), self.cache_dir, self.preparation, self._fit_options)
        found = find_fitted(*arguments)
        if found is None:
            self._check_writer(may_write, "the codec")
            found = fit_codec(*arguments, progress=self.progress)
        return found

    def prepare(self, names: Iterable[str], *, may_write: bool) -> None:
        """Have the codec, and the codes of some sources, in the cache.

        Args:
            names: Of "train", "val" and "test"; those that there are not are passed over.
            may_write: Whether this process may fit and encode; others only read.

        Raises:
            OSError: If the cache cannot be written to.
            RuntimeError: If something is missing that this process must not make.
            ValueError: If no recording of a source is usable.
        """
        for origin in dict.fromkeys(self.origin(name) for name in names):
            if origin is not None and origin not in self._encoded:
                self._encoded[origin] = self._found_or_encoded(origin, may_write)
                self._know_speakers()

    def origin(self, name: str) -> str | None:
        """Return the source that "train", "val" or "test" rows come from; None if there are none."""
        if name == "train" or (name == "val" and self.val_share is not None):
            return "data"
        return None if self.sources[name] is None else name

    def _found_or_encoded(self, origin: str, may_write: bool) -> Encoded:
        codec, source = self.codec(may_write=may_write), self._source(origin)
        cache = CodeCache(self.cache_dir, self.preparation.settings(codec))
        arguments: tuple[Any, ...] = (source, codec, self.cache_dir, self.preparation)
        found = find_encoded(*arguments, cache=cache)
        if found is None:
            self._check_writer(may_write, f"the codes of `{origin}`")
            found = encode_source(*arguments, cache=cache, progress=self.progress)
        return found

    def _check_writer(self, may_write: bool, what: str) -> None:
        if not may_write:
            raise RuntimeError(
                f"{what[0].upper()}{what[1:]} cannot be found in cache_dir={str(self.cache_dir)!r}, where the first "
                "process of this machine should have put them. Pass a folder that all its processes see."
            )

    def _source(self, origin: str) -> Source:
        if origin not in self._opened:
            self._opened[origin] = Source(self.sources[origin], origin)
        return self._opened[origin]

    def utterances(self, name: str, *, may_write: bool) -> Utterances | None:
        """Return the rows of "train", "val" or "test"; None if there are none.

        Args:
            name: Which.
            may_write: As in `prepare`.
        """
        origin = self.origin(name)
        if name not in self._sets and origin is not None:
            self.prepare([name], may_write=may_write)
            encoded = self._encoded[origin]
            rows = encoded.rows if origin == name or self.val_share is None else self._part(encoded.rows, name)
            codes = encoded.cache.read([row["key"] for row in rows])
            self._sets[name] = Utterances(rows, codes, self.tokenizer, self.speakers)
        return self._sets.get(name)

    def _part(self, rows: list[dict[str, str]], name: str) -> list[dict[str, str]]:
        order = split_order([row["id"] for row in rows], self._fit_options["seed"])
        n_val = split_sizes(len(rows), self.val_share or 0.0)
        chosen = order[:n_val] if name == "val" else order[n_val:]
        return [rows[number] for number in sorted(chosen)]

    def _know_speakers(self) -> None:
        data = self._encoded.get("data")
        prepared = self._encoded.values() if data is None else [data]
        speakers = tuple(sorted({row["speaker"] for encoded in prepared for row in encoded.rows}))
        if speakers != self.speakers:
            self.speakers = speakers
            self._sets.clear()  # they number their speakers by the names before

    def reports(self) -> dict[str, Report]:
        """Return what was left out of each source that was prepared."""
        return {origin: encoded.report for origin, encoded in self._encoded.items()}


def default_cache_dir() -> Path:
    """Return the folder for codes under the user's cache: $XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "lightning_adapt" / "lina_speech"
