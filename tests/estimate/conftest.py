"""A small run, and what its stages share without weights."""

from __future__ import annotations

import pytest

from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from estimated_runs import estimated
from small_recipes import SMALL


@pytest.fixture(scope="module")
def run() -> Recipe:
    return load_recipe(Recipe, "tiny", SMALL)


@pytest.fixture(scope="module")
def ctx(run: Recipe) -> TrainingContext:
    return estimated(run)
