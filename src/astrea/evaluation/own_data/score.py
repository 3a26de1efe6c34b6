"""How right answers to data of one's own are: by kind of answer, beside the same model's blind answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from astrea.common.errors import AstreaError
from astrea.evaluation.metrics.balance import load_balance
from astrea.evaluation.metrics.captions import bleu, cider_d, rouge_l
from astrea.evaluation.metrics.vqa import vqa_accuracy
from astrea.evaluation.own_data.answers import Answers
from astrea.evaluation.own_data.items import KINDS, LONG, Item

SCHEMA = 1


def score(items: Sequence[Item], answers: Answers, names: Sequence[str]) -> dict[str, Any]:
    """What `results.json` holds of them; scores 0..100. The average is over kinds of answers, each alike.

    Args:
        names: of the experts.

    Raises:
        AstreaError: nothing was answered.
    """
    tasks: dict[str, Any] = {}
    shares: dict[str, torch.Tensor] = {}
    for kind in KINDS:
        rows = [row for row, item in enumerate(items) if item.kind == kind and answers.with_pictures[row] is not None]
        if not rows:
            continue
        truths = [items[row].truths for row in rows]
        given, blind = ([str(one[row]) for row in rows] for one in (answers.with_pictures, answers.blind))
        secondary = figures(kind, given, truths)
        primary = primary_of(kind)
        tasks[kind] = {
            "metric": primary,
            "score": secondary.pop(primary),
            "n": len(rows),
            "blind": figures(kind, blind, truths)[primary],
            "secondary": secondary,
        }
        looked = [share for row in rows if (share := answers.shares[row]) is not None]
        if looked:
            shares[kind] = torch.stack(looked)
    if not tasks:
        raise AstreaError("there is nothing to score: no record could be answered", "look over: astrea validate FILE")
    return {
        "schema": SCHEMA,
        "suite": "own",
        "average": float(np.mean([task["score"] for task in tasks.values()])),
        "blind_average": float(np.mean([task["blind"] for task in tasks.values()])),
        "tasks": tasks,
        "load": load_balance(shares, list(names)),
        "shares": {kind: dict(zip(names, one.mean(0).tolist(), strict=True)) for kind, one in shares.items()},
    }


def primary_of(kind: str) -> str:
    """The figure that is a kind's score."""
    return "rouge_l" if kind in LONG else "vqa_accuracy"


def by_kind(items: Sequence[Item], given: Sequence[str]) -> dict[str, float]:
    """The score of each kind of answers, 0..100."""
    found = {}
    for kind in KINDS:
        rows = [row for row, item in enumerate(items) if item.kind == kind]
        if rows:
            truths = [items[row].truths for row in rows]
            found[kind] = figures(kind, [given[row] for row in rows], truths)[primary_of(kind)]
    return found


def by_source(items: Sequence[Item], answers: Answers, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The scores of each source by itself: {source: {n, average, blind_average, tasks: {kind: score}}}.

    Args:
        names: of the sources, by number; those of one name are one.
    """
    found = {}
    for name in dict.fromkeys(names):
        rows = [
            row
            for row, item in enumerate(items)
            if names[item.sample.source] == name and answers.with_pictures[row] is not None
        ]
        if not rows:
            continue
        own = [items[row] for row in rows]
        shown, blind = (
            by_kind(own, [str(given[row]) for row in rows]) for given in (answers.with_pictures, answers.blind)
        )
        average, blind_average = (float(np.mean(list(scores.values()))) for scores in (shown, blind))
        found[name] = {"n": len(rows), "average": average, "blind_average": blind_average, "tasks": shown}
    return found


def figures(kind: str, given: Sequence[str], truths: Sequence[Sequence[str]]) -> dict[str, float]:
    """All figures of one kind of answers, 0..100."""
    same = [any(one.strip() == truth for truth in own) for one, own in zip(given, truths, strict=True)]
    exact = {"exact_match": 100 * float(np.mean(same))}
    if kind not in LONG:
        right = [is_right(kind, one, own) for one, own in zip(given, truths, strict=True)]
        return {"vqa_accuracy": 100 * float(np.mean(right)), **exact}
    found = {"rouge_l": 100 * rouge_l(given, truths).corpus, "bleu4": 100 * bleu(given, truths)[3].corpus}
    # CIDEr weighs words by how few pictures they describe: for one picture it is undefined.
    return found | ({"cider_d": 100 * cider_d(given, truths).corpus} if len(given) > 1 else {}) | exact


def is_right(kind: str, given: str, truths: Sequence[str]) -> float:
    """Whether an answer is one of the truths, as VQA compares them (case, articles, numbers as digits); for kinds of
    sentences how alike it is to the likest, 0..1."""
    if kind in LONG:
        return rouge_l([given], [list(truths)]).corpus
    return max(vqa_accuracy(given, [truth.strip().rstrip(".")]) for truth in truths)
