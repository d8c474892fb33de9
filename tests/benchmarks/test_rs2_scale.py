"""The benchmark of cost and memory at scale says no when it should, and measures what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import RandomSampler

from lightning_adapt import RS2Sampler
from lightning_adapt.rs2.functional import permute
from tests.reference import rs2 as reference

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"
QUICK = ["--quick", "--check", "--seeds", "1"]


@pytest.fixture
def scale(script_of):
    return script_of("rs2_scale")


@pytest.fixture
def here(scale, monkeypatch):
    """The script without processes: a record of what it asks for, answered from a table of costs."""
    asked = []

    def measure_apart(**given):
        asked.append(given)
        cost = given["n"] / 1e7 if scale.PERMUTATION == "randperm" or "RS2" not in given["kind"] else 0.1
        if cost > 10:
            raise MemoryError(given["n"])
        first = {"first index": cost / 2} if "iterated" in given["kind"] else {}
        return {"seconds": cost, "MiB": 100 * cost, **first}

    monkeypatch.setattr(scale.process, "measure_apart", measure_apart)
    return asked


def test_check_passes_with_the_method_and_fails_with_its_control(scale, monkeypatch, capsys):
    """In real processes; the control stores the whole permutation, at a size that this machine can bear."""
    n = 4 * 10**6
    monkeypatch.setattr(scale, "SIZES", {"quick": dict.fromkeys(scale.process.KINDS, (n,))})
    monkeypatch.setattr(scale, "LARGEST", {"quick": n})
    monkeypatch.setattr(scale, "COMPARED", {"quick": (n, n)})
    # only memory: it does not depend on what else the machine does
    loose = {"seconds": 60, "MiB": 200, "time ratio": 60, "memory ratio": 0.9}
    monkeypatch.setattr(scale, "THRESHOLDS", {"quick": loose})
    monkeypatch.setattr(scale, "K", 10**5)
    monkeypatch.setattr(scale, "PERMUTATION", "feistel")
    assert scale.main(QUICK) == 0
    monkeypatch.setattr(scale, "PERMUTATION", "randperm")
    assert scale.main(QUICK) == 1
    assert f"FAILS  (quick) {scale.TENSOR}, N=4e6 against {scale.RANDPERM}, N=4e6" in capsys.readouterr().out


def test_the_shipped_quick_thresholds_fail_for_a_stored_permutation(scale, here, monkeypatch, tmp_path):
    assert scale.main(QUICK) == 0
    monkeypatch.setattr(scale, "LARGEST", {"quick": 10**7})
    monkeypatch.setattr(scale, "COMPARED", {"quick": (10**7, 10**7)})
    monkeypatch.setattr(scale, "SIZES", {"quick": dict.fromkeys(scale.process.KINDS, (10**7,))})
    monkeypatch.setattr(scale, "PERMUTATION", "randperm")
    assert scale.main(QUICK) == 1


def recorded(scale, costs):
    options = scale.h.Options(False, True, None, (0, 1, 2), "cpu", 1)
    study = scale.h.Study("recorded", scale.METRIC, {}, options)
    for name, (seconds, mib) in costs.items():
        for seed, slower in enumerate((1.0, 1.5, 1.2)):  # the machine is slower at times, for all rows of a repeat
            study.add(name, seed, {"seconds": seconds * slower, "MiB": mib, "first index": seconds})
    return study, options


BILLION = {"RS2Sampler, tensor, N=1e9": (0.1, 20), "RS2Sampler, iterated, N=1e9": (0.2, 10)}
RIVALS = {"torch.randperm, N=1e8": (5, 763), "RandomSampler, iterated, N=1e8": (12, 4600)}
OURS = {"RS2Sampler, tensor, N=1e8": (0.09, 20), "RS2Sampler, iterated, N=1e8": (0.2, 10)}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"RS2Sampler, tensor, N=1e9": (0.42, 20)}, 1),  # 0.504 s in the middle repeat
        ({"RS2Sampler, iterated, N=1e9": (0.2, 151)}, 1),
        ({"RS2Sampler, tensor, N=1e8": (0.11, 20)}, 1),  # 1/45 of randperm
        ({"RS2Sampler, tensor, N=1e8": (0.09, 160)}, 1),  # more than a fifth of its memory
        ({"RS2Sampler, iterated, N=1e8": (0.3, 10)}, 1),
        ({"torch.randperm, N=1e8": None}, 1),  # not measured is not passed
    ],
)
def test_the_claims_of_the_full_run(scale, changed, code):
    costs = {name: cost for name, cost in {**BILLION, **RIVALS, **OURS, **changed}.items() if cost}
    study, options = recorded(scale, costs)
    assert scale.h.verdict(scale.check(study, "full"), options) == code


def test_randperm_of_a_billion_rows_runs_on_request_only(scale, here, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scale.h, "save_figure", lambda *_: None)
    sizes = {kind: sizes if "RS2" in kind else sizes[:2] for kind, sizes in scale.SIZES["full"].items()}
    monkeypatch.setattr(scale, "SIZES", {"full": sizes})
    assert scale.main(["--seeds", "1"]) == 0
    asked = {(given["kind"], given["n"]) for given in here}
    assert (scale.TENSOR, 10**9) in asked
    assert not {(scale.RANDPERM, 10**9), (scale.RANDOM_SAMPLER, 10**9)} & asked
    seconds, memory = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"│ {scale.RANDPERM} "))
    assert seconds.split("│")[-2].strip() == memory.split("│")[-2].strip() == "not measured"  # N = 1e9
    with pytest.raises(MemoryError, match="1000000000"):
        scale.main(["--seeds", "1", "--with-randperm-1e9"])


def test_a_result_file_and_a_figure_are_written_and_continued(scale, here, tmp_path):
    out = tmp_path / "rs2_scale.json"
    assert scale.main([*QUICK, "--out", str(out)]) == 0
    assert len(here) == 4
    assert scale.main([*QUICK[:-1], "2", "--out", str(out)]) == 0
    assert [given["seed"] for given in here] == [0] * 4 + [1] * 4
    assert {row["n"] for row in json.loads(out.read_text())["rows"]} == {2}
    assert out.with_suffix(".png").stat().st_size > 0
    assert scale.main([*QUICK, "--device", "cpu", "--out", str(out)]) == 0
    scale.COMPARED = {"quick": (1, 2)}
    assert scale.main([*QUICK, "--out", str(out)]) == 2


MEASURE = """
import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import _fresh_process as process
import torch

if sys.argv[2] == "forbidden":  # some containers do not let the mark start again
    process.CLEAR = Path("/nowhere/at/all")


def work():
    torch.ones(2**25).sum()  # 128 MiB, gone when it returns
    return {"first index": 1.0}


process.with_peak(dict)
print(json.dumps([process.with_peak(work), process.with_peak(dict)]))
"""


@pytest.mark.parametrize("restart", ["allowed", "forbidden"])
def test_memory_that_was_given_back_counts(restart):
    """In a new process: where the mark cannot be set back, the peak of an earlier test would hide this one."""
    ran = [sys.executable, "-c", MEASURE, str(BENCHMARKS), restart]
    measured, nothing = json.loads(subprocess.run(ran, check=True, capture_output=True, text=True).stdout)
    assert 120 < measured["MiB"] < 160  # the kernel counts resident pages in batches
    assert measured["first index"] == 1
    assert nothing["MiB"] < 8


def test_every_kind_reads_as_many_indices_as_the_others(scale, monkeypatch):
    read = []
    monkeypatch.setattr(scale.process, "deque", lambda rest, maxlen: read.append(len(list(rest))))
    for kind in (scale.ITERATED, scale.RANDOM_SAMPLER):
        measured = scale.process.measure(kind, 1000, 250, seed=0, permutation="auto", threads=torch.get_num_threads())
        assert measured["seconds"] >= measured["first index"] > 0
    assert read == [99, 99, 249] * 2  # without the first, after two warm-ups
    assert len(RS2Sampler(1000, 0.25)) == 250
    assert len(RandomSampler(range(1000))) == 1000
    monkeypatch.setattr(scale.process, "_rs2", lambda *_: RS2Sampler(1000, 0.334))
    with pytest.raises(RuntimeError, match="334 rows, not the 333"):
        scale.process.KINDS[scale.TENSOR](1000, 333, 0, "auto")


@pytest.mark.parametrize("n", [10**8, 2**33 + 5])
def test_blocks_change_no_index(n):
    index = torch.arange(7, 7 + 40_000)  # two whole blocks and a part of one
    images = permute(index, n, 5, 2)
    for place in (0, 16_383, 16_384, 32_767, 32_768, 39_999):
        assert int(images[place]) == reference.feistel(7 + place, n, 5, 2)
    alone = torch.cat([permute(part, n, 5, 2) for part in index.split(999)])
    assert torch.equal(images, alone)


def test_an_epoch_drawn_in_parts_is_the_epoch_drawn_at_once(monkeypatch):
    sampler = RS2Sampler(1000, 0.3)  # its fourth round crosses the end of a pass
    whole = [sampler.draw(t, torch.arange(300)).tolist() for t in range(4)]
    monkeypatch.setattr("lightning_adapt._shared.sampling._CHUNK", 7)
    assert [sampler.epoch_rows(t).tolist() for t in range(4)] == whole
