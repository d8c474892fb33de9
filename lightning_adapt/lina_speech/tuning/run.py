"""TuningRun: all that one fit of initial-state tuning keeps; imports nothing of Lightning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt._shared.state import reading_state
from lightning_adapt.lina_speech.tuning.best_states import BestStates, as_tensors, mean_of
from lightning_adapt.lina_speech.tuning.held_out_sums import HeardSeconds, HeldOutSums, Reduce
from lightning_adapt.lina_speech.tuning.initial_states import InitialStates
from lightning_adapt.lina_speech.tuning.options import TuningOptions, check_rank_fits, chosen_shapes
from lightning_adapt.lina_speech.tuning.speaker_rows import SpeakerRows
from lightning_adapt.lina_speech.voices.voice import Voice

__all__ = ["TuningRun", "origin_of"]


class TuningRun:
    """The states that are tuned, the best of them so far, and what was measured.

    Args:
        options: What was asked for.
        module: What accepts initial states.
        speakers: Names that the speakers of a batch are places in; None for the voices.

    Raises:
        ValueError: If a layer is not there, or the rank is too high for a layer.
    """

    def __init__(self, options: TuningOptions, module: Any, speakers: Sequence[str] | None) -> None:
        self.options = options
        shapes = module.initial_state_shapes()
        chosen = chosen_shapes(shapes, options.layers, positional_state=options.positional_state)
        check_rank_fits(options.rank, chosen)
        n_voices = len(options.voices)
        sizes: dict[str, Any] = {"rank": options.rank, "scale": options.scale, "seed": options.seed}
        self.states = InitialStates(chosen, n_voices=n_voices, **sizes)
        self.know_speakers(speakers)
        self.best = BestStates(n_voices)
        self.sums, self.heard = HeldOutSums(n_voices), HeardSeconds(n_voices)
        self.origin: dict[str, Any] = {"model": None, "codec": None, "sample_rate_hz": None}
        self._last: dict[str, Tensor] | None = None  # where training stood when the best states took its place

    @property
    def finished(self) -> bool:
        """Whether training is over, so that the states are those of the voices."""
        return self._last is not None

    def know_speakers(self, speakers: Sequence[str] | None) -> None:
        """Take the speakers of a batch for places in these names from now on; None for places in the voices."""
        self.speakers = SpeakerRows(self.options.voices, self.options.speaker_key, speakers)

    # -- states in use ------------------------------------------------------------------------------------------------
    def use(self, module: Any, batch: Any) -> Tensor | None:
        """Start a batch from the states of its voices.

        Args:
            module: What accepts initial states.
            batch: The batch.

        Returns:
            Number of the voice of each row; None with one voice.

        Raises:
            TypeError: If the batch does not name its speakers, where there are several voices.
            ValueError: If a speaker is none of the voices.
        """
        rows = self.speakers.rows(batch)
        module.use_initial_states(self.states.matrices(rows))
        return rows

    def rest(self, module: Any) -> None:
        """Between batches, start from the only voice, without gradients; with several, as without tuning."""
        if self.states.n_voices > 1:
            module.use_initial_states(None)
            return
        with torch.no_grad():
            module.use_initial_states({name: value.detach() for name, value in self.states.matrices().items()})

    # -- held-out losses ----------------------------------------------------------------------------------------------
    def begin_validation(self) -> None:
        """Forget the sums of an earlier validation, such as one that an error ended."""
        self.sums = HeldOutSums(self.states.n_voices)

    def measure(self, module: Any, batch: Any) -> None:
        """Add the held-out losses of a batch, and at the first validation those of the base beside them.

        Args:
            module: What accepts initial states, with those of the batch in use.
            batch: The batch.

        Raises:
            TypeError: As `use`.
            ValueError: As `use`, or if the losses have the wrong form.
        """
        rows = self.speakers.rows(batch)
        with torch.no_grad():
            self.sums.add(rows, module.sequence_losses(batch), untuned=False)
            if not self.best.untuned:
                module.use_initial_states({})  # zeros, as a voice that keeps the base has, whatever else it starts from
                self.sums.add(rows, module.sequence_losses(batch), untuned=True)

    def end_validation(self, step: int, reduce: Reduce) -> dict[str, float]:
        """Compare what was measured with the best so far.

        Args:
            step: Optimizer steps so far.
            reduce: Sums over all processes.

        Returns:
            What to log; empty if nothing was measured.
        """
        tuned, untuned = self.sums.means(reduce)
        self.begin_validation()
        if not self.best.untuned:
            self.best.begin(untuned)
        self.best.offer(step, tuned, self.states.values)
        mean, base = mean_of(tuned), mean_of(self.best.untuned)
        values = {"lina/held_out_loss": mean, "lina/held_out_untuned": base, "lina/held_out_ratio": _ratio(mean, base)}
        if len(tuned) > 1:
            for name, loss, before in zip(self.options.voices, tuned, self.best.untuned, strict=True):
                values[f"lina/held_out_ratio/{name}"] = _ratio(loss, before)
        return {name: value for name, value in values.items() if value == value}  # NaN: no data of this voice

    @property
    def out_of_patience(self) -> bool:
        """Whether no voice got better for long enough."""
        return self.options.patience is not None and self.best.waited >= self.options.patience

    # -- the end ------------------------------------------------------------------------------------------------------
    def finish(self) -> None:
        """Put the best states in the place of the last ones; where nothing was measured, those that are there stay."""
        if not self.finished:
            self._last = self.states.values()
        for number, values in enumerate(self.best.values):
            if values is not None:
                self.states.load_values(values, number)
            elif self.best.measured(number):
                self.states.clear(number)

    def voices(self) -> dict[str, Voice]:
        """Return the voices by name, from the states as they are.

        Raises:
            ValueError: If the states of one are not finite.
        """
        found, broken = self.whole_voices()
        if broken is not None:
            raise broken
        return found

    def whole_voices(self) -> tuple[dict[str, Voice], ValueError | None]:
        """Return the voices whose states are finite by name, and what is wrong with the first of the others."""
        found: dict[str, Voice] = {}
        broken = None
        for number, name in enumerate(self.options.voices):
            try:
                found[name] = self._voice(name, number)
            except ValueError as error:  # noqa: PERF203  # of each voice by itself
                broken = broken or ValueError(f"Voice {name!r}: {error}")
        return found, broken

    def _voice(self, name: str, number: int) -> Voice:
        losses = None
        if self.best.measured(number):
            losses = {"untuned": self.best.untuned[number], "tuned": self.best.losses[number]}
            losses = losses if all(map(math.isfinite, losses.values())) else None
        return Voice(
            name=name,
            tensors=self.states.voice_tensors(number),
            model_fingerprint=self.origin["model"],
            codec_fingerprint=self.origin["codec"],
            sample_rate_hz=self.origin["sample_rate_hz"],
            training_seconds=self.heard.of(number),
            held_out=losses,
            consent=self.options.consent,
        )

    def warnings(self) -> list[str]:
        """Return what the user should know about the result."""
        found, names = [], self.options.voices
        unmeasured = [name for number, name in enumerate(names) if not self.best.measured(number)]
        if unmeasured and self.options.patience is not None:
            found.append(
                f"InitialStateTuning(patience={self.options.patience}) had no held-out data of {_joined(unmeasured)}: "
                "the last states are kept, which may be overfitted. Validate on some data of each voice, or pass "
                "patience=None."
            )
        kept = [
            name for number, name in enumerate(names) if self.best.measured(number) and not self.best.values[number]
        ]
        if kept:
            found.append(
                f"Nothing that was tuned was better than the base on the held-out data of {_joined(kept)}: the base is "
                "kept, with states of zeros. Tune on more data, at a lower learning rate or of lower rank, or validate "
                "more often."
            )
        return found

    # -- saving -------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return all of it in plain values."""
        return {
            "voices": list(self.options.voices),
            "rank": self.options.rank,
            "scale": self._scale,
            "layers": list(self.states.shapes),
            "values": self.states.values() if self._last is None else dict(self._last),
            "best": self.best.state_dict(),
            "heard": self.heard.state_dict(),
            "origin": dict(self.origin),
        }

    @property
    def _scale(self) -> float | None:
        """The factor that the saved values are multiplied by; None where there is none."""
        return None if self.options.rank == "full" else self.options.scale

    @reading_state("InitialStateTuning")
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state: The state.

        Raises:
            ValueError: If it is of other voices, layers, or another rank or scale.
        """
        options = self.options
        here: dict[str, Any] = {"voice": list(options.voices), "rank": options.rank, "layers": list(self.states.shapes)}
        if "scale" in state:  # not in states that version 0.1 wrote at first
            here["scale"] = self._scale
        for argument, value in here.items():
            saved = state["voices" if argument == "voice" else argument]
            if saved != value:
                remedy = "Go on with the settings of the saved run, or begin anew without its checkpoint."
                raise ValueError(problem(argument, f"that of the saved run, {saved!r}", value, remedy))
        self.states.load_values(as_tensors(state["values"]))
        self.best.load_state_dict(state["best"])
        self.heard.load_state_dict(state["heard"])
        self.origin, self._last = dict(state["origin"]), None


def origin_of(module: Any) -> dict[str, Any]:
    """Return what voices tuned with a module belong to: fingerprints of "model" and "codec", and "sample_rate_hz"."""
    own = getattr(module, "voice_origin", None)
    if own is not None:
        return dict(own())
    return {"model": weights_fingerprint(module), "codec": None, "sample_rate_hz": None}


def _ratio(loss: float, base: float) -> float:
    return loss / base if base else float("nan")


def _joined(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
