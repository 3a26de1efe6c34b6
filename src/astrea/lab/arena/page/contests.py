"""Sections on who is better: strategies, tasks, conditions, ablations, learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.lab.arena.lr_sweep import FACTORS
from astrea.lab.arena.page.cells import apart_cells, deviation, difference_dots, heat, own_class, spread, whole
from astrea.lab.arena.page.reading import SELF, by_mean, figure, own_mean, part, task_names
from astrea.lab.arena.pictures import Series, chart, key
from astrea.lab.arena.variants import variant
from astrea.report.markup import absent, cell, escape, number, row, table, words
from astrea.report.scores import duration
from astrea.report.spreadsheet import csv_link


def strategies(arena: Mapping[str, Any]) -> str:
    """The table of strategies, and the finalists at equal time."""
    rows = part(arena, "strategies")
    if not rows:
        return ""
    lines = []
    for name in by_mean(rows, "average"):
        each = part(rows, name)
        cells = [
            cell(spread(each.get("average"))),
            cell(number(figure(each, "average", "seeds"), digits=0)),
            *apart_cells(name, each),
            cell(whole(figure(each, "params_trainable"))),
            cell(number(figure(each, "visual_tokens"), digits=0)),
            cell(whole(figure(each, "flops_per_sample"))),
            cell(number(figure(each, "latency_ms"))),
            cell(duration(figure(each, "wall_s"))),
        ]
        lines.append(row(words(name), cells, classes=own_class(name)))
    heads = [
        *("Strategy", "Average", "Seeds", "Minus Astrea", "95 % interval", "Trained parameters", "Visual tokens"),
        *("FLOPs per question", "Latency, ms", "Training time"),
    ]
    body = table("Strategies from best to worst", heads, ["".join(lines)], classes="figures")
    return (
        body
        + _strategies_csv(rows)
        + difference_dots({n: r for n, r in rows.items() if n != SELF}, "Strategies minus Astrea")
        + _equal_time(arena)
    )


def _strategies_csv(rows: Mapping[str, Any]) -> str:
    """The table of strategies and what they score on each task, for a spreadsheet."""
    columns = {
        "average": ("average", "mean"),
        "std": ("average", "std"),
        "seeds": ("average", "seeds"),
        "minus_astrea": ("difference", "mean"),
        "low": ("difference", "low"),
        "high": ("difference", "high"),
        "trained_parameters": ("params_trainable",),
        "visual_tokens": ("visual_tokens",),
        "flops_per_question": ("flops_per_sample",),
        "latency_ms": ("latency_ms",),
        "training_seconds": ("wall_s",),
    }
    names = by_mean(rows, "average")
    tasks = list(dict.fromkeys(task for name in names for task in part(rows, name, "tasks")))
    lines = [
        [name, *(figure(rows[name], *keys) for keys in columns.values())]
        + [own_mean(part(rows, name, "tasks").get(task)) for task in tasks]
        for name in names
    ]
    return csv_link("strategies.csv", ["strategy", *columns, *tasks], lines)


def _equal_time(arena: Mapping[str, Any]) -> str:
    rows = part(arena, "equal_wall")
    if not rows:
        return absent("Equal training time was not measured (<code>--wall</code>).")
    lines = []
    for name in by_mean(rows, "average"):
        each = part(rows, name)
        cells = [cell(spread(each.get("average"))), cell(number(figure(each, "average", "seeds"), digits=0))]
        cells += [*apart_cells(name, each), cell(duration(figure(each, "wall_s")))]
        cells += [cell(duration(figure(each, "astrea_wall_s"))), cell(number(figure(each, "steps"), digits=0))]
        lines.append(row(words(name), cells))
    heads = ["Strategy", "Average", "Seeds", "Minus Astrea", "95 % interval", "Training time", "Astrea's", "Steps"]
    return "<h3>The best others, trained as long as Astrea</h3>" + table(
        "Strategies at equal training time", heads, ["".join(lines)], classes="figures fit"
    )


def tasks(arena: Mapping[str, Any]) -> str:
    """Strategies by tasks."""
    rows = part(arena, "strategies")
    found = {name: part(rows, name, "tasks") for name in by_mean(rows, "average")}
    columns = list(dict.fromkeys([*task_names(arena), *(task for each in found.values() for task in each)]))
    return heat("Mean score of every strategy on every task", "Strategy", found, columns)


def conditions(arena: Mapping[str, Any]) -> str:
    """Strategies by conditions of the picture."""
    rows = part(arena, "conditions")
    order = [n for n in by_mean(part(arena, "strategies"), "average") if n in rows]
    order += [n for n in rows if n not in order]
    found = {name: part(rows, name) for name in order}
    columns = list(dict.fromkeys(condition for each in found.values() for condition in each))
    return heat("Average of every strategy per condition", "Strategy", found, columns)


def ablations(arena: Mapping[str, Any]) -> str:
    """What each ingredient is worth."""
    rows = part(arena, "ablations")
    if not rows:
        return ""
    lines = [
        row(
            words(variant(name)),
            [
                cell(escape(part(rows, name).get("note") or ""), classes="more"),
                cell(spread(rows[name])),
                cell(number(figure(rows[name], "seeds"), digits=0)),
                *apart_cells("", part(rows, name)),
            ],
        )
        for name in by_mean(rows)
    ]
    heads = ["Variant", "What that means", "Average", "Seeds", "Minus Astrea", "95 % interval"]
    return difference_dots(rows, "Astrea without each ingredient, minus Astrea") + table(
        "Astrea without each ingredient", heads, ["".join(lines)], classes="figures own"
    )


ADAPTIVE = {
    "load": ("Load, largest over mean", 2),
    "calibration": ("Calibration", 2),
    "relative": ("relative", 2),
    "per_task": ("per task", 2),
    "tokens": ("Tokens read", 2),
    "fewer_tokens": ("which costs", 1),
    "masked": ("An expert masked costs", 1),
    "swapped": ("one telling of another picture", 1),
    "frozen": ("of one for ever", 1),
    "constant": ("one stuck", 1),
    "nan": ("one that is no number", 1),
}
"""Figure of an adaptivity row -> its head and digits."""


def adaptivity(arena: Mapping[str, Any]) -> str:
    """What variants of Astrea save, survive and tell of their experts."""
    rows = part(arena, "adaptivity")
    lines = []
    for name in rows:
        each = part(rows, name)
        cells = [cell(number(figure(each, "seeds"), digits=0))]
        cells += [
            cell(number(figure(each, key), digits=digits) + deviation(figure(each, "std", key), digits))
            for key, (_, digits) in ADAPTIVE.items()
        ]
        lines.append(row(words(name if name == SELF else variant(name)), cells, classes=own_class(name)))
    if not lines:
        return ""
    heads = ["Variant", "Seeds", *(head for head, _ in ADAPTIVE.values())]
    return table("What adaptivity buys", heads, ["".join(lines)], classes="figures")


def trials(arena: Mapping[str, Any]) -> str:
    """The average on validation at every multiple of the learning rates that was tried."""
    rows = part(arena, "trials")
    lines = []
    for name in rows:
        best, used = (part(rows, name).get(key) for key in ("best", "used"))
        cells = [
            cell(("★ " if factor == best else "") + number(figure(rows, name, "rates", factor))) for factor in FACTORS
        ]
        cells.append(cell(f"×{escape(used)}" if used else number(None)))
        lines.append(row(words(name), cells, classes=own_class(name)))
    if not lines:
        return ""
    heads = ["Strategy", *(f"×{factor}" for factor in FACTORS), "Used"]
    return table("Average on validation by learning rate", heads, ["".join(lines)], classes="figures fit")


def curves(arena: Mapping[str, Any]) -> str:
    """The average on a small validation set against seconds of training."""
    series, entries = [], []
    for index, (name, seeds) in enumerate(part(arena, "curves").items()):
        colour = "rgb(var(--accent))" if name == SELF else f"var(--e{(index + 1) % 8})"
        lines = [line for curve in part(seeds).values() if (line := _curve(curve))]
        series += [Series(name, colour, line, dots=False) for line in lines]
        entries += [(name, colour)] if lines else []
    if not series:
        return ""
    return key(entries) + chart(series, "Average against seconds of training", "seconds of training", "average")


def _curve(points: object) -> list[tuple[float, float]]:
    """The points [seconds, average] that are such."""
    found = []
    for point in points if isinstance(points, list) else []:
        values = [figure(value) for value in point] if isinstance(point, list) else []
        if len(values) == 2 and values[0] is not None and values[1] is not None:
            found.append((values[0], values[1]))
    return sorted(found)
