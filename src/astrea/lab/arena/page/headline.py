"""The page's header: the figures that matter most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.lab.arena.page.cells import interval, spread, whole
from astrea.lab.arena.page.reading import SELF, by_mean, figure, part, task_names, turned
from astrea.report.markup import MISSING, plain, words


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
