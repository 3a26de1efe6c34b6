"""Sections on which strategy is better: in all, at equal time, by task, by condition, and without ingredients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astrea.lab.arena.page.blocks import (
    DIFFERENCE_HEADS,
    Block,
    Cell,
    Chart,
    Csv,
    Row,
    Table,
    Text,
    difference_cells,
    name_row,
    number_cell,
    spread,
)
from astrea.lab.arena.page.reading import SELF, by_mean, figure, own_mean, part, task_names
from astrea.lab.arena.variants import ablation_title
from astrea.report.charts import Difference, difference_chart
from astrea.report.formatting import duration, quantity
from astrea.report.formatting import spread as mean_and_deviation
from astrea.report.spreadsheet import csv_address

CSV_COLUMNS = {
    "average": ("average", "mean"),
    "std": ("average", "std"),
    "seeds": ("average", "seeds"),
    "minus_astrea": ("difference", "mean"),
    "low": ("difference", "low"),
    "high": ("difference", "high"),
    "p_holm": ("difference", "p_holm"),
    "trained_parameters": ("params_trainable",),
    "visual_tokens": ("visual_tokens",),
    "flops_per_question": ("flops_per_sample",),
    "latency_ms": ("latency_ms",),
    "training_seconds": ("wall_s",),
}
"""Column of the spreadsheet -> where a strategy's row of arena.json has it."""


def strategies(arena: Mapping[str, Any]) -> list[Block]:
    """The table of strategies, their differences to Astrea, and the finalists at equal time."""
    rows = part(arena, "strategies")
    if not rows:
        return []
    lines = []
    for name in by_mean(rows, "average"):
        each = part(rows, name)
        cells = [
            *_average_cells(name, each),
            Cell(quantity(figure(each, "params_trainable"))),
            number_cell(figure(each, "visual_tokens"), 0),
            Cell(quantity(figure(each, "flops_per_sample"))),
            number_cell(figure(each, "latency_ms")),
            Cell(duration(figure(each, "wall_s"))),
        ]
        lines.append(name_row(name, cells))
    heads = [
        *("Strategy", "Average", "Seeds", *DIFFERENCE_HEADS, "Trained parameters", "Visual tokens"),
        *("FLOPs per question", "Latency, ms", "Training time"),
    ]
    others = {name: row for name, row in rows.items() if name != SELF}
    return [
        Table("Strategies from best to worst", heads, lines),
        Csv("strategies.csv", strategies_csv(rows)),
        *difference_charts(others, "Strategies minus Astrea"),
        equal_time(arena),
    ]


def strategies_csv(rows: Mapping[str, Any]) -> str:
    """The table of strategies, and what they score on each task, for a spreadsheet."""
    names = by_mean(rows, "average")
    tasks = list(dict.fromkeys(task for name in names for task in part(rows, name, "tasks")))
    lines = [
        [name, *(figure(rows[name], *keys) for keys in CSV_COLUMNS.values())]
        + [own_mean(part(rows, name, "tasks").get(task)) for task in tasks]
        for name in names
    ]
    return csv_address(["strategy", *CSV_COLUMNS, *tasks], lines)


def equal_time(arena: Mapping[str, Any]) -> Block:
    """The best other strategies, trained as long as Astrea."""
    rows = part(arena, "equal_wall")
    if not rows:
        return Text("Equal training time was not measured (--wall).", "absent")
    lines = []
    for name in by_mean(rows, "average"):
        each = part(rows, name)
        times = [Cell(duration(figure(each, key))) for key in ("wall_s", "astrea_wall_s")]
        lines.append(name_row(name, [*_average_cells(name, each), *times, number_cell(figure(each, "steps"), 0)]))
    heads = ["Strategy", "Average", "Seeds", *DIFFERENCE_HEADS, "Training time", "Astrea's", "Steps"]
    title = "The best others, trained as long as Astrea"
    return Table("Strategies at equal training time", heads, lines, "figures fit", title)


def _average_cells(name: str, row: Mapping[str, Any]) -> list[Cell]:
    """Average, seeds, difference to Astrea and its interval."""
    seeds = number_cell(figure(row, "average", "seeds"), 0)
    return [Cell(spread(row.get("average"))), seeds, *difference_cells(name, row)]


def tasks(arena: Mapping[str, Any]) -> list[Block]:
    """Strategies by tasks."""
    rows = part(arena, "strategies")
    found = {name: part(rows, name, "tasks") for name in by_mean(rows, "average")}
    columns = list(dict.fromkeys([*task_names(arena), *(task for each in found.values() for task in each)]))
    return heat("Mean score of every strategy on every task", "Strategy", found, columns)


def conditions(arena: Mapping[str, Any]) -> list[Block]:
    """Strategies by conditions of the picture."""
    rows = part(arena, "conditions")
    ranked = [name for name in by_mean(part(arena, "strategies"), "average") if name in rows]
    found = {name: part(rows, name) for name in (*ranked, *rows)}
    columns = list(dict.fromkeys(condition for each in found.values() for condition in each))
    return heat("Average of every strategy per condition", "Strategy", found, columns)


def ablations(arena: Mapping[str, Any]) -> list[Block]:
    """What each ingredient is worth."""
    rows = part(arena, "ablations")
    if not rows:
        return []
    lines = []
    for name in by_mean(rows):
        each = part(rows, name)
        note = Cell(str(each.get("note") or ""), classes="more")
        cells = [note, Cell(spread(each)), number_cell(figure(each, "seeds"), 0), *difference_cells("", each)]
        lines.append(Row(ablation_title(name), cells))
    heads = ["Variant", "What that means", "Average", "Seeds", *DIFFERENCE_HEADS]
    return [
        *difference_charts(rows, "Astrea without each ingredient, minus Astrea"),
        Table("Astrea without each ingredient", heads, lines, "figures own"),
    ]


def difference_charts(rows: Mapping[str, Any], label: str) -> list[Block]:
    """The differences of rows as dots with intervals; no chart when none is known."""
    known = []
    for name, each in rows.items():
        mean, low, high = (figure(each, "difference", key) for key in ("mean", "low", "high"))
        if mean is not None:
            known.append(Difference(name, mean, low, high))
    known.sort(key=lambda one: -one.mean)
    return [Chart(difference_chart(known, label, f"{label}, in points, with 95 % intervals"))] if known else []


def heat(caption: str, corner: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> list[Block]:
    """Scores as a table coloured column by column, the best of each with a star; nothing when there is no number.

    Args:
        rows: name -> column -> number, or a mapping with mean and std.
    """
    values = {(name, column): own_mean(each.get(column)) for name, each in rows.items() for column in columns}
    known = {column: [v for name in rows if (v := values[name, column]) is not None] for column in columns}
    if not any(known.values()):
        return []
    lines = []
    for name, each in rows.items():
        cells = []
        for column in columns:
            value, std = values[name, column], figure(each.get(column), "std")
            low, high = min(known[column], default=0.0), max(known[column], default=0.0)
            tint = (value - low) / (high - low) if value is not None and high > low else 0.0
            best = value is not None and value == high and len(known[column]) > 1
            cells.append(Cell(mean_and_deviation(value, std), tint, best=best))
        lines.append(name_row(name, cells))
    return [Table(caption, [corner, *columns], lines, "heat")]
