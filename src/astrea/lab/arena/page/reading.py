"""Reading arena.json with nothing taken for granted: what is missing or of another kind is empty or None."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.report.results import TASKS

SELF = "astrea"

_HIGHEST = 1e30  # a number beyond it is not drawn: sums of such numbers leave what a float can hold


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


def own_mean(value: object) -> float | None:
    """A number, or what a mapping gives as its own: mean over seeds, or average over tasks."""
    found = (figure(value), figure(value, "mean"), figure(value, "average"))
    return next((number for number in found if number is not None), None)


def turned(tree: object) -> dict[str, float | None]:
    """A difference the other way round: Astrea minus this one."""
    mean, low, high = (figure(tree, name) for name in ("mean", "low", "high"))
    return {
        "mean": None if mean is None else -mean,
        "low": None if high is None else -high,
        "high": None if low is None else -low,
    }


def task_names(arena: Mapping[str, Any]) -> list[str]:
    """The tasks in the order of the arena, by default the twelve."""
    named = arena.get("tasks")
    return list(map(str, named)) if isinstance(named, list) and named else list(TASKS)
