"""The benchmark of the memories' speed says no when it should, and measures what it says."""

import json

import pytest

from lightning_adapt.reloop2.memory import ErrorMemory

QUICK = ["--quick", "--check", "--seeds", "1"]


@pytest.fixture
def speed(script_of, monkeypatch):
    """The script with few samples and queries."""
    script = script_of("reloop2_speed")
    monkeypatch.setattr(script, "SIZES", {"quick": (2000, 20_000)})
    monkeypatch.setattr(script, "WRITTEN_AT", 2000)
    monkeypatch.setattr(script.m, "SINGLE", 2)
    monkeypatch.setattr(script.m, "WRITTEN", 2048)
    sizes = {kind: (20_000,) if "faiss" in kind else (2000, 20_000) for kind in script.m.QUERIES}
    queries = {kind: dict.fromkeys(ns, 512) for kind, ns in sizes.items()}
    monkeypatch.setattr(script.m, "QUERIES", queries)
    small = {"FIELDS": 3, "IDS": 50, "EMBEDDING": 4, "HIDDEN": (8,), "WIDTH": 20, "BATCH": 64}
    for constant, value in small.items():
        monkeypatch.setattr(script.c, constant, value)
    loose = {**script.THRESHOLDS["quick"], "N=2e4": 4, "flat": 3, "faiss": 3, "callback": 20}
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": loose})
    return script


def exact_instead_of_sketch(dim, **settings):
    return ErrorMemory(
        dim, **{**settings, "backend": "knn" if settings["backend"] == "sketch" else settings["backend"]}
    )


def test_check_passes_with_the_sketch_and_fails_with_an_exact_search_in_its_place(speed, monkeypatch, capsys):
    assert speed.main(QUICK) == 0
    assert "FAILS" not in capsys.readouterr().out
    monkeypatch.setattr(speed, "BUILD", exact_instead_of_sketch)
    assert speed.main(QUICK) == 1
    printed = capsys.readouterr().out
    assert "FAILS  (quick) sketch against brute force, N=2e4: times faster >= 4" in printed
    assert "FAILS  (quick) sketch, N=2e4 writes: bytes over 2^L K 12 <= 1.05" in printed


def test_a_result_file_and_a_figure_are_written_and_continued(speed, tmp_path):
    out = tmp_path / "speed.json"
    assert speed.main([*QUICK, "--out", str(out)]) == 0
    assert speed.main([*QUICK[:-1], "2", "--out", str(out)]) == 0
    rows = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {*speed.rows("quick"), *speed.c.QUICK_ROWS}
    assert all(row["n"] == 2 for row in rows.values())
    run = rows["sketch, N=2e4"]["runs"][0]
    assert 0 < run["share of gathers"] < 1
    assert 0 < run["share of hashing"] < 1
    assert run["bytes"] == 2**12 * 64 * 12
    assert out.with_suffix(".png").stat().st_size > 0
    speed.m.TABLES = 32
    assert speed.main([*QUICK, "--out", str(out)]) == 2


FULL = {  # microseconds a key, bytes
    "sketch, N=1e4": (2.0, 3_145_728),
    "sketch, N=1e5": (2.0, 3_145_728),
    "sketch, N=1e6": (2.1, 3_145_728),
    "brute force, N=1e5": (300, 0),
    "brute force, N=1e6": (6000, 0),
    "knn, N=1e4": (40, 264 * 10**4),
    "knn, N=1e5": (200, 264 * 10**5),
    "knn, N=1e6": (2000, 264 * 10**6),
    "knn written to, N=1e5": (1, 264 * 10**5),
    "faiss, N=1e5": (90, 0),
    "bare faiss, N=1e5": (80, 0),
    "faiss, N=1e6": (900, 0),
    "bare faiss, N=1e6": (800, 0),
    "test batch, no callback": (100, 0),
    "test batch, sketch": (109, 0),
}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"brute force, N=1e5": (15, 0)}, 1),  # 7.5 times
        ({"brute force, N=1e6": (100, 0)}, 1),  # 48 times
        ({"sketch, N=1e6": (2.5, 3_145_728)}, 1),  # 1.25 times slower than at 10,000
        ({f"sketch, N=1e{n}": (21.0, 3_145_728) for n in (4, 5, 6)}, 1),  # 47,600 a second
        ({"faiss, N=1e6": (1050, 0)}, 1),
        ({"sketch, N=1e6": (2.0, 3_400_000)}, 1),
        ({"sketch, N=1e6": (2.0, 2_900_000)}, 1),
        ({"knn, N=1e6": (2000, 290 * 10**6)}, 1),
        ({"knn written to, N=1e5": (1, 300 * 10**5)}, 1),
        ({"bare faiss, N=1e5": None}, 1),  # not measured is not passed
        ({"sketch, N=1e4": None}, 1),
        ({"test batch, sketch": (111, 0)}, 1),
        ({"test batch, sketch": None}, 1),
    ],
)
def test_the_claims_of_the_full_run(script_of, changed, code):
    script = script_of("reloop2_speed")
    options = script.h.Options(False, True, None, (0, 1, 2), "cpu", 1)
    study = script.h.Study("recorded", script.m.METRIC, {}, options)
    for name, cost in {**FULL, **changed}.items():
        for seed, slower in enumerate((1.0, 1.5, 0.9) if cost else ()):  # the machine is slower at times, for all rows
            study.add(name, seed, {script.m.METRIC: cost[0] * slower, "bytes": cost[1]})
    assert script.h.verdict(script.check(study, "full"), options) == code


def test_it_measures_the_cpu_only(speed, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert speed.main([*QUICK, "--device", "cuda"]) == 2
    assert "Leave out --device" in capsys.readouterr().out
