"""Audio and codes that no codec can use are refused with a text that says what to do."""

import pytest
import torch

from lightning_adapt.lina_speech.codecs.inputs import audio_batch, code_batch, one_recording, stream_codes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("audio", "error", "text"),
    [
        (None, TypeError, "None"),
        ([0.1, 0.2], TypeError, "float32 tensor"),
        (torch.zeros(9, dtype=torch.int16), TypeError, "torch.int16"),
        (torch.zeros(9, dtype=torch.complex64), TypeError, "complex64"),
        (torch.zeros(0), ValueError, "empty recordings"),
        (torch.zeros(3, 0), ValueError, r"\(3, 0\)"),
        (torch.tensor(0.5), ValueError, r"shape \(samples,\)"),
        (torch.zeros(2, 2, 50), ValueError, "stereo"),
        (torch.zeros(50, 2), ValueError, "stereo"),  # channels last
        (torch.tensor([0.0, torch.nan]), ValueError, "nan"),
        (torch.tensor([0.0, -torch.inf]), ValueError, "inf"),
        (torch.tensor([0.0, 12_000.0]), ValueError, "32768"),
    ],
)
def test_unfit_audio(audio, error, text):
    with pytest.raises(error, match=text) as caught:
        audio_batch(audio, CPU, "sound")
    assert "`sound` must be" in str(caught.value)


def test_recordings_are_one_dimensional():
    with pytest.raises(ValueError, match="stereo"):
        one_recording(torch.zeros(2, 500), "audios[3]")
    assert one_recording(torch.zeros(500), "audios[3]").shape == (1, 500)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_become_float32(dtype):
    rows = audio_batch(torch.full((2, 5), 0.25, dtype=dtype, requires_grad=True), CPU)
    assert rows.dtype == torch.float32
    assert not rows.requires_grad
    assert torch.equal(rows, torch.full((2, 5), 0.25))


@pytest.mark.parametrize(
    ("codes", "error", "text"),
    [
        ([[1]], TypeError, "int64 tensor"),
        (torch.zeros(2, 5), TypeError, "torch.float32"),
        (torch.zeros(2, 5, dtype=torch.bool), TypeError, "torch.bool"),
        (torch.zeros(5, dtype=torch.int64), ValueError, r"\(5,\)"),
        (torch.zeros(3, 5, dtype=torch.int64), ValueError, "one row per codebook"),
        (torch.zeros(1, 1, 2, 5, dtype=torch.int64), ValueError, "shape"),
        (torch.tensor([[0], [4]]), ValueError, r"0\.\.3.*0 to 4"),
        (torch.tensor([[-1], [3]]), ValueError, "offset of the special ids"),
    ],
)
def test_unfit_codes(codes, error, text):
    with pytest.raises(error, match=text):
        code_batch(codes, 2, 4, CPU)


def test_fit_codes_become_a_batch_of_int64():
    codes = torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8)
    assert torch.equal(code_batch(codes, 2, 4, CPU), codes.long()[None])
    assert code_batch(codes[:, :0], 2, 4, CPU).shape == (1, 2, 0)
    assert code_batch(codes[None].repeat(0, 1, 1), 2, 4, CPU).shape == (0, 2, 2)
    assert stream_codes(codes, 2, 4, CPU).shape == (2, 2)
    with pytest.raises(ValueError, match="one stream"):
        stream_codes(codes[None], 2, 4, CPU)
