"""Every issue, told once, at its place, in exactly these words."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty_rows import QA, ROWS, told
from record_rows import write_jsonl

from astrea.data.readers.check import Checks
from astrea.data.readers.issues import KINDS, NOTES, printable


def test_one_of_each_fault_is_told_in_these_words(faulty: Path) -> None:
    root = faulty.parent / "photos"
    wanted = []
    for line, (id, row, said) in enumerate(ROWS, 1):
        shown = "3" if row == b'{"id": 3}' else id or "-"
        wanted += [
            f"{faulty}:{line} {shown}: {one}" for one in (said or "").replace("ROOT", str(root)).split("|") if one
        ]
    found = told(faulty, root)
    assert [str(issue) for issue in found] == wanted
    everywhere_else = {"empty_file", "unusable", "merged", "unsorted", *NOTES}
    assert {issue.kind for issue in found} == KINDS.keys() - everywhere_else


def test_without_decoding_only_the_header_is_read(faulty: Path) -> None:
    found = told(faulty, faulty.parent / "photos", Checks())
    kinds = {issue.id: issue.kind for issue in found}
    assert "cut" not in kinds
    assert kinds["corrupt"] == "image_corrupt"
    assert not {"text-only", "long-picture", "long-question", "long-answer"} & kinds.keys()


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"[]", b"[\n]\n"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ("a.json" if b"[" in content else "a.jsonl")
    path.write_bytes(content)
    assert [str(issue) for issue in told(path, tmp_path)] == [
        f"{path} -: the file holds no record; fill the file, or leave it out"
    ]


def test_a_line_stays_a_line(tmp_path: Path) -> None:
    row = {"id": "a\nb\x1b[31m\u202e" + "x" * 500, "image": "no\r\nne\x1b.png", "conversations": QA}
    (line,) = map(str, told(write_jsonl(tmp_path / "a.jsonl", [row]), tmp_path))
    assert line.isprintable()
    assert r"a\nb\x1b[31m\u202exxx" in line
    assert r"'no\r\nne\x1b.png' does not exist" in line
    assert len(line) < 500
    assert printable("\ud800") == "\\ud800"
