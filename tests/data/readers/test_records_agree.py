"""What `astrea validate` finds nothing wrong with is what training uses, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_rows import picture, write_jsonl, write_tar

from astrea.common.errors import AstreaError
from astrea.data.packing import Packer
from astrea.data.readers.check import Checks, examine
from astrea.data.readers.issues import NOTES, Issue
from astrea.data.readers.mixture import Mixture, Source
from astrea.data.readers.sources import open_sources
from astrea.data.readers.trainable import Trainable, training_checks
from astrea.world.language.tiny import tiny_tokenizer

ASKED = "<image>\nis there a cat?"
Talk = tuple[str, Any, list[tuple[str, str]], bool]
TALKS: list[Talk] = [  # id, pictures, turns, whether it is good
    ("good-1", "p/1.png", [("user", ASKED), ("assistant", "yes")], True),
    ("shown-in-answer", "p/1.png", [("user", "is there a cat?"), ("assistant", "<image> yes")], False),
    ("twice", "p/1.png", [("user", ASKED), ("assistant", "yes <image>")], False),
    ("none-shown", None, [("user", ASKED), ("assistant", "yes")], False),
    ("text", None, [("user", "is a cat red?"), ("assistant", "no")], True),
    ("missing", "p/none.png", [("user", ASKED), ("assistant", "yes")], False),
    ("damaged", "p/bad.png", [("user", ASKED), ("assistant", "yes")], False),
    ("outside", "../1.png", [("user", ASKED), ("assistant", "yes")], False),
    ("mute", "p/1.png", [("user", ASKED), ("assistant", " ")], False),
    ("last", "p/1.png", [("user", ASKED)], False),
    ("control", "p/2.png", [("user", f"{ASKED}<eos><user>"), ("assistant", "yes <assistant> no <|im_end|>")], True),
    ("ruled", "p/1.png", [("system", "one word."), ("user", ASKED), ("assistant", "yes")], True),
    ("turns", "p/1.png", [("user", ASKED), ("assistant", "yes"), ("user", "is it red?"), ("assistant", "no")], True),
    ("nobody", "p/1.png", [("narrator", ASKED), ("assistant", "yes")], False),
    ("good-2", "p/2.png", [("user", ASKED), ("assistant", "no")], True),
]
TOLD: list[tuple[str, str, list[Any], bool]] = [  # id, picture, captions, whether it is good
    ("1", "p/1.png", ["a cat.", "a red cat."], True),
    ("2", "p/none.png", ["a cat."], False),
    ("3", "p/1.png", [], False),
    ("4", "p/1.png", ["  "], False),
    ("5", "p/1.png", ["<image> a cat."], False),
    ("6", "p/2.png", ["a cat<eos> and a dog."], True),
    ("7", "p/bad.png", ["a cat."], False),
]
GOOD_TALKS = {id for id, _, _, good in TALKS if good}
GOOD_TOLD = {id for id, _, _, good in TOLD if good}


def llava(talk: Talk) -> dict[str, Any]:
    id, shown, turns, _ = talk
    names = {"user": "human", "assistant": "gpt"}
    own = [turn for turn in turns if turn[0] != "system"]
    row: dict[str, Any] = {
        "id": id,
        "conversations": [{"from": names.get(who, who), "value": said} for who, said in own],
    }
    if len(own) < len(turns):
        row["system"] = turns[0][1]
    return row | ({"image": shown} if shown else {})


def messages(talk: Talk) -> dict[str, Any]:
    id, shown, turns, _ = talk
    said = [{"role": who, "content": text} for who, text in turns]
    return {"id": id, "images": [shown] if shown else [], "messages": said}


def prompt(talk: Talk) -> dict[str, Any]:
    row = messages(talk)
    said = row.pop("messages")
    return row | {"prompt": said[:-1], "completion": said[-1:]}


def parquet(path: Path) -> Path:
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    arrow.parquet.write_table(arrow.Table.from_pylist([messages(talk) for talk in TALKS]), path)
    return path


def coco(path: Path) -> Path:
    images = [{"id": id, "file_name": shown} for id, shown, _, _ in TOLD]
    notes = [{"image_id": id, "caption": said} for id, _, captions, _ in TOLD for said in captions]
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    return path


def karpathy(path: Path) -> Path:
    images = [
        {"cocoid": int(id), "filename": shown, "split": "train", "sentences": [{"raw": said} for said in captions]}
        for id, shown, captions, _ in TOLD
    ]
    path.write_text(json.dumps({"images": images}))
    return path


def boxes(path: Path) -> Path:
    images = [{"id": id, "file_name": shown} for id, shown, _, _ in TOLD]
    kinds = [{"id": 1, "name": "cat"}, {"id": 2, "name": "<image>"}, {"id": 3, "name": " "}]
    kind_of = {"3": None, "4": 3, "5": 2}
    notes = [
        {"image_id": id, "category_id": kind_of.get(id, 1), "bbox": [0, 0, 4, 4]}
        for id, _, _, _ in TOLD
        if kind_of.get(id, 1) is not None
    ]
    path.write_text(json.dumps({"images": images, "annotations": notes, "categories": kinds}))
    return path


def shard(path: Path) -> Path:
    members = []
    for id, shown, captions, _ in TOLD:
        if (path.parent / shown).exists():
            members.append((f"{id}.png", (path.parent / shown).read_bytes()))
        members += [(f"{id}.{number}.txt", said.encode()) for number, said in enumerate(captions)]
    members += [("._1.png", b"junk"), ("notes.md", b"")]
    return write_tar(path, members, "w:gz" if path.suffix == ".gz" else "w")


def lines(make: Callable[[Any], Any], rows: list[Any]) -> Callable[[Path], Path]:
    return lambda path: write_jsonl(path, [make(row) for row in rows])


def array(path: Path) -> Path:
    path.write_text(json.dumps([llava(talk) for talk in TALKS], indent=1))
    return path


def captions(told: Any) -> dict[str, Any]:
    return {"id": told[0], "image": told[1], "caption": told[2]}


FILES: dict[str, tuple[Callable[[Path], Path], set[str]]] = {
    "llava.jsonl": (lines(llava, TALKS), GOOD_TALKS),
    "llava.json": (array, GOOD_TALKS),
    "messages.jsonl": (lines(messages, TALKS), GOOD_TALKS),
    "prompt.jsonl": (lines(prompt, TALKS), GOOD_TALKS),
    "messages.PARQUET": (parquet, GOOD_TALKS),
    "retrieval.jsonl": (lines(captions, TOLD), GOOD_TOLD),
    "coco.json": (coco, GOOD_TOLD),
    "instances.json": (boxes, GOOD_TOLD),
    "karpathy.json": (karpathy, GOOD_TOLD),
    "shard.tar": (shard, GOOD_TOLD),
    "shard.tar.gz": (shard, GOOD_TOLD),
}


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(tiny_tokenizer(), 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agree")
    (folder / "p").mkdir()
    for name, data in (("1", picture(1)), ("2", picture(2)), ("bad", b"no picture")):
        (folder / f"p/{name}.png").write_bytes(data)
    return folder


def used(source: Source, packer: Packer) -> tuple[set[str | None], list[Issue]]:
    """The ids that training gets in three epochs, and what it is told."""
    told: list[Issue] = []
    mixture = Mixture([source], check=Trainable(packer, 512), on_issue=told.append)
    ids = {mixture.sample(at, 0, epoch).record.id for epoch in range(3) for at in range(len(mixture))}
    return ids, told


@pytest.mark.parametrize("name", FILES)
def test_validate_and_training_agree(place: Path, packer: Packer, name: str) -> None:
    make, good = FILES[name]
    (source,) = open_sources(str(make(place / name)))
    ids, told = used(source, packer)
    assert ids == good
    for checks in (training_checks(packer, 512), Checks()):
        bad, fine = set(), set()
        for record, issues in examine(source.reader, source.root, checks):
            costs = [issue for issue in issues if issue.kind not in NOTES]
            bad |= {issue.where for issue in costs}
            fine |= {record.id} if record is not None and not costs else set()
        assert fine == good
        assert bad == {issue.where for issue in told if issue.kind not in NOTES}
    noted = {(issue.where, issue.message) for issue in told if issue.kind in NOTES}
    assert noted == {
        (issue.where, issue.message)
        for _, issues in examine(source.reader, source.root, training_checks(packer, 512))
        for issue in issues
        if issue.kind in NOTES
    }


def test_control_tokens_are_told_with_their_row_and_read_as_text(place: Path, packer: Packer) -> None:
    (source,) = open_sources(str(write_jsonl(place / "control.jsonl", [llava(talk) for talk in TALKS])))
    line = next(number for number, talk in enumerate(TALKS, 1) if talk[0] == "control")
    notes = [
        note for _, issues in examine(source.reader, source.root, Checks()) for note in issues if note.kind in NOTES
    ]
    assert [note.where.number for note in notes] == [line, line]
    assert "turn 1 holds the control token '<eos>', '<user>'" in str(notes[0])
    assert "turn 2 holds the control token '<assistant>', '<|im_end|>'" in str(notes[1])
    record = source.reader.read(line - 1)
    said = [{"role": message.role, "content": message.text} for message in record.messages]
    clean = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "yes"}]
    control = set(packer.control.ids)
    assert sum(i in control for i in packer.conversation(said).ids) == sum(
        i in control for i in packer.conversation(clean).ids
    )
    assert not control & set(packer.ids("a cat<eos> and a <user> dog"))


def test_a_rows_own_system_text_is_its_first_turn(place: Path) -> None:
    ruled = next(llava(talk) for talk in TALKS if talk[0] == "ruled")
    doubled = messages(next(talk for talk in TALKS if talk[0] == "ruled")) | {"system": "many words."}
    (source,) = open_sources(str(write_jsonl(place / "ruled.jsonl", [ruled])))
    assert next((m.role, m.text) for m in source.reader.read(0).messages) == ("system", "one word.")
    (source,) = open_sources(str(write_jsonl(place / "doubled.jsonl", [doubled])))
    assert "a system turn with other words" in str(source.reader.read(0))


def test_a_row_alone_in_a_file_over_many_lines(place: Path) -> None:
    (place / "one.json").write_text(json.dumps(llava(TALKS[0]), indent=2))
    (source,) = open_sources(str(place / "one.json"))
    assert (source.reader.format, [record.id for record in source.reader]) == ("llava", ["good-1"])


def test_a_picture_under_another_spelling_is_hinted_at(place: Path) -> None:
    rows = [llava((path, path, [("user", ASKED), ("assistant", "yes")], False)) for path in ("p\\1.png", "p/1.PNG")]
    (source,) = open_sources(str(write_jsonl(place / "spelt.jsonl", rows)))
    windows, capitals = (str(issues[0]) for _, issues in examine(source.reader, source.root, Checks()))
    assert "write its path with / between folders" in windows
    assert "there is 1.png: capitals count" in capitals


@pytest.mark.parametrize("id", [{"a": 1}, [1], None, True, 1.5], ids=repr)
def test_ids_that_can_name_nothing_are_told(place: Path, id: Any) -> None:
    good: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "p/1.png"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    for part, name, said in (
        ("categories", "id", "'categories[0]' has no id"),
        ("annotations", "image_id", "'annotations[0]' has no image_id"),
        ("annotations", "category_id", "which no category has"),
        ("images", "id", "'id' of the picture"),
    ):
        path = place / "ids.json"
        path.write_text(json.dumps(good | {part: [good[part][0] | {name: id}]}))
        try:
            (source,) = open_sources(str(path))
            told = "\n".join(
                str(issue) for _, issues in examine(source.reader, source.root, Checks()) for issue in issues
            )
        except AstreaError as error:
            told = str(error)
        assert said in told
