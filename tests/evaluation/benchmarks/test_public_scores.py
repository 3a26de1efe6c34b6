"""Scores and submissions of each family on answers that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_public_readers import read

from astrea.evaluation.benchmarks.items import Item, by_group, per_cent
from astrea.evaluation.benchmarks.submission import write_submission
from astrea.evaluation.benchmarks.suite import AnswerTask, choose_tasks
from astrea.evaluation.benchmarks.vqa import vizwiz_answer
from astrea.evaluation.metrics.captions import cider_d


def scored(name: str, data: Path, predictions: list[str], mode: Any = "official") -> Any:
    (task,) = choose_tasks(name)
    assert isinstance(task, AnswerTask)
    return task.score(read(name, data), predictions, mode)


def test_vqa_tells_kinds_of_answers_apart_and_modes_differ(whole_data: Path) -> None:
    official = scored("vqav2", whole_data, ["Yes", "Two.", "the red"])
    assert official.score == pytest.approx((0 + 100 + 100) / 3)  # unanimous "yes" is compared letter by letter
    assert official.details["groups"]["yes/no"] == {"score": 0.0, "n": 1}
    normalised = scored("vqav2", whole_data, ["Yes", "Two.", "the red"], "normalised")
    assert normalised.score == pytest.approx(100)


ALL = ("nokia",) * 10
MIXED = ("nokia",) * 3 + ("the nokia", "Nokia!") + ("phone",) * 5


@pytest.mark.parametrize(
    ("name", "said", "answers", "wanted"),
    [
        # visualqa.org's scorer compares the answers of people who all agree raw.
        ("vqav2", "Nokia", ALL, 0.0),
        ("okvqa", "Nokia", ALL, 0.0),
        ("vizwiz", "Nokia", ALL, 0.0),
        ("vqav2", "nokia", ALL, 100.0),
        ("okvqa", "a Nokia.", MIXED, 100.0),
        ("vqav2", "Phone!", MIXED, 100.0),
        ("vqav2", "two", ("2", "two", *["three"] * 8), 60.0),
        # MMF's evaluator, which LLaVA's calls, puts both sides through its answer processor first.
        ("textvqa", "Nokia", ALL, 100.0),
        ("textvqa", "The Nokia.", ALL, 100.0),
        ("textvqa", "nokia, phone?", ("nokia phone",) * 10, 100.0),
        ("textvqa", "McDonald's", ("mcdonald 's",) * 10, 100.0),
        ("textvqa", "1,000", ("1000", *["x"] * 9), 30.0),
        ("textvqa", "motorola", ALL, 0.0),
    ],
)
def test_each_set_is_scored_as_its_own_scorer_does(
    name: str, said: str, answers: tuple[str, ...], wanted: float
) -> None:
    (task,) = choose_tasks(name)
    assert isinstance(task, AnswerTask)
    item = Item(1, Path("1.jpg"), "what?", "what?", answers)
    assert task.score([item], [said], "official").score == pytest.approx(wanted)
    normalised = task.score([item], [said], "normalised").score
    assert normalised == pytest.approx(100.0 if said == "Nokia" else wanted)


def test_cider_of_one_picture_is_noted() -> None:
    (task,) = choose_tasks("coco_caption")
    assert isinstance(task, AnswerTask)
    told = [("a red cat sits", "a cat on a sofa"), ("a blue dog runs", "a dog on a beach")]
    items = [Item(n, Path("1.jpg"), "", "", truth) for n, truth in enumerate(told)]
    one = task.score(items[:1], ["a red cat sits"], "official")
    assert one.score == 0.0
    assert "of one picture it is always 0" in one.details["note"]
    assert "note" not in task.score(items, ["a red cat sits", "a blue dog runs"], "official").details


def test_without_public_answers_there_is_no_score(whole_data: Path) -> None:
    score = scored("vqav2_testdev", whole_data, ["a cat"])
    assert score.score is None
    assert "submission" in score.details["note"]


@pytest.mark.parametrize("said", ["Unanswerable", "unanswerable.", " UNANSWERABLE ", "'Unanswerable'"])
def test_vizwiz_understands_what_it_told_the_model_to_say(said: str, whole_data: Path) -> None:
    assert vizwiz_answer(said) == "unanswerable"
    score = scored("vizwiz", whole_data, ["can", said])
    assert score.score == pytest.approx(100)
    assert score.details["unanswerable"] == {"precision": 100, "recall": 100, "f1": 100, "said": 1, "true": 1}


def test_vizwiz_tells_how_well_the_unanswerable_is_told(whole_data: Path) -> None:
    assert vizwiz_answer("unanswerable I think") == "unanswerable I think"
    score = scored("vizwiz", whole_data, ["Unanswerable", "a can"])
    assert score.score == 0.0
    assert score.details["unanswerable"] == {"precision": 0, "recall": 0, "f1": 0, "said": 1, "true": 1}
    assert score.details["groups"] == {
        "answerable": {"score": 0.0, "n": 1},
        "unanswerable": {"score": 0.0, "n": 1},
    }


def test_gqa(whole_data: Path) -> None:
    score = scored("gqa", whole_data, ["Yes.", "a boy", "Cat"])
    assert score.score == pytest.approx(200 / 3)
    assert score.details["groups"]["binary"]["score"] == 100
    assert score.details["groups"]["open"]["score"] == 50
    assert scored("gqa", whole_data, ["Yes.", "a boy", "Cat"], "normalised").score == 100


def test_scienceqa(whole_data: Path) -> None:
    score = scored("scienceqa", whole_data, ["B. a sun", "the sun"])
    assert score.score == 50
    assert score.details["unparsable"] == 1
    assert scored("scienceqa", whole_data, ["B. a sun", "the sun"], "normalised").score == 100


def test_pope_is_the_mean_of_three_f1(whole_data: Path) -> None:
    right, always, never = ["yes", "no", "yes"], ["yes"] * 3, ["no"] * 3
    score = scored("pope", whole_data, [*right, *always, *never])
    f1 = {name: subset["f1"] for name, subset in score.details["subsets"].items()}
    assert f1 == pytest.approx({"random": 100, "popular": 80, "adversarial": 0})
    assert score.score == pytest.approx(60)
    assert score.details["subsets"]["popular"]["yes_ratio"] == 100


def test_captions_score_each_domain_as_a_set_of_its_own(whole_data: Path) -> None:
    items = read("nocaps", whole_data)
    said = [item.truth[0] for item in items]
    score = scored("nocaps", whole_data, said)
    near = [n for n, item in enumerate(items) if item.group == "near-domain"]
    alone = cider_d([said[n] for n in near], [items[n].truth for n in near]).corpus
    assert score.score == pytest.approx(100 * cider_d(said, [item.truth for item in items]).corpus)
    assert score.details["groups"]["near-domain"]["cider"] == pytest.approx(100 * alone)
    assert score.details["groups"]["in-domain"]["cider"] == 0  # one picture alone has no rare words
    assert score.details["bleu4"] == pytest.approx(100, abs=1e-4)


def test_helpers_refuse_nothing_to_average() -> None:
    with pytest.raises(ValueError, match="nothing"):
        per_cent([])
    assert by_group(["a", "", "a", "b"], [1.0, 1.0, 0.0, 1.0]) == {
        "a": {"score": 50.0, "n": 2},
        "b": {"score": 100.0, "n": 1},
    }


# Submissions


def submitted(name: str, data: Path, out: Path, predictions: list[str], mode: Any = "official") -> Any:
    (task,) = choose_tasks(name)
    assert isinstance(task, AnswerTask)
    (path,) = write_submission(out, task, read(name, data), predictions, mode)
    assert path == out / f"submissions/{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["vqav2", "okvqa"])
def test_vqa_submission(name: str, whole_data: Path, tmp_path: Path) -> None:
    said = ["Yes,", "Two", "the\nred"]
    assert submitted(name, whole_data, tmp_path, said) == [
        {"question_id": 420, "answer": "Yes,"},
        {"question_id": 421, "answer": "Two"},
        {"question_id": 730, "answer": "the red"},
    ]
    assert [row["answer"] for row in submitted(name, whole_data, tmp_path, said, "normalised")] == ["yes", "2", "red"]


def test_textvqa_and_vizwiz_submission(whole_data: Path, tmp_path: Path) -> None:
    assert submitted("textvqa", whole_data, tmp_path, ["stop", "go"]) == [
        {"question_id": 34602, "answer": "stop"},
        {"question_id": 34603, "answer": "go"},
    ]
    assert submitted("vizwiz", whole_data, tmp_path, ["a can", "Unanswerable."]) == [
        {"image": "VizWiz_val_00000000.jpg", "answer": "a can"},
        {"image": "VizWiz_val_00000001.jpg", "answer": "unanswerable"},
    ]


def test_gqa_submission_is_as_the_letter_by_letter_scorer_wants_it(whole_data: Path, tmp_path: Path) -> None:
    assert submitted("gqa", whole_data, tmp_path, ["Yes.", "Boy", "é"]) == [
        {"questionId": "201307251", "prediction": "yes"},
        {"questionId": "201640614", "prediction": "boy"},
        {"questionId": "202225914", "prediction": "é"},
    ]


def test_scienceqa_submission(whole_data: Path, tmp_path: Path) -> None:
    assert submitted("scienceqa", whole_data, tmp_path, ["C", "who knows"]) == {"results": {"5": 2, "6": -1}}


def test_caption_submission(whole_data: Path, tmp_path: Path) -> None:
    assert submitted("flickr30k_caption", whole_data, tmp_path, ["a", "b", ""]) == [
        {"image_id": 1007129816, "caption": "a"},
        {"image_id": 1009434119, "caption": "b"},
        {"image_id": 101362133, "caption": ""},
    ]


def test_pope_submission_is_a_file_for_each_subset(whole_data: Path, tmp_path: Path) -> None:
    (task,) = choose_tasks("pope")
    assert isinstance(task, AnswerTask)
    said = [f"answer {n}" for n in range(9)]
    paths = write_submission(tmp_path, task, read("pope", whole_data), said, "official")
    assert [path.name for path in paths] == ["pope_random.jsonl", "pope_popular.jsonl", "pope_adversarial.jsonl"]
    lines = [json.loads(line) for line in paths[1].read_text().splitlines()]
    assert lines[0] == {"question": "Is there a cat in the image?", "answer": "answer 3"}
    assert [line["answer"] for line in lines] == said[3:6]
