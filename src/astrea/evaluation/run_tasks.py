"""Evaluating a model on tasks of one's own, with the pictures and blind."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.progress import SILENT, Reporter
from astrea.data.images import load_image
from astrea.evaluation.generate import Predictor, encode
from astrea.evaluation.task import Task, TaskItem, open_task
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.recipes.evaluation import TaskEntry

BATCH = 16


def evaluate_tasks(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    entries: Sequence[TaskEntry],
    *,
    taken: Collection[str] = (),
    report: Reporter = SILENT,
) -> dict[str, dict[str, Any]]:
    """What ``results.json`` holds of some tasks: ``tasks`` (scores 0..100) and ``shares`` (each expert's gate weight).

    Args:
        taken: names of tasks that there are already.

    Raises:
        AstreaError: a task cannot be opened, has the name of another one, or none of its pictures can be read.
    """
    tasks, shares = {}, {}
    for entry in entries:
        task = open_task(entry)
        if task.name in taken or task.name in tasks:
            raise AstreaError(f"two tasks are called {task.name!r}", "leave one out of evaluation.tasks")
        row, weights = evaluate_task(model, processor, task, report=report)
        tasks[task.name] = row
        shares[task.name] = dict(zip(model.experts.names, weights.tolist(), strict=True))
    return {"tasks": tasks, "shares": shares}


def evaluate_task(
    model: AstreaForConditionalGeneration, processor: AstreaProcessor, task: Task, *, report: Reporter = SILENT
) -> tuple[dict[str, Any], Tensor]:
    """One task's row, and the mean gate weight (E,) of each expert. Items whose picture cannot be read are left out."""
    predictor = Predictor(model, processor.tokenizer)
    items = list(task.items())
    scores: list[float] = []
    blind: list[float] = []
    weights: list[Tensor] = []
    for start in range(0, len(items), BATCH):
        part, pictures = _readable(items, start, task.name, report)
        if part:
            features = encode(model, processor, pictures)
            questions, rows = [item.question for item in part], torch.arange(len(part))
            answered = predictor.answer(questions, features, rows, longest=task.max_new_tokens)
            unseen = predictor.answer(questions, None, None, longest=task.max_new_tokens)
            scores += [_score(task, text, item) for text, item in zip(answered.texts, part, strict=True)]
            blind += [_score(task, text, item) for text, item in zip(unseen.texts, part, strict=True)]
            assert answered.shares is not None
            weights.append(answered.shares)
        report.track(task.name, min(start + BATCH, len(items)), len(items))
    if not scores:
        raise AstreaError(f"task {task.name!r} has no item that could be answered", "see to its pictures")
    row = {
        "metric": task.metric,
        "score": 100 * sum(scores) / len(scores),
        "n": len(scores),
        "blind": 100 * sum(blind) / len(blind),
        "secondary": {},
    }
    return row, torch.cat(weights).mean(0)


def _readable(items: Sequence[TaskItem], start: int, name: str, report: Reporter) -> tuple[list[TaskItem], list[Any]]:
    """Some items with their pictures; the others are said to be left out."""
    found, pictures = [], []
    for number, item in enumerate(items[start : start + BATCH], start + 1):
        try:
            pictures.append(load_image(item.picture, name=f"item {number} of task {name}"))
            found.append(item)
        except AstreaError as error:
            report.say(f"left out: {error.message}")
    return found, pictures


def _score(task: Task, answer: str, item: TaskItem) -> float:
    score = float(task.score(answer, item))
    if not (math.isfinite(score) and 0 <= score <= 1):
        raise AstreaError(f"task {task.name!r} scores {answer[:60]!r} with {score}", "a score lies between 0 and 1")
    return score
