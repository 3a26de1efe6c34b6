"""Sections on Astrea's experts: what is lost without one, and who is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astrea.lab.arena.page.cells import interval, spread
from astrea.lab.arena.page.reading import by_mean, figure, own_mean, part
from astrea.report.markup import absent, bar, cell, number, percent, row, table, words


def without(arena: Mapping[str, Any]) -> str:
    """Masking beside retraining, and pairs of experts."""
    masked = {name: own_mean(each) for name, each in part(arena, "masking").items()}
    retrained = part(arena, "retraining")
    parts = []
    names = list(dict.fromkeys([*masked, *retrained]))
    if names:
        first, second = ranks(masked), ranks({n: figure(retrained, n, "difference", "mean") for n in names})
        lines = [
            row(
                words(name),
                [
                    cell(number(masked.get(name), sign=True)),
                    cell(number(first.get(name), digits=0)),
                    cell(number(figure(retrained, name, "difference", "mean"), sign=True)),
                    cell(interval(part(retrained, name, "difference"))),
                    cell(number(second.get(name), digits=0)),
                ],
            )
            for name in sorted(names, key=lambda n: (second.get(n, first.get(n, len(names))), n))
        ]
        heads = ["Expert taken away", "Masked", "Rank", "Trained without", "95 % interval", "Rank"]
        parts.append(table("What each expert is worth", heads, ["".join(lines)], classes="figures fit"))
        both = first.keys() & second.keys()
        if len(both) > 1:
            same = sum(first[name] == second[name] for name in both)
            parts.append(f'<p class="note">The two rankings put {same} of {len(both)} experts in the same place.</p>')
        gone = [what for what, there in (("Masking", first), ("Retraining", second)) if not there]
        parts += [absent(f"{what} was not measured.") for what in gone]
    if part(arena, "pairs"):
        parts.append("<h3>Two experts only</h3>" + _pairs(arena))
    elif parts:
        parts.append(absent("Pairs of experts were not measured."))
    return "".join(parts)


def ranks(changes: Mapping[str, float | None]) -> dict[str, int]:
    """1 for the largest loss; experts of equal loss share the better place."""
    known = {name: value for name, value in changes.items() if value is not None}
    return {name: 1 + sum(other < value for other in known.values()) for name, value in known.items()}


def _pairs(arena: Mapping[str, Any]) -> str:
    rows = part(arena, "pairs")
    known = expert_names(arena)
    means = {frozenset(both): own_mean(rows[name]) for name in rows if (both := split_pair(name, known))}
    names = [n for n in known if any(n in both for both in means)]
    values = [value for value in map(own_mean, rows.values()) if value is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    lines = []
    for one in names:
        cells = []
        for other in names:
            mean = means.get(frozenset((one, other)))
            tint = (mean - low) / (high - low) if mean is not None and high > low else 0.0
            cells.append(cell("" if one == other else number(mean), tint=tint))
        lines.append(row(words(one), cells))
    matrix = table("Average with two experts", ["", *map(words, names)], ["".join(lines)], classes="heat")
    rest = [row(words(n), [cell(spread(rows[n]))]) for n in by_mean(rows) if not split_pair(n, known)]
    other_pairs = table("Other pairs", ["Pair", "Average"], ["".join(rest)], classes="figures fit") if rest else ""
    return (matrix if names else "") + other_pairs


def expert_names(arena: Mapping[str, Any]) -> list[str]:
    """Every expert that the arena speaks of."""
    alone = [n.removeprefix("single_") for n in part(arena, "strategies") if n.startswith("single_")]
    told = (part(arena, "load", "mean"), part(arena, "masking"), part(arena, "retraining"), alone)
    return list(dict.fromkeys(name for names in told for name in names))


def split_pair(name: str, known: Sequence[str]) -> tuple[str, str] | None:
    """``captioning_detection`` -> its two experts; None when they are not known."""
    for first in known:
        second = name.removeprefix(f"{first}_")
        if second != name and second in known:
            return first, second
    return None


def shares(arena: Mapping[str, Any]) -> str:
    """Who is looked at: the load, shares per task and shares per condition."""
    load, table_of = part(arena, "load"), part(arena, "shares")
    mean = {name: figure(share) for name, share in part(load, "mean").items()}
    parts = []
    if mean:
        even = sum(v or 0.0 for v in mean.values()) / len(mean)
        lines = [
            row(words(n), [cell(percent(v)), cell(bar(v or 0.0, mark=even), classes="wide")]) for n, v in mean.items()
        ]
        parts.append(
            '<h3>Load</h3><p class="note">Mean share over all test questions; the mark is an even split. '
            f"Largest over mean {number(figure(load, 'max_over_mean'), digits=2)}, coefficient of variation "
            f"{number(figure(load, 'cv'), digits=2)}, entropy {number(figure(load, 'entropy'), digits=2)} nats "
            f"({number(figure(load, 'entropy_share'), digits=2)} of the most there can be).</p>"
            + table("Mean share of each expert", ["Expert", "Share", ""], ["".join(lines)], classes="figures fit")
        )
    by_task = {task: _expert_shares(each) for task, each in table_of.items()}
    parts.append(_share_table("Share per task", "Task", by_task))
    by_condition: dict[str, list[dict[str, float]]] = {}
    for each in table_of.values():
        for condition, some in part(each).items():
            if part(some):
                by_condition.setdefault(condition, []).append(_expert_shares(some))
    parts.append(_share_table("Share per condition", "Condition", {c: _averaged(s) for c, s in by_condition.items()}))
    return "".join(parts)


def _expert_shares(tree: object) -> dict[str, float]:
    """expert -> share, out of that or of condition -> expert -> share (then the mean over conditions)."""
    below = [_expert_shares(each) for each in part(tree).values() if part(each)]
    return _averaged(below) if below else {n: v for n, each in part(tree).items() if (v := figure(each)) is not None}


def _averaged(trees: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in trees for name in each)
    found = {name: [each[name] for each in trees if name in each] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _share_table(title: str, corner: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    experts = list(dict.fromkeys(name for each in rows.values() for name in each))
    if not experts:
        return ""
    lines = [
        row(words(name), [cell(percent(each.get(e)), tint=each.get(e, 0.0)) for e in experts])
        for name, each in rows.items()
    ]
    return f"<h3>{title}</h3>" + table(title, [corner, *map(words, experts)], ["".join(lines)], classes="heat")
