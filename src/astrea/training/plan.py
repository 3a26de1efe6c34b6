"""The stages of a run as data: align (one phase per expert, then all together), fuse, tune."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from astrea.recipes.recipe import Recipe, Schedule
from astrea.training.context import TrainingContext
from astrea.training.loop import Objective
from astrea.training.stages.align import AlignObjective
from astrea.training.stages.instruct import InstructObjective
from astrea.training.stages.next_token import NextTokenAlignObjective


@dataclass(frozen=True, slots=True)
class Plan:
    """One stage (or phase of a stage) to run."""

    name: str
    schedule: Schedule
    build: Callable[[TrainingContext], Objective]


def align_phases(recipe: Recipe) -> list[str | None]:
    """The expert that each phase of align adds; None = all experts together."""
    names: list[str | None] = list(recipe.experts)
    if recipe.align.kind == "next_token":
        return names
    return [*names, None] if recipe.align.progressive else [None]


def align_objective(ctx: TrainingContext, phase: int, offset: int) -> Objective:
    """What a phase of align learns; ``offset`` is the number of align's steps before it."""
    joining = align_phases(ctx.recipe)[phase]
    if ctx.recipe.align.kind == "next_token" and joining:
        return NextTokenAlignObjective(ctx, joining=joining, offset=offset)
    aligned = list(ctx.recipe.experts)[:phase] if joining else []
    return AlignObjective(ctx, joining=joining, aligned=aligned, offset=offset)


def plan_stages(recipe: Recipe) -> list[Plan]:
    """Stages as data: align (one phase per expert, then all together), fuse, tune."""
    plans: list[Plan] = []
    phases = align_phases(recipe)
    done = 0
    for number, joining in enumerate(phases):
        steps = recipe.align.steps * (number + 1) // len(phases) - done
        plans.append(
            Plan(
                f"align/{joining or 'joint'}",
                recipe.align.lasting(steps),
                lambda ctx, n=number, o=done: align_objective(ctx, n, o),  # type: ignore[misc]
            )
        )
        done += steps
    offset = recipe.fuse.steps * recipe.fuse.accumulate
    plans.append(Plan("fuse", recipe.fuse, lambda ctx: InstructObjective(ctx, "fuse", recipe.fuse, offset=0)))
    plans.append(Plan("tune", recipe.tune, lambda ctx: InstructObjective(ctx, "tune", recipe.tune, offset=offset)))
    return [plan for plan in plans if plan.schedule.steps > 0]
