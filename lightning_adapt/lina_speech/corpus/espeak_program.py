"""Finding and starting espeak-ng: the program of the system, or the library of the package `espeakng-loader`."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lightning_adapt.lina_speech.corpus.engine import speakable

__all__ = ["ESPEAK_INSTALL", "EspeakProgram", "find_espeak", "require_espeak"]

ESPEAK_INSTALL = (
    "Run: sudo apt install espeak-ng (or: brew install espeak-ng, or the installer of github.com/espeak-ng). "
    "Without rights to do so, run: pip install espeakng-loader"
)
_TIMEOUT_S = 120


@dataclass(frozen=True)
class EspeakProgram:
    """A way to start espeak-ng.

    Attributes:
        command: First words of the command; the options of espeak-ng follow.
        version: Version text, such as "1.51".
    """

    command: tuple[str, ...]
    version: str

    def run(self, *options: str, text: str = "") -> bytes:
        """Start espeak-ng once and return what it prints.

        Args:
            options: Options, such as "-q", "--ipa".
            text: What it reads from its standard input.

        Returns:
            Its output.

        Raises:
            RuntimeError: If it reports an error or does not end.
        """
        words, said = [*self.command, *options], speakable(text).encode()
        try:  # a list of words, no shell; the text goes through standard input
            done = subprocess.run(words, input=said, capture_output=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"espeak-ng did not end within {_TIMEOUT_S} s for {options}. Pass less text.") from error
        if done.returncode != 0:
            raise RuntimeError(f"espeak-ng failed for {options}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def languages(self) -> tuple[str, ...]:
        """Return the languages and accents it can speak, such as "en-gb", in alphabetical order."""
        return tuple(sorted(_files(self)))

    def variants(self) -> tuple[str, ...]:
        """Return the voice variants that may follow a language after a plus sign, such as "f3"."""
        return _variants(self)

    def check_language(self, language: str) -> bool:
        """Return whether a language is known; capital and small letters are the same to espeak-ng."""
        return self.voice_file(language) is not None

    def voice_file(self, language: str) -> str | None:
        """Return the file of a language, such as "gmw/en" for "en-gb", or None for an unknown one.

        Where the name of a language is not that of its file, espeak-ng (1.51) forgets the variant that follows it:
        "en-gb+f3" sounds like "en-gb", while "gmw/en+f3" sounds as it should.
        """
        return {name.lower(): file for name, file in _files(self).items()}.get(language.lower())


@functools.lru_cache(maxsize=8)
def _files(program: EspeakProgram) -> dict[str, str]:
    found: dict[str, tuple[int, str]] = {}
    for line in program.run("--voices").decode(errors="replace").splitlines()[1:]:
        match = re.match(r" *(\d+) +(\S+) +\S+ +\S+ +(\S+)", line)
        if match and not match[3].startswith(("mb/", "!v/")):  # voices of another program; variants
            found[match[2]] = min(found.get(match[2], (99, "")), (int(match[1]), match[3]))
    return {language: file for language, (_, file) in found.items()}


@functools.lru_cache(maxsize=8)
def _variants(program: EspeakProgram) -> tuple[str, ...]:
    lines = program.run("--voices=variant").decode(errors="replace").splitlines()[1:]
    matches = (re.search(r"!v/(.+?)(?:  +.*)?$", line) for line in lines)
    return tuple(sorted({match[1].strip() for match in matches if match}))


@functools.lru_cache(maxsize=1)
def find_espeak() -> EspeakProgram | None:
    """Return espeak-ng as a program, else the library of `espeakng-loader`, else None."""
    commands: list[tuple[str, ...]] = []
    if program := shutil.which("espeak-ng"):
        commands.append((program,))
    if library := _library_command():
        commands.append(library)
    for command in commands:
        try:
            text = EspeakProgram(command, "").run("--version").decode(errors="replace")
        except (OSError, RuntimeError):
            continue  # not for this machine: try the next one
        found = re.search(r"\d+\.\d+(?:\.\d+)?(?:-\w+)?", text)
        return EspeakProgram(command, found[0] if found else "unknown")
    return None


def require_espeak(feature: str) -> EspeakProgram:
    """Return espeak-ng.

    Args:
        feature: What needs it, for the error text.

    Returns:
        The way to start it.

    Raises:
        ModuleNotFoundError: If it is not there; the message says how to install it.
    """
    program = find_espeak()
    if program is None:
        raise ModuleNotFoundError(f"{feature} needs espeak-ng, which was not found. {ESPEAK_INSTALL}")
    return program


def _library_command() -> tuple[str, ...] | None:
    found = importlib.util.find_spec("espeakng_loader")
    if found is None or not found.origin:
        return None
    folder = Path(found.origin).parent
    library = next((path for path in sorted(folder.iterdir()) if path.suffix in {".so", ".dylib", ".dll"}), None)
    if library is None:
        return None
    # a process of its own: the library holds one voice at a time and keeps noise and pitch from call to call
    script = Path(__file__).with_name("espeak_library.py")
    return (sys.executable, "-I", "-S", str(script), str(library), str(folder / "espeak-ng-data"))
