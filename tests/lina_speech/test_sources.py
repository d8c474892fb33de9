"""Sources: rows as other packages have them, and home folders."""

from types import SimpleNamespace

import pytest
import torch

from lightning_adapt.lina_speech.data.sources import Source
from tests.lina_speech.data_parts import data, tone


class Decoder(SimpleNamespace):
    def get_all_samples(self):
        return SimpleNamespace(data=torch.from_numpy(self.array)[None], sample_rate=self.sampling_rate)


@pytest.mark.parametrize("kind", [dict, Decoder])  # before and from release 4
def test_samples_as_the_package_datasets_has_them(kind):
    made = data([{"audio": kind(array=tone(1.0, rate=2000), sampling_rate=2000), "text": "hello"}])
    assert made.train_set[0]["codes"].shape == (2, 50)


def test_the_home_folder_may_be_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.csv").write_text("audio,text\na.wav,hi\n")
    assert Source("~/m.csv", "data")[0].audio == str(tmp_path / "a.wav")
