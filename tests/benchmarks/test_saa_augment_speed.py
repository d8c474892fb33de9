"""The benchmark of the augmentation's speed says no when it should, and measures what it says."""

import json
import sys
import time
import types

import pytest
import torch

QUICK = ["--quick", "--check", "--seeds", "1"]


@pytest.fixture
def speed(script_of, monkeypatch):
    """The script with few images, and nothing asked of two cores that the machine may not have free."""
    script = script_of("saa_augment_speed")
    sizes = {script.a.SMALL: (100, 32, 32, 3), script.a.LARGE: (4, 96, 96, 3), script.a.GRAY: (16, 28, 28, 1)}
    monkeypatch.setattr(script.a, "SHAPES", sizes)
    monkeypatch.setattr(script.a, "REPEATS", 2)
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": {"one": 1.3, "two": 0.001}})
    return script


def image_by_image(views):
    """Ours in name only: every image is a batch of its own."""

    class OneByOne(views):
        def weak(self, images, draws, stream):
            pairs = zip(images.split(1), draws.split(1), strict=True)
            return torch.cat([super(OneByOne, self).weak(image, draw, stream) for image, draw in pairs])

        def strong(self, images, draws, flagged=None):
            pairs = zip(images.split(1), draws.split(1), strict=True)
            return torch.cat([super(OneByOne, self).strong(image, draw) for image, draw in pairs])

    return OneByOne


def test_check_passes_and_fails_with_images_one_by_one(speed, monkeypatch, capsys):
    assert speed.main(QUICK) == 0
    printed = capsys.readouterr().out
    assert "FAILS" not in printed
    assert "Pillow in two processes" in printed
    monkeypatch.setattr(speed, "BUILD", image_by_image(speed.a.Views))
    monkeypatch.setattr(speed.a, "measured_rows", lambda: [str(row) for row in speed.ONE])
    assert speed.main(QUICK) == 1
    assert f"FAILS  (quick) {speed.ONE[1]} against Pillow: times as fast >= 1.3" in capsys.readouterr().out


def test_a_result_file_and_a_figure_are_written_and_continued(speed, monkeypatch, tmp_path):
    monkeypatch.setattr(speed.a, "measured_rows", lambda: [str(row) for row in speed.ONE])
    out = tmp_path / "speed.json"
    options = ["--quick", "--out", str(out), "--seeds"]
    assert speed.main([*options, "1"]) == 0
    assert speed.main([*options, "2"]) == 0
    rows = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {str(row) for row in speed.ONE}
    assert all(row["n"] == 2 for row in rows.values())
    assert out.with_suffix(".png").stat().st_size > 0
    monkeypatch.setattr(speed.a, "N_OPS", 2)
    assert speed.main([*options, "2"]) == 2


FULL = {"ours one": 50.0, "pillow one": 101.0, "ours two": 40.0, "pillow two": 61.0}  # microseconds an image


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"pillow one": 99.0}, 1),
        ({"pillow two": 59.0}, 1),
        ({"ours two": None}, 1),  # not measured is not passed
        ({"pillow one": None}, 1),
    ],
)
def test_the_claims_of_the_full_run(script_of, changed, code):
    script = script_of("saa_augment_speed")
    options = script.h.Options(False, True, None, (0, 1, 2), "cpu", 1)
    study = script.h.Study("recorded", script.a.METRIC, {}, options)
    rows = dict(zip(("pillow one", "ours one", "pillow two", "ours two"), (*script.ONE, *script.TWO), strict=True))
    for name, took in {**FULL, **changed}.items():
        for seed, slower in enumerate((1.0, 1.5, 0.9) if took else ()):  # the machine is slower at times, for all rows
            study.add(str(rows[name]), seed, {script.a.METRIC: took * slower})
    assert script.h.verdict(script.check(study, "full"), options) == code


def test_kornia_is_measured_only_where_it_is(speed, monkeypatch):
    row = speed.a.Row(speed.a.KORNIA, speed.a.STRONG, speed.a.SMALL)
    monkeypatch.setattr(speed.a.importlib.util, "find_spec", lambda name: None)
    assert str(row) not in speed.a.measured_rows()
    monkeypatch.setattr(speed.a.importlib.util, "find_spec", lambda name: name)
    assert str(row) in speed.a.measured_rows()
    seen = []

    def rand_augment(n, m):
        return lambda images: seen.append((n, images.dtype, float(images.max()))) or time.process_time()

    auto = types.SimpleNamespace(RandAugment=rand_augment)
    monkeypatch.setitem(sys.modules, "kornia", types.ModuleType("kornia"))
    monkeypatch.setitem(sys.modules, "kornia.augmentation", types.SimpleNamespace(auto=auto))
    assert speed.a.Bench().measure(row)[speed.a.METRIC] >= 0
    assert seen[0] == (3, torch.float32, 1.0)


def test_it_measures_one_and_two_cores_of_the_cpu(speed, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert speed.main([*QUICK, "--device", "cuda"]) == 2
    assert speed.main([*QUICK, "--threads", "2"]) == 2
    assert "Leave out --device and --threads" in capsys.readouterr().out
