"""Scores on data of one's own: what becomes an item, how it is asked, how answers are scored, what is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.data.packing import CAPTION_PROMPT, Packer
from astrea.data.readers.issues import Issue
from astrea.data.readers.sources import open_sources
from astrea.data.readers.trainable import Trainable
from astrea.evaluation.own_data.answers import Answers, ItemPredictor, batches
from astrea.evaluation.own_data.held_out import measure
from astrea.evaluation.own_data.items import Item, items_of, kind_of
from astrea.evaluation.own_data.score import figures, is_right, score
from astrea.world.scenes.draw import split_scene
from command_line import Astrea, refused
from listening import Said


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with random weights would talk for as long as it may."""
    monkeypatch.setattr("astrea.evaluation.own_data.answers.LONGEST", {True: 4, False: 2})


def talk(*said: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(said)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every kind of answer, a text without a picture, a damaged picture and a missing one."""
    folder = tmp_path_factory.mktemp("held-out")
    for number in range(3):
        Image.fromarray(split_scene("test", number, 0).image).save(folder / f"{number}.png")
    damaged = (folder / "0.png").read_bytes()
    (folder / "damaged.png").write_bytes(damaged[: len(damaged) // 2])
    several = talk("<image>\nis there a cat?", "Yes", "how many suns?", "three", "what colour is it?", "dark red.")
    rows: list[dict[str, Any]] = [
        {"id": "several", "image": "0.png", "conversations": several},
        {"id": "two", "image": ["1.png", "2.png"], "conversations": talk("<image><image>\nthe same?", "no")},
        {"id": "text", "conversations": talk("is the sun red?", "yes")},
        {"id": "long", "image": "1.png", "conversations": talk("<image>\nwhy?", "the cat is on the red sun now.")},
        {"id": "damaged", "image": "damaged.png", "conversations": talk("<image>\nis there a dog?", "no")},
        {"id": "missing", "image": "gone.png", "conversations": talk("<image>\nis there a dog?", "no")},
    ]
    (folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "held.jsonl"


@pytest.fixture(scope="module")
def items(data: Path, tiny_processor, tiny_model) -> tuple[list[Item], list[Issue]]:
    issues: list[Issue] = []
    check = Trainable(Packer(tiny_processor.tokenizer, tiny_model.num_visual_tokens), 10_000)
    return list(items_of(open_sources(str(data)), check, issues.append)), issues


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        *(("Yes", "yes/no"), ("no.", "yes/no"), ("3", "number"), ("three", "number"), ("1,500", "number")),
        *(("dark red", "phrase"), ("on the left side", "phrase"), ("yes, two of them", "phrase")),
        *(("there is a cat on the sun", "text"), ("", "phrase")),
    ],
)
def test_kinds_of_answers(truth, kind):
    assert kind_of(truth) == kind


def test_every_answer_is_an_item_with_what_was_said_before_it(items):
    found, issues = items
    assert [(item.name.split()[-1], item.kind, item.truths) for item in found] == [
        ("several", "yes/no", ("Yes",)),
        ("several", "number", ("three",)),
        ("several", "phrase", ("dark red.",)),
        ("two", "yes/no", ("no",)),
        ("text", "yes/no", ("yes",)),
        ("long", "text", ("the cat is on the red sun now.",)),
        ("damaged", "yes/no", ("no",)),
    ]
    assert [turn["content"] for turn in found[1].turns] == ["<image>\nis there a cat?", "Yes", "how many suns?"]
    assert found[0].question == "is there a cat?"
    assert [issue.id for issue in issues] == ["missing"]


def test_captions_are_one_item_of_all_sentences(tmp_path, tiny_processor, tiny_model):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "captions.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png"}],
                "annotations": [{"id": n, "image_id": 1, "caption": text} for n, text in enumerate(["a sun", "a cat"])],
            }
        )
    )
    check = Trainable(Packer(tiny_processor.tokenizer, tiny_model.num_visual_tokens), 10_000)
    (item,) = items_of(open_sources(str(tmp_path / "captions.json")), check, pytest.fail)
    assert (item.kind, item.truths, item.question) == ("caption", ("a sun", "a cat"), CAPTION_PROMPT)


def test_a_picture_stands_where_its_mark_was_and_blind_there_is_none(items):
    one, two = Image.new("RGB", (4, 4)), Image.new("RGB", (5, 5))
    item = items[0][3]
    (turn,) = item.conversation([one, two])
    assert [part.get("image") for part in turn["content"]] == [one, two, None]
    assert item.conversation(None)[0]["content"] == [{"type": "text", "text": "the same?"}]
    assert len(items[0][1].conversation([one])) == 3


def test_batches_hold_every_item_once_and_long_answers_apart(items):
    found = items[0]
    made = list(batches(found, 2))
    assert sorted(row for rows in made for row in rows) == list(range(len(found)))
    assert made[-1] == [5]


def answers_like(items: list[Item], wrong: int | None = None) -> Answers:
    given: list[str | None] = [item.truths[0].upper() for item in items]
    if wrong is not None:
        given[wrong] = "seven sheep"
    return Answers(given, ["no"] * len(items), [None] * len(items))


def test_right_answers_score_100_and_blind_ones_what_they_earn(items):
    found = score(items[0], answers_like(items[0]), ["a", "b"])
    assert {kind: task["score"] for kind, task in found["tasks"].items()} == pytest.approx(
        dict.fromkeys(("yes/no", "number", "phrase", "text"), 100.0)
    )
    assert found["average"] == pytest.approx(100.0)
    assert found["tasks"]["yes/no"]["blind"] == 50.0
    assert found["tasks"]["yes/no"]["n"] == 4
    assert found["tasks"]["number"]["blind"] == 0.0
    assert found["tasks"]["yes/no"]["secondary"]["exact_match"] == 0.0  # "YES" is not "Yes"
    worse = score(items[0], answers_like(items[0], wrong=0), ["a", "b"])
    assert worse["tasks"]["yes/no"]["score"] == 75.0
    with pytest.raises(AstreaError, match="nothing to score"):
        score(items[0], Answers([None] * 7, [None] * 7, [None] * 7), ["a"])


def test_captions_are_scored_against_all_their_sentences():
    truths = [["a red sun.", "the sun is red."], ["a blue cat."]]
    perfect = figures("caption", ["the sun is red", "a blue cat"], truths)
    assert perfect["rouge_l"] == pytest.approx(100.0)
    assert figures("caption", ["a dog", "a dog"], truths)["rouge_l"] < 60
    assert "cider_d" in perfect
    assert "cider_d" not in figures("caption", ["the sun"], truths[:1])  # of one picture it would be 0
    assert is_right("phrase", "Dark Red", ["dark red."]) == 1.0
    assert is_right("number", "3", ["three"]) == 1.0


def test_a_model_answers_and_what_cannot_be_read_is_told(data, tiny_model, tiny_processor):
    said = Said()
    measured = measure(tiny_model, tiny_processor, open_sources(str(data)), batch=4, report=said)
    answers = measured.answers
    assert [answer is None for answer in answers.with_pictures] == [False] * 6 + [True]
    assert [answer is None for answer in answers.blind] == [False] * 6 + [True]
    assert "damaged" in said.text
    assert "gone.png" in said.text
    assert [share is None for share in answers.shares] == [False, False, False, False, True, False, True]
    assert measured.results["tasks"]["yes/no"]["n"] == 3
    assert said.done[-1] == 7
    # Alone as in a batch.
    alone = ItemPredictor(tiny_model, tiny_processor, 1).answer(measured.items[:6], Said())
    assert (alone.with_pictures, alone.blind) == (answers.with_pictures[:6], answers.blind[:6])
    for one, other in zip(alone.shares, answers.shares, strict=False):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-5)


def test_on_the_command_line(astrea: Astrea, data: Path, tiny_folder: Path, tmp_path: Path):
    result = astrea("evaluate", tiny_folder, "--data", data, "--limit", "2", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert "yes/no" in result.out
    assert "existence" not in result.out
    assert f"report:  {tmp_path / 'out' / 'report.html'}" in result.out
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [(row["question"], row["truths"]) for row in rows] == [
        ("is there a cat?", ["Yes"]),
        ("how many suns?", ["three"]),
        ("what colour is it?", ["dark red."]),
        ("the same?", ["no"]),
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Kinds of answers" in page
    assert "Twelve tasks" not in page
    assert "is there a cat?" in page
    assert len(re.findall(r"data:image/png", page)) == 4
    shown = json.loads(astrea("evaluate", tiny_folder, "--data", data, "--limit", "1", "--json").out)
    assert set(shown["tasks"]) == {"yes/no", "number", "phrase"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "gone.jsonl"], "gone.jsonl"),
        (["--data", "held.jsonl", "--split", "validation"], "are for the embedded world"),
        (["--data", "held.jsonl", "--tasks", "counting"], "are for the embedded world"),
        (["--data", "."], "astrea benchmark"),
        (["--images", "."], "add --data FILE"),
        (["--data", "empty.jsonl"], "empty.jsonl"),
    ],
)
def test_refusals(astrea: Astrea, tiny_folder: Path, tmp_path: Path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held.jsonl").write_text("{}\n")
    (tmp_path / "empty.jsonl").write_text("{}\n")
    refused(astrea("evaluate", tiny_folder, *words), said)
