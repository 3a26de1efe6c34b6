"""What ``results.json`` holds. Any field may be missing; the report then says that it was not measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from astrea.common.errors import AstreaError
from astrea.report.interval import wilson

SCHEMA = 1

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Visual questions": (
        "existence",
        "counting",
        "attribute",
        "spatial",
        "logic",
        "reading",
        "knowledge",
        "area",
    ),
    "Captions": ("caption", "caption_novel"),
    "Retrieval": ("retrieval_i2t", "retrieval_t2i"),
}
TASKS: tuple[str, ...] = tuple(task for family in FAMILIES.values() for task in family)
"""The twelve tasks, in the order in which every table lists them."""

_MEANS = ("accuracy", "match", "recall", "scene_f1")
"""Metrics that are the mean of one number between 0 and 1 per question; only these have an interval."""

T = TypeVar("T")


def _number(value: Any) -> Any:
    """Integers count as numbers; what is NaN or infinite was not measured; text and booleans are left to be refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            return None
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _present(value: Any) -> Any:
    return {} if value is None else value


Number = Annotated[float | None, BeforeValidator(_number)]
Table = Annotated[dict[str, T], BeforeValidator(_present)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class TaskScore(_Part):
    """One task: its metric and score (0..100), the score without the picture, how many samples, other metrics."""

    metric: str | None = None
    score: Number = None
    n: Number = None
    blind: Number = None
    secondary: Table[Number] = {}

    @property
    def gain(self) -> float | None:
        """How much the score is above the blind one."""
        return None if self.score is None or self.blind is None else self.score - self.blind

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of a score (0..100) that is a mean of ``n`` numbers in 0..1, as wide as if each were 0 or
        1; None for other scores."""
        if self.score is None or not self.n or self.n < 1 or not 0 <= self.score <= 100:
            return None
        if not any(name in (self.metric or "").lower() for name in _MEANS):
            return None
        low, high = wilson(self.score / 100, round(self.n))
        return 100 * low, 100 * high


class SourceScore(_Part):
    """One data file's scores: items, averages over kinds of answers, and each kind's score."""

    n: Number = None
    average: Number = None
    blind_average: Number = None
    tasks: Table[Number] = {}


class Load(_Part):
    """How evenly the experts are used: mean shares, coefficient of variation, largest over mean."""

    mean: Table[Number] = {}
    cv: Number = None
    max_over_mean: Number = None


class AnsweredFact(_Part):
    """A plain question, the word that a right answer holds, and what was answered before and after training."""

    question: str = ""
    right: str = ""
    before: str = ""
    after: str = ""
    loss_before: Number = None
    loss_after: Number = None


class Forgetting(_Part):
    """How a pretrained language model answers plain questions without a picture: before training and after.

    loss_before, loss_after: nats per token of the right answers. right_before, right_after, same: answers that hold the
    right word, and that are what they were, of ``questions``.
    """

    questions: Number = None
    loss_before: Number = None
    loss_after: Number = None
    right_before: Number = None
    right_after: Number = None
    same: Number = None
    answers: list[AnsweredFact] = []

    @property
    def change(self) -> float | None:
        """By which share the loss has changed."""
        if not self.loss_before or self.loss_after is None:
            return None
        return self.loss_after / self.loss_before - 1

    def sentence(self) -> str:
        """For a person."""
        change = "" if self.change is None else f" ({self.change:+.0%})"
        return (
            f"{self.questions or 0:.0f} plain facts without a picture: loss {_said(self.loss_before)} before training, "
            f"{_said(self.loss_after)} after{change}; {self.right_before or 0:.0f} right before, "
            f"{self.right_after or 0:.0f} after; {self.same or 0:.0f} answers as before"
        )


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


class Results(_Part):
    """All of ``results.json``."""

    suite: str | None = None
    strategy: str | None = None
    seed: int | str | None = None
    recipe: str | None = None
    average: Number = None
    blind_average: Number = None
    tasks: Table[TaskScore] = {}
    experts: Table[Table[Number]] = {}
    experts_by_condition: Table[Table[Table[Number]]] = {}
    load: Annotated[Load, BeforeValidator(_present)] = Load()
    shares: Table[Table[Number]] = {}
    shares_by_condition: Table[Table[Number]] = {}
    masking: Table[Number] = {}
    masking_by_task: Table[Table[Number]] = {}
    conditions: Table[Number] = {}
    sources: Table[SourceScore] = {}
    seconds: Table[Number] = {}
    params: Table[Number] = {}
    forgetting: Forgetting | None = None
    templates: Table[TaskScore] = {}
    naming: TaskScore | None = None
    new_things: Table[TaskScore] = {}

    @property
    def scored_apart(self) -> dict[str, list[tuple[str, TaskScore]]]:
        """Scores that no average counts, by heading: of all questions for a name, and of questions about things that
        training never showed."""
        found = {"Counted above": [] if self.naming is None else [("names", self.naming)]}
        found["Things never shown in training"] = [
            (f"{name} of new things", row) for name, row in self.new_things.items()
        ]
        return {heading: rows for heading, rows in found.items() if rows}

    @property
    def own_data(self) -> bool:
        """Whether these are scores on data of one's own, and not on the embedded world."""
        return self.suite == "own"

    def expert_names(self) -> list[str]:
        """Every expert that anything here speaks of, in the order in which they first appear."""
        tables: list[Mapping[str, object]] = [
            self.load.mean,
            self.experts,
            self.masking,
            *self.shares.values(),
            *self.shares_by_condition.values(),
        ]
        return list(dict.fromkeys(name for table in tables for name in table))

    def task_names(self) -> list[str]:
        """The twelve tasks, then any others that were measured; on data of one's own, those alone."""
        return list(self.tasks) if self.own_data else list(dict.fromkeys([*TASKS, *self.tasks]))


def parse_results(value: object, name: str) -> Results:
    """Check what ``results.json`` holds.

    Args:
        value: the decoded JSON.
        name: what errors call it, such as the file's path.

    Raises:
        AstreaError: it is no object, of another schema, or a field is of the wrong type (named).
    """
    hint = "Evaluate the run again: astrea evaluate RUN"
    if not isinstance(value, Mapping):
        raise AstreaError(f"{name} holds {_kind(value)}, not an object", hint)
    schema = value.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise AstreaError(
            f"{name} is of schema {str(schema)[:40]!r}; this version of Astrea reads schema {SCHEMA}",
            "Use the version of Astrea that wrote it, or evaluate the run again: astrea evaluate RUN",
        )
    try:
        return Results.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{name}: {where} is {str(first['input'])[:60]!r}: {first['msg'].lower()}"
        raise AstreaError(problem, hint) from error


def _kind(value: object) -> str:
    names = {list: "a list", str: "text", type(None): "null", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
