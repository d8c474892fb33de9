"""The example script tunes two voices, keeps them as files and speaks in them and in their mixture."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import lightning_adapt
from lightning_adapt import SynthesisedVoices, Voice

SCRIPT = Path(lightning_adapt.__file__).parents[1] / "examples" / "lina_voice_script.py"


@pytest.fixture
def script(monkeypatch):
    """The script, on a synthesiser that is always there, with fewer utterances and steps."""
    names = runpy.run_path(str(SCRIPT), run_name="script")
    trainer = names["Trainer"]

    def fewer(n_voices, n_utterances, **options):
        return SynthesisedVoices(n_voices, n_utterances // 3, engine="formant", words=(1, 2), **options)

    def shorter(*, max_steps, **options):
        return trainer(max_steps=max_steps // 10, **options)

    scope = names["main"].__globals__
    monkeypatch.setitem(scope, "SynthesisedVoices", fewer)
    monkeypatch.setitem(scope, "Trainer", shorter)
    return names["main"]


@pytest.mark.filterwarnings("ignore:Nothing that was tuned was better:UserWarning")
def test_the_script_tunes_saves_mixes_and_speaks(script, capsys):
    script()
    printed = capsys.readouterr().out
    lines = re.findall(r"^(\w+): held-out loss ([\d.]+) untuned, ([\d.]+) tuned; ([\d,]+) bytes", printed, re.MULTILINE)
    assert [line[0] for line in lines] == ["anna", "ben"]
    assert all(float(tuned) <= float(untuned) for _, untuned, tuned, _ in lines)
    for name, _, _, nbytes in lines:
        voice = Voice.load(f"{name}.safetensors")
        assert voice.name == name
        assert f"{voice.nbytes:,}" == nbytes
    heard = re.findall(r"^(\w+): [\d.]+ s$", printed, re.MULTILINE)
    assert heard == ["base", "anna", "ben", "both"]
    assert all(Path(f"lina-{name}.wav").stat().st_size > 44 for name in heard)


def test_the_script_is_short():
    assert len(SCRIPT.read_text().splitlines()) <= 80
