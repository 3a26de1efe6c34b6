"""What a public task is made of once its files are read, and what scoring it gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astrea.evaluation.metrics.vqa import Mode

MODES: tuple[Mode, ...] = ("official", "normalised")
"""official: to the letter what the published scorer does. normalised: answers of both sides are always normalised
first, as most evaluation harnesses do. TextVQA, caption and retrieval figures are alike in both."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing asked of one picture.

    Attributes:
        id: the official id; in a task of several files, with the file's name before it.
        picture: path of the picture.
        question: the question as the file has it ("" for captions).
        prompt: what the model is asked.
        truth: what the family's scorer needs; None where the answers are not public.
        group: part of the task that gets a score of its own ("" = none).
    """

    id: int | str
    picture: Path
    question: str
    prompt: str
    truth: Any = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """The pictures and captions of a retrieval task.

    Attributes:
        ids: [N], an id for each picture.
        pictures: [N], their paths.
        captions: [C], all captions.
        owners: [C], the row of each caption's picture.
    """

    ids: list[int | str]
    pictures: list[Path]
    captions: list[str]
    owners: list[int]


@dataclass(frozen=True, slots=True)
class Score:
    """A task's figure, 0..100 (CIDEr may pass 100), or None where answers are not public; and further figures."""

    score: float | None
    details: dict[str, Any] = field(default_factory=dict)


def per_cent(values: Sequence[float]) -> float:
    """Mean of values 0..1, in per cent.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("there is nothing to average")
    return 100.0 * sum(values) / len(values)


def by_group(groups: Iterable[str], values: Iterable[float]) -> dict[str, dict[str, float]]:
    """``{group: {"score": per cent, "n": count}}``, in order of appearance; items without a group are left out."""
    found: dict[str, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        if group:
            found.setdefault(group, []).append(value)
    return {group: {"score": per_cent(values), "n": len(values)} for group, values in found.items()}
