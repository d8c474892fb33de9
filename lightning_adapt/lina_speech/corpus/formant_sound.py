"""Source and filter: glottal pulses and noise through resonators that move from phone to phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from lightning_adapt._shared.hashing import uniform
from lightning_adapt._shared.imports import require
from lightning_adapt.lina_speech.corpus.formant_phones import PHONES, Phone

__all__ = ["FormantVoice", "sound_of"]

_RATE = 16000  # of the synthesis; clicks at moving resonances would grow with it
_FRAMES_PER_SECOND = 200
_HOP = _RATE // _FRAMES_PER_SECOND
_WIDTHS_HZ = (70.0, 100.0, 150.0)  # bandwidths of the first three resonances
_FOURTH_HZ, _SPACING_HZ = 3400.0, 1000.0  # higher resonances of all phones: as a tube of 17 cm has them
_HIGHEST = 0.46  # of the rate: where resonances end
_OPEN_SHARE = 0.6  # of a period the glottis is open
_EDGE_MS = 60.0  # silence before and after
_PEAK = 0.7

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FormantVoice:
    """A speaker.

    Attributes:
        pitch: Mean fundamental frequency in Hz.
        scale: What the formants of a man are multiplied by; 1.18 is a woman's shorter vocal tract.
        speed: What durations are divided by.
        breath: Noise in the voice, from 0 to 1.
        tilt: How dull the voice is, from 0 to 0.95: the pole of a low-pass filter on the pulses.
    """

    pitch: float = 120.0
    scale: float = 1.0
    speed: float = 1.0
    breath: float = 0.05
    tilt: float = 0.3


@dataclass(frozen=True)
class _Tracks:
    """What changes from frame to frame. Shapes (F,), `formants` (F, n)."""

    formants: Array
    voicing: Array
    breath: Array
    friction: Array
    friction_hz: Array
    friction_width_hz: Array
    pitch: Array


def sound_of(phones: Sequence[str], voice: FormantVoice, sample_rate_hz: int, *, key: int = 0) -> Array:
    """Return phones as sound: a cascade formant synthesiser (after Klatt 1980, doi 10.1121/1.383940).

    Differs from Klatt's: one noise resonator in place of the parallel branch, no nasal zeros, and eight formants,
    up to the 8,000 Hz at which this sound ends at any rate.

    Args:
        phones: Names of `PHONES`.
        voice: Who speaks.
        sample_rate_hz: Samples per second.
        key: Decides the noise; equal arguments give equal samples.

    Returns:
        Samples in [-0.7, 0.7], shape (S,), float64.

    Raises:
        ModuleNotFoundError: If SciPy is missing.
    """
    require("speech", "The engine 'formant'", "scipy")
    tracks = _tracks([PHONES[name] for name in phones], voice)
    n_samples = _HOP * len(tracks.pitch)
    noise = (uniform(torch.arange(2 * n_samples), key).numpy().reshape(2, -1) - 0.5) * math.sqrt(12.0)
    glottis = _pulses(tracks, voice) + noise[0] * np.repeat(tracks.breath, _HOP) * 0.3
    mouth = noise[1] * np.repeat(tracks.friction, _HOP) * 0.5
    moving = len(_WIDTHS_HZ)
    widths = np.append(np.array(_WIDTHS_HZ) * voice.scale, 0.06 * tracks.formants[0, moving:])
    filters = _resonators(tracks.formants, np.broadcast_to(widths, tracks.formants.shape))
    band = _band_pass(_resonators(tracks.friction_hz[:, None], tracks.friction_width_hz[:, None]))
    # the resonances that stand still come first: they would blow up what is left of the steps of those that move
    sound = _filtered(filters[:, :moving], _filtered(filters[:, moving:], glottis)) + _filtered(band, mouth)
    return _finished(sound, sample_rate_hz)


def _finished(sound: Array, sample_rate_hz: int) -> Array:
    from scipy.signal import resample_poly

    common = math.gcd(sample_rate_hz, _RATE)
    changed: Array = resample_poly(sound, sample_rate_hz // common, _RATE // common)
    peak = float(np.abs(changed).max())
    return changed * (_PEAK / peak if peak > 0 else 1.0)


def _tracks(phones: Sequence[Phone], voice: FormantVoice) -> _Tracks:
    last_vowel = max((place for place, phone in enumerate(phones) if phone.vowel), default=-1)
    stretches = [1.4 if place == last_vowel else 1.0 for place in range(len(phones))]  # the end of a phrase is slow
    counts = [
        max(1, round(phone.milliseconds * stretch / voice.speed * _FRAMES_PER_SECOND / 1000))
        for phone, stretch in zip(phones, stretches, strict=True)
    ]
    edge = round(_EDGE_MS * _FRAMES_PER_SECOND / 1000)
    counts[0] += edge  # the first and last phone's resonances hold in the silence around them
    counts[-1] += edge
    which = np.repeat(np.arange(len(phones)), counts)
    quiet = np.ones(len(which))
    quiet[:edge] = quiet[-edge:] = 0.0

    def track(values: Sequence[float], milliseconds: float) -> Array:
        return _smooth(np.asarray(values, np.float64)[which], milliseconds)

    formants = np.stack([track([phone.formants[row] for phone in phones], 50) for row in range(3)], 1)
    higher = np.arange(_FOURTH_HZ, _HIGHEST * _RATE / voice.scale, _SPACING_HZ)
    higher = np.broadcast_to(higher, (len(which), len(higher)))
    voicing = _smooth(np.array([phone.voicing for phone in phones])[which] * quiet, 20)
    breath = _smooth(np.array([phone.breath for phone in phones])[which] * quiet, 15)
    return _Tracks(
        formants=np.concatenate([formants, higher], 1) * voice.scale,
        voicing=voicing,
        breath=breath + voicing * voice.breath,
        friction=_smooth(np.array([phone.friction for phone in phones])[which] * quiet, 10),
        friction_hz=np.array([phone.friction_hz for phone in phones])[which] * math.sqrt(voice.scale),
        friction_width_hz=np.array([phone.friction_width_hz for phone in phones])[which],
        pitch=_pitch(phones, which, voice),
    )


def _pitch(phones: Sequence[Phone], which: npt.NDArray[np.int64], voice: FormantVoice) -> Array:
    """Return the fundamental frequency: falling over the utterance, a little higher in every other vowel."""
    fall = np.linspace(1.06, 0.94, len(which))
    accents = np.cumsum([phone.vowel for phone in phones])
    raised = np.array([0.06 if phone.vowel and accents[place] % 2 else 0.0 for place, phone in enumerate(phones)])
    return voice.pitch * (fall + _smooth(raised[which], 80) - 0.02)


def _smooth(values: Array, milliseconds: float) -> Array:
    half = max(1, round(milliseconds * _FRAMES_PER_SECOND / 2000))
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(values, half, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _pulses(tracks: _Tracks, voice: FormantVoice) -> Array:
    """Return the derivative of the glottal flow, a cubic while the glottis is open (Klatt and Klatt 1990)."""
    from scipy.signal import lfilter

    frames = np.arange(len(tracks.pitch)) * _HOP
    samples = np.arange(len(tracks.pitch) * _HOP)
    phase = np.cumsum(np.interp(samples, frames, tracks.pitch) / _RATE) % 1.0
    open_phase = phase / _OPEN_SHARE
    flow = np.where(open_phase < 1.0, 2 * open_phase - 3 * open_phase**2, 0.0)
    dull: Array = lfilter([1 - voice.tilt], [1, -voice.tilt], flow * np.interp(samples, frames, tracks.voicing))
    return dull


def _resonators(frequencies_hz: Array, widths_hz: Array) -> Array:
    """Return second-order sections with gain 1 at 0 Hz. Shapes (F, n) -> (F, n, 6)."""
    frequencies = np.minimum(frequencies_hz, _HIGHEST * _RATE)
    radius = np.exp(-math.pi * widths_hz / _RATE)
    second = -2 * radius * np.cos(2 * math.pi * frequencies / _RATE)
    sections = np.zeros((*frequencies.shape, 6))
    sections[..., 3] = 1.0
    sections[..., 4] = second
    sections[..., 5] = radius**2
    sections[..., 0] = 1 + second + radius**2
    return sections


def _band_pass(sections: Array) -> Array:
    """Return resonators with zeros at 0 Hz and at half the rate, gain near 1 at their centre."""
    changed = sections.copy()
    changed[..., 0] = (1 - sections[..., 5]) / 2
    changed[..., 2] = -changed[..., 0]
    return changed


def _filtered(filters: Array, sound: Array) -> Array:
    """Return a sound through filters that may change every `_HOP` samples. (F, n, 6), (S,) -> (S,)."""
    from scipy.signal import sosfilt

    changes = np.flatnonzero((np.diff(filters, axis=0) != 0).any(axis=(1, 2))) + 1
    memory = np.zeros((filters.shape[1], 2))
    parts, before = [], filters[0]
    for first, last in pairwise([0, *changes.tolist(), len(filters)]):
        memory = _carried(memory, before, filters[first])
        before = filters[first]
        done, memory = sosfilt(before, sound[first * _HOP : last * _HOP], zi=memory)
        parts.append(done)
    return np.concatenate(parts)


def _carried(memory: Array, before: Array, after: Array) -> Array:
    """Return the memory of new resonators that go on from the last two outputs of the old ones, without a click.

    SciPy keeps sums of outputs times coefficients (the old ones), from which the outputs can be had back. Of a band
    pass this neglects two inputs, which noise hides. Shapes (n, 2), (n, 6), (n, 6) -> (n, 2).
    """
    last = -memory[:, 1] / before[:, 5]
    one_before = -(memory[:, 0] + before[:, 4] * last) / before[:, 5]
    return np.stack([-after[:, 4] * last - after[:, 5] * one_before, -after[:, 5] * last], 1)
