"""VQAv2, OK-VQA, TextVQA and VizWiz: questions with several people's answers, scored by VQA accuracy.

Each has its own published scorer: those of VQAv2, OK-VQA and VizWiz compare unanimous answers raw, TextVQA's normalises
always.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.evaluation.benchmarks.files import Entry, read_list, read_object, unique
from astrea.evaluation.benchmarks.items import Item, Score, by_group, per_cent
from astrea.evaluation.metrics.vqa import Mode, clean_spaces, normalise_answer, textvqa_accuracy, vqa_accuracy

SHORT_ANSWER = "Answer the question using a single word or phrase."
IF_UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
UNANSWERABLE = "unanswerable"
PRIVATE = "answers are not public: hand the submission file to the task's server"


def read_vqa(files: Sequence[Path], pictures: Path, limit: int | None) -> list[Item]:
    """A questions file and, if there is one, the annotations file that goes with it (VQAv2, OK-VQA).

    Pictures are COCO's: ``COCO_val2014_000000000042.jpg`` in a folder named for the COCO split.

    Raises:
        AstreaError: a malformed entry, an id that comes twice, or a question without annotation.
    """
    questions = unique((entry.id("question_id"), entry) for entry in read_object(files[0]).entries("questions"))
    answers: dict[int | str, Entry] = {}
    if len(files) > 1:
        annotations = read_object(files[1]).entries("annotations")
        answers = unique((entry.id("question_id"), entry) for entry in annotations)
    items = []
    for id_, entry in list(questions.items())[:limit]:
        annotation = answers.get(id_)
        if annotation is None and len(files) > 1:
            raise AstreaError(
                f"{files[0]}: {entry.where}: question {id_} has no annotation in {files[1]}",
                "take both files from the same release and split",
            )
        name = f"COCO_{pictures.name}_{entry.whole('image_id'):012d}.jpg"
        question = entry.text("question")
        truth = annotation.texts("answers", "answer") if annotation else None
        group = annotation.text("answer_type") if annotation and annotation.has("answer_type") else ""
        items.append(Item(id_, pictures / name, question, f"{question}\n{SHORT_ANSWER}", truth, group))
    return items


def read_textvqa(files: Sequence[Path], pictures: Path, limit: int | None) -> list[Item]:
    """TextVQA 0.5.1: ``{"data": [...]}``; pictures are ``<image_id>.jpg``."""
    entries = unique((entry.id("question_id"), entry) for entry in read_object(files[0]).entries("data"))
    items = []
    for id_, entry in list(entries.items())[:limit]:
        question = entry.text("question")
        truth = entry.texts("answers") if entry.has("answers") and entry.items("answers") else None
        picture = entry.picture(pictures, f"{entry.id('image_id')}.jpg")
        items.append(Item(id_, picture, question, f"{question}\n{SHORT_ANSWER}", truth))
    return items


def read_vizwiz(files: Sequence[Path], pictures: Path, limit: int | None) -> list[Item]:
    """VizWiz-VQA: a list of ``{image, question, answers, answerable}``; the picture's name is the id."""
    entries = unique((entry.text("image"), entry) for entry in read_list(files[0]))
    items = []
    for name, entry in list(entries.items())[:limit]:
        question = entry.text("question")
        truth = entry.texts("answers", "answer") if entry.has("answers") else None
        group = ("answerable" if entry.whole("answerable") else UNANSWERABLE) if entry.has("answerable") else ""
        prompt = f"{question}\n{IF_UNANSWERABLE}\n{SHORT_ANSWER}"
        items.append(Item(name, entry.picture(pictures, str(name)), question, prompt, truth, group))
    return items


def vizwiz_answer(prediction: str) -> str:
    """What a model meant that was told to respond with 'Unanswerable': the annotators' word has no capital, and where
    all of them agree on it the published scorer compares letter by letter."""
    bare = prediction.strip(" \n\t'\".").lower()  # 'Unanswerable'. and 'Unanswerable.' alike
    return UNANSWERABLE if bare == UNANSWERABLE else prediction


def score_vqa(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> Score:
    """VQA accuracy in per cent, also by kind of answer where the file says it."""
    if any(item.truth is None for item in items):
        return Score(None, {"note": PRIVATE})
    right = [vqa_accuracy(p, item.truth, mode) for item, p in zip(items, predictions, strict=True)]
    return Score(per_cent(right), {"groups": by_group((item.group for item in items), right)})


def score_textvqa(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> Score:
    """TextVQA's accuracy in per cent: its scorer normalises always, so both modes give the same."""
    if any(item.truth is None for item in items):
        return Score(None, {"note": PRIVATE})
    return Score(per_cent([textvqa_accuracy(p, item.truth) for item, p in zip(items, predictions, strict=True)]), {})


def score_vizwiz(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> Score:
    """VQA accuracy, and how well unanswerable questions are detected: precision, recall and F1 of "unanswerable"."""
    meant = [vizwiz_answer(prediction) for prediction in predictions]
    score = score_vqa(items, meant, mode)
    if score.score is None or not all(item.group for item in items):
        return score
    said = [normalise_answer(answer) == UNANSWERABLE for answer in meant]
    true = [item.group == UNANSWERABLE for item in items]
    hits = sum(s and t for s, t in zip(said, true, strict=True))
    detection = {
        "precision": 100.0 * hits / max(1, sum(said)),
        "recall": 100.0 * hits / max(1, sum(true)),
        "f1": 200.0 * hits / max(1, sum(said) + sum(true)),
        "said": sum(said),
        "true": sum(true),
    }
    return Score(score.score, score.details | {UNANSWERABLE: detection})


def submit_vqa(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> list[dict[str, Any]]:
    """``[{question_id, answer}]``. In normalised mode the answers are sent normalised, since servers do not always."""
    return [
        {"question_id": item.id, "answer": _sent(prediction, mode)}
        for item, prediction in zip(items, predictions, strict=True)
    ]


def submit_vizwiz(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> list[dict[str, Any]]:
    """``[{image, answer}]``."""
    return [
        {"image": item.id, "answer": _sent(vizwiz_answer(prediction), mode)}
        for item, prediction in zip(items, predictions, strict=True)
    ]


def _sent(prediction: str, mode: Mode) -> str:
    return normalise_answer(prediction) if mode == "normalised" else clean_spaces(prediction)
