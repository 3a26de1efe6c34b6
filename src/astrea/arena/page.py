"""The arena as a page for people: arena.json -> arena.html, which needs no network, no scripts and no other file.

Nothing in arena.json is taken for granted: what is missing is told of, and text from it is escaped. The page depends on
nothing else, so the same arena gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import astrea
from astrea.arena.pictures import CSS, Interval, Series, chart, intervals, key
from astrea.evaluation.report.markup import (
    MISSING,
    absent,
    bar,
    cell,
    escape,
    number,
    percent,
    plain,
    row,
    section,
    table,
    words,
)
from astrea.evaluation.report.results import TASKS
from astrea.evaluation.report.scores import count, duration
from astrea.files import write_atomic

SELF = "astrea"

# Nothing is fetched and nothing runs, whatever the file may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_OWN_CSS = "tr.own > * { font-weight: 650; } td strong { white-space: nowrap; } pre.command { white-space: pre-wrap; }"
_HIGHEST = 1e30  # a number beyond it is not drawn: sums of such numbers leave what a float can hold

_BELOW = 'Differences are "this one minus Astrea" in points of the average: below zero, Astrea is better.'
_SURE = (
    "The 95 % intervals come from drawing the test items anew, the same ones on both sides; seeds are averaged, so an "
    "interval says nothing about other seeds."
)


@dataclass(frozen=True)
class Part:
    """One section. ``draw`` makes its body (markup), or "" when the arena has nothing for it: then ``missing`` is said
    in its place, and its title stands in the list of what is missing. ``note`` is markup."""

    anchor: str
    title: str
    draw: Callable[[Mapping[str, Any]], str]
    missing: str
    note: str = ""


def write_page(arena: Mapping[str, Any], path: Path) -> None:
    """Write the page of what arena.json holds.

    Args:
        arena: see `astrea.arena.collect.collect`; any key may be missing or empty.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomic(path, render(arena).encode("utf-8"))


def render(arena: Mapping[str, Any]) -> str:
    """The page as HTML."""
    bodies = {each: each.draw(arena) for each in PARTS}
    links = "".join(f'<a href="#{each.anchor}">{each.title}</a>' for each in PARTS)
    gone = [each.title.lower() for each, body in bodies.items() if not body]
    told = absent(f"This arena is not complete. Missing: {', '.join(gone)}.") if gone else ""
    sections = "".join(
        section(each.anchor, each.title, body or absent(each.missing), each.note if body else "")
        for each, body in bodies.items()
    )
    style = resources.files("astrea.evaluation.report").joinpath("page.css").read_text("utf-8")
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>Arena · Astrea</title><style>{style}{CSS}{_OWN_CSS}</style>"
    )
    body = (
        f'{headline(arena)}<nav aria-label="Sections">{links}</nav><main>{told}{sections}</main>'
        f"<footer><p>Made by Astrea {escape(getattr(astrea, '__version__', ''))} from <code>arena.json</code> alone."
        "</p></footer>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


# --- reading, with nothing taken for granted --------------------------------------------------------------------------


def part(tree: object, *path: str) -> dict[str, Any]:
    """The mapping at a path of keys; an empty one where there is none."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return {str(k): v for k, v in tree.items()} if isinstance(tree, Mapping) else {}


def figure(tree: object, *path: str) -> float | None:
    """The number at a path of keys; None where there is none that can be shown."""
    value = part(tree, *path[:-1]).get(path[-1]) if path else tree
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _HIGHEST:
        return None
    return float(value)


def by_mean(rows: Mapping[str, Any], *path: str) -> list[str]:
    """Names from the highest mean to the lowest, what has none last."""
    means = {name: figure(each, *path, "mean") for name, each in rows.items()}
    return sorted(rows, key=lambda name: (means[name] is None, -(means[name] or 0.0)))


def spread(tree: object) -> str:
    """mean ± std over seeds."""
    std = figure(tree, "std")
    return number(figure(tree, "mean")) + ("" if std is None else f" <small>± {plain(std)}</small>")


def interval(tree: object) -> str:
    """Both ends of a difference's interval."""
    low, high = figure(tree, "low"), figure(tree, "high")
    return number(None) if low is None or high is None else f"{plain(low, sign=True)} to {plain(high, sign=True)}"


def whole(value: float | None) -> str:
    """A count, or a dash."""
    return number(None) if value is None else count(value)


def turned(tree: object) -> dict[str, float | None]:
    """A difference the other way round: Astrea minus this one."""
    mean, low, high = (figure(tree, name) for name in ("mean", "low", "high"))
    return {
        "mean": None if mean is None else -mean,
        "low": None if high is None else -high,
        "high": None if low is None else -low,
    }


# --- 1 headline -------------------------------------------------------------------------------------------------------


def headline(arena: Mapping[str, Any]) -> str:
    """The page's header: Astrea against the best other strategy."""
    strategies = part(arena, "strategies")
    own, told = part(strategies, SELF), part(arena, "best_other")
    name = str(told.get("name") or "")
    best = part(strategies, name, "average") or told
    gap = turned(part(strategies, name, "difference"))
    if gap["mean"] is None:
        gap["mean"] = figure(told, "gap")
    won, tasks = figure(arena, "wins"), len(task_names(arena))
    seeds = figure(own, "average", "seeds")
    equal = part(arena, "equal_wall")
    rival = next(iter(by_mean(equal, "average")), "")
    in_time = turned(part(equal, rival, "difference"))
    tiles = [
        _tile("Astrea", own.get("average"), f"average of {tasks} tasks, seeds: {whole(seeds)}"),
        _tile("Best other strategy", best, words(name)),
        _tile("Astrea minus the best other", gap, f"95 % interval {interval(gap)}", sign=True),
        f'<div class="tile"><dt>Tasks won</dt><dd>{MISSING if won is None else f"{plain(won, digits=0)} of {tasks}"}'
        "</dd><dd>Astrea above every other strategy</dd></div>",
    ]
    if equal:
        note = f"against {words(rival)}, 95 % interval {interval(in_time)}"
        tiles.append(_tile("The same at equal training time", in_time, note, sign=True))
    facts = f"Astrea against {len(strategies.keys() - {SELF})} other ways to fuse the same frozen experts"
    return (
        f'<header><h1>Arena</h1><p class="sub">{facts}. {verdict(gap)}</p><dl class="tiles">{"".join(tiles)}</dl>'
        "</header>"
    )


def verdict(gap: Mapping[str, float | None]) -> str:
    """What the interval of the gap allows to be said."""
    low, high = gap["low"], gap["high"]
    if low is None or high is None:
        return "How sure the gap is was not measured."
    if low > 0:
        return "On this test set Astrea is ahead of the best of them."
    if high < 0:
        return "On this test set the best of them is ahead of Astrea."
    return "The interval of the gap holds zero: neither is shown to be ahead."


def _tile(name: str, tree: object, note: str, *, sign: bool = False) -> str:
    mean = figure(tree, "mean")
    value = MISSING if mean is None else plain(mean, sign=True) if sign else spread(tree)
    return f'<div class="tile"><dt>{name}</dt><dd>{value}</dd><dd>{note}</dd></div>'


# --- 2, 3 strategies and tasks ----------------------------------------------------------------------------------------


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
            *_apart(name, each),
            cell(whole(figure(each, "params_trainable"))),
            cell(number(figure(each, "visual_tokens"), digits=0)),
            cell(whole(figure(each, "flops_per_sample"))),
            cell(number(figure(each, "latency_ms"))),
            cell(duration(figure(each, "wall_s"))),
        ]
        lines.append(row(words(name), cells, classes=_own(name)))
    heads = [
        *("Strategy", "Average", "Seeds", "Minus Astrea", "95 % interval", "Trained parameters", "Visual tokens"),
        *("FLOPs per question", "Latency, ms", "Training time"),
    ]
    body = table("Strategies from best to worst", heads, ["".join(lines)], classes="figures")
    return body + _dots({n: r for n, r in rows.items() if n != SELF}, "Strategies minus Astrea") + _equal_time(arena)


def _equal_time(arena: Mapping[str, Any]) -> str:
    rows = part(arena, "equal_wall")
    if not rows:
        return absent("Equal training time was not measured (<code>--wall</code>).")
    lines = []
    for name in by_mean(rows, "average"):
        each = part(rows, name)
        cells = [cell(spread(each.get("average"))), cell(number(figure(each, "average", "seeds"), digits=0))]
        cells += [*_apart(name, each), cell(duration(figure(each, "wall_s")))]
        cells += [cell(duration(figure(each, "astrea_wall_s"))), cell(number(figure(each, "steps"), digits=0))]
        lines.append(row(words(name), cells))
    heads = ["Strategy", "Average", "Seeds", "Minus Astrea", "95 % interval", "Training time", "Astrea's", "Steps"]
    return "<h3>The best others, trained as long as Astrea</h3>" + table(
        "Strategies at equal training time", heads, ["".join(lines)], classes="figures fit"
    )


def _apart(name: str, each: Mapping[str, Any]) -> list[str]:
    """Two cells: the difference to Astrea and its interval."""
    if name == SELF:
        return [cell(""), cell("")]
    apart = each.get("difference")
    return [cell(number(figure(apart, "mean"), sign=True)), cell(interval(apart))]


def _own(name: str) -> str:
    return "own" if name == SELF else ""


def _dots(rows: Mapping[str, Any], label: str) -> str:
    """The differences of rows as dots with intervals; "" when none is known."""
    known = []
    for name, each in rows.items():
        mean = figure(each, "difference", "mean")
        if mean is not None:
            ends = figure(each, "difference", "low"), figure(each, "difference", "high")
            known.append(Interval(name, mean, *ends))
    known.sort(key=lambda one: -one.mean)
    return intervals(known, f"{label}, in points, with 95 % intervals") if known else ""


def task_names(arena: Mapping[str, Any]) -> list[str]:
    """The tasks in the order of the arena, by default the twelve."""
    named = arena.get("tasks")
    return list(map(str, named)) if isinstance(named, list) and named else list(TASKS)


def tasks(arena: Mapping[str, Any]) -> str:
    """Strategies by tasks."""
    rows = part(arena, "strategies")
    found = {name: part(rows, name, "tasks") for name in by_mean(rows, "average")}
    columns = list(dict.fromkeys([*task_names(arena), *(task for each in found.values() for task in each)]))
    return heat("Mean score of every strategy on every task", "Strategy", found, columns)


def heat(caption: str, corner: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Scores as a table coloured column by column, the best of each with a star; "" when there is no number.

    Args:
        rows: name -> column -> number, or a mapping with mean and std.
    """
    values = {(n, c): _mean(each.get(c)) for n, each in rows.items() for c in columns}
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
            shown += "" if std is None else f" <small>± {plain(std)}</small>"
            cells.append(cell(shown, tint=(value - low) / (high - low) if value is not None and high > low else 0.0))
        lines.append(row(words(name), cells, classes=_own(name)))
    return table(caption, [corner, *map(words, columns)], ["".join(lines)], classes="heat")


def _mean(value: object) -> float | None:
    """A number, or what a mapping gives as its own: mean over seeds, or average over tasks."""
    found = (figure(value), figure(value, "mean"), figure(value, "average"))
    return next((number for number in found if number is not None), None)


# --- 4 ablations ------------------------------------------------------------------------------------------------------


def ablations(arena: Mapping[str, Any]) -> str:
    """What each ingredient is worth."""
    rows = part(arena, "ablations")
    if not rows:
        return ""
    lines = [
        row(
            words(name),
            [
                cell(escape(part(rows, name).get("note") or ""), classes="more"),
                cell(spread(rows[name])),
                cell(number(figure(rows[name], "seeds"), digits=0)),
                *_apart("", part(rows, name)),
            ],
        )
        for name in by_mean(rows)
    ]
    heads = ["Without", "What that means", "Average", "Seeds", "Minus Astrea", "95 % interval"]
    return _dots(rows, "Astrea without each ingredient, minus Astrea") + table(
        "Astrea without each ingredient", heads, ["".join(lines)], classes="figures own"
    )


# --- 5 without an expert ----------------------------------------------------------------------------------------------


def without(arena: Mapping[str, Any]) -> str:
    """Masking beside retraining, and pairs of experts."""
    masked = {name: _mean(each) for name, each in part(arena, "masking").items()}
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
    means = {frozenset(both): _mean(rows[name]) for name in rows if (both := split_pair(name, known))}
    names = [n for n in known if any(n in both for both in means)]
    values = [value for value in map(_mean, rows.values()) if value is not None]
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


# --- 6, 7 conditions and shares ---------------------------------------------------------------------------------------


def conditions(arena: Mapping[str, Any]) -> str:
    """Strategies by conditions of the picture."""
    rows = part(arena, "conditions")
    order = [n for n in by_mean(part(arena, "strategies"), "average") if n in rows]
    order += [n for n in rows if n not in order]
    found = {name: part(rows, name) for name in order}
    columns = list(dict.fromkeys(condition for each in found.values() for condition in each))
    return heat("Average of every strategy per condition", "Strategy", found, columns)


def shares(arena: Mapping[str, Any]) -> str:
    """Who is looked at: the load, shares per task and shares per condition."""
    load, table_of = part(arena, "load"), part(arena, "shares")
    mean = {name: figure(share) for name, share in part(load, "mean").items()}
    parts = []
    if mean:
        lines = [
            row(words(n), [cell(percent(v)), cell(bar(v or 0.0, mark=1 / len(mean)), classes="wide")])
            for n, v in mean.items()
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


# --- 8 to 11 calibration, tokens, robustness, curves ------------------------------------------------------------------


def calibration(arena: Mapping[str, Any]) -> str:
    """Whether shares follow what the experts contribute: figures, and every cell as a point."""
    tree, series = part(arena, "calibration"), _cells(arena)
    told = {
        "rank_correlation": "Rank correlation over task, condition and expert",
        "per_task": "The same over task and expert",
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


_NAMES = {SELF: "Astrea", "without_allocator": "Equal shares (no allocator)"}


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


# --- 12 how it was made -----------------------------------------------------------------------------------------------


def made(arena: Mapping[str, Any]) -> str:
    """Command, commit, machine, seeds, contestants."""
    facts = {name: arena.get(name) for name in ("recipe", "commit", "machines")}
    facts |= {f"machine: {name}": value for name, value in part(arena, "machine").items()}
    rows = part(arena, "strategies")
    facts["seeds"] = ", ".join(dict.fromkeys(seed for name in rows for seed in part(rows, name, "values")))
    lines = [row(words(n), [cell(escape(v), classes="more")]) for n, v in facts.items() if v not in (None, "")]
    command = arena.get("command")
    parts = [f'<pre class="command">{escape(command)}</pre>'] if command else []
    if lines:
        parts.append(table("Where it was made", ["Fact", "Value"], ["".join(lines)], classes="fit"))
    kinds = {"strategies": "Strategies", "ablations": "Ablations", "retraining": "Without one expert", "pairs": "Pairs"}
    bodies = []
    for kind, title in kinds.items():
        notes = [
            row(words(name), [cell(escape(note), classes="more")])
            for name in part(arena, kind)
            if (note := part(arena, kind, name).get("note"))
        ]
        if notes:
            bodies.append(f'<tr class="family"><th scope="rowgroup" colspan="2">{title}</th></tr>{"".join(notes)}')
    if bodies:
        parts.append("<h3>Contestants</h3>" + table("What each contestant is", ["Name", "What it is"], bodies))
    return "".join(parts)


_CELLS = "No cells for it are finished."
_PROBES = "Astrea's cells were not probed."
_PROBED = "Averages here are over the probed tasks (retrieval is not among them) and fewer items of each"
PARTS = (
    Part(
        "strategies",
        "Strategies",
        strategies,
        _CELLS,
        f"All have the same frozen experts to look through, data, seeds and steps. {_BELOW} {_SURE} FLOPs and latency "
        "are of fusion and the language model's reading of one question; looking through the experts comes on top.",
    ),
    Part(
        "tasks",
        "Twelve tasks",
        tasks,
        _CELLS,
        "Mean and deviation over seeds, 0 to 100. Coloured column by column, from the lowest (pale) to the highest; ★ "
        "is the best of its column.",
    ),
    Part(
        "ablations",
        "Ablations",
        ablations,
        "No ablation is finished.",
        f"Astrea with one ingredient off. {_BELOW} Red: the whole interval is below zero, so the ingredient helps on "
        "this test set; green: above zero; grey: the interval holds zero.",
    ),
    Part(
        "without",
        "Without one expert",
        without,
        "Neither masking nor retraining nor pairs of experts were measured.",
        "The change of the average, in points. Masked: taken away at test time, nothing trained anew (on the probed "
        "tasks, retrieval left out). Trained without: never there, so that the others could learn to fill in (all "
        "tasks). Rank 1 is the expert that is missed most.",
    ),
    Part(
        "conditions",
        "Conditions",
        conditions,
        _CELLS,
        "The average where the pictures are of one condition. Coloured column by column; ★ is the best of its column.",
    ),
    Part(
        "shares",
        "Who is looked at",
        shares,
        "Shares and load were not measured.",
        "Astrea's shares, means over seeds. Per task every condition counts alike, and per condition every task.",
    ),
    Part(
        "calibration",
        "Do shares follow contribution?",
        calibration,
        _PROBES,
        "The contribution of an expert is the loss of the true answer without it minus with it. The rank correlation "
        "of share and contribution is 1 at best, and 0 when shares say nothing.",
    ),
    Part(
        "pareto",
        "Reading fewer tokens",
        pareto,
        _PROBES,
        "Astrea's average when experts with a small share are not read, and the other strategies at the visual tokens "
        f"that they read. {_PROBED} for Astrea's curve; the other strategies' points are of the same tasks, all items.",
    ),
    Part(
        "robustness",
        "When an expert breaks",
        robustness,
        _PROBES,
        "Swapped: an expert says what it saw in another picture; constant: all its slots say the same; nan: its output "
        f"is no number. {_PROBED}.",
    ),
    Part(
        "curves",
        "Learning curves",
        curves,
        "No curve was measured.",
        "One line per seed: the average on a small validation set, against seconds of training.",
    ),
    Part("made", "How it was made", made, "The file does not say."),
)
"""The sections in the order of the page, after the headline."""
