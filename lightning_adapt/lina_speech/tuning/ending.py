"""The end of a fit of initial-state tuning: where its voices are written, and a line that says what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.files import obstacle_to

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.tuning.run import TuningRun
    from lightning_adapt.lina_speech.voices.voice import Voice

__all__ = ["check_out", "summary", "write_voices"]

_MOST_NAMES = 8  # voices that a line has room for


# -- files -------------------------------------------------------------------------------------------------------------
def check_out(out: Path, names: Sequence[str]) -> None:
    """Raise if voices cannot be written, before any work is done for them.

    Args:
        out: File of the voice, or folder of several.
        names: The voices.

    Raises:
        OSError: If a folder is where a file is needed or the other way round, or the folder may not be written to.
    """
    wanted = "a folder for several voices" if len(names) > 1 else "a file for one voice"
    files = list(_files(out, names).values())
    obstacle = obstacle_to(files)
    if obstacle is None:
        return
    if obstacle in files:
        remedy = f"{str(obstacle)!r} is a folder: pass a file, such as {str(out / 'voice.safetensors')!r}."
        if len(names) > 1:
            remedy = f"{str(obstacle)!r}, where a file is needed, is a folder: pass another path."
    elif obstacle.is_dir():
        remedy = f"You may not write to the folder {str(obstacle)!r}: pass another path."
        wanted = f"{wanted} that can be written"
    else:
        remedy = f"{str(obstacle)!r} is a file: pass another path."
    raise OSError(problem("out", wanted, str(out), remedy))


def write_voices(out: Path, names: Sequence[str], voices: Mapping[str, Voice]) -> None:
    """Write the voices of a fit.

    Args:
        out: File of the voice, or folder of several, for files NAME.safetensors.
        names: Names of all that were tuned.
        voices: Those that came out, by name.

    Raises:
        OSError: If one cannot be written; says where the voices still are.
    """
    for name, file in _files(out, names).items():
        if name in voices:
            _write(name, voices[name], file)


def _write(name: str, voice: Voice, file: Path) -> None:
    try:
        voice.save(file)
    except OSError as error:
        raise OSError(
            f"The voice {name!r} could not be written to {str(file)!r}, which `out` names: {error}. Nothing is lost: "
            f"it is in `callback.voices`, and callback.voices[{name!r}].save(path) saves it elsewhere."
        ) from error


def _files(out: Path, names: Sequence[str]) -> dict[str, Path]:
    return {name: out / f"{name}.safetensors" if len(names) > 1 else out for name in names}


# -- what came out -----------------------------------------------------------------------------------------------------
def summary(run: TuningRun, voices: Mapping[str, Voice], steps: int) -> str:
    """Return one line about a fit that has ended.

    Args:
        run: What was tuned and measured.
        voices: What came out, by name.
        steps: Optimizer steps that were made.

    Returns:
        Held-out losses of each voice, why the fit stopped if tuning stopped it, and what was written.
    """
    told = [_of_voice(run, run.options.voices.index(name), voice) for name, voice in voices.items()]
    if len(told) > _MOST_NAMES:
        told = [*told[:_MOST_NAMES], f"and {len(told) - _MOST_NAMES} more voices"]
    options = run.options
    if options.max_steps is not None and steps >= options.max_steps:
        told.append(f"stopped after max_steps={options.max_steps}")
    elif run.out_of_patience:
        told.append(f"stopped at step {steps}, after {run.best.waited} validations without a better one (patience)")
    if options.out is not None and voices:
        told.append(f"written to {options.out}" + ("; no consent is recorded in it" if options.consent is None else ""))
    return f"InitialStateTuning: {'; '.join(told)}."


def _of_voice(run: TuningRun, number: int, voice: Voice) -> str:
    if voice.held_out is None:
        return f"voice {voice.name!r}, without held-out data"
    step = run.best.best_step(number)
    where = "the base is kept" if step is None else f"best at step {step}"
    losses = f"{voice.held_out['untuned']:.4f} -> {voice.held_out['tuned']:.4f}"
    return f"voice {voice.name!r}, held-out loss untuned -> tuned {losses} ({where})"
