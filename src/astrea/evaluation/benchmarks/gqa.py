"""GQA: one short answer for each question, exact match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrea.evaluation.benchmarks.files import Entry, read_object
from astrea.evaluation.benchmarks.items import Item, Score, by_group, per_cent
from astrea.evaluation.benchmarks.vqa import SHORT_ANSWER
from astrea.evaluation.metrics.vqa import Mode, gqa_answer, gqa_match


def read_gqa(files: Sequence[Path], pictures: Path, limit: int | None) -> list[Item]:
    """``{question id: {question, imageId, answer, types}}``; pictures are ``<imageId>.jpg``."""
    root = read_object(files[0])
    items = []
    for id_ in list(root.fields)[:limit]:
        entry = Entry(root.fields[id_], root.path, f"question {id_!r}")
        question = entry.text("question")
        picture = entry.picture(pictures, f"{entry.id('imageId')}.jpg")
        truth = entry.text("answer") if entry.has("answer") else None
        items.append(Item(id_, picture, question, f"{question}\n{SHORT_ANSWER}", truth, _group(entry)))
    return items


def _group(entry: Entry) -> str:
    """GQA distinguishes "query" questions (open) from all others, which are answered by one of two words (binary)."""
    if not entry.has("types"):
        return ""
    kinds = Entry(entry.fields["types"], entry.path, f"{entry.where}.types")
    return "open" if kinds.text("structural") == "query" else "binary"


def score_gqa(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> Score:
    """Accuracy in per cent, also by binary and open questions."""
    if any(item.truth is None for item in items):
        return Score(None, {"note": "answers are not public: hand the submission file to the task's server"})
    right = [float(gqa_match(p, item.truth, mode)) for item, p in zip(items, predictions, strict=True)]
    return Score(per_cent(right), {"groups": by_group((item.group for item in items), right)})


def submit_gqa(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> list[dict[str, Any]]:
    """``[{questionId, prediction}]``; the server compares letter by letter, so what it should not see is taken off."""
    return [
        {"questionId": item.id, "prediction": gqa_answer(p, mode)} for item, p in zip(items, predictions, strict=True)
    ]
