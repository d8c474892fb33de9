"""Griffin-Lim in blocks comes as near to given magnitudes as Griffin-Lim over the whole, and repeats bit for bit."""

import pytest
import torch
from torchaudio.transforms import GriffinLim

from lightning_adapt.lina_speech.codecs.griffin_lim import BLOCK_FRAMES, LOOK_AHEAD_FRAMES, BlockGriffinLim
from tests.lina_speech.codec_parts import HOP, sound

N_FFT = 512


def stft(audio):
    """Frames as the codec takes them, by torch.stft: shape (N, F)."""
    return torch.stft(audio, N_FFT, HOP, window=torch.hann_window(N_FFT), center=False, return_complex=True).t()


def in_blocks(magnitudes):
    synthesis, samples = BlockGriffinLim(N_FFT, HOP, torch.device("cpu")), []
    for start in range(0, len(magnitudes), BLOCK_FRAMES):
        window = magnitudes[start : start + BLOCK_FRAMES + LOOK_AHEAD_FRAMES]
        samples.append(synthesis.block(window, min(BLOCK_FRAMES, len(window))))
    return torch.cat([*samples, synthesis.tail()])


def error(audio, magnitudes):
    """Spectral convergence away from the ends."""
    found = stft(audio).abs()[4:-4]
    return float((found - magnitudes[4 : 4 + len(found)]).norm() / magnitudes[4 : 4 + len(found)].norm())


@pytest.mark.parametrize("pitch", [110.0, 190.0])
def test_blocks_come_as_near_as_the_whole(pitch):
    magnitudes = stft(sound(1.0, pitch)).abs().clamp(min=1e-6)
    ours = in_blocks(magnitudes)
    assert len(ours) == (len(magnitudes) - 1) * HOP + N_FFT
    assert torch.equal(in_blocks(magnitudes), ours)
    whole = GriffinLim(N_FFT, 32, hop_length=HOP, power=1.0, momentum=0.99, rand_init=False)(magnitudes.t())
    centered = torch.stft(whole, N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True).abs().t()[4:-4]
    theirs = float((centered - magnitudes[4:-4]).norm() / magnitudes[4:-4].norm())
    assert error(ours, magnitudes) < 1.25 * theirs
    assert error(ours, magnitudes) < 0.15


def test_there_are_no_seams_between_blocks():
    """A steady tone stays one: its second difference is nowhere larger than in a tone."""
    tone = 0.5 * torch.sin(2 * torch.pi * 500 / 8000 * torch.arange(8000))
    ours = in_blocks(stft(tone).abs().clamp(min=1e-6))[N_FFT:-N_FFT]
    jumps = ours.diff(n=2).abs().max() / tone.diff(n=2).abs().max()
    assert jumps < 1.3


def test_what_is_final_does_not_depend_on_what_follows_the_look_ahead():
    magnitudes = stft(sound(1.0)).abs().clamp(min=1e-6)
    changed = magnitudes.clone()
    changed[BLOCK_FRAMES + LOOK_AHEAD_FRAMES :] = 1.0
    length = BLOCK_FRAMES * HOP
    assert torch.equal(in_blocks(changed)[:length], in_blocks(magnitudes)[:length])
    assert not torch.equal(in_blocks(changed)[length : 2 * length], in_blocks(magnitudes)[length : 2 * length])
