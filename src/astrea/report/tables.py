"""What the tables of the report show that no file says as it stands: which rows there are, and how strongly cells are
coloured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from astrea.report.formatting import plain
from astrea.report.results import FAMILIES, TASKS, Results, TaskScore
from astrea.report.spreadsheet import csv_address


@dataclass(frozen=True, slots=True)
class Tinted:
    """A number of a table and how strongly its cell is coloured (0..1), in which of the style sheet's hues."""

    value: float | None
    tint: float
    hue: str = "heat"


@dataclass(frozen=True, slots=True)
class OwnScore:
    """One metric of one expert: overall and by condition. ``first``: it is the first of this expert's metrics."""

    expert: str
    first: bool
    metric: str | None
    overall: float | None
    by_condition: list[Tinted]


def families(results: Results) -> dict[str, list[tuple[str, TaskScore]]]:
    """The tasks by family, each with its scores; where nothing was measured they are empty."""
    others = tuple(name for name in results.tasks if name not in TASKS)
    named: Mapping[str, tuple[str, ...]] = {**FAMILIES, "Other tasks": others} if others else FAMILIES
    if results.own_data:
        retrieval = tuple(name for name in FAMILIES["Retrieval"] if name in results.tasks)
        named = {"Kinds of answers": tuple(name for name in results.tasks if name not in retrieval)}
        named |= {"Retrieval": retrieval} if retrieval else {}
    return {family: [(name, results.tasks.get(name, TaskScore())) for name in names] for family, names in named.items()}


def source_kinds(results: Results) -> list[str]:
    """Every kind of answers that any data file has, in the order of the table of kinds."""
    held = {kind for source in results.sources.values() for kind in source.tasks}
    return [*(kind for kind in results.tasks if kind in held), *sorted(held - set(results.tasks))]


def average(results: Results) -> TaskScore:
    """The last row of the table of tasks."""
    return TaskScore(score=results.average, blind=results.blind_average)


def tasks_csv(results: Results) -> str:
    """The table of tasks for a spreadsheet."""
    rows: list[tuple[object, ...]] = []
    for name, task in results.tasks.items():
        low, high = task.interval or (None, None)
        rows.append((name, task.metric, task.score, low, high, task.blind, task.n))
    rows.append(("average", None, results.average, None, None, results.blind_average, None))
    return csv_address(("task", "metric", "score", "low", "high", "blind", "n"), rows)


def templates_csv(results: Results) -> str:
    """The scores of each kind of question for a spreadsheet."""
    rows = [(name, row.score, row.blind, row.n) for name, row in results.templates.items()]
    return csv_address(("questions", "score", "blind", "n"), rows)


def conditions(results: Results) -> list[str]:
    """Every condition of the pictures that scores or shares are split by."""
    return list(dict.fromkeys([*results.conditions, *results.shares_by_condition]))


def experts_by_condition(results: Results) -> list[str]:
    """The experts that have shares per condition."""
    split = results.shares_by_condition.values()
    return [name for name in results.expert_names() if any(name in shares for shares in split)]


def own_conditions(results: Results) -> list[str]:
    """The conditions that the experts' own scores are split by."""
    return list(dict.fromkeys(condition for split in results.experts_by_condition.values() for condition in split))


def own_scores(results: Results) -> list[OwnScore]:
    """How good each expert is by itself, in its own metrics; red is what it loses under a condition."""
    rows = []
    for expert in dict.fromkeys([*results.experts, *results.experts_by_condition]):
        own, split = results.experts.get(expert, {}), results.experts_by_condition.get(expert, {})
        metrics: list[str | None] = list(dict.fromkeys([*own, *(name for part in split.values() for name in part)]))
        for index, metric in enumerate(metrics or [None]):
            overall = own.get(metric) if metric is not None else None
            values = [split.get(c, {}).get(metric) if metric is not None else None for c in own_conditions(results)]
            cells = [Tinted(value, _shortfall(value, overall), "loss") for value in values]
            rows.append(OwnScore(expert, not index, metric, overall, cells))
    return rows


def _shortfall(value: float | None, overall: float | None) -> float:
    """How much is lost, 0..1, doubled so that losing half already shows in full colour."""
    if value is None or not overall or overall < 0:
        return 0.0
    return 2 * max(0.0, 1 - value / overall)


def shares_by_task(results: Results) -> dict[str, dict[str, float | None]]:
    """The experts' gate weights by task, in the order of the table of tasks."""
    order = [task for task in results.task_names() if task in results.shares]
    return {task: results.shares[task] for task in (*order, *results.shares)}


def masking_range(results: Results) -> tuple[float, float]:
    """The smallest and the largest change by masking, with zero between them."""
    known = [value for value in results.masking.values() if value is not None]
    return min([0.0, *known]), max([0.0, *known])


def masking_by_task(results: Results) -> dict[str, list[Tinted]]:
    """The change of every task by masking each expert, coloured against the largest change there is."""
    changes = list(results.masking_by_task.values())
    measured = {task for by_task in changes for task in by_task}
    tasks = [task for task in results.task_names() if task in measured]
    tasks += sorted(measured.difference(tasks))
    largest = max((abs(v) for by_task in changes for v in by_task.values() if v is not None), default=0.0)
    return {task: [_change(by_task.get(task), largest) for by_task in changes] for task in tasks}


def _change(value: float | None, largest: float) -> Tinted:
    if value is not None and plain(value) == "0.0":
        value = 0.0  # "+0.0" says as little as no colour does
    return Tinted(value, abs(value) / largest if value and largest else 0.0, "loss" if (value or 0.0) < 0 else "good")
