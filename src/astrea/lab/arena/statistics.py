"""Means over seeds: of figures, and of whole trees of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


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
