"""One stage of a run after another: steps, log, validation, checkpoints, and a stop between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.memory import give_back
from astrea.common.progress import SILENT, Reporter
from astrea.common.terminal import counted
from astrea.training.acceleration import accelerated
from astrea.training.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    restore_optimizer,
    rng_state,
    save_checkpoint,
)
from astrea.training.context import TrainingContext
from astrea.training.fsdp import sharded
from astrea.training.identity import config_hash
from astrea.training.log import TrainLog
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.plan import Plan
from astrea.training.resume import frozen_experts, snapshot
from astrea.training.stopping import Interrupted, how_to_go_on
from astrea.training.trainable import describe_trainable, train_only
from astrea.training.validation import Validation

Observe = Callable[[TrainingContext, str, int, float], None]
"""Called after every optimizer step with the context, the stage, the steps done in it, the seconds trained so far."""

NOT_TRAINING = ("pretrain", "features", "waiting", "validation")
"""Entries of a run's clock that are no training of their own: spent before it starts, or (steps that wait for their
batches) already in the stages'."""


@dataclass
class StageRunner:
    """Runs the stages of a run in ``folder``.

    clock: seconds by what they were spent on, updated as stages run. log: None on processes that do not write.
    stopping: whether a signal asks to stop. validation: None without held-out data. skipped: steps that were left out
    because a stage ended early.
    """

    ctx: TrainingContext
    folder: Path
    clock: dict[str, float]
    stopping: Callable[[], bool]
    log: TrainLog | None = None
    observe: Observe | None = None
    validation: Validation | None = None
    report: Reporter = SILENT
    skipped: int = 0

    def run(self, plans: list[Plan], found: Checkpoint | None) -> None:
        """Every stage that is left; the first one from the step that ``found`` was written at.

        Raises:
            Interrupted: a signal asked to stop; a checkpoint has been saved.
        """
        first, start = (0, 0) if found is None else (int(found.state["stage"]), int(found.state["step"]))
        give_back()  # what preparing has freed: a restored checkpoint, answers that the language model gave
        for number in range(first, len(plans)):
            before = sum(plan.schedule.steps for plan in plans[:number])
            self.run_stage(plans[number], number, before, found if number == first and start else None)

    def run_stage(self, plan: Plan, number: int, before: int, found: Checkpoint | None) -> None:
        """Stage ``number`` (``before``: steps of the run before it), from its start or from where ``found`` was
        written in it. Leaves a checkpoint that points at the next stage."""
        ctx = self.ctx
        objective = self.begin(plan)
        if objective.idle:
            self.report.say(f"{plan.name}: nothing to learn, so no step is taken")
            _Steps(self, plan, number, before, None).save(number + 1, 0)
            return
        with sharded(ctx.model, ctx.ranks, ctx.recipe.runtime.llm == "fsdp"):
            optimizer = build_optimizer(objective, plan.schedule)
            if found is not None:
                restore_optimizer(optimizer, found.tensors["optimizer"], found.state["optimizer"])
                ctx.contrast.queue.load_state_dict(found.tensors["queue"])
            steps = _Steps(self, plan, number, before, optimizer)
            start = 0 if found is None else int(found.state["step"])
            with accelerated(ctx.model.language_model, ctx.recipe.runtime, ctx.ranks.device):
                waited = run_steps(
                    objective, plan.schedule, optimizer, start=start, on_step=steps.after, ranks=ctx.ranks
                )
            self.clock["waiting"] = self.clock.get("waiting", 0.0) + waited
            steps.save(number + 1, 0)
        give_back()
        if ctx.ranks.any(self.stopping()):
            raise Interrupted(f"stopped after {plan.name}; {how_to_go_on(self.folder)}")

    def begin(self, plan: Plan) -> Objective:
        """A stage's objective; what learns in it, and nothing else, has gradients from now on."""
        ctx = self.ctx
        objective = plan.build(ctx)
        train_only((p for _, p, _ in objective.trainable()), (ctx.model, ctx.contrast, ctx.words))
        self.report.say(f"{plan.name} {describe_trainable(ctx.model)}")
        ctx.model.train()
        return objective


class _Steps:
    """What happens after each step of one stage, and its part of the clock."""

    def __init__(
        self, runner: StageRunner, plan: Plan, number: int, before: int, optimizer: torch.optim.AdamW | None
    ) -> None:
        self.runner, self.plan, self.number, self.before, self.optimizer = runner, plan, number, before, optimizer
        self.name = plan.name.split("/")[0]
        self.spent, self.began = runner.clock.get(self.name, 0.0), time.perf_counter()

    def after(self, step: int, figures: dict[str, float]) -> bool:
        """After step ``step`` (0-based) of the stage: log, observe, and save where that is due; whether it was the last
        one because the validation loss falls no more."""
        runner, plan, done = self.runner, self.plan, step + 1
        measured = self.validate(done)
        enough = runner.validation is not None and runner.validation.enough
        early = enough and plan.name == "tune" and done < plan.schedule.steps
        if runner.log is not None:
            ended = {"ended_early": True} if early else {}
            runner.log.write(self.before + done, {"stage": plan.name, **figures, **measured, **ended})
        note = "".join(f", {name} {value:.3f}" for name, value in measured.items())
        runner.report.track(plan.name, done, plan.schedule.steps, f"loss {figures['loss']:.3f}{note}")
        if runner.observe is not None:
            self.watch(runner.observe, done)
        if early:
            self.end_early(done)
        if early or done == plan.schedule.steps:
            return early
        due = plan.schedule.save_every and done % plan.schedule.save_every == 0
        # A signal to one process stops all of them, after the same step.
        stop = runner.ctx.ranks.any(runner.stopping())
        if due or stop:
            self.save(self.number, done)
        if stop:
            raise Interrupted(f"stopped at {plan.name}, step {done}; {how_to_go_on(runner.folder)}")
        return False

    def end_early(self, done: int) -> None:
        """Say and note that the stage ends here, with steps left, since the validation loss falls no more."""
        runner, steps, validation = self.runner, self.plan.schedule.steps, self.runner.validation
        assert validation is not None
        runner.skipped += steps - done
        runner.report.track(self.plan.name, steps, steps)
        runner.report.say(
            f"{self.plan.name} ends at step {done} of {steps}: the validation loss has not fallen below "
            f"{validation.reached:.4f} for {counted(validation.since, 'measurement')} (data.patience)"
        )

    def validate(self, done: int) -> dict[str, float]:
        """The figures of validation, where they are due; its time is no training time."""
        validation, clock = self.runner.validation, self.runner.clock
        if validation is None:
            return {}
        seconds = validation.seconds
        found = validation.figures(self.plan.name, done, self.plan.schedule.steps, self.before + done)
        took = validation.seconds - seconds
        self.began, clock["validation"] = self.began + took, clock.get("validation", 0.0) + took
        return found

    def watch(self, observe: Observe, done: int) -> None:
        """Call the observer; its time is no training time."""
        paused, clock = time.perf_counter(), self.runner.clock
        clock[self.name] = self.spent + paused - self.began
        trained = sum(seconds for name, seconds in clock.items() if name not in NOT_TRAINING)
        observe(self.runner.ctx, self.plan.name, done, trained)
        self.began += time.perf_counter() - paused

    def save(self, stage: int, step: int) -> None:
        """A checkpoint that goes on with a step of a stage: of this one, or the beginning of the next."""
        runner = self.runner
        runner.clock[self.name] = self.spent + time.perf_counter() - self.began
        where = {"stage": stage, "step": step, "seconds": runner.clock, "skipped": runner.skipped}
        if runner.validation is not None:
            where["validation"] = runner.validation.state()
        at = self.before + (step or self.plan.schedule.steps)
        write_checkpoint(runner.ctx, runner.folder / "checkpoints", at, where, self.optimizer if step else None)


def write_checkpoint(
    ctx: TrainingContext, checkpoints: Path, at: int, where: dict[str, Any], optimizer: torch.optim.AdamW | None
) -> None:
    """Write the checkpoint of step ``at`` of the run; every process must call. ``where``: stage, step and seconds."""
    tensors, groups = ({}, {}) if optimizer is None else flatten_optimizer(optimizer)
    kept = snapshot(ctx)
    if ctx.ranks.is_main:
        experts = tensors_fingerprint(frozen_experts(ctx))
        save_checkpoint(
            checkpoints,
            at,
            {**kept, "optimizer": tensors},
            {**where, "optimizer": groups, "rng": rng_state(), "experts": experts},
            config_hash=config_hash(ctx.recipe),
        )
    # A process that ends early makes torchrun end the others, and rank 0 may still be writing.
    ctx.ranks.wait()
