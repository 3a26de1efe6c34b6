"""The twelve tasks as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from astrea.report.results import TaskScore, parse_results


def terminal_table(results: Mapping[str, Any]) -> Table:
    """The scores of all tasks and their average, for ``rich.print``.

    Args:
        results: what ``results.json`` holds; whatever is missing is shown as a dash.

    Raises:
        AstreaError: a field is of the wrong type (named).
    """
    parsed = parse_results(results, "the results")
    table = Table(title=_title(parsed.strategy, parsed.seed), title_style="bold", header_style="dim")
    table.add_column("task")
    table.add_column("metric", style="dim")
    for name in ("score", "blind", "n", "above blind"):
        table.add_column(name, justify="right")
    for task in parsed.task_names():
        table.add_row(*_cells(task, parsed.tasks.get(task, TaskScore())))
    table.add_section()
    average = TaskScore(score=parsed.average, blind=parsed.blind_average)
    table.add_row(*_cells("average", average, last=True), style="bold")
    for rows in parsed.scored_apart.values():
        table.add_section()
        for name, row in rows:
            table.add_row(*_cells(name, row))
    return table


def forgetting_text(results: Mapping[str, Any]) -> str | None:
    """What training has done to a pretrained language model, in a sentence; None where it was not measured.

    Raises:
        AstreaError: a field is of the wrong type (named).
    """
    found = parse_results(results, "the results").forgetting
    return None if found is None else found.sentence()


def _title(strategy: str | None, seed: int | str | None) -> Text | None:
    parts = [strategy or "", f"seed {seed}" if seed is not None else ""]
    return Text(", ".join(filter(None, parts))) if any(parts) else None


def _cells(name: str, task: TaskScore, *, last: bool = False) -> list[Text]:
    """Text objects, not strings: names from a file may hold square brackets, which rich would read as its markup."""
    gain = Text(_number(task.gain, "+.1f"), style="" if task.gain is None else "green" if task.gain > 0 else "red")
    return [
        Text(name),
        Text(task.metric or ""),
        Text(_number(task.score, ".1f")),
        Text(_number(task.blind, ".1f")),
        Text("" if last else _number(task.n, ",.0f")),
        gain,
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
