"""Copies without the bad records, in the same format; what can be repaired is repaired."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_rows import CHECKS, QA, ROWS, told, turns
from record_rows import picture, write_jsonl, write_tar

from astrea.common.errors import AstreaError
from astrea.data.readers import ImageRoot, open_reader
from astrea.data.readers.check import Checks, examine
from astrea.data.readers.issues import REPAIRABLE
from astrea.data.readers.repaired import FixedCopy, fixed_copy


def fix(path: Path, copy: Path, root: Path, checks: Checks = CHECKS) -> FixedCopy:
    reader, images = open_reader(path), ImageRoot(root)
    with fixed_copy(reader, copy, images, checks) as made:
        for index, (record, issues) in enumerate(examine(reader, images, checks)):
            made.take(index, record, issues)
    return made


def test_a_copy_without_the_bad_records_has_no_faults(faulty: Path) -> None:
    before, root = faulty.read_bytes(), faulty.parent / "photos"
    made = fix(faulty, faulty.parent / "fixed.jsonl", root)
    assert faulty.read_bytes() == before
    assert told(faulty.parent / "fixed.jsonl", root) == []
    records = list(open_reader(faulty.parent / "fixed.jsonl"))
    assert [record.id for record in records] == ["good", "no-mark", "spaces", "role-space", "good-2", "edge"]
    assert records[1].messages[0].text == "<image>\nq"
    assert (made.kept, made.repaired, made.dropped) == (1, 5, len(ROWS) - 6)
    assert made.repairs == {"image_count": 1, "whitespace": 3, "duplicate_id": 1}
    assert made.repairs.keys() <= REPAIRABLE
    assert (faulty.parent / "fixed.jsonl").read_bytes().splitlines()[0] == before.splitlines()[0]


def test_copies_of_arrays_and_tables(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    rows = [{"id": id, "image": "a.png", "conversations": QA} for id in ("a", "a", "a-2", "b", " c")]
    rows[3]["image"] = "none.png"
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=2)
    schema = pa.Table.from_pylist(rows).schema
    with pa.ipc.new_file(tmp_path / "a.arrow", schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows))
    for ending in ("json", "parquet", "arrow"):
        copy = tmp_path / f"b.{ending}"
        made = fix(tmp_path / f"a.{ending}", copy, tmp_path)
        assert told(copy, tmp_path) == []
        assert [record.id for record in open_reader(copy)] == ["a", "a-2", "a-2-2", "c"]
        assert (made.kept, made.repaired, made.dropped) == (1, 3, 1)
    assert pq.read_schema(tmp_path / "b.parquet") == schema
    assert isinstance(json.loads((tmp_path / "b.json").read_text()), list)


def test_a_number_as_id_cannot_get_a_suffix_in_a_table(tmp_path: Path) -> None:
    rows = [{"id": 1, "conversations": turns("q", "a")}] * 2
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    made = fix(tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path, Checks())
    assert (made.kept, made.repaired, made.dropped) == (1, 0, 1)
    write_jsonl(tmp_path / "a.jsonl", rows)
    made = fix(tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path, Checks())
    assert [record.id for record in open_reader(tmp_path / "b.jsonl")] == ["1", "1-2"]


def test_nothing_is_overwritten_or_half_written(faulty: Path) -> None:
    root = faulty.parent / "photos"
    with pytest.raises(AstreaError, match="exists already"):
        fix(faulty, faulty, root)
    with pytest.raises(AstreaError, match="ends in another way"):
        fix(faulty, faulty.parent / "b.json", root)
    shard = write_tar(faulty.parent / "a.tar", [("0.txt", b"x")])
    with pytest.raises(AstreaError, match="cannot be copied"):
        fix(shard, faulty.parent / "b.tar", root)
    reader, images = open_reader(faulty), ImageRoot(root)
    with pytest.raises(ZeroDivisionError), fixed_copy(reader, faulty.parent / "b.jsonl", images, CHECKS):
        raise ZeroDivisionError
    assert not list(faulty.parent.glob("*b.jsonl*"))
    (faulty.parent / "folder").mkdir(mode=0o755)
    with pytest.raises(AstreaError, match="no-folder"):
        fix(faulty, faulty.parent / "no-folder" / "b.jsonl", root)
