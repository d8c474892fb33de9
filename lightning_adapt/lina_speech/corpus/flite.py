"""Voices of flite: three of human recordings (awb, rms, slt) and a diphone voice (kal)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from lightning_adapt.lina_speech.corpus.engine import resampled, speakable, unknown_voice
from lightning_adapt.lina_speech.corpus.wave_files import samples_of_wave

__all__ = ["FliteEngine"]

_TIMEOUT_S = 120


class FliteEngine:
    """The engine "flite": American English at 16,000 Hz, by the voices awb, rms (male) and slt (female), and kal16.

    Raises:
        ModuleNotFoundError: If flite is not there.
    """

    name = "flite"
    voices = ("slt", "awb", "rms", "kal16")
    starts_programs = True

    def __init__(self) -> None:
        program = shutil.which("flite")
        if program is None:
            raise ModuleNotFoundError("The engine 'flite' needs flite. Run: sudo apt install flite")
        self.program = program
        version = self._run("--version").stdout.decode(errors="replace").partition("version:")[2].split()
        self.fingerprint = (version or ["flite"])[0]
        self._known = tuple(self._run("-lv").stdout.decode(errors="replace").partition(":")[2].split())

    def check_voice(self, voice: str) -> None:
        """Raise a ValueError that names near ones if there is no such voice; flite itself would take another."""
        if voice not in self._known:
            raise unknown_voice("flite", voice, self._known)

    def speak(self, text: str, voice: str, sample_rate_hz: int) -> torch.Tensor:
        """Return a text as sound.

        Args:
            text: What to say.
            voice: Who says it.
            sample_rate_hz: Rate of the samples; other rates than 16,000 (kal: 8,000) Hz need torchaudio.

        Returns:
            The samples in [-1, 1], shape (S,), float32.

        Raises:
            RuntimeError: If flite makes no sound.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "said.wav"
            done = self._run("-voice", voice, "-t", speakable(text), "-o", str(file))
            samples, rate = samples_of_wave(file.read_bytes() if file.exists() else b"")
        if not samples.size:
            raise RuntimeError(f"flite made no sound for {text!r}: {done.stderr.decode(errors='replace').strip()}")
        return resampled(samples, rate, sample_rate_hz)

    def _run(self, *options: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # noqa: S603 - a list of words, no shell
            [self.program, *options], capture_output=True, timeout=_TIMEOUT_S, check=False
        )
