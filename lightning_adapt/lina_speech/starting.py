"""What a LinaSpeechModule starts from: its own state, or states that something else tunes, with their losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.fingerprint import known_fingerprint
from lightning_adapt.lina_speech.batches import check_batch
from lightning_adapt.lina_speech.model.delay import delay_codes
from lightning_adapt.lina_speech.model.model import LinaModel
from lightning_adapt.lina_speech.model.state import State, completed_state
from lightning_adapt.lina_speech.speech_metrics import counted_targets, target_losses

__all__ = ["StartsFromStates"]


class StartsFromStates:
    """Adds to a LightningModule what `AcceptsInitialStates` of `tuning/protocol.py` asks for.

    States in use go before `initial_state`: in training, evaluation, predictions and speech without a voice.
    """

    model: LinaModel
    initial_state: State | None
    _in_use: State | None = None

    @property
    @abstractmethod
    def codec(self) -> Any:
        """Turns codes into audio; may be None."""

    @abstractmethod
    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        inputs: Tensor,
        lengths: Tensor | None = None,
        state: State | None = None,
    ) -> Tensor:
        """Return the scores of the next column of ids."""

    # -- what states there are ----------------------------------------------------------------------------------------
    def initial_state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape (H, K, V) of the matrix of each recurrence by its name.

        Returns:
            "gla.0", "gla.1", ... in the order of the layers, then "position" if the cross-attention is blind.
        """
        layout = self.model.initial_state(1).layout()
        return {name: shape for name, shape in layout.items() if len(shape) == 3}

    def use_initial_states(self, states: Mapping[str, Tensor] | None) -> None:
        """Start all utterances from given matrices until the next call.

        Args:
            states: Name as in `initial_state_shapes` -> matrices for one utterance after the other, or one for all.
                Shape (B, H, K, V) or (1, H, K, V). Names that are left out start from zeros, and so do short
                convolutions. Gradients reach the tensors, whose float32 is kept under autocast. None: start as before,
                from `initial_state` or zeros.

        Raises:
            TypeError: If it is neither None nor a mapping to tensors.
            ValueError: If there is no such name, a shape does not fit, or the numbers of rows differ.
        """
        if states is None:
            self._in_use = None
            return
        if not isinstance(states, Mapping) or not all(isinstance(value, Tensor) for value in states.values()):
            raise TypeError(problem("states", "a dict from names to tensors, or None", states, "Pass {} for zeros."))
        shapes = self.initial_state_shapes()
        for name in states:
            if name not in shapes:
                remedy = "Ask `initial_state_shapes()` for the names."
                raise ValueError(problem("states", "named " + ", ".join(shapes), name, remedy))
        self._in_use = completed_state(states, self.model.initial_state(1), "states")

    def _beginning(self) -> State | None:
        """Return what the utterances of a batch start from; None for zeros."""
        start = self.initial_state if self._in_use is None else self._in_use
        return None if start is None else start.to(self.model.embedding.device)

    def _beginning_of_one(self) -> State | None:
        """Return what speech without a batch starts from: states in use if they are one for all."""
        return self._in_use if self._in_use is not None and self._in_use.batch_size == 1 else self.initial_state

    # -- losses -------------------------------------------------------------------------------------------------------
    def _predicted(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, targets and losses of a batch."""
        n_codebooks = self.model.config.n_codebooks
        check_batch(batch, n_codebooks)
        ids = delay_codes(batch["codes"], batch["code_lengths"])
        lengths = batch["code_lengths"] + n_codebooks
        logits = self(batch["text"], batch["text_lengths"], ids[:, :-1], lengths, self._beginning())  # type: ignore[operator]
        return logits, ids[:, 1:], target_losses(logits, ids[:, 1:])

    def sequence_losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the loss of each utterance of a batch, from the states in use; nothing is logged.

        Args:
            batch: As in training.

        Returns:
            Sum of the losses over all codebooks in nats, shape (B,), float32; number of targets, shape (B,), int64.
        """
        _, targets, losses = self._predicted(batch)
        return losses.sum((1, 2)), counted_targets(targets).sum((1, 2))

    def sequence_seconds(self, batch: Any) -> Tensor | None:
        """Return the seconds of audio of each utterance of a batch.

        Args:
            batch: As in training.

        Returns:
            Shape (B,), float32; None without a codec, whose frame rate is needed.
        """
        if self.codec is None:
            return None
        seconds: Tensor = batch["code_lengths"].to(torch.float32) / self.codec.frame_rate_hz
        return seconds

    def voice_origin(self) -> dict[str, Any]:
        """Return what a voice made with this module belongs to.

        Returns:
            {"model": fingerprint of the weights, "codec": its fingerprint or None, "sample_rate_hz": its or None}.
        """
        codec = {"codec": None, "sample_rate_hz": None}
        if self.codec is not None:
            codec = {"codec": self.codec.fingerprint, "sample_rate_hz": self.codec.sample_rate_hz}
        return {"model": known_fingerprint(self.model), **codec}
