"""What several sections draw alike: means, differences to Astrea, tables coloured column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astrea.lab.arena.page.reading import SELF, figure, own_mean
from astrea.lab.arena.pictures import Interval, intervals
from astrea.report.markup import cell, number, plain, row, table, words
from astrea.report.scores import count


def spread(tree: object) -> str:
    """mean ± std over seeds."""
    return number(figure(tree, "mean")) + deviation(figure(tree, "std"))


def deviation(std: float | None, digits: int = 1) -> str:
    """What follows a mean over seeds; nothing where there is one seed."""
    return "" if std is None else f" <small>± {plain(std, digits=digits)}</small>"


def interval(tree: object) -> str:
    """Both ends of a difference's interval."""
    low, high = figure(tree, "low"), figure(tree, "high")
    return number(None) if low is None or high is None else f"{plain(low, sign=True)} to {plain(high, sign=True)}"


def whole(value: float | None) -> str:
    """A count, or a dash."""
    return number(None) if value is None else count(value)


def apart_cells(name: str, each: Mapping[str, Any]) -> list[str]:
    """Two cells: the difference to Astrea and its interval."""
    if name == SELF:
        return [cell(""), cell("")]
    apart = each.get("difference")
    return [cell(number(figure(apart, "mean"), sign=True)), cell(interval(apart))]


def own_class(name: str) -> str:
    """The class of a row that is Astrea's own."""
    return "own" if name == SELF else ""


def difference_dots(rows: Mapping[str, Any], label: str) -> str:
    """The differences of rows as dots with intervals; "" when none is known."""
    known = []
    for name, each in rows.items():
        mean = figure(each, "difference", "mean")
        if mean is not None:
            ends = figure(each, "difference", "low"), figure(each, "difference", "high")
            known.append(Interval(name, mean, *ends))
    known.sort(key=lambda one: -one.mean)
    return intervals(known, f"{label}, in points, with 95 % intervals") if known else ""


def heat(caption: str, corner: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Scores as a table coloured column by column, the best of each with a star; "" when there is no number.

    Args:
        rows: name -> column -> number, or a mapping with mean and std.
    """
    values = {(n, c): own_mean(each.get(c)) for n, each in rows.items() for c in columns}
    known = {c: [v for n in rows if (v := values[n, c]) is not None] for c in columns}
    if not any(known.values()):
        return ""
    lines = []
    for name, each in rows.items():
        cells = []
        for column in columns:
            value, std = values[name, column], figure(each.get(column), "std")
            low, high = min(known[column], default=0.0), max(known[column], default=0.0)
            best = value is not None and value == high and len(known[column]) > 1
            shown = f"<strong>★ {number(value)}</strong>" if best else number(value)
            shown += deviation(std)
            cells.append(cell(shown, tint=(value - low) / (high - low) if value is not None and high > low else 0.0))
        lines.append(row(words(name), cells, classes=own_class(name)))
    return table(caption, [corner, *map(words, columns)], ["".join(lines)], classes="heat")
