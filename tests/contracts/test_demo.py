"""The demo: its frame, its RS2 section in the smallest form, what it prints, and which errors it lets through."""

from __future__ import annotations

import io
import warnings

import pytest
from rich.console import Console

from lightning_adapt import demo
from lightning_adapt._shared.report import write_page
from lightning_adapt._shared.report_parts import Audio, Cell, Column, Finding, Row, Section
from tests.contracts.demo_parts import a_finding, a_score, a_section

HIGH, LOW = [84.0, 84.2, 84.1], [82.0, 82.3, 82.0]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the demo once in its smallest form; return (section, page)."""
    out, caught = tmp_path_factory.mktemp("demo"), []

    def write(sections, *args, **kwargs):
        caught.extend(sections)
        return write_page(sections, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(demo, "write_page", write)
        patch.chdir(out)
        assert demo.run("rs2", out / "page", quick=True) == 0
    return caught[0], out / "page" / "index.html"


def test_rows_hold_the_method_its_controls_and_its_baselines(ran):
    (finding,) = ran[0].findings
    assert [row.kind for row in finding.rows] == ["ours", "control", "control", "baseline", "baseline"]
    ours, short, limit, static, full = (
        {c.name: cell for c, cell in zip(finding.columns, r.cells, strict=True)} for r in finding.rows
    )
    steps = [row["optimizer steps"].value for row in (ours, short, limit, static)]
    assert steps == [90, 90, 90, 90]
    assert full["optimizer steps"].value == 900
    seen = [round(row["data seen"].value) for row in (ours, short, limit, static, full)]
    assert seen[0] == 100
    assert seen[1] == 100
    assert 60 < seen[2] < 70  # 1 - 0.9 ** 10
    assert seen[3] == 10
    assert seen[4] == 100
    assert full["test accuracy"].value > 90
    assert all(row["test accuracy"].value > 20 for row in (ours, short, limit, static))  # chance is 10
    assert all(row["training time"].value > 0 for row in (ours, short, limit, static, full))


def test_words_and_overview_hold_the_numbers_of_the_rows(ran):
    (finding,) = ran[0].findings
    for row in finding.rows:
        assert f"{row.cells[0].value:.1f}\N{NO-BREAK SPACE}%" in finding.gained + finding.not_gained
    ours, static = finding.rows[0].cells[0].value, finding.rows[3].cells[0].value
    assert (finding.score.ours, finding.score.without) == (f"{ours:.1f}", f"{static:.1f}")
    assert finding.score.change.startswith(f"{ours - static:+.1f}")


def test_the_folder_holds_the_page_its_figures_and_nothing_unfinished(ran):
    section, page = ran
    assert section.seconds > 1  # it trained; the frame took the time
    drawn = {f"rs2-{name}-{scheme}.svg" for name in ("accuracy", "coverage") for scheme in ("light", "dark")}
    assert {path.name for path in page.parent.iterdir()} == {"index.html", *drawn}
    assert "Smallest form" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ours", "static", "short", "words", "result"),
    [
        (HIGH, LOW, HIGH[::-1], ["is better than one random", "not clearly"], "better"),
        (HIGH, HIGH[::-1], LOW, ["not clearly different", "expects a tie"], "level"),
        (LOW, HIGH, HIGH, ["worse than one", "worse than a sho"], "worse"),
    ],
)
def test_words_follow_the_paired_differences(ran, ours, static, short, words, result):
    import lightning_adapt.rs2.demo as rs2_demo
    from lightning_adapt._shared.demo_training import TrainingRun

    values = {"rs2": ours, "static": static, "short": short, "limit": [83.0] * 3, "full": [88.0]}
    curve = [(1.0, 80.0)]
    runs = {arm: [TrainingRun(value, 2.0, 10, 1.0, curve) for value in some] for arm, some in values.items()}
    task = rs2_demo._digits_task(quick=True)
    finding = rs2_demo._finding(task, runs)
    text = f"{finding.gained} {finding.not_gained}"
    assert all(word in text for word in words)
    assert finding.score.result == result
    assert "88.0\N{NO-BREAK SPACE}%" in finding.not_gained


def test_sections_refuse_what_a_page_cannot_show():
    with pytest.raises(ValueError, match=r"`cells` must be of length 2, but got 1\. Give 'short' one per column"):
        a_finding(rows=(Row("short", "ours", (Cell(1),)),))
    with pytest.raises(ValueError, match="`name` must be made of a-z"):
        a_section(a_finding(audio=(Audio("../up", "", b""),)))
    with pytest.raises(ValueError, match="`findings` must be one or more"):
        Section(**{**vars(a_section()), "findings": ()})
    with pytest.raises(ValueError, match="`result` must be one of 'better', 'level', 'worse', but got 'great'"):
        a_score(result="great")


def test_unknown_method_is_refused_by_name(tmp_path):
    methods = ", ".join(map(repr, demo.METHODS))
    with pytest.raises(ValueError, match=f"`only` must be one of {methods}, but got 'rs3'"):
        demo.run("rs3", tmp_path / "page")
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'typo'"), ValueError("a bug")])
def test_errors_of_a_method_are_not_hidden(tmp_path, monkeypatch, error):
    _replace_rs2_demo(monkeypatch, error)
    monkeypatch.setattr(demo, "METHODS", ("rs2",))
    with pytest.raises(type(error), match=str(error)):
        demo.run(None, tmp_path)


def test_a_method_without_its_extra_is_named_on_the_page(tmp_path, monkeypatch, capsys):
    text = "RS2 needs thing, which the extra 'vision' brings. Run: pip install \"lightning-adapt[vision]\""
    _replace_rs2_demo(monkeypatch, ModuleNotFoundError(text))
    monkeypatch.setattr(demo, "METHODS", ("rs2",))
    assert demo.run(None, tmp_path) == 0
    assert "Not run" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "lightning-adapt[vision]" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ModuleNotFoundError, match="vision"):
        demo.run("rs2", tmp_path)


def _replace_rs2_demo(monkeypatch, error):
    import lightning_adapt.rs2.demo

    def fail(context):
        raise error

    monkeypatch.setattr(lightning_adapt.rs2.demo, "run", fail)


# -- what is printed --------------------------------------------------------------------------------------------------
def printed(section):
    console = Console(width=80, record=True, file=io.StringIO())
    demo._print_section(console, section)
    return console.export_text()


def test_every_column_is_printed_on_a_narrow_terminal(ran):
    section, _ = ran
    (finding,), text = section.findings, printed(section)
    for row in finding.rows:
        assert all(column.show(cell) in text for column, cell in zip(finding.columns, row.cells, strict=True))
    assert "…" not in text


def test_findings_are_printed_one_after_the_other():
    rows = (Row("small", "ours", (Cell(12),)),)
    further = Finding(
        "More numbers", (Column("bytes"),), rows, "Measured so.", "It is small.", "It is slow.", a_score()
    )
    text = printed(a_section(a_finding(), further))
    words = ["Other", "A setting.", "Gained: A gain.", "Not gained: A price.", "More numbers", "12.0", "Measured so."]
    places = [text.index(word) for word in [*words, "Gained: It is small.", "Not gained: It is slow."]]
    assert places == sorted(places)


def test_demo_prints_the_page_and_none_of_lightnings_chatter(tmp_path, monkeypatch, capfd):
    import lightning_adapt.rs2.demo as rs2_demo

    def fit_once(context):
        task = rs2_demo._digits_task(quick=True)
        rs2_demo._fit(task, "short", 0, context.advance, steps=2)
        return a_section()

    monkeypatch.setattr(rs2_demo, "run", fit_once)
    assert demo.run("rs2", tmp_path) == 0
    said = capfd.readouterr()
    assert str(tmp_path / "index.html") in said.out
    for chatter in ("GPU", "TPU", "Tip", "max_steps", "num_workers", "Warning"):
        assert chatter not in said.out + said.err
