"""The benchmark of budgets in a small form: two models, every rule at every budget."""

from __future__ import annotations

import json

import pytest

from astrea.lab.settings.budget import BUDGETS, RULES
from astrea.lab.settings.settings import sixteen_experts
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train
from benchmark_scripts import benchmark_script

pytestmark = pytest.mark.slow

DATA = ("data.train_scenes=20", "data.test_questions=2", "data.test_captions=2", "data.test_retrieval_groups=1")
STEPS = ("align.steps=1", "align.progressive=false", "fuse.steps=1", "tune.steps=1", "threads=1")


def test_two_models_are_measured_under_every_budget(tmp_path):
    train(load_recipe(Recipe, "tiny", [*sixteen_experts(), *DATA, *STEPS]), tmp_path / "first")
    start, folder, out = tmp_path / "first" / "model", tmp_path / "second", tmp_path / "results" / "budgets.json"
    options = [str(start), *DATA, "--folder", str(folder), "--steps", "1", "--out", str(out)]
    found = benchmark_script("budgets").main(options)
    assert json.loads(out.read_text()) == found
    assert (folder / "model").is_dir()
    assert set(found["splits"]["validation"]) == {"as trained", "tuned with experts left out"}
    for row in found["splits"]["validation"].values():
        for tokens, experts in BUDGETS:
            assert set(row[f"{tokens}/{experts}"]) == {*RULES, "gate"}
