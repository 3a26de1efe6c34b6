"""Reading the official files: what they hold, and what is said when they hold something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astrea.common.errors import AstreaError
from astrea.evaluation.benchmarks.files import MAX_BYTES, Entry, read_json, read_lines
from astrea.evaluation.benchmarks.items import Item, Pool
from astrea.evaluation.benchmarks.missing import locate
from astrea.evaluation.benchmarks.suite import SERVER_TASKS, TASKS, choose_tasks


def read(name: str, data: Path, limit: int | None = None) -> Any:
    (task,) = choose_tasks(name)
    found, missing = locate(task, data)
    assert found is not None, missing
    return task.read(found.files, found.pictures, limit)


def test_there_are_twelve_tasks_with_names_of_their_own() -> None:
    assert len(TASKS) == 12
    assert len({task.name for task in (*TASKS, *SERVER_TASKS)}) == 12 + len(SERVER_TASKS)


@pytest.mark.parametrize("task", [*TASKS, *SERVER_TASKS], ids=lambda task: task.name)
def test_every_task_reads_items_whose_pictures_are_where_it_says(task: Any, whole_data: Path) -> None:
    if task.name in ("textvqa_test", "vizwiz_test"):
        return  # not in the miniature folder; the readers are those of the public splits
    made = read(task.name, whole_data)
    pictures = made.pictures if isinstance(made, Pool) else [item.picture for item in made]
    assert pictures
    assert all(path.is_file() for path in pictures)
    assert all(path.is_relative_to(whole_data) for path in pictures)


def first(name: str, data: Path) -> Item:
    return read(name, data)[0]


def test_vqav2(whole_data: Path) -> None:
    items = read("vqav2", whole_data)
    assert [item.id for item in items] == [420, 421, 730]
    assert items[0].picture.name == "COCO_val2014_000000000042.jpg"
    assert items[0].prompt == "is there a cat?\nAnswer the question using a single word or phrase."
    assert items[0].truth == ("yes",) * 10
    assert items[1].truth[:3] == ("two", "2", "3")
    assert [item.group for item in items] == ["yes/no", "number", "other"]


def test_a_server_split_has_no_truth(whole_data: Path) -> None:
    (item,) = read("vqav2_testdev", whole_data)
    assert item.truth is None
    assert item.picture.name == "COCO_test2015_000000000001.jpg"


def test_gqa_tells_open_from_binary(whole_data: Path) -> None:
    items = read("gqa", whole_data)
    assert [item.group for item in items] == ["binary", "open", "open"]
    assert items[0].picture == whole_data / "gqa/images/n1.jpg"


def test_vizwiz_asks_to_say_unanswerable(whole_data: Path) -> None:
    items = read("vizwiz", whole_data)
    assert [item.group for item in items] == ["answerable", "unanswerable"]
    assert items[0].id == "VizWiz_val_00000000.jpg"
    assert items[0].prompt.splitlines()[1:] == [
        "When the provided information is insufficient, respond with 'Unanswerable'.",
        "Answer the question using a single word or phrase.",
    ]


def test_scienceqa_takes_the_questions_with_pictures_of_the_split(whole_data: Path) -> None:
    items = read("scienceqa", whole_data)
    assert [item.id for item in items] == ["5", "6"]
    assert items[0].prompt.splitlines() == [
        "Which one shines?",
        "A. a cat",
        "B. a sun",
        "C. a star",
        "Answer with the option's letter from the given choices directly.",
    ]
    assert items[1].prompt.startswith("Context: Look up.\nWhich one is warm?\n")
    assert items[0].truth.answer == 1


def test_pope_has_three_subsets_whose_ids_do_not_clash(whole_data: Path) -> None:
    items = read("pope", whole_data)
    assert [item.id for item in items][::3] == ["random/1", "popular/1", "adversarial/1"]
    assert len(read("pope", whole_data, 2)) == 6  # the limit holds for each file


def test_captions(whole_data: Path) -> None:
    items = read("coco_caption", whole_data)
    assert [item.id for item in items] == [42, 73, 74, 133]  # the training picture is left out
    assert all(len(item.truth) == 2 for item in items)
    assert [item.id for item in read("flickr30k_caption", whole_data)] == [1007129816, 1009434119, 101362133]
    assert [item.group for item in read("nocaps", whole_data)] == ["in-domain", *["near-domain"] * 2, "out-domain"]


def test_retrieval_reads_lists_and_karpathy_files_alike(data: Path) -> None:
    listed = read("flickr30k_retrieval", data)
    (data / "flickr30k/flickr30k_test.json").unlink()
    split = read("flickr30k_retrieval", data)
    assert listed.owners == split.owners == [0, 0, 1, 1, 2, 2]
    assert listed.pictures == split.pictures
    assert listed.captions[0] == split.captions[0]
    assert read("coco_retrieval", data, 2).owners == [0, 0, 1, 1]


@pytest.mark.parametrize("task", [task for task in TASKS if task.name != "pope"], ids=lambda task: task.name)
def test_the_limit_takes_the_first(task: Any, whole_data: Path) -> None:
    made = read(task.name, whole_data, 1)
    assert len(made.ids if isinstance(made, Pool) else made) == 1


# Malformed files


def change(path: Path, how: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    changed = how(value)
    path.write_text(json.dumps(value if changed is None else changed))


def put(*way: Any) -> Callable[[Any], None]:
    """Sets the value at the end of a way of keys; the last of ``way`` is the value, `DROP` deletes."""

    def apply(value: Any) -> None:
        for key in way[:-2]:
            value = value[key]
        if way[-1] is DROP:
            del value[way[-2]]
        else:
            value[way[-2]] = way[-1]

    return apply


DROP = object()
QUESTIONS = "vqav2/v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "vqav2/v2_mscoco_val2014_annotations.json"
NOCAPS = "nocaps/nocaps_val_4500_captions.json"


@pytest.mark.parametrize(
    ("task", "file", "how", "said"),
    [
        ("vqav2", QUESTIONS, put("questions", DROP), ["'questions' is missing"]),
        ("vqav2", QUESTIONS, lambda _: [1], ["is a list, not an object"]),
        ("vqav2", QUESTIONS, put("questions", 1, 5), ["questions[1]", "a whole number, not an object"]),
        ("vqav2", QUESTIONS, put("questions", 1, "question", DROP), ["questions[1]", "'question' is missing"]),
        ("vqav2", QUESTIONS, put("questions", 1, "question", None), ["'question' is null, not a string"]),
        ("vqav2", QUESTIONS, put("questions", 1, "image_id", "42"), ["'image_id' is a string, not a whole number"]),
        ("vqav2", QUESTIONS, put("questions", 1, "image_id", True), ["'image_id' is true or false"]),
        ("vqav2", QUESTIONS, put("questions", 1, "question_id", 420), ["questions[1]", "420 was there before", "[0]"]),
        ("vqav2", QUESTIONS, put("questions", 1, "question_id", 1.5), ["'question_id' is a number"]),
        ("vqav2", ANNOTATIONS, put("annotations", 0, DROP), ["questions[0]", "question 420 has no annotation"]),
        ("vqav2", ANNOTATIONS, put("annotations", 0, "answers", []), ["annotations[0]", "'answers' is empty"]),
        ("vqav2", ANNOTATIONS, put("annotations", 0, "answers", 3, "answer", 7), ["annotations[0].answers[3]"]),
        ("gqa", "gqa/testdev_balanced_questions.json", put("201307251", "imageId", DROP), ["'201307251'", "imageId"]),
        ("gqa", "gqa/testdev_balanced_questions.json", put("201307251", "imageId", "../x"), ["../x", "inside"]),
        ("gqa", "gqa/testdev_balanced_questions.json", put("201307251", "types", 3), ["types", "not an object"]),
        ("textvqa", "textvqa/TextVQA_0.5.1_val.json", put("data", 0, "answers", 2, None), ["answers[2] is null"]),
        ("vizwiz", "vizwiz/val.json", put(1, "image", "VizWiz_val_00000000.jpg"), ["entry 1", "was there before"]),
        ("vizwiz", "vizwiz/val.json", put(1, "image", "/etc/passwd"), ["entry 1", "'/etc/passwd'"]),
        ("vizwiz", "vizwiz/val.json", put(1, "image", "a" * 300), ["entry 1", "not a path inside"]),
        ("vizwiz", "vizwiz/val.json", lambda _: {"a": 1}, ["holds an object, not a list"]),
        ("scienceqa", "scienceqa/problems.json", put("5", DROP), ["problem '5' of split 'test' is not in"]),
        (
            "scienceqa",
            "scienceqa/problems.json",
            put("5", "answer", 3),
            ["problem '5'", "'answer' is 3 with 3 choices"],
        ),
        ("scienceqa", "scienceqa/problems.json", put("5", "image", "../../x.png"), ["'5/../../x.png'"]),
        ("scienceqa", "scienceqa/pid_splits.json", put("test", DROP), ["'test' is missing"]),
        ("coco_caption", "coco/dataset_coco.json", put("images", 0, "sentences", []), ["images[0]", "is empty"]),
        ("coco_caption", "coco/dataset_coco.json", put("images", 0, "filepath", ".."), ["images[0]", "inside"]),
        ("nocaps", NOCAPS, put("annotations", []), ["images[0]", "picture 0 has no caption"]),
        ("nocaps", NOCAPS, put("images", 2, "domain", DROP), ["images[2]", "'domain' is missing"]),
        ("flickr30k_retrieval", "flickr30k/flickr30k_test.json", put(1, "caption", "a dog"), ["entry 1", "a string"]),
        ("flickr30k_retrieval", "flickr30k/flickr30k_test.json", put(1, "caption", []), ["entry 1", "is empty"]),
        ("flickr30k_retrieval", "flickr30k/flickr30k_test.json", lambda _: 3, ["is a whole number, not an object"]),
    ],
)
def test_a_malformed_file_is_named_with_entry_and_mend(
    data: Path, task: str, file: str, how: Callable[[Any], Any], said: list[str]
) -> None:
    change(data / file, how)
    with pytest.raises(AstreaError) as error:
        read(task, data)
    told = str(error.value)
    assert file.split("/")[-1] in told
    assert all(part in told for part in said), told
    assert error.value.hint


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", ["line 2", "not valid JSON"]),
        ("[1]", ["line 2", "a list, not an object"]),
        ('{"question_id": 2, "image": "a.jpg", "text": "?", "label": "maybe"}', ["line 2", "'label' is 'maybe'"]),
        (
            '{"question_id": 1, "image": "a.jpg", "text": "?", "label": "no"}',
            ["line 2", "1 was there before", "line 1"],
        ),
    ],
)
def test_a_malformed_line_is_named(data: Path, line: str, said: list[str]) -> None:
    path = data / "pope/coco_pope_popular.json"
    path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
    with pytest.raises(AstreaError) as error:
        read("pope", data)
    assert all(part in str(error.value) for part in [str(path), *said])


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\ud800".encode("utf-16", "surrogatepass").decode("latin-1")])
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(AstreaError, match=r"file\.json is not valid JSON"):
        read_json(path)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(AstreaError, match="cannot be read"):
        read_json(tmp_path / "none.json")
    with pytest.raises(AstreaError, match="not an ordinary file"):
        read_json(tmp_path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(AstreaError, match="at most"):
        read_json(tmp_path / "huge.json")


def test_empty_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n\n  \n{"a": 2}')
    assert [(entry.where, entry.fields["a"]) for entry in read_lines(tmp_path / "a.jsonl")] == [
        ("line 2", 1),
        ("line 5", 2),
    ]


@pytest.mark.parametrize("name", ["", "/a.jpg", "../a.jpg", "a/../../b.jpg", "a\\b.jpg", "C:/a.jpg", "a\0.jpg"])
def test_a_picture_outside_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AstreaError, match="not a path inside"):
        Entry({}, tmp_path / "x.json", "entry 0").picture(tmp_path, name)


def test_unknown_tasks_are_told() -> None:
    with pytest.raises(AstreaError, match="unknown public task 'vqa'"):
        choose_tasks("gqa,vqa")
    assert [task.name for task in choose_tasks("pope, gqa,pope")] == ["pope", "gqa"]
    assert choose_tasks("all") == TASKS
