"""What a validation shows: sentences of the validation set spoken, how they ended, and where the attention was."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_adapt._shared.audio_log import log_audio
from lightning_adapt._shared.figures import log_figure
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.lina_speech.figures import alignment_figure
from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.model.delay import delay_codes

__all__ = ["Samples", "Shown"]

_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel")  # one process alone cannot call such a model: it would wait forever


class Shown(NamedTuple):
    """An utterance of the validation set.

    Attributes:
        ids: Text ids, from BOS to EOS. Shape (M,), dtype int64.
        codes: Its codes. Shape (Q, N), dtype int64.
    """

    ids: Tensor
    codes: Tensor


class Samples:
    """The first utterances of the validation set, to be spoken and drawn.

    Args:
        wanted: How many to speak; 0 for none.
        figure: Whether to draw the attention.
        every_n_epochs: Epochs between two validations that show something.
    """

    def __init__(self, wanted: int, figure: bool, every_n_epochs: int) -> None:
        self.wanted, self.figure, self.every_n_epochs = wanted, figure, every_n_epochs
        self.shown: list[Shown] = []

    def warn(self, trainer: Any, can_speak: bool) -> None:
        """Say at the beginning of a fit why there will be no audio, if there will be none.

        Args:
            trainer: The Trainer.
            can_speak: Whether there is a codec.
        """
        lines = {"there is no codec to decode it. Pass codec=..., or n_audio_samples=0": self.wanted and not can_speak}
        if self.wanted or self.figure:
            lines["weights are sharded. Pass n_audio_samples=0 and log_figure=False"] = _is_sharded(trainer)
        for reason in (reason for reason, holds in lines.items() if holds):
            rank_zero_warn(f"No audio is logged after validation: {reason}.")

    def collect(self, batch: dict[str, Tensor]) -> None:
        """Keep utterances of a batch until there are enough.

        Args:
            batch: A batch of the validation set.
        """
        missing = max(self.wanted, int(self.figure)) - len(self.shown)
        for row in range(min(max(0, missing), len(batch["text"]))):
            ids = batch["text"][row, : int(batch["text_lengths"][row])]
            self.shown.append(Shown(ids.clone(), batch["codes"][row, :, : int(batch["code_lengths"][row])].clone()))

    def due(self, trainer: Any, can_speak: bool) -> bool:
        """Say whether this validation shows something: those of a fit do, every so many epochs.

        Args:
            trainer: The Trainer.
            can_speak: Whether there is a codec.

        Returns:
            The same on all processes.
        """
        wanted = self.figure or (self.wanted > 0 and can_speak)
        in_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        due = wanted and in_fit and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return due and not _is_sharded(trainer)

    def show(self, trainer: Any, speaker: Speaker, max_seconds: float) -> dict[str, float]:
        """Speak and draw what was collected; what goes wrong there is a warning, and the run goes on.

        Args:
            trainer: The Trainer.
            speaker: The model, with a codec if there is one.
            max_seconds: Longest audio.

        Returns:
            How the speech ended: "stopped_share", and "seconds_per_character" of those that stopped, if any did;
            empty if nothing was spoken.
        """
        try:
            return self._show(trainer, speaker, max_seconds)
        except Exception as error:  # a full disk, a logger without its package, weights of NaN: other processes wait
            reason = " ".join(str(error).split())[:300]
            rank_zero_warn(f"No audio was logged after this validation ({type(error).__name__}: {reason})")
            return {}

    def _show(self, trainer: Any, speaker: Speaker, max_seconds: float) -> dict[str, float]:
        step = trainer.global_step
        if self.figure and self.shown:
            _draw(trainer, speaker, self.shown[0], step)
        spoken = self.shown[: self.wanted] if speaker.codec is not None else []
        return _speak(trainer, speaker, spoken, max_seconds, step) if spoken else {}


def _is_sharded(trainer: Any) -> bool:
    return any(word in type(trainer.strategy).__name__ for word in _SHARDED)


def _speak(trainer: Any, speaker: Speaker, shown: list[Shown], max_seconds: float, step: int) -> dict[str, float]:
    # twice the length of the recordings and a second: an untrained model does not stop
    longest = max(item.codes.shape[1] for item in shown) / speaker.codec.frame_rate_hz
    ids = [item.ids.tolist() for item in shown]
    texts = ["" if speaker.tokenizer is None else speaker.tokenizer.decode(row) for row in ids]
    spoken = speaker.speak_ids(ids, texts=texts, max_seconds=min(max_seconds, 2 * longest + 1.0))
    for number, speech in enumerate(spoken):
        log_audio(trainer, f"lina/sample_{number}", speech.audio, speech.sample_rate_hz, step)
    found = {"stopped_share": sum(speech.stopped for speech in spoken) / len(spoken)}
    ended = [place for place, speech in enumerate(spoken) if speech.stopped]
    if ended:
        characters = sum(len(texts[place]) or len(ids[place]) for place in ended)
        found["seconds_per_character"] = sum(spoken[place].seconds for place in ended) / characters
    return found


def _draw(trainer: Any, speaker: Speaker, shown: Shown, step: int) -> None:
    """Log a figure of the attention while the model hears the recording of an utterance."""
    n_frames, device = shown.codes.shape[1], shown.ids.device
    inputs = delay_codes(shown.codes[None], torch.tensor([n_frames], device=device))[:, :n_frames]
    lengths = torch.tensor([len(shown.ids)], device=device)
    state = None if speaker.initial_state is None else speaker.initial_state.to(device)
    with evaluating(speaker.model):
        made = speaker.model(shown.ids[None], lengths, inputs, state=state, output_attention=True)
    ids, names = shown.ids.tolist(), speaker.tokenizer
    labels = None if names is None else [names.decode([token]) for token in ids]
    rate = None if speaker.codec is None else speaker.codec.frame_rate_hz
    title = "" if names is None else names.decode(ids)
    figure = alignment_figure(made.attention[0], labels, frame_rate_hz=rate, title=title)
    log_figure(trainer, "lina/alignment", figure, step)
