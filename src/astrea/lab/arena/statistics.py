"""Means over seeds, and how sure a difference between two variants is.

Letters: S seeds, N items of a task, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation over seeds; with one seed there is no deviation (None)."""
    array = np.asarray(values, dtype=float)
    return {"mean": float(array.mean()), "std": float(array.std(ddof=1)) if len(array) > 1 else None}


def mean_tree(trees: Sequence[Any]) -> Any:
    """The mean of values of one form: numbers are averaged, mappings key by key and lists of one length place by place.

    What cannot be averaged (text, lists of different lengths) is the first one's; a missing value or None does not
    count, and where there is no value at all it is None.
    """
    there = [tree for tree in trees if tree is not None]
    if not there:
        return None
    first = there[0]
    if all(isinstance(tree, Mapping) for tree in there):
        keys = dict.fromkeys(key for tree in there for key in tree)
        return {key: mean_tree([tree.get(key) for tree in there]) for key in keys}
    if all(isinstance(tree, list) and len(tree) == len(first) for tree in there):
        return [mean_tree(list(column)) for column in zip(*there, strict=True)]
    if all(isinstance(tree, int | float) and not isinstance(tree, bool) for tree in there):
        return float(np.mean(there))
    return first


def paired_difference(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """The difference of two averages over tasks (ours minus theirs, points), with a 95 % paired bootstrap interval.

    Test items are drawn anew within each task, the same ones for both sides, so that easy and hard items cancel. Seeds
    are averaged, not drawn: the interval is about the test set.

    Args:
        ours, theirs: task -> scores (S, N), 0..1, the same seeds and items on both sides.

    Returns:
        mean, low, high.
    """
    rng = np.random.default_rng(seed)
    point, drawn_R = 0.0, np.zeros(resamples)
    for task in ours:
        apart_N = (np.asarray(ours[task], dtype=float) - np.asarray(theirs[task], dtype=float)).mean(0)
        count = len(apart_N)
        # How often each item is drawn, instead of which: one matrix product does all resamples.
        times_RN = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
        point += float(apart_N.mean())
        drawn_R += times_RN @ apart_N / count
    scale = 100 / len(ours)
    low, high = np.percentile(drawn_R * scale, [2.5, 97.5])
    return {"mean": point * scale, "low": float(low), "high": float(high)}
