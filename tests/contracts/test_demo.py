import io
import os
import re
import shutil
import subprocess
import warnings
from html.parser import HTMLParser

import pytest
from rich.console import Console

from lightning_adapt import demo
from lightning_adapt._shared.report import Audio, Cell, Column, Picture, Row, Section, Table, write_page

SILENT_WAV = (
    b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00@\x1f\x00\x00\x80>\x00\x00\x02\x00\x10\x00data"
    + bytes(4)
)
HOSTILE = "<script>alert('x')</script> & \"quoted\""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the demo once in its smallest form; return (sections, page)."""
    out, caught = tmp_path_factory.mktemp("demo"), []

    def write(sections, *args, **kwargs):
        caught.extend(sections)
        return write_page(sections, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(demo, "write_page", write)
        patch.chdir(out)
        assert demo.run("rs2", out / "page", quick=True) == 0
    return caught, out / "page" / "index.html"


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.files, self.tags, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.files += [value for key, value in attrs if key in ("src", "srcset")]


def test_rows_hold_the_method_its_controls_and_its_baselines(ran):
    (section,), _ = ran
    assert [row.kind for row in section.rows] == ["ours", "control", "control", "baseline", "baseline"]
    ours, short, limit, static, full = (
        {c.name: cell for c, cell in zip(section.columns, r.cells, strict=True)} for r in section.rows
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


def test_page_and_verdict_hold_the_numbers_of_the_section(ran):
    (section,), page = ran
    text = page.read_text(encoding="utf-8")
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    shown = re.findall(r'<td class="number">([^<]*)</td>', table)
    assert shown == [c.show(cell) for row in section.rows for c, cell in zip(section.columns, row.cells, strict=True)]
    for row in section.rows:
        assert f"{row.cells[0].value:.1f}\N{NO-BREAK SPACE}%" in section.verdict
    assert section.verdict in text


def test_page_needs_no_network_and_every_file_is_there(ran):
    _, page = ran
    text = page.read_text(encoding="utf-8")
    parsed = _Page(text)
    assert len(parsed.files) == 4  # two figures, light and dark
    assert all((page.parent / name).is_file() for name in parsed.files)
    assert not re.search(r"(?:https?:)?//\w", text)
    assert "@import" not in text
    assert "url(" not in text
    assert "script" not in parsed.tags
    assert sorted(path.name for path in page.parent.iterdir()) == sorted(
        ["index.html", *parsed.files]
    )  # nothing unfinished


def test_page_is_well_made(ran):
    _, page = ran
    parsed = _Page(page.read_text(encoding="utf-8"))
    assert parsed.tags.count("h1") == 1
    assert parsed.tags.count("h2") == 1
    assert parsed.tags.count("caption") == 1
    assert {value for tag, key, value in parsed.attributes if tag == "th" and key == "scope"} == {"row", "col"}
    ids = [value for _, key, value in parsed.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    anchors = [value[1:] for tag, key, value in parsed.attributes if tag == "a" and key == "href"]
    described = [value for _, key, value in parsed.attributes if key == "aria-labelledby"]
    assert set(anchors + described) <= set(ids)
    assert all(value for tag, key, value in parsed.attributes if tag == "img" and key == "alt")


def _section(**changed):
    values = {
        "method": "other",
        "title": "Other",
        "problem": "A problem.",
        "setting": "A setting.",
        "table_caption": "Numbers",
        "columns": (Column("loss"), Column("time", "s", 2)),
        "rows": (
            Row("without", "baseline", (Cell(1.25), None)),
            Row("with", "ours", (Cell(1000, 0.5), Cell(2, 0.125))),
        ),
        "verdict": "A verdict.",
        "usage": (("Script", "code"),),
        "seconds": 1.0,
    }
    return Section(**{**values, **changed})


def test_all_text_is_escaped(tmp_path):
    hostile = _section(
        title=HOSTILE,
        problem=HOSTILE,
        setting=HOSTILE,
        table_caption=HOSTILE,
        verdict=HOSTILE,
        columns=(Column(HOSTILE, HOSTILE),),
        rows=(Row(HOSTILE, "ours", (Cell(1),)),),
        usage=((HOSTILE, HOSTILE),),
        pictures=(Picture("drawn", HOSTILE, HOSTILE, _empty_figure),),
        audio=(Audio("said", HOSTILE, SILENT_WAV),),
        more=(Table(HOSTILE, (Column(HOSTILE),), (Row(HOSTILE, "ours", (Cell(1),)),), HOSTILE, HOSTILE),),
    )
    parsed = _Page(write_page([hostile], tmp_path, facts=HOSTILE, missing=[HOSTILE]).read_text(encoding="utf-8"))
    assert "script" not in parsed.tags
    assert ("img", "alt", HOSTILE) in parsed.attributes
    assert "quoted" not in {key for _, key, _ in parsed.attributes}


def _empty_figure():
    from matplotlib.figure import Figure

    return Figure()


def test_audio_is_a_file_with_controls_and_numbers_are_shown_with_their_spread(tmp_path):
    page = write_page([_section(audio=(Audio("said", "Good morning.", SILENT_WAV),))], tmp_path / "new" / "folder")
    parsed = _Page(page.read_text(encoding="utf-8"))
    assert (page.parent / "other-said.wav").read_bytes() == SILENT_WAV
    assert ("audio", "controls", None) in parsed.attributes
    shown = re.findall(r'<td class="number">([^<]*)</td>', page.read_text(encoding="utf-8"))
    assert shown == ["1.2", "not measured", "1,000.0 ± 0.5", "2.00 ± 0.12"]


def _further():
    return Table(
        "More numbers", (Column("bytes"),), (Row("small", "ours", (Cell(12),)),), "Measured so.", "It is small."
    )


def test_further_tables_stand_below_the_verdict_with_words_of_their_own(tmp_path):
    text = write_page([_section(more=(_further(),))], tmp_path).read_text(encoding="utf-8")
    parsed = _Page(text)
    assert parsed.tags.count("caption") == 2
    ids = [value for _, key, value in parsed.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert {value for _, key, value in parsed.attributes if key == "aria-labelledby"} <= set(ids)
    order = ["A setting.", "1,000.0", "A verdict.", "Measured so.", "More numbers", "12.0", "It is small."]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    console = Console(width=80, record=True, file=io.StringIO())
    demo._print_section(console, _section(more=(_further(),)))
    printed = console.export_text()
    places = [printed.index(words) for words in ["Other", "A verdict.", "More numbers", "12.0", "It is small."]]
    assert places == sorted(places)


def test_section_refuses_rows_that_do_not_fit_and_names_that_are_no_file_names():
    with pytest.raises(ValueError, match=r"`cells` must be of length 2, but got 1\. Give 'short' one per column"):
        _section(rows=(Row("short", "ours", (Cell(1),)),))
    with pytest.raises(ValueError, match=r"`cells` must be of length 2, but got 1\. Give 'few' one per column"):
        Table("More", (Column("a"), Column("b")), (Row("few", "ours", (Cell(1),)),))
    with pytest.raises(ValueError, match="`name` must be made of a-z"):
        _section(audio=(Audio("../up", "", b""),))


def test_a_failed_write_leaves_the_old_page(tmp_path):
    page = write_page([_section()], tmp_path)
    before = page.read_bytes()

    def fail():
        raise RuntimeError("cannot draw")

    with pytest.raises(RuntimeError, match="cannot draw"):
        write_page([_section(title="New", pictures=(Picture("bad", "c", "a", fail),))], tmp_path)
    assert page.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


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


def test_every_column_is_printed_on_a_narrow_terminal(ran):
    (section,), _ = ran
    console = Console(width=80, record=True, file=io.StringIO())
    demo._print_section(console, section)
    printed = console.export_text()
    for row in section.rows:
        assert all(column.show(cell) in printed for column, cell in zip(section.columns, row.cells, strict=True))
    assert "…" not in printed


def test_demo_prints_the_page_and_none_of_lightnings_chatter(tmp_path, monkeypatch, capfd):
    import lightning_adapt.rs2.demo as rs2_demo

    def fit_once(context):
        task = rs2_demo._digits_task(quick=True)
        rs2_demo._fit(task, "short", 0, context.advance, steps=2)
        return _section()

    monkeypatch.setattr(rs2_demo, "run", fit_once)
    assert demo.run("rs2", tmp_path) == 0
    printed = capfd.readouterr()
    assert str(tmp_path / "index.html") in printed.out
    for chatter in ("GPU", "TPU", "Tip", "max_steps", "num_workers", "Warning"):
        assert chatter not in printed.out + printed.err


# -- in a browser -----------------------------------------------------------------------------------------------------
PROBE = """<script>addEventListener("load", () => {
  const seen = [...document.images].map((i) => i.currentSrc.split("/").pop() + "=" + i.naturalWidth);
  const wide = document.documentElement.scrollWidth > innerWidth ? "too wide" : "fits";
  document.title = ["PROBE", wide, ...seen].join(" ");
});</script></body>"""


def _chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI") == "true":
        pytest.fail("No Chromium: install the package chromium.")
    return pytest.skip("No Chromium on this machine.")


@pytest.mark.parametrize("width", [500, 1200])  # headless Chromium makes no window narrower than 500
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_shows_the_page_without_errors(ran, tmp_path, scheme, width):
    _, page = ran
    shutil.copytree(page.parent, tmp_path / "page")
    copy = tmp_path / "page" / "index.html"
    copy.write_text(copy.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    colours = {"light": "1", "dark": "0"}[scheme]
    command = [
        *(_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"),
        *(f"--user-data-dir={tmp_path / 'profile'}", f"--blink-settings=preferredColorScheme={colours}"),
        *(f"--window-size={width},1000", "--virtual-time-budget=5000", "--dump-dom", copy.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    probe = re.search(r"<title>PROBE (fits|too wide) ([^<]*)</title>", done.stdout)
    assert probe is not None
    assert probe[1] == "fits"
    images = dict(entry.split("=") for entry in probe[2].split())
    assert set(images) == {f"rs2-accuracy-{scheme}.svg", f"rs2-coverage-{scheme}.svg"}
    assert all(int(natural) > 0 for natural in images.values())


def test_the_browser_check_sees_a_missing_figure(tmp_path):
    # the test of the test: a page whose figure is gone must report a width of 0
    page = write_page([_section(pictures=(Picture("gone", "c", "a", _empty_figure),))], tmp_path)
    for figure in tmp_path.glob("*.svg"):
        figure.unlink()
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    command = [_chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert re.search(r"<title>PROBE \w+ other-gone-\w+\.svg=0</title>", done.stdout)
