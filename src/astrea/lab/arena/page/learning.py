"""Sections on training: which learning rates were tried, and the score while training went on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.lab.arena.lr_sweep import FACTORS
from astrea.lab.arena.page.blocks import Block, Cell, Chart, Table, name_row
from astrea.lab.arena.page.reading import SELF, figure, part
from astrea.report.charts import Series, expert_colour, line_chart
from astrea.report.formatting import DASH, number, words
from astrea.report.svg import ACCENT


def lr_sweep(arena: Mapping[str, Any]) -> list[Block]:
    """The average on validation at every multiple of the learning rates that was tried."""
    rows = part(arena, "trials")
    lines = []
    for name in rows:
        best, used = (part(rows, name).get(key) for key in ("best", "used"))
        cells = [Cell(number(figure(rows, name, "rates", factor)), best=factor == best) for factor in FACTORS]
        lines.append(name_row(name, [*cells, Cell(f"×{used}" if used else DASH)]))
    heads = ["Strategy", *(f"×{factor}" for factor in FACTORS), "Used"]
    return [Table("Average on validation by learning rate", heads, lines, "figures fit")] if lines else []


def curves(arena: Mapping[str, Any]) -> list[Block]:
    """The average on a small validation set against seconds of training, one line per seed."""
    series: list[Series] = []
    for index, (name, seeds) in enumerate(part(arena, "curves").items()):
        colour = ACCENT if name == SELF else expert_colour(index + 1)
        lines = [line for curve in part(seeds).values() if (line := _curve(curve))]
        series += [Series(name, colour, line, dots=False) for line in lines]
    if not series:
        return []
    label = "Average against seconds of training"
    drawn = line_chart(series, label, label, "seconds of training", "average")
    return [Chart(drawn, {words(each.name): each.css for each in series})]


def _curve(points: object) -> list[tuple[float, float]]:
    """The points [seconds, average] that are such."""
    found = []
    for point in points if isinstance(points, list) else []:
        values = [figure(value) for value in point] if isinstance(point, list) else []
        if len(values) == 2 and values[0] is not None and values[1] is not None:
            found.append((values[0], values[1]))
    return sorted(found)
