"""POPE: is this object in the picture? Three files that differ in how the absent objects were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrea.evaluation.benchmarks.files import read_lines, unique
from astrea.evaluation.benchmarks.items import Item, Score
from astrea.evaluation.benchmarks.vqa import SHORT_ANSWER
from astrea.evaluation.metrics.vqa import Mode, pope_scores

SUBSETS = ("random", "popular", "adversarial")


def read_pope(files: Sequence[Path], pictures: Path, limit: int | None) -> list[Item]:
    """One JSONL file for each subset; ``limit`` holds for each of them. Ids are ``subset/question_id``."""
    items = []
    for subset, path in zip(SUBSETS, files, strict=True):
        entries = unique((entry.id("question_id"), entry) for entry in read_lines(path))
        for id_, entry in list(entries.items())[:limit]:
            question, label = entry.text("text"), entry.text("label")
            if label not in ("yes", "no"):
                raise entry.error(f"'label' is {label!r}, not 'yes' or 'no'")
            picture = entry.picture(pictures, entry.text("image"))
            items.append(Item(f"{subset}/{id_}", picture, question, f"{question}\n{SHORT_ANSWER}", label, subset))
    return items


def score_pope(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> Score:
    """The mean of the three F1s in per cent, as published; every subset's own figures beside it."""
    subsets: dict[str, dict[str, float]] = {}
    for subset in dict.fromkeys(item.group for item in items):
        mine = [(p, item.truth) for item, p in zip(items, predictions, strict=True) if item.group == subset]
        found = pope_scores([p for p, _ in mine], [label for _, label in mine], mode)
        counts = {"unparsable": int(found.pop("unparsable")), "n": len(mine)}
        subsets[subset] = {name: 100.0 * value for name, value in found.items()} | counts
    return Score(sum(s["f1"] for s in subsets.values()) / len(subsets), {"subsets": subsets})


def submit_pope(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> dict[str, list[dict[str, Any]]]:
    """For each subset the lines ``{question, answer}`` in the order of the file, which the official script needs."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for item, prediction in zip(items, predictions, strict=True):
        lines.setdefault(item.group, []).append({"question": item.question, "answer": prediction})
    return lines
