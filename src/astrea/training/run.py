"""A training run from recipe to model folder: stages in order, checkpoints, resume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from astrea.config import Run
from astrea.data.cache import FeatureCache
from astrea.doubt.doubt import save_doubt
from astrea.doubt.records import doubt_of_records
from astrea.errors import AstreaError
from astrea.fingerprint import tensors_fingerprint
from astrea.language.low_rank import merge
from astrea.memory import peak_told
from astrea.paths import file_guard, is_file
from astrea.processor import AstreaImageProcessor, AstreaProcessor
from astrea.progress import Reporter
from astrea.quiet import quiet
from astrea.training.acceleration import accelerated
from astrea.training.align import AlignObjective
from astrea.training.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    restore_optimizer,
    rng_state,
    save_checkpoint,
    write_json_atomic,
)
from astrea.training.distill import teach
from astrea.training.distributed import Distributed, join
from astrea.training.folder import RECIPE, alone_in, write_recipe
from astrea.training.fuse import FuseObjective
from astrea.training.identity import config_hash, refuse_another
from astrea.training.learning import learning_told, model_told
from astrea.training.log import TrainLog
from astrea.training.loop import Objective, Schedule, build_optimizer, run_steps
from astrea.training.next_token import NextTokenAlignObjective
from astrea.training.parts import SHIPPED, Assembled, never_warmed_up, random_weights
from astrea.training.pretrain import pretrain
from astrea.training.resume import frozen_experts, goes_on, has_checkpoints, newest, restore, snapshot, start_alike
from astrea.training.sharding import sharded
from astrea.training.sources import training_data
from astrea.training.start import beginning
from astrea.training.stopping import Interrupted, how_to_go_on, stop_on_signal
from astrea.training.workshop import Workshop

Observe = Callable[[Workshop, str, int, float], None]
"""Told after every optimizer step: the workshop, the stage, the steps done in it, the seconds trained so far."""

KEPT = "language.json"
"""What a run's pretrained language model still says of plain sentences: assembled, and trained."""

NOT_TRAINING = ("pretrain", "features", "waiting")
"""Entries of a run's clock that are no training of their own: spent before it starts, or (steps that wait for their
batches) already in the stages'."""


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


def is_finished(run: Run, folder: Path) -> bool:
    """Whether this run's last step has been done, and its model and its times been written."""
    last = f"step-{sum(plan.schedule.steps for plan in plan_stages(run)):08d}"
    there = (folder / "checkpoints" / last / "manifest.json", folder / "model" / "config.json", folder / "seconds.json")
    return all(is_file(path) for path in there)


def train(
    run: Run,
    folder: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    observe: Observe | None = None,
    report: Reporter,
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
        AstreaError: anything the user can mend, such as another run that is at work in the folder. Interrupted: SIGINT
            or SIGTERM; a checkpoint has been saved.
    """
    torch.set_num_threads(run.threads)
    with join(run.machines) as ranks, alone_in(folder, ranks=ranks, report=report):
        train_with(ranks, run, folder, resume=resume, cache=cache, observe=observe, report=report)
        ranks.wait()
    return folder / "model"


def train_with(
    ranks: Distributed,
    run: Run,
    folder: Path,
    *,
    resume: bool,
    cache: Path | None,
    observe: Observe | None,
    report: Reporter,
) -> None:
    """`train`, as one of some processes."""
    if run.learning_experts and not ranks.alone:
        raise AstreaError(
            f"{', '.join(run.learning_experts)} would learn in {ranks.world} processes, each with other pictures",
            "train with one process, or leave `experts` out of fuse.train and tune.train",
        )
    plans = plan_stages(run)
    for plan in plans:
        ranks.check_share(plan.schedule.batch, f"{plan.name.split('/')[0]}.batch")
    found = None
    if goes_on(folder, resume, ranks):
        if has_checkpoints(folder):
            refuse_another(run, folder / RECIPE)
        found = newest(folder, config_hash(run), ranks, report)
    if ranks.leads and found is None:  # whoever has checkpoints keeps the recipe they belong to
        write_recipe(run, folder)
    clock = {} if found is None else dict(found.state["seconds"])
    started = time.perf_counter()
    parts = SHIPPED if run.pretrain == "shipped" else Path(run.pretrain)
    if run.pretrain == "scratch":
        parts = folder / "parts"
        with ranks.first():
            if ranks.leads:
                pretrain(run, parts, report=report)
        clock["pretrain"] = time.perf_counter() - started + clock.get("pretrain", 0.0)
    if invented := random_weights(run):
        report.say(invented)
    report.track("loading the model", 0, 1)
    made = beginning(run, parts)
    model, tokenizer, _ = made
    report.track("loading the model", 1, 1)
    report.say(model_told(model))
    if lost := never_warmed_up(run, model.config.text_config):
        report.say(lost)
    tell_language(made, folder if ranks.leads else None, "assembled", report)
    kept = FeatureCache(cache or folder.parent / "cache")
    if run.distill is not None:
        with ranks.first():
            seconds = teach(run, run.distill, model.experts, parts, folder / "student", cache=kept, report=report)
        clock["distill"] = seconds
    started = time.perf_counter()
    data = training_data(run, model, tokenizer, ranks, cache=kept, report=report)
    clock["features"] = time.perf_counter() - started + clock.get("features", 0.0)
    shop = Workshop(run, model, tokenizer, data, ranks)
    first, at = 0, 0
    if found is not None:
        first, at = int(found.state["stage"]), int(found.state["step"])
        restore(shop, found)
        report.say(f"resuming from {found.path.name}")
    start_alike(shop)
    aligns = run.align.kind == "contrast" and any(plan.name.startswith("align") for plan in plans[first:])
    if aligns:  # the language model is still what it started as, and as frozen as the experts
        started = time.perf_counter()
        with ranks.first():
            shop.keep_states(kept, report.track, report.say)
        clock["features"] += time.perf_counter() - started
    with TrainLog(folder) if ranks.leads else nullcontext() as log, stop_on_signal(tells=ranks.leads) as stopping:
        if log is not None and (amiss := log.truncate_after(0 if found is None else found.step)):
            report.say(amiss)
        for number, plan in enumerate(plans):
            if number < first:
                continue
            before = sum(p.schedule.steps for p in plans[:number])
            start = at if number == first else 0
            run_stage(shop, plan, number, before, start, found if start else None, folder / "checkpoints", log, clock,
                      stopping, observe, report)  # fmt: skip
    shop.model.eval()
    doubt = doubt_of_records(shop, report)
    if ranks.leads:
        write_model(shop, folder / "model")
        if doubt is not None:
            with file_guard(folder):
                save_doubt(doubt, folder / "model")
        tell_language(made, folder, "trained", report)
        with file_guard(folder):
            write_json_atomic(folder / "seconds.json", {name: round(s, 2) for name, s in clock.items()})
        report.say(", ".join(filter(None, [f"trained {len(plans)} stages and phases", peak_told()])))


def tell_language(made: Assembled, folder: Path | None, when: str, report: Reporter) -> None:
    """Say, and note in ``folder/language.json``, what a pretrained language model still says of plain sentences."""
    kept = made.kept()
    if kept is None:
        return
    report.say(f"{when}: {kept.sentence()}")
    if folder is not None:
        with file_guard(folder):
            path = folder / KEPT
            before = json.loads(path.read_text()) if path.is_file() and when != "assembled" else {}
            write_json_atomic(path, before | {when: kept.as_dict()})


def run_stage(
    shop: Workshop,
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
    report: Reporter,
) -> None:
    """One stage, from its ``start`` step; leaves a checkpoint that points at the next stage."""
    objective = plan.build(shop)
    learns = {id(p) for _, p, _ in objective.trainable()}
    for module in (shop.model, shop.contrast, shop.words):
        for parameter in module.parameters():
            parameter.requires_grad_(id(parameter) in learns)
    report.say(f"{plan.name} {learning_told(shop.model)}")
    shop.model.train()
    machines, ranks = shop.run.machines, shop.ranks
    stage_name = plan.name.split("/")[0]
    spent, began = clock.get(stage_name, 0.0), time.perf_counter()

    def save(stage: int, step: int) -> None:
        clock[stage_name] = spent + time.perf_counter() - began
        tensors, groups = flatten_optimizer(optimizer) if step else ({}, {})
        kept = snapshot(shop)
        if ranks.leads:
            save_checkpoint(
                checkpoints,
                before + (step or plan.schedule.steps),
                {**kept, "optimizer": tensors},
                {"stage": stage, "step": step, "optimizer": groups, "rng": rng_state(), "seconds": clock,
                 "experts": tensors_fingerprint(frozen_experts(shop))},
                config_hash=config_hash(shop.run),
            )  # fmt: skip
        # Whoever ends early makes torchrun end the others, and rank 0 may still be writing.
        ranks.wait()

    def look(done: int) -> None:
        nonlocal began
        paused = time.perf_counter()
        clock[stage_name] = spent + paused - began
        observe(shop, plan.name, done, sum(s for name, s in clock.items() if name not in NOT_TRAINING))  # type: ignore[misc]
        began += time.perf_counter() - paused

    def on_step(step: int, figures: dict[str, float]) -> None:
        if log is not None:
            log.write(before + step + 1, {"stage": plan.name, **figures})
        report.track(plan.name, step + 1, plan.schedule.steps, f"loss {figures['loss']:.3f}")
        done = step + 1
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

    with sharded(shop.model, ranks, machines.language == "fsdp"):
        optimizer = build_optimizer(objective, plan.schedule)
        if found is not None:
            restore_optimizer(optimizer, found.tensors["optimizer"], found.state["optimizer"])
            shop.contrast.queue.load_state_dict(found.tensors["queue"])
        with accelerated(shop.model.language_model, machines, ranks.device):
            waited = run_steps(objective, plan.schedule, optimizer, start=start, on_step=on_step, ranks=ranks)
        clock["waiting"] = clock.get("waiting", 0.0) + waited
        save(number + 1, 0)
    if ranks.any(stopping()):
        raise Interrupted(f"stopped after {plan.name}; {how_to_go_on(checkpoints.parent)}")


def write_model(shop: Workshop, folder: Path) -> None:
    """The finished model with its processor: one self-describing folder."""
    shop.model.eval()
    language = shop.run.language
    if language.low_rank is not None and language.low_rank.merge:
        merge(shop.model)
    processor = AstreaProcessor(
        image_processor=AstreaImageProcessor(image_size=shop.model.config.image_size),
        tokenizer=shop.tokenizer,
        num_visual_tokens=shop.model.num_visual_tokens,
    )
    with file_guard(folder), quiet():
        shop.model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "recipe.json").write_text(json.dumps(shop.run.model_dump(), indent=2))
