"""Sections on what the probes of Astrea's cells found: calibration, fewer tokens, broken experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astrea.lab.arena.page.reading import SELF, by_mean, figure, part
from astrea.lab.arena.pictures import Series, chart, key
from astrea.report.markup import bar, cell, number, percent, plain, row, table, words

_NAMES = {SELF: "Astrea", "without_allocator": "Equal shares (no allocator)"}


def calibration(arena: Mapping[str, Any]) -> str:
    """Whether shares follow what the experts contribute: figures, and every cell as a point."""
    tree, series = part(arena, "calibration"), _cells(arena)
    told = {
        "rank_correlation": "Rank correlation over task, condition and expert",
        "relative": "The same, contributions as parts of their sum",
        "per_task": "The first over task and expert",
        "cells": "Cells (task, condition, expert)",
    }
    lines = [
        row(name, [cell(plain(value, digits=0 if key_ == "cells" else 2))])
        for key_, name in told.items()
        if (value := figure(tree, key_)) is not None
    ]
    parts = (
        [table("Figures of calibration", ["Figure", "Value"], ["".join(lines)], classes="figures fit")] if lines else []
    )
    if series:
        parts.append(key([(each.name, each.colour) for each in series]))
        label = "Contribution of an expert against its share, by task and condition"
        parts.append(chart(series, label, "share", "contribution, nats per token"))
    return "".join(parts)


def _cells(arena: Mapping[str, Any]) -> list[Series]:
    """(share, contribution) of every task and condition, one series per expert."""
    worth, found = part(arena, "contribution"), dict[str, list[tuple[float, float]]]()
    for task in worth:
        for condition in part(worth, task):
            for expert in part(worth, task, condition):
                x, y = (figure(arena.get(of), task, condition, expert) for of in ("shares", "contribution"))
                if x is not None and y is not None:
                    found.setdefault(expert, []).append((x, y))
    return [Series(name, f"var(--e{i % 8})", spots, line=False) for i, (name, spots) in enumerate(found.items())]


def pareto(arena: Mapping[str, Any]) -> str:
    """The average against the share of visual tokens that the language model reads."""
    steps = arena.get("pareto")
    curve, lines = [], []
    for each in steps if isinstance(steps, list) else []:
        x, y = figure(each, "tokens_share"), figure(each, "average")
        if x is not None and y is not None:
            curve.append((x, y))
            cells = [cell(percent(x)), cell(number(figure(each, "tokens_read")))]
            cells += [cell(number(figure(each, "experts_read"), digits=2)), cell(number(y))]
            lines.append(row(number(figure(each, "threshold"), digits=2), cells))
    if not curve:
        return ""
    others = _at_their_tokens(arena)
    series = [
        Series("astrea, reading fewer experts", "rgb(var(--accent))", sorted(curve)),
        Series("other strategies", "var(--e1)", list(others.values()), line=False, names=list(others)),
    ]
    seen = [each for each in series if each.points]
    label = "Average over the probed tasks against visual tokens read"
    heads = ["Smallest share that is read", "Tokens read", "Tokens", "Experts", "Average"]
    return (
        key([(each.name, each.colour) for each in seen])
        + chart(seen, label, "visual tokens read, 1 = all of Astrea's", "average")
        + table("Astrea reading fewer experts", heads, ["".join(lines)], classes="figures fit")
    )


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


def robustness(arena: Mapping[str, Any]) -> str:
    """What a broken expert does to Astrea, and to Astrea with equal shares."""
    rows = part(arena, "robustness")
    kinds = list(
        dict.fromkeys(kind for name in rows for kind in part(rows, name) if kind not in ("clean", "mean_loss"))
    )
    lines = {kind: _broken_row(words(kind), [_mean_of_experts(each, kind) for each in rows.values()]) for kind in kinds}
    sound = [figure(each, "clean") for each in rows.values()]
    if not any(value is not None for value in sound) and not kinds:
        return _trust(arena)
    heads = ["An expert's output is", *(head for name in rows for head in (_NAMES.get(name, words(name)), ""))]
    body = _broken_row("clean", sound) + "".join(lines.values())
    parts = [table("Average with a broken expert, mean over experts", heads, [body], classes="figures")]
    experts = list(dict.fromkeys(e for name in rows for kind in kinds for e in part(rows, name, kind)))
    single = [
        row(
            f"{_NAMES.get(name, words(name))}: {words(kind)}",
            [cell(number(figure(rows, name, kind, expert, "average"))) for expert in experts],
        )
        for kind in kinds
        for name in rows
    ]
    if experts:
        parts.append("<h3>By the expert that is broken</h3>")
        heads = ["Output", *map(words, experts)]
        parts.append(table("Average by the expert that is broken", heads, ["".join(single)], classes="figures"))
    return "".join(parts) + _trust(arena)


def _broken_row(head: str, values: Sequence[float | None]) -> str:
    cells = []
    for value in values:
        cells += [cell(number(value)), cell("" if value is None else bar(value / 100), classes="wide")]
    return row(head, cells)


def _mean_of_experts(tree: object, kind: str) -> float | None:
    values = [figure(each, "average") for each in part(tree, kind).values()]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _trust(arena: Mapping[str, Any]) -> str:
    """How often each expert is believed, where it is measured."""
    rows = part(arena, "trust")
    kinds = list(dict.fromkeys(kind for name in rows for kind in part(rows, name)))
    lines = [row(words(n), [cell(percent(figure(rows, n, kind))) for kind in kinds]) for n in rows]
    body = table("How often each expert is believed", ["Expert", *map(words, kinds)], ["".join(lines)], classes="heat")
    return f"<h3>How often each expert is believed</h3>{body}" if kinds else ""
