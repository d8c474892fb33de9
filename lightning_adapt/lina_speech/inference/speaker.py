"""Speaker: texts in, speech out, whole or as a stream; a model, its codec and its tokenizer, without Lightning."""

# ruff: noqa: N806  # suffixes name the dimensions
# B texts, M text tokens

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from lightning_adapt._shared.checks import check_integer, check_positive, problem
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.lina_speech.inference.generate import CodeStreams, GeneratedCodes, generate_codes
from lightning_adapt.lina_speech.inference.ranking import best_candidate
from lightning_adapt.lina_speech.inference.sampling import Drawing, SamplingOptions, stream_key
from lightning_adapt.lina_speech.inference.speech import Speech
from lightning_adapt.lina_speech.inference.voice_states import batch_of_voices, voice_per_text
from lightning_adapt.lina_speech.model.text_encoder import TEXT_PAD

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.inference.voice_states import Voices
    from lightning_adapt.lina_speech.model.model import LinaModel
    from lightning_adapt.lina_speech.model.state import State

__all__ = ["Speaker"]


class Speaker:
    """Speaks texts with a trained model.

    The random numbers of text i of a call with `seed=s` are those of that text alone with `seed=s + i`, whatever else
    is in the batch. The model runs in eval mode, in its own precision and without gradients; training flags and the
    global random state stay as they are.

    Args:
        model: The model.
        codec: Turns codes into audio.
        tokenizer: Turns texts into ids; not needed by `speak_ids`.
        initial_state: What speech without a voice starts from, of one stream; None for zeros.
    """

    def __init__(self, model: LinaModel, codec: Any, tokenizer: Any = None, initial_state: State | None = None) -> None:
        self.model, self.codec, self.tokenizer, self.initial_state = model, codec, tokenizer, initial_state

    def speak(self, texts: Sequence[str], voice: Voices = None, **options: Any) -> list[Speech]:
        """Speak texts.

        Args:
            texts: What to say; at least one character each.
            voice: One `Voice` (or state) for all texts, or one (or None) per text; None for the model's own.
            options: Arguments of `speak_ids`.

        Returns:
            One `Speech` per text.

        Raises:
            TypeError: If the texts are not texts, or an option has the wrong type.
            ValueError: If a text is empty, a voice does not fit, or an option is out of range.
        """
        texts = _listed(texts)
        return self.speak_ids(self.encode(texts), texts=texts, voice=voice, **options)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts.

        Args:
            texts: At least one character each.

        Returns:
            Ids per text, from BOS to EOS.

        Raises:
            TypeError: If `texts` is no sequence of strings.
            ValueError: If a text is empty, or holds nothing that can be spoken.
        """
        texts = _listed(texts)
        ids = [list(self.tokenizer.encode(text)) for text in texts]
        for number, (text, row) in enumerate(zip(texts, ids, strict=True)):
            if not text.strip() or len(row) <= 2:  # the two ends alone
                raise ValueError(problem(f"texts[{number}]", "a text with something to say", text, "Leave it out."))
        return ids

    def speak_ids(
        self,
        ids: Sequence[Sequence[int]],
        *,
        texts: Sequence[str] | None = None,
        voice: Voices = None,
        max_seconds: float = 20.0,
        n_best: int = 1,
        seed: int | Sequence[int] = 0,
        batch_size: int = 16,
        progress: Callable[[float], None] | None = None,
        **drawing: Unpack[Drawing],
    ) -> list[Speech]:
        """Speak texts that are encoded already.

        Args:
            ids: Ids per text, from BOS to EOS.
            texts: The texts, for `Speech.text`.
            voice: One `Voice` (or state) for all texts, or one (or None) per text; None for the model's own.
            max_seconds: Longest audio of a text.
            n_best: Attempts per text, of which the one with the best alignment is kept (see `inference/ranking.py`).
            seed: Of the first text; the others follow. Or one per text.
            batch_size: Streams that are decoded together.
            progress: Is told the seconds of audio so far, now and then.
            drawing: Arguments of `SamplingOptions`: how codes are drawn.

        Returns:
            One `Speech` per text.

        Raises:
            TypeError: If an option has the wrong type.
            ValueError: If an option is out of range, or a voice does not fit.
        """
        options = SamplingOptions(**drawing)
        max_frames = self._max_frames(max_seconds)
        tries = check_integer("n_best", n_best, "Pass 1.", minimum=1)
        at_once = max(1, check_integer("batch_size", batch_size, "Pass 16.", minimum=1) // tries)
        seeds = _seeds(seed, len(ids))
        voices = voice_per_text(self.model, voice, len(ids), self.initial_state, self.codec)
        spoken: list[Speech] = []
        for start in range(0, len(ids), at_once):
            part = slice(start, start + at_once)
            keys = [stream_key(text, attempt) for text in seeds[part] for attempt in range(tries)]
            told = self._told(progress, sum(speech.seconds for speech in spoken), tries)
            with _deciding(self.model):
                memory, state = self._begin(ids[part], voices[part], tries)
                found = generate_codes(
                    self.model, memory, state=state, options=options, max_frames=max_frames, keys=keys, progress=told
                )
            for place, row in enumerate(range(start, min(start + at_once, len(ids)))):
                best = _best(found[place * tries : (place + 1) * tries], len(ids[row]))
                spoken.append(self._speech(best, "" if texts is None else texts[row]))
        return spoken

    def stream(
        self,
        text: str,
        voice: Voices = None,
        *,
        chunk_frames: int = 25,
        max_seconds: float = 20.0,
        seed: int = 0,
        **drawing: Unpack[Drawing],
    ) -> Iterator[Tensor]:
        """Speak one text piece by piece; the joined pieces are the audio of `speak([text])` with the same options.

        Between two pieces the model is as it was before: nothing keeps it in eval mode.

        Args:
            text: What to say.
            voice: The voice; None for the model's own.
            chunk_frames: Frames that are decoded for each piece.
            max_seconds: As in `speak_ids`.
            seed: Likewise.
            drawing: Likewise.

        Returns:
            An iterator over samples. Shape (s,) with s >= 1, dtype float32, on the CPU.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If an argument is out of range, or the voice does not fit.
        """
        if not isinstance(text, str):
            raise TypeError(problem("text", "a string", text, "Use generate() for several texts."))
        per_piece = check_integer("chunk_frames", chunk_frames, "Pass 25.", minimum=1)
        options = SamplingOptions(**drawing)
        max_frames, keys = self._max_frames(max_seconds), [stream_key(_seeds(seed, 1)[0])]
        ids = self.encode([text])
        voices = voice_per_text(self.model, voice, 1, self.initial_state, self.codec)
        how: dict[str, Any] = {"options": options, "max_frames": max_frames, "keys": keys, "keep_alignment": False}

        def begin() -> CodeStreams:
            return CodeStreams(self.model, *self._begin(ids, voices, 1), **how)

        return self._pieces(begin, per_piece)

    def _pieces(self, begin: Callable[[], CodeStreams], per_piece: int) -> Iterator[Tensor]:
        decoder = self.codec.stream_decoder()
        with _deciding(self.model):
            streams = begin()
        sent, columns = 0, per_piece + self.model.config.n_codebooks - 1
        while streams.running:
            with _deciding(self.model):
                streams.advance(columns)
            columns = per_piece
            codes = streams.codes(0, sent)
            sent += codes.shape[1]
            piece = decoder.push(codes) if codes.shape[1] else torch.empty(0)
            if piece.numel():
                yield piece.cpu()
        piece = decoder.finish()
        if piece.numel():
            yield piece.cpu()

    def _begin(self, ids: Sequence[Sequence[int]], voices: Sequence[Any], tries: int) -> tuple[Any, Any]:
        """Encode the texts once, and repeat each for its attempts."""
        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(row) for row in ids], device=device)
        text_BM = torch.full((len(ids), max(len(row) for row in ids)), TEXT_PAD)
        for row, line in zip(text_BM, ids, strict=True):
            row[: len(line)] = torch.tensor(line)
        memory = self.model.encode_text(text_BM.to(device), lengths).repeat(tries)
        rows = torch.arange(len(ids)).repeat_interleave(tries)
        return memory, batch_of_voices(self.model, voices).select(rows)

    def _max_frames(self, max_seconds: float) -> int:
        seconds = check_positive("max_seconds", max_seconds, "Pass 20.")
        return max(1, int(seconds * self.codec.frame_rate_hz))

    def _told(
        self, progress: Callable[[float], None] | None, before: float, tries: int
    ) -> Callable[[int], None] | None:
        if progress is None:
            return None
        return lambda frames: progress(before + frames / tries / self.codec.frame_rate_hz)

    def _speech(self, found: GeneratedCodes, text: str) -> Speech:
        decoder = self.codec.stream_decoder()
        audio = torch.cat([decoder.push(found.codes), decoder.finish()]).cpu()
        return Speech(audio, self.codec.sample_rate_hz, found.codes, found.stopped, found.alignment, text)


def _listed(texts: Iterable[str]) -> list[str]:
    listed = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in listed):
        raise TypeError(problem("texts", "a list of strings", texts, "Pass ['Hello.'] for one text."))
    return listed


def _seeds(seed: int | Sequence[int], n_texts: int) -> list[int]:
    if isinstance(seed, int) and not isinstance(seed, bool):
        return [seed + number for number in range(n_texts)]
    if not isinstance(seed, (list, tuple)) or len(seed) != n_texts or not all(isinstance(one, int) for one in seed):
        raise TypeError(problem("seed", "a whole number, or one per text", seed, "Pass 0."))
    return list(seed)


def _best(attempts: Sequence[GeneratedCodes], n_tokens: int) -> GeneratedCodes:
    """Choose an attempt, and cut its alignment to the text's own tokens."""
    alignments = [found.alignment[:, :n_tokens].clone() for found in attempts]
    best = best_candidate(alignments, [found.stopped for found in attempts])
    # clones are no inference tensors: they may be trained on
    return GeneratedCodes(attempts[best].codes.clone(), attempts[best].stopped, alignments[best])


@contextmanager
def _deciding(model: LinaModel) -> Iterator[None]:
    with evaluating(model), torch.inference_mode():  # a third faster per step on a CPU than `no_grad` alone
        yield
