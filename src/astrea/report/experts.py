"""Sections on the experts: their own scores, their shares and load, and what is lost without them."""

from __future__ import annotations

from collections.abc import Mapping

from astrea.report.markup import (
    absent,
    bar,
    cell,
    drop_bar,
    number,
    percent,
    plain,
    row,
    section,
    table,
    words,
)
from astrea.report.results import Results

Numbers = Mapping[str, float | None]


def own_scores_section(results: Results) -> str:
    """How good each expert is by itself, in its own metric, also per condition."""
    names = list(dict.fromkeys([*results.experts, *results.experts_by_condition]))
    if not names:
        return section("experts", "The experts alone", absent("The experts' own scores were not measured."))
    by_condition = results.experts_by_condition
    conditions = list(dict.fromkeys(condition for name in names for condition in by_condition.get(name, {})))
    bodies = []
    for name in names:
        own, split = results.experts.get(name, {}), by_condition.get(name, {})
        metrics = list(dict.fromkeys([*own, *(metric for part in split.values() for metric in part)]))
        if not metrics:
            bodies.append(row(words(name), [cell("", classes="more"), cell(number(None))]))
        for index, metric in enumerate(metrics):
            overall = own.get(metric)
            cells = [cell(words(metric), classes="more"), cell(number(overall))]
            for condition in conditions:
                value = split.get(condition, {}).get(metric)
                cells.append(cell(number(value), tint=_shortfall(value, overall), hue="loss"))
            bodies.append(row(words(name) if not index else f'<span class="hidden">{words(name)}</span>', cells))
    heads = ["Expert", "Metric", "All", *map(words, conditions)]
    note = (
        "Each frozen expert on its own task, before any fusion. Red: how far it falls below its overall score under "
        "that condition. The experts are made to fail in different places, so that no single one can do all."
    )
    body = table("Own scores of the experts per condition", heads, ["".join(bodies)], classes="figures own")
    return section("experts", "The experts alone", body, note)


def _shortfall(value: float | None, overall: float | None) -> float:
    """How much is lost, 0..1, doubled so that losing half already shows in full colour."""
    if value is None or not overall or overall < 0:
        return 0.0
    return 2 * max(0.0, 1 - value / overall)


def shares_section(results: Results) -> str:
    """Who is looked at: the mean load, and the share of each expert per task."""
    load = results.load
    experts = results.expert_names()
    parts = []
    if load.mean:
        even = sum(share or 0.0 for share in load.mean.values()) / len(load.mean)
        rows = [
            row(words(name), [cell(percent(share)), cell(bar(share or 0.0, mark=even), classes="wide")])
            for name, share in load.mean.items()
        ]
        parts.append("<h3>Load</h3>")
        parts.append(
            f'<p class="note">Mean share over all test questions; the mark is an even split. Coefficient of variation '
            f"{number(load.cv, digits=2)}, largest over mean {number(load.max_over_mean, digits=2)}.</p>"
        )
        parts.append(
            table("Mean share of each expert", ["Expert", "Share", ""], ["".join(rows)], classes="figures fit")
        )
    else:
        parts.append(absent("The load was not measured."))
    if results.shares:
        tasks = [task for task in results.task_names() if task in results.shares]
        tasks += [task for task in results.shares if task not in tasks]
        rows = [
            row(
                words(task), [cell(percent(share), tint=share or 0.0) for share in _line(results.shares[task], experts)]
            )
            for task in tasks
        ]
        parts.append("<h3>Share per task</h3>")
        body = table("Share of each expert per task", ["Task", *map(words, experts)], ["".join(rows)], classes="heat")
        parts.append(body)
    else:
        parts.append(absent("Shares per task were not measured."))
    note = (
        "The allocator gives each expert a share, for every picture and question anew. What is missing to 100 % is "
        "what no single expert is needed for."
    )
    return section("shares", "Who is looked at", "".join(parts), note)


def masking_section(results: Results) -> str:
    """What is lost when one expert is taken away, in all and per task."""
    if not (results.masking or results.masking_by_task):
        return section("masking", "Without one expert", absent("Masking of experts was not measured."))
    parts = []
    if results.masking:
        known = [value for value in results.masking.values() if value is not None]
        low, high = min([0.0, *known]), max([0.0, *known])
        rows = [
            row(
                words(name),
                [
                    cell(number(value, sign=True)),
                    cell(drop_bar(value, low, high) if value is not None else "", classes="wide"),
                ],
            )
            for name, value in results.masking.items()
        ]
        heads = ["Masked expert", "Change", ""]
        parts.append(table("Change of the average per masked expert", heads, ["".join(rows)], classes="figures fit"))
    if results.masking_by_task:
        parts.append("<h3>Change per task</h3>")
        parts.append(_masking_heat(results))
    note = (
        "The change of the average score, in points, when an expert is masked at test time and the other shares are "
        "scaled up to fill its place; nothing is trained anew. Red: lower without it."
    )
    return section("masking", "Without one expert", "".join(parts), note)


def _masking_heat(results: Results) -> str:
    table_of, experts = results.masking_by_task, list(results.masking_by_task)
    measured = {task for changes in table_of.values() for task in changes}
    tasks = [task for task in results.task_names() if task in measured]
    tasks += sorted(measured.difference(tasks))
    largest = max((abs(v) for changes in table_of.values() for v in changes.values() if v is not None), default=0.0)
    rows = []
    for task in tasks:
        cells = []
        for expert in experts:
            change = table_of[expert].get(task)
            tint = abs(change) / largest if change is not None and largest else 0.0
            # "+0.0" says as little as no colour does
            hue = "loss" if (change or 0.0) < 0 else "good"
            cells.append(
                cell(
                    number(change, sign=True) if change is None or plain(change) != "0.0" else "0.0", tint=tint, hue=hue
                )
            )
        rows.append(row(words(task), cells))
    heads = ["Task", *map(words, experts)]
    return table("Change of each task's score per masked expert", heads, ["".join(rows)], classes="heat")


def _line(shares: Numbers, experts: list[str]) -> list[float | None]:
    return [shares.get(expert) for expert in experts]
