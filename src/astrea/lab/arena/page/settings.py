"""The section on what a setting reports beside the twelve tasks: questions in conflict, experts under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astrea.lab.arena.page.blocks import Block, Cell, Row, Table, Text, number_cell
from astrea.lab.arena.page.reading import figure, part
from astrea.report.formatting import DASH, percent, words


def settings(arena: Mapping[str, Any]) -> list[Block]:
    """The setting, and its reports where there are any."""
    title = arena.get("setting")
    blocks: list[Block] = [Text(f"Setting: {title}.")] if title else []
    reports = {name: part(arena, "reports", name) for name in part(arena, "reports")}
    return [*blocks, *conflict(reports), *faults(reports), *budgets(reports)]


def conflict(reports: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """Accuracy where experts' readings disagree, and elsewhere."""
    keys = ("conflict", "agreement", "items")
    lines = [
        Row(title_of(name), [number_cell(figure(each, "conflict", key), 0 if key == "items" else 1) for key in keys])
        for name, each in reports.items()
        if part(each, "conflict")
    ]
    heads = ["Variant", "Two experts disagree", "None do", "Questions in conflict"]
    return [Table("Questions on which experts disagree", heads, lines, "figures fit")] if lines else []


def faults(reports: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """What each kind of fault costs, and how often it is believed: the means over the experts that it concerns."""
    lines = []
    for name, each in reports.items():
        known = part(each, "faults")
        for kind in known:
            rows = part(known, kind).values()
            keys = ("loss", "conflict_loss", "believed")
            loss, lost, believed = (mean_of([figure(row, key) for row in rows]) for key in keys)
            if loss is not None:
                cells = [number_cell(loss), number_cell(lost), Cell(DASH if believed is None else percent(believed))]
                lines.append(Row(f"{title_of(name)}, {words(kind)}", cells))
    heads = ["Variant, fault", "Costs", "Where experts disagree", "Believed"]
    return [Table("Faults of one expert, means over experts", heads, lines, "figures fit")] if lines else []


def budgets(reports: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """The average, and the part of the experts' arithmetic and time, of each rule at each budget."""
    blocks: list[Block] = []
    for name, each in reports.items():
        known = part(each, "budgets")
        lines = [
            Row(f"{budget}, {words(rule)}", [number_cell(figure(row, key), digits) for key, digits in COLUMNS])
            for budget in known
            if "/" in budget
            for rule, row in part(known, budget).items()
        ]
        if lines:
            whole = [number_cell(figure(known, "all", key), digits) for key, digits in COLUMNS]
            heads = ["Tokens / experts, rule", "Average", "Part of the experts' FLOPs", "And of their time"]
            lines = [Row("all", whole), *lines]
            blocks.append(Table(f"Budgets of {title_of(name)}", heads, lines, "figures fit", title_of(name)))
    return blocks


COLUMNS = (("average", 1), ("flops_share", 2), ("seconds_share", 2))
"""Figure of a rule at a budget, and its digits."""


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def title_of(name: str) -> str:
    """A variant by its kind and name, in words."""
    return words(name.replace("/", " "))
