"""Finding rows in files of any bytes: never a crash, the right line, little memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from astrea.data.readers import line_index, open_reader
from astrea.data.readers.formats import FORMS
from astrea.data.readers.issues import BadRow, Issue
from astrea.data.readers.jsonl import parse_object
from astrea.data.readers.line_index import index_array, index_lines
from astrea.data.readers.reader import JsonReader

BLANK = b" \t\r\n"
ANY_FILE = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pieces = st.sampled_from(
    [b"\n", b"\r\n", b"0", b"{", b"}", b"[", b"]", b",",
      b'"', b"\\", b"\xff", b"\xef\xbb\xbf", b'{"id": 1}', b"{}", b" ", b"NaN"]
)  # fmt: skip
wild = st.one_of(st.binary(max_size=60), st.lists(pieces, max_size=25).map(b"".join))


def kind_of_fault(line: bytes) -> str:
    """What is wrong with a row that is at best an object without conversations."""
    try:
        parse_object(line)
    except BadRow as bad:
        return bad.kind
    return "wrong_type"


@ANY_FILE
@given(wild)
@example(b"\xef\xbb\xbf\n\n{}\n")
@example(b"{}\n\n \r\n[1]\n{")
def test_any_bytes_as_lines(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    body = data.removeprefix(b"\xef\xbb\xbf")
    lines = {n: line.strip(BLANK) for n, line in enumerate(body.split(b"\n"), 1) if line.strip(BLANK)}
    found = index_lines(path)
    assert dict(found.read(index) for index in range(len(found))) == lines
    reader = JsonReader(path, "llava", FORMS["llava"])
    told = list(reader.examine())
    assert [one.where.number for one in told if isinstance(one, Issue)] == list(lines)
    for one, line in zip(told, lines.values(), strict=True):
        assert one.kind == kind_of_fault(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@ANY_FILE
@given(st.lists(json_values, max_size=6), st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 40))
def test_an_array_is_found_as_json_reads_it(
    tmp_path: Path, values: list[object], indent: int | None, ascii: bool, chunk: int
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii)
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_index, "CHUNK", chunk)
        found = index_array(path)
    assert found.broken is None
    rows = [found.read(index) for index in range(len(found))]
    assert [json.loads(data) for _, data in rows] == values
    if indent is not None and values:
        heads = [n for n, line in enumerate(text.split("\n"), 1) if line.startswith(" " * indent) and n > 1]
        starts = [line for line, _ in rows]
        assert starts == sorted(starts)
        assert starts[0] == 2
        assert set(starts) <= {*heads, 2}


@ANY_FILE
@given(wild, st.integers(1, 9))
def test_any_bytes_as_an_array(tmp_path: Path, data: bytes, chunk: int) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_index, "CHUNK", chunk)
        told = list(JsonReader(path, "llava", FORMS["llava"]).examine())
    # Elements that share a line are told by their own number.
    most = max(data.count(b"\n"), data.count(b",")) + 1
    assert all(isinstance(one, Issue) and 1 <= one.where.number <= most for one in told)
    try:
        whole = json.loads(b"[" + data)
    except ValueError:
        assert told
    else:
        assert len(told) == len(whole)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('[\n{"id": 1},\n\n{"id": ,\n "x": 2},\n{}\n]', [(2, "wrong_type"), (4, "unreadable"), (6, "wrong_type")]),
        ('[{"id": 1}\n{"id": 2}]', [(1, "unreadable")]),
        ('[{"id": 1},\n]', [(1, "wrong_type"), (2, "unreadable")]),
        ('[{"id": 1},\n{"id": "2', [(1, "wrong_type"), (2, "unreadable"), (2, "unreadable")]),
        ('[{"id": 1}]\nmore', [(1, "wrong_type"), (2, "unreadable")]),
        ('[{"id": 1}}', [(1, "wrong_type"), (1, "unreadable")]),
        ("[ \n]", []),
    ],
)  # fmt: skip
def test_a_bad_element_has_its_line(tmp_path: Path, text: str, places: list[tuple[int, str]]) -> None:
    (tmp_path / "a.json").write_text(text)
    told = JsonReader(tmp_path / "a.json", "llava", FORMS["llava"]).examine()
    assert [(one.where.number, one.kind) for one in told if isinstance(one, Issue)] == places


def test_elements_that_share_a_line_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"conversations": []}] * 2 + [{"conversations": 1}]))
    told = list(JsonReader(tmp_path / "a.json", "llava", FORMS["llava"]).examine())
    assert [isinstance(one, Issue) for one in told] == [False, False, True]
    assert str(told[2]).startswith(f"{tmp_path / 'a.json'}:3 -: 'conversations' is a number")


@pytest.mark.parametrize(
    ("row", "kind", "said"),
    [
        (b"[" * 100_000, "unreadable", "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "unreadable", "5000 digits"),
        (b'{"a": NaN}', "unreadable", "NaN"),
        (b"7", "unreadable", "a number, not an object"),
        (b'{"a": "\xe4"}', "encoding", "byte 8 of the row (0xe4)"),
        (b'{"a" 1}', "unreadable", "Expecting ':' delimiter at character 6"),
        (b'{"conversations": [{"from": "human", "value": "\\ud800"}]}', "wrong_type", "half of a character"),
    ],
)
def test_rows_that_no_reader_likes(tmp_path: Path, row: bytes, kind: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"conversations": []}\n' + row + b"\n")
    issue = list(open_reader(path).examine())[1]
    assert isinstance(issue, Issue)
    assert (issue.where.number, issue.kind) == (2, kind)
    assert said in issue.message
    assert issue.hint


def test_a_row_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("line_index", "jsonl"):
        monkeypatch.setattr(f"astrea.data.readers.{module}.MAX_ROW_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_text('{"conversations": []}\n{"conversations": [], "x": "' + "y" * 100 + '"}\n{"conversations": []}\n')
    told = list(open_reader(path).examine())
    assert [isinstance(one, Issue) for one in told] == [False, True, False]
    assert "more than 100 bytes" in told[1].message


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    rows, path = 10_000, tmp_path / name
    with path.open("w") as file:
        for number in range(rows):
            row = {"id": number, "conversations": [{"from": "human", "value": "x" * 900}]}
            before = "" if name == "a.jsonl" else "[" if number == 0 else ","
            file.write(f"{before}{json.dumps(row)}\n")
        file.write("]" if name == "a.json" else "")
    size = path.stat().st_size
    assert size > 9 << 20
    tracemalloc.start()
    reader = open_reader(path)
    seen = sum(len(record.messages) for record in (reader[index] for index in range(0, rows, 100)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (seen, len(reader)) == (rows // 100, rows)
    assert peak < size / 3


def test_a_row_of_too_many_values_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrea.data.readers.jsonl.MAX_VALUES", 10)
    assert parse_object(b'{"a": [1, 2, 3, 4, 5, 6, 7, 8, 9]}')["a"][-1] == 9
    with pytest.raises(BadRow, match="more than 10 values"):
        parse_object(b'{"a": [[], [], [], [], [], [], [], []]}')
