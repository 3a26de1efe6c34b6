"""Sections on what the probes of Astrea's runs found: calibration, fewer tokens, adaptivity, broken experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astrea.lab.arena.page.blocks import Block, Cell, Chart, Row, Table, name_row, number_cell
from astrea.lab.arena.page.reading import SELF, by_mean, figure, part
from astrea.lab.arena.variants import ablation_title
from astrea.report.charts import Series, expert_colour, line_chart
from astrea.report.formatting import number, percent, plain, words
from astrea.report.formatting import spread as mean_and_deviation
from astrea.report.svg import ACCENT

TITLES = {SELF: "Astrea", "without_allocator": "Equal weights (no gate)"}

CALIBRATION = {
    "rank_correlation": ("Rank correlation over task, condition and expert", 2),
    "relative": ("The same, contributions as parts of their sum", 2),
    "per_task": ("The first over task and expert", 2),
    "picture_share": ("Part of the variance of gate weights that the picture explains", 3),
    "cells": ("Points (task, condition, expert)", 0),
}
"""Figure of the calibration -> its name and digits."""

ITEMS = {
    "rank_correlation": ("Rank correlation, item by item", 2),
    "within_template": ("The same within a template and expert", 2),
    "error": ("Expected calibration error", 3),
}
"""Figure of the calibration of single items -> its name and digits."""

ADAPTIVE = {
    "load": ("Load, largest over mean", 2),
    "calibration": ("Calibration", 2),
    "relative": ("relative", 2),
    "per_task": ("per task", 2),
    "tokens": ("Tokens read", 2),
    "fewer_tokens": ("which costs", 1),
    "masked": ("An expert masked costs", 1),
    "swapped": ("one of another picture", 1),
    "frozen": ("of one for ever", 1),
    "constant": ("one stuck", 1),
    "nan": ("one that is no number", 1),
}
"""Figure of an adaptivity row -> its head and digits."""


def calibration(arena: Mapping[str, Any]) -> list[Block]:
    """Whether gate weights follow what the experts contribute: figures, and a point per task, condition and expert."""
    tree, series = part(arena, "calibration"), _contributions(arena)
    lines = [
        Row(title, [Cell(plain(value, digits))])
        for key, (title, digits) in CALIBRATION.items()
        if (value := figure(tree, key)) is not None
    ]
    blocks: list[Block] = []
    if lines:
        blocks.append(Table("Figures of calibration", ["Figure", "Value"], lines, "figures fit"))
    if series:
        label = "Contribution of an expert against its gate weight, by task and condition"
        drawn = line_chart(series, "calibration", label, "gate weight", "contribution, nats per token")
        blocks.append(Chart(drawn, {words(each.name): each.css for each in series}))
    return blocks + reliability_diagram(part(tree, "items"))


def reliability_diagram(items: Mapping[str, Any]) -> list[Block]:
    """Predicted against measured contributions of single items, in bins, beside the line where both are alike."""
    bins = part(items, "bins")
    points = [
        (x, y)
        for edge in bins
        if (x := figure(bins, edge, "predicted")) is not None and (y := figure(bins, edge, "measured")) is not None
    ]
    lines = [
        Row(title, [Cell(plain(value, digits))])
        for key, (title, digits) in ITEMS.items()
        if (value := figure(items, key)) is not None
    ]
    blocks: list[Block] = (
        [Table("Calibration item by item", ["Figure", "Value"], lines, "figures fit")] if lines else []
    )
    if points:
        most = max(max(point) for point in points)
        series = [
            Series("Alike", expert_colour(1), [(0.0, 0.0), (most, most)], dots=False),
            Series("Items in bins", ACCENT, sorted(points)),
        ]
        label = "Measured against predicted contribution of single items, c / (1 + c) of c nats"
        drawn = line_chart(series, "reliability-diagram", label, "predicted contribution", "measured contribution")
        blocks.append(Chart(drawn, {each.name: each.css for each in series}))
    return blocks


def _contributions(arena: Mapping[str, Any]) -> list[Series]:
    """(gate weight, contribution) of every task and condition, one series per expert."""
    measured, found = part(arena, "contribution"), dict[str, list[tuple[float, float]]]()
    for task in measured:
        for condition in part(measured, task):
            for expert in part(measured, task, condition):
                x, y = (figure(arena.get(of), task, condition, expert) for of in ("shares", "contribution"))
                if x is not None and y is not None:
                    found.setdefault(expert, []).append((x, y))
    return [Series(name, expert_colour(i), spots, line=False) for i, (name, spots) in enumerate(found.items())]


def pareto(arena: Mapping[str, Any]) -> list[Block]:
    """The average against the share of visual tokens that the language model reads."""
    steps = arena.get("pareto")
    curve, lines = [], []
    for each in steps if isinstance(steps, list) else []:
        x, y = figure(each, "tokens_share"), figure(each, "average")
        if x is not None and y is not None:
            curve.append((x, y))
            counts = [number_cell(figure(each, "tokens_read")), number_cell(figure(each, "experts_read"), 2)]
            lines.append(Row(number(figure(each, "threshold"), 2), [Cell(percent(x)), *counts, number_cell(y)]))
    if not curve:
        return []
    others = _at_their_tokens(arena)
    series = [Series("astrea, reading fewer tokens", ACCENT, sorted(curve))]
    if others:
        points = list(others.values())
        series.append(Series("other strategies", expert_colour(1), points, line=False, names=list(others)))
    label = "Average over the probed tasks against visual tokens read"
    drawn = line_chart(series, "pareto", label, "visual tokens read, 1 = all of Astrea's", "average")
    heads = ["Keep threshold", "Tokens read", "Tokens", "Experts", "Average"]
    return [
        Chart(drawn, {each.name: each.css for each in series}),
        Table("Astrea reading fewer tokens", heads, lines, "figures fit"),
    ]


def _at_their_tokens(arena: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """strategy -> (its visual tokens over Astrea's, its average over the tasks that the curve is about)."""
    rows = part(arena, "strategies")
    full = figure(rows, SELF, "visual_tokens")
    # The probes leave tasks out; an average over all twelve beside theirs would compare unlike things.
    probed = next((list(part(each, "tasks")) for each in part(arena, "masking").values() if part(each, "tasks")), [])
    found = {}
    for name in by_mean(rows, "average"):
        tokens = figure(rows, name, "visual_tokens")
        scores = [figure(rows, name, "tasks", task, "mean") for task in probed]
        known = [score for score in scores if score is not None]
        if name != SELF and full and tokens is not None and known and len(known) == len(scores):
            found[name] = tokens / full, sum(known) / len(known)
    return found


def adaptivity(arena: Mapping[str, Any]) -> list[Block]:
    """What variants of Astrea save and survive, and whether their gate weights follow contribution."""
    rows = part(arena, "adaptivity")
    lines = []
    for name in rows:
        each = part(rows, name)
        cells = [number_cell(figure(each, "seeds"), 0)]
        for key, (_, digits) in ADAPTIVE.items():
            cells.append(Cell(mean_and_deviation(figure(each, key), figure(each, "std", key), digits)))
        lines.append(name_row(name, cells, name if name == SELF else ablation_title(name)))
    heads = ["Variant", "Seeds", *(head for head, _ in ADAPTIVE.values())]
    return [Table("What adaptivity buys", heads, lines)] if lines else []


def robustness(arena: Mapping[str, Any]) -> list[Block]:
    """What a broken expert does to Astrea, and to Astrea with equal weights; whether the fusion notices."""
    rows = part(arena, "robustness")
    titles = {name: TITLES.get(name, words(name)) for name in rows}
    known = (kind for name in rows for kind in part(rows, name) if kind not in ("clean", "mean_loss"))
    kinds = list(dict.fromkeys(known))
    clean = [figure(each, "clean") for each in rows.values()]
    if not kinds and all(value is None for value in clean):
        return _reliability(arena)
    broken = [_broken_row(words(kind), [_mean_of_experts(each, kind) for each in rows.values()]) for kind in kinds]
    heads = ["An expert's output is", *(head for title in titles.values() for head in (title, ""))]
    caption = "Average with a broken expert, mean over experts"
    blocks: list[Block] = [Table(caption, heads, [_broken_row("clean", clean), *broken])]
    experts = list(dict.fromkeys(expert for name in rows for kind in kinds for expert in part(rows, name, kind)))
    single = [
        Row(
            f"{titles[name]}: {words(kind)}",
            [number_cell(figure(rows, name, kind, expert, "average")) for expert in experts],
        )
        for kind in kinds
        for name in rows
    ]
    if experts:
        caption = "Average by the expert that is broken"
        blocks.append(Table(caption, ["Output", *map(words, experts)], single, title="By the expert that is broken"))
    return blocks + _reliability(arena)


def _broken_row(head: str, values: Sequence[float | None]) -> Row:
    cells = []
    for value in values:
        cells += [number_cell(value), Cell(bar=None if value is None else value / 100, classes="wide")]
    return Row(head, cells)


def _mean_of_experts(tree: object, kind: str) -> float | None:
    values = [figure(each, "average") for each in part(tree, kind).values()]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _reliability(arena: Mapping[str, Any]) -> list[Block]:
    """How often each expert is judged reliable, where that is measured."""
    rows = part(arena, "trust")
    kinds = list(dict.fromkeys(kind for name in rows for kind in part(rows, name)))
    if not kinds:
        return []
    lines = [Row(words(n), [Cell(percent(figure(rows, n, kind))) for kind in kinds]) for n in rows]
    title = "How often each expert is judged reliable"
    return [Table(title, ["Expert", *map(words, kinds)], lines, "heat", title)]
