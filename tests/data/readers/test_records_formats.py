"""Every format: the same rows give the same records, and what a format means of its own."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_rows import conversations, data_url, image_list, picture, role, write_jsonl, write_tar

from astrea.common.errors import AstreaError
from astrea.data.readers import FileImage, ImageRoot, InlineImage, MemberImage, Message, Record, open_reader

Plain = list[tuple[list[tuple[str, str]], list[bytes]]]
ROWS = conversations()


def plain(path: Path, root: Path, **options: Any) -> Plain:
    """(role, text) and picture files of every record, however they came."""
    images = ImageRoot(root)
    return [
        ([(turn.role, turn.text) for turn in record.messages], [images.bytes_of(image) for image in record.images])
        for record in open_reader(path, **options)
    ]


def parts(row: dict[str, Any], load: Any) -> list[dict[str, Any]]:
    """A LLaVA row's turns as messages of content parts; ``load`` makes the URL of a path."""
    images = iter(image_list(row))
    told = []
    for turn in row["conversations"]:
        content: list[dict[str, Any]] = []
        for piece in re.split("(<image>)", turn["value"]):
            if piece == "<image>":
                content.append({"type": "image_url", "image_url": {"url": load(next(images))}})
            elif piece.strip():
                # As people write parts: without the line break that belongs to the mark.
                content.append({"type": "text", "text": piece.strip("\n")})
        told.append({"role": role(turn), "content": content})
    return told


def wanted(pictures: dict[str, bytes]) -> Plain:
    return [
        (
            [(role(turn), turn["value"]) for turn in row["conversations"]],
            [pictures[path] for path in image_list(row)],
        )
        for row in ROWS
    ]


def test_llava_as_lines_and_as_an_array(root: Path, pictures: dict[str, bytes]) -> None:
    assert plain(write_jsonl(root / "a.jsonl", ROWS), root) == wanted(pictures)
    for indent in (None, 1):
        (root / "a.json").write_text(json.dumps(ROWS, indent=indent))
        assert plain(root / "a.json", root) == wanted(pictures)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("ending", ["parquet", "arrow", "stream.arrow"])
def test_messages_in_a_table(root: Path, pictures: dict[str, bytes], ending: str, inline: bool) -> None:
    rows = [
        {
            "messages": [{"role": role(turn), "content": turn["value"]} for turn in row["conversations"]],
            "images": [{"bytes": pictures[p] if inline else None, "path": p} for p in image_list(row)],
        }
        for row in ROWS
    ]
    table = pa.Table.from_pylist(rows)
    path = root / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(table, path, row_group_size=64)
    else:
        with (pa.ipc.new_stream if "stream" in ending else pa.ipc.new_file)(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=70)
    assert plain(path, root) == wanted(pictures)
    reader = open_reader(path)
    assert (len(reader), reader.format) == (200, "messages")
    assert reader[150] == list(reader)[150] == pickle.loads(pickle.dumps(reader))[150]
    assert str(reader[150].source) == f"{path}:151"


def test_openai_parts(root: Path, pictures: dict[str, bytes]) -> None:
    local = [{"id": row["id"], "messages": parts(row, str)} for row in ROWS]
    inline = [{"id": row["id"], "messages": parts(row, lambda path: data_url(pictures[path]))} for row in ROWS]
    assert plain(write_jsonl(root / "a.jsonl", local), root) == wanted(pictures)
    assert plain(write_jsonl(root / "b.jsonl", inline), root, format="openai") == wanted(pictures)


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_webdataset(root: Path, pictures: dict[str, bytes], ending: str, mode: str) -> None:
    members = []
    for number, row in enumerate(ROWS):
        paths = image_list(row)
        for k, path in enumerate(paths):
            members.append((f"a/{number:05}.{f'{k}.' if len(paths) > 1 else ''}png", pictures[path]))
        members.append((f"a/{number:05}.json", json.dumps(row).encode()))
    path = write_tar(root / f"a.{ending}", members, mode)
    assert plain(path, root) == wanted(pictures)
    reader = open_reader(path)
    assert (len(reader), reader.format) == (200, "webdataset")
    first = next(iter(reader))
    assert first.id == "row-0"
    assert isinstance(first.images[0], MemberImage if ending == "tar" else InlineImage)


def test_prompt_and_completion(root: Path, pictures: dict[str, bytes]) -> None:
    single = [row for row in ROWS if len(row["conversations"]) == 2]
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(single):
        asked, told = (turn["value"] for turn in row["conversations"])
        one: dict[str, Any] = {"prompt": asked, "completion": told, "images": image_list(row)}
        if number % 2:
            one["prompt"] = [{"role": "user", "content": asked}]
            one["completion"] = [{"role": "assistant", "content": told}]
        rows.append(one)
    kept = [found for found, row in zip(wanted(pictures), ROWS, strict=True) if row in single]
    path = write_jsonl(root / "a.jsonl", rows)
    assert open_reader(path).format == "prompt"
    assert plain(path, root) == kept


def one(tmp_path: Path, row: dict[str, Any], **options: Any) -> Record:
    return open_reader(write_jsonl(tmp_path / "one.jsonl", [row]), **options)[0]


def test_pictures_without_any_mark_stand_before_the_question_of_messages(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    record = one(tmp_path, {"messages": turns, "images": ["a.png", "b.png"]})
    assert [turn.text for turn in record.messages] == ["s", "<image>\n<image>\nq"]
    assert record.images == (FileImage("a.png"), FileImage("b.png"))
    record = one(tmp_path, {"id": 7, "image": "a.png", "conversations": [{"from": "human", "value": "q"}]})
    assert (record.id, record.marks, record.messages) == ("7", 0, (Message("user", "q"),))


def test_parts_are_joined_as_people_mean_them(tmp_path: Path) -> None:
    def text(*content: Any) -> str:
        made = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in content]
        return one(tmp_path, {"messages": [{"role": "user", "content": made}]}).messages[0].text

    assert text(None, "what?") == "<image>\nwhat?"
    assert text("what?", None) == "what?\n<image>"
    assert text("compare ", None, " and ", None, ".") == "compare <image> and <image>."
    assert text(None, None, "which?") == "<image>\n<image>\nwhich?"
    assert text("one", "two") == "one\ntwo"
    assert text() == ""


def test_retrieval_json(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "caption": ["one", "two"]}, {"image": "b.jpg", "caption": "three", "id": 5}]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    reader = open_reader(tmp_path / "r.json")
    assert [(r.id, r.captions, r.images, r.messages) for r in reader] == [
        (None, ("one", "two"), (FileImage("a.jpg"),), ()),
        ("5", ("three",), (FileImage("b.jpg"),), ()),
    ]


def test_coco_captions_and_instances(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 9, "height": 8} for n in (3, 1)]
    notes = [{"id": k, "image_id": 1, "caption": f" c{k} "} for k in range(2)]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": notes}))
    reader = open_reader(tmp_path / "c.json")
    assert reader.format == "coco-captions"
    assert [(r.id, r.images[0], r.captions) for r in reader] == [
        ("3", FileImage("3.jpg"), ()),
        ("1", FileImage("1.jpg"), ("c0", "c1")),
    ]
    boxes = [
        {"image_id": 3, "category_id": kind, "bbox": [1, 2, 3.5, 4], "iscrowd": int(kind == 9)} for kind in (2, 9, 9)
    ]
    kinds = [{"id": 2, "name": "dog"}, {"id": 9, "name": "person"}]
    document = {"images": images, "annotations": boxes, "categories": kinds}
    (tmp_path / "i.json").write_text(json.dumps(document, indent=1))
    reader = open_reader(tmp_path / "i.json")
    assert (reader.format, len(reader)) == ("coco-instances", 2)
    assert reader[0].captions == ("person (2), dog",)
    assert reader[0].meta["width"] == 9
    assert reader[0].meta["boxes"][1] == {"label": "person", "box": [1, 2, 3.5, 4], "crowd": True}
    assert (reader[1].captions, reader[1].meta["boxes"]) == ((), [])


def test_karpathy_and_its_splits(tmp_path: Path) -> None:
    images = [
        {
            "filepath": "val2014",
            "filename": f"{n}.jpg",
            "cocoid": n,
            "split": split,
            "sentences": [{"raw": "a dog."}, {"raw": "a cat."}],
        }
        for n, split in enumerate(["train", "test", "restval"])
    ]
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    reader = open_reader(path)
    assert (reader.format, [r.meta["split"] for r in reader]) == ("karpathy", ["train", "test", "restval"])
    assert reader[1].captions == ("a dog.", "a cat.")
    assert reader[1].images == (FileImage("val2014/1.jpg"),)
    some = open_reader(path, "karpathy:train+restval")
    assert [(r.id, str(r.source)) for r in some] == [("0", f"{path}:1"), ("2", f"{path}:3")]
    with pytest.raises(AstreaError, match="no picture of the split 'dev'"):
        open_reader(path, "karpathy:dev")


def test_webdataset_of_captions(tmp_path: Path) -> None:
    members = [
        ("0.jpg", picture(0)), ("0.txt", "ä dog\n".encode()), ("0.cls", b"3"),
        ("1.png", picture(1)), ("1.json", b'{"caption": "a cat", "width": 3}'),
    ]  # fmt: skip
    records = list(open_reader(write_tar(tmp_path / "s.tar", members)))
    assert [(r.id, r.captions, len(r.images), dict(r.meta)) for r in records] == [
        ("0", ("ä dog",), 1, {}),
        ("1", ("a cat",), 1, {"caption": "a cat", "width": 3}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"question": 1, "answer": 2}\n', "keys 'question', 'answer'"),
        ("a.json", '{"questions": []}', "keys 'questions'"),
        ("a.csv", "a,b\n", "unknown ending '.csv'"),
        ("a.json", '{"images": [1', ":1: not valid JSON"),
        ("a.parquet", "PAR1 no", "a.parquet"),
        ("a.arrow", "ARROW1 no", "no readable table"),
    ],
)
def test_what_is_not_known_says_what_is(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(AstreaError) as caught:
        open_reader(tmp_path / name)
    assert said in caught.value.message
    assert caught.value.hint


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "q"}])
    for format, said in (("lava", "unknown format"), ("webdataset", "is not read as"), ("llava:train", "no splits")):
        with pytest.raises(AstreaError, match=said):
            open_reader(path, format)
    for missing, said in ((tmp_path / "none.jsonl", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(AstreaError, match=said):
            open_reader(missing)
    # An explicit format is not argued with: the rows are then bad one by one.
    with pytest.raises(AstreaError, match=r"a\.jsonl:1 -: 'messages' is missing"):
        open_reader(path, "messages")[0]
    with pytest.raises(IndexError):
        open_reader(path, "messages")[1]


def test_an_annotation_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"images": [], "annotations": []}))
    monkeypatch.setattr("astrea.data.readers.annotations.MAX_BYTES", 20)
    with pytest.raises(AstreaError, match="at most 20 are read"):
        open_reader(tmp_path / "c.json")


def test_tables_without_pyarrow_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"messages": [[]]}), tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(AstreaError) as caught:
        open_reader(tmp_path / "a.parquet")
    assert '[data]"' in caught.value.hint


def test_a_row_group_is_read_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"messages": [{"role": "user", "content": str(n)}]} for n in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=10)
    reader = open_reader(tmp_path / "a.parquet")
    read: list[int] = []
    original = reader.file.read_row_group
    reader._kept.clear()
    monkeypatch.setattr(reader.file, "read_row_group", lambda group: read.append(group) or original(group))
    assert [reader[n].messages[0].text for n in (55, 57, 12)] == ["55", "57", "12"]
    assert read == [5, 1]
