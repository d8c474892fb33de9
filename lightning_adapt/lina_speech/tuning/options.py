"""What can be asked of initial-state tuning, and the checks of it; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_adapt._shared.checks import check_flag, check_integer, check_positive, check_text, problem
from lightning_adapt.lina_speech.tuning.initial_states import Rank, check_rank
from lightning_adapt.lina_speech.tuning.protocol import POSITION

__all__ = ["TuningOptions", "check_rank_fits", "chosen_shapes"]


@dataclass(frozen=True)
class TuningOptions:
    """The arguments of `InitialStateTuning`, which says what they mean; checked when they are put together.

    Raises:
        TypeError: If one has the wrong type.
        ValueError: If one is out of range.
    """

    voices: tuple[str, ...]
    rank: Rank
    scale: float
    learning_rate: float
    layers: Literal["all"] | tuple[int | str, ...]
    positional_state: bool
    patience: int | None
    max_steps: int | None
    checkpoint: Path | None
    out: Path | None
    consent: str | None
    speaker_key: int | str
    log_figure: bool
    seed: int

    @classmethod
    def checked(cls, voice: Any, **given: Any) -> TuningOptions:
        """Return the options, each of them checked.

        Args:
            voice: A name, or several.
            **given: The other fields, as the user passed them.

        Returns:
            The options.

        Raises:
            TypeError: If one has the wrong type.
            ValueError: If one is out of range.
        """
        voices = check_voices(voice, several_files=given["out"] is not None)
        return cls(
            voices=voices,
            rank=check_rank(given["rank"]),
            scale=check_positive("scale", given["scale"], "Pass 0.02 as the authors."),
            learning_rate=check_positive("learning_rate", given["learning_rate"], "Pass 0.1 as the authors."),
            layers=check_layers(given["layers"]),
            positional_state=check_flag("positional_state", given["positional_state"], "Pass True to tune it, too."),
            patience=_count("patience", given["patience"], "Pass 5, or None to train to the end of the run."),
            max_steps=_count("max_steps", given["max_steps"], "Pass 60, or None to train to the end of the run."),
            checkpoint=_path("checkpoint", given["checkpoint"]),
            out=_path("out", given["out"]),
            consent=_consent(given["consent"]),
            speaker_key=_key(given["speaker_key"]),
            log_figure=check_flag("log_figure", given["log_figure"], "Pass True to log figures."),
            seed=check_integer("seed", given["seed"], "Pass any whole number that is not negative.", maximum=2**62),
        )


def check_voices(voice: Any, *, several_files: bool = False) -> tuple[str, ...]:
    """Check the names of voices.

    Args:
        voice: What the user passed: a name, or several.
        several_files: Whether several names become names of files.

    Returns:
        The names.

    Raises:
        TypeError: If they are no strings.
        ValueError: If there is none, one is empty, comes twice, or cannot be the name of a file.
    """
    names = (voice,) if isinstance(voice, str) else tuple(voice) if isinstance(voice, Iterable) else (voice,)
    remedy = "Pass 'anna', or ['anna', 'ben'] to tune several voices at once."
    if not all(isinstance(name, str) for name in names):
        raise TypeError(problem("voice", "a name or several names", voice, remedy))
    if not names or not all(name.strip() for name in names) or len(set(names)) < len(names):
        raise ValueError(problem("voice", "at least one name, none empty and none twice", voice, remedy))
    if several_files and len(names) > 1:
        bad = [name for name in names if name in (".", "..") or set(name) & set('/\\:*?"<>|\0')]
        if bad:
            remedy = "Rename the speaker, or leave `out` away and save the voices yourself."
            raise ValueError(problem("voice", "names that can be names of files in `out`", bad[0], remedy))
    return names


def check_layers(layers: Any) -> Literal["all"] | tuple[int | str, ...]:
    """Check which layers to tune, as far as that can be said without the model.

    Args:
        layers: What the user passed.

    Returns:
        "all", or the layers.

    Raises:
        TypeError: If it is neither "all" nor numbers and names.
        ValueError: If there is none, or one comes twice.
    """
    if layers == "all":
        return "all"
    allowed, remedy = "'all', or numbers and names of layers", "Pass 'all', [0, 1] or ['gla.0']."
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise TypeError(problem("layers", allowed, layers, remedy))
    chosen = tuple(layers)
    if not all(isinstance(layer, (int, str)) and not isinstance(layer, bool) for layer in chosen):
        raise TypeError(problem("layers", allowed, layers, remedy))
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(problem("layers", f"{allowed}, at least one and none twice", layers, remedy))
    return chosen


def chosen_shapes(
    shapes: Mapping[str, Sequence[int]], layers: Literal["all"] | Sequence[int | str], *, positional_state: bool
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the states that are tuned.

    Args:
        shapes: Name -> (H, K, V) of all there are, in the order of the layers; "position" for that of text positions.
        layers: "all", or numbers (negative ones from the end) and names; "position" is no layer.
        positional_state: Whether to tune "position", too.

    Returns:
        Name -> (H, K, V), in the order of `shapes`.

    Raises:
        ValueError: If there are no shapes, no such layer, one comes twice, or there is no "position".

    Example:
        >>> chosen_shapes({"a": (1, 2, 3), "b": (1, 2, 4), "position": (1, 2, 2)}, [-1], positional_state=False)
        {'b': (1, 2, 4)}
    """
    if not shapes:
        remedy = "Build the layers in `__init__`: those that `configure_model` builds are not there yet in `setup`."
        raise ValueError(problem("module.initial_state_shapes()", "of at least one matrix", dict(shapes), remedy))
    names = [name for name in shapes if name != POSITION]
    wanted = set(names)
    if layers != "all":
        found = [_layer_name(layer, names) for layer in layers]
        wanted = set(found)
        if len(wanted) < len(found):
            raise ValueError(problem("layers", "without a layer that comes twice", list(layers), "Name each once."))
    if positional_state:
        if POSITION not in shapes:
            remedy = "This model has no recurrence over text positions: pass False."
            raise ValueError(problem("positional_state", f"False for a model without {POSITION!r}", True, remedy))
        wanted.add(POSITION)
    return {name: tuple(shape) for name, shape in shapes.items() if name in wanted}


def check_rank_fits(rank: Rank, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise if factors of a rank would be no smaller than the matrix; rank 1 is always allowed.

    Args:
        rank: R, or "full".
        shapes: Name -> (H, K, V) of what is tuned.

    Raises:
        ValueError: If R (K + V) >= K V for one of them, which holds for every R > min(K, V).

    Example:
        >>> check_rank_fits(2, {"gla.0": (2, 4, 8)})
    """
    if rank == "full":
        return
    for name, (_, keys, values) in shapes.items():
        largest = max(1, (keys * values - 1) // (keys + values))
        if rank > largest:
            allowed = f"at most {largest} for the {keys} x {values} matrices of {name!r}"
            remedy = f"Factors of a higher rank take more numbers than the matrices: pass {largest}, or 'full'."
            raise ValueError(problem("rank", allowed, rank, remedy))


def _layer_name(layer: int | str, names: Sequence[str]) -> str:
    if layer == POSITION:
        remedy = "Pass positional_state=True to tune it, too."
        raise ValueError(problem("layers", "names of layers, which the text positions are not", layer, remedy))
    if isinstance(layer, int) and -len(names) <= layer < len(names):
        return names[layer]
    if layer not in names:
        allowed = f"numbers from 0 to {len(names) - 1}, or names among {', '.join(map(repr, names))}"
        raise ValueError(problem("layers", allowed, layer, "Leave it out to tune all layers."))
    return str(layer)


def _count(argument: str, value: Any, remedy: str) -> int | None:
    return None if value is None else check_integer(argument, value, remedy, minimum=1)


def _path(argument: str, value: Any) -> Path | None:
    if value is None:
        return None
    try:
        path = Path(value).expanduser()
    except TypeError as error:
        raise TypeError(problem(argument, "a path or None", value, "Pass 'anna.safetensors'.")) from error
    if not str(value).strip():
        raise ValueError(problem(argument, "a path or None", value, "Leave it out for no file."))
    return path


def _key(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value.strip():
        kind = ValueError if isinstance(value, str) else TypeError
        remedy = "Pass 'speaker', or 1 for the second part of a tuple."
        raise kind(problem("speaker_key", "a key of a batch or a place in it", value, remedy))
    return value


def _consent(value: Any) -> str | None:
    remedy = "Write down who agreed to what, or leave it out."
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(problem("consent", "a text or None", value, remedy))
    return check_text("consent", value, remedy)
