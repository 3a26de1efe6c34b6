"""Every issue, told once, at its place, in exactly these words; and repaired where that is safe."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_rows import data_url, picture, write_jsonl, write_tar

from astrea.common.errors import AstreaError
from astrea.data.readers import ImageRoot, Record, open_reader
from astrea.data.readers.check import Checks, Layout, examine
from astrea.data.readers.issues import KINDS, NOTES, REPAIRABLE, Issue, printable
from astrea.data.readers.record import IMAGE_MARK, FileImage, InlineImage, MemberImage, Where
from astrea.data.readers.repaired import FixedCopy, fixed_copy


def turns(*texts: str, roles: tuple[str, ...] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": roles[n % len(roles)], "value": text} for n, text in enumerate(texts)]


QA = turns("<image>\nq", "a")

# (id, the rest of the row, what is told after "FILE:LINE ID: "), one per line, in this order.
ROWS: list[tuple[Any, Any, str | None]] = [
    ("good", {"image": "a.png", "conversations": QA}, None),
    (
        "two-marks",
        {"image": "a.png", "conversations": turns("<image><image> q", "a")},
        "1 picture but 2 <image> marks; write one <image> per picture where it is shown",
    ),
    (
        "no-mark",
        {"image": "a.png", "conversations": turns("q", "a")},
        "1 picture but 0 <image> marks; write one <image> per picture where it is shown",
    ),
    (
        "missing",
        {"image": "none.png", "conversations": QA},
        "picture 'none.png' does not exist under ROOT; correct the path, or give the right root with images",
    ),
    (
        "corrupt",
        {"image": "text.png", "conversations": QA},
        "picture 'text.png' is not a JPEG, PNG, WEBP, GIF, BMP or TIFF file, or its beginning is damaged; check what "
        "the file really is (its ending does not count) and convert it, or copy it again",
    ),
    (
        "cut",
        {"image": "cut.png", "conversations": QA},
        "picture 'cut.png' is damaged or cut short: image file is truncated; copy or download "
        "the file again, or leave it out of the data",
    ),
    (
        "absolute",
        {"image": "/etc/a.png", "conversations": QA},
        "picture '/etc/a.png' is an absolute path; write it relative to the image root, and give the root with "
        "images",
    ),
    (
        "dots",
        {"image": "../a.png", "conversations": QA},
        "picture '../a.png' has '..' in its path; write it relative to the image root",
    ),
    (
        "link",
        {"image": "link.png", "conversations": QA},
        "picture 'link.png' leads out of the image root through a link; copy it into the root, or give a root that "
        "holds what the link points to",
    ),
    (
        "remote",
        {"image": "https://example.org/a.png", "conversations": QA},
        "picture 'https://example.org/a.png' is not on this machine; download it and write its path",
    ),
    (
        "spaces",
        {"image": " a.png", "conversations": QA},
        "picture ' a.png' has whitespace around its path; take the whitespace away",
    ),
    (
        "text-only",
        {"conversations": turns("q", "a")},
        "the row has no picture; leave the row out, or do not ask for pictures",
    ),
    (
        "silent",
        {"image": "a.png", "conversations": turns("<image>\nq", " \n")},
        "turn 2, the assistant's, is empty; write the answer, or leave it out",
    ),
    (
        "order",
        {"image": "a.png", "conversations": turns("<image>\nq", "q", "a", roles=("human", "human", "gpt"))},
        "turn 2 is the user's where the assistant's should be; let user and assistant take turns, the user first and "
        "the assistant last",
    ),
    (
        "open",
        {"image": "a.png", "conversations": turns("<image>\nq", "a", "q")},
        "turn 3, the last, is the user's; let user and assistant take turns, the user first and the assistant last",
    ),
    (
        "nobody",
        {"image": "a.png", "conversations": turns("<image>\nq")},
        "no turn is the assistant's; add the answer, or leave the record out",
    ),
    (
        "role",
        {"image": "a.png", "conversations": turns("q", "a", roles=("human", "bing"))},
        "unknown role 'bing'; known roles: system, user, assistant, human, gpt, developer",
    ),
    (
        "role-space",
        {"image": "a.png", "conversations": turns("<image>\nq", "a", roles=("human ", "gpt"))},
        "the role 'human ' has whitespace around it; take the whitespace away",
    ),
    (
        "good",
        {"image": "a.png", "conversations": QA},
        "an earlier record has the same id; give every record an id of its own",
    ),
    (
        "type",
        {"image": 3, "conversations": QA},
        "'image' is a number, not text; write 'image' as text",
    ),
    (
        "nothing",
        {"image": "a.png", "conversations": []},
        "the record has neither a conversation nor a caption; write one, or leave it out",
    ),
    (
        "long-picture",
        {"image": ["a.png"] * 4, "conversations": turns("<image><image><image><image>\nq", "a")},
        "of 46 tokens the limit of 30 would cut a picture; shorten the row, show fewer pictures, or raise the limit|"
        "of 46 tokens the limit of 30 would leave no answer to learn from; shorten the row, show fewer pictures, or "
        "raise the limit",
    ),
    (
        "long-question",
        {"image": "a.png", "conversations": turns("<image>\n" + "q " * 20, "a")},
        "of 35 tokens the limit of 30 would leave no answer to learn from; shorten the row, show fewer pictures, or "
        "raise the limit",
    ),
    (
        "long-answer",
        {"image": "a.png", "conversations": turns("<image>\nq", "a " * 20)},
        "of 35 tokens the limit of 30 would cut an answer; shorten the row, show fewer pictures, or raise the limit",
    ),
    (None, b"{", "not valid JSON: Expecting property name enclosed in double quotes at character 2 of the row; correct "
                 "the syntax there, or leave the row out"),
    (None, b"[]", 'the row is a list, not an object; write one {"key": value, ...} per row'),
    (None, b'{"id": "\xe9"}', "byte 9 of the row (0xe9) is not UTF-8; save the file as UTF-8"),
    (None, b'{"id": 3}', "'conversations' is missing, not a list; write \"conversations\" as a list of "
                         '{"from": "human" or "gpt", "value": "..."}'),
    (" edge", {"image": "a.png", "conversations": QA}, "the id ' edge' has whitespace around it; take the whitespace "
                                                       "away"),
]  # fmt: skip


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A file with one of each issue, and the pictures it names."""
    root = tmp_path / "photos"
    root.mkdir()
    (root / "a.png").write_bytes(picture(0))
    (root / "cut.png").write_bytes(picture(0)[:200])
    (root / "text.png").write_text("no picture")
    (tmp_path / "secret.png").write_bytes(picture(1))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    lines = [row if isinstance(row, bytes) else json.dumps({"id": id, **row}).encode() for id, row, _ in ROWS]
    path = tmp_path / "faulty.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


class Words:
    """Counts a token per word and ten per picture: one to begin with, one before each turn, one behind each answer."""

    limit = 30

    def layout(self, record: Record) -> Layout:
        place, images_end, first_label = 1, 0, None
        for message in record.messages:
            pictures = message.text.count(IMAGE_MARK)
            place += 10 * pictures
            images_end = place if pictures else images_end
            place += 1
            if message.role == "assistant" and first_label is None:
                first_label = place
            place += len(message.text.replace(IMAGE_MARK, " ").split()) + (message.role == "assistant")
        return Layout(place, images_end, place if first_label is None else first_label)


CHECKS = Checks(decode=True, need_images=True, tokens=Words())


def told(path: Path, root: Path, checks: Checks = CHECKS) -> list[Issue]:
    return [issue for _, issues in examine(open_reader(path), ImageRoot(root), checks) for issue in issues]


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


# Image roots


def test_pictures_come_from_everywhere_and_only_from_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    data = picture(0)
    (root / "in" / "a.png").write_bytes(data)
    (root / "inner").symlink_to(root / "in")
    images = ImageRoot(root)
    shard = write_tar(tmp_path / "s.tar", [("0.png", data), ("0.txt", b"x")])
    (record,) = open_reader(shard)
    for image in (FileImage("in/a.png"), FileImage("./inner//a.png"), InlineImage(data), record.images[0]):
        assert images.bytes_of(image) == data
        assert images.load(image).size == (10, 8)
        images.check(image)
    assert isinstance(record.images[0], MemberImage)
    bad = {
        "../root/in/a.png": "image_path", "in\\..\\a.png": "image_path", "/a.png": "image_path",
        "C:\\a.png": "image_path", "\\\\host\\a.png": "image_path", "": "image_path", "a\0b": "image_path",
        "file:///etc/passwd": "image_remote",
        "in/b.png": "image_missing", "x" * 5000: "image_path", "in": "image_corrupt",
    }  # fmt: skip
    for path, kind in bad.items():
        row = Record(None, Where("f", 1), (FileImage(path),), captions=("x",))
        assert [issue.kind for issue in Checks()(row, images)] == [kind], path
    with pytest.raises(AstreaError, match="is not a folder"):
        ImageRoot(root / "in" / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    row = Record(None, Where("f", 1), (FileImage("pipe.png"),), captions=("x",))
    assert [issue.kind for issue in Checks()(row, ImageRoot(tmp_path))] == ["image_corrupt"]
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(AstreaError, match="not an ordinary file"):
        open_reader(tmp_path / "pipe.jsonl")


# Copies without the bad records


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
