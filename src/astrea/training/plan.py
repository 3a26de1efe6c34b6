"""The stages of a run as data: align (one phase per expert, then all together), fuse, tune."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from astrea.recipes.recipe import Run
from astrea.training.context import Workshop
from astrea.training.loop import Objective, Schedule
from astrea.training.stages.align import AlignObjective
from astrea.training.stages.instruct import FuseObjective
from astrea.training.stages.next_token import NextTokenAlignObjective


@dataclass(frozen=True, slots=True)
class Plan:
    """One stage (or phase of a stage) to run."""

    name: str
    schedule: Schedule
    build: Callable[[Workshop], Objective]


def align_phases(run: Run) -> list[str | None]:
    """Who joins in each phase of align; None = all experts together."""
    names: list[str | None] = list(run.experts)
    if run.align.kind == "next_token":
        return names
    return [*names, None] if run.align.progressive else [None]


def align_objective(shop: Workshop, phase: int, offset: int) -> Objective:
    """What a phase of align learns; ``offset`` is the number of align's steps before it."""
    joining = align_phases(shop.run)[phase]
    if shop.run.align.kind == "next_token" and joining:
        return NextTokenAlignObjective(shop, joining=joining, offset=offset)
    aligned = list(shop.run.experts)[:phase] if joining else []
    return AlignObjective(shop, joining=joining, aligned=aligned, offset=offset)


def plan_stages(run: Run) -> list[Plan]:
    """Stages as data: align (one phase per expert, then all together), fuse, tune."""
    plans: list[Plan] = []
    phases = align_phases(run)
    done = 0
    for number, joining in enumerate(phases):
        steps = run.align.steps * (number + 1) // len(phases) - done
        plans.append(
            Plan(
                f"align/{joining or 'joint'}",
                run.align.schedule(steps),
                lambda shop, n=number, o=done: align_objective(shop, n, o),  # type: ignore[misc]
            )
        )
        done += steps
    start, end = (run.model.residual_start, run.model.residual_end) if run.model.residual else (1.0, 1.0)
    plans.append(
        Plan("fuse", run.fuse.schedule(), lambda s: FuseObjective(s, "fuse", run.fuse, offset=0, keep=(start, end)))
    )
    plans.append(
        Plan(
            "tune",
            run.tune.schedule(),
            lambda s: FuseObjective(s, "tune", run.tune, offset=run.fuse.steps * run.fuse.accumulate, keep=(end, end)),
        )
    )
    return [plan for plan in plans if plan.schedule.steps > 0]
