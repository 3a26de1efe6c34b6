"""Sections on Astrea's experts: what is lost without one, and how much weight the gate gives to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from astrea.lab.arena.page.blocks import Block, Cell, Row, Table, Text, interval, number_cell, spread
from astrea.lab.arena.page.reading import by_mean, figure, own_mean, part
from astrea.report.formatting import number, percent, words


def without(arena: Mapping[str, Any]) -> list[Block]:
    """Masking beside retraining, and pairs of experts."""
    blocks = _masked_and_retrained(arena)
    if part(arena, "pairs"):
        return blocks + pairs(arena)
    return [*blocks, Text("Pairs of experts were not measured.", "absent")] if blocks else []


def _masked_and_retrained(arena: Mapping[str, Any]) -> list[Block]:
    masked = {name: own_mean(each) for name, each in part(arena, "masking").items()}
    retrained = part(arena, "retraining")
    names = list(dict.fromkeys([*masked, *retrained]))
    if not names:
        return []
    first, second = ranks(masked), ranks({n: figure(retrained, n, "difference", "mean") for n in names})
    lines = [
        Row(
            words(name),
            [
                number_cell(masked.get(name), sign=True),
                number_cell(first.get(name), 0),
                number_cell(figure(arena, "cur", "masked", name), 3),
                number_cell(figure(retrained, name, "difference", "mean"), sign=True),
                Cell(interval(part(retrained, name, "difference"))),
                number_cell(figure(retrained, name, "difference", "p_holm"), 3),
                number_cell(second.get(name), 0),
                number_cell(figure(arena, "cur", "retrained", name), 3),
            ],
        )
        for name in sorted(names, key=lambda n: (second.get(n, first.get(n, len(names))), n))
    ]
    heads = [
        *("Expert taken away", "Masked", "Rank", "CUR"),
        *("Trained without", "95 % interval", "p (Holm)", "Rank", "CUR"),
    ]
    blocks: list[Block] = [Table("What each expert is worth", heads, lines, "figures fit")]
    gaps = {way: figure(arena, "cur", "gap", way) for way in ("masked", "retrained")}
    known = [f"{number(gap, 3)} {way}" for way, gap in gaps.items() if gap is not None]
    if known:
        blocks.append(Text(f"Information gap, the largest CUR minus the smallest: {', '.join(known)}."))
    both = first.keys() & second.keys()
    if len(both) > 1:
        same = sum(first[name] == second[name] for name in both)
        blocks.append(Text(f"The two rankings put {same} of {len(both)} experts in the same place."))
    missing = [what for what, found in (("Masking", first), ("Retraining", second)) if not found]
    return [*blocks, *(Text(f"{what} was not measured.", "absent") for what in missing)]


def ranks(changes: Mapping[str, float | None]) -> dict[str, int]:
    """1 for the largest loss; experts of equal loss share the better place."""
    known = {name: value for name, value in changes.items() if value is not None}
    return {name: 1 + sum(other < value for other in known.values()) for name, value in known.items()}


def pairs(arena: Mapping[str, Any]) -> list[Block]:
    """The average with two experts only, as a matrix; pairs whose experts are not known in a table of their own."""
    rows = part(arena, "pairs")
    known = expert_names(arena)
    means = {frozenset(both): own_mean(rows[name]) for name in rows if (both := split_pair(name, known))}
    names = [name for name in known if any(name in both for both in means)]
    values = [value for value in map(own_mean, rows.values()) if value is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    lines = []
    for one in names:
        cells = []
        for other in names:
            mean = means.get(frozenset((one, other)))
            tint = (mean - low) / (high - low) if mean is not None and high > low else 0.0
            cells.append(Cell("" if one == other else number(mean), tint))
        lines.append(Row(words(one), cells))
    title = "Two experts only"
    rest = [Row(words(name), [Cell(spread(rows[name]))]) for name in by_mean(rows) if not split_pair(name, known)]
    blocks: list[Block] = []
    if names:
        blocks.append(Table("Average with two experts", ["", *names], lines, "heat", title))
    if rest:
        blocks.append(Table("Other pairs", ["Pair", "Average"], rest, "figures fit", "" if names else title))
    return blocks


def expert_names(arena: Mapping[str, Any]) -> list[str]:
    """Every expert that the arena names."""
    alone = [name.removeprefix("single_") for name in part(arena, "strategies") if name.startswith("single_")]
    places = (part(arena, "load", "mean"), part(arena, "masking"), part(arena, "retraining"), alone)
    return list(dict.fromkeys(name for names in places for name in names))


def split_pair(name: str, known: Sequence[str]) -> tuple[str, str] | None:
    """``captioning_detection`` -> its two experts; None when they are not known."""
    for first in known:
        second = name.removeprefix(f"{first}_")
        if second != name and second in known:
            return first, second
    return None


def shares(arena: Mapping[str, Any]) -> list[Block]:
    """The gate weights of the experts: their means, by task and by condition."""
    by_task = {task: _expert_shares(each) for task, each in part(arena, "shares").items()}
    by_condition: dict[str, list[dict[str, float]]] = {}
    for each in part(arena, "shares").values():
        for condition, some in part(each).items():
            if part(some):
                by_condition.setdefault(condition, []).append(_expert_shares(some))
    return [
        *_load(arena),
        *_share_table("Weight per task", "Task", by_task),
        *_share_table("Weight per condition", "Condition", {c: _averaged(s) for c, s in by_condition.items()}),
    ]


def _load(arena: Mapping[str, Any]) -> list[Block]:
    load = part(arena, "load")
    mean = {name: figure(share) for name, share in part(load, "mean").items()}
    if not mean:
        return []
    even = sum(share or 0.0 for share in mean.values()) / len(mean)
    lines = [
        Row(words(name), [Cell(percent(share)), Cell(bar=share or 0.0, mark=even, classes="wide")])
        for name, share in mean.items()
    ]
    note = Markup(
        "Mean weight over all test questions; the mark is an even split. Largest over mean {}, coefficient of "
        "variation {}, entropy {} nats ({} of the most there can be)."
    ).format(*(number(figure(load, name), 2) for name in ("max_over_mean", "cv", "entropy", "entropy_share")))
    return [Table("Mean weight of each expert", ["Expert", "Weight", ""], lines, "figures fit", "Load", note)]


def _expert_shares(tree: object) -> dict[str, float]:
    """expert -> share, out of that or of condition -> expert -> share (then the mean over conditions)."""
    below = [_expert_shares(each) for each in part(tree).values() if part(each)]
    return _averaged(below) if below else {n: v for n, each in part(tree).items() if (v := figure(each)) is not None}


def _averaged(trees: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in trees for name in each)
    found = {name: [each[name] for each in trees if name in each] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _share_table(title: str, corner: str, rows: Mapping[str, Mapping[str, float]]) -> list[Block]:
    experts = list(dict.fromkeys(name for each in rows.values() for name in each))
    if not experts:
        return []
    lines = [
        Row(words(name), [Cell(percent(each.get(expert)), each.get(expert, 0.0)) for expert in experts])
        for name, each in rows.items()
    ]
    return [Table(title, [corner, *map(words, experts)], lines, "heat", title)]
