"""The benchmark of half precision compares items, and not averages that chance can make equal."""

from __future__ import annotations

import numpy as np

from astrea.world.evaluation.runner import Outcome
from benchmark_scripts import benchmark_script


def outcome(answers: dict[str, list[str]], items: dict[str, list[float]]) -> Outcome:
    per_item = {task: np.array(values) for task, values in items.items()}
    return Outcome({}, {}, per_item, {}, answers)


def test_items_are_compared_one_by_one():
    script = benchmark_script("half_precision")
    told = {"counting": ["two", "three"], "caption": ["a red cat", "a dog"], "caption_novel": ["a cat"]}
    whole = outcome(told, {"counting": [0, 0], "caption": [0.5, 1], "caption_novel": [1], "retrieval_i2t": [1, 0]})
    told = {"counting": ["two", "four"], "caption": ["a cat that is red", "a dog"], "caption_novel": ["two cats"]}
    half = outcome(told, {"counting": [0, 0], "caption": [0.5, 1], "caption_novel": [0], "retrieval_i2t": [0, 1]})
    # Another wrong answer is another answer; other words that say the same are not; a miss for a hit is no tie.
    assert script.same_outcomes(whole, half) == {
        "counting": 50.0,
        "caption": 100.0,
        "caption_novel": 0.0,
        "retrieval_i2t": 0.0,
    }
    assert script.same_texts(whole, half) == {"caption": 50.0, "caption_novel": 0.0}
