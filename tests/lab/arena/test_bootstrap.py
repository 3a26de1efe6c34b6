from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrea.lab.arena.bootstrap import hierarchical_bootstrap, holm, paired_difference


def test_the_point_is_the_mean_over_tasks_of_the_mean_over_items():
    ours = {"a": np.array([[1, 1, 0, 0]]), "b": np.array([[1.0, 0.5]])}
    theirs = {"a": np.array([[0, 0, 0, 0]]), "b": np.array([[0.5, 0.5]])}
    assert paired_difference(ours, theirs)["mean"] == pytest.approx(100 * (0.5 + 0.25) / 2)


def test_equal_variants_differ_by_exactly_nothing_whatever_the_items():
    scores = {"a": np.random.default_rng(0).random((2, 50))}
    found = paired_difference(scores, scores)
    assert found == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "over": "seeds and items"}


def test_what_is_not_drawn_is_not_claimed():
    one = {"a": np.array([[1.0, 0.0]])}
    assert hierarchical_bootstrap(one)["over"] == "items"
    assert hierarchical_bootstrap(one, {"a": [3, 5]})["over"] == "scenes"
    assert hierarchical_bootstrap({"a": np.array([[1.0, 0.0], [1.0, 1.0]])}, {"a": [3, 3]})["over"] == "seeds"
    lone = hierarchical_bootstrap(one, {"a": [3, 3]})
    assert lone == {"mean": 50.0, "low": None, "high": None, "p": None, "over": "nothing"}


def test_items_of_one_scene_are_drawn_together_and_across_tasks():
    """Twenty scenes with ten equal items each, half of them right: that is twenty draws, not two hundred."""
    right = np.repeat([1.0, 0.0], 100)[None]
    scenes = {"a": np.repeat(np.arange(20), 10), "b": np.repeat(np.arange(20), 10)}
    wide = hierarchical_bootstrap({"a": right, "b": right}, scenes)
    narrow = hierarchical_bootstrap({"a": right, "b": right})
    assert wide["high"] - wide["low"] == pytest.approx(2 * 1.96 * 50 / 20**0.5, rel=0.1)
    assert narrow["high"] - narrow["low"] == pytest.approx(2 * 1.96 * 50 / 400**0.5, rel=0.1)


def test_a_task_that_no_drawn_scene_has_is_left_out_of_that_resample():
    scores = {"a": np.full((1, 30), 0.5), "b": np.array([[0.5]])}
    found = hierarchical_bootstrap(scores, {"a": list(range(30)), "b": [40]})
    assert (found["low"], found["high"]) == (pytest.approx(50), pytest.approx(50))


def test_seeds_that_differ_widen_the_interval():
    items = np.random.default_rng(0).random((1, 500)) < 0.5
    alike = hierarchical_bootstrap({"a": np.repeat(items, 4, 0).astype(float)})
    apart = hierarchical_bootstrap({"a": items + np.array([[0.0], [0.1], [0.2], [0.3]])})
    assert apart["high"] - apart["low"] > 2 * (alike["high"] - alike["low"])


def test_the_variance_over_seeds_is_unbiased_for_few():
    """With scenes that are all alike the draws are means of seeds: variance s**2 / S, as a t-test takes it."""
    seeds = np.random.default_rng(3).normal(size=(40, 1))
    found = hierarchical_bootstrap({"a": np.repeat(seeds, 2, 1)}, {"a": [0, 0]}, resamples=20_000)
    assert found["high"] - found["low"] == pytest.approx(100 * 2 * 1.96 * seeds.std(ddof=1) / 40**0.5, rel=0.03)


def test_the_interval_covers_a_known_difference_as_often_as_it_says():
    """Eight seeds, sixty scenes with two items in each of two tasks; seeds, scenes and items all vary."""
    rng = np.random.default_rng(2)
    scenes = {task: np.repeat(np.arange(60), 2) for task in "ab"}
    covered, only_items = 0, 0
    for trial in range(120):
        of_seed, of_scene = rng.normal(0, 0.1, (8, 1)), rng.normal(0, 0.3, 60)
        scores = {task: 0.1 + of_seed + np.repeat(of_scene, 2) + rng.normal(0, 0.3, (8, 120)) for task in "ab"}
        found = hierarchical_bootstrap(scores, scenes, resamples=300, seed=trial)
        covered += found["low"] <= 10 <= found["high"]
        averaged = {task: values.mean(0, keepdims=True) for task, values in scores.items()}
        old = hierarchical_bootstrap(averaged, resamples=300, seed=trial)
        only_items += old["low"] <= 10 <= old["high"]
    # 114 are expected of 120; 104 would be four deviations below.
    assert 104 <= covered <= 120
    assert only_items < 100  # what an interval over items alone says of such data


def test_p_is_small_where_the_interval_leaves_out_zero_and_the_draw_is_repeatable():
    rng = np.random.default_rng(1)
    clear = {"a": rng.normal(0.5, 0.1, (3, 100))}
    found = hierarchical_bootstrap(clear)
    assert found["p"] == pytest.approx(2 / 2001)
    assert found == hierarchical_bootstrap(clear)
    assert hierarchical_bootstrap({"a": rng.normal(0.0, 1.0, (1, 100))})["p"] > 0.05


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_never_makes_a_p_smaller(chances: list[float]):
    given_p = {str(i): chance for i, chance in enumerate(chances)}
    found = holm(given_p)
    assert all(given_p[name] <= found[name] <= 1 for name in given_p)
    assert all(found[a] <= found[b] for a in found for b in found if given_p[a] < given_p[b])
