"""Measuring speech, for the tests of the synthesised voices."""

import numpy as np


def pitch_of(audio, rate, low=60.0, high=400.0):
    """Return the median fundamental frequency in Hz of the loud frames, by autocorrelation."""
    sound = np.asarray(audio, np.float64)
    size = round(0.05 * rate)
    frames = [sound[place : place + size] for place in range(0, len(sound) - size, size // 2)]
    loud = max(float(np.mean(frame**2)) for frame in frames)
    found = []
    for frame in frames:
        if np.mean(frame**2) < 0.2 * loud:
            continue
        frame = frame - frame.mean()
        spectrum = np.abs(np.fft.rfft(frame * np.hanning(size), 4 * size)) ** 2
        correlation = np.fft.irfft(spectrum)
        window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(size), 4 * size)) ** 2)
        first, last = round(rate / high), min(round(rate / low), size // 2)
        ratio = correlation[first:last] / correlation[0] / (window[first:last] / window[0])
        # the shortest period that fits nearly as well as the best: two periods fit, too
        peaks = [
            place
            for place in range(1, len(ratio) - 1)
            if ratio[place] >= 0.9 * ratio.max() and ratio[place - 1] <= ratio[place] >= ratio[place + 1]
        ]
        found.append(rate / (first + (peaks[0] if peaks else int(np.argmax(ratio)))))
    return float(np.median(found))


def spectrum_of(audio, rate, n_bands=40):
    """Return the mean log power in equal bands up to 8 kHz or half the rate. Shape (n_bands,)."""
    sound = np.asarray(audio, np.float64)
    size = 1024
    frames = np.stack([sound[place : place + size] for place in range(0, len(sound) - size, size // 2)])
    power = (np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2).mean(0)
    power = power[: round(size * min(8000, rate / 2) / rate)]
    return np.log10(np.array([band.mean() for band in np.array_split(power, n_bands)]) + 1e-10)
