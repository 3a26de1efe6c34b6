from __future__ import annotations

import numpy as np
import pytest

from astrea.lab.arena.statistics import mean_tree, paired_difference, summary


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


def test_the_point_is_the_mean_over_tasks_of_the_mean_over_items():
    ours = {"a": np.array([[1, 1, 0, 0]]), "b": np.array([[1.0, 0.5]])}
    theirs = {"a": np.array([[0, 0, 0, 0]]), "b": np.array([[0.5, 0.5]])}
    assert paired_difference(ours, theirs)["mean"] == pytest.approx(100 * (0.5 + 0.25) / 2)


def test_equal_variants_differ_by_exactly_nothing_whatever_the_items():
    scores = {"a": np.random.default_rng(0).random((2, 50))}
    assert paired_difference(scores, scores) == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_pairing_makes_the_interval_narrow_where_hard_items_are_hard_for_both():
    rng = np.random.default_rng(1)
    hard = rng.random((1, 400))
    paired = paired_difference({"a": hard + 0.05 + 0.01 * rng.random((1, 400))}, {"a": hard})
    shuffled = paired_difference({"a": rng.permuted(hard, axis=1) + 0.05}, {"a": hard})
    assert paired["high"] - paired["low"] < 0.2
    assert shuffled["high"] - shuffled["low"] > 2


def test_the_interval_covers_a_known_difference_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        easy = rng.random((1, 120))
        ours = {task: (rng.random((1, 120)) < 0.6).astype(float) for task in "ab"}
        theirs = {task: (easy < 0.5).astype(float) for task in "ab"}
        found = paired_difference(ours, theirs, resamples=400, seed=trial)
        covered += found["low"] <= 10 <= found["high"]
    # 190 are expected; both tasks share `theirs`, which makes the interval a little narrow. 165 would be far off.
    assert 165 <= covered <= 199


def test_seeds_are_averaged_and_the_draw_is_repeatable():
    ours = {"a": np.array([[1, 0, 1, 0], [1, 1, 1, 0]])}
    theirs = {"a": np.zeros((2, 4))}
    first = paired_difference(ours, theirs)
    assert first["mean"] == pytest.approx(62.5)
    assert first == paired_difference({"a": ours["a"].mean(0, keepdims=True)}, {"a": np.zeros((1, 4))})
    assert first["low"] < 62.5 < first["high"]
