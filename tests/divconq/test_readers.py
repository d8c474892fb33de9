"""Files of instruction data: every row as it is in the file, chosen rows byte for byte, errors with file and line."""

from __future__ import annotations

import json
import pickle
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_adapt.divconq.text import json_list
from lightning_adapt.divconq.text.conversation import Turn
from lightning_adapt.divconq.text.readers import RowError, open_rows, write_rows

ROWS = [{"prompt": f"p{row} é\u2028😀", "response": f"r{row}"} for row in range(5)]


def lines(rows, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def put(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        (lines(ROWS), [1, 2, 3, 4, 5]),
        (lines(ROWS)[:-1], [1, 2, 3, 4, 5]),  # no line feed at the end
        (lines(ROWS, "\r\n"), [1, 2, 3, 4, 5]),
        (b"\xef\xbb\xbf" + lines(ROWS), [1, 2, 3, 4, 5]),
        (b"\n  \n" + lines(ROWS, "\n\r\n") + b" \t ", [3, 5, 7, 9, 11]),
    ],
    ids=["plain", "no-end", "crlf", "bom", "blank"],
)
@pytest.mark.parametrize("name", ["pool.jsonl", "pool.ndjson", "pool.json"])
def test_lines_are_read_with_their_numbers(tmp_path, data, numbers, name):
    rows = open_rows(put(tmp_path, name, data))
    assert (rows.kind, rows.format, len(rows)) == ("jsonl", "prompt-response", 5)
    assert list(rows) == ROWS
    assert (rows[3], rows[-1], rows[1:3]) == (ROWS[3], ROWS[4], ROWS[1:3])
    assert [rows.place(row) for row in range(5)] == [f"{name}, line {number}" for number in numbers]
    assert rows.conversation(2) == (Turn("user", ROWS[2]["prompt"]), Turn("assistant", "r2"))
    with pytest.raises(IndexError, match="5 rows of pool"):
        rows[5]


def test_chosen_lines_are_copied_byte_for_byte(tmp_path):
    odd = [
        b'{"response":"a" ,"prompt": "\\u00e9"}',
        b' {"prompt":"b","response":"c"}\r',
        b'{"prompt":"d","response":1e2}',
    ]
    rows = open_rows(put(tmp_path, "pool.jsonl", b"\xef\xbb\xbf" + odd[0] + b"\n\n" + odd[1] + b"\n" + odd[2]))
    write_rows([2, 0, 1], rows, tmp_path / "new" / "chosen.jsonl")
    assert (tmp_path / "new" / "chosen.jsonl").read_bytes() == odd[2] + b"\n" + odd[0] + b"\n" + odd[1] + b"\n"


JSON_ROWS = st.lists(
    st.dictionaries(
        st.text(max_size=4), st.integers() | st.text(max_size=8) | st.lists(st.none(), max_size=2), max_size=3
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(JSON_ROWS, st.sampled_from([None, 1]), st.booleans(), st.booleans())
def test_items_of_a_json_list_are_found_whatever_the_chunks(tmp_path_factory, rows, indent, ascii_only, bom):
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only) + " \n"
    data = (b"\xef\xbb\xbf" if bom else b"") + text.encode("utf-8", "replace")
    path = put(tmp_path_factory.mktemp("json"), "pool.json", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "CHUNK_BYTES", 3)
        found = open_rows(path)
    expected = json.loads(text.encode("utf-8", "replace"))
    assert found.kind == "json"
    assert list(found) == expected
    order = range(len(rows) - 1, -1, -1)
    write_rows(order, found, path.with_name("chosen.json"))
    assert json.loads(path.with_name("chosen.json").read_bytes()) == expected[::-1]
    for row in order:
        assert found.raw(row) in data


def test_a_json_list_knows_its_lines_and_keeps_the_bytes_of_its_items(tmp_path):
    item = b'{"prompt" : "a",\n  "response": "b"}'
    rows = open_rows(put(tmp_path, "pool.json", b"[\n" + item + b",\n\n" + item.replace(b"a", b"c") + b"]"))
    assert [rows.place(row) for row in (0, 1)] == ["pool.json, line 2", "pool.json, line 5"]
    write_rows([1, 0], rows, tmp_path / "chosen.json")
    assert (tmp_path / "chosen.json").read_bytes() == b"[\n" + item.replace(b"a", b"c") + b",\n" + item + b"\n]\n"


def read_all(path):
    rows = open_rows(path)
    return [rows.conversation(row) for row in range(len(rows))]


GOOD = b'{"prompt": "a", "response": "b"}\n'


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        ("a.jsonl", GOOD + b'\n{"prompt": "a", "resp\n' + GOOD, ["a.jsonl, line 3", "one JSON object", '"resp']),
        ("a.jsonl", GOOD + b'{"prompt": "a" "response": "b"}\n', ["line 2", "column 16", "',' delimiter"]),
        ("a.jsonl", GOOD + b"3\n", ["line 2", "got a int", "3"]),
        ("a.jsonl", GOOD + b'{"prompt": "\xff", "response": "b"}\n', ["line 2", "UTF-8", "byte 13", "xff"]),
        ("a.jsonl", GOOD + b"[" * 100_000 + b"\n", ["line 2", "nested too deeply"]),
        ("a.jsonl", GOOD + b'{"prompt": ' + b"1" * 5000 + b"}\n", ["line 2", "cannot be read", "digits"]),
        ("a.jsonl", GOOD + b'{"instruction": "a", "output": "b"}\n', ["line 2", "prompt-response", "alpaca"]),
        ("a.jsonl", GOOD * 9 + b'{"instruction": "a", "output": "b"}\n', ["line 10", "prompt-response", "instruction"]),
        ("a.jsonl", GOOD * 9 + b'{"prompt": 3, "response": "b"}\n', ["line 10", "`prompt`", "3"]),
        ("a.jsonl", b'{"text": "a"}\n', ["line 1", "alpaca", "text"]),
        ("a.jsonl", b"", ["at least one row", "a.jsonl"]),
        ("a.json", b" \n", ["at least one row"]),
        ("a.json", b"[]", ["at least one row"]),
        ("a.json", b"[{},\n{]", ["a.json, line 2", "a list of JSON objects", "malformed"]),
        ("a.json", b'[{"a": 1}\n{"a": 2}]', ["line 2", "is missing", '{"a": 2}']),
        ("a.json", b'[{"a": 1},\n', ["line 2", "malformed"]),
        ("a.json", b'[{"a": 1}\n', ["line 2", "is missing", "end of the file"]),
        ("a.json", b'[{"a": 1}]\n{"a": 2}', ["line 2", "after the list"]),
        ("a.json", b'["a", "b"]', ["line 1", "got a str"]),
        ("a.json", b'[{"a": "\xff"}]', ["line 1", "UTF-8"]),
        ("a.json", b"[" * 100_000, ["line 1", "nested too deeply"]),
        ("a.jsonl", "é".encode("utf-16"), ["a.jsonl", "UTF-16"]),
        ("a.jsonl", b"\x1f\x8b\x08", ["gzip", "unpack"]),
        ("a.json", b"PAR1", [".parquet"]),
        ("a.parquet", b"PAR1 but not really", ["a.parquet", "expected a parquet file"]),
        ("a.csv", b"a,b", [".jsonl", ".parquet", "a.csv"]),
    ],
)
def test_errors_name_file_line_and_what_was_expected(tmp_path, name, data, parts):
    path = put(tmp_path, name, data)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the parts are looked for below
        read_all(path)
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 900


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\n\n a1\ufeff', max_size=60).map(str.encode))
def test_random_bytes_are_rows_or_an_error_of_ours(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    for name in ("a.jsonl", "a.json", "a.parquet"):
        text, kind = name, RowError
        try:
            read_all(put(folder, name, data))
        except ValueError as error:
            text, kind = str(error), type(error)
        assert name in text
        assert kind in {RowError, ValueError}  # and none of json's or pyarrow's


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_rows(tmp_path / "nowhere.jsonl")
    with pytest.raises(TypeError, match="path or a data set"):
        open_rows(7)
    with pytest.raises(ValueError, match="folder written by `datasets`"):
        open_rows(tmp_path)
    put(tmp_path, "train.jsonl", GOOD)
    with pytest.raises(ValueError, match=r"such as .*train\.jsonl"):
        open_rows(tmp_path)


def test_what_cannot_be_written_is_refused_and_leaves_no_file(tmp_path):
    rows = open_rows(put(tmp_path, "pool.jsonl", GOOD * 3 + b"{oops\n"))
    before = set(tmp_path.iterdir())
    for chosen, out, message in [
        ([0], "out.parquet", "'.jsonl'"),
        ([], "out.jsonl", "at least one row"),
        ([4], "out.jsonl", "from 0 to 3"),
        ([0], "pool.jsonl", "another path"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_rows(chosen, rows, tmp_path / out)
    with pytest.raises(TypeError, match="`rows`"):
        write_rows([0.5], rows, tmp_path / "out.jsonl")
    assert set(tmp_path.iterdir()) == before


def test_rows_are_pickled_for_workers_and_notice_another_file(tmp_path):
    path = put(tmp_path, "pool.jsonl", lines(ROWS))
    rows = open_rows(path)
    data = pickle.dumps(rows)
    copy = pickle.loads(data)
    del rows  # closes its own file only
    assert list(copy) == ROWS
    path.write_bytes(GOOD)
    with pytest.raises(ValueError, match="shorter"):
        copy[4]
    with pytest.raises(ValueError, match="has changed"):
        pickle.loads(data)


def test_many_rows_take_little_memory(tmp_path):
    for name, data in (("a.jsonl", GOOD * 20_000), ("a.json", b"[" + b",".join([GOOD] * 20_000) + b"]")):
        path = put(tmp_path, name, data)
        tracemalloc.start()
        rows = open_rows(path)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(rows) == 20_000
        assert rows[19_999] == {"prompt": "a", "response": "b"}
        assert held < 30 * 20_000  # 24 bytes for each
        assert peak < 12e6 + 4 * len(data)  # a large part of it the chunk


def test_one_object_over_several_lines_is_told_from_a_list(tmp_path):
    rows = open_rows(put(tmp_path, "a.json", json.dumps({"data": [{"prompt": "a"}]}, indent=1).encode()))
    with pytest.raises(ValueError, match=r"a.json, line 1: expected one JSON object on each line, or a list of them"):
        rows[0]


def test_a_very_long_line(tmp_path):
    rows = open_rows(put(tmp_path, "a.jsonl", lines([{"prompt": "x" * 5_000_000, "response": "y"}]) + GOOD))
    assert [len(row["prompt"]) for row in rows] == [5_000_000, 1]
    rows = open_rows(put(tmp_path, "a.json", json.dumps([{"prompt": "x" * 9_000_000}, {"prompt": ""}]).encode()))
    assert [len(row["prompt"]) for row in rows] == [9_000_000, 0]
