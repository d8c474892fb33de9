"""The figure of the attention: weights at their place and time, names of the text, the waveform below."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_adapt._shared.figures import save_figure
from lightning_adapt.lina_speech.figures import alignment_figure

WEIGHTS = torch.softmax(torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), 1)


def test_weights_are_at_their_place_and_time(tmp_path):
    figure = alignment_figure(WEIGHTS, ["", "a", " ", "$b", "c"], frame_rate_hz=10.0, title="a $b c")
    axes = figure.axes[0]
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), WEIGHTS.numpy().T)
    assert image.get_extent() == [0.0, 2.0, -0.5, 4.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["", "a", "\N{OPEN BOX}", "$b", "c"]
    assert axes.get_title() == "a $b c"
    assert axes.get_xlabel() == "seconds"
    assert save_figure(figure, tmp_path / "a.png").stat().st_size > 1000


def test_with_sound_below(tmp_path):
    audio = torch.sin(torch.arange(16_000) * 0.1)
    figure = alignment_figure(WEIGHTS.bfloat16(), frame_rate_hz=10.0, audio=audio, sample_rate_hz=8000)
    above, below = figure.axes[:2]
    assert above.get_ylabel() == "text token"
    low, high = np.concatenate([path.vertices for path in below.collections[0].get_paths()])[:, 0][[0, -1]]
    assert 0 <= low < 0.01
    assert below.get_xlabel() == "seconds"
    assert high <= 2.0
    save_figure(figure, tmp_path / "a.png")


def test_many_tokens_have_no_names_and_frames_are_frames():
    wide = torch.ones(3, 100) / 100
    axes = alignment_figure(wide, ["x"] * 100).axes[0]
    assert axes.get_ylabel() == "text token"
    assert axes.get_xlabel() == "frames"
    assert alignment_figure(wide, title="word " * 40).axes[0].get_title().endswith("...")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"alignment_NM": WEIGHTS[0]}, "alignment_NM"),
        ({"alignment_NM": WEIGHTS[:0]}, "alignment_NM"),
        ({"labels": ["a"]}, "labels"),
        ({"frame_rate_hz": 0}, "frame_rate_hz"),
        ({"audio": torch.zeros(5)}, "sample_rate_hz"),
    ],
)
def test_bad_arguments_are_named(options, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        alignment_figure(**{"alignment_NM": WEIGHTS, **options})
