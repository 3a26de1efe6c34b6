"""Training of seconds, for tests of whether something learns."""

from __future__ import annotations

from astrea.recipes.recipe import Schedule
from astrea.training.loop import Objective, build_optimizer, run_steps


def learn(objective: Objective, schedule: Schedule) -> tuple[list[float], set[str]]:
    """Train; returns the loss of every step, and the names of the parameters that a gradient has reached."""
    losses: list[float] = []
    reached: set[str] = set()

    def on_step(step: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        reached.update(name for name, p, _ in objective.trainable() if p.grad is not None and p.grad.abs().sum() > 0)

    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=on_step)
    return losses, reached
