"""A small run's context without weights, as the estimate has it, and the same with weights."""

from __future__ import annotations

import torch

from astrea.estimate.build import context_of, fake_context
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.training.context import TrainingContext

SAMPLES = 12


def estimated(recipe: Recipe) -> TrainingContext:
    """Without weights."""
    return fake_context(recipe, samples=SAMPLES)


def with_weights(recipe: Recipe) -> TrainingContext:
    """The same with random ones."""
    torch.manual_seed(0)
    model, tokenizer = assemble(recipe, None)
    return context_of(recipe, model, tokenizer, samples=SAMPLES)
