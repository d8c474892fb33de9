"""What a module must offer so that the states its recurrences start from can be tuned while its weights stay frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["POSITION", "AcceptsInitialStates"]

POSITION = "position"  # name of the matrix of the recurrence over text positions, where a model has one


@runtime_checkable
class AcceptsInitialStates(Protocol):
    """A LightningModule whose recurrences can start from given matrices instead of zeros.

    These three methods are added to a module as it is. Its own `training_step` is what is optimised; `sequence_losses`
    only measures held-out losses. Its `configure_optimizers` is not used, so it may have several optimizers. With one
    voice the matrices are (1, H, K, V), with several (B, H, K, V): the batch then names the speaker of each row, under
    `speaker_key`, a key of a dict or a place in a tuple. A finished voice is used by hand so:

        module.use_initial_states({name: value[None] for name, value in voice.matrices().items()})

    Two further methods are used where a module has them: `sequence_seconds(batch)` returns the seconds of audio of each
    row, shape (B,), for the record of a voice; `voice_origin()` returns {"model": fingerprint of the model, "codec":
    fingerprint or None, "sample_rate_hz": whole number or None}, so that a voice is refused where it does not belong.
    """

    def initial_state_shapes(self) -> Mapping[str, Sequence[int]]:
        """Return name -> (H, K, V) of every matrix, in the order of the layers; asked when `fit` sets things up.

        The one of a recurrence over positions in the text, if there is one, is named "position".
        """
        ...

    def use_initial_states(self, states: Mapping[str, Tensor] | None) -> None:
        """Start every sequence from these matrices from now on, until the next call.

        Args:
            states: Name -> matrix; names left out start from zeros; None: all start as they do without tuning. Shape
                (1, H, K, V) for all rows of a batch, as with one voice, or (B, H, K, V) for its B rows, as with
                several; float32. Gradients must reach them.
        """
        ...

    def sequence_losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the summed loss of each row of a batch, from the states in use, and the number of its targets.

        Args:
            batch: A batch as the module's own steps get it.

        Returns:
            Sums of the losses and numbers of the targets. Shape (B,) both.
        """
        ...
