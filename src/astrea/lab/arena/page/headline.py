"""The page's header: the figures that matter most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from astrea.lab.arena.page.blocks import interval, spread
from astrea.lab.arena.page.reading import SELF, by_mean, figure, part, task_names, turned
from astrea.report.formatting import MISSING, measured, number, plain, words


@dataclass(frozen=True)
class Tile:
    """One figure of the header."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Headline:
    """The header: how many other strategies there are, what may be said of Astrea, and the figures."""

    others: int
    verdict: str
    tiles: list[Tile]


def headline(arena: Mapping[str, Any]) -> Headline:
    """Astrea against the best other strategy."""
    strategies = part(arena, "strategies")
    own, other = part(strategies, SELF), part(arena, "best_other")
    name = str(other.get("name") or "")
    gap = turned(part(strategies, name, "difference"))
    if gap["mean"] is None:
        gap["mean"] = figure(other, "gap")
    won, tasks = figure(arena, "wins"), len(task_names(arena))
    seeds = number(figure(own, "average", "seeds"), 0)
    tasks_won = MISSING if won is None else f"{plain(won, 0)} of {tasks}"
    tiles = [
        Tile("Astrea", _mean(own.get("average")), Markup("average of {} tasks, seeds: {}").format(tasks, seeds)),
        Tile("Best other strategy", _mean(part(strategies, name, "average") or other), words(name)),
        Tile("Astrea minus the best other", measured(gap["mean"], sign=True), _interval(gap)),
        Tile("Tasks won", tasks_won, "Astrea above every other strategy"),
    ]
    equal = part(arena, "equal_wall")
    if equal:
        best = by_mean(equal, "average")[0]
        in_time = turned(part(equal, best, "difference"))
        note = Markup("against {}, {}").format(words(best), _interval(in_time))
        tiles.append(Tile("The same at equal training time", measured(in_time["mean"], sign=True), note))
    return Headline(len(strategies.keys() - {SELF}), verdict(gap), tiles)


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


def _mean(tree: object) -> str:
    return MISSING if figure(tree, "mean") is None else spread(tree)


def _interval(gap: Mapping[str, float | None]) -> str:
    return Markup("95 % interval {}").format(interval(gap))
