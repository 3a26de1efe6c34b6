"""A training run from recipe to model folder: stages in order, checkpoints, resume."""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrea.config import Run
from astrea.data.cache import FeatureCache
from astrea.data.world import load_world
from astrea.errors import AstreaError
from astrea.fingerprint import tensors_fingerprint
from astrea.processor import AstreaImageProcessor, AstreaProcessor
from astrea.progress import Reporter
from astrea.training.align import AlignObjective
from astrea.training.checkpoint import (
    Checkpoint,
    file_guard,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    rng_state,
    save_checkpoint,
    set_rng_state,
    write_json_atomic,
)
from astrea.training.distill import teach
from astrea.training.fuse import FuseObjective
from astrea.training.log import TrainLog
from astrea.training.loop import Objective, Schedule, build_optimizer, run_steps
from astrea.training.next_token import NextTokenAlignObjective
from astrea.training.parts import SHIPPED, assemble
from astrea.training.pretrain import pretrain
from astrea.training.workshop import Workshop

Observe = Callable[[Workshop, str, int, float], None]
"""Told after every optimizer step: the workshop, the stage, the steps done in it, the seconds trained so far."""

NOT_TRAINING = ("pretrain", "features")
"""Entries of a run's clock that are spent before its own training starts."""


class Interrupted(Exception):
    """Training was asked to stop, and has saved where it is."""


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


def config_hash(run: Run) -> str:
    """Identifies a recipe; a checkpoint of another one is refused."""
    return hashlib.sha256(run.model_dump_json().encode()).hexdigest()[:16]


def has_checkpoints(folder: Path) -> bool:
    """Whether a run in ``folder`` has got as far as its first checkpoint."""
    return any((folder / "checkpoints").glob("step-*"))


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

    Args:
        resume: go on from the newest valid checkpoint (or start if there is none).
        cache: where expert features are kept; ``folder.parent / "cache"`` by default.
        observe: called after every optimizer step, with gradients still there; its time is no training time. It must
            leave the workshop and the random state as they are.

    Raises:
        AstreaError: anything the user can mend. Interrupted: SIGINT or SIGTERM; a checkpoint has been saved.
    """
    torch.set_num_threads(run.threads)
    checkpoints = folder / "checkpoints"
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
    digest = config_hash(run)
    found = load_checkpoint(checkpoints, config_hash=digest, on_warning=report.say) if resume else None
    if not resume and has_checkpoints(folder):
        raise AstreaError(
            f"{folder} already holds a run's checkpoints", "continue it with --resume, or choose another folder"
        )
    clock = {} if found is None else dict(found.state["seconds"])
    started = time.perf_counter()
    parts = SHIPPED if run.pretrain == "shipped" else Path(run.pretrain)
    if run.pretrain == "scratch":
        parts = pretrain(run, folder / "parts", report=report)
        clock["pretrain"] = time.perf_counter() - started + clock.get("pretrain", 0.0)
    model, tokenizer = assemble(run, parts)
    kept = FeatureCache(cache or folder.parent / "cache")
    if run.distill is not None:
        clock["distill"] = teach(run, run.distill, model.experts, parts, folder / "student", cache=kept, report=report)
    started = time.perf_counter()
    data = load_world(
        model.experts,
        run.world,
        count=run.data.train_scenes,
        per_scene=run.data.questions_per_scene,
        cache=kept,
        progress=report.track,
        notify=report.say,
    )
    clock["features"] = time.perf_counter() - started + clock.get("features", 0.0)
    shop = Workshop(run, model, tokenizer, data)
    first, at = 0, 0
    if found is not None:
        first, at = int(found.state["stage"]), int(found.state["step"])
        restore(shop, found)
        report.say(f"resuming from {found.path.name}")
    plans = plan_stages(run)
    aligns = run.align.kind == "contrast" and any(plan.name.startswith("align") for plan in plans[first:])
    if aligns:  # the language model is still what it started as, and as frozen as the experts
        started = time.perf_counter()
        shop.keep_states(kept, report.track, report.say)
        clock["features"] += time.perf_counter() - started
    with TrainLog(folder) as log, stop_on_signal() as stopping:
        log.truncate_after(0 if found is None else found.step)
        for number, plan in enumerate(plans):
            if number < first:
                continue
            before = sum(p.schedule.steps for p in plans[:number])
            start = at if number == first else 0
            run_stage(shop, plan, number, before, start, found if start else None, checkpoints, log, clock, stopping,
                      observe, report)  # fmt: skip
    write_model(shop, folder / "model")
    with file_guard(folder):
        write_json_atomic(folder / "seconds.json", {name: round(s, 2) for name, s in clock.items()})
    return folder / "model"


def run_stage(
    shop: Workshop,
    plan: Plan,
    number: int,
    before: int,
    start: int,
    found: Checkpoint | None,
    checkpoints: Path,
    log: TrainLog,
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
    report.say(f"{plan.name}: {freeze_summary(shop)}")
    shop.model.train()
    optimizer = build_optimizer(objective, plan.schedule)
    if found is not None:
        restore_optimizer(optimizer, found.tensors["optimizer"], found.state["optimizer"])
        shop.contrast.queue.load_state_dict(found.tensors["queue"])
    stage_name = plan.name.split("/")[0]
    spent, began = clock.get(stage_name, 0.0), time.perf_counter()

    def save(stage: int, step: int) -> None:
        clock[stage_name] = spent + time.perf_counter() - began
        tensors, groups = flatten_optimizer(optimizer) if step else ({}, {})
        save_checkpoint(
            checkpoints,
            before + (step or plan.schedule.steps),
            {**snapshot(shop), "optimizer": tensors},
            {"stage": stage, "step": step, "optimizer": groups, "rng": rng_state(), "seconds": clock,
             "experts": tensors_fingerprint(shop.model.experts.state_dict())},
            config_hash=config_hash(shop.run),
        )  # fmt: skip

    def look(done: int) -> None:
        nonlocal began
        paused = time.perf_counter()
        clock[stage_name] = spent + paused - began
        observe(shop, plan.name, done, sum(s for name, s in clock.items() if name not in NOT_TRAINING))  # type: ignore[misc]
        began += time.perf_counter() - paused

    def on_step(step: int, figures: dict[str, float]) -> None:
        log.write(before + step + 1, {"stage": plan.name, **figures})
        report.track(plan.name, step + 1, plan.schedule.steps, f"loss {figures['loss']:.3f}")
        done = step + 1
        if observe is not None:
            look(done)
        if done == plan.schedule.steps:
            return
        due = plan.schedule.save_every and done % plan.schedule.save_every == 0
        if due or stopping():
            save(number, done)
        if stopping():
            raise Interrupted(f"stopped at {plan.name}, step {done}; {how_to_go_on(checkpoints.parent)}")

    run_steps(objective, plan.schedule, optimizer, start=start, on_step=on_step)
    save(number + 1, 0)
    if stopping():
        raise Interrupted(f"stopped after {plan.name}; {how_to_go_on(checkpoints.parent)}")


def how_to_go_on(folder: Path) -> str:
    """The command that continues a run."""
    return f"go on with: astrea train --resume {shlex.quote(str(folder))}"


def snapshot(shop: Workshop) -> dict[str, dict[str, Tensor]]:
    """Every tensor of a run that moves: the model without its frozen experts, the momentum copy, the queue, ..."""
    model = {k: v for k, v in shop.model.state_dict().items() if not k.startswith("experts.")}
    contrast = {k: v for k, v in shop.contrast.state_dict().items() if not k.startswith("queue.")}
    return {
        "model": model,
        "momentum": contrast,
        "queue": shop.contrast.queue.state_dict(),
        "words": shop.words.state_dict(),
        "contribution": shop.contributions.state_dict(),
    }


def restore(shop: Workshop, found: Checkpoint) -> None:
    """Put a snapshot back."""
    # The experts are frozen and not in the checkpoint: what was learned is only worth something with the same ones.
    if found.state["experts"] != tensors_fingerprint(shop.model.experts.state_dict()):
        raise AstreaError(
            f"{found.path}: was written with other experts than {shop.run.pretrain!r} now holds",
            "restore the parts that the run was started with, or start a new run in another folder",
        )
    missing, unexpected = shop.model.load_state_dict(found.tensors["model"], strict=False)
    if unexpected or [k for k in missing if not k.startswith("experts.")]:
        raise AstreaError(f"{found.path}: is of another model", "resume with the recipe that wrote it")
    shop.contrast.load_state_dict(found.tensors["momentum"], strict=False)
    shop.contrast.queue.load_state_dict(found.tensors["queue"])
    shop.words.load_state_dict(found.tensors["words"])
    shop.contributions.load_state_dict(found.tensors["contribution"])
    set_rng_state(found.state["rng"])


def freeze_summary(shop: Workshop) -> str:
    """What learns and what is frozen, part by part, in thousands of parameters."""
    learns: list[str] = []
    frozen: list[str] = []
    parts: dict[str, Any] = {
        "experts": shop.model.experts,
        **{f"adapter {n}": shop.model.alignment.adapters[n] for n in shop.model.experts.names},
        "heads": torch.nn.ModuleList([shop.model.alignment.picture_head, shop.model.alignment.text_head]),
        "fusion": shop.model.fusion,
        "language model": shop.model.language_model,
    }
    for name, part in parts.items():
        count = sum(p.numel() for p in part.parameters())
        some = any(p.requires_grad for p in part.parameters())
        (learns if some else frozen).append(f"{name} {count / 1000:.0f}k")
    return f"trainable [{', '.join(learns)}]  frozen [{', '.join(frozen)}]"


def write_model(shop: Workshop, folder: Path) -> None:
    """The finished model with its processor: one self-describing folder."""
    shop.model.eval()
    processor = AstreaProcessor(
        image_processor=AstreaImageProcessor(image_size=shop.model.config.image_size),
        tokenizer=shop.tokenizer,
        num_visual_tokens=shop.model.num_visual_tokens,
    )
    with file_guard(folder):
        shop.model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "recipe.json").write_text(json.dumps(shop.run.model_dump(), indent=2))


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """While open, SIGINT and SIGTERM ask for a stop at the next step's end; a second SIGINT stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: nothing to catch, the caller's own handling stays
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
