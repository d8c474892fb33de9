"""`python -m examples.benchmarks`: every claim in one table, exit code 1 for one that fails, seconds twice."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from examples.benchmarks import __main__ as runner

FAKE = '''"""What {name} measures."""
import json, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
seen = Path(__file__).with_suffix(".tries")
tries = int(seen.read_text()) if seen.exists() else 0
seen.write_text(str(tries + 1))
with Path(__file__).with_name("runs.jsonl").open("a") as file:
    file.write(json.dumps(["{name}", sys.argv[1:], time.monotonic(), out.exists()]) + "\\n")
out.write_text("{{}}")
{body}
'''
HOLDS = 'print("holds  (quick) {0} gains >= 1: 1.500")'.format
FAILS = 'print("FAILS  (quick) seconds (end to end) <= 1: 1.250"); sys.exit(1)'


@pytest.fixture
def table(monkeypatch):
    """What the runner prints, apart from what the scripts print."""
    text = io.StringIO()
    monkeypatch.setattr(runner, "console", Console(file=text, width=160))
    monkeypatch.delenv("CI", raising=False)
    return text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three benchmarks that hold, one of which runs alone, and a part that is none."""
    monkeypatch.setattr(runner, "ALONE", {"rs2_overhead"})
    made = tmp_path / "scripts"
    made.mkdir()
    (made / "_part.py").write_text("raise SystemExit('a part is no benchmark')")
    for name in ("rs2_time_to_accuracy", "saa_fashion_mnist", "rs2_overhead"):
        write(made, name, HOLDS(name))
    return made


def write(folder: Path, name: str, body: str) -> None:
    (folder / f"{name}.py").write_text(FAKE.format(name=name, body=body))


def runs(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def test_every_claim_is_in_the_table_and_all_hold(folder, table):
    assert runner.main(["--check"], folder) == 0
    assert "3 holds, 0 fails, 0 not run" in table.getvalue()
    for name in ("rs2_time_to_accuracy", "saa_fashion_mnist", "rs2_overhead"):
        assert f"{name} gains >= 1" in table.getvalue()
    assert all({"--quick", "--check"} <= set(arguments) for _, arguments, _, _ in runs(folder))
    assert [name for name, *_ in runs(folder)][-1] == "rs2_overhead"  # alone, after what runs side by side


def test_a_claim_that_fails_gives_exit_code_1_only_under_check(folder, table):
    write(folder, "saa_fashion_mnist", FAILS)
    assert runner.main(["--only", "saa"], folder) == 0
    assert runner.main(["--check", "--only", "saa"], folder) == 1
    assert len(runs(folder)) == 4, "each time once more, alone: another program may have had the machine"
    assert "seconds (end to end) <= 1" in table.getvalue()
    assert "0 holds, 1 fails, 0 not run" in table.getvalue()


def test_seconds_that_fail_are_measured_once_more_from_nothing(folder, table):
    write(folder, "rs2_overhead", f"if tries == 0:\n    {FAILS}\n{HOLDS('rs2')}")
    assert runner.main(["--check", "--only", "rs2_overhead", "--out", str(folder / "kept")], folder) == 0
    assert [existed for *_, existed in runs(folder)] == [False, False]
    write(folder, "rs2_overhead", FAILS)
    assert runner.main(["--check", "--only", "rs2_overhead"], folder) == 1
    assert len(runs(folder)) == 4


@pytest.mark.parametrize("body", ["raise ValueError('no such thing')", "sys.exit(3)"])
def test_a_script_that_breaks_is_a_failure_with_its_last_line(folder, table, body):
    write(folder, "rs2_overhead", f"{HOLDS('rs2')}\n{body}")
    assert runner.main(["--check", "--only", "rs2_overhead"], folder) == 1
    assert "runs to its end (exit code" in table.getvalue()
    assert "1 holds, 1 fails" in table.getvalue()


def test_what_could_not_run_is_shown_with_the_reason_and_is_a_fault_in_ci(folder, table, monkeypatch):
    write(folder, "rs2_overhead", 'print("Not run: the data set is not there.")')
    assert runner.main(["--check"], folder) == 0
    assert "the data set is not there." in table.getvalue()
    assert "2 holds, 0 fails, 1 not run" in table.getvalue()
    monkeypatch.setenv("CI", "true")
    assert runner.main(["--check"], folder) == 1


def test_a_full_run_without_its_data_is_not_run_rather_than_broken(folder, table):
    write(folder, "rs2_overhead", 'print("Not run: the data set is not there."); sys.exit(2)')
    assert runner.main(["--check", "--full", "--only", "rs2_overhead", "--out", str(folder / "kept")], folder) == 0
    assert "1 not run" in table.getvalue()


def test_a_run_that_claims_nothing_says_so(folder, table):
    write(folder, "rs2_overhead", "")
    assert runner.main(["--only", "rs2_overhead"], folder) == 0
    assert "this run claims nothing" in table.getvalue()


def test_full_runs_keep_their_files_and_hand_on_what_follows_the_dashes(folder, table):
    arguments = ["--full", "--only", "rs2_overhead", "--out", str(folder / "kept"), "--", "--net", "resnet"]
    assert runner.main(arguments, folder) == 0
    ((_, given, _, _),) = runs(folder)
    assert given == ["--check", "--net", "resnet", "--out", str(folder / "kept" / "rs2_overhead.json")]
    assert (folder / "kept" / "rs2_overhead.json").exists()
    runner.main(arguments, folder)
    assert runs(folder)[-1][-1], "a full run goes on from its file"


def test_list_names_all_and_runs_none(folder, table):
    assert runner.main(["--list"], folder) == 0
    assert "What rs2_overhead measures." in table.getvalue()
    assert "_part" not in table.getvalue()
    assert not (folder / "runs.jsonl").exists()


def test_unknown_names_are_refused_with_the_known_ones(folder, capsys):
    for name in ("rs3", "rs2_scal", "_part"):
        with pytest.raises(SystemExit) as stopped:
            runner.main(["--only", name], folder)
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert repr(name) in said
        assert "rs2_overhead" in said


def test_it_reads_what_the_harness_prints(script_of, monkeypatch):
    harness, text = script_of("_harness"), io.StringIO()
    monkeypatch.setattr(harness, "console", Console(file=text, width=40))
    claims = [
        harness.Claim(
            "a long claim: of (several) parts, longer than the width of any console, >= 0.5", 0.25, holds=False
        ),
        harness.Claim("minus", -1.5, holds=True),
        harness.Claim("nothing", None, holds=False),
        harness.Claim("infinite", float("inf"), holds=True),
    ]
    harness.verdict(claims, harness.Options(True, True, None, (0,), "cpu", 1))
    job = runner.Job(Path("rs2_overhead.py"), [], code=1, lines=text.getvalue().splitlines())
    assert [(row.claim, row.value, row.verdict == "holds") for row in job.rows()] == [
        (claims[0].text, "0.250", False),
        ("minus", "-1.500", True),
        ("nothing", "not measured", False),
        ("infinite", "inf", True),
    ]


def test_the_real_scripts_are_found():
    known = runner.scripts(runner.HERE)
    assert set(known) > runner.ALONE
    for path in known.values():
        source = path.read_text()
        assert "verdict(" in source, f"{path.name} claims nothing that the table could show"
        assert source.startswith('"""'), path.name
