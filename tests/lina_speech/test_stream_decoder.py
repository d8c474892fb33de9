"""Windows with context: one audio for all pushes, equal to the whole where the context reaches far enough."""

import pytest
import torch

from lightning_adapt.lina_speech.codecs.stream_decoder import WindowedStreamDecoder
from tests.lina_speech.codec_parts import PUSHES, pieces

HOP, LEFT, RIGHT = 3, 2, 1


def decode(codes):
    """Each frame sounds like itself, the two before and the one behind it: a reference by loops."""
    audio = []
    for frame in range(codes.shape[1]):
        for sample in range(HOP):
            around = range(max(frame - LEFT, 0), min(frame + RIGHT + 1, codes.shape[1]))
            audio.append(sum((at - frame + 3) * int(codes[0, at]) for at in around) / 500 + sample / 10)
    return torch.tensor(audio)


def stream(codes, how, *, block=4, left=LEFT, right=RIGHT, seen=None):
    def noted(window):
        if seen is not None:
            seen.append(window.shape[1])
        return decode(window)

    sizes = {"block_frames": block, "left_frames": left, "right_frames": right}
    decoder = WindowedStreamDecoder(noted, 1, 9, HOP, **sizes)
    return torch.cat([decoder.push(piece) for piece in pieces(codes, how)] + [decoder.finish()])


@pytest.mark.parametrize("how", PUSHES)
@pytest.mark.parametrize("n_frames", [0, 1, 2, 4, 5, 6, 23])
def test_enough_context_gives_the_whole(how, n_frames):
    codes = torch.randint(0, 9, (1, n_frames), generator=torch.Generator().manual_seed(n_frames))
    for block in (1, 4, 50):
        assert torch.equal(stream(codes, how, block=block), decode(codes) if n_frames else torch.zeros(0))


@pytest.mark.parametrize("short", [{"left": 1}, {"right": 0}])
def test_less_context_is_not_the_whole_but_still_one_audio(short):
    codes = torch.randint(1, 9, (1, 23), generator=torch.Generator().manual_seed(0))
    ways = [stream(codes, how, **short) for how in PUSHES]
    assert all(torch.equal(way, ways[0]) for way in ways)
    assert not torch.equal(ways[0], decode(codes))


def test_windows_are_as_long_as_promised():
    seen = []
    stream(torch.ones(1, 23, dtype=torch.int64), "one by one", seen=seen)
    assert seen[:3] == [4 + RIGHT, LEFT + 4 + RIGHT, LEFT + 4 + RIGHT]
    assert max(seen) == LEFT + 4 + RIGHT


def test_audio_comes_as_soon_as_it_can_and_not_after_the_end():
    decoder = WindowedStreamDecoder(decode, 1, 9, HOP, block_frames=2, left_frames=2, right_frames=1)
    one = torch.ones(1, 1, dtype=torch.int64)
    assert [len(decoder.push(one)) for _ in range(6)] == [0, 0, 6, 0, 6, 0]
    assert [len(decoder.finish()) for _ in range(2)] == [6, 0]
    with pytest.raises(RuntimeError, match="finished"):
        decoder.push(one)


def test_audio_is_cut_to_the_range_and_float32():
    decoder = WindowedStreamDecoder(
        lambda codes: torch.full((codes.shape[1],), 7.0, dtype=torch.float64),
        *(1, 9, 1),
        block_frames=1,
        left_frames=0,
        right_frames=0,
    )
    audio = decoder.push(torch.zeros(1, 2, dtype=torch.int64))
    assert audio.dtype == torch.float32
    assert audio.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("sizes", "error"),
    [({"block_frames": 0}, ValueError), ({"left_frames": -1}, ValueError), ({"right_frames": 0.5}, TypeError)],
)
def test_unfit_sizes(sizes, error):
    usual = {"block_frames": 1, "left_frames": 0, "right_frames": 0}
    with pytest.raises(error, match=next(iter(sizes))):
        WindowedStreamDecoder(decode, 1, 9, HOP, **{**usual, **sizes})


def test_unfit_codes():
    decoder = WindowedStreamDecoder(decode, 1, 9, HOP, block_frames=1, left_frames=0, right_frames=0)
    with pytest.raises(ValueError, match="one stream"):
        decoder.push(torch.zeros(1, 1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"0\.\.8"):
        decoder.push(torch.full((1, 2), 9))
