"""What files of other formats than LLaVA's can have wrong: chat rows, annotations, shards, tables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_rows import told
from record_rows import data_url, picture, write_jsonl, write_tar

from astrea.common.errors import AstreaError
from astrea.data.readers import open_reader
from astrea.data.readers.check import Checks


def test_what_other_formats_can_have_wrong(tmp_path: Path) -> None:
    user, bot = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}

    def parts(*content: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": list(content)}, bot]}

    rows = [
        parts({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}),
        parts({"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!!"}}),
        parts({"type": "image_url", "image_url": {"url": "data:image/png,abc"}}),
        parts({"type": "image_url", "image_url": {"url": data_url(b"no picture")}}),
        parts({"type": "image_url"}),
        parts({"type": "audio"}),
        parts({"type": "text"}),
        parts("q"),
        parts({"type": "image"}, {"type": "image"}) | {"images": ["a.png"]},
        parts({"type": "image", "image": "a.png"}) | {"images": ["a.png"]},
        {"messages": [user, {"role": "assistant", "content": None}]},
        {"messages": [user, "a"]},
        {"messages": {"role": "user"}},
        {"messages": [user, bot], "images": [{"bytes": None, "path": None}]},
        {"messages": [user, bot], "id": 1.5},
        {"messages": [bot]},
        {"messages": [{"role": "system", "content": "s"}, bot]},
    ]
    (tmp_path / "a.png").write_bytes(picture(0))
    found = told(write_jsonl(tmp_path / "a.jsonl", rows), tmp_path, Checks())
    assert [(issue.where.number, issue.kind) for issue in found] == [
        (1, "image_remote"), (2, "image_corrupt"), (3, "image_corrupt"), (4, "image_corrupt"), (5, "wrong_type"),
        (6, "wrong_type"), (7, "wrong_type"), (8, "wrong_type"), (9, "image_count"), (10, "image_count"),
        (11, "wrong_type"), (12, "wrong_type"), (13, "wrong_type"), (14, "wrong_type"), (15, "wrong_type"),
        (16, "role_order"), (17, "role_order"),
    ]  # fmt: skip
    assert all(issue.hint for issue in found)


def test_annotation_files_have_faults_per_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": 5}, {"file_name": "a.png"}, 7,
              {"id": 4, "file_name": "a.png"}, {"id": 5, "file_name": "a.png"}]  # fmt: skip
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}
    notes = [box, box | {"image_id": 4, "category_id": 8}, box | {"image_id": 5, "bbox": [1, 2, 3]}]
    document = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "i.json").write_text(json.dumps(document))
    found = told(tmp_path / "i.json", tmp_path, Checks())
    assert [(issue.where.number, issue.id) for issue in found] == [(2, "2"), (3, None), (4, None), (5, "4"), (6, "5")]
    assert {issue.kind for issue in found} == {"wrong_type"}
    for spoilt, said in ((document | {"annotations": [7]}, "image_id"), (document | {"categories": 1}, "categories")):
        (tmp_path / "s.json").write_text(json.dumps(spoilt))
        with pytest.raises(AstreaError, match=said):
            open_reader(tmp_path / "s.json", "coco-instances")


def test_shards_have_faults_per_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [("0.png", picture(0)), ("0.txt", b"ok"), ("1.png", b"no picture"), ("1.txt", b"x"), ("2.txt", b"\xe9"),
               ("3.json", b"{"), ("4.png", picture(1)), ("0.txt", b"again"), ("big.txt", b"x" * 3000)]  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    monkeypatch.setattr("astrea.data.readers.shards.MAX_ROW_BYTES", 2000)
    found = told(path, tmp_path, Checks())
    assert [(issue.where.number, issue.id, issue.kind) for issue in found] == [
        (2, "1", "image_corrupt"), (3, "2", "encoding"), (4, "3", "unreadable"), (5, "4", "no_text"),
        (6, "0", "no_image"), (6, "0", "duplicate_id"), (7, "big", "unreadable"), (0, None, "unsorted"),
    ]  # fmt: skip
    whole = path.read_bytes()
    for spoilt, said in ((whole[:5000], "cut short after sample"), (b"no tar at all", "cut short after sample 0")):
        path.write_bytes(spoilt)
        assert said in str(told(path, tmp_path, Checks())[-1])
    assert len(open_reader(path)) == 0


def test_links_and_huge_headers_in_a_shard(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (issue,) = told(tmp_path / "a.tar", tmp_path, Checks())
    assert "is a link or no ordinary file" in issue.message
    write_tar(tmp_path / "b.tar", [("0" * (2 << 20) + ".txt", b"x")])
    (issue, *_) = told(tmp_path / "b.tar", tmp_path, Checks())
    assert "a header of 2,097,1" in issue.message


def test_a_table_that_is_damaged_says_so_row_by_row(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "q" * 50}, {"role": "assistant", "content": "a"}]}] * 40
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=20, compression="zstd")
    reader = open_reader(tmp_path / "a.parquet")
    place = reader.file.metadata.row_group(1).column(1).data_page_offset
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[place : place + 40] = os.urandom(40)
    (tmp_path / "a.parquet").write_bytes(data)
    found = told(tmp_path / "a.parquet", tmp_path, Checks())
    assert {issue.where.number for issue in found} == set(range(21, 41))
    assert all("the row group is damaged" in issue.message for issue in found)
