"""The benchmark of coverage says no when it should, and says so when there is no data."""

import json

import pytest
import torch

from lightning_adapt._shared.hashing import generator

QUICK = ["--quick", "--check", "--seeds", "2"]


@pytest.fixture
def script(script_of, monkeypatch):
    """The script on vectors around 40 directions instead of LIMA's."""
    script = script_of("divconq_coverage")

    def planted(folder, characters):
        own = generator(0)
        centers = torch.randn(40, 16, generator=own)
        rows = centers[torch.arange(400) % 40] + 0.6 * torch.randn(400, 16, generator=own)
        return torch.nn.functional.normalize(rows, dim=1)

    monkeypatch.setattr(script, "vectors_of", planted)
    return script


def test_coverage_equals_a_loop(script_of):
    script = script_of("divconq_coverage")
    vectors = torch.nn.functional.normalize(torch.randn(12, 3, generator=generator(1)), dim=1)
    best = [max(float(row @ vectors[chosen]) for chosen in (2, 5, 7)) for row in vectors]
    assert script.coverage(vectors, torch.tensor([2, 5, 7])) == pytest.approx(sum(best) / 12, abs=1e-6)
    assert script.coverage(vectors, torch.arange(12)) == pytest.approx(1, abs=1e-6)


def test_check_passes_with_the_rule_and_fails_with_random_in_its_place(script, monkeypatch, capsys):
    assert script.main(QUICK) == 0
    assert "FAILS" not in capsys.readouterr().out
    control = {**script.RULES, script.CLOSEST: lambda vectors, seed: script.rule("random")(vectors, seed + 100)}
    monkeypatch.setattr(script, "RULES", control)
    assert script.main(QUICK) == 1
    assert "FAILS  (quick) kM-Closest minus random" in capsys.readouterr().out


def test_a_result_file_and_a_figure_are_written_and_continued(script, monkeypatch, tmp_path):
    out = tmp_path / "coverage.json"
    assert script.main([*QUICK, "--out", str(out)]) == 0
    rows = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == list(script.RULES)
    assert all(run["distinct rows"] == 103 for row in rows.values() for run in row["runs"])
    assert out.with_suffix(".png").stat().st_size > 0
    monkeypatch.setattr(script, "vectors_of", None)  # nothing is left to run
    assert script.main([*QUICK, "--out", str(out)]) == 0
    assert script.main(["--seeds", "2", "--out", str(out)]) == 2


def test_without_data_a_quick_run_says_so_and_a_full_run_fails(script_of, tmp_path, monkeypatch, capsys):
    script = script_of("divconq_coverage")
    monkeypatch.delenv(script.VARIABLE, raising=False)
    for arguments, code in (("--quick", 0), ("--check", 2)):
        assert script.main([arguments, "--data", str(tmp_path)]) == code
        printed = capsys.readouterr().out
        assert "Not run" in printed
        assert script.VARIABLE in printed


def test_prompts_are_read_and_cut(script_of, monkeypatch, tmp_path):
    script = script_of("divconq_coverage")
    (tmp_path / "lima").mkdir()
    rows = [{"conversations": ["How are you today?", "Well."]}, {"conversations": ["Hi", "Hi.", "Bye", "Bye."]}]
    (tmp_path / "lima" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(script, "TransformerEmbedder", lambda *_, **__: None)
    seen = []
    monkeypatch.setattr(script, "embed_texts", lambda _, texts: seen.extend(texts) or torch.eye(2).numpy())
    assert script.vectors_of(str(tmp_path), 7).shape == (2, 2)
    assert seen == ["How are", "Hi\nBye"]
