from __future__ import annotations

import pytest

from astrea.lab.arena.statistics import mean_tree, summary


def test_summary_by_hand():
    assert summary([1.0, 2.0, 6.0]) == {"mean": 3.0, "std": pytest.approx(7**0.5)}
    assert summary([4.0]) == {"mean": 4.0, "std": None}


def test_mean_of_trees():
    trees = [
        {"a": 1, "b": {"c": [1.0, 3.0]}, "text": "x", "odd": [1]},
        None,
        {"a": 2, "b": {"c": [3.0, 5.0], "d": 4.0}, "text": "x", "odd": [1, 2]},
    ]
    assert mean_tree(trees) == {"a": 1.5, "b": {"c": [2.0, 4.0], "d": 4.0}, "text": "x", "odd": [1]}
    assert mean_tree([None, None]) is None
    assert mean_tree([{"a": None}, {"a": None}]) == {"a": None}
