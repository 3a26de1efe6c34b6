"""Real steps of an objective, and what of a training context they have moved."""

from __future__ import annotations

import math

import torch

from astrea.recipes.recipe import Schedule
from astrea.training.context import TrainingContext
from astrea.training.loop import Objective, build_optimizer, run_steps
from own_contexts import only_learning


def state_of(ctx: TrainingContext) -> dict[str, torch.Tensor]:
    """Every tensor of the model and of its companions in training."""
    parts = {"": ctx.model, "contrast.": ctx.contrast, "words.": ctx.words}
    return {name + k: v.clone() for name, part in parts.items() for k, v in part.state_dict().items()}


def take_steps(
    ctx: TrainingContext, objective: Objective, stage: Schedule, steps: int = 3
) -> tuple[set[str], set[str]]:
    """Run a few real steps; returns the names of what `trainable` promises without ever a gradient, and what moved."""
    promised = only_learning(ctx, objective)
    schedule = stage.lasting(steps)
    reached: set[str] = set()

    def on_step(step: int, figures: dict[str, float]) -> None:
        assert all(math.isfinite(v) for v in figures.values())
        reached.update(n for n, p, _ in objective.trainable() if p.grad is not None and p.grad.abs().sum() > 0)

    before = state_of(ctx)
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=on_step)
    moved = {name for name, value in state_of(ctx).items() if not torch.equal(value, before[name])}
    return promised - reached, moved


def only(moved: set[str], *allowed: str) -> bool:
    """Whether all names begin with one of some beginnings."""
    return all(name.startswith(allowed) for name in moved)
