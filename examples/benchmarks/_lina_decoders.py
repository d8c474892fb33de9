"""What decodes in the benchmark of lina_decode.py: the model from its state, and its twin from a cache."""

from __future__ import annotations

from typing import Any, Protocol

import _harness as h
import torch
from _lina_cache_twin import Cache, SdpaTwin, Widths

from lightning_adapt.lina_speech.model.config import preset
from lightning_adapt.lina_speech.model.delay import CODE_OFFSET
from lightning_adapt.lina_speech.model.model import LinaModel

TEXT_TOKENS, PIECE = 60, 500


class Decoder(Protocol):
    """Takes steps from a place that it can return to."""

    def steps(self, n: int) -> None:
        """Decode n steps."""

    def advance(self, n: int) -> None:
        """Get to where n steps lead, in whatever way is quickest."""

    def mark(self, place: int) -> None:
        """Remember where it is, by the number of steps taken."""

    def back_to(self, place: int) -> None:
        """Go on from there."""

    @property
    def nbytes(self) -> int:
        """Bytes of what it knows of the past."""


class _Places:
    """The part that both share: ids, and what is remembered."""

    def __init__(self, batch_size: int, n_codebooks: int) -> None:
        self.ids = torch.ones((batch_size, n_codebooks), dtype=torch.int64)
        self._marks: dict[int, Any] = {}

    def mark(self, place: int) -> None:
        self._marks[place] = (self.ids.clone(), self.remember())

    def back_to(self, place: int) -> None:
        ids, past = self._marks[place]
        self.ids = ids.clone()
        self.recall(past)

    def remember(self) -> Any:
        """Return what is known of the past."""
        raise NotImplementedError

    def recall(self, past: Any) -> None:
        """Know it again."""
        raise NotImplementedError


class StateDecoder(_Places):
    """The model: all it knows of the past is a state of fixed size.

    Args:
        batch_size: Streams at once.
        overrides: Changes to the preset "tiny".
    """

    def __init__(self, batch_size: int, overrides: dict[str, Any]) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = LinaModel(preset("tiny", **overrides)).eval()
        super().__init__(batch_size, self.model.config.n_codebooks)
        text = torch.arange(4, 4 + TEXT_TOKENS).expand(batch_size, -1)
        with torch.inference_mode():
            self.memory = self.model.encode_text(text, torch.full((batch_size,), TEXT_TOKENS))
        self.state = self.model.initial_state(batch_size)

    def steps(self, n: int) -> None:
        """Decode n steps, each with the most likely ids of the one before."""
        with torch.inference_mode():
            for _ in range(n):
                found = self.model.step(self.ids, self.memory, self.state)
                self.ids, self.state = found.logits.argmax(-1), found.state

    def advance(self, n: int) -> None:
        """Run n random codes through the parallel form, which ends in the state that steps end in."""
        generator = torch.Generator().manual_seed(n)
        size, shape = self.model.config.codebook_size, (len(self.ids), n, self.model.config.n_codebooks)
        ids = CODE_OFFSET + torch.randint(0, size, shape, generator=generator)
        with torch.inference_mode():
            for part in ids.split(PIECE, dim=1):
                found = self.model.forward_audio(self.memory, part, state=self.state, output_state=True)
                self.state = found.state
        self.ids = ids[:, -1]

    def remember(self) -> Any:
        return self.state  # states are values: a step makes a new one

    def recall(self, past: Any) -> None:
        self.state = past

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self.state.nbytes


class CacheDecoder(_Places):
    """The twin: it keeps keys and values of every step.

    Args:
        batch_size: Streams at once.
        overrides: Changes to the preset "tiny".
        slots: Most steps.
    """

    def __init__(self, batch_size: int, overrides: dict[str, Any], slots: int) -> None:
        widths = Widths.of(preset("tiny", **overrides))
        super().__init__(batch_size, widths.n_codebooks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = SdpaTwin(widths).eval()
        self.cache = Cache(widths, batch_size, slots)

    def steps(self, n: int) -> None:
        """Decode n steps, each with the most likely ids of the one before."""
        with torch.inference_mode():
            for _ in range(n):
                self.ids = self.model.step(self.ids, self.cache).argmax(-1)

    def advance(self, n: int) -> None:
        """Fill n slots with random numbers, which cost what any others do."""
        generator = torch.Generator().manual_seed(n)
        free = self.cache.past[..., self.cache.filled : self.cache.filled + n, :]
        free.copy_(torch.randn(free.shape, generator=generator))
        self.cache.filled += n

    def remember(self) -> Any:
        return self.cache.filled  # the slots before stay as they are: steps write behind them

    def recall(self, past: Any) -> None:
        self.cache.filled = past

    @property
    def nbytes(self) -> int:
        """Bytes of the filled part of the cache."""
        return self.cache.nbytes


def milliseconds(decoder: Decoder, place: int, steps: int) -> float:
    """Return what a step costs from a place on: processor time with one thread, otherwise the clock."""
    decoder.back_to(place)
    began = h.spent("cpu")
    decoder.steps(steps)
    return 1e3 * (h.spent("cpu") - began) / steps
