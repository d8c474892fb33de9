"""The k-means codec: frames as in NumPy and librosa, nearest centers, exact lengths, one audio for all streams."""

import librosa
import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.codecs.mel import FLOOR, MelFrames, frames_of
from tests.lina_speech.codec_parts import HOP, PUSHES, RATE, small_codec, sound, sounds, streamed


@pytest.fixture(scope="module")
def codec():
    return small_codec()


def numpy_log_mel(audio, n_mels, n_fft):
    """Frame by frame in float64, with librosa's filters: centered on the middle of the frame, silence around."""
    n_frames = -(-len(audio) // HOP)
    before = (n_fft - HOP) // 2
    padded = np.zeros(n_frames * HOP + n_fft)
    padded[before : before + len(audio)] = audio.double().numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    filters = librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, dtype=np.float64)
    rows = []
    for frame in range(n_frames):
        spectrum = np.abs(np.fft.rfft(padded[frame * HOP : frame * HOP + n_fft] * window))
        rows.append(np.log(np.maximum(filters @ spectrum, 1e-3)))
    return np.stack(rows)


# -- frames ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_samples", [1, HOP - 1, HOP, HOP + 1, 2500])
def test_frames_equal_numpy(n_samples):
    audio = sound(1.0)[:n_samples]
    mel = MelFrames(RATE, HOP, 20)
    found = mel.analyse(audio[None])[0]
    assert found.shape == (frames_of(n_samples, HOP), 20)
    assert np.abs(found.double().numpy() - numpy_log_mel(audio, 20, mel.n_fft)).max() < 2e-4


@pytest.mark.parametrize(
    ("rate", "hop", "n_fft"), [(22_050, 441, 1024), (24_000, 320, 1024), (16_000, 320, 1024), (8000, 160, 512)]
)
def test_windows_last_about_46_ms_and_hold_two_frames(rate, hop, n_fft):
    assert MelFrames(rate, hop, 20).n_fft == n_fft


def test_magnitudes_have_the_mel_bands_they_came_from():
    mel = MelFrames(RATE, HOP, 20)
    log_mel = mel.analyse(sound()[None])[0]
    filters = torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=mel.n_fft, n_mels=20))
    magnitudes = mel.magnitudes(log_mel)
    assert bool((magnitudes > 0).all())
    error = (magnitudes @ filters.t() - log_mel.exp()).norm() / log_mel.exp().norm()
    assert float(error) < 0.05  # not 0: what would be below 0 is cut


# -- encoding ----------------------------------------------------------------------------------------------------------
def test_codes_are_nearest_centers_of_what_is_left(codec):
    audio = sound(0.6, 200.0, 9)
    codes = codec.encode(audio)
    left = numpy_log_mel(audio, 20, codec.mel.n_fft)
    for book, row in zip(codec.codebooks.double().numpy(), codes.numpy(), strict=True):
        distances = ((left[:, None] - book[None]) ** 2).sum(-1)
        chosen = distances[np.arange(len(row)), row]
        assert np.allclose(chosen, distances.min(1), rtol=1e-3, atol=1e-4)  # a tie by rounding may go either way
        left = left - book[row]
    assert codes.dtype == torch.int64
    assert codes.shape == (2, 30)
    assert codes.max() > 0


def test_a_batch_gives_the_codes_of_its_rows_and_silence_behind_changes_none(codec):
    long, short = sound(0.5), sound(0.31, 180.0, 5)
    batch = torch.zeros(2, len(long))
    batch[0], batch[1, : len(short)] = long, short
    codes = codec.encode(batch)
    assert codes.shape == (2, 2, 25)
    assert torch.equal(codes[0], codec.encode(long))
    assert torch.equal(codes[1, :, : frames_of(len(short), HOP)], codec.encode(short))
    assert torch.equal(codec.encode(long[None])[0], codec.encode(long))


def test_autocast_does_not_reach_the_codec(codec):
    plain = codec.encode(sound())
    with torch.autocast("cpu", torch.bfloat16):
        codes = codec.encode(sound())
        audio = codec.decode(codes)
    assert torch.equal(codes, plain)
    assert torch.equal(audio, codec.decode(plain))


# -- decoding ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_frames", [0, 1, 3, 4, 5, 11, 12, 13, 16, 17, 30])
def test_lengths_and_streams(codec, n_frames):
    codes = codec.encode(sound(0.6, 150.0, 3))[:, :n_frames]
    audio = codec.decode(codes)
    assert audio.shape == (n_frames * HOP,)
    assert audio.dtype == torch.float32
    assert bool((audio.abs() <= 1).all())
    for how in PUSHES:
        assert torch.equal(streamed(codec, codes, how), audio), how


def test_a_stream_starts_after_twelve_frames_and_holds_little_back(codec):
    decoder, codes = codec.stream_decoder(), codec.encode(sound(0.6))
    lengths = torch.tensor([decoder.push(codes[:, frame : frame + 1]).numel() for frame in range(codes.shape[1])])
    assert not lengths[:11].any()
    assert lengths[11] > 0
    behind = HOP * torch.arange(1, len(lengths) + 1) - lengths.cumsum(0)
    assert behind.max() <= 14 * HOP
    assert decoder.finish().numel() == behind[-1]
    assert decoder.finish().numel() == 0
    with pytest.raises(RuntimeError, match="finished"):
        decoder.push(codes)


def test_streams_do_not_touch_each_other(codec):
    one, two = codec.encode(sound(0.5)), codec.encode(sound(0.5, 220.0, 4))
    decoders = codec.stream_decoder(), codec.stream_decoder()
    joined = [[], []]
    for frame in range(25):
        for number, codes in enumerate((one, two)):
            joined[number].append(decoders[number].push(codes[:, frame : frame + 1]))
    for number, codes in enumerate((one, two)):
        joined[number].append(decoders[number].finish())
        assert torch.equal(torch.cat(joined[number]), codec.decode(codes))


def test_a_batch_is_decoded_row_by_row(codec):
    codes = codec.encode(torch.stack([sound(), sound(0.5, 220.0, 4)]))
    audio = codec.decode(codes)
    assert audio.shape == (2, 25 * HOP)
    assert torch.equal(audio[1], codec.decode(codes[1]))
    assert codec.decode(codes[:0]).shape == (0, 25 * HOP)


def test_the_global_generator_is_left_alone(codec):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = codec.decode(codec.encode(sound()))
    small_codec(1, 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(codec.decode(codec.encode(sound())), first)


def test_what_comes_out_has_the_spectrum_that_went_in():
    codec = small_codec(3, 16)
    audio = sounds()[1]
    again = codec.decode(codec.encode(audio))
    wanted, found, other = (codec.mel.analyse(one[None])[0] for one in (audio, again, sounds()[3]))
    error, apart = (found - wanted).square().mean().sqrt(), (other - wanted).square().mean().sqrt()
    assert error < 0.75
    assert error < 0.5 * apart
    loudness = again.square().mean() / audio.square().mean()
    assert 0.25 < loudness < 1.5  # means of logarithms lie below the mean


def test_silence_stays_silent_and_unfit_sums_stay_in_range():
    codec = KMeansMelCodec.fit([torch.zeros(RATE), *sounds()], sample_rate_hz=RATE, codebook_size=6, n_mels=20)
    assert codec.decode(codec.encode(torch.zeros(RATE))).abs().max() < 0.01
    loud = KMeansMelCodec(torch.full((2, 2, 20), 50.0), sample_rate_hz=RATE)
    audio = loud.decode(torch.zeros(2, 20, dtype=torch.int64))
    assert bool(audio.isfinite().all())
    assert audio.abs().max() <= 1
    assert FLOOR == 1e-3
