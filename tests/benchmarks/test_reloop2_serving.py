"""The serving benchmark measures real servers, the example among them, and says no when something was lost."""

import pytest

GOOD = {
    "predict p50, ms": 4.0,
    "predict p99, ms": 9.0,
    "feedback p50, ms": 5.0,
    "feedback p99, ms": 9.0,
    "slowest, ms": 150.0,
    "predictions": 20_000,
    "acknowledged": 19_800,
    "restarts": 3,
    "restart, s": 4.0,
    "AUC": 0.66,
    "in memory": 19_800,
    "blocks": ["a", "b", "c"],
}
ATTACKED = {"wrong": 145, "refused": 145, "survived": 1}


@pytest.fixture
def script(script_of):
    return script_of("reloop2_serving")


def study(script, killed, alone=None, size="full"):
    options = script.h.Options(size == "quick", True, None, (0, 1, 2), "cpu", 1)
    made = script.h.Study("reloop2_serving", script.METRIC, {}, options)
    for seed in range(3):
        made.add(script.KILLED, seed, {**GOOD, **ATTACKED, **(killed if seed == 1 else {})})
        made.add(script.WHOLE, seed, {**GOOD, "restarts": 0})
        made.add(script.ALONE, seed, {**GOOD, "AUC": 0.64, "blocks": ["a", "x", "y"], **(alone or {})})
    return made


@pytest.mark.parametrize(
    ("killed", "alone", "failing"),
    [
        ({}, {}, None),
        ({"in memory": 19_799}, {}, "acknowledged labels that are not in the memory"),
        ({"in memory": 19_801}, {}, "acknowledged labels that are not in the memory"),
        ({"blocks": ["a", "b", "d"]}, {}, "killed three times against never killed"),
        ({"blocks": ["a", "b"]}, {}, "killed three times against never killed"),
        ({"restarts": 2}, {}, "started again"),
        ({"refused": 144}, {}, "not refused"),
        ({"wrong": 99, "refused": 99}, {}, "requests that are wrong"),
        ({"survived": 0}, {}, "survived"),
        ({"predictions": 19_999}, {}, "predictions"),
        ({}, {"blocks": GOOD["blocks"]}, "never killed against model alone: blocks"),
        ({}, {"AUC": 0.66}, "AUC"),
    ],
)
def test_the_claims(script, killed, alone, failing):
    claims = script.check(study(script, killed, alone), "full")
    assert [claim.text for claim in claims if not claim.holds] == [
        claim.text for claim in claims if failing is not None and failing in claim.text
    ]
    assert sum(not claim.holds for claim in claims) == (failing is not None)


def test_without_measurements_nothing_holds(script):
    options = script.h.Options(False, True, None, (0,), "cpu", 1)
    claims = script.check(script.h.Study("reloop2_serving", script.METRIC, {}, options), "full")
    assert not any(claim.holds for claim in claims)


def test_latencies_are_printed_and_drawn(script, capsys):
    made = study(script, {})
    script.report(made, "full")
    printed = capsys.readouterr().out
    assert "20000 predictions" in printed
    assert all(row in printed for row in script.ROWS)
    assert script.draw(made) is not None


def test_labels_come_late_and_each_row_has_one_request(script, monkeypatch):
    small(script, monkeypatch)
    requests = script.calls("quick")
    seen = set()
    for request in requests:
        if request["type"] == "predict":
            seen |= set(request["ids"])
        else:
            assert len(request["ids"]) == 5
            assert max(request["ids"]) + 10 < len(seen)
            assert set(request["ids"]) <= seen
    assert seen == set(range(40))


def small(script, monkeypatch):
    for name, value in {"TRAINED": {"quick": 2000}, "LATE": 10, "AT_ONCE": 5, "BLOCK": 10, "KILLS": 1}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "THRESHOLDS", {"quick": {"predictions": 40, "wrong": 100}})


def test_servers_are_measured(script, monkeypatch, tmp_path):
    small(script, monkeypatch)
    checkpoint = tmp_path / "model.ckpt"
    with script.h.bench_settings(1):
        script.train("quick", checkpoint)
    killed = script.measure("quick", checkpoint, script.KILLED, 0)
    assert (killed["predictions"], killed["restarts"], killed["survived"]) == (40, 1, 1)
    assert killed["acknowledged"] == killed["in memory"] == 30
    assert killed["refused"] == killed["wrong"] >= 100
    alone = script.measure("quick", checkpoint, script.ALONE, 0)
    assert alone["blocks"][0] == killed["blocks"][0], "nothing was known yet"
    assert alone["blocks"][3] != killed["blocks"][3]
