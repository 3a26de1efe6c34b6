"""A training run from recipe to model folder: stages in order, checkpoints, resume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.memory import give_back, peak_told
from astrea.common.paths import file_guard, is_file, read_json
from astrea.common.progress import SILENT, Reporter
from astrea.common.quiet import quiet
from astrea.confidence.estimator import Doubt, save_doubt
from astrea.data.feature_cache import FeatureCache
from astrea.data.worlds import open_world
from astrea.evaluation.own_data.confidence import doubt_of_records
from astrea.language.low_rank import merge
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import RECIPE
from astrea.training.acceleration import accelerated
from astrea.training.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    restore_optimizer,
    rng_state,
    save_checkpoint,
)
from astrea.training.components import SHIPPED, Assembled, never_warmed_up, random_weights
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed, process_group
from astrea.training.fsdp import sharded
from astrea.training.identity import config_hash, refuse_another
from astrea.training.log import TrainLog
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.plan import Plan, plan_stages
from astrea.training.resume import frozen_experts, goes_on, has_checkpoints, newest, restore, snapshot, start_alike
from astrea.training.run_folder import locked_folder, write_recipe
from astrea.training.sources import training_data, validation_data
from astrea.training.start import beginning
from astrea.training.stopping import Interrupted, how_to_go_on, stop_on_signal
from astrea.training.trainable import describe_model, describe_trainable
from astrea.training.validation import Validation

Observe = Callable[[TrainingContext, str, int, float], None]
"""Told after every optimizer step: the workshop, the stage, the steps done in it, the seconds trained so far."""

KEPT = "language.json"
"""What a run's pretrained language model still says of plain sentences: assembled, and trained."""

NOT_TRAINING = ("pretrain", "features", "waiting", "validation")
"""Entries of a run's clock that are no training of their own: spent before it starts, or (steps that wait for their
batches) already in the stages'."""


def is_finished(recipe: Recipe, folder: Path) -> bool:
    """Whether this run's last step has been done, and its model and its times been written."""
    last = f"step-{sum(plan.schedule.steps for plan in plan_stages(recipe)):08d}"
    there = (folder / "checkpoints" / last / "manifest.json", folder / "model" / "config.json", folder / "seconds.json")
    return all(is_file(path) for path in there)


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    observe: Observe | None = None,
    report: Reporter = SILENT,
) -> Path:
    """Run every stage and write ``folder/model``; returns that path.

    Under torchrun the processes share the work (see `astrea.training.distributed`); each calls this with the same
    arguments but for ``report`` and ``observe``, and rank 0 alone writes.

    Args:
        resume: go on from the newest valid checkpoint (or start if there is none). When torchrun has restarted the
            processes of a run, they do so unasked.
        cache: where expert features are kept; ``folder.parent / "cache"`` by default.
        observe: called after every optimizer step, with gradients still there; its time is no training time. It must
            leave the workshop and the random state as they are.

    Raises:
        AstreaError: anything the user can correct, such as another run that is at work in the folder.
        Interrupted: SIGINT or SIGTERM; a checkpoint has been saved.
    """
    torch.set_num_threads(recipe.threads)
    with process_group(recipe.runtime) as ranks, locked_folder(folder, ranks=ranks, report=report):
        train_with(ranks, recipe, folder, resume=resume, cache=cache, observe=observe, report=report)
        ranks.wait()
    return folder / "model"


def train_with(
    ranks: Distributed,
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool,
    cache: Path | None,
    observe: Observe | None,
    report: Reporter = SILENT,
) -> None:
    """`train`, as one of some processes."""
    if recipe.learning_experts and not ranks.single:
        raise AstreaError(
            f"{', '.join(recipe.learning_experts)} would learn in {ranks.world} processes, each with other pictures",
            "train with one process, or leave `experts` out of fuse.train and tune.train",
        )
    plans = plan_stages(recipe)
    for plan in plans:
        ranks.check_share(plan.schedule.batch, f"{plan.name.split('/')[0]}.batch")
    found = None
    if goes_on(folder, resume, ranks):
        if has_checkpoints(folder):
            refuse_another(recipe, folder / RECIPE)
        found = newest(folder, config_hash(recipe), ranks, report)
    if ranks.is_main and found is None:  # whoever has checkpoints keeps the recipe they belong to
        write_recipe(recipe, folder)
    clock = {} if found is None else dict(found.state["seconds"])
    started = time.perf_counter()
    parts = SHIPPED if recipe.pretrain == "shipped" else Path(recipe.pretrain)
    if recipe.pretrain == "scratch":
        parts = folder / "parts"
        with ranks.main_first():
            if ranks.is_main:
                open_world(recipe).pretrain(parts, report=report)
        clock["pretrain"] = time.perf_counter() - started + clock.get("pretrain", 0.0)
    made = load(recipe, parts, folder if ranks.is_main else None, report)
    model, tokenizer, _ = made
    kept = FeatureCache(cache or folder.parent / "cache")
    if recipe.distill is not None:
        with ranks.main_first():
            seconds = open_world(recipe).distill(model.experts, parts, folder / "student", cache=kept, report=report)
        clock["distill"] = seconds
    started = time.perf_counter()
    data = training_data(recipe, model, tokenizer, ranks, cache=kept, report=report)
    clock["features"] = time.perf_counter() - started + clock.get("features", 0.0)
    ctx = TrainingContext(recipe, model, tokenizer, data, ranks)
    validation = validation_of(ctx, folder, kept, report)
    first, at = 0, 0
    if found is not None:
        first, at = int(found.state["stage"]), int(found.state["step"])
        restore(ctx, found)
        report.say(f"resuming from {found.path.name}")
    start_alike(ctx)
    aligns = recipe.align.kind == "contrast" and any(plan.name.startswith("align") for plan in plans[first:])
    if aligns:  # the language model is still what it started as, and as frozen as the experts
        started = time.perf_counter()
        with ranks.main_first():
            ctx.keep_states(kept, report.track, report.say)
        clock["features"] += time.perf_counter() - started
    with TrainLog(folder) if ranks.is_main else nullcontext() as log, stop_on_signal(tells=ranks.is_main) as stopping:
        if log is not None and (amiss := log.truncate_after(0 if found is None else found.step)):
            report.say(amiss)
        for number, plan in enumerate(plans):
            if number < first:
                continue
            before = sum(p.schedule.steps for p in plans[:number])
            start = at if number == first else 0
            run_stage(ctx, plan, number, before, start, found if start else None, folder / "checkpoints", log, clock,
                      stopping, observe, validation, report)  # fmt: skip
    if validation is not None and (best := validation.take_best()):
        report.say(best)
    ctx.model.eval()
    doubt = doubt_of_records(ctx, report)
    if ranks.is_main:
        write_finished(ctx, made, doubt, folder, clock, report)


def load(recipe: Recipe, parts: Path, folder: Path | None, report: Reporter) -> Assembled:
    """What the stages start from, and what is said of it; ``folder``: of the run, for the process that leads."""
    if invented := random_weights(recipe):
        report.say(invented)
    report.track("loading the model", 0, 1)
    made = beginning(recipe, parts)
    report.track("loading the model", 1, 1)
    report.say(describe_model(made[0]))
    if lost := never_warmed_up(recipe, made[0].config.text_config):
        report.say(lost)
    tell_language(made, folder, "assembled", report)
    return made


def validation_of(ctx: TrainingContext, folder: Path, cache: FeatureCache, report: Reporter) -> Validation | None:
    """What measures the held-out loss of a run in ``folder``, if its recipe names held-out data."""
    data = validation_data(ctx.recipe, ctx.model, ctx.tokenizer, ctx.ranks, cache=cache, report=report)
    return None if data is None else Validation(ctx, data, folder / "best")


def write_finished(
    ctx: TrainingContext, made: Assembled, doubt: Doubt | None, folder: Path, clock: dict[str, float], report: Reporter
) -> None:
    """What a run leaves when its last step is done: the model and the seconds that everything took."""
    write_model(ctx, folder / "model")
    if doubt is not None:
        with file_guard(folder):
            save_doubt(doubt, folder / "model")
    tell_language(made, folder, "trained", report)
    with file_guard(folder):
        write_json_atomic(folder / "seconds.json", {name: round(s, 2) for name, s in clock.items()})
    report.say(", ".join(filter(None, [f"trained: {folder / 'model'}", peak_told()])))


def tell_language(made: Assembled, folder: Path | None, when: str, report: Reporter) -> None:
    """Say, and note in ``folder/language.json``, what a pretrained language model still says of plain sentences."""
    kept = made.kept()
    if kept is None:
        return
    report.say(f"{when}: {kept.sentence()}")
    if folder is not None:
        with file_guard(folder):
            path = folder / KEPT
            before = read_json(path) if is_file(path) and when != "assembled" else {}
            write_json_atomic(path, before | {when: kept.as_dict()})


def run_stage(
    ctx: TrainingContext,
    plan: Plan,
    number: int,
    before: int,
    start: int,
    found: Checkpoint | None,
    checkpoints: Path,
    log: TrainLog | None,
    clock: dict[str, float],
    stopping: Callable[[], bool],
    observe: Observe | None,
    validation: Validation | None,
    report: Reporter,
) -> None:
    """One stage, from its ``start`` step; leaves a checkpoint that points at the next stage."""
    objective = begin(ctx, plan, report)
    runtime, ranks = ctx.recipe.runtime, ctx.ranks
    stage_name = plan.name.split("/")[0]
    spent, began = clock.get(stage_name, 0.0), time.perf_counter()

    def save(stage: int, step: int) -> None:
        clock[stage_name] = spent + time.perf_counter() - began
        at = before + (step or plan.schedule.steps)
        keep(ctx, checkpoints, at, {"stage": stage, "step": step, "seconds": clock}, optimizer if step else None)

    def look(done: int) -> None:
        nonlocal began
        paused = time.perf_counter()
        clock[stage_name] = spent + paused - began
        observe(ctx, plan.name, done, sum(s for name, s in clock.items() if name not in NOT_TRAINING))  # type: ignore[misc]
        began += time.perf_counter() - paused

    def validate(done: int) -> dict[str, float]:
        nonlocal began
        if validation is None:
            return {}
        before_it = validation.seconds
        found = validation.figures(plan.name, done, plan.schedule.steps, before + done)
        took = validation.seconds - before_it
        began, clock["validation"] = began + took, clock.get("validation", 0.0) + took
        return found

    def on_step(step: int, figures: dict[str, float]) -> None:
        done = step + 1
        measured = validate(done)
        if log is not None:
            log.write(before + done, {"stage": plan.name, **figures, **measured})
        note = "".join(f", {name} {value:.3f}" for name, value in measured.items())
        report.track(plan.name, done, plan.schedule.steps, f"loss {figures['loss']:.3f}{note}")
        if observe is not None:
            look(done)
        if done == plan.schedule.steps:
            return
        due = plan.schedule.save_every and done % plan.schedule.save_every == 0
        # A signal to one process stops all of them, after the same step.
        stop = ranks.any(stopping())
        if due or stop:
            save(number, done)
        if stop:
            raise Interrupted(f"stopped at {plan.name}, step {done}; {how_to_go_on(checkpoints.parent)}")

    with sharded(ctx.model, ranks, runtime.llm == "fsdp"):
        optimizer = build_optimizer(objective, plan.schedule)
        if found is not None:
            restore_optimizer(optimizer, found.tensors["optimizer"], found.state["optimizer"])
            ctx.contrast.queue.load_state_dict(found.tensors["queue"])
        with accelerated(ctx.model.language_model, runtime, ranks.device):
            waited = run_steps(objective, plan.schedule, optimizer, start=start, on_step=on_step, ranks=ranks)
        clock["waiting"] = clock.get("waiting", 0.0) + waited
        save(number + 1, 0)
    give_back()
    if ranks.any(stopping()):
        raise Interrupted(f"stopped after {plan.name}; {how_to_go_on(checkpoints.parent)}")


def begin(ctx: TrainingContext, plan: Plan, report: Reporter) -> Objective:
    """A stage's objective; what learns in it, and nothing else, has gradients from now on."""
    objective = plan.build(ctx)
    learns = {id(p) for _, p, _ in objective.trainable()}
    for module in (ctx.model, ctx.contrast, ctx.words):
        for parameter in module.parameters():
            parameter.requires_grad_(id(parameter) in learns)
    report.say(f"{plan.name} {describe_trainable(ctx.model)}")
    ctx.model.train()
    return objective


def keep(
    ctx: TrainingContext, checkpoints: Path, at: int, where: dict[str, Any], optimizer: torch.optim.AdamW | None
) -> None:
    """Write the checkpoint of step ``at`` of the run; every rank must call. ``where``: stage, step and seconds."""
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
    # Whoever ends early makes torchrun end the others, and rank 0 may still be writing.
    ctx.ranks.wait()


def write_model(ctx: TrainingContext, folder: Path) -> None:
    """The finished model with its processor: one self-describing folder."""
    ctx.model.eval()
    language = ctx.recipe.llm
    if language.low_rank is not None and language.low_rank.merge:
        merge(ctx.model)
    processor = AstreaProcessor(
        image_processor=AstreaImageProcessor(image_size=ctx.model.config.image_size),
        tokenizer=ctx.tokenizer,
        num_visual_tokens=ctx.model.num_visual_tokens,
    )
    with file_guard(folder), quiet():
        ctx.model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "recipe.json").write_text(json.dumps(ctx.recipe.model_dump(), indent=2))
