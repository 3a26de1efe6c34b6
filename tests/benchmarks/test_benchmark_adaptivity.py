"""The benchmark of what shares tell and save writes every figure; what they are depends on the model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from astrea.world.evaluation.runner import Outcome
from astrea.world.evaluation.tasks import TASKS
from benchmark_scripts import benchmark_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script():
    return benchmark_script("adaptivity")


def test_it_measures_everything_and_writes_it(script, tiny_folder, tmp_path, capsys):
    out = tmp_path / "results" / "adaptivity.json"
    small = ["data.test_questions=3", "data.test_captions=3", "data.test_retrieval_groups=1", "threads=1"]
    returned = script.main([str(tiny_folder), "--out", str(out), *small])
    written = json.loads(out.read_text())
    assert written == returned
    assert written["command"].startswith("python benchmarks/adaptivity.py")
    assert set(written["items"]) == set(written["saving"]["tasks"]) == set(TASKS)
    assert written["saving"]["tokens_share"] <= 0.6
    assert written["saving"]["standard_error"] >= 0
    mean = np.mean(list(written["saving"]["tasks"].values()))
    assert written["saving"]["difference"] == pytest.approx(mean)
    assert set(written["broken"]) == {"swapped", "frozen", "constant", "nan"}
    assert f"results: {out}" in capsys.readouterr().out


def test_the_error_is_that_of_the_mean_over_tasks(script):
    def outcome(**items):
        scores = {task: 100 * float(np.mean(values)) for task, values in items.items()}
        per_item = {task: np.array(values, float) for task, values in items.items()}
        return Outcome(scores, {}, per_item, {}, {})

    before = outcome(a=[1, 0, 1, 1], b=[0.5, 0.5])
    assert script.standard_error(before, before) == 0
    after = outcome(a=[0, 0, 1, 1], b=[0.5, 0.5])
    # One of four items lost 100 points: 43.3 / 2 is its task's error, and half of that the mean's over two tasks.
    assert script.standard_error(before, after) == pytest.approx(100 * np.sqrt(3) / 4 / 2 / 2)
